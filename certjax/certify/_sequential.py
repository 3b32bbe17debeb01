"""Certification that stops as soon as enough samples are in.

"Is the radius at least r?" is the question whether p_A >= p0, where p0 is the least probability
whose radius is r. Most images are far from it on one side or the other: some hundred samples
decide them. The tests (`boundary`) stay valid though one looks again and again.
"""

from typing import Any, NamedTuple

import numpy as np

from certjax.certify import _votes
from certjax.certify._boundaries import boundary, looks_of
from certjax.certify._certificate import ABSTAIN, certificate
from certjax.certify._confidence_sequence import tolerance_met
from certjax.certify._randomized import ESTIMATION, SELECTION, smoothing_program

_SEQUENCES = ('betting', 'union-bound')


class Decision(NamedTuple):
  """What a sequential test found of one image.

  Attributes:
    predict: the class, or ABSTAIN where no radius is proved.
    radius: the proved radius, 0 where there is none.
    candidate: the class under test.
    count: votes for it among the samples of the estimate that were drawn.
    samples: all samples drawn, those of the selection included.
  """

  predict: int
  radius: float
  candidate: int
  count: int
  samples: int


class SequentialRule(NamedTuple):
  """When to stop and what is proved then; made by `sequential_rule`.

  Attributes:
    plan: `(label, x) -> ` the engine's plan of an image, whose result is a `Decision`.
    max_samples: the most samples of the estimate.
    radii: float64[R], the radii under test, ascending; None in tolerance mode.
  """

  plan: Any
  max_samples: int
  radii: Any


def sequential(
  key, model_fn, smoothing, x, *, index=None, radii=None, max_samples=100_000, alpha=1e-3,
  method=None, tolerance=None, labels=None, num_selection=100, beta=None,
  chunk=1000, mesh=None, slots=None,
):  # fmt: skip
  """Certifies images with as few samples as the question allows.

  Args:
    key: one typed key; its noise is that of `sampled` with the same key.
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`.
    smoothing: a `Smoothing`.
    x: float[B, ...], images.
    index: int[B], data set indices; default 0..B-1.
    radii: float[R], the radii in question. The certificate is the largest of which it and all smaller ones
      are proved: the first false one is claimed with probability at most alpha, so all together
      are wrong with probability at most alpha an image, without a correction for their number.
    max_samples: most samples of the estimate an image.
    alpha: failure probability, per image.
    method: test of each radius: 'group-sequential' (default), 'betting', 'union-bound',
      'horvath' or 'fixed' (see `boundary`). In tolerance mode 'betting' (default) or 'union-bound'.
    tolerance: instead of `radii`: stop when the radius is within this fraction of the best that
      more samples could prove.
    labels: int[B], the classes to test, fixed without a look at any sample (say, the labels, to
      measure certified accuracy). None selects the class by samples of its own.
    num_selection: samples of that selection.
    beta: probability to give up although the radius holds; see `boundary`.
    chunk, mesh, slots: as in `votes`.

  Returns:
    (`Certificate`, int64[B]: the samples that each image took, selection included).

  Raises:
    ValueError: on bad arguments, among them a radius that `max_samples` can never prove.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from certjax import smoothing
    >>> model_fn = lambda x: jnp.stack([x[:, 0], -x[:, 0]], axis=1)
    >>> noise = smoothing.gaussian(sigma=0.5)
    >>> proof, samples = sequential(jax.random.key(0), model_fn, noise, jnp.array([[1.0], [0.1]]),
    ...                             radii=[0.25, 0.5], max_samples=10_000, chunk=100)
    >>> proof.label.tolist(), proof.radius.tolist(), bool((samples < 1000).all())
    ([0, -1], [0.5, 0.0], True)

  References:
    Voracek 2024; Horvath, Mueller, Fischer & Vechev 2022 (arXiv:2106.06946).
  """
  rule = sequential_rule(
    smoothing, radii=radii, max_samples=max_samples, alpha=alpha, method=method,
    tolerance=tolerance, num_selection=None if labels is not None else num_selection, beta=beta,
  )  # fmt: skip
  x, index = _votes.check(smoothing, x, index, max_samples, chunk)
  program = smoothing_program(key, model_fn, smoothing, x.shape[1:], chunk)
  if labels is None:
    labels = [None] * len(x)
  else:
    labels = _votes.check_classes('labels', labels, len(x), program.bins[0])
  plans = iter([rule.plan(label, image) for label, image in zip(labels, x, strict=True)])
  options = {'chunk': chunk, 'mesh': mesh, 'slots': slots}
  found = _votes.each(program, x, index, lambda: next(plans), **options)
  proof = certificate([one.predict for one in found], [one.radius for one in found])
  return proof, np.array([one.samples for one in found], np.int64)


