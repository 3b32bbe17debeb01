"""The Lagrangian perceptual attack and its fast form (Laidlaw, Singla & Feizi 2021).

The constraint is a penalty: descend

  L = -min(margin(f(x')), kappa) + lambda max(0, |phi(x') - phi(x)| - eps)

in steps whose LPIPS length is set: a probe along the normalised gradient g measures how fast phi changes,
m = |phi(x') - phi(x' - h g)| / h, and the step is -g size / m. LPA searches lambda for each example; Fast-LPA,
the inner attack of perceptual adversarial training, raises it along a fixed schedule.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
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
from certjax.typing import Array

_PROBE = 0.1  # h, in pixel values (Euclidean).
_TINY = 1e-8  # Beside lengths and speeds.
_TINY_FAST = 1e-4  # Beside the speed in Fast-LPA.
_FIRST_WEIGHT, _FACTOR = 0.01, 10.0  # lambda, and what it is multiplied by after a failure.
_LAST_WEIGHT = 10.0  # Of Fast-LPA, almost: 10^(i / N) for i = 0 .. N - 1.
_DECAY = 0.1  # Of the step size, over all steps.


def lpa(embed=None, *, eps=0.5, num_steps=40, search_steps=5, kappa=1.0, projection='newton'):
  """Descends L for lambda = 0.01, and again for 10 times more wherever the end is not inside.

  The steps of each search are eps 0.1^(i / num_steps) long; the next search goes on from where the last
  one ended. A misclassified example inside the set rests.

  Args:
    embed, eps, projection, kappa: as in `attacks.ppgd`.
    num_steps: static number of steps of each search.
    search_steps: values of lambda; 5 reach 100.

  Returns:
    An `Attack`: of all points visited inside the set, x and the projected end of each search among them,
    the one of largest margin.

  Raises:
    ValueError: as in `attacks.ppgd`.

  Example:
    >>> phi = lambda x: 2 * x
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 2.0)], axis=1)
    >>> attack = lpa(phi, eps=0.5, num_steps=10)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.full((1, 4), 0.6), jnp.array([0]))
    >>> bool(x_adv.sum() < 2), bool(2 * jnp.linalg.norm(x_adv - 0.6) <= 0.5)
    (True, True)

  References:
    Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), section 4 and appendix A.
  """
  check(projection, PROJECTIONS, eps, num_steps=(num_steps, 0), search_steps=(search_steps, 1))
  # Deviation: whether an example rests is decided at the point itself, not at the one before.
  # Deviation: the projected end may be a worse point than one seen before, which is kept.

  def attack(key, model_fn, x, y):
    check_pixels(x=x)
    see = phi_and_logits(embed, model_fn)
    look = lambda x: see(x)[0]
    origin, logits = see(x)
    project = functools.partial(PROJECTIONS[projection], look, x, origin, eps=eps)
    descend = jax.grad(functools.partial(_lagrangian, see, y, origin, eps, kappa), has_aux=True)

    def step(weight, carry, size):
      point, best = carry
      gradient, (phi, value, distance) = descend(point, weight)
      best = keep(best, point, value, distance, eps)
      ahead = _advance(look, point, phi, gradient, size, _TINY)
      return (where((value > 0) & (distance <= eps), point, ahead), best), None

    def search(carry, _):
      point, weight, best = carry
      moves = functools.partial(step, weight)
      (point, best), _ = lax.scan(moves, (point, best), eps * step_lengths(num_steps))
      outside = lengths(look(point) - origin) >= eps
      # A point inside is its own projection.
      end = project(point)
      phi, logits = see(end)
      best = keep(best, end, margins(logits, y), lengths(phi - origin), eps)
      return (point, jnp.where(outside, _FACTOR * weight, weight), best), None

    weight = jnp.full(len(x), _FIRST_WEIGHT, x.dtype)
    begin = (start(key, x), weight, (x, margins(logits, y)))
    (_, _, best), _ = lax.scan(search, begin, length=search_steps)
    return within(eps, x, best[0])

  return attack


def fast_lpa(embed=None, *, eps: float | Array = 0.5, num_steps=20, projection='newton'):
  """One descent of L, with lambda = 10^(i / num_steps) in step i and no cap on the margin.

  Args:
    embed, eps: as in `attacks.ppgd`.
    num_steps: static number of steps; 10 in perceptual adversarial training.
    projection: 'newton' or 'bisection'; 'none' returns the last point as it is, which may lie outside of the
      set, as in training by the paper: half the cost of a step, and no more.

  Returns:
    An `Attack`: of all points visited inside the set, x and the projected end among them, the one of
    largest margin; with 'none' the end.

  Raises:
    ValueError: as in `attacks.ppgd`.

  Example:
    >>> phi = lambda x: 2 * x
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 2.0)], axis=1)
    >>> attack = fast_lpa(phi, eps=0.5, num_steps=10)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.full((1, 4), 0.6), jnp.array([0]))
    >>> bool(x_adv.sum() < 2), bool(2 * jnp.linalg.norm(x_adv - 0.6) <= 0.5)
    (True, True)

  References:
    Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), appendix A.
  """
  check(projection, (*PROJECTIONS, 'none'), eps, num_steps=(num_steps, 0))

  def attack(key, model_fn, x, y):
    check_pixels(x=x)
    see = phi_and_logits(embed, model_fn)
    look = lambda x: see(x)[0]
    origin, logits = see(x)
    descend = jax.grad(functools.partial(_lagrangian, see, y, origin, eps, jnp.inf), has_aux=True)

    def step(carry, schedule):
      point, best = carry
      weight, size = schedule
      gradient, (phi, value, distance) = descend(point, jnp.full(len(x), weight))
      best = keep(best, point, value, distance, eps)
      return (_advance(look, point, phi, gradient, size, _TINY_FAST), best), None

    schedule = fast_weights(num_steps), eps * step_lengths(num_steps)
    (point, best), _ = lax.scan(step, (start(key, x), (x, margins(logits, y))), schedule)
    if projection == 'none':
      return within(eps, x, point)
    end = PROJECTIONS[projection](look, x, origin, point, eps)
    phi, logits = see(end)
    best = keep(best, end, margins(logits, y), lengths(phi - origin), eps)
    return within(eps, x, best[0])

  return attack


def step_lengths(num_steps):
  """LPIPS lengths of the steps, for eps = 1: 0.1^(i / num_steps).

  Example:
    >>> [round(float(length), 4) for length in step_lengths(2)]
    [1.0, 0.3162]
  """
  return jnp.asarray(_DECAY ** (np.arange(num_steps) / max(num_steps, 1)), jnp.float32)


def fast_weights(num_steps):
  """lambda of each step of Fast-LPA: 10 * 0.1^(1 - i / num_steps).

  Example:
    >>> [round(float(weight), 4) for weight in fast_weights(2)]
    [1.0, 3.1623]
  """
  return jnp.asarray(
    _LAST_WEIGHT * _DECAY ** (1 - np.arange(num_steps) / max(num_steps, 1)), jnp.float32
  )


def _lagrangian(see, y, origin, eps, kappa, point, weight):
  """L summed over the batch, and (phi, margins, distances)."""
  phi, logits = see(point)
  value, distance = margins(logits, y), lengths(phi - origin)
  total = jnp.sum(weight * jnp.maximum(distance - eps, 0) - jnp.minimum(value, kappa))
  return total, (phi, value, distance)


def _advance(look, point, phi, gradient, size, tiny):
  """A step of LPIPS length `size` against the gradient, in [0, 1]."""
  unit = scale(1 / (lengths(gradient) + _TINY), gradient)
  speed = lengths(look(point - _PROBE * unit) - phi) / _PROBE
  return jnp.clip(point - scale(size / (speed + tiny), unit), 0, 1)
