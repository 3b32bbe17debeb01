r"""Linear bounds, backwards through the network (CROWN): rows . f(x) >= A . x + b over the region.

From the output to the input every affine step is transposed, and every activation, or maximum of a
window, replaced by its lower line where the coefficient is positive and by its upper line where it is
negative. Zhang et al. 2018 (arXiv:1811.00866); with the intermediate boxes from intervals it is
CROWN-IBP (Zhang et al. 2020, arXiv:1906.06316), with optimised slopes alpha-CROWN (Xu et al. 2021,
arXiv:2011.13824).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from certjax.bounds import _local
from certjax.bounds._interval import (
  depends_linearly,
  gamma,
  magnitude,
  propagate,
  read_by_activations,
  slip_of,
)
from certjax.bounds._maximum import maximum_lines, selected
from certjax.bounds._network import ACTIVATIONS, trace
from certjax.bounds._region import minimum
from certjax.bounds._relaxations import SLOPES, lines

INTERMEDIATE = ('crown', 'interval')


def interval(model_fn, region, spec=None, *, outward=False):
  """Interval bounds (IBP) of a network's outputs, or of linear functions of them.

  The affine steps after the last activation are merged with `spec`, which is never looser than
  bounding the logits first.

  Args:
    model_fn: `x[1, ...] -> logits[1, K]`; its steps must be ones that bounds know.
    region: a `Region` of B images.
    spec: float[S, K] or float[B, S, K], rows of the linear functions; None for the logits.
    outward: whether to widen the bounds by the rounding error of this computation, so that they hold
      for the network in exact arithmetic.

  Returns:
    (lower, upper), float[B, S] each.

  Raises:
    ValueError: for a model with a step that has no bound, or a spec of another shape.

  Example:
    >>> from certjax import bounds
    >>> weights = jnp.array([[1.0, 1.0], [1.0, -1.0]])
    >>> model_fn = lambda x: jax.nn.relu(x @ weights) @ weights
    >>> region = bounds.ball(jnp.array([[0.5, 0.5]]), 0.25)
    >>> lower, upper = interval(model_fn, region)
    >>> lower.tolist(), upper.tolist()
    ([[0.5, 0.0]], [[2.0, 1.5]])

  References:
    Gowal et al. 2018 (arXiv:1810.12715).
  """

  def bound(network, region, rows):
    boxes = propagate(network, region, tighten=_linear(network, region, outward), outward=outward)
    return _interval_rows(network, region, rows, boxes, outward)

  return _each(bound, model_fn, region, spec)


def crown(
  model_fn, region, spec=None, *, slope='adaptive', intermediate='crown', chunk=None,
  num_steps=0, step_size=0.1, outward=False, upper=True,
):  # fmt: skip
  """CROWN bounds of a network's outputs, or of linear functions of them.

  All boxes and the result are intersected with the interval bounds, so that interval <= CROWN <=
  alpha-CROWN holds by construction.

  Args:
    model_fn, region, spec, outward: as in `interval`.
    slope: of the lower line of an unstable ReLU: 'adaptive', 'same' (Fast-Lin; the dual of Wong &
      Kolter), 'zero' or 'one'.
    intermediate: where the boxes of inner activations come from: 'crown', or 'interval' (CROWN-IBP).
    chunk: rows of one backward pass, to bound memory; default all.
    num_steps: ascent steps on the slopes of the last backward pass (alpha-CROWN), one slope a row and
      ReLU, from those of `slope`; the best bound counts.
    step_size: of the ascent (sign of the gradient, decayed linearly).
    upper: whether the upper bounds are wanted, which cost as much again.

  Returns:
    (lower, upper), float[B, S] each; upper is infinite where it is not wanted.

  Raises:
    ValueError: as `interval`; for an unknown name.

  Example:
    >>> from certjax import bounds
    >>> weights = jnp.array([[1.0, 1.0], [1.0, -1.0]])
    >>> model_fn = lambda x: jax.nn.relu(x @ weights) @ weights
    >>> region, row = bounds.ball(jnp.array([[0.5, 0.5]]), 0.25), jnp.array([[1.0, 3.0]])
    >>> interval(model_fn, region, row)[0].tolist()
    [[1.0]]
    >>> crown(model_fn, region, row)[0].tolist()
    [[1.5]]
  """
  for name, value, known in (
    ('slope', slope, SLOPES),
    ('intermediate', intermediate, INTERMEDIATE),
  ):
    if value not in known:
      raise ValueError(f'`{name}` must be one of {", ".join(known)}; got {value!r}.')

  def bound(network, region, rows):
    tighten = _linear(network, region, outward)
    if intermediate == 'crown':
      tighten = _tightened(network, region, slope, chunk, outward)
    boxes = propagate(network, region, tighten=tighten, outward=outward)
    relaxed = relaxations(network, boxes, slope, outward)
    back = functools.partial(
      backward, network, region, boxes, tight=not outward, outward=outward, chunk=chunk
    )
    floor = _interval_rows(network, region, rows, boxes, outward)[0]
    floor = jnp.maximum(floor, back(network.output, rows, relaxed))
    if num_steps:
      floor = _ascend(network, boxes, rows, back, floor, num_steps, step_size, slope, outward)
    return floor

  return _each(_two_sided(bound) if upper else _one_sided(bound), model_fn, region, spec)


def backward(
  network, region, boxes, target, rows, relaxed, *, leaves=frozenset(), tight=False, outward=False,
  chunk=None,
):  # fmt: skip
  """Lower bounds of linear functions of one node's value.

  Args:
    network: a `Network`.
    region: of one image, without batch axis.
    boxes: (lower, upper) of the nodes so far.
    target: number of the node.
    rows: float[S, ...], coefficients, of the node's shape.
    relaxed: number of a node -> its lines, as of `relaxations`.
    leaves: nodes at which to stop and take the box, as at those without lines.
    tight: whether to solve the region where it is an intersection.
    outward: whether to subtract the rounding error.
    chunk: rows at a time.

  Returns:
    float[S].
  """
  once = lambda rows: _backward(
    network, region, boxes, target, rows, relaxed, leaves, tight, outward
  )
  if chunk is None or chunk >= len(rows):
    return once(rows)
  count = -(-len(rows) // chunk)
  padded = jnp.zeros((count * chunk, *rows.shape[1:]), rows.dtype).at[: len(rows)].set(rows)
  found = jax.lax.map(once, padded.reshape(count, chunk, *rows.shape[1:]))
  return found.reshape(-1)[: len(rows)]


def _backward(network, region, boxes, target, rows, relaxed, leaves, tight, outward):
  coefficients = {target: rows}
  total = lost = moved = jnp.zeros(len(rows), rows.dtype)
  for number in range(target, -1, -1):
    if number not in coefficients:
      continue
    a, node = coefficients.pop(number), network.nodes[number]
    if number == 0:
      constant, parts = minimum(region, a[:, 0], tight=tight), ()
    elif number in leaves or (node.kind != 'affine' and number not in relaxed):
      lower, upper = boxes[number]
      constant, parts = _dot(jnp.maximum(a, 0), lower) + _dot(jnp.minimum(a, 0), upper), ()
    elif node.kind == 'affine':
      constant, parts = _transposed(node, [jnp.zeros_like(boxes[i][0]) for i in node.inputs], a)
    else:
      part, constant = _relaxed(node, boxes[node.inputs[0]][0], a, relaxed[number])
      parts = (part,)
    if outward:
      lost += _lost(node, a, parts, boxes, number, relaxed)
      moved += jnp.abs(constant)
    total += constant
    _add(coefficients, node.inputs, parts)
  if not outward:
    return total
  return total - lost - gamma(2 * len(network.nodes) + 16, total.dtype) * moved


def _transposed(node, zeros, a):
  """(rows . offset, coefficients below) of an affine step."""
  if not node.rowwise:
    offset, pull = jax.vjp(node.apply, *zeros)
    return _dot(a, offset), jax.vmap(pull)(a)
  # A convolution: all rows are one batch, whose gradient in the kernel is one convolution.
  (zero,) = zeros
  _, pull = jax.vjp(node.apply, jnp.zeros((len(a), *zero.shape[1:]), zero.dtype))
  (part,) = pull(a[:, 0])
  return jnp.zeros(len(a), a.dtype), (part[:, None],)


def _lost(node, a, parts, boxes, number, relaxed):
  """What one step of `_backward` may be off by, over the boxes: float[S].

  The value itself is dotted with `a` (and `a` may be a sum of two); an affine step also rounds the
  transposed product, of at most as many summands as it has outputs, an activation one product, a
  maximum one of each window that a value lies in.
  """
  size, absolute = node_size(node), jnp.abs(a)
  rounding = gamma(2 * size + 16, a.dtype)
  lost = rounding * _dot(absolute, magnitude(boxes[number]))
  if node.kind == 'affine' and parts:
    inputs = [boxes[i] for i in node.inputs]
    lost += _dot(absolute, slip_of(node, inputs) * (2 + size / node.terms))
  elif parts:
    line = relaxed[number]
    offsets = jnp.maximum(jnp.abs(line.lower_offset), jnp.abs(line.upper_offset))
    largest = magnitude(boxes[node.inputs[0]])
    if node.kind == 'maximum':  # Weights of 1 at most; windows that overlap may cancel in `parts`.
      reach = _dot(absolute, node.apply(largest))
    else:
      reach = _dot(jnp.abs(parts[0]), largest)
    lost += rounding * (reach + _dot(absolute, offsets))
  return lost


def node_size(node) -> int:
  """Number of values of a node."""
  return math.prod(node.shape)


def relaxations(network, boxes, slope, outward=False):
  """Lines of every activation and maximum: number of its node -> `Lines` or `Selection`.

  Of a network whose boxes are known up to some node, the lines up to there.
  """
  slope_of: Callable = slope if callable(slope) else lambda number: slope
  found = {}
  for number, node in enumerate(network.nodes[: len(boxes)]):
    if node.kind in ACTIVATIONS:
      box = boxes[node.inputs[0]]
      found[number] = lines(node.kind, box, slope=slope_of(number), outward=outward)
    elif node.kind == 'maximum':
      found[number] = maximum_lines(node, boxes[node.inputs[0]], outward=outward)
  return found


def _relaxed(node, below, a, line):
  """Coefficients below an activation or maximum, and the constant that they leave."""
  positive, negative = jnp.maximum(a, 0), jnp.minimum(a, 0)
  constant = _dot(positive, line.lower_offset) + _dot(negative, line.upper_offset)
  if node.kind == 'maximum':
    return selected(node, jnp.zeros_like(below), positive, negative, line), constant
  part = positive * _rows(line.lower_slope, a) + negative * _rows(line.upper_slope, a)
  return part, constant


def _rows(slope, a):
  """Slopes of one node for all rows, unless each row has its own."""
  return jnp.broadcast_to(slope, a.shape) if slope.ndim < a.ndim else slope


def _add(coefficients, inputs, parts):
  for i, part in zip(inputs[: len(parts)], parts, strict=True):
    coefficients[i] = coefficients[i] + part if i in coefficients else part


def _dot(a, value):
  return jnp.tensordot(a, value, axes=value.ndim, precision='highest')


def _interval_rows(network, region, rows, boxes, outward):
  """(lower, upper) of linear functions of the output by the boxes of the last activations."""
  leaves = frozenset(
    i for i, node in enumerate(network.nodes) if i and (node.kind != 'affine' or node.between)
  )
  both = jnp.concatenate([rows, -rows])
  found = backward(
    network, region, boxes, network.output, both, {}, leaves=leaves, tight=not outward,
    outward=outward,
  )  # fmt: skip
  return found[: len(rows)], -found[len(rows) :]


def _linear(network, region, outward):
  """For balls other than boxes: exact bounds where the network is still affine."""
  if region.norm == 'linf':
    return None
  linear = depends_linearly(network)

  def tighten(number, boxes):
    if number not in linear:
      return boxes[number]
    return _of_node(network, region, boxes, number, {}, None, outward)

  return tighten


def _tightened(network, region, slope, chunk, outward):
  """CROWN's bounds of the inner nodes."""
  linear = depends_linearly(network) & read_by_activations(network)
  exact = linear if region.norm == 'linf' and _is_direct(network, linear) else set()

  def tighten(number, boxes):
    # Lines do not leave the box that a monotone step makes of the tightened box of its argument.
    known = number in exact or network.nodes[number].kind != 'affine'
    if known or number == network.output:
      return boxes[number]
    relaxed = relaxations(network, boxes, slope, outward)
    return _of_node(network, region, boxes, number, relaxed, chunk, outward)

  return tighten


