"""Exact certificates: every view of an image is evaluated, nothing is sampled.

A work item of the engine is a pair (image, view); votes are summed in int32 on the device, and
`views.decide` proves the certificate from them on the host, in integers.

Such a proof speaks of "this compiled program": another one may round a logit differently and
turn a view whose two largest logits nearly tie. `slack` makes the proof hold across programs
whose logits differ by less than half of it: every such view is given to the rival.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.certify import _engine, _program, _votes
from certjax.certify._certificate import ABSTAIN, Certificate, certificate


def enumerated(model_fn, views, x, *, slack=None, chunk=1000, mesh=None, slots=None) -> Certificate:
  """Certifies images by evaluating all views of each.

  Exact: no samples, no failure probability. The number of forward passes is
  `views.num_views` an image, the last chunk padded.

  Args:
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`, a function of its rows one by one. Pass
      weights as a `jax.tree_util.Partial` (`models.bind`).
    views: `Views`, such as `smoothing.deterministic_splitting(...)`.
    x: float[B, H, W, C], images; on the grid of 1 / `views.quantization` if that is not None.
    slack: a view whose two largest logits are no more than this apart (or NaN) counts against the
      label: it is given to the strongest rival. (Views with a `doubt` of their own: each vote in
      doubt is withheld from the label and given to its rivals.) The certificate then holds for every
      program whose logits are less than slack / 2 away from these; nothing is certified where the views
      could choose another label. None trusts this program; `enumerated_counts` and `from_counts`
      give both radii of one evaluation.
    chunk: rows of the model's batch on each device.
    mesh: default all devices of this process.
    slots: images on the device at once; as in `votes`.

  Returns:
    A `Certificate` in the norm and unit of `views`.

  Raises:
    ValueError: on an empty batch, a wrong shape, images off the grid, a bad `chunk` or
      `slack`, or `slack` with views whose votes are not summed, and that have no `doubt`.

  Example:
    >>> import jax.numpy as jnp
    >>> from certjax import smoothing
    >>> model_fn = lambda x: jnp.stack([x[:, 0, 0, 0], 0.5 - 0 * x[:, 0, 0, 0]], axis=1)
    >>> views = smoothing.deterministic_splitting(lam=0.5, shape=(1, 1, 1), quantization=4)
    >>> enumerated(model_fn, views, jnp.ones((1, 1, 1, 1)), chunk=4)
    Certificate(label=array([0]), radius=array([0.5]))

  References:
    Levine & Feizi 2021 (arXiv:2103.10834).
  """
  if slack is not None:
    _check_doubt(views)
  x = check_views(views, x, slack=slack or 0.0, chunk=chunk)
  counts, unsure = tallied(views, _run(model_fn, views, x, slack or 0.0, chunk, mesh, slots))
  return from_counts(views, counts, None if slack is None else unsure)


def enumerated_counts(model_fn, views, x, *, slack=0.0, chunk=1000, mesh=None, slots=None):
  """The device part of `enumerated`: the votes of all views, summed.

  A view whose logits hold a NaN votes for nobody: counts may sum to less than `num_views`.

  Args:
    model_fn, views, x, chunk, mesh, slots: as `enumerated`.
    slack: see there; 0 makes no view unsure that has a vote.

  Returns:
    counts int64[B, K], and unsure int64[B, K]: how many of them are of views whose two largest
    logits are no more than `slack` apart; of views with a `doubt`, how many votes, given or
    not, are in doubt.

  Raises:
    ValueError: as `enumerated`.

  Example:
    >>> from certjax import smoothing
    >>> views = smoothing.deterministic_splitting(lam=0.5, quantization=255, shape=(1, 2, 1))
    >>> x = np.array([0.2, 0.8], np.float32).reshape(1, 1, 2, 1)
    >>> enumerated_counts(lambda x: 1e3 * x.reshape(len(x), -1), views, x, chunk=255)
    (array([[  0, 255]]), array([[0, 0]]))
  """
  if views.needs != 'counts':
    raise ValueError(f'the votes of these views are not summed: they need {views.needs!r}.')
  x = check_views(views, x, slack=slack, chunk=chunk)
  return tallied(views, _run(model_fn, views, x, slack, chunk, mesh, slots))


def tallied(views, totals):
  """Reads what the program of `views_program` counted.

  Args:
    views: of the program.
    totals: int[..., 2, K], or int[..., num_views, K] where `views.needs` is 'votes'.

  Returns:
    (counts, unsure), as `enumerated_counts` gives them; or both bool[..., num_views, K].

  Example:
    >>> from certjax import smoothing
    >>> views = smoothing.bands(width=2, shape=(8, 8, 1))
    >>> tallied(views, np.array([[3, 0], [2, 1]]))
    (array([[ True, False],
           [False,  True]]), array([[ True, False],
           [ True, False]]))
  """
  if views.needs == 'counts':
    return totals[..., 0, :], totals[..., 1, :]
  return totals % 2 == 1, totals >= 2


def from_counts(views, counts, unsure=None) -> Certificate:
  """The host part of `enumerated`.

  Args:
    views: whose counts these are.
    counts: int[..., K], votes; or bool[..., num_views, K] where `views.needs` is 'votes'.
    unsure: int[..., K], those among them that count against the label, or None. Views that
      voted for nobody (NaN) are then unsure as well. Of views with a `doubt`: as `tallied`.

  Returns:
    A `Certificate`; `ABSTAIN` where the unsure votes could choose another label.

  Example:
    >>> from certjax import smoothing
    >>> views = smoothing.deterministic_splitting(sigma=0.5, shape=(4, 4, 1))
    >>> for unsure in (None, [10, 0]):
    ...   print(round(float(from_counts(views, [341, 100], unsure).radius) * 255, 6))
    120.0
    110.0
  """
  proof = views.decide(counts)
  if unsure is None:
    return proof
  label = proof.label
  ours = np.arange(np.shape(counts)[-1]) == label[..., None]
  proof = views.decide(_against(views, np.asarray(counts), np.asarray(unsure), ours))
  return certificate(np.where(proof.label == label, label, ABSTAIN), proof.radius)


def _against(views, counts, unsure, ours):
  """The votes when whatever is unsure speaks against `ours`, bool[..., K], the label's column."""
  if views.needs == 'votes':
    return np.where(ours[..., None, :], counts & ~unsure, counts | unsure)
  if views.doubt is not None:
    return np.where(ours, counts - unsure, counts + unsure)
  doubtful = views.num_views - (counts - unsure).sum(axis=-1, keepdims=True)
  # Each rival gets them all: whichever is the strongest, it has no more than that.
  return counts - unsure + np.where(ours, 0, doubtful)


def views_program(model_fn, views, shape, chunk, *, slack=0.0) -> _program.Program:
  """The engine's program that evaluates views: item j of purpose 0 is view j.

  Args:
    model_fn, views, chunk, slack: as in `enumerated`.
    shape: of one image.

  Returns:
    A program whose counts are (votes, unsure) int[2, K] of views whose votes are summed,
    else vote + 2 unsure of each, int[num_views, K]; `tallied` reads both.

  Raises:
    ValueError: for a `slack` where the views' votes are not of two logits and have no `doubt`.

  Example:
    >>> from certjax import smoothing
    >>> views = smoothing.deterministic_splitting(lam=0.5, quantization=255, shape=(1, 2, 1))
    >>> views_program(lambda x: x.reshape(len(x), -1), views, (1, 2, 1), 255).bins
    (2, 2)
  """
  model_fn, view, vote = (_program.as_pytree(fn) for fn in (model_fn, views.view, views.vote))
  doubt = None if views.doubt is None else _program.as_pytree(views.doubt)
  perturb = jax.tree_util.Partial(_see, view)
  # One ulp more: a gap that the subtraction rounded up to the slack is below it.
  slack = np.nextafter(np.float32(slack), np.float32(np.inf)) if slack else np.float32(0)
  num_classes = _program.num_classes(model_fn, perturb, shape, chunk)
  if slack:
    _check_doubt(views)
  summed = views.needs == 'counts'
  tally = jax.tree_util.Partial(_tally_counts if summed else _tally_votes, vote, doubt, slack)
  bins = (2 if summed else views.num_views, num_classes)
  return _program.Program(model_fn, perturb, tally, jax.random.split(jax.random.key(0), 1), bins)


def _run(model_fn, views, x, slack, chunk, mesh, slots):
  """Counts of all views of each image: int64[B, *bins]."""
  program = views_program(model_fn, views, x.shape[1:], chunk, slack=slack)
  plan = lambda: _engine.once((0, views.num_views))
  options = {'chunk': chunk, 'mesh': mesh, 'slots': slots}
  return np.stack(
    [total for (total,) in _votes.each(program, x, np.arange(len(x)), plan, **options)]
  )


def _see(view, key, number, x):
  del key  # Nothing is drawn.
  return view(x, number)


def _tally_counts(vote, doubt, slack, counts, row, number, logits, extra):
  del number, extra
  both = jnp.stack(_ballots(vote, doubt, slack, logits), axis=1).astype(counts.dtype)
  return counts.at[row].add(both, mode='drop')


def _tally_votes(vote, doubt, slack, counts, row, number, logits, extra):
  del extra
  ballots, unsure = (each.astype(counts.dtype) for each in _ballots(vote, doubt, slack, logits))
  return counts.at[row, number].add(ballots + 2 * unsure, mode='drop')


def _ballots(vote, doubt, slack, logits):
  """bool[chunk, K] both: the votes of each item, none where a logit is NaN; which of them are unsure."""
  whole = ~jnp.any(jnp.isnan(logits), axis=-1, keepdims=True)
  ballots = vote(logits) & whole
  if doubt is not None:
    return ballots, doubt(logits, slack) | ~whole
  largest = lax.top_k(logits, min(2, logits.shape[-1]))[0]
  single = jnp.full(len(logits), jnp.inf)
  gap = largest[:, 0] - largest[:, 1] if logits.shape[-1] > 1 else single
  return ballots, ballots & ~(gap >= slack)[:, None]


def check_views(views, x, *, slack=0.0, chunk=1):
  """The images as float32[B, H, W, C], unless an argument of `enumerated` is bad.

  Args:
    views: `Views`.
    x: float[B, H, W, C].
    slack, chunk: as in `enumerated`.

  Returns:
    float32[B, H, W, C].

  Raises:
    ValueError: naming the argument, the rule and the value.

  Example:
    >>> from certjax import smoothing
    >>> views = smoothing.deterministic_splitting(lam=0.5, quantization=255, shape=(1, 2, 1))
    >>> check_views(views, np.full((1, 1, 2, 1), 0.33))
    Traceback (most recent call last):
    ...
    ValueError: the certificate holds for images whose pixels are multiples of 1/255 in [0, 1]: image 0 has others; write np.round(x * 255) / 255.
  """
  x = _votes.check_images(x, views.shape)
  if chunk < 1 or not 0 <= slack < np.inf:
    raise ValueError(
      f'`chunk` must be at least 1 and `slack` a difference of logits >= 0, got chunk={chunk}, '
      f'slack={slack}.'
    )
  if views.quantization is not None:
    _check_grid(x, views.quantization)
  return x


def _check_doubt(views):
  if views.needs != 'counts' and views.doubt is None:
    raise ValueError(
      f'`slack` is for views whose votes are summed; these need {views.needs!r}: give them a '
      f'`doubt`, or leave slack=None.'
    )


def _check_grid(x, quantization):
  steps = x.astype(np.float64) * quantization
  rounding = 2.0**-22 * quantization  # Of float32 in [0, 1], a few times over.
  on_grid = (np.abs(steps - np.round(steps)) <= rounding) & (x >= 0) & (x <= 1)
  on_grid = on_grid.reshape(len(x), -1).all(axis=1)
  if not on_grid.all():
    raise ValueError(
      f'the certificate holds for images whose pixels are multiples of 1/{quantization} in '
      f'[0, 1]: image {int(np.argmin(on_grid))} has others; write '
      f'np.round(x * {quantization}) / {quantization}.'
    )
