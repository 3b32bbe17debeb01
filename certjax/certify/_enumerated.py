"""Exact certificates: every view of an image is evaluated, nothing is sampled.

A work item is a pair (image, view). As in `_votes`, the model runs at one batch shape, items of
several images share a chunk, and counts are int32 on the device; `views.decide` proves the
certificate from them on the host, in integers.

Such a proof speaks of "this compiled program": another one may round a logit differently and
turn a view whose two largest logits nearly tie. `slack` makes the proof hold across programs
whose logits differ by less than half of it: every such view is given to the rival.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax import parallel
from certjax.certify._certificate import ABSTAIN, Certificate, certificate
from certjax.certify._votes import as_pytree, check_images, check_num_items, in_waves


def enumerated(model_fn, views, x, *, slack=None, chunk=1000, mesh=None) -> Certificate:
  """Certifies images by evaluating all views of each.

  Exact: no samples, no failure probability. The number of forward passes is
  `views.num_views` an image, the last chunk padded.

  Args:
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`, a function of its rows one by one. Pass
      weights as a `jax.tree_util.Partial` (`models.bind`).
    views: `Views`, such as `smoothing.deterministic_splitting(...)`.
    x: float[B, H, W, C], images; on the grid of 1 / `views.quantization` if that is not None.
    slack: a view whose two largest logits are no more than this apart (or NaN) counts against the
      label: it is given to the strongest rival. The certificate then holds for every program
      whose logits are less than slack / 2 away from these; nothing is certified where the views could
      choose another label. None trusts this program; `enumerated_counts` and `from_counts`
      give both radii of one evaluation.
    chunk: rows of the model's batch on each device.
    mesh: default all devices of this process.

  Returns:
    A `Certificate` in the norm and unit of `views`.

  Raises:
    ValueError: on an empty batch, a wrong shape, images off the grid, a bad `chunk` or
      `slack`, or `slack` with views whose votes are not summed.

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
  if views.needs == 'counts':
    counts, unsure = enumerated_counts(
      model_fn, views, x, slack=0.0 if slack is None else slack, chunk=chunk, mesh=mesh
    )
    return from_counts(views, counts, None if slack is None else unsure)
  if slack is not None:
    raise ValueError(
      f'`slack` is for views whose votes are summed; these need {views.needs!r}: put the slack '
      f'into their `vote`, and leave slack=None here.'
    )
  x = _check(views, x, 0.0, chunk)
  shape = (len(x), views.num_views, _num_classes(model_fn, views, x, chunk))
  votes = _run(_add_votes, model_fn, views, x, 0.0, chunk, mesh, shape, jnp.uint8)
  return views.decide(votes.astype(bool))


def enumerated_counts(model_fn, views, x, *, slack=0.0, chunk=1000, mesh=None):
  """The device part of `enumerated`: the votes of all views, summed.

  A view whose logits hold a NaN votes for nobody: counts may sum to less than `num_views`.

  Args:
    model_fn, views, x, chunk, mesh: as `enumerated`.
    slack: see there; 0 makes no view unsure that has a vote.

  Returns:
    counts int32[B, K], and unsure int32[B, K]: how many of them are of views whose two largest
    logits are no more than `slack` apart.

  Raises:
    ValueError: as `enumerated`.
  """
  if views.needs != 'counts':
    raise ValueError(f'the votes of these views are not summed: they need {views.needs!r}.')
  x = _check(views, x, slack, chunk)
  shape = (2, len(x), _num_classes(model_fn, views, x, chunk))
  return tuple(_run(_add_counts, model_fn, views, x, slack, chunk, mesh, shape, jnp.int32))


def from_counts(views, counts, unsure=None) -> Certificate:
  """The host part of `enumerated`.

  Args:
    views: whose counts these are.
    counts: int[..., K], votes.
    unsure: int[..., K], those among them that count against the label, or None. Views that
      voted for nobody (NaN) are then unsure as well.

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
  counts = np.asarray(counts, np.int64)
  if unsure is None:
    return views.decide(counts)
  unsure = np.asarray(unsure, np.int64)
  doubtful = views.num_views - (counts - unsure).sum(axis=-1, keepdims=True)
  label = np.argmax(counts, axis=-1)
  ours = np.arange(counts.shape[-1]) == label[..., None]
  # Each rival gets them all: whichever is the strongest, it has no more than that.
  proof = views.decide(counts - unsure + np.where(ours, 0, doubtful))
  return certificate(np.where(proof.label == label, label, ABSTAIN), proof.radius)


def _run(add, model_fn, views, x, slack, chunk, mesh, shape, dtype):
  """Totals of all items, of the given shape and dtype, on the host."""
  mesh = parallel.local_mesh() if mesh is None else mesh
  parts = (as_pytree(fn) for fn in (model_fn, views.view, views.vote))
  # One ulp more: a gap that the subtraction rounded up to the slack is below it.
  slack = np.nextafter(np.float32(slack), np.float32(np.inf)) if slack else np.float32(0)
  operands = parallel.replicate(mesh, (*parts, x, slack, np.int32(views.num_views)))
  totals = parallel.replicate(mesh, jnp.zeros(shape, dtype))
  count = functools.partial(_count, add=add, mesh=mesh, chunk=chunk)
  return np.asarray(
    in_waves(
      lambda totals, start, stop: count(operands, totals, start, stop),
      totals, len(x) * views.num_views, chunk * mesh.devices.size,
    )
  )  # fmt: skip


@functools.partial(jax.jit, static_argnames=('add', 'mesh', 'chunk'), donate_argnums=(1,))
def _count(operands, totals, start, stop, *, add, mesh, chunk):
  """Adds the items start..stop-1 to `totals`; item t is (t // V, t % V)."""
  replica = functools.partial(
    _count_replica, add=add, chunk=chunk, shape=totals.shape, dtype=totals.dtype
  )
  specs = (parallel.REPLICATED,) * 3
  return totals + parallel.pmap(replica, mesh, specs, parallel.REPLICATED)(operands, start, stop)


def _count_replica(operands, start, stop, *, add, chunk, shape, dtype):
  model_fn, view, vote, x, slack, num_views = operands
  num_devices = lax.axis_size(parallel.AXIS)
  first = start + chunk * lax.axis_index(parallel.AXIS)
  steps = (stop - start + chunk * num_devices - 1) // (chunk * num_devices)

  def add_chunk(step, totals):
    item = first + step * chunk * num_devices + jnp.arange(chunk, dtype=jnp.int32)
    row, index = jnp.minimum(item // num_views, len(x) - 1), item % num_views
    ballots, close = _ballots(model_fn, view, vote, x[row], index, slack)
    row = jnp.where(item < stop, row, len(x))  # Padding is dropped: no such row.
    return add(totals, row, index, ballots, close)

  return lax.psum(lax.fori_loop(0, steps, add_chunk, jnp.zeros(shape, dtype)), parallel.AXIS)


def _ballots(model_fn, view, vote, x, index, slack):
  """bool[chunk, K], the votes of each item, none where a logit is NaN; bool[chunk], unsure."""
  # The barrier keeps the model's own fusions independent of how the views were made.
  logits = model_fn(lax.optimization_barrier(jax.vmap(view)(x, index))).astype(jnp.float32)
  whole = ~jnp.any(jnp.isnan(logits), axis=-1)
  largest = lax.top_k(logits, min(2, logits.shape[-1]))[0]
  gap = largest[:, 0] - largest[:, 1] if logits.shape[-1] > 1 else jnp.full(len(x), jnp.inf)
  return vote(logits) & whole[:, None], ~(gap >= slack)


def _add_counts(totals, row, index, ballots, close):
  del index
  both = jnp.stack([ballots, ballots & close[:, None]]).astype(totals.dtype)
  return totals.at[:, row].add(both, mode='drop')


def _add_votes(totals, row, index, ballots, close):
  del close
  return totals.at[row, index].set(ballots.astype(totals.dtype), mode='drop')


@functools.partial(jax.jit, static_argnames='chunk')
def _chunk_of_logits(model_fn, view, x, *, chunk):
  return model_fn(jax.vmap(view, (None, 0))(x[0], jnp.zeros(chunk, jnp.int32)))


def _num_classes(model_fn, views, x, chunk):
  """K, from the shape of the logits; traced once a shape, never run."""
  parts = as_pytree(model_fn), as_pytree(views.view)
  shape = _chunk_of_logits.eval_shape(*parts, x, chunk=chunk).shape
  if len(shape) != 2 or shape[0] != chunk:
    raise ValueError(
      f'`model_fn` must return logits [B, K], got shape {shape} for a batch of {chunk} images.'
    )
  return shape[-1]


def _check(views, x, slack, chunk):
  x = np.asarray(check_images(x, views.shape), np.float32)
  if chunk < 1 or not 0 <= slack < np.inf:
    raise ValueError(
      f'`chunk` must be at least 1 and `slack` a difference of logits >= 0, got chunk={chunk}, '
      f'slack={slack}.'
    )
  check_num_items(len(x), views.num_views)
  if views.quantization is not None:
    _check_grid(x, views.quantization)
  return jnp.asarray(x)


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
