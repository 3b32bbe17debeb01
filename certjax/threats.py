"""Perturbation sets around an image: what an attack may do.

A `Threat` speaks of ONE image; batching is `jax.vmap`. Every point it returns lies in the
set and in [0, 1], up to float rounding; at eps = 0 it is the image itself, bit for bit.

L0 and patches bound where an image changes, not by how much. Both projections are exact: for pixels
that may change the nearest value is the clipped one, so moving pixel p from x_p to clip(v_p) brings
the point nearer to v by

  gain_p = sum_c (v - x)^2 - (v - clip(v))^2 >= 0,

pixel by pixel, and the best allowed set of pixels is that of the largest total gain.

L1 has an exact projection as well: onto the ball and [0, 1] at once, by a threshold (Croce & Hein 2021).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from certjax.tracing import is_traced

_SMALL_SQUARE, _STRETCH = 1e-20, 2.0**80  # Of lengths whose squares could leave float32's range.


class Threat(NamedTuple):
  """A ball around an image, intersected with [0, 1].

  Attributes:
    norm: 'linf', 'l2', 'l1', 'l0' or 'patch'.
    eps: size of the ball, in pixel values, or in whole pixels ('l0', 'patch'); may be traced.
    sample: `(key, x) -> x'`, a random point of the set.
    steepest: `(gradient) -> direction` of norm 1 that maximises <gradient, direction>. In whole
      pixels a direction has no length: there, among those that change no more than the set allows,
      each value by at most 1.
    project: `(x, x') -> x''`, a point of the set near x'.
    distance: `(x, x') -> scalar`, in the norm.
  """

  norm: str
  eps: Any
  sample: Callable
  steepest: Callable
  project: Callable
  distance: Callable


def linf(eps) -> Threat:
  """Every pixel moves by at most `eps`.

  Args:
    eps: in pixel values of [0, 1]; may be traced.

  Returns:
    A `Threat`.

  Raises:
    ValueError: if `eps` is negative, or above 1 (grey levels given for pixel values).

  Example:
    >>> threat = linf(0.25)
    >>> threat.project(jnp.zeros(3), jnp.array([1.0, 0.125, -1.0])).tolist()
    [0.25, 0.125, 0.0]
  """
  _check(eps)

  def sample(key, x):
    return project(x, x + jax.random.uniform(key, x.shape, x.dtype, -1, 1) * eps)

  def project(x, x_adv):
    return jnp.clip(x + jnp.clip(x_adv - x, -eps, eps), 0, 1)

  def distance(x, x_adv):
    return jnp.max(jnp.abs(x_adv - x))

  return Threat('linf', eps, sample, jnp.sign, project, distance)


def l2(eps) -> Threat:
  """The Euclidean length of the change is at most `eps`.

  `project` scales the change into the ball and then clips to [0, 1]: as x lies in the box,
  clipping only shortens the change, so the result is in both sets.

  Args:
    eps: in pixel values of [0, 1]; may be traced.

  Returns:
    A `Threat`.

  Raises:
    ValueError: if `eps` is negative.

  Example:
    >>> threat = l2(0.5)
    >>> moved = threat.project(jnp.full(4, 0.5), jnp.ones(4))
    >>> moved.tolist()
    [0.75, 0.75, 0.75, 0.75]
  """
  _check(eps, largest=None)

  def sample(key, x):
    key_direction, key_length = jax.random.split(key)
    direction = steepest(jax.random.normal(key_direction, x.shape, x.dtype))
    length = jax.random.uniform(key_length, (), x.dtype) ** (1 / x.size)  # Uniform in the ball.
    return project(x, x + eps * length * direction)

  def steepest(gradient):
    return gradient / _safe(_length(gradient))

  def project(x, x_adv):
    delta = x_adv - x
    delta = delta * jnp.minimum(1.0, eps / _safe(_length(delta)))
    return jnp.clip(x + delta, 0, 1)

  def distance(x, x_adv):
    return _length(x_adv - x)

  return Threat('l2', eps, sample, steepest, project, distance)


def l1(eps) -> Threat:
  """The absolute changes of all values sum to at most `eps`.

  `project` gives the nearest point of the ball and [0, 1] together: it moves value i by

    sign(v_i) min(max(|v_i| - theta, 0), u_i),  v = x' - x,

  u_i the room from x_i to the side of the box that v_i points at, and theta >= 0 the least threshold
  for which these lengths sum to at most `eps`. `steepest` moves the value of the largest
  |gradient| alone, the first of equals.

  Args:
    eps: in pixel values, summed over the image; may be traced.

  Returns:
    A `Threat`. Its points are uniform in the ball, projected.

  Raises:
    ValueError: if `eps` is negative.

  Example:
    >>> l1(0.5).project(jnp.zeros(3), jnp.array([0.75, 0.5, -1.0])).tolist()
    [0.375, 0.125, 0.0]

  References:
    Croce & Hein 2021 (arXiv:2103.01208), Proposition 2.2.
  """
  _check(eps, largest=None)

  def sample(key, x):
    key_direction, key_length = jax.random.split(key)
    direction = jax.random.laplace(key_direction, x.shape, x.dtype)
    rest = jax.random.exponential(key_length, (), x.dtype)  # Makes the law uniform in the ball.
    return project(x, x + eps * direction / (jnp.sum(jnp.abs(direction)) + rest))

  def steepest(gradient):
    flat = gradient.ravel()
    place = jnp.argmax(jnp.abs(flat))
    return jnp.zeros_like(flat).at[place].set(jnp.sign(flat[place])).reshape(gradient.shape)

  def project(x, x_adv):
    delta = x_adv - x
    size, room = jnp.abs(delta), jnp.where(delta > 0, 1 - x, x)
    lengths = _shrink(size, room, _threshold(size, room, eps))
    lengths = lengths * jnp.minimum(1.0, eps / _safe(jnp.sum(lengths)))  # What rounding left.
    return jnp.clip(x + jnp.sign(delta) * lengths, 0, 1)

  def distance(x, x_adv):
    return jnp.sum(jnp.abs(x_adv - x))

  return Threat('l1', eps, sample, steepest, project, distance)


def l0(pixels) -> Threat:
  """At most `pixels` pixels change, to any colour; all channels of a pixel count as one.

  `project` is exact: the pixels of the largest gain (see above) change, the lowest of equals. A pixel
  that is NaN stays. `steepest` is sign(gradient) on the pixels of the largest sum_c |gradient|, and
  0 elsewhere: an ascent along it seldom leaves its first pixels, which `attacks.pgd0` does.

  Args:
    pixels: a whole number, 0 or more; may be traced (int32).

  Returns:
    A `Threat` around images [H, W, C]. Its points are uniform colours on a uniform set of pixels.

  Raises:
    ValueError: unless `pixels` is a whole number, 0 or more; for an image of another rank.

  Example:
    >>> x_adv = jnp.array([[[0.5], [3.0]], [[-1.0], [0.0]]])
    >>> l0(2).project(jnp.zeros((2, 2, 1)), x_adv).tolist()  # -1 is cut to 0: nothing is gained.
    [[[0.5], [1.0]], [[0.0], [0.0]]]

  References:
    Croce & Hein 2019 (arXiv:1909.05040), section 3.2.
  """
  pixels = _whole('pixels', pixels, 'round(share * height * width)')

  def sample(key, x):
    key_place, key_colour = jax.random.split(key)
    scores = jax.random.uniform(key_place, _image(x).shape[:2], jnp.float32)
    return _where(_largest(scores, pixels), jax.random.uniform(key_colour, x.shape, x.dtype), x)

  def steepest(gradient):
    size = jnp.sum(jnp.abs(_image(gradient)), axis=-1)
    return _where(_largest(size, pixels), jnp.sign(gradient), jnp.zeros_like(gradient))

  def project(x, x_adv):
    gain = _gain(x, x_adv)
    return _where(_largest(gain, pixels) & (gain > 0), jnp.clip(x_adv, 0, 1), x)

  def distance(x, x_adv):
    return jnp.sum(jnp.any(_image(x) != x_adv, axis=-1), dtype=jnp.float32)

  return Threat('l0', pixels, sample, steepest, project, distance)


def patch(side) -> Threat:
  """All changes lie in one square of `side` x `side` pixels, anywhere in the image, of any content.

  `project` is exact up to the rounding of sums: the square of the largest total gain (see above)
  changes, the first of equals. A change that fits in a square stays as it is, whatever the
  rounding. `steepest` is sign(gradient) in the square of the largest sum of |gradient|. A square
  larger than the image is the whole image.

  Args:
    side: a whole number of pixels, 0 or more; may be traced (int32).

  Returns:
    A `Threat` around images [H, W, C]. `distance` is the side of the smallest square that covers the
    change. Its points are uniform colours in a uniform place.

  Raises:
    ValueError: unless `side` is a whole number, 0 or more; for an image of another rank.

  Example:
    >>> x_adv = jnp.array([[[0.5], [0.25]], [[0.0], [0.75]]])
    >>> patch(1).project(jnp.zeros((2, 2, 1)), x_adv).tolist()
    [[[0.0], [0.0]], [[0.0], [0.75]]]

  References:
    Chiang et al. 2020 (arXiv:2003.06693); Levine & Feizi 2020 (arXiv:2002.10733).
  """
  side = _whole('side', side, 'round(share ** 0.5 * height)')

  def sample(key, x):
    key_row, key_column, key_colour = jax.random.split(key, 3)
    draw = lambda key, length: jax.random.randint(
      key, (), 0, jnp.maximum(length - side, 0) + 1, jnp.int32
    )
    height, width, _ = _image(x).shape
    inside = _square(draw(key_row, height), draw(key_column, width), side, (height, width))
    return _where(inside, jax.random.uniform(key_colour, x.shape, x.dtype), x)

  def steepest(gradient):
    sums = _square_sums(jnp.sum(jnp.abs(_image(gradient)), axis=-1), side)
    return _where(_best_square(sums, side), jnp.sign(gradient), jnp.zeros_like(gradient))

  def project(x, x_adv):
    gain = _gain(x, x_adv)
    gain = jnp.where(gain > 0, gain, 0)  # NaN is no gain.
    changed = _square_sums((gain > 0).astype(jnp.float32), side)
    fits = changed == jnp.sum(gain > 0, dtype=jnp.float32)  # Small integers: exact.
    inside = _best_square(jnp.where(fits, jnp.inf, _square_sums(gain, side)), side)
    return _where(inside & (gain > 0), jnp.clip(x_adv, 0, 1), x)

  def distance(x, x_adv):
    changed = jnp.any(_image(x) != x_adv, axis=-1)
    extent = jnp.maximum(_extent(jnp.any(changed, axis=1)), _extent(jnp.any(changed, axis=0)))
    return extent.astype(jnp.float32)

  return Threat('patch', side, sample, steepest, project, distance)


def _shrink(size, room, theta):
  return jnp.minimum(jnp.maximum(size - theta, 0), room)


@jax.jit  # Else a call outside of jit compiles the loop each time.
def _threshold(size, room, eps):
  """The least theta >= 0 for which the lengths of `_shrink` sum to at most eps.

  The sum falls with theta, in straight pieces that end where a value leaves its room or reaches 0.
  """
  ends = jnp.sort(jnp.concatenate([size.ravel(), jnp.maximum(size - room, 0).ravel()]))

  def halve(_, bounds):  # Whole sums at log n ends: running sums would lose small values.
    low, high = bounds
    middle = (low + high) // 2
    fits = jnp.sum(_shrink(size, room, ends[middle])) <= eps
    return jnp.where(fits, low, middle + 1), jnp.where(fits, middle, high)

  bounds = jnp.int32(0), jnp.int32(ends.size - 1)  # At the last end the sum is 0.
  high = ends[jax.lax.fori_loop(0, ends.size.bit_length(), halve, bounds)[1]]
  moving = (size >= high) & (size - room < high)
  kept = jnp.where(moving, size, jnp.where(size > high, room, 0))
  theta = (jnp.sum(kept) - eps) / jnp.maximum(jnp.sum(moving, dtype=size.dtype), 1)
  fits = jnp.sum(_shrink(size, room, 0)) <= eps
  return jnp.where(fits, 0, jnp.minimum(jnp.maximum(theta, 0), high))


def _image(x):
  if x.ndim != 3:
    raise ValueError(
      f'whole pixels are those of ONE image [H, W, C], got shape {x.shape}: use jax.vmap for a '
      f'batch, and x[..., None] for grey images.'
    )
  return x


def _where(pixels, a, b):
  """a in the pixels bool[H, W], b elsewhere."""
  return jnp.where(pixels[..., None], a, b)


def _gain(x, x_adv):
  """float[H, W]: how much nearer each pixel comes to x_adv when it may leave x; free of cancellation."""
  clipped = jnp.clip(x_adv, 0, 1)
  return jnp.sum((clipped - _image(x)) * ((x_adv - x) + (x_adv - clipped)), axis=-1)


def _largest(scores, number):
  """bool[H, W], the `number` largest scores, the first of equals; NaN counts as the least."""
  order = jnp.argsort(-scores.ravel(), stable=True)
  chosen = jnp.arange(order.size, dtype=jnp.int32) < number
  return jnp.zeros(order.shape, bool).at[order].set(chosen).reshape(scores.shape)


def _starts(side, length):
  """bool[length, length]: whether a stretch of `side` from i holds j, cut off at the end."""
  ahead = jnp.arange(length, dtype=jnp.int32)
  ahead = ahead[None, :] - ahead[:, None]
  return (ahead >= 0) & (ahead < side)


def _square_sums(values, side):
  """float[H, W], the sum over the square that starts at each pixel."""
  rows, columns = (_starts(side, length).astype(values.dtype) for length in values.shape)
  # Products, not differences of running sums: small values beside large ones keep their digits.
  return jnp.einsum('ir,rc,jc->ij', rows, values, columns, precision='highest')


def _best_square(sums, side):
  """bool[H, W], the square of the largest sum, the first of equals."""
  row, column = jnp.unravel_index(jnp.argmax(sums), sums.shape)
  return _square(row, column, side, sums.shape)


def _square(row, column, side, shape):
  rows, columns = (jnp.arange(length, dtype=jnp.int32) for length in shape)
  inside = lambda places, first: (places >= first) & (places < first + side)
  return inside(rows, row)[:, None] & inside(columns, column)[None, :]


def _extent(changed):
  """Length of the shortest stretch that holds all True of bool[n]."""
  last = changed.size - jnp.argmax(changed[::-1])
  return jnp.where(jnp.any(changed), last - jnp.argmax(changed), 0)


def _length(v):
  """Euclidean norm whose gradient at 0 is 0, and that neither over- nor underflows."""
  flat = v.ravel()  # Products, not sums of squares: XLA on CPU adds those up one by one.
  square = jax.lax.stop_gradient(jnp.dot(flat, flat, precision='highest'))
  small, large = square < _SMALL_SQUARE, square > 1 / _SMALL_SQUARE
  scale = jnp.where(small, _STRETCH, jnp.where(large, 1 / _STRETCH, 1.0)).astype(v.dtype)
  flat = flat * scale
  square = jnp.dot(flat, flat, precision='highest')
  # The rest is 0 or NaN, and stays it: a point of NaN is at no distance.
  return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)) / scale, square)


def _safe(value):
  return jnp.where(value > 0, value, 1.0)


def _check(eps, largest: float | None = 1.0):
  if is_traced(eps):
    return
  if not eps >= 0:
    raise ValueError(f'`eps` must be at least 0, got eps={eps}.')
  if largest is not None and eps > largest:
    raise ValueError(
      f'`eps` is in pixel units of [0, 1], got eps={eps}; for {eps:g} grey levels write {eps:g} / 255.'
    )


def _whole(name, value, remedy):
  if is_traced(value):
    return value.astype(jnp.int32)
  if isinstance(value, str) or not 0 <= value < math.inf or value != int(value):
    raise ValueError(
      f'`{name}` is a whole number of pixels, 0 or more, got {name}={value}; for a share of the image write {remedy}.'
    )
  return int(value)
