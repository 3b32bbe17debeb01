"""CERTIFY and PREDICT of Cohen, Rosenfeld & Kolter 2019, for any `Smoothing`.

The class is selected on one set of samples and bounded on another, drawn with another key:
bounding the class on the samples that chose it would not be a confidence bound.
"""

import jax
import numpy as np

from certjax.certify import _engine, _program, _votes
from certjax.certify._certificate import ABSTAIN, Certificate, certificate
from certjax.certify._confidence import (
  check_alpha,
  clopper_pearson,
  clopper_pearson_upper,
  predict_p_value,
)
from certjax.smoothing import COUNTED

SELECTION, ESTIMATION, PREDICTION = 0, 1, 2
"""Purposes of samples, folded into the key: independent draws."""

_MOST_SAMPLES = 2**40  # Beyond this the search for a sufficient number gives up.
_TOP_SHARE = 0.9  # Share of alpha spent on p_a when the runner-up is bounded too.


def sampled(
  key,
  model_fn,
  smoothing,
  x,
  *,
  index=None,
  num_selection=100,
  num_samples=100_000,
  alpha=1e-3,
  runner_up=False,
  chunk=1000,
  mesh=None,
) -> Certificate:
  """Certifies images by randomized smoothing.

  1. `num_selection` samples choose the class A.
  2. `num_samples` fresh samples give p_a, the Clopper-Pearson lower bound of A's probability.
  3. The radius is `smoothing.radius(p_a)`; nothing is certified where it is 0, unless radii are
     whole numbers (of pixels): p_a > 1/2 then certifies the label of x itself, with radius 0.

  Args:
    key: one typed key; the noise depends on it, `index` and the sample's number only.
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`.
    smoothing: a `Smoothing`.
    x: float[B, ...], images.
    index: int[B], data set indices; default 0..B-1.
    num_selection: samples an image for the choice of the class.
    num_samples: samples an image for the bound.
    alpha: failure probability, per image: each certificate alone is wrong with probability at
      most alpha; over many images errors add up.
    runner_up: bound the largest other count too (alpha split .9 / .1), which
      certifies more where no class has a majority.
    chunk: rows of the model's batch on each device.
    mesh: default all devices of this process.

  Returns:
    A `Certificate` in the norm and unit of `smoothing`.

  Raises:
    ValueError: on bad arguments, among them a `num_samples` that can never certify at `alpha`.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from certjax import smoothing
    >>> model_fn = lambda x: jnp.stack([x[:, 0], -x[:, 0]], axis=1)
    >>> proof = sampled(jax.random.key(0), model_fn, smoothing.gaussian(sigma=0.5),
    ...                 jnp.array([[1.0]]), num_samples=1000, chunk=100)
    >>> int(proof.label[0]), bool(0.7 < proof.radius[0] <= 1.0)
    (0, True)

  References:
    Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918), CERTIFY.
  """
  check_num_samples(smoothing, num_samples, alpha, runner_up=runner_up)
  candidate, counts = sampled_votes(
    key, model_fn, smoothing, x, index=index, num_selection=num_selection,
    num_samples=num_samples, chunk=chunk, mesh=mesh,
  )  # fmt: skip
  return from_votes(
    smoothing, candidate, counts, num_samples=num_samples, alpha=alpha, runner_up=runner_up, x=x
  )


def sampled_votes(
  key, model_fn, smoothing, x, *, num_selection, num_samples,
  index=None, chunk=1000, mesh=None, slots=None,
):  # fmt: skip
  """The device part of `sampled`: the selected class and the votes that will bound it.

  Args:
    key, model_fn, smoothing, x, num_selection, num_samples, index, chunk, mesh: as `sampled`.
    slots: as in `votes`.

  Returns:
    candidate int64[B] (ties of the selection go to the lowest class) and counts int64[B, K].

  Raises:
    ValueError: on images or indices that do not fit, and a `chunk` out of range.

  Example:
    >>> from certjax import smoothing
    >>> x = np.array([0.2, 0.8], np.float32).reshape(1, 1, 2, 1)
    >>> model_fn, law = lambda x: 1e3 * x.reshape(len(x), -1), smoothing.gaussian(sigma=0.1)
    >>> key, numbers = jax.random.key(0), {'num_selection': 10, 'num_samples': 100}
    >>> candidate, counts = sampled_votes(key, model_fn, law, x, chunk=100, **numbers)
    >>> candidate, counts.sum(axis=1)
    (array([1]), array([100]))
  """
  x, index = _votes.check(smoothing, x, index, min(num_selection, num_samples), chunk)
  program = smoothing_program(key, model_fn, smoothing, x.shape[1:], chunk)
  plan = lambda: _engine.once((SELECTION, num_selection), (ESTIMATION, num_samples))
  options = {'chunk': chunk, 'mesh': mesh, 'slots': slots}
  selected, counts = zip(*_votes.each(program, x, index, plan, **options), strict=True)
  return np.argmax(selected, axis=-1).astype(np.int64), np.stack(counts)


