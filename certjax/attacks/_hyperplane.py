"""The shortest move of an image in [0, 1] onto a hyperplane, in each norm (Croce & Hein 2020).

The move d changes <w, .> by `gap` and leaves x + d in the box. Value i can only help in the direction of
gap w_i, where the box leaves it room u_i (none where w_i = 0), and lengths t_i in [0, u_i] with

  sum_i |w_i| t_i = |gap|

are the least when t_i = min(s, u_i) (L_inf), min(s |w_i|, u_i) (L2), or when the values of largest |w_i|
fill their room one after another (L1). Where the box does not reach the hyperplane, every t_i is u_i: the
point of the box that comes nearest to it.

Sorted ends and a bisection over whole sums make s exact: running sums would lose small values.
"""

import jax.numpy as jnp
from jax import lax


def linf(x, w, gap):
  """The move whose largest absolute value is least.

  Args:
    x: float[...], ONE image in [0, 1].
    w: float[...], normal of the hyperplane.
    gap: scalar, by how much <w, .> shall change.

  Returns:
    float[...], d with x + d in [0, 1].

  Example:
    >>> linf(jnp.array([0.5, 0.875]), jnp.array([1.0, 1.0]), 0.5).tolist()
    [0.375, 0.125]

  References:
    Croce & Hein 2020 (arXiv:1907.02044), section 2.1 and appendix A.
  """
  slope, room, sign = _lengths(x, w, gap)
  return sign * jnp.minimum(_level(slope, room, jnp.abs(gap)), room)


def l2(x, w, gap):
  """The move of least Euclidean length; arguments and source as in `linf`.

  Example:
    >>> l2(jnp.array([0.5, 0.875]), jnp.array([1.0, 2.0]), 0.5).tolist()
    [0.25, 0.125]
  """
  slope, room, sign = _lengths(x, w, gap)
  ends = jnp.where(slope > 0, room / jnp.where(slope > 0, slope, 1.0), 0)
  return sign * jnp.minimum(_level(slope**2, ends, jnp.abs(gap)) * slope, room)


def l1(x, w, gap):
  """The move whose absolute values have the least sum; arguments and source as in `linf`.

  Of equal |w_i| the first ones move.

  Example:
    >>> l1(jnp.array([0.5, 0.875]), jnp.array([1.0, 2.0]), 0.5).tolist()
    [0.25, 0.125]
  """
  slope, room, sign = _lengths(x, w, gap)
  order = jnp.argsort(-slope.ravel(), stable=True)
  place = jnp.arange(order.size, dtype=jnp.int32)
  rank = jnp.zeros_like(place).at[order].set(place).reshape(x.shape)
  full = lambda number: jnp.sum(jnp.where(rank < number, slope * room, 0))
  number = _first(order.size, lambda number: full(number + 1) > jnp.abs(gap))
  rest = (jnp.abs(gap) - full(number)) / jnp.where(slope > 0, slope, 1.0)
  rest = jnp.minimum(jnp.maximum(rest, 0), room)
  return sign * jnp.where(rank < number, room, jnp.where(rank == number, rest, 0))


def _lengths(x, w, gap):
  """|w|, the room of each value in the direction that closes the gap, and that direction."""
  sign = jnp.sign(w) * jnp.where(gap < 0, -1, 1).astype(x.dtype)
  room = jnp.where(sign > 0, 1 - x, jnp.where(sign < 0, x, 0))
  return jnp.abs(w), room, sign


def _level(weight, ends, total):
  """The s >= 0 with sum_i weight_i min(s, ends_i) = total; the largest end where there is none."""
  rising = jnp.sort(ends.ravel())
  reached = lambda level: jnp.sum(weight * jnp.minimum(level, ends))
  last = rising.size - 1
  end = rising[_first(last, lambda number: reached(rising[number]) >= total)]
  moving = ends >= end
  over = jnp.sum(jnp.where(moving, weight, 0))
  rest = total - jnp.sum(jnp.where(moving, 0, weight * ends))
  level = jnp.where(over > 0, rest / jnp.where(over > 0, over, 1.0), 0)
  return jnp.minimum(jnp.maximum(level, 0), end)


def _first(size, holds):
  """The first of 0 .. size - 1 for which `holds`, which never turns false again; or size."""

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) // 2
    after = (low < high) & ~holds(middle)
    return jnp.where(after, middle + 1, low), jnp.where(after, high, middle)

  return lax.fori_loop(0, size.bit_length(), halve, (jnp.int32(0), jnp.int32(size)))[0]


MOVES = {'linf': linf, 'l2': l2, 'l1': l1}
"""Norm -> `(x, w, gap) -> d`."""
