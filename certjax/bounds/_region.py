r"""Sets of inputs over which a network is bounded: boxes, and balls intersected with [0, 1].

A linear function has its least value over such a set in closed form, or by a dual that is sound for
every multiplier. All functions are for one image; `jax.vmap` makes the batch.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from certjax.tracing import is_traced

NORMS = ('linf', 'l2', 'l1')
_BISECTIONS = 30  # Of the multiplier: any of them is sound, the last is the best.


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['lower', 'upper', 'center', 'eps'],
  meta_fields=['norm'],
)
@dataclasses.dataclass(frozen=True)
class Region:
  """The x with lower <= x <= upper and, unless `norm` is 'linf', ||x - center|| <= eps.

  Attributes:
    lower, upper: float[B, ...].
    center: float[B, ...], None for a box.
    eps: float[B], None for a box.
    norm: 'linf' (a box), 'l2' or 'l1'.
  """

  lower: jax.Array
  upper: jax.Array
  center: jax.Array | None
  eps: jax.Array | None
  norm: str


def box(lower, upper) -> Region:
  """The box between two images, a batch of them.

  Args:
    lower, upper: float[B, ...], finite, lower <= upper.

  Returns:
    A `Region`.

  Raises:
    ValueError: for shapes that differ, an empty or an unbounded box (checked outside jit).

  Example:
    >>> box(jnp.zeros((1, 2)), jnp.ones((1, 2))).norm
    'linf'
  """
  lower, upper = jnp.asarray(lower), jnp.asarray(upper)
  if lower.shape != upper.shape or lower.ndim < 2:
    raise ValueError(
      f'`lower` and `upper` must be batches [B, ...] of one shape, got {lower.shape} and '
      f'{upper.shape}.'
    )
  low, high = _known(lower), _known(upper)
  if low is not None and high is not None:
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
      raise ValueError('`lower` and `upper` must be finite: nothing holds on an unbounded set.')
    if (low > high).any():
      raise ValueError('`lower` must not exceed `upper`: the box is empty.')
  return Region(lower, upper, None, None, 'linf')


def ball(x, eps, norm='linf', *, clip=(0.0, 1.0)) -> Region:
  """The ball of radius eps around each image, intersected with the pixel range.

  Args:
    x: float[B, ...], the centres.
    eps: radius in pixel values, a scalar or float[B]; may be traced.
    norm: 'linf', 'l2' or 'l1'.
    clip: (low, high) of a pixel, or None.

  Returns:
    A `Region`; of norm 'linf' it is a box.

  Raises:
    ValueError: for an unknown norm, eps < 0, NaN, an unbounded ball, or centres outside `clip`.

  Example:
    >>> region = ball(jnp.full((1, 2), 0.9), 0.2)
    >>> round(float(region.lower[0, 0]), 6), float(region.upper[0, 0])
    (0.7, 1.0)
  """
  x = jnp.asarray(x)
  if norm not in NORMS:
    raise ValueError(f'`norm` must be one of {", ".join(NORMS)}; got {norm!r}.')
  if x.ndim < 2:
    raise ValueError(f'`x` must be a batch [B, ...], got shape {x.shape}: add an axis, `x[None]`.')
  _check_ball(_known(x), _known(eps), clip)
  eps = jnp.broadcast_to(jnp.asarray(eps, x.dtype), x.shape[:1])
  reach = eps.reshape(-1, *[1] * (x.ndim - 1))
  lower, upper = x - reach, x + reach
  if clip is not None:
    lower, upper = jnp.maximum(lower, clip[0]), jnp.minimum(upper, clip[1])
  if norm == 'linf':
    return Region(lower, upper, None, None, norm)
  return Region(lower, upper, x, eps, norm)


def minimum(region, rows, *, tight=False):
  r"""The least value of linear functions over the region of one image, or a bound below it.

  Over a box it is sum_i min(a_i l_i, a_i u_i); over a ball a . x - eps ||a||_*. Over their
  intersection the larger of the two is a bound; `tight` solves it: for L1 a knapsack, for L2
  max over t >= 0 of min over the box of a . x + t (||x - center||^2 - eps^2).

  Args:
    region: a `Region` without its batch axis.
    rows: float[S, ...], the coefficients.
    tight: whether to solve the intersection.

  Returns:
    float[S].
  """
  a = rows.reshape(len(rows), -1)
  low, high = region.lower.ravel(), region.upper.ravel()
  value = _dot(jnp.maximum(a, 0), low) + _dot(jnp.minimum(a, 0), high)
  if region.norm == 'linf':
    return value
  center, eps = region.center.ravel(), region.eps
  dual = safe_norm(a) if region.norm == 'l2' else jnp.max(jnp.abs(a), axis=1)
  value = jnp.maximum(value, _dot(a, center) - eps * dual)
  if not tight:
    return value
  solve = _least_l2 if region.norm == 'l2' else _least_l1
  solved = jax.vmap(solve, (0, None, None, None, None))(a, low - center, high - center, center, eps)
  return jnp.maximum(value, solved)


def safe_norm(a):
  """Euclidean norms of the rows, with gradient 0 at 0."""
  squares = jnp.sum(a * a, axis=1)
  positive = squares > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def _least_l2(a, low, high, center, eps):
  """Bisection of the multiplier t: the minimiser is clip(-a / 2t), shorter for larger t."""
  moved = lambda t: jnp.clip(-a / (2 * t), low, high)
  length = lambda t: jnp.sum(moved(t) ** 2)
  largest = jnp.sqrt(jnp.sum(a * a)) / (2 * eps + 1e-30) + 1e-12

  def halve(_, bracket):
    small, large = bracket
    middle = (small + large) / 2
    inside = length(middle) <= eps**2
    return jnp.where(inside, small, middle), jnp.where(inside, middle, large)

  start = (jnp.zeros_like(largest), largest)
  _, t = jax.lax.fori_loop(0, _BISECTIONS, halve, jax.lax.stop_gradient(start))
  t = jax.lax.stop_gradient(t)
  z = moved(t)
  return jnp.dot(a, center) + jnp.sum(a * z + t * z * z) - t * eps**2


def _least_l1(a, low, high, center, eps):
  """The steepest coordinates go first, each to the edge of its box, until eps is spent."""
  room = jnp.where(a > 0, -low, high)
  order = jnp.argsort(-jnp.abs(a))
  before = jnp.cumsum(room[order]) - room[order]
  spent = jnp.clip(eps - before, 0, room[order])
  return jnp.dot(a, center) - jnp.sum(jnp.abs(a[order]) * spent)


def _dot(rows, vector):
  return jnp.matmul(rows, vector, precision='highest')


def _known(value):
  """The values outside jit; None where they are traced."""
  return None if is_traced(value) else np.asarray(value)


def _check_ball(x, eps, clip):
  if eps is not None and not (np.isfinite(eps).all() and (eps >= 0).all()):
    raise ValueError(f'`eps` must be at least 0 and finite, got {eps}.')
  if x is None:
    return
  if not np.isfinite(x).all():
    raise ValueError('`x` must be finite: drop or repair images with NaN.')
  if clip is not None and (x.min() < clip[0] or x.max() > clip[1]):
    raise ValueError(
      f'`x` must lie in `clip`={clip}, got {x.min()} .. {x.max()}: scale the images, or pass '
      '`clip=None`.'
    )
