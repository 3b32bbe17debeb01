"""Perceptual PGD (Laidlaw, Singla & Feizi 2021): each step is the best one of a given LPIPS length.

To first order phi(x + delta) = phi(x) + J delta, and the step that changes the loss most among those with
|J delta| = eta is

  delta = eta (J^T J)^-1 g / |J (J^T J)^-1 g|,  g = grad loss,

found by conjugate gradients. J is never formed: J^T u is a backward pass, and J v, as J^T u is linear in u,
the backward pass of that. So models need no forward-mode derivative (our convolutions have none), and both
products stay fast inside a loop on a CPU.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from certjax.attacks._perceptual import (
  check,
  keep,
  lengths,
  margins,
  phi_and_logits,
  scale,
  start,
  where,
  within,
)
from certjax.attacks._perceptual_projection import PROJECTIONS
from certjax.distances import check_pixels

_CONVERGED = 1e-12
"""Squared residual, relative: what is left below is rounding, and dividing by it is noise."""


def ppgd(
  embed=None, *, eps=0.5, num_steps=40, cg_steps=5, damping=0.0, step_size=None, projection='newton',
  kappa=1.0,
):  # fmt: skip
  """Steps of LPIPS length `step_size` up the margin, each projected into the set.

    x_{t+1} = project(clip(x_t + step_size s / |J s|)),  (J^T J + damping) s ~ grad min(margin, kappa)

  The undamped system is singular (phi does not change with an activation's scale): its few steps of
  conjugate gradients regularise it, and more make it worse. For more, damp it.

  Args:
    embed: `x[B, H, W, C] -> phi[B, D]`, from `distances.embedding`; None for a self-bounded attack,
      whose `model_fn` is a `FeatureFn` (`models.features_of`, `models.self_bounded`).
    eps: largest LPIPS distance (the root, see `distances.lpips`); may be traced.
    num_steps: static number of steps.
    cg_steps: of conjugate gradients, in each step: 5 in the paper.
    damping: at least 0; from 1e-3 on, 20 steps of conjugate gradients converge.
    step_size: LPIPS length of a step; default 2 eps / num_steps.
    projection: 'newton' or 'bisection'.
    kappa: margin at which an example has had enough.

  Returns:
    An `Attack`: of all points visited inside the set, x among them, the one of largest margin.

  Raises:
    ValueError: for negative numbers, or an unknown `projection`; when called, where `embed` or
      `model_fn` returns something else, and, outside of jit, for images outside [0, 1].

  Example:
    >>> phi = lambda x: 2 * x  # |phi(x') - phi(x)| = 2 |x' - x|
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.ones(len(x))], axis=1)
    >>> attack = ppgd(phi, eps=0.5, num_steps=10)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.full((1, 4), 0.6), jnp.array([0]))
    >>> 0.99 < float(2 * jnp.linalg.norm(x_adv - 0.6) / 0.5) < 1.00001
    True

  References:
    Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), section 4 and appendix A.
  """
  check(
    projection, PROJECTIONS, eps, num_steps=(num_steps, 0), cg_steps=(cg_steps, 1),
    damping=(damping, 0), step_size=(0 if step_size is None else step_size, 0),
  )  # fmt: skip
  # Deviation: J exact, where the published code takes finite differences; g scaled to length 1; no stop
  # once the residuals of the whole batch are small.
  size = 2 * eps / max(num_steps, 1) if step_size is None else step_size

  def attack(key, model_fn, x, y):
    check_pixels(x=x)
    see = phi_and_logits(embed, model_fn)
    look = lambda x: see(x)[0]
    origin, logits = see(x)
    project = functools.partial(PROJECTIONS[projection], look, x, origin, eps=eps)

    def capped(point):
      value = margins(see(point)[1], y)
      return jnp.sum(jnp.minimum(value, kappa)), value

    def step(carry, _):
      point, best = carry
      gradient, value = jax.grad(capped, has_aux=True)(point)
      phi, push, pull = jacobian(look, point)
      best = keep(best, point, value, lengths(phi - origin), eps)
      ahead = point + _longest_step(push, pull, gradient, size, cg_steps, damping)
      return (project(jnp.clip(ahead, 0, 1)), best), None

    begin = (start(key, x), (x, margins(logits, y)))
    (point, best), _ = lax.scan(step, begin, length=num_steps)
    phi, logits = see(point)
    best = keep(best, point, margins(logits, y), lengths(phi - origin), eps)
    return within(eps, x, best[0])

  return attack


def _longest_step(push, pull, gradient, size, cg_steps, damping):
  """delta of the module's docstring, row by row; 0 where the gradient is 0 or phi does not see s."""
  length = lengths(gradient)
  unit = scale(1 / jnp.where(length > 0, length, 1), gradient)
  s = conjugate_gradients(lambda v: pull(push(v)) + damping * v, unit, cg_steps)
  speed = lengths(push(s))
  return scale(jnp.where(speed > 0, size / jnp.where(speed > 0, speed, 1), 0), s)


def jacobian(embed, x):
  """phi, J v and J^T u of `embed` at x, without forward-mode derivatives.

  Args:
    embed: `x[B, ...] -> phi[B, D]`.
    x: float[B, ...].

  Returns:
    (phi[B, D], `v[B, ...] -> J v[B, D]`, `u[B, D] -> J^T u[B, ...]`).

  Example:
    >>> phi, push, pull = jacobian(lambda x: x**2, jnp.array([[1.0, 3.0]]))
    >>> push(jnp.ones((1, 2))).tolist(), pull(jnp.ones((1, 2))).tolist()
    ([[2.0, 6.0]], [[2.0, 6.0]])
  """
  phi, vjp = jax.vjp(embed, x)
  pull = lambda u: vjp(u)[0]
  _, twice = jax.vjp(pull, jnp.zeros_like(phi))
  return phi, (lambda v: twice(v)[0]), pull


def conjugate_gradients(apply, b, num_steps):
  """Solves A s = b for each row, from s = 0 (Hestenes & Stiefel 1952).

  A row stops where its residual is rounding, or where its direction has no curvature, as in the null
  space of a singular A.

  Args:
    apply: `v[B, ...] -> A v[B, ...]`, symmetric and positive semi-definite row by row.
    b: float[B, ...].
    num_steps: static.

  Returns:
    s, float[B, ...].

  Example:
    >>> conjugate_gradients(lambda v: v * jnp.array([[1.0, 4.0]]), jnp.ones((1, 2)), 2).tolist()
    [[1.0, 0.25]]
  """
  dot = jax.vmap(lambda a, b: jnp.vdot(a, b, precision='highest'))

  def step(carry, _):
    s, residual, direction, square = carry
    image = apply(direction)
    curvature = dot(direction, image)
    going = (curvature > 0) & (square > _CONVERGED * first)
    alpha = jnp.where(going, square / jnp.where(going, curvature, 1), 0)
    s = s + scale(alpha, direction)
    residual = residual - scale(alpha, image)
    new = dot(residual, residual)
    beta = jnp.where(going, new / jnp.where(going, square, 1), 0)
    direction = where(going, residual + scale(beta, direction), jnp.zeros_like(b))
    return (s, residual, direction, new), None

  first = dot(b, b)
  (s, *_), _ = lax.scan(step, (jnp.zeros_like(b), b, b, first), length=num_steps)
  return s
