"""CornerSearch (Croce & Hein 2019): every corner of every pixel, then combinations of the best.

Needs the logits, no gradient. One image after the other, the model always at the batch `chunk`.
One pixel is searched exhaustively among corners; more are sampled.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.attacks._loss import margin
from certjax.attacks._pgd import row_keys
from certjax.attacks._pointwise import as_pixels

_MOST_BEST = 2048  # Up to here float32 takes the square root of a rank's draw exactly enough.
_MOST_CHANNELS = 8


def corner_search(*, pixels, num_samples=1000, num_best=150, step=5, chunk=256):
  """Ranks all one-pixel changes to corners of [0, 1]^C, and combines those of high rank.

  For each class c the changes are ranked by logit_c - logit_y (for c = y by the margin). Then
  n = 1 + step, 1 + 2 step, .., `pixels` of the `num_best` first are drawn together, rank r with
  probability proportional to 2 (num_best - r) - 1, `num_samples` times a class.

  Args:
    pixels: how many pixels may change; all channels of one of x[B, H, W, C] count once, and every
      value of another shape is a pixel. It is never exceeded.
    num_samples: combinations drawn, a class and n.
    num_best: length of each ranking that is used.
    step: distance of the tried n.
    chunk: rows of the model's batch.

  Returns:
    An `Attack`: the first misclassified point found (of single pixels the one of largest margin);
    where there is none, the point tried with the largest margin, x among them. It asks for 2^C H W
    logits and, as long as nothing is found, `num_samples` K for every n.

  Raises:
    ValueError: for a negative `pixels`, counts below 1, `num_best` above 2048, or images of more
      than 8 channels.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 2.2)], axis=1)
    >>> attack = corner_search(pixels=2, num_samples=8, chunk=8)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.ones((1, 4)), jnp.array([0]))
    >>> sorted(x_adv[0].tolist())
    [0.0, 0.0, 1.0, 1.0]

  References:
    Croce & Hein 2019 (arXiv:1909.05040), section 3.
  """
  if pixels < 0:
    raise ValueError(f'`pixels` must be at least 0, got {pixels}.')
  if min(num_samples, num_best, step, chunk) < 1 or num_best > _MOST_BEST:
    raise ValueError(
      f'`num_samples`, `num_best`, `step` and `chunk` must be at least 1, `num_best` at most '
      f'{_MOST_BEST}, got {num_samples}, {num_best}, {step} and {chunk}.'
    )
  # Deviation: `pixels` itself is the last n tried, whatever `step` is.
  sizes = [*range(1 + step, pixels, step), pixels] if pixels > 1 else []

  def attack(key, model_fn, x, y):
    if x.ndim == 4 and x.shape[-1] > _MOST_CHANNELS:
      raise ValueError(f'`x` may have at most {_MOST_CHANNELS} channels, got shape {x.shape}.')
    if pixels == 0:
      return x
    shape, logits = x.shape[1:], model_fn(x)
    clean = jax.vmap(margin)(logits, y)
    scores = functools.partial(_scores, lambda points: model_fn(points.reshape(-1, *shape)))

    def one(row):
      key, x, y, clean = row
      order, best = _rank(scores, x, y, min(num_best, _num_changes(x)), chunk, logits.shape[1])
      best = _keep((x, clean), best)
      return _combine(key, scores, x, y, order, best, sizes, num_samples, chunk)

    return lax.map(one, (row_keys(key, len(x)), as_pixels(x), y, clean)).reshape(x.shape)

  return attack


def _corners(channels):
  return np.array(list(itertools.product((0, 1), repeat=channels)))


def _num_changes(x):
  return len(x) * 2 ** x.shape[1]


def _change(x, changes):
  """Pixel p of x at the corner q, for each change p 2^C + q; those beyond the last do nothing."""
  corners = jnp.asarray(_corners(x.shape[1]), x.dtype)
  return x.at[changes // len(corners)].set(corners[changes % len(corners)], mode='drop')


def _change_several(x, size, changes):
  """The first `size` of the changes; of two of one pixel the first."""
  pixel = changes // 2 ** x.shape[1]
  again = jnp.any(jnp.tril(pixel[:, None] == pixel[None, :], -1), axis=1)
  skip = again | (jnp.arange(len(changes), dtype=jnp.int32) >= size)
  return _change(x, jnp.where(skip, _num_changes(x), changes))


def _scores(model_fn, points, y):
  """`points[M, P, C] -> [M, K]`: logit_c - logit_y, and the margin at c = y; a NaN is the least."""
  logits = model_fn(points)
  margins = jax.vmap(margin, (0, None))(logits, y)
  scores = (logits - logits[:, y][:, None]).at[:, y].set(margins)
  return jnp.where(jnp.isnan(scores), -jnp.inf, scores)


def _rank(scores, x, y, num_best, chunk, num_classes):
  """int32[K, num_best], the best changes for each class, and the best (point, margin)."""
  total = _num_changes(x)

  def step(best, first):
    changes = first + jnp.arange(chunk, dtype=jnp.int32)
    new = scores(jax.vmap(lambda change: _change(x, change[None]))(changes), y).T
    new = jnp.where(changes[None] < total, new, -jnp.inf)
    value = jnp.concatenate([best[0], new], axis=1)
    change = jnp.concatenate([best[1], jnp.broadcast_to(changes, new.shape)], axis=1)
    value, at = lax.top_k(value, num_best)
    return (value, jnp.take_along_axis(change, at, axis=1)), None

  nothing = jnp.full((num_classes, num_best), -jnp.inf, jnp.float32)
  start = (nothing, jnp.full(nothing.shape, total, jnp.int32))
  (value, order), _ = lax.scan(step, start, jnp.arange(0, total, chunk, dtype=jnp.int32))
  return order, (_change(x, order[y, :1]), value[y, 0])


def _combine(key, scores, x, y, order, best, sizes, num_samples, chunk):
  """The first misclassified combination, or the best point of all."""
  per_class = -(-num_samples // chunk)
  total = len(sizes) * len(order) * per_class
  if not total:
    return best[0]

  def unfinished(carry):
    number, (_, value) = carry
    return (number < total) & ~(value > 0)

  def step(carry):
    number, best = carry
    setting, part = number // per_class, number % per_class
    size = jnp.array(sizes, jnp.int32)[setting // len(order)]
    ranks = _draw_ranks(jax.random.fold_in(key, number), (chunk, max(sizes)), order.shape[1])
    changes = order[setting % len(order)][ranks]
    points = jax.vmap(functools.partial(_change_several, x, size))(changes)
    counted = part * chunk + jnp.arange(chunk, dtype=jnp.int32) < num_samples
    value = jnp.where(counted, scores(points, y)[:, y], -jnp.inf)
    first = jnp.argmax(value)
    return number + 1, _keep(best, (points[first], value[first]))

  return lax.while_loop(unfinished, step, (jnp.int32(0), best))[1][0]


def _draw_ranks(key, shape, num_best):
  """Rank r with probability (2 (num_best - r) - 1) / num_best^2."""
  draw = jax.random.randint(key, shape, 0, num_best**2, jnp.int32).astype(jnp.float32)
  return jnp.maximum(num_best - 1 - jnp.floor(jnp.sqrt(draw)).astype(jnp.int32), 0)


def _keep(best, new):
  """Of two (point, margin): the first if misclassified, else that of larger margin."""
  better = ~(best[1] > 0) & (new[1] > best[1])
  return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, best)
