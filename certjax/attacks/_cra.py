r"""The worst point of an L2 ball around an image, for a network whose curvature is bounded (CRA).

With g = f_y - f_j and no eigenvalue of its Hessian below -m, for every eta > m

  L(x) = g(x) + eta / 2 (||x - x_0||^2 - eps^2)

is strongly convex (mu = eta - m), and its minimum is at most the minimum of g over the ball. Where
the minimiser lies on the sphere both are equal: the attack has found the worst point there is, and
knows it. Singla & Feizi 2020; the multiplier is looked for as in trust-region methods.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from certjax.attacks._loss import margin
from certjax.attacks._pgd import _keep
from certjax.typing import ModelFn

_TINY = 1e-30
_AWAY = 0.05  # How far a new multiplier stays from both ends, as a share of the bracket.
_EQUAL = 1e-5  # Of primal and dual, in units of 1 + |g|: float32.


class Worst(NamedTuple):
  """The least value of f_y - f_j that was found in each ball.

  Attributes:
    x: float[B, ...], where.
    value: float[B], g there.
    bound: float[B], a lower bound of g over the ball, up to float rounding: the dual.
    multiplier: float[B], eta.
    optimal: bool[B], whether value and bound agree: no point of the ball is worse.
  """

  x: jax.Array
  value: jax.Array
  bound: jax.Array
  multiplier: jax.Array
  optimal: jax.Array


def cra(threat, *, curvature, num_multipliers=20, num_steps=10):
  """The attack of Singla & Feizi 2020 on the runner-up, for smooth networks of few layers.

    x_adv = argmin_{||x' - x|| <= eps} (f_y - f_j)(x'),   j = argmax_{k != y} f_k(x)

  Optimal in the ball wherever `worst_in_ball` says so; [0, 1] is met by clipping afterwards.

  Args:
    threat: `threats.l2(eps)`.
    curvature: float[K, K], of `model_fn` as a function of its input: `bounds.curvature` or
      `bounds.deep_curvature` (y, j: how far f_y - f_j bends down); may be traced.
    num_multipliers, num_steps: as in `worst_in_ball`.

  Returns:
    An `Attack`. Of the image and the point found it returns the one with the larger margin loss.

  Raises:
    ValueError: for another norm than L2, or counts below 1.

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.ones(len(x))], axis=1)
    >>> attack = cra(threats.l2(0.5), curvature=jnp.zeros((2, 2)))
    >>> attack(None, model_fn, jnp.full((1, 4), 0.5), jnp.array([0])).round(4).tolist()
    [[0.25, 0.25, 0.25, 0.25]]

  References:
    Singla & Feizi 2020 (arXiv:2006.00731), Theorem 2.
  """
  if threat.norm != 'l2':
    raise ValueError(f'`threat` must be of norm l2, got {threat.norm!r}: use `attacks.pgd`.')
  _check_counts(num_multipliers, num_steps)

  def attack(key, model_fn, x, y):
    del key  # It draws nothing.
    logits = model_fn(x)
    others = jnp.where(jax.nn.one_hot(y, logits.shape[1], dtype=bool), -jnp.inf, logits)
    rival = jnp.argmax(others, axis=1)
    found = worst_in_ball(
      model_fn, x, y, rival, threat.eps, curvature=curvature, num_multipliers=num_multipliers,
      num_steps=num_steps,
    )  # fmt: skip
    moved = jax.vmap(threat.project)(x, found.x)
    value = jax.vmap(margin)(model_fn(moved), y)
    return _keep((x, jax.vmap(margin)(logits, y)), (moved, value))[0]

  return attack


def worst_in_ball(
  model_fn, x, y, rival, eps, *, curvature, num_multipliers=20, num_steps=10
) -> Worst:  # fmt: skip
  """The least f_y - f_j in the L2 ball around each image (not limited to [0, 1]), and its dual bound.

  Args:
    model_fn: `x[B, ...] -> logits[B, K]`, smooth.
    x: float[B, ...].
    y, rival: int[B], the two classes.
    eps: radius; may be traced.
    curvature: float[K, K], upper bounds of minus the smallest eigenvalue of the Hessian of f_y - f_j.
    num_multipliers: values of eta; the best dual bound counts.
    num_steps: accelerated gradient steps on x for each.

  Returns:
    A `Worst`. `bound` is no certificate: this arithmetic rounds. `bounds.crc` gives one.

  Raises:
    ValueError: for counts below 1.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.ones(len(x))], axis=1)
    >>> at = jnp.full((1, 4), 0.5), jnp.array([0]), jnp.array([1]), 0.5
    >>> found = worst_in_ball(model_fn, *at, curvature=jnp.zeros((2, 2)))
    >>> round(float(found.value[0]), 4), bool(found.optimal[0])
    (0.0, True)
  """
  _check_counts(num_multipliers, num_steps)
  curvature, eps = jnp.asarray(curvature, x.dtype), jnp.asarray(eps, x.dtype)
  problem = _Problem(model_fn, x, y, rival, curvature[y, rival], curvature[rival, y], eps)
  value, slope = problem.evaluate(x)
  radius = jnp.where(eps > 0, eps, 1)
  low = problem.bend
  high = low + _lengths(slope) / radius + jnp.maximum(problem.bend, problem.upward) + _TINY
  start = jnp.clip(_lengths(slope) / radius, *_inside(low, high))
  bound = jnp.full_like(value, -jnp.inf)

  def trial(carry, _):
    low, high, eta, point, best, bound = carry
    point, dual = problem.minimise(eta, point, num_steps)
    length = _lengths(point - x)
    short = jnp.minimum(1, eps / jnp.maximum(length, _TINY))
    inside = x + _per_row(short, x) * (point - x)
    value = problem.evaluate(inside)[0]
    best = (*_keep(best[:2], (inside, -value)), jnp.where(dual > bound, eta, best[2]))
    bound = jnp.fmax(bound, dual)
    far = length > eps
    low, high = jnp.where(far, eta, low), jnp.where(far, high, eta)
    # Where g is linear the length is slope / eta, and this is exact.
    eta = jnp.clip(eta * length / radius, *_inside(low, high))
    return (low, high, eta, point, best, bound), None

  carry = (low, high, start, x, (x, -value, start), bound)
  (*_, best, bound), _ = lax.scan(trial, carry, length=num_multipliers)
  point, value, eta = best[0], -best[1], best[2]
  optimal = value - bound <= _EQUAL * (1 + jnp.abs(value))
  return Worst(point, value, bound, eta, optimal)


class _Problem(NamedTuple):
  """g = f_y - f_j of each image; `bend` and `upward` are m of g and of -g."""

  model_fn: ModelFn
  x: jax.Array
  y: jax.Array
  rival: jax.Array
  bend: jax.Array
  upward: jax.Array
  eps: jax.Array

  def evaluate(self, point):
    """(g, its gradient), a row an image."""

    def total(point):
      logits = self.model_fn(point)
      pick = lambda classes: jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]
      each = pick(self.y) - pick(self.rival)
      return jnp.sum(each), each

    (_, each), slope = jax.value_and_grad(total, has_aux=True)(point)
    return each, slope

  def minimise(self, eta, point, num_steps):
    """(x, lower bound of min L) after accelerated gradient steps."""
    smooth, convexity = eta + self.upward, jnp.maximum(eta - self.bend, _TINY)
    root = jnp.sqrt(smooth / convexity)
    momentum = _per_row((root - 1) / (root + 1), point)
    gradient_at = lambda p: _per_row(eta, p) * (p - self.x) + self.evaluate(p)[1]

    def step(_, carry):
      point, ahead = carry
      moved = ahead - gradient_at(ahead) / _per_row(smooth, ahead)
      return moved, moved + momentum * (moved - point)

    point, _ = lax.fori_loop(0, num_steps, step, (point, point))
    value, slope = self.evaluate(point)
    gradient = _per_row(eta, point) * (point - self.x) + slope
    reach = _lengths(point - self.x) ** 2 - self.eps**2
    left = _lengths(gradient) ** 2 / (2 * convexity)
    return point, value + eta / 2 * reach - left


def _inside(low, high):
  away = _AWAY * (high - low)
  return low + away, high - away


def _per_row(values, like):
  return values.reshape((-1,) + (1,) * (like.ndim - 1))


def _lengths(rows):
  return jnp.linalg.norm(rows.reshape(len(rows), -1), axis=1)


def _check_counts(num_multipliers, num_steps):
  if num_multipliers < 1 or num_steps < 1:
    raise ValueError(
      f'`num_multipliers` and `num_steps` must be at least 1, got {num_multipliers}, {num_steps}.'
    )
