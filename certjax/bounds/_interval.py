r"""Interval bounds (IBP): every value of the network in a box, one step after the other.

An affine step takes center c and reach r to L c + b +- |L| r; the activations are monotone.
Gowal et al. 2018 (arXiv:1810.12715). `outward=True` adds what the arithmetic may have lost, so
that the box holds for the network in exact arithmetic: a sum of n products is off by
gamma_n = n u / (1 - n u) times the sum of their absolute values at most (Higham 2002, section
3.1), whatever its order.
"""

import jax.numpy as jnp

from certjax.bounds._network import ACTIVATIONS

_ULPS = 64  # Of tanh, logistic and softplus: far above what XLA's are off by.


def propagate(network, region, *, tighten=None, outward=False):
  """(lower, upper) of every node, over the region of one image.

  Args:
    network: a `Network`.
    region: a `Region` without its batch axis.
    tighten: `(number, boxes so far) -> (lower, upper)`, asked for the nodes that an activation
      reads and for the last; the intersection is kept.
    outward: whether to widen by the rounding error.

  Returns:
    A list of pairs, each of the node's shape.
  """
  asked = read_by_activations(network) | {network.output}
  boxes = [(region.lower[None], region.upper[None])]
  for number, node in enumerate(network.nodes[1:], 1):
    box = step(node, [boxes[i] for i in node.inputs], outward=outward)
    if node.between:
      box = _both(box, _pointwise(node.between, boxes))
    if tighten and number in asked:
      box = _both(box, tighten(number, [*boxes, box]))
    boxes.append(box)
  return boxes


def read_by_activations(network) -> set:
  """Numbers of the nodes whose bounds choose a relaxation."""
  return {i for node in network.nodes if node.kind != 'affine' for i in node.inputs}


def depends_linearly(network) -> set:
  """Numbers of the nodes that are affine functions of the input."""
  linear = {0}
  for number, node in enumerate(network.nodes):
    if node.kind == 'affine' and linear.issuperset(node.inputs):
      linear.add(number)
  return linear


def step(node, boxes, *, outward=False):
  """The box of one node from those of its inputs."""
  if node.kind != 'affine':
    (box,) = boxes
    lower, upper = (node.apply(side) for side in box)
    if outward and node.kind in ACTIVATIONS and node.kind != 'relu':
      slip = lambda x: _ULPS * jnp.finfo(x.dtype).eps * (1 + jnp.abs(x))
      lower, upper = lower - slip(lower), upper + slip(upper)
    return lower, upper
  center = [(lower + upper) / 2 for lower, upper in boxes]
  reach = [(upper - lower) / 2 for lower, upper in boxes]
  middle, spread = node.apply(*center), node.spread(*reach)
  if outward:
    spread += slip_of(node, boxes)
  return middle - spread, middle + spread


def slip_of(node, boxes):
  """How far one output of an affine node may be off, over a box of its inputs."""
  largest = [magnitude(box) for box in boxes]
  offset = node.apply(*(jnp.zeros_like(x) for x in largest))
  return gamma(2 * node.terms + 16, offset.dtype) * (node.spread(*largest) + jnp.abs(offset))


def magnitude(box):
  """The largest absolute value in a box."""
  return jnp.maximum(jnp.abs(box[0]), jnp.abs(box[1]))


def gamma(terms, dtype) -> float:
  """gamma_n of Higham with u doubled, which pays for the rounding of the bound itself."""
  product = terms * float(jnp.finfo(dtype).eps)
  return product / (1 - product) if product < 0.5 else float('inf')


def _pointwise(between, boxes):
  kind, a, b = between
  pick = jnp.maximum if kind == 'max' else jnp.minimum
  return tuple(pick(*sides) for sides in zip(boxes[a], boxes[b], strict=True))


def _both(a, b):
  """The intersection; bounds that are all sound cannot miss each other but by rounding."""
  return jnp.maximum(a[0], b[0]), jnp.minimum(a[1], b[1])
