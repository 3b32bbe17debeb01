r"""Lines below and above an activation over an interval of its argument.

  k_l x + t_l <= sigma(x) <= k_u x + t_u      for all x in [l, u]

Zhang et al. 2018 (CROWN, arXiv:1811.00866); for ReLU every lower slope in [0, 1] is sound.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

SLOPES = ('adaptive', 'same', 'zero', 'one')
_HALVINGS = 30
_NARROW = 1e-6  # Where a secant would divide by nothing, constants do.
_ULPS = 256


class Lines(NamedTuple):
  """Slopes and offsets of both lines, each of the activation's shape."""

  lower_slope: jax.Array
  lower_offset: jax.Array
  upper_slope: jax.Array
  upper_offset: jax.Array


def lines(kind, box, *, slope='adaptive', outward=False) -> Lines:
  """The lines of an activation.

  Args:
    kind: a key of `RELAXATIONS`.
    box: (lower, upper) of its argument.
    slope: of the lower line of an unstable ReLU: 'adaptive' (1 where u > -l, else 0), 'same' (that
      of the upper line), 'zero', 'one', or an array of slopes in [0, 1].
    outward: whether to move the lines apart by what rounding may have cost.

  Returns:
    `Lines`.
  """
  made = RELAXATIONS[kind](*box, slope)
  if not outward:
    return made
  reach = jnp.maximum(jnp.abs(box[0]), jnp.abs(box[1]))
  if kind == 'relu':  # Slopes may come one a row; offsets do not, and slopes are at most 1.
    steepest = jnp.ones_like(reach)
  else:
    steepest = jnp.maximum(jnp.abs(made.lower_slope), jnp.abs(made.upper_slope))
  ulps = 8 if kind == 'relu' else _ULPS
  scale = (1 + steepest) * reach + (0 if kind == 'relu' else 1)
  slip = ulps * float(jnp.finfo(reach.dtype).eps) * scale
  stable = (kind == 'relu') & ((box[0] >= 0) | (box[1] <= 0))
  slip = jnp.where(stable, 0, slip)
  return made._replace(lower_offset=made.lower_offset - slip, upper_offset=made.upper_offset + slip)


def _relu(lower, upper, slope):
  unstable = (lower < 0) & (upper > 0)
  on = jnp.where(lower >= 0, 1.0, 0.0).astype(lower.dtype)
  width = jnp.where(unstable, upper - lower, 1)
  secant = upper / width
  chosen = {
    'adaptive': lambda: jnp.where(upper > -lower, 1.0, 0.0).astype(lower.dtype),
    'same': lambda: secant,
    'zero': lambda: jnp.zeros_like(lower),
    'one': lambda: jnp.ones_like(lower),
  }
  below = chosen[slope]() if isinstance(slope, str) else slope
  zero = jnp.zeros_like(lower)
  return Lines(
    jnp.where(unstable, below, on), zero,
    jnp.where(unstable, secant, on), jnp.where(unstable, -secant * lower, zero),
  )  # fmt: skip


def _softplus(lower, upper, slope):
  """Convex: a tangent below, the secant above."""
  del slope
  middle = (lower + upper) / 2
  tangent = jax.nn.sigmoid(middle)
  above, offset = _secant(jax.nn.softplus, lower, upper, jax.nn.softplus(upper))
  return Lines(tangent, jax.nn.softplus(middle) - tangent * middle, above, offset)


def _sigmoidal(function, derivative):
  """Of a function that is convex left of 0, concave right of it, and odd about (0, f(0))."""

  def relax(lower, upper, slope):
    del slope
    above, offset = _upper(function, derivative, lower, upper)
    below, mirrored = _upper(function, derivative, -upper, -lower)
    return Lines(below, 2 * function(jnp.zeros_like(lower)) - mirrored, above, offset)

  return relax


def _upper(f, slope_of, lower, upper):
  """Slope and offset of a line above: a tangent at d >= 0 that also lies above f(l), or the secant.

  A tangent at d >= max(l, 0) is above f right of 0, where f is concave; left of 0, where f is convex,
  it suffices that it is above at l and at 0. Bisection keeps the end where that holds.
  """

  def halve(_, bracket):
    small, large = bracket
    middle = (small + large) / 2
    holds = f(middle) + slope_of(middle) * (lower - middle) >= f(lower)
    return jnp.where(holds, small, middle), jnp.where(holds, middle, large)

  start = jax.lax.stop_gradient((jnp.zeros_like(lower), jnp.maximum(upper, 0)))
  _, touch = jax.lax.fori_loop(0, _HALVINGS, halve, start)
  touch = jnp.where(lower >= 0, (lower + upper) / 2, jax.lax.stop_gradient(touch))
  steep, tangent_offset = slope_of(touch), f(touch) - slope_of(touch) * touch
  secant, offset = _secant(f, lower, upper, f(upper))
  above_left = f(touch) + steep * (lower - touch) >= f(lower)
  tangent = (lower >= 0) | ((upper > 0) & above_left)
  return jnp.where(tangent, steep, secant), jnp.where(tangent, tangent_offset, offset)


def _secant(f, lower, upper, constant):
  """Slope and offset through both ends; the `constant` where they are too near."""
  width = upper - lower
  wide = width > _NARROW
  slope = jnp.where(wide, (f(upper) - f(lower)) / jnp.where(wide, width, 1), 0)
  return slope, jnp.where(wide, f(lower) - slope * lower, constant)


RELAXATIONS = {
  'relu': _relu,
  'softplus': _softplus,
  'tanh': _sigmoidal(jnp.tanh, lambda x: 1 - jnp.tanh(x) ** 2),
  'logistic': _sigmoidal(
    jax.nn.sigmoid, lambda x: jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)
  ),
}  # fmt: skip
