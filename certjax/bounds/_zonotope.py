r"""Zonotopes forwards through the network (DeepZ / DiffAI), and their random projections.

A value of the network lies in { c + sum_k e_k g_k : |e_k| <= 1 }, or with the e_k of the pixels tied by
||e|| <= 1 over a ball of that norm. Affine steps act on the centre c and on
every generator g_k exactly, so that values which depend on the same pixel stay tied; an activation
becomes its line of least area and one fresh generator a unit: for an unstable ReLU

  slope u / (u - l),  moved up by -l u / (2 (u - l)) = delta,  fresh generator delta.

Mirman, Gehr & Vechev 2018; Singh et al. 2018. For ReLU networks this is the dual of Wong & Kolter
2018 read forwards, so k random combinations of the generators, in place of all of them, estimate
its bounds (Wong et al. 2018): a combination with Cauchy weights is Cauchy, of scale sum_k |g_k|.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from certjax.bounds._crown import _each, _interval_rows, node_size
from certjax.bounds._interval import _both, _pointwise, read_by_activations, step
from certjax.bounds._network import ACTIVATIONS
from certjax.bounds._region import safe_norm
from certjax.bounds._relaxations import lines


def zonotope(model_fn, region, spec=None, *, outward=False):
  """Zonotope bounds of a network's outputs, or of linear functions of them.

  Every activation's box, and the result, is intersected with the interval bounds. Exact for a network
  that is affine on the region; usually tighter than `interval`, and looser than `crown`, which costs a
  backward pass for every unit.

  Memory: one generator for each pixel and each unit of an activation (stable ones too: shapes are
  static), each as large as the widest value, so (D + H) x width numbers an image.

  Args:
    model_fn, spec: as in `interval`.
    region: a `Region` of B images. Of an L2 or L1 ball the generators of the pixels are tied by the
      ball's norm; the pixel range acts through the interval bounds alone.
    outward: must be False: the rounding of the generators is not bounded. A proof of the same kind
      is `crown(slope='same', outward=True)`.

  Returns:
    (lower, upper), float[B, S] each.

  Raises:
    ValueError: as `interval`, and for `outward`.

  Example:
    >>> from certjax import bounds
    >>> model_fn = lambda x: jax.nn.relu(x @ jnp.array([[1.0, 1.0], [1.0, -1.0]]))
    >>> region, row = bounds.ball(jnp.array([[0.5, 0.5]]), 0.25), jnp.array([[1.0, 1.0]])
    >>> [float(side[0, 0]) for side in zonotope(model_fn, region, row)]  # By intervals: 0.5, 2.
    [0.5, 1.75]

  References:
    Mirman, Gehr & Vechev 2018 (DiffAI); Singh et al. 2018 (DeepZ).
  """
  if outward:
    raise ValueError(
      '`outward` must be False: the rounding of a zonotope is not bounded, so it proves nothing; '
      "for a proof use `bounds.crown` with slope='same'."
    )

  def bound(network, region, rows):
    spread = diagonal(region)
    boxes, form = enclose(network, region, spread)
    center, reach = _dot(rows, form.center), spread.reach(_dot(rows, form.generators).T)
    return _both(
      (center - reach, center + reach), _interval_rows(network, region, rows, boxes, False)
    )

  return _each(bound, model_fn, region, spec)


class Form(NamedTuple):
  """centre, and generators [G, ...], of one node."""

  center: jax.Array
  generators: jax.Array


class Spread(NamedTuple):
  """How generators are kept.

  Attributes:
    start: `() -> Form` of the input.
    grow: `(generators, amount, count) -> generators`, with one fresh generator an entry of `amount`;
      `count` generators of the network came before.
    reach: `(generators) -> sum_k |g_k|`, or an estimate of it.
  """

  start: Callable
  grow: Callable
  reach: Callable


def diagonal(region) -> Spread:
  """All generators, one a pixel and a unit; (e_k) of the pixels lie in the unit ball of the norm."""
  pixels = region.lower.size

  def start():
    if region.norm == 'linf':
      middle, half = (region.lower + region.upper) / 2, (region.upper - region.lower) / 2
    else:
      middle, half = region.center, jnp.full_like(region.center, 1) * region.eps
    return Form(middle[None], grow(jnp.zeros((0, *half[None].shape)), half[None], 0))

  def reach(generators):
    tied, free = jnp.abs(generators[:pixels]), jnp.abs(generators[pixels:])
    if region.norm == 'l2':
      length = safe_norm(tied.reshape(pixels, -1).T).reshape(tied.shape[1:])
    else:
      length = (jnp.max if region.norm == 'l1' else jnp.sum)(tied, axis=0)
    return length + jnp.sum(free, axis=0)

  def grow(generators, amount, count):
    fresh = jnp.diag(amount.ravel()).reshape(amount.size, *amount.shape)
    return jnp.concatenate([_padded(generators.astype(fresh.dtype), count), fresh])

  return Spread(start, grow, reach)


def projected(region, num, key) -> Spread:
  r"""`num` random combinations of the generators.

  With Cauchy weights r, sum_k r_k g_k is Cauchy of scale sum_k |g_k|, the median of its absolute value;
  with normal weights its variance is sum_k g_k^2, for the Euclidean norm of an L2 ball (whose
  intersection with the pixel range is not used).
  """
  # Deviation: all layers share the combinations (Cauchy laws add up), where the published code has
  # one estimate a layer.
  euclidean = region.norm == 'l2'

  def start():
    middle = region.center if euclidean else (region.lower + region.upper) / 2
    shape, dtype = (num, *middle[None].shape), middle.dtype
    key_input = jax.random.fold_in(key, 0)
    if not euclidean:
      half = (region.upper - region.lower)[None, None] / 2
      return Form(middle[None], jax.random.cauchy(key_input, shape, dtype) * half)
    tied = region.eps * jax.random.normal(key_input, shape, dtype)
    return Form(middle[None], jnp.concatenate([tied, jnp.zeros(shape, dtype)]))

  def grow(generators, amount, count):
    fresh = jax.random.cauchy(jax.random.fold_in(key, count), (num, *amount.shape), amount.dtype)
    return generators.at[-num:].add(fresh * amount[None])

  def reach(generators):
    total = jnp.median(jnp.abs(generators[-num:]), axis=0)
    if not euclidean:
      return total
    squares = jnp.mean(generators[:num] ** 2, axis=0)
    positive = squares > 0
    return total + jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)

  return Spread(start, grow, reach)


def enclose(network, region, spread, *, intersect=True):
  """Boxes of all nodes, and the form of the last.

  Args:
    network: a `Network`.
    region: of one image, without batch axis.
    spread: a `Spread`.
    intersect: whether the boxes of activations' inputs are intersected with the intervals.

  Returns:
    (list of (lower, upper), `Form` of the output).
  """
  asked, count = read_by_activations(network), region.lower.size
  boxes, forms = [(region.lower[None], region.upper[None])], [spread.start()]
  for number, node in enumerate(network.nodes[1:], 1):
    box = step(node, [boxes[i] for i in node.inputs])
    if node.between:
      box = _both(box, _pointwise(node.between, boxes))
    inputs = [forms[i] for i in node.inputs]
    if node.kind == 'affine':
      form = _affine(node, inputs)
    elif node.kind in ACTIVATIONS:
      form = _activated(node, inputs[0], boxes[node.inputs[0]], spread, count)
    else:
      form = _alone(inputs[0], box, spread, count)
    count += 0 if node.kind == 'affine' else node_size(node)
    if number in asked:
      reach = spread.reach(form.generators)
      own = form.center - reach, form.center + reach
      box = _both(box, own) if intersect else own
    boxes.append(box)
    forms.append(form)
  return boxes, forms[network.output]


def _affine(node, inputs):
  """L on the generators, by differences: convolutions here have no forward mode."""
  most = max(len(form.generators) for form in inputs)
  offset = node.apply(*(jnp.zeros_like(form.center) for form in inputs))
  moved = jax.vmap(node.apply)(*(_padded(form.generators, most) for form in inputs))
  return Form(node.apply(*(form.center for form in inputs)), moved - offset[None])


def _activated(node, form, box, spread, count):
  """s(t) - slope t lies between two numbers over the box: their middle, and a fresh generator."""
  line = lines(node.kind, box, slope='same')
  slope = (line.lower_slope + line.upper_slope) / 2
  over = lambda tilt, pick: pick(tilt * box[0], tilt * box[1])
  low = over(line.lower_slope - slope, jnp.minimum) + line.lower_offset
  high = over(line.upper_slope - slope, jnp.maximum) + line.upper_offset
  kept = form.generators * slope[None]
  return Form(form.center * slope + (low + high) / 2, spread.grow(kept, (high - low) / 2, count))


def _alone(form, box, spread, count):
  """A value known by its box only."""
  lower, upper = box
  none = jnp.zeros((len(form.generators), *lower.shape), lower.dtype)
  return Form((lower + upper) / 2, spread.grow(none, (upper - lower) / 2, count))


def _padded(generators, count):
  """With zeros for the generators that came later."""
  rest = count - len(generators)
  return jnp.pad(generators, [(0, max(rest, 0))] + [(0, 0)] * (generators.ndim - 1))


def _dot(rows, values):
  """rows[S, 1, K] on a value [1, K] or on generators [G, 1, K]."""
  flat = rows.reshape(len(rows), -1)
  return jnp.matmul(flat, values.reshape(*values.shape[:-2], -1).T, precision='highest')
