r"""Linear bounds of every neuron of a convolution, each over the window of the image that it sees.

Backwards from one neuron, coefficients are zero outside a window: after convolutions of sizes k and
strides s its side grows from w to (w - 1) s + k. CROWN's backward pass over windows of all places at
once does the arithmetic that counts, where rows as large as the image are mostly zeros: for the second
convolution of Wong & Kolter's network one percent of it. The bounds are the same.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from certjax.bounds._affine import POINTWISE, Convolution
from certjax.bounds._interval import gamma, magnitude, slip_of
from certjax.bounds._region import safe_norm
from certjax.layers import conv_general_dilated


class _Windows(NamedTuple):
  """One window for every place of the target: pairs (vertical, horizontal).

  Attributes:
    count: places.
    start: first row and column of the first window; outside the image there are zeros.
    step: between neighbouring places.
    size: of a window.
  """

  count: tuple
  start: tuple
  step: tuple
  size: tuple

  def below(self, convolution):
    """Windows of the convolution's input."""
    sizes, strides = convolution.kernel.shape[:2], convolution.strides
    low = [pad[0] for pad in convolution.padding]
    each = lambda function, *parts: tuple(map(function, *parts))
    return _Windows(
      self.count,
      each(lambda start, s, p: start * s - p, self.start, strides, low),
      each(lambda step, s: step * s, self.step, strides),
      each(lambda size, s, k: (size - 1) * s + k, self.size, strides, sizes),
    )

  def places(self, axis, length):
    """(int[count, size] indices, whether they lie in the image) along an axis."""
    first = self.start[axis] + self.step[axis] * np.arange(self.count[axis])
    at = first[:, None] + np.arange(self.size[axis])
    return np.clip(at, 0, length - 1), (at >= 0) & (at < length)

  def of(self, value):
    """[1, H, W, C] -> [places, places, size, size, C]; what lies outside the image is 0."""
    (y, inside_y), (x, inside_x) = (
      self.places(axis, length) for axis, length in enumerate(value.shape[1:3])
    )
    cut = jnp.take(jnp.take(value[0], y, axis=0), x, axis=2).transpose(0, 2, 1, 3, 4)
    inside = inside_y[:, None, :, None, None] & inside_x[None, :, None, :, None]
    return jnp.where(inside, cut, 0)


def applies(network, target) -> bool:
  """Whether a node is reached from the image by convolutions, pointwise steps and activations alone,
  and its windows are smaller than the image."""
  path = _path(network, target)
  if path is None:
    return False
  windows = _start(network.nodes[target].shape)
  for node in path:
    if isinstance(node.local, Convolution):
      windows = windows.below(node.local)
  return np.prod(windows.size) < np.prod(network.nodes[0].shape[1:3])


