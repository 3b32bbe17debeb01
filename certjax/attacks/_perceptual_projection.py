"""Back into the perceptual set, |phi(x') - phi(x)|_2 <= eps: bisection, and Newton's method.

Both return a point that was measured inside, or x itself.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from certjax.attacks._perceptual import lengths, scale, where

_OVERSHOOT = 0.01  # Of eps: a step that aims at the boundary itself ends outside of it, a little.


def bisection(embed, x, origin, x_adv, eps, num_steps=10):
  """The last point inside that halving the segment from x to x_adv finds.

    x + low (x_adv - x),  low in multiples of 2^-num_steps

  Args:
    embed: `x[B, ...] -> phi[B, D]`.
    x: float[B, ...], centres.
    origin: embed(x).
    x_adv: float[B, ...] in [0, 1].
    eps: size of the set; may be traced.
    num_steps: static; each costs a forward pass.

  Returns:
    float[B, ...]: x_adv itself where it is inside.

  Example:
    >>> x, x_adv = jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]])
    >>> bisection(lambda x: x, x, x, x_adv, 0.7).tolist()  # 716 / 1024.
    [[0.69921875, 0.0]]

  References:
    Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), appendix A.
  """
  # Deviation: returns the last point found inside; the published code the last one measured.

  def halve(carry, width):  # Widths 1, 1/2, 1/4, ...: x_adv itself comes first.
    low, found = carry
    between = jnp.clip(x + scale(low + width, x_adv - x), 0, 1)
    point = jnp.where(width == 1, x_adv, between)
    fits = (lengths(embed(point) - origin) <= eps) & (low < 1)
    return (jnp.where(fits, low + width, low), where(fits, point, found)), None

  widths = 0.5 ** jnp.arange(num_steps + 1, dtype=x.dtype)
  return lax.scan(halve, (jnp.zeros(len(x), x.dtype), x), widths)[0][1]


def newton(embed, x, origin, x_adv, eps, num_steps=10):
  """Steps along the distance's gradient until the point is inside.

    x' <- clip(x' - (d - 0.99 eps) grad d / |grad d|^2),  d = |phi(x') - phi(x)|, where d > eps

  A row that is still outside after all steps is bisected from there, by itself.

  Args:
    embed, x, origin, x_adv, eps: as in `bisection`.
    num_steps: at most so many; each costs a forward and a backward pass.

  Returns:
    float[B, ...]: x_adv itself where it is inside.

  Example:
    >>> x, x_adv = jnp.full((1, 2), 0.5), jnp.array([[1.0, 0.5]])
    >>> round(float(newton(lambda x: x, x, x, x_adv, 0.25)[0, 0]), 4)
    0.7475

  References:
    Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), appendix A.
  """
  # Deviation: the published step is 1.1 (d - eps + 0.1), which gives a fifth of eps = 0.5 away.
  # Deviation: a fresh gradient each step, and the fallback row by row.

  def total(point):
    distance = lengths(embed(point) - origin)
    return jnp.sum(distance), distance

  def unfinished(carry):
    count, _, distance = carry
    return (count <= num_steps) & jnp.any(distance > eps)

  def step(carry):  # Measures, then moves what is outside; the last one only measures.
    count, point, _ = carry
    gradient, distance = jax.grad(total, has_aux=True)(point)
    square = jax.vmap(lambda g: jnp.sum(g**2))(gradient)
    wanted = jnp.where(square > 0, distance - (1 - _OVERSHOOT) * eps, 0)
    factor = wanted / jnp.where(square > 0, square, 1)
    ahead = jnp.clip(point - scale(factor, gradient), 0, 1)
    moves = (distance > eps) & (count < num_steps)
    return count + 1, where(moves, ahead, point), distance

  # Not a scan: most batches need one or two steps, and a finished row stays as it is.
  unknown = jnp.full(len(x), jnp.inf, x.dtype)
  _, point, distance = lax.while_loop(unfinished, step, (0, x_adv, unknown))
  rest = functools.partial(bisection, embed, x, origin, eps=eps)
  outside = ~(distance <= eps)  # NaN too: bisection then ends at x.
  return lax.cond(jnp.any(outside), rest, lambda point: point, point)


PROJECTIONS = {'newton': newton, 'bisection': bisection}
