"""Sparse-RS (Croce et al. 2022): random search over a few pixels, or over a square patch.

Needs the logits, no gradient. Pixels take corners of [0, 1]^C; a change is kept where the loss grows
or the label falls, and fewer pixels change as the search goes on. One trace: a scan over the
queries, the whole batch in each. An image that is misclassified rests.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.attacks._loss import margin
from certjax.attacks._pgd import row_keys
from certjax.attacks._pointwise import as_pixels

_QUERIES = 10_000  # The schedules are written for this many.
_LIMITS = (50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_PIXEL_SCHEDULE = ((0, *_LIMITS), (1, 2, 4, 5, 6, 8, 10, 12, 15, 20))
_PATCH_SCHEDULE = ((10, *_LIMITS), (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))
_LOCATION_EVERY = 5  # Queries, of the first thousand; twice as many of the second, and so on.
_FIRST_SHIFT = 0.75  # Of the image's side; falls to 0 linearly.
_NUM_SQUARES = 1000
_FAR = 2**30
_MOST_CHANNELS = 30  # Corners are numbered in int32.


def sparse_rs(*, pixels, num_queries, alpha_init=0.3, loss=margin):
  """Moves a set of `pixels` pixels about, with colours from the corners of [0, 1]^C.

    M' = (M \\ A) u B,  |A| = |B| = max(floor(alpha_t pixels), 1),  B outside M \\ A

  with new random colours on B; alpha_t falls from `alpha_init` / 2 to `alpha_init` / 20.

  Args:
    pixels: how many pixels may change; all channels of one of x[B, H, W, C] count once, and every
      value of another shape is a pixel. It is never exceeded.
    num_queries: of each image, that of x apart.
    alpha_init: share of the set that is exchanged at first.
    loss: `(logits[K], y) -> scalar`, made large.

  Returns:
    An `Attack`: the first misclassified point found; where there is none, the point of largest loss,
    x among them.

  Raises:
    ValueError: for a negative `pixels`, `num_queries` below 1, `alpha_init` outside (0, 1], or images of
      more than 30 channels.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 2.2)], axis=1)
    >>> attack = sparse_rs(pixels=2, num_queries=20)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.ones((1, 4)), jnp.array([0]))
    >>> sorted(x_adv[0].tolist())
    [0.0, 0.0, 1.0, 1.0]

  References:
    Croce et al. 2022 (arXiv:2006.12834), Algorithms 1 and 2.
  """
  if pixels < 0:
    raise ValueError(f'`pixels` must be at least 0, got {pixels}.')
  _check(num_queries, alpha_init)

  def attack(key, model_fn, x, y):
    num_pixels, channels = as_pixels(x).shape[1:]
    _check_channels(channels)
    k = min(pixels, num_pixels)
    if k == 0:
      return x
    amount = np.maximum(np.floor(k * _alphas(_PIXEL_SCHEDULE, alpha_init, num_queries)), 1)
    most = int(amount.max(initial=1))
    begin = functools.partial(_random_pixels, k, num_pixels, channels)
    propose = functools.partial(_exchange, most)
    schedule = (jnp.asarray(amount, jnp.int32),)
    return _search(key, model_fn, x, y, begin, propose, _paint_pixels, schedule, loss)

  return attack


def sparse_rs_patch(*, side, num_queries, alpha_init=0.4, loss=margin):
  """Paints one square patch anywhere, with colours from the corners of [0, 1]^C.

  A thousand random squares make the first patch. Then a random square of it, of side
  max(floor(sqrt(alpha_t) side), 1), takes one random colour; every 5th query (later every 10th, ..)
  the patch moves instead, by at most 3/4 (1 - t / num_queries) of the image's side.

  Args:
    side: of the patch, in pixels.
    num_queries: of each image, that of x apart.
    alpha_init: alpha_0; falls to alpha_0 / 512.
    loss: `(logits[K], y) -> scalar`, made large.

  Returns:
    An `Attack` on x[B, H, W, C]: the first misclassified point found; where there is none, the point
    of largest loss, x among them.

  Raises:
    ValueError: for a negative `side`, or one above the image's; `num_queries` below 1;
      `alpha_init` outside (0, 1]; or images of more than 30 channels.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum((1, 2, 3)), jnp.full(len(x), 12.5)], axis=1)
    >>> attack = sparse_rs_patch(side=2, num_queries=20)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.ones((1, 4, 4, 1)), jnp.array([0]))
    >>> float(x_adv.sum())
    12.0

  References:
    Croce et al. 2022 (arXiv:2006.12834), section 5.
  """
  if side < 0:
    raise ValueError(f'`side` must be at least 0, got {side}.')
  _check(num_queries, alpha_init)

  def attack(key, model_fn, x, y):
    if x.ndim != 4 or side > min(x.shape[1:3]):
      raise ValueError(
        f'`side`={side} needs images x[B, H, W, C] of at least that height and width, got shape '
        f'{x.shape}.'
      )
    _check_channels(x.shape[3])
    if side == 0:
      return x
    begin = functools.partial(_random_patch, side, x.shape[1:])
    schedule = _patch_schedule(side, alpha_init, num_queries)
    return _search(key, model_fn, x, y, begin, _repaint, _paint_patch, schedule, loss)

  return attack


def _search(key, model_fn, x, y, begin, propose, paint, schedule, loss):
  """Random search, each image by itself.

  Args:
    begin: `(key, dtype) -> candidate`, any tree of arrays.
    propose: `(key, x, candidate, *entry) -> candidate`.
    paint: `(x, candidate) -> x_adv`, of one image.
    schedule: arrays, one entry a query after the first.
    key, model_fn, x, y, loss: of the attack.
  """
  keys = row_keys(key, len(x))

  def judge(points):
    logits = model_fn(points)
    value = jax.vmap(loss)(logits, y)
    return jnp.where(jnp.isnan(value), -jnp.inf, value), jax.vmap(margin)(logits, y) > 0

  def step(best, entry):
    number, *entry = entry
    draw = lambda key, x, candidate: propose(jax.random.fold_in(key, number), x, candidate, *entry)
    candidate = jax.vmap(draw)(keys, x, best[0])
    return _better(best, (candidate, *judge(jax.vmap(paint)(x, candidate)))), None

  candidate = jax.vmap(lambda key: begin(jax.random.fold_in(key, 0), x.dtype))(keys)
  first = (candidate, *judge(jax.vmap(paint)(x, candidate)))
  numbers = jnp.arange(1, len(schedule[0]) + 1, dtype=jnp.uint32)
  best, _ = lax.scan(step, first, (numbers, *schedule))
  x_adv = jax.vmap(paint)(x, best[0])
  return _better((x, *judge(x)), (x_adv, *best[1:]))[0]


def _better(best, new):
  """Of two (candidate, loss, misclassified): the old one if misclassified, else the better one."""
  accept = ~best[2] & (new[2] | (new[1] > best[1]))
  where = jax.vmap(lambda accept, a, b: jnp.where(accept, a, b))
  return jax.tree.map(functools.partial(where, accept), new, best)


def _random_pixels(k, num_pixels, channels, key, dtype):
  key_pixel, key_colour = jax.random.split(key)
  pixels = _distinct(key_pixel, num_pixels, k, k)
  return pixels, jax.random.bernoulli(key_colour, 0.5, (k, channels)).astype(dtype)


def _exchange(most, key, x, candidate, amount):
  """Other pixels, of other colours, for `amount` <= `most` of the set."""
  # Deviation: a pixel may come back at once with another colour (published: only pixels outside M
  # enter). Else no colour could change in place, and a whole image could not be attacked.
  pixels, colours = candidate
  x = as_pixels(x[None])[0]
  key_leave, key_enter, key_colour = jax.random.split(key, 3)
  leave = _distinct(key_leave, len(pixels), amount, most)
  kept = jnp.sort(pixels.at[leave].set(_FAR, mode='drop'))
  number = _distinct(key_enter, len(x) - len(pixels) + amount, amount, most)
  # The n-th pixel outside the kept ones s_0 < s_1 < ..: n plus how many s_j - j are at most n.
  gaps = kept - jnp.arange(len(kept), dtype=jnp.int32)
  enter = number + jnp.sum(gaps[None, :] <= number[:, None], axis=1, dtype=jnp.int32)
  colour = _corners(key_colour, x.at[enter].get(mode='clip'), amount == 1)
  return pixels.at[leave].set(enter, mode='drop'), colours.at[leave].set(colour, mode='drop')


def _distinct(key, size, amount, most):
  """int32[most], a uniformly random subset of 0 .. size - 1 in its first `amount` entries (Floyd's
  algorithm); `size` in the others."""
  number = jnp.arange(most, dtype=jnp.int32)
  last = size - amount + number
  drawn = jax.random.randint(key, (most,), 0, last + 1, jnp.int32)

  def add(i, chosen):
    new = jnp.where(jnp.any(chosen == drawn[i]), last[i], drawn[i])
    return chosen.at[i].set(jnp.where(i < amount, new, size))

  return lax.fori_loop(0, most, add, jnp.full(most, -1, jnp.int32))


def _corners(key, colours, differ):
  """Random corners of [0, 1]^C, one for each of `colours[N, C]`; if `differ`, never that colour."""
  bit = jnp.arange(colours.shape[1], dtype=jnp.int32)
  own = jnp.sum(jnp.where(colours == 1, 1 << bit[None], 0), axis=1, dtype=jnp.int32)
  skip = differ & jnp.all((colours == 0) | (colours == 1), axis=1)
  count = 2 ** colours.shape[1] - skip.astype(jnp.int32)
  number = jax.random.randint(key, own.shape, 0, count, jnp.int32)
  number = number + (skip & (number >= own)).astype(jnp.int32)
  return ((number[:, None] >> bit[None]) & 1).astype(colours.dtype)


def _paint_pixels(x, candidate):
  pixels, colours = candidate
  return as_pixels(x[None])[0].at[pixels].set(colours).reshape(x.shape)


def _random_patch(side, shape, key, dtype):
  key_place, key_squares = jax.random.split(key)
  highest = jnp.array(shape[:2], jnp.int32) - side + 1
  largest = max(math.ceil(side**0.5) - 1, 1)

  def draw(number, patch):
    key_size, key_square = jax.random.split(jax.random.fold_in(key_squares, number))
    size = jax.random.randint(key_size, (), 1, largest + 1, jnp.int32)
    return _random_square(key_square, patch, size)

  patch = lax.fori_loop(0, _NUM_SQUARES, draw, jnp.zeros((side, side, shape[2]), dtype))
  return jax.random.randint(key_place, (2,), 0, highest, jnp.int32), patch


def _random_square(key, patch, size):
  """One square of the patch in one colour; of a single pixel another colour than before."""
  key_place, key_colour = jax.random.split(key)
  corner = jax.random.randint(key_place, (2,), 0, len(patch) - size + 1, jnp.int32)
  at = jnp.arange(len(patch), dtype=jnp.int32)
  rows, columns = ((at >= corner[axis]) & (at < corner[axis] + size) for axis in (0, 1))
  colour = _corners(key_colour, patch[corner[0], corner[1]][None], size == 1)
  return jnp.where(rows[:, None, None] & columns[None, :, None], colour[None], patch)


def _repaint(key, x, candidate, size, move, share):
  place, patch = candidate
  height_width = jnp.array(x.shape[:2], jnp.int32)
  reach = (share * height_width.astype(jnp.float32)).astype(jnp.int32)
  key_move, key_square = jax.random.split(key)
  shift = jax.random.randint(key_move, (2,), -reach, reach + 1, jnp.int32)
  moved = jnp.clip(place + shift, 0, height_width - len(patch))
  move = move & jnp.all(reach > 0)
  return (
    jnp.where(move, moved, place),
    jnp.where(move, patch, _random_square(key_square, patch, size)),
  )


def _paint_patch(x, candidate):
  place, patch = candidate
  return lax.dynamic_update_slice(x, patch, (place[0], place[1], jnp.int32(0)))


def _alphas(schedule, alpha_init, num_queries):
  """float64[num_queries - 1], alpha of the queries after the first."""
  limits, divisors = schedule
  scaled = np.arange(1, num_queries) * _QUERIES // num_queries
  return alpha_init / np.array(divisors, np.float64)[np.searchsorted(limits, scaled)]


def _patch_schedule(side, alpha_init, num_queries):
  """Of the queries after the first: side of the square, whether to move, and how far."""
  number = np.arange(1, num_queries)
  size = np.maximum(np.floor(np.sqrt(_alphas(_PATCH_SCHEDULE, alpha_init, num_queries)) * side), 1)
  move = number % (_LOCATION_EVERY * (1 + number // 1000)) == 0
  share = _FIRST_SHIFT * (1 - number / num_queries)
  return jnp.asarray(size, jnp.int32), jnp.asarray(move), jnp.asarray(share, jnp.float32)


def _check(num_queries, alpha_init):
  if num_queries < 1 or not 0 < alpha_init <= 1:
    raise ValueError(
      f'`num_queries` must be at least 1 and `alpha_init` in (0, 1], got num_queries='
      f'{num_queries}, alpha_init={alpha_init}.'
    )


def _check_channels(channels):
  if channels > _MOST_CHANNELS:
    raise ValueError(f'`x` may have at most {_MOST_CHANNELS} channels, got {channels}.')