def _is_direct(network, linear) -> bool:
  """Whether intervals are exact there: nothing between the image and them but one real sum."""
  sums = [node for i, node in enumerate(network.nodes) if i in linear and node.terms > 2]
  return len(sums) <= 1


def _of_node(network, region, boxes, number, relaxed, chunk, outward):
  """(lower, upper) of all values of a node."""
  if _local.applies(network, number):
    return _local.neuron_bounds(
      network, region, boxes, number, relaxed, outward=outward, chunk=chunk
    )
  shape, dtype = network.nodes[number].shape, boxes[number][0].dtype
  size = math.prod(shape)
  rows = jnp.eye(size, dtype=dtype).reshape(size, *shape)
  both = jnp.concatenate([rows, -rows])
  found = backward(network, region, boxes, number, both, relaxed, outward=outward, chunk=chunk)
  return found[:size].reshape(shape), -found[size:].reshape(shape)


def _ascend(network, boxes, rows, back, floor, num_steps, step_size, slope, outward):
  """alpha-CROWN: the slopes of the last pass, by signed gradient ascent; the best bound is kept."""
  start = {
    i: jnp.broadcast_to(line.lower_slope, (len(rows), *line.lower_slope.shape))
    for i, line in relaxations(network, boxes, slope).items()
    if network.nodes[i].kind == 'relu'
  }
  if not start:
    return floor

  def value(slopes):
    relaxed = relaxations(network, boxes, lambda i: slopes.get(i, slope), outward)
    return back(network.output, rows, relaxed)

  def ascend(carry, t):
    slopes, best = carry
    found, pull = jax.vjp(value, slopes)
    (gradient,) = pull(jnp.ones_like(found))
    size = step_size * (1 - t / num_steps)
    slopes = jax.tree.map(lambda s, g: jnp.clip(s + size * jnp.sign(g), 0, 1), slopes, gradient)
    return (slopes, jnp.maximum(best, found)), None

  times = jnp.arange(num_steps, dtype=floor.dtype)
  (slopes, best), _ = jax.lax.scan(ascend, (jax.lax.stop_gradient(start), floor), times)
  return jnp.maximum(best, value(slopes))