def smoothing_program(key, model_fn, smoothing, shape, chunk) -> _program.Program:
  """The engine's program for CERTIFY, PREDICT and sequential tests: votes, K bins.

  Purposes `SELECTION`, `ESTIMATION` and `PREDICTION` draw independent noise.

  Args:
    key, model_fn, smoothing, chunk: as in `sampled`.
    shape: of one image.

  Returns:
    A `Program` with bins (K,).

  Example:
    >>> from certjax import smoothing
    >>> flat, law = lambda x: x.reshape(len(x), -1), smoothing.gaussian(sigma=0.1)
    >>> program = smoothing_program(jax.random.key(0), flat, law, (1, 2, 1), 100)
    >>> program.bins, len(program.keys)
    ((2,), 3)
  """
  keys = [jax.random.fold_in(key, purpose) for purpose in (SELECTION, ESTIMATION, PREDICTION)]
  return _votes.count_votes(keys, model_fn, smoothing, shape, chunk)


def from_votes(
  smoothing, candidate, counts, *, num_samples, alpha=1e-3, runner_up=False, x=None
) -> Certificate:
  """The host part of `sampled`: float64, rounded down.

  With `runner_up`, p_b is the Clopper-Pearson upper bound of the largest other count. No
  correction over the classes is needed: the true runner-up's count is at most that
  maximum, and the bound grows with the count. p_b never exceeds 1 - p_a.

  Args:
    smoothing: a `Smoothing`.
    candidate: int[...], the class selected on other samples.
    counts: int[..., K].
    num_samples: samples drawn; more than the counts sum to where a sample had a NaN.
    alpha: failure probability, per image.
    runner_up: see `sampled`.
    x: float[..., H, W, C], images, for radii that depend on them.

  Returns:
    A `Certificate`.

  Example:
    >>> from certjax import smoothing
    >>> proof = from_votes(smoothing.gaussian(sigma=1.0), [0], [[60_000, 20_000, 20_000]],
    ...                    num_samples=100_000, runner_up=True)
    >>> round(float(proof.radius[0]), 3)
    0.533
  """
  candidate, counts = np.asarray(candidate), np.asarray(counts)
  top = np.take_along_axis(counts, candidate[..., None], axis=-1)[..., 0]
  if not runner_up:
    p_a, p_b = clopper_pearson(top, num_samples, alpha=alpha), 0.5  # A majority.
    radius = smoothing.radius(p_a, x=x)
  else:
    others = np.where(np.arange(counts.shape[-1]) == candidate[..., None], 0, counts)
    p_a = clopper_pearson(top, num_samples, alpha=_TOP_SHARE * alpha)
    p_b = clopper_pearson_upper(others.max(axis=-1), num_samples, alpha=(1 - _TOP_SHARE) * alpha)
    p_b = np.minimum(p_b, np.nextafter(1 - p_a, 2.0))
    radius = smoothing.radius(p_a, p_b, x=x)
  proved = radius > 0
  if smoothing.unit in COUNTED:  # The label of x itself, radius 0, is a certificate too.
    proved = proved | (p_a > p_b)
  return certificate(np.where(proved, candidate, ABSTAIN), radius)


def predict(key, model_fn, smoothing, x, *, index=None, num_samples, alpha, chunk=1000, mesh=None):
  """The smoothed classifier's label, or `ABSTAIN`.

  Abstains unless the top two classes differ significantly (two-sided binomial test), so the
  label is not the smoothed classifier's with probability at most alpha.

  Args:
    key: one typed key; draws are independent of those of `sampled` with the same key.
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`.
    smoothing: a `Smoothing`.
    x: float[B, ...], images.
    index: int[B], data set indices; default 0..B-1.
    num_samples: samples an image.
    alpha: failure probability, per image.
    chunk: rows of the model's batch on each device.
    mesh: default all devices of this process.

  Returns:
    int64[B].

  Raises:
    ValueError: on bad arguments, among them a `num_samples` that always abstains at `alpha`.

  Example:
    >>> from certjax import smoothing
    >>> x = np.array([0.2, 0.8], np.float32).reshape(1, 1, 2, 1)
    >>> model_fn, law = lambda x: 1e3 * x.reshape(len(x), -1), smoothing.gaussian(sigma=0.1)
    >>> predict(jax.random.key(0), model_fn, law, x, num_samples=100, alpha=0.001, chunk=100)
    array([1])

  References:
    Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918), PREDICT; Hung & Fithian 2019.
  """
  check_predict_samples(num_samples, alpha)
  counts = predict_votes(
    key, model_fn, smoothing, x, index=index, num_samples=num_samples, chunk=chunk, mesh=mesh
  )
  return label_from_votes(counts, alpha=alpha)


