r"""Interval bounds against an adversary who replaces a window of the image, or any k of its pixels.

Through the first affine stage W x + b of a network both threats have closed forms. With pixels
between l and h, c = (l + h) / 2 and r = (h - l) / 2,

  window P:   W x + b + sum_{i in P} W_i (c_i - x_i)  +-  sum_{i in P} |W_i| r_i
  k pixels:   W x + b + the sum of the k largest of max(W_i (h_i - x_i), W_i (l_i - x_i))

so that all places of a window cost one product with the few weights it covers. What follows is
interval arithmetic. Chiang et al. 2020 (arXiv:2003.06693).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from certjax.bounds._crown import interval
from certjax.bounds._interval import depends_linearly, gamma, magnitude, propagate
from certjax.bounds._network import Network, trace
from certjax.bounds._region import Region, ball, box
from certjax.tracing import is_traced
from certjax.typing import Array

_LARGEST = 2**26  # Entries of the first stage's matrix: half a gigabyte in float64.


def patch_locations(shape, side):
  """The top left corners of all windows that lie inside an image.

  Args:
    shape: (H, W, C) of the image.
    side: of the square window in pixels, or (height, width).

  Returns:
    int32[L, 2], rows first, with L = (H - height + 1) (W - width + 1).

  Raises:
    ValueError: for a side that is no whole number in 1 .. H and W.

  Example:
    >>> patch_locations((3, 3, 1), 2).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
  """
  height, width = _window(side, shape)
  corners = np.indices((shape[0] - height + 1, shape[1] - width + 1), np.int32)
  return corners.reshape(2, -1).T


def patch_interval(
  model_fn, x, side, spec=None, *, locations=None, eps: float | Array = 1.0, outward=False, chunk=16
):
  """Interval bounds of a network's outputs where one window of the image is replaced.

  The window's pixels may be anywhere within eps of the image's and in [0, 1], the others stay.
  Where the network begins with a dense layer and the places are the same for all images, its first
  stage is solved in closed form; otherwise each place is a box. The bounds are the same, but where
  several sums follow each other before the first activation: there the closed form is tighter.

  Args:
    model_fn: `x[1, H, W, C] -> logits[1, K]`; its steps must be ones that bounds know.
    x: float[B, H, W, C] in [0, 1].
    side: of the square window in pixels, or (height, width).
    spec: float[S, K] or float[B, S, K], rows of linear functions of the logits; None for the logits.
    locations: int[L, 2] or int[B, L, 2], top left corners; default all, `patch_locations`. Corners
      that leave no room for the window are moved to where it fits.
    eps: how far a pixel of the window may move, in pixel values; may be traced.
    outward: whether to widen the bounds by the rounding error of this computation.
    chunk: places at a time, to bound memory.

  Returns:
    (lower, upper), float[B, L, S] each, one row a place.

  Raises:
    ValueError: for a window that does not fit, images outside [0, 1], a model with a step that has no
      bound, or arguments of another shape.

  Example:
    >>> weights = jnp.array([[1.0, -2.0], [0.5, 3.0]]).reshape(4, 1)
    >>> model_fn = lambda x: x.reshape(len(x), -1) @ weights
    >>> lower, upper = patch_interval(model_fn, jnp.full((1, 2, 2, 1), 0.5), (1, 2))
    >>> lower[0, :, 0].tolist(), upper[0, :, 0].tolist()
    ([-0.25, -0.5], [2.75, 3.0])

  References:
    Chiang et al. 2020 (arXiv:2003.06693).
  """
  x, region, spec = _arguments(model_fn, x, spec, eps)
  window = _window(side, x.shape[1:])
  locations = patch_locations(x.shape[1:], side) if locations is None else locations
  locations = jnp.asarray(locations, jnp.int32)
  if locations.ndim not in (2, 3) or locations.shape[-1] != 2:
    raise ValueError(f'`locations` must be int[L, 2] or int[B, L, 2], got {locations.shape}.')
  shared = locations.ndim == 2  # Else gathering each image's weights costs more than its boxes.

  def one(x, low, high, rows, locations):
    bound = _window_bound if shared else _boxes_bound
    bound = bound(_merged(model_fn, rows), window, x, low, high, outward)
    return _in_chunks(bound, locations, chunk)

  each = (0, 0, 0, 0 if spec.ndim == 3 else None, None if shared else 0)
  with jax.default_matmul_precision('highest'):
    return jax.vmap(one, each)(x, region.lower, region.upper, spec, locations)


def sparse_interval(model_fn, x, pixels, spec=None, *, eps: float | Array = 1.0, outward=False):
  """Interval bounds of a network's outputs where any few pixels of the image are replaced.

  A pixel is all channels of one position. Each neuron of the first affine stage has its exact range;
  the pixels that reach it differ from neuron to neuron, which is what the bound gives away.

  Args:
    model_fn: `x[1, H, W, C] -> logits[1, K]`, whose image enters through one affine stage (dense, or a
      small convolution: the stage's matrix is formed).
    x: float[B, H, W, C] in [0, 1].
    pixels: k, how many are replaced at most.
    spec, eps, outward: as in `patch_interval`.

  Returns:
    (lower, upper), float[B, S] each.

  Raises:
    ValueError: as `patch_interval`; for k that is no whole number in 0 .. H W, and for a network
      without one such stage.

  Example:
    >>> weights = jnp.array([[1.0, -2.0], [0.5, 3.0]]).reshape(4, 1)
    >>> model_fn = lambda x: x.reshape(len(x), -1) @ weights
    >>> lower, upper = sparse_interval(model_fn, jnp.full((1, 2, 2, 1), 0.5), 2)
    >>> float(lower[0, 0]), float(upper[0, 0])
    (-1.25, 3.75)

  References:
    Chiang et al. 2020 (arXiv:2003.06693), whose bound has sum of the k largest |W_i| on both sides.
  """
  x, region, spec = _arguments(model_fn, x, spec, eps)
  check_count('pixels', pixels, 0, x.shape[1] * x.shape[2])

  def one(x, low, high, rows):
    stage = _first_stage(trace(_merged(model_fn, rows), jnp.zeros_like(x)))
    if stage is None or stage.size * x.size > _LARGEST:
      raise ValueError(
        '`sparse_interval` needs a network that the image enters through one affine stage of at most '
        f'{_LARGEST // x.size} outputs, got {"none" if stage is None else stage.size}.'
      )
    lower, upper = _sparse_box(stage, int(pixels), x, low, high, outward)
    lower, upper = interval(stage.rest, box(lower[None], upper[None]), outward=outward)
    return lower[0], upper[0]

  with jax.default_matmul_precision('highest'):
    each = (0, 0, 0, 0 if spec.ndim == 3 else None)
    return jax.vmap(one, each)(x, region.lower, region.upper, spec)


def check_count(name, value, least, most):
  """Raises unless a number is whole and in its range."""
  if not least <= value <= most or value != int(value):
    raise ValueError(f'`{name}` must be a whole number in {least} .. {most}, got {value}.')


def check_images(x):
  """Raises unless `x`, where it is known, is a batch of images with pixels in [0, 1]."""
  if np.ndim(x) != 4:
    raise ValueError(f'`x` must be a batch of images [B, H, W, C], got shape {np.shape(x)}.')
  if is_traced(x):
    return
  low, high = np.asarray(x).min(), np.asarray(x).max()
  if low < 0 or high > 1:
    raise ValueError(f'`x` must lie in [0, 1], got {low} .. {high}: for grey levels divide by 255.')


class _Stage(NamedTuple):
  """All of a network that is affine in the image, and the rest.

  Attributes:
    apply: image -> float[n], the values that the rest reads.
    spread: the same with the absolute values of all coefficients and without constants.
    base: (x, outward) -> the values of the stage at one image, bounded from both sides.
    rest: float[1, n] -> the network's outputs.
    size: n.
    terms: summands of one output or of one coefficient, over all steps.
    dense: whether there is no convolution among its steps.
  """

  apply: Callable
  spread: Callable
  base: Callable
  rest: Callable
  size: int
  terms: int
  dense: bool


def _first_stage(network):
  """The `_Stage` of a network; None where the image goes other ways too."""
  linear, nodes, output = depends_linearly(network), network.nodes, network.output
  others = [number for number in range(len(nodes)) if number not in linear]
  read = {i for number in others for i in nodes[number].inputs} & linear
  read = {output} if output in linear else read
  if len(read) != 1:
    return None
  (last,) = read
  steps = [number for number in sorted(linear) if 0 < number <= last]

  def through(part):
    def run(x):
      return _evaluate(nodes, steps, {0: x[None]}, part)[last].ravel()

    return run

  def base(x, outward):
    until = Network(nodes[: last + 1], last, None)
    boxes = propagate(until, Region(x, x, None, None, 'linf'), outward=outward)
    return tuple(side.ravel() for side in boxes[last])

  def rest(z):
    return _evaluate(nodes, others, {last: z.reshape(nodes[last].shape)}, 'apply')[output]

  size = int(np.prod(nodes[last].shape))
  terms = sum(nodes[i].terms + int(np.prod(nodes[i].shape)) for i in steps)
  dense = not any(nodes[i].rowwise for i in steps)
  return _Stage(through('apply'), through('spread'), base, rest, size, terms, dense)


def _evaluate(nodes, numbers, values, part):
  """The values of some nodes, by `apply` or by `spread`."""
  for number in numbers:
    node = nodes[number]
    values[number] = getattr(node, part)(*(values[i] for i in node.inputs))
  return values


def _window_bound(model_fn, window, x, low, high, outward):
  """A function of places, int[L, 2], to (lower, upper), float[L, S] each."""
  network = trace(model_fn, jnp.zeros_like(x))
  stage = _first_stage(network)
  # Between two values an activation of `rest` would lose its intersection: each place has its box.
  closed_form = stage is not None and stage.dense and stage.size * x.size <= _LARGEST
  if stage is None or not closed_form or any(node.between for node in network.nodes):
    return _boxes_bound(model_fn, window, x, low, high, outward)
  matrix = jnp.moveaxis(jax.jacrev(stage.apply)(jnp.zeros_like(x)), 0, -1)
  least, most = _base(stage, x, low, high, outward)
  away, reach = (low + high) / 2 - x, (high - low) / 2

  def bound(places):
    def of(place):
      cut = lambda value: _cut(value, place, window)
      middle = jnp.tensordot(cut(away), cut(matrix), 3)
      spread = jnp.tensordot(cut(reach), jnp.abs(cut(matrix)), 3)
      return least + middle - spread, most + middle + spread

    return interval(stage.rest, box(*jax.vmap(of)(places)), outward=outward)

  return bound


def _boxes_bound(model_fn, window, x, low, high, outward):
  """As `_window_bound`, for any network: the box of each place."""

  def bound(places):
    def inside(place):
      rows, columns = (
        (jnp.arange(length, dtype=start.dtype) - start) // side == 0
        for length, start, side in zip(x.shape, _fitting(place, x.shape, window), window, strict=False)
      )  # fmt: skip
      return (rows[:, None] & columns[None])[:, :, None]

    mask = jax.vmap(inside)(places)
    lower, upper = (jnp.where(mask, side[None], x[None]) for side in (low, high))
    return interval(model_fn, box(lower, upper), outward=outward)

  return bound


def _sparse_box(stage, pixels, x, low, high, outward):
  """The range of each output of a stage, as any `pixels` pixels go where they like."""
  matrix = jax.jacrev(stage.apply)(jnp.zeros_like(x))
  least, most = _base(stage, x, low, high, outward)

  def largest(rows):
    gain = jnp.maximum(rows * (high - x)[None], rows * (low - x)[None])
    each = jnp.sum(gain, axis=-1).reshape(stage.size, -1)
    return jnp.sum(jax.lax.top_k(each, pixels)[0], axis=-1)

  return least - largest(-matrix), most + largest(matrix)


def _base(stage, x, low, high, outward):
  """The stage at the image, widened by what its matrix and the sums over a window may be off by.

  The coefficients are within gamma of the absolute ones, whose products with the pixels bound every
  summand; three more roundings join the parts.
  """
  least, most = stage.base(x, outward)
  if not outward:
    return least, most
  rounding = gamma(2 * (stage.terms + x.size) + 16, x.dtype)
  largest = stage.spread(jnp.abs(x) + jnp.abs(low) + jnp.abs(high))
  slip = rounding * (largest + magnitude((least, most)))
  return least - slip, most + slip


def _cut(value, place, window):
  """The window of a map [H, W, ...] at a place."""
  rest = value.shape[2:]
  start = (*_fitting(place, value.shape, window), *(jnp.zeros_like(place[0]) for _ in rest))
  return jax.lax.dynamic_slice(value, start, (*window, *rest))


def _fitting(place, shape, window):
  return [jnp.clip(place[axis], 0, shape[axis] - side) for axis, side in enumerate(window)]


def _in_chunks(bound, locations, chunk):
  """`bound` over a few places at a time."""
  count = max(-(-len(locations) // chunk), 1)
  if count == 1:
    return bound(locations)
  size = -(-len(locations) // count)
  rows = jnp.minimum(jnp.arange(count * size), len(locations) - 1)
  found = jax.lax.map(bound, locations[rows].reshape(count, size, 2))
  return tuple(side.reshape(count * size, -1)[: len(locations)] for side in found)


def _merged(model_fn, rows):
  """The network whose outputs are linear functions of the logits."""
  return lambda x: jnp.einsum('bk,sk->bs', model_fn(x), rows, precision='highest')


def _arguments(model_fn, x, spec, eps):
  """(x, the box within eps of it, spec as an array)."""
  check_images(x)
  x = jnp.asarray(x)
  region = ball(x, eps)
  logits = jax.eval_shape(model_fn, jnp.zeros((1, *x.shape[1:]), x.dtype))
  if logits.ndim != 2 or len(logits) != 1:
    raise ValueError(f'`model_fn` must map [1, H, W, C] to logits [1, K], got {logits.shape}.')
  classes = logits.shape[1]
  spec = jnp.eye(classes, dtype=x.dtype) if spec is None else jnp.asarray(spec, x.dtype)
  if spec.ndim not in (2, 3) or spec.shape[-1] != classes:
    raise ValueError(f'`spec` must be [S, K] or [B, S, K] with K={classes}, got {spec.shape}.')
  return x, region, spec


def _window(side, shape):
  """(height, width) of a window that fits into an image."""
  sides = (side, side) if np.ndim(side) == 0 else tuple(side)
  if len(sides) != 2:
    raise ValueError(f'`side` must be a number of pixels, or (height, width), got {side}.')
  for value, most in zip(sides, shape, strict=False):
    check_count('side', value, 1, most)
  return tuple(int(value) for value in sides)
