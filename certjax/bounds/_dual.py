r"""The convex dual of Wong & Kolter 2018, as published, and its random projections.

For every row c of the specification, over the convex relaxation of a ReLU network with boxes [l, u],

  c . f(x) >= - sum_i nu_{i+1}^T b_i + min_x nu_hat_1 . x + sum_i sum_{j unstable} l_ij [nu_ij]_+

with nu_hat_i = W_i^T nu_{i+1} and nu_ij = nu_hat_ij times 1 (active), 0 (inactive), u / (u - l): the
backward pass of CROWN with both lines of one slope, and the boxes by the same pass, layer by layer.
"""

from certjax.bounds._crown import (
  _each,
  _of_node,
  _one_sided,
  _two_sided,
  backward,
  relaxations,
)
from certjax.bounds._interval import _both, _pointwise, read_by_activations, step
from certjax.bounds._network import ACTIVATIONS
from certjax.bounds._relaxations import lines
from certjax.bounds._zonotope import enclose, projected


def dual(
  model_fn, region, spec=None, *, projections=None, key=None, chunk=None, outward=False,
  upper=True,
):  # fmt: skip
  """The dual bounds of Wong & Kolter; with `projections` an estimate of them, which proves nothing.

  Of a network's outputs, or of linear functions of them. Not intersected with intervals anywhere, so
  that they equal published values: `crown` with slope='same' intersects, and is usually tighter. For
  published L_inf numbers the ball is not cut off at [0, 1] either: `bounds.ball(x, eps, clip=None)`.

  Args:
    model_fn, spec: as in `interval`.
    region: a `Region` of B images.
    projections: None, or a number of random combinations by which the boxes of inner activations are
      estimated at the cost of as many forward passes, for training: no bound then. The last pass
      stays exact.
    key: of the combinations, the same for all images.
    chunk: rows of one backward pass, to bound memory; default all.
    outward: as in `interval`; not with `projections`, so that `verify` and `largest` refuse them.
    upper: whether the upper bounds are wanted, which cost as much again.

  Returns:
    (lower, upper), float[B, S] each; upper is infinite where it is not wanted.

  Raises:
    ValueError: as `interval`; for `projections` with `outward`, without a key, or on a ball of norm 'l1'.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from certjax import bounds
    >>> weights = jnp.array([[1.0, 1.0], [1.0, -1.0]])
    >>> model_fn = lambda x: jax.nn.relu(x @ weights) @ weights
    >>> region = bounds.ball(jnp.array([[0.5, 0.5]]), 0.25)
    >>> [side[0].tolist() for side in dual(model_fn, region)]
    [[0.5, 0.25], [1.75, 1.5]]

  References:
    Wong & Kolter 2018 (arXiv:1711.00851); Wong et al. 2018 (arXiv:1805.12514), projections.
  """
  if projections is not None:
    _check(projections, key, region, outward)

  def bound(network, region, rows):
    if projections is None:
      boxes = _boxes(network, region, chunk, outward)
    else:
      boxes, _ = enclose(network, region, projected(region, projections, key), intersect=False)
    relaxed = relaxations(network, boxes, 'same', outward)
    return backward(
      network, region, boxes, network.output, rows, relaxed, outward=outward, chunk=chunk
    )

  return _each(_two_sided(bound) if upper else _one_sided(bound), model_fn, region, spec)


def _boxes(network, region, chunk, outward):
  """Boxes of all nodes; those that an activation reads by the dual alone."""
  asked, boxes = read_by_activations(network), [(region.lower[None], region.upper[None])]
  relaxed = {}
  for number, node in enumerate(network.nodes[1:], 1):
    box = step(node, [boxes[i] for i in node.inputs], outward=outward)
    if node.between:
      box = _both(box, _pointwise(node.between, boxes))
    if node.kind in ACTIVATIONS:
      relaxed[number] = lines(node.kind, boxes[node.inputs[0]], slope='same', outward=outward)
    boxes.append(box)
    if number in asked:
      boxes[number] = _of_node(network, region, boxes, number, relaxed, chunk, outward)
  return boxes


def _check(projections, key, region, outward):
  if outward:
    raise ValueError(
      '`projections` must be None with `outward`: random projections estimate a bound for training '
      'and prove nothing.'
    )
  if key is None or projections < 1:
    raise ValueError(
      f'`projections` must be at least 1 and come with a `key`, got {projections} and key={key}.'
    )
  if region.norm == 'l1':
    raise ValueError(
      "`region` must be of norm 'linf' or 'l2' for `projections`, got 'l1': its dual norm is a "
      'maximum, which they cannot estimate.'
    )