def sequential_rule(
  smoothing, *, radii=None, max_samples=100_000, alpha=1e-3, method=None, tolerance=None,
  num_selection: int | None = 100, beta=None,
) -> SequentialRule:  # fmt: skip
  """The host part of `sequential`.

  Args:
    smoothing: a `Smoothing`.
    radii, max_samples, alpha, method, tolerance, beta: as in `sequential`.
    num_selection: samples that select the class; None where it is fixed in advance.

  Returns:
    A `SequentialRule`.

  Raises:
    ValueError: on bad arguments, among them a radius that `max_samples` can never prove.

  Example:
    >>> from certjax import smoothing
    >>> rule = sequential_rule(smoothing.gaussian(sigma=0.25), radii=[0.1, 0.5], max_samples=1000)
    >>> rule.radii, rule.max_samples
    (array([0.1, 0.5]), 1000)
  """
  if (radii is None) == (tolerance is None):
    raise ValueError('give either `radii` to decide, or a `tolerance` of the radius.')
  if num_selection is not None and num_selection < 1:
    raise ValueError(f'`num_selection` must be at least 1, got {num_selection}.')
  if radii is not None:
    radii = _check_radii(radii)
    judge = _radius_judge(smoothing, radii, method, max_samples, alpha, beta)
  else:
    judge = _tolerance_judge(smoothing, tolerance, method, max_samples, alpha, beta)
  return SequentialRule(lambda label, x: _plan(judge, num_selection, label, x), max_samples, radii)


def probability_of_radius(smoothing, radius) -> float:
  """The least p whose radius is at least `radius`, rounded up: proving it proves the radius.

  Example:
    >>> from certjax import smoothing
    >>> round(probability_of_radius(smoothing.gaussian(sigma=0.5), 0.5), 6)
    0.841345

  Raises:
    ValueError: if no probability below 1 proves the radius.
  """
  low, high = 0.0, np.nextafter(1.0, 0.0)
  if not smoothing.radius(high) >= radius:
    raise ValueError(
      f'`radii`: {radius:g} is out of reach, this smoothing certifies less than '
      f'{float(smoothing.radius(high)):g} whatever the number of samples.'
    )
  while True:
    middle = (low + high) / 2
    if middle in (low, high):
      return float(high)
    low, high = (low, middle) if smoothing.radius(middle) >= radius else (middle, high)


def _plan(judge, num_selection, label, x):
  """Selects the class where it is not given, then draws from look to look until `judge` ends."""
  candidate, selection = label, 0
  if num_selection is not None:
    (selected,) = yield [(SELECTION, num_selection)]
    candidate, selection = np.argmax(selected), num_selection
  looks, decide = judge(x)
  successes, drawn, radius = [], 0, None
  for look in looks:
    (counts,) = yield [(ESTIMATION, int(look - drawn))]
    drawn = look
    successes.append(counts[candidate])
    radius = decide(np.array(successes))
    if radius is not None:
      break
  if radius is None:
    raise AssertionError('unreachable: the last look decides')
  return Decision(
    int(candidate) if radius > 0 else ABSTAIN, float(radius), int(candidate),
    int(sum(successes)), int(drawn + selection),
  )  # fmt: skip


def _radius_judge(smoothing, radii, method, max_samples, alpha, beta):
  """Whether each radius is proved or given up, by one boundary each at the same looks."""
  tests = [
    boundary(
      method or 'group-sequential', probability_of_radius(smoothing, radius),
      alpha=alpha, max_samples=max_samples, beta=beta,
    )
    for radius in radii
  ]  # fmt: skip
  looks = tests[0].looks
  # Where rounds are fresh, a look counts the last round alone.
  fresh = len(looks) > 1 and tests[0].starts[1] > 0

  def decide(successes):
    counts = successes if fresh else np.cumsum(successes)
    seen = slice(len(counts))
    proved = [bool(np.any(counts >= test.accept[seen])) for test in tests] + [False]
    first = proved.index(False)
    over = len(counts) == len(looks) or first == len(tests)
    if over or np.any(counts <= tests[first].reject[seen]):
      return radii[first - 1] if first else 0.0
    return None

  return lambda x: (looks, decide)


def _tolerance_judge(smoothing, tolerance, method, max_samples, alpha, beta):
  """Whether the radius is close enough to the best in reach, by a confidence sequence."""
  method = method or 'betting'
  if method not in _SEQUENCES:
    raise ValueError(
      f'`method`={method!r} gives no bound to stop at: with a `tolerance` choose from '
      f'{", ".join(_SEQUENCES)}.'
    )
  looks = looks_of(method, max_samples)

  def judge(x):
    radius = lambda p: smoothing.radius(p, x=x)

    def decide(successes):
      look, total = len(successes) - 1, successes.sum()
      met, lower = tolerance_met(
        method, radius, total, look, looks, alpha=alpha, tolerance=tolerance, beta=beta
      )
      return radius(lower) if met or len(successes) == len(looks) else None

    return looks, decide

  judge(None)[1](np.array([0]))  # Refuses bad arguments before any work.
  return judge


def _check_radii(radii):
  radii = np.asarray(radii, np.float64).reshape(-1)
  if (
    not radii.size or not np.all(np.isfinite(radii)) or radii[0] <= 0 or np.any(np.diff(radii) <= 0)
  ):
    raise ValueError(f'`radii` must be finite, positive and ascending, got {radii.tolist()}.')
  return radii
