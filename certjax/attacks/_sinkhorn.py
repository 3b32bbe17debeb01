r"""Projected Sinkhorn (Wong et al. 2019): entropic projection on a Wasserstein ball, in logarithms.

Block coordinate ascent on the dual of  min lam/2 ||y - z||^2 + sum P log P  over plans P from x to z
of cost at most eps. Their step for z is beta = W(lam e^{lam y} K e^{-alpha}) - lam y, whose exponential
overflows; with Wright's omega function, omega(z) = W(e^z), the same step needs no exponential:

  beta = omega(log lam + lam y + log K e^{-alpha}) - lam y.

The support function of the ball is the same without the step for z: then one multiplier is left.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import logsumexp

from certjax.attacks._transport import Places, spread

_NEWTON_STEPS = 6  # From both starts below, to float64's last bits.
_HALVINGS = 8  # A step is halved down to 1 / 128, Wong et al.'s .01.


@jax.custom_jvp
def wright_omega(z):
  r"""Wright's omega function of real arguments: the y with y + log y = z.

  Args:
    z: float[...].

  Returns:
    float[...], positive, to a few units in the last place; d omega / dz = omega / (1 + omega).

  Example:
    >>> round(float(wright_omega(1000.0)), 3)
    993.099

  References:
    Corless & Jeffrey 2002, The Wright omega function.
  """
  z = jnp.asarray(z)
  # Below 1 Newton for log y, which cannot overflow; above for y, of which log y would lose digits.
  small = jnp.where(z > -jnp.inf, jnp.minimum(z, 1), -1)
  large = jnp.where(z < jnp.inf, jnp.maximum(z, 1), 1)
  logarithm, y = small, large - jnp.log(large)
  for _ in range(_NEWTON_STEPS):
    exponential = jnp.exp(logarithm)
    logarithm = logarithm - (exponential + logarithm - small) / (1 + exponential)
    y = y / (1 + y) * (1 + (large - jnp.log(y)))
  y = jnp.where(z > 1, y, jnp.exp(logarithm))
  return jnp.where(z == -jnp.inf, 0, jnp.where(z == jnp.inf, jnp.inf, y))


@wright_omega.defjvp
def _wright_omega_jvp(primals, tangents):
  y = wright_omega(*primals)
  return y, y / (1 + y) * tangents[0]


def project(x, y, eps, places: Places, *, regularization, num_iterations, tolerance=1e-6):
  r"""The plan of the entropic projection of y on the ball around x.

    min lam/2 ||y - z||^2 + sum P log P  subject to  P 1 = x, P^T 1 = z, <P, C> <= eps

  Args:
    x: float[N] of mass 1.
    y: float[N], any numbers.
    eps: the budget.
    places: where mass may go; gives C.
    regularization: lam. A larger one is nearer to the projection, and converges slower.
    num_iterations: at most.
    tolerance: ends when the dual objective changes by less, relative and absolute.

  Returns:
    float[S, N], a plan whose rows sum to x. Its cost exceeds eps by what is missing to
    convergence: `feasible` repairs that.

  Example:
    >>> from certjax.attacks._transport import change, stencil
    >>> x, y, places = jnp.array([0.5, 0.5]), jnp.array([0.9, 0.1]), stencil((1, 2, 1), 3)
    >>> plan = project(x, y, 0.1, places, regularization=10.0, num_iterations=200)
    >>> [round(float(share), 3) for share in x + change(plan, places)]
    [0.6, 0.4]

  References:
    Wong, Schmidt & Kolter 2019 (arXiv:1902.07906), Algorithm 2.
  """
  # Deviation: the authors' code stops on another objective (it swaps two arguments); this is the dual.
  lam, log_x = jnp.asarray(regularization, x.dtype), jnp.log(x)
  column = places.column(x)
  smooth = lambda values, psi: spread(values, places, -jnp.inf) - psi * column

  def rows(beta, psi):
    """log of what leaves each pixel, so that all of x leaves."""
    return jnp.where(x > 0, log_x - logsumexp(smooth(-beta, psi), axis=0), -jnp.inf)

  def iteration(state):
    beta, psi, _, objective, count = state
    alpha = rows(beta, psi)
    arriving = logsumexp(smooth(alpha, psi), axis=0)
    beta = wright_omega(jnp.log(lam) + lam * y + arriving) - lam * y
    plan = jnp.exp(alpha[None] + smooth(-beta, psi))
    now = _dual(x, y, alpha, beta, psi, plan, eps, lam)
    slope = jnp.sum(column * plan) - eps
    psi = _newton(psi, slope, jnp.sum(column**2 * plan))
    return beta, psi, objective, now, count + 1

  def goes_on(state):
    _, _, before, now, count = state
    still = ~(jnp.abs(now - before) <= tolerance * (1 + jnp.abs(now)))
    return still & (count < num_iterations)

  nowhere = jnp.asarray(-jnp.inf, x.dtype)
  start = (jnp.zeros_like(x), jnp.ones_like(lam), nowhere, nowhere, jnp.int32(0))
  beta, psi, *_ = lax.while_loop(goes_on, iteration, start)
  return jnp.exp(rows(beta, psi)[None] + smooth(-beta, psi))


def support(x, slope, eps, places: Places, *, regularization, num_iterations=25):
  r"""The plan of the entropic support function: the cheapest way uphill.

    max lam <slope, z> - sum P log P  subject to  P 1 = x, P^T 1 = z, <P, C> <= eps

  that is P_ij = x_i softmax_j(lam slope_j - psi C_ij), with psi by bisection: so the cost never exceeds
  eps, up to rounding.

  Args:
    x: float[N] of mass 1.
    slope: float[N].
    eps: the budget.
    places: where mass may go.
    regularization: lam, in units of 1 / slope.
    num_iterations: of the bisection.

  Returns:
    float[S, N], a plan whose rows sum to x.

  Example:
    >>> from certjax.attacks._transport import change, stencil
    >>> x, slope, places = jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0]), stencil((1, 2, 1), 3)
    >>> plan = support(x, slope, 0.25, places, regularization=1000.0)
    >>> [round(float(share), 3) for share in x + change(plan, places)]
    [0.75, 0.25]

  References:
    Wong et al. 2019 (conjugate Sinkhorn); Wu, Wang & Yu 2020 (arXiv:2008.02883), section 4.
  """
  column = places.column(x)
  gain = regularization * spread(slope, places, -jnp.inf)
  plan_at = lambda psi: x[None] * jax.nn.softmax(gain - psi * column, axis=0)
  # Above this psi no entry but the middle one exceeds e^{log(eps / sum C)}, as C >= 1 there.
  highest = 2 * regularization * jnp.max(jnp.abs(slope)) + jnp.maximum(
    jnp.log(jnp.sum(column) / jnp.maximum(eps, jnp.finfo(x.dtype).tiny)), 0
  )
  psi = bisect(lambda psi: jnp.sum(column * plan_at(psi)) > eps, highest, num_iterations)
  return plan_at(psi)


def bisect(exceeds, highest, num_iterations):
  """The least multiplier in [0, highest] at which the budget holds, from above."""

  def halve(_, bracket):
    low, high = bracket
    middle = (low + high) / 2
    above = exceeds(middle)
    return jnp.where(above, middle, low), jnp.where(above, high, middle)

  return lax.fori_loop(0, num_iterations, halve, (jnp.zeros_like(highest), highest))[1]


def _dual(x, y, alpha, beta, psi, plan, eps, lam):
  """The dual objective, up to a constant."""
  sent = jnp.sum(jnp.where(x > 0, alpha, 0) * x)
  return sent - jnp.sum(beta * y) - jnp.sum(beta**2) / (2 * lam) - psi * eps - jnp.sum(plan)


def _newton(psi, slope, curvature):
  """One Newton step for the multiplier, halved until it stays positive."""
  delta = slope / jnp.maximum(curvature, jnp.finfo(psi.dtype).tiny)
  ahead = psi + delta * 0.5 ** jnp.arange(_HALVINGS, dtype=psi.dtype)
  first = jnp.argmax(ahead >= 0)
  return jnp.maximum(jnp.where(jnp.any(ahead >= 0), ahead[first], ahead[-1]), 0)
