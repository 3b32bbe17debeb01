"""Pointwise (Schott et al. 2019): few changed pixels, from decisions alone.

Salt and pepper finds some misclassified point; then changed pixels are put back as long as the point
stays misclassified. The end is 1-minimal: no single changed pixel can be put back. That is an upper
bound on the smallest number of pixels, never a proof of it. One state machine an image asks one
question at a time; a loop in JAX or on the host answers it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.attacks._loss import margin
from certjax.attacks._pgd import row_keys

_UNITS = {'pixels': lambda shape: shape[-1] if len(shape) == 3 else 1, 'features': lambda shape: 1}


class Sparse(NamedTuple):
  """The sparsest misclassified point that was found of each image.

  Attributes:
    x: float[B, ...]; the image itself where none was found.
    success: bool[B].
    num_changed: int32[B], pixels (or features) that differ from the image; 0 without success.
    num_queries: int32[B], decisions asked for, that of the image itself among them.
  """

  x: Any
  success: Any
  num_changed: Any
  num_queries: Any


class _State(NamedTuple):
  """Where the search of ONE image stands: a number each, but for the points [P, C]."""

  repeat: Any
  left: Any  # Noises to draw in this repeat; at 0 pixels are put back.
  level: Any
  step: Any
  point: Any  # The sparsest of this repeat.
  count: Any  # Its changed pixels; P + 1 while there is none.
  size: Any  # Pixels put back at once.
  place: Any  # Where the cycle through the pixels stands.
  tried: Any  # Pixels that could not be put back, in this pass or since the last success.
  best: Any
  best_count: Any
  num_queries: Any


class _Image(NamedTuple):
  """What the search of ONE image may read: x[P, C], and a cycle through its pixels a repeat."""

  key: Any
  x: Any
  orders: Any


def pointwise(*, pixels=None, num_repeats=10, num_noises=100, unit='pixels'):
  """Puts back, of a noisy misclassified image, every pixel that can be put back.

    min over repeats of |{p : x_adv_p != x_p}|,  each a local minimum of the pointwise search

  A point is misclassified where another class's logit exceeds that of y; nothing else of the logits
  is used, and no gradient.

  Args:
    pixels: the most pixels that may change; None for any number. A minimum above it is thrown away.
    num_repeats, num_noises, unit: as in `pointwise_search`.

  Returns:
    An `Attack`. Where it fails it returns the image.

  Raises:
    ValueError: for a negative `pixels`, counts below 1, or an unknown `unit`.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 2.2)], axis=1)
    >>> attack = pointwise(num_repeats=1, num_noises=10)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.ones((1, 4)), jnp.array([0]))
    >>> sorted(x_adv[0].tolist())
    [0.0, 0.0, 1.0, 1.0]

  References:
    Schott et al. 2019 (arXiv:1805.09190), section 5.
  """
  _check(num_repeats, num_noises, unit)
  if pixels is not None and pixels < 0:
    raise ValueError(f'`pixels` must be at least 0, or None for any number, got {pixels}.')

  def attack(key, model_fn, x, y):
    if pixels == 0:
      return x
    found = pointwise_search(
      key, lambda x: jax.vmap(margin)(model_fn(x), y) > 0, x,
      num_repeats=num_repeats, num_noises=num_noises, unit=unit, on_host=False,
    )  # fmt: skip
    if pixels is None:
      return found.x
    return jax.vmap(jnp.where)(found.num_changed <= pixels, found.x, x)

  return attack


def pointwise_search(
  key, is_adversarial, x, *, num_repeats=10, num_noises=100, unit='pixels', on_host=True
) -> Sparse:
  """The pointwise search against any decision, a smoothed classifier with abstention among them.

  Salt and pepper: each pixel turns to 0 with probability p / 2, to 1 with p / 2. p grows until the
  point is misclassified; the draws left grow from half that p, and the sparsest point counts. Then
  blocks of changed pixels are put back, first halves, then ever smaller ones, at last single pixels,
  until each one left was refused since the last success.

  Args:
    key: one key, folded by row, or `Key[B]`.
    is_adversarial: `x[B, ...] -> bool[B]`, of row b's image. All rows are asked at once, also those
      that have finished. 1-minimality is about these answers: let equal points get equal ones
      (`certify.predict` with a fixed key).
    x: float[B, ...] in [0, 1].
    num_repeats: searches from fresh noise; the sparsest point of all is returned.
    num_noises: salt-and-pepper images a repeat.
    unit: what is counted: 'pixels' (all channels of x[B, H, W, C] together; every value of another
      shape is a pixel) or 'features', single values.
    on_host: call `is_adversarial` with numpy arrays from a loop on the host. False: it is a JAX
      function, and the whole search one `lax.while_loop` under whatever `jit` surrounds it.

  Returns:
    A `Sparse`, of numpy arrays if `on_host`.

  Raises:
    ValueError: for counts below 1 or an unknown `unit`.

  Example:
    >>> dark = lambda x: x.sum(axis=1) < 2.2
    >>> found = pointwise_search(jax.random.key(0), dark, np.ones((1, 4), np.float32))
    >>> bool(found.success[0]), int(found.num_changed[0])
    (True, 2)

  References:
    Schott et al. 2019 (arXiv:1805.09190), section 5.
  """
  _check(num_repeats, num_noises, unit)
  # Deviation: Schott et al. put back single pixels only, draw a new order each pass, and end after a
  # pass without success. Blocks save most of the questions; one cycle proves the same minimality.
  shape, x = jnp.shape(x), as_pixels(jnp.asarray(x), unit)
  decide = functools.partial(_decide, is_adversarial, shape, on_host)
  images, state = _begin(num_repeats, num_noises, row_keys(key, len(x)), x, decide(x))
  unfinished = lambda state: jnp.any(state.repeat < num_repeats)
  step = lambda state: _step(num_noises, decide, images, state)
  if on_host:
    while unfinished(state):
      state = step(state)
  else:
    state = lax.while_loop(unfinished, step, state)
  success = state.best_count <= x.shape[1]
  num_changed = jnp.where(success, state.best_count, 0)
  found = Sparse(state.best.reshape(shape), success, num_changed, state.num_queries)
  return jax.tree.map(np.asarray, found) if on_host else found


def as_pixels(x, unit='pixels'):
  """`x[B, ...]` as `[B, P, C]`: P things to change, of C values each.

  Example:
    >>> as_pixels(jnp.zeros((5, 2, 2, 3))).shape, as_pixels(jnp.zeros((5, 7))).shape
    ((5, 4, 3), (5, 7, 1))
  """
  return x.reshape(len(x), -1, _UNITS[unit](x.shape[1:]))


def _decide(is_adversarial, shape, on_host, points):
  points = points.reshape(shape)
  answer = is_adversarial(np.asarray(points)) if on_host else is_adversarial(points)
  if jnp.shape(answer) != shape[:1] or answer.dtype != bool:
    raise ValueError(
      f'`is_adversarial` must return bool[B], one decision a row, for B={shape[0]}: got shape '
      f'{jnp.shape(answer)}, dtype {answer.dtype}.'
    )
  return jnp.asarray(answer)


def _step(num_noises, decide, images, state):
  points, places = _ask_all(images, state)
  return _hear_all(num_noises, images, state, points, places, decide(points))


@functools.partial(jax.jit, static_argnums=0)
def _begin(num_repeats, num_noises, keys, x, adversarial):
  images = jax.vmap(functools.partial(_prepare, num_repeats))(keys, x)
  return images, jax.vmap(functools.partial(_start, num_noises))(images, adversarial)


def _prepare(num_repeats, key, x):
  key_noise, key_order = jax.random.split(key)
  bits = jax.random.bits(key_order, (num_repeats, len(x)))
  return _Image(key_noise, x, jnp.argsort(bits, axis=1).astype(jnp.int32))


def _start(num_noises, image, adversarial):
  """An image that is misclassified as it is has finished."""
  zero, none = jnp.int32(0), jnp.int32(len(image.x) + 1)
  new = _State(
    zero, zero, jnp.float32(0), jnp.float32(0), image.x, none, zero, zero, zero,
    image.x, jnp.where(adversarial, zero, none), zero + 1,
  )  # fmt: skip
  repeat = jnp.where(adversarial, jnp.int32(len(image.orders)), zero)
  return _fresh(num_noises, image, new)._replace(repeat=repeat)


def _fresh(num_noises, image, state):
  """The same state at the beginning of a repeat."""
  level = jnp.float32(1) / jnp.asarray(num_noises, jnp.float32)
  none, zero = jnp.int32(len(image.x) + 1), jnp.int32(0)
  return state._replace(
    left=zero + num_noises, level=level, step=level, count=none, size=zero + 1, place=zero,
    tried=zero,
  )  # fmt: skip


def _ask(image, state):
  """The point to be judged, and where the cycle stands after it."""
  order = image.orders[jnp.minimum(state.repeat, len(image.orders) - 1)]
  block, place = _block(order, _different(image.x, state.point), state)
  key = jax.random.fold_in(jax.random.fold_in(image.key, state.repeat), state.left)
  noisy = _salt_and_pepper(key, image.x, state.level)
  fewer = jnp.where(block[:, None], image.x, state.point)
  return _choose(state.left > 0, (noisy, state.place), (fewer, place))


def _block(order, different, state):
  """Marks the next changed pixels of the cycle; at most as many as this pass has not tried."""
  ahead, at = different[order], jnp.arange(len(order), dtype=jnp.int32)
  number = jnp.cumsum(ahead, dtype=jnp.int32)
  passed = jnp.where(state.place > 0, number[state.place - 1], 0)
  number = number - passed + jnp.where(at < state.place, state.count, 0)
  taken = ahead & (number <= jnp.minimum(state.size, state.count - state.tried))
  last = jnp.argmax(jnp.where(taken, number, 0)).astype(jnp.int32)
  return jnp.zeros_like(different).at[order].set(taken), (last + 1) % len(order)


def _salt_and_pepper(key, x, level):
  draw = jax.random.uniform(key, (len(x), 1), jnp.float32)
  return jnp.where(draw < level / 2, 0, jnp.where(draw >= 1 - level / 2, 1, x))


def _different(x, point):
  return jnp.any((x != point) & ~(jnp.isnan(x) & jnp.isnan(point)), axis=-1)


def _hear(num_noises, image, state, point, place, adversarial):
  """The state after the answer; a misclassified point with fewer changed pixels is kept."""
  count = jnp.sum(_different(image.x, point), dtype=jnp.int32)
  keep = adversarial & (count < state.count)
  refused = jnp.where(keep, 0, jnp.maximum(state.count - count, 1))  # Every answer is progress.
  new = state._replace(
    point=jnp.where(keep, point, state.point), count=jnp.where(keep, count, state.count),
    place=place, num_queries=state.num_queries + 1,
  )  # fmt: skip
  noise, fewer = _after_noise(keep, new), _after_block(keep, refused, new)
  new, ended = _choose(state.left > 0, noise, fewer)
  new = _choose(ended, _next_repeat(num_noises, image, new), new)
  return _choose(state.repeat < len(image.orders), new, state)


def _after_noise(keep, state):
  left, half = state.left - 1, state.level / 2
  level = jnp.where(keep, half, state.level + state.step)
  step = jnp.where(keep, half / jnp.maximum(left, 1).astype(jnp.float32), state.step)
  size = (state.count + 1) // 2
  none = state.count > len(state.point)
  return state._replace(left=left, level=level, step=step, size=size), (left == 0) & none


def _after_block(keep, refused, state):
  single = state.size == 1
  tried = jnp.where(keep & single, 0, state.tried + refused)
  over = tried >= state.count
  size, tried = jnp.where(over, (state.size + 1) // 2, state.size), jnp.where(over, 0, tried)
  return state._replace(size=size, tried=tried), over & single


def _next_repeat(num_noises, image, state):
  better = state.count < state.best_count
  state = state._replace(
    repeat=state.repeat + 1, best=jnp.where(better, state.point, state.best),
    best_count=jnp.where(better, state.count, state.best_count),
  )  # fmt: skip
  return _fresh(num_noises, image, state)


def _choose(condition, a, b):
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), a, b)


_ask_all = jax.jit(jax.vmap(_ask))
_hear_all = jax.jit(jax.vmap(_hear, in_axes=(None, 0, 0, 0, 0, 0)))


def _check(num_repeats, num_noises, unit):
  if num_repeats < 1 or num_noises < 1:
    raise ValueError(
      f'`num_repeats` and `num_noises` must be at least 1, got {num_repeats} and {num_noises}.'
    )
  if unit not in _UNITS:
    raise ValueError(f'`unit` must be one of {", ".join(_UNITS)}, got {unit!r}.')
