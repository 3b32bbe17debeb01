r"""Mass that moves over a grid of pixels: local plans, what they cost, and the exact distance.

The Wasserstein distance of two images x, z of equal mass m in each channel is the cheapest transport,

  W(x, z) = min { sum_ij C_ij P_ij : P 1 = x / m, P^T 1 = z / m, P >= 0 }   (Kantorovich),

with m the mass of all channels. Any plan bounds W from above, so an image made by a plan whose cost is
at most eps lies in the ball of eps. Attacks hold plans that move mass within a square stencil only.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import optimize, sparse

_ROUNDS = 12  # Of `within_capacity`: chains of full pixels longer than this stay where they are.
_INSIDE = 1 - 1e-5  # Share of the budget that is spent: the rest pays for float32 rounding.
_SAME_MASS = 1e-5  # Relative; a float32 image's mass is rounded.
_TOLERANCE = 1e-10  # Of HiGHS, on masses that sum to 1.
_GROUNDS = {  # (down, right, p) -> distance^p; squares stay whole numbers.
  'l1': lambda down, right, p: (np.abs(down) + np.abs(right)) ** p,
  'l2': lambda down, right, p: (down**2 + right**2) ** (p / 2),
}


class Places(NamedTuple):
  """Where the mass of each pixel may go. Images are flat here: N = H W C values, channels last.

  Attributes:
    cost: float64[S], of one unit of mass, in the order of a plan's rows; the middle one is 0: to stay.
    index: int32[S, N], the place; N outside the image, where no mass may go.
  """

  cost: np.ndarray
  index: np.ndarray

  def cost_of(self, moves):
    """Cost of a plan: float[S, N] -> scalar."""
    return jnp.sum(self.column(moves) * moves)

  def column(self, like):
    """`cost` in the type of an array, to be multiplied with a plan."""
    return jnp.asarray(self.cost, like.dtype)[:, None]


@functools.lru_cache
def stencil(shape, size=5, *, p=1, ground='l2') -> Places:
  """The `size` by `size` places around each pixel, in its channel, at cost (ground distance)^p.

  Args:
    shape: (H, W, C).
    size: odd, at least 3.
    p: exponent of the ground distance, positive. With p = 2 the ball is one of squared distances: no
      root is taken.
    ground: 'l2', or 'l1' = |down| + |right|.

  Raises:
    ValueError: for an even or small `size`, a `p` that is not positive, or an unknown `ground`.

  Example:
    >>> places = stencil((1, 3, 1), 3, p=2)
    >>> places.cost.tolist(), places.index[5].tolist()
    ([2.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 2.0], [1, 2, 3])
  """
  if size < 3 or size % 2 == 0:
    raise ValueError(f'`size` of the stencil must be odd and at least 3, got size={size}.')
  _check_ground(p, ground)
  reach, (height, width, _) = size // 2, shape
  number = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
  padded = np.pad(number, ((reach, reach), (reach, reach), (0, 0)), constant_values=number.size)
  down, right = np.mgrid[:size, :size].reshape(2, -1)
  index = [padded[i : i + height, j : j + width].ravel() for i, j in zip(down, right, strict=True)]
  cost = _GROUNDS[ground](down - reach, right - reach, float(p))
  return Places(cost, np.stack(index))


def spread(values, places: Places, fill):
  """At each pixel, the values of the places its mass may go to.

  Args:
    values: float[N].
    places: S of them.
    fill: the value outside the image.

  Returns:
    float[S, N].

  Example:
    >>> spread(jnp.arange(3.0), stencil((1, 3, 1), 3), -1.0)[5].tolist()
    [1.0, 2.0, -1.0]
  """
  return jnp.append(values, jnp.asarray(fill, values.dtype))[places.index]


def arrivals(moves, places: Places):
  """The mass that a plan brings to each pixel.

  Args:
    moves: float[S, N], mass from each pixel to each place.
    places: S of them.

  Returns:
    float[N].

  Example:
    >>> moves = jnp.zeros((9, 3)).at[5, 1].set(0.25)
    >>> arrivals(moves, stencil((1, 3, 1), 3)).tolist()
    [0.0, 0.0, 0.25]
  """
  # The stencil is symmetric: a move by the s-th offset comes from where the s-th last leads.
  padded = jnp.pad(moves, ((0, 0), (0, 1)))
  return jnp.sum(jnp.take_along_axis(padded, places.index[::-1], axis=1), axis=0)


def change(moves, places: Places):
  """What a plan adds to each pixel: float[S, N] -> float[N], what arrives less what leaves."""
  return arrivals(moves, places) - jnp.sum(moves, axis=0)


def feasible(plan, x, eps, capacity, places: Places):
  """The part of a plan that the ball around x and the capacity of the pixels allow.

  Rows that move more than there is, then all moves, then the moves into overfull pixels are scaled
  down; mass that does not move stays. So the first two only lower the cost, as does the third.

  Args:
    plan: float[S, N], not negative.
    x: float[N] of mass 1.
    eps: the budget.
    capacity: the most a pixel holds; at least max x.
    places: S of them.

  Returns:
    float[S, N]: moves, with 0 in the middle.
  """
  moves = plan.at[len(places.cost) // 2].set(0)
  moves = moves * _ratio(x, jnp.sum(moves, axis=0))[None]
  moves = moves * _ratio(eps * _INSIDE, places.cost_of(moves))
  return within_capacity(moves, x, capacity, places)


def within_capacity(moves, x, capacity, places: Places):
  """Sends back moves into pixels that would hold too much.

  The share that each pixel accepts grows from 0: a pixel accepts what it had room for, and what is sure
  to leave it under the shares of the round before. So every round is within the capacity.
  """
  arriving, room = arrivals(moves, places), jnp.maximum(capacity - x, 0)

  def round_(_, share):
    leaving = jnp.sum(moves * spread(share, places, 0), axis=0)
    return _ratio(room + leaving, arriving)

  share = lax.fori_loop(0, _ROUNDS, round_, jnp.zeros_like(x))
  return moves * spread(share, places, 0)


def wasserstein_distance(x, x_adv, *, ground='l2', p=1) -> float:
  r"""The exact Wasserstein distance of two images, by a linear program on the host.

    W(x, x') = min { sum_ij d(i, j)^p P_ij : P 1 = x / m, P^T 1 = x' / m, P >= 0 },   m = sum x,

  channel by channel: mass moves within its channel, to any distance. One unit is all the mass moved
  by one pixel, as in `smoothing.wasserstein`. For images of some hundred bright pixels.

  Args:
    x, x_adv: float[H, W, C], not negative.
    ground: distance d of two pixels, 'l2' or 'l1'.
    p: its exponent.

  Returns:
    A float; inf where a channel's masses differ by more than float32 rounds (1e-5 of m). A smaller
    difference is scaled away.

  Raises:
    ValueError: for images of different shapes, a negative or NaN pixel, no mass, or unknown arguments.

  Example:
    >>> x = np.array([0.5, 0.5, 0.0]).reshape(1, 3, 1)
    >>> round(wasserstein_distance(x, x[:, ::-1]), 6)
    1.0
  """
  _check_ground(p, ground)
  x, x_adv = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
  _check_images(x, x_adv)
  total = 0.0
  for source, target in zip(np.moveaxis(x, -1, 0), np.moveaxis(x_adv, -1, 0), strict=True):
    if abs(source.sum() - target.sum()) > _SAME_MASS * x.sum():
      return float('inf')
    if source.sum() > 0 and target.sum() > 0:
      total += _transport(source, target * (source.sum() / target.sum()), ground, p)
  return float(total / x.sum())


def _transport(source, target, ground, p):
  """Cost of the cheapest plan between two float64[H, W] of equal mass."""
  if p <= 1:  # A metric: mass that both have need not move.
    common = np.minimum(source, target)
    source, target = source - common, target - common
  here, there = np.argwhere(source > 0), np.argwhere(target > 0)
  supply, demand = source[source > 0], target[target > 0]
  if len(here) == 0 or len(there) == 0:
    return 0.0
  difference = here[:, None] - there[None]
  cost = _GROUNDS[ground](difference[..., 0], difference[..., 1], float(p))
  rows = sparse.kron(sparse.eye(len(here)), np.ones((1, len(there))))
  columns = sparse.kron(np.ones((1, len(here))), sparse.eye(len(there)))
  scale = supply.sum()
  sides = np.concatenate([supply / scale, demand / demand.sum()])
  # One equation follows from the others; without that of the largest demand, rounding cannot make
  # them contradict (without that of a tiny one it did).
  others = np.arange(len(sides)) != len(here) + np.argmax(demand)
  matrix = sparse.vstack([rows, columns]).tocsr()[others]
  names = ('primal_feasibility_tolerance', 'dual_feasibility_tolerance')
  found = optimize.linprog(
    cost.ravel(), A_eq=matrix, b_eq=sides[others], method='highs',
    options=dict.fromkeys(names, _TOLERANCE),
  )  # fmt: skip
  if found.status != 0:
    raise RuntimeError(f'the transport program was not solved: {found.message}')
  return float(found.fun) * scale


def _ratio(allowed, wanted):
  """min(1, allowed / wanted), 1 where nothing is wanted."""
  return jnp.where(wanted > 0, jnp.minimum(1, allowed / jnp.where(wanted > 0, wanted, 1)), 1)


def _check_ground(p, ground):
  if not 0 < p < float('inf'):
    raise ValueError(f'`p` must be positive and finite, got p={p}.')
  if ground not in _GROUNDS:
    raise ValueError(f'`ground` must be one of {", ".join(_GROUNDS)}, got {ground!r}.')


def _check_images(x, x_adv):
  if x.shape != x_adv.shape or x.ndim != 3:
    raise ValueError(
      f'`x` and `x_adv` must be two images [H, W, C], got shapes {x.shape} and {x_adv.shape}.'
    )
  if not (np.min(x) >= 0 and np.min(x_adv) >= 0 and 0 < x.sum() < np.inf):
    raise ValueError('`x` and `x_adv` must have no negative or NaN pixel, and `x` some mass.')