def predict_votes(key, model_fn, smoothing, x, *, num_samples, **options):
  """The device part of `predict`: int64[B, K]; options as those of `votes`.

  Args:
    key, model_fn, smoothing, x, num_samples: as in `predict`.
    **options: of `votes`.

  Returns:
    int64[B, K].

  Example:
    >>> from certjax import smoothing
    >>> x = np.array([0.2, 0.8], np.float32).reshape(1, 1, 2, 1)
    >>> model_fn, law = lambda x: 1e3 * x.reshape(len(x), -1), smoothing.gaussian(sigma=0.1)
    >>> predict_votes(jax.random.key(0), model_fn, law, x, num_samples=100, chunk=100)
    array([[  0, 100]])
  """
  key = jax.random.fold_in(key, PREDICTION)
  return _votes.votes(key, model_fn, smoothing, x, num_samples=num_samples, **options)


def label_from_votes(counts, *, alpha):
  """The host part of `predict`: int64[...] from counts int[..., K]; ties abstain.

  Args:
    counts: int[..., K].
    alpha: failure probability, as in `predict`.

  Returns:
    int64[...], `ABSTAIN` for a tie that is not rejected.

  Example:
    >>> label_from_votes([[80, 20], [51, 49]], alpha=0.05)
    array([ 0, -1])
  """
  counts = np.asarray(counts)
  label = np.argmax(counts, axis=-1).astype(np.int64)
  ordered = np.sort(np.pad(counts, [(0, 0)] * (counts.ndim - 1) + [(1, 0)]), axis=-1)
  sure = predict_p_value(ordered[..., -1], ordered[..., -2]) <= alpha
  return np.where(sure, label, ABSTAIN)


def check_predict_samples(num_samples, alpha):
  """Refuses a number of samples with which PREDICT always abstains.

  Args:
    num_samples, alpha: as in `predict`.

  Raises:
    ValueError: naming the smallest number that can answer.

  Example:
    >>> check_predict_samples(10, 0.001)
    Traceback (most recent call last):
    ...
    ValueError: `num_samples`=10 always abstains at `alpha`=0.001: PREDICT needs at least 11.
  """
  check_alpha(alpha)
  if num_samples < _predict_needs(alpha):
    raise ValueError(
      f'`num_samples`={num_samples} always abstains at `alpha`={alpha:g}: PREDICT needs at '
      f'least {_predict_needs(alpha)}.'
    )


def _predict_needs(alpha):
  """Smallest n with 2 * 2^-n <= alpha."""
  return int(np.ceil(1 - np.log2(alpha)))


def check_num_samples(smoothing, num_samples, alpha, *, runner_up=False):
  """Refuses a number of samples that can never certify anything.

  Args:
    smoothing: a `Smoothing`.
    num_samples, alpha, runner_up: as in `sampled`.

  Raises:
    ValueError: naming the smallest number that can.

  Example:
    >>> from certjax import smoothing
    >>> check_num_samples(smoothing.gaussian(sigma=0.25), 9, 0.001)
    Traceback (most recent call last):
    ...
    ValueError: `num_samples`=9 can never certify at `alpha`=0.001: at least 10 are needed (PREDICT: 11).
  """
  check_alpha(alpha)
  if num_samples >= 1 and largest_radius(smoothing, num_samples, alpha, runner_up=runner_up) > 0:
    return
  needed = _smallest_that_certifies(smoothing, alpha, runner_up)
  raise ValueError(
    f'`num_samples`={num_samples} can never certify at `alpha`={alpha:g}: at least {needed} are '
    f'needed (PREDICT: {_predict_needs(alpha)}).'
  )


def _smallest_that_certifies(smoothing, alpha, runner_up):
  """By doubling and bisection: the largest radius grows with the number of samples."""
  certifies = lambda number: largest_radius(smoothing, number, alpha, runner_up=runner_up) > 0
  high = 1
  while not certifies(high):
    high *= 2
    if high > _MOST_SAMPLES:
      raise ValueError(f'no number of samples certifies anything at `alpha`={alpha:g} here.')
  low = high // 2
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if certifies(middle) else (middle, high)
  return high


def largest_radius(smoothing, num_samples, alpha, *, runner_up=False) -> float:
  """The radius of an image on which all samples agree: no image can get more.

  Args:
    smoothing: a `Smoothing`.
    num_samples, alpha, runner_up: as in `sampled`.

  Returns:
    The radius, in the unit of the smoothing; 0 where nothing can be proved.

  Example:
    >>> from certjax import smoothing
    >>> round(largest_radius(smoothing.gaussian(sigma=0.25), 100_000, 1e-3), 6)
    0.952864
  """
  counts = np.array([[num_samples, 0]])
  proof = from_votes(
    smoothing, [0], counts, num_samples=num_samples, alpha=alpha, runner_up=runner_up
  )
  return float(proof.radius[0])