def _two_sided(bound):
  """(lower, upper) of rows by lower bounds of the rows and of their negatives."""

  def both(network, region, rows):
    found = bound(network, region, jnp.concatenate([rows, -rows]))
    return found[: len(rows)], -found[len(rows) :]

  return both


def _one_sided(bound):
  """(lower, infinity) of rows."""

  def lower_only(network, region, rows):
    found = bound(network, region, rows)
    return found, jnp.full_like(found, jnp.inf)

  return lower_only


def _each(bound, model_fn, region, spec):
  """The bound of every image."""
  shape, dtype = region.lower.shape[1:], region.lower.dtype
  network = trace(model_fn, jnp.zeros(shape, dtype))
  classes = network.nodes[network.output].shape if network.output is not None else None
  if classes is None or len(classes) != 2:
    raise ValueError(
      f'`model_fn` must map [1, ...] to logits [1, K] that depend on it, got {classes}.'
    )
  spec = jnp.eye(classes[1], dtype=dtype) if spec is None else jnp.asarray(spec, dtype)
  if spec.ndim not in (2, 3) or spec.shape[-1] != classes[1]:
    raise ValueError(f'`spec` must be [S, K] or [B, S, K] with K={classes[1]}, got {spec.shape}.')
  one = lambda region, rows: bound(network, region, rows[:, None])
  with jax.default_matmul_precision('highest'):
    return jax.vmap(one, (0, 0 if spec.ndim == 3 else None))(region, spec)