def neuron_bounds(network, region, boxes, target, relaxed, *, outward=False, chunk=None):
  """(lower, upper) of every value of a node, as `backward` finds them with one row each.

  Args:
    network, region, boxes, target, relaxed, outward: as in `backward`.
    chunk: rows at a time; at least all places of one channel and sign.

  Returns:
    (lower, upper), of the node's shape.
  """
  _, height, width, channels = network.nodes[target].shape
  dtype = boxes[target][0].dtype
  rows = jnp.eye(channels, dtype=dtype)
  rows = jnp.concatenate([rows, -rows])
  run = lambda rows: _backward(network, region, boxes, target, rows, relaxed, outward)
  group = len(rows) if chunk is None else max(1, chunk // (height * width))
  if group >= len(rows):
    found = run(rows)
  else:
    count = -(-len(rows) // group)
    padded = jnp.zeros((count * group, channels), dtype).at[: len(rows)].set(rows)
    found = jax.lax.map(run, padded.reshape(count, group, channels))
    found = found.transpose(1, 2, 0, 3).reshape(height, width, -1)[..., : len(rows)]
  return found[None, ..., :channels], -found[None, ..., channels:]


def _path(network, target):
  """The nodes from the target down to the image, without it; None where there are others."""
  path, number = [], target
  if len(network.nodes[0].shape) != 4:
    return None
  while number:
    node = network.nodes[number]
    if len(node.shape) != 4 or len(node.inputs) != 1:
      return None
    if node.kind == 'maximum' or (node.kind == 'affine' and node.local is None):
      return None
    path.append(node)
    (number,) = node.inputs
  return path


def _start(shape):
  return _Windows(tuple(shape[1:3]), (0, 0), (1, 1), (1, 1))


def _backward(network, region, boxes, target, rows, relaxed, outward):
  """Lower bounds of rows of the target's channels at every place: float[H, W, R]."""
  windows, number = _start(network.nodes[target].shape), target
  a = jnp.broadcast_to(rows[:, None, None], (*windows.count, len(rows), 1, 1, rows.shape[1]))
  total = lost = moved = jnp.zeros(a.shape[:3], rows.dtype)
  while number:
    node = network.nodes[number]
    below, part, constant = _step(node, windows, a, relaxed.get(number))
    if outward:
      lost += _lost(node, windows, a, below, part, boxes, number, relaxed.get(number))
      moved += jnp.abs(constant)
    total += constant
    windows, a, (number,) = below, part, node.inputs
  lower, upper = windows.of(region.lower[None]), windows.of(region.upper[None])
  constant = _dot(jnp.maximum(a, 0), lower) + _dot(jnp.minimum(a, 0), upper)
  if region.norm != 'linf':
    flat = a.reshape(-1, np.prod(a.shape[3:]))
    dual = safe_norm(flat) if region.norm == 'l2' else jnp.max(jnp.abs(flat), axis=1)
    ball = _dot(a, windows.of(region.center[None])) - region.eps * dual.reshape(constant.shape)
    constant = jnp.maximum(constant, ball)
  total += constant
  if not outward:
    return total
  rounding = gamma(2 * np.prod(network.nodes[0].shape) + 16, rows.dtype)
  lost += rounding * _dot(jnp.abs(a), windows.of(magnitude(boxes[0])))
  moved += jnp.abs(constant)
  return total - lost - gamma(2 * len(network.nodes) + 16, total.dtype) * moved


def _step(node, windows, a, lines):
  """(windows below, coefficients there, constant) of one node."""
  if node.kind != 'affine':
    positive, negative = jnp.maximum(a, 0), jnp.minimum(a, 0)
    cut = lambda value: windows.of(value)[:, :, None]
    constant = _dot(positive, windows.of(lines.lower_offset))
    constant += _dot(negative, windows.of(lines.upper_offset))
    return windows, positive * cut(lines.lower_slope) + negative * cut(lines.upper_slope), constant
  if node.local == POINTWISE:
    zero = jnp.zeros(node.shape, a.dtype)
    offset, scale = jax.jvp(node.apply, (zero,), (jnp.ones_like(zero),))
    return windows, a * windows.of(scale)[:, :, None], _dot(a, windows.of(offset))
  kernel, strides, _ = node.local
  a = jnp.where(_inside(windows, node.shape), a, 0)  # Rows of zeros around it are no neurons.
  turned = jnp.asarray(kernel, a.dtype)[::-1, ::-1].swapaxes(2, 3)
  images = a.reshape(-1, *a.shape[3:])
  part = conv_general_dilated(
    images, turned, (1, 1), [(k - 1, k - 1) for k in kernel.shape[:2]], lhs_dilation=strides,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision='highest',
  )  # fmt: skip
  below = windows.below(node.local)
  return below, part.reshape(*a.shape[:3], *part.shape[1:]), jnp.zeros(a.shape[:3], a.dtype)


def _inside(windows, shape):
  """Which coefficients lie in the image: bool[places, places, 1, size, size, 1]."""
  (_, y), (_, x) = (windows.places(axis, shape[1 + axis]) for axis in (0, 1))
  return (y[:, None, :, None] & x[None, :, None, :])[:, :, None, :, :, None]


def _lost(node, windows, a, below, part, boxes, number, lines):
  """What one step may be off by, over the boxes, as in the backward pass of whole rows."""
  size, absolute = float(np.prod(node.shape)), jnp.abs(a)
  rounding = gamma(2 * size + 16, a.dtype)
  (box,) = (boxes[i] for i in node.inputs)
  lost = rounding * _dot(absolute, windows.of(magnitude(boxes[number])))
  if node.kind == 'affine':
    slip = slip_of(node, [box]) * (2 + size / node.terms)
    return lost + _dot(absolute, windows.of(slip))
  offsets = jnp.maximum(jnp.abs(lines.lower_offset), jnp.abs(lines.upper_offset))
  reach = _dot(jnp.abs(part), below.of(magnitude(box))) + _dot(absolute, windows.of(offsets))
  return lost + rounding * reach


def _dot(a, value):
  """[places, places, R, ...] with [places, places, ...] -> [places, places, R]."""
  return jnp.einsum('yxrijc,yxijc->yxr', a, value, precision='highest')
