"""FMN (Pintor et al. 2021): the ball shrinks where an adversarial point is found, and grows where not.

One trace: a scan over the steps; each costs one forward and one backward pass. The nearest
misclassified point is returned.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax import threats
from certjax.attacks._ddn import _keep
from certjax.attacks._loss import margin

_BALLS = {'linf': threats.linf, 'l2': threats.l2, 'l1': threats.l1, 'l0': threats.l0}
_LAST_STEP = 0.01  # Of the first one.
_LAST_GAMMA = 1e-3


def fmn(threat, *, num_steps=100, step_size=1.0, gamma=0.05):
  """Climbs the margin inside a ball whose size follows the boundary.

    r_{t+1} = |x_t - x| - margin(x_t) / |g_t|_*       before a first success,
              r_t (1 + gamma_t)                       at a point of the right class after it,
              min(r_t (1 - gamma_t), |x_best - x|)    at a misclassified point
    x_{t+1} = project_{r_{t+1}}(x, x_t + step_t g_t / |g_t|_2),  g_t = grad margin(x_t)

  with |.|_* the dual norm; `step` and `gamma` fall along a cosine. In whole pixels r starts at 1 and
  changes by at least 1:

    r_{t+1} = max(r_t + 1, floor(r_t (1 + gamma_t))), or min(r_t - 1, floor(r_t (1 - gamma_t)), |x_best - x|).

  Args:
    threat: an L_inf, L2, L1 or L0 `Threat`, which bounds the search; `threats.linf(1.0)`, `threats.l2(inf)`,
      `threats.l1(inf)` and `threats.l0(height * width)` look for the smallest perturbation of any size.
    num_steps: static number of steps.
    step_size: Euclidean length of the first step; the last has a hundredth of it.
    gamma: first relative change of the ball; the last is 0.001.

  Returns:
    An `Attack`: of all points visited, x among them, the nearest misclassified one; where there is
    none, the one with the largest margin of a wrong class. No key is used. It costs `num_steps` + 1
    forward and backward passes.

  Raises:
    ValueError: for another norm, a negative `num_steps`, a `step_size` that is not positive, or a
      `gamma` outside (0, 1).

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 0.9)], axis=1)
    >>> attack = fmn(threats.linf(1.0), num_steps=40)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0]))
    >>> bool(0.05 < jnp.abs(x_adv - 0.5).max() < 0.051)  # The least is 0.1 / 2.
    True

  References:
    Pintor et al. 2021 (arXiv:2102.12827), Algorithm 1.
  """
  _check(threat, num_steps, step_size, gamma)
  # Deviation: the ball never exceeds that of the threat, and a search without success returns its best
  # point rather than x.

  def attack(key, model_fn, x, y):
    del key
    limit = jnp.asarray(threat.eps, x.dtype)

    def judge(point):
      value = jax.vmap(margin)(model_fn(point), y)
      return jnp.sum(value), value

    def step(carry, entry):
      point, size, best = carry
      gradient, value = jax.grad(judge, has_aux=True)(point)
      gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
      new = (point, value, jax.vmap(threat.distance)(x, point))
      best = _keep(best, new)
      follow = _whole_size if threat.norm == 'l0' else _real_size
      advance = jax.vmap(_advance, (None, None, None, None, 0, 0, 0, 0, 0))
      state = (size, new[1:], best[1:])
      point, size = advance(threat, follow, entry, limit, x, point, gradient, state, best[1] > 0)
      return (point, size, best), None

    size = jnp.full(len(x), 1 if threat.norm == 'l0' else limit, x.dtype)
    nothing = jnp.full_like(size, -jnp.inf)
    start = (x, jnp.minimum(size, limit), (x, nothing, jnp.zeros_like(size)))
    return lax.scan(step, start, _schedule(num_steps, step_size, gamma, x.dtype))[0][2][0]

  return attack


def _advance(threat, follow, entry, limit, x, point, gradient, state, found):
  """The next point of ONE image, and the size of its ball."""
  step_size, gamma = entry
  size, (value, _), _ = state
  new = jnp.clip(follow(threat, gamma, gradient, state, found), 0, limit)
  size = jnp.where(jnp.isnan(value), size, new)
  ahead = point + step_size * threats.l2(1.0).steepest(gradient)
  return _BALLS[threat.norm](size).project(x, ahead), size


def _real_size(threat, gamma, gradient, state, found):
  size, (value, distance), (_, nearest) = state
  dual = jnp.sum(gradient * threat.steepest(gradient))
  reach = jnp.where(dual > 0, -value / jnp.where(dual > 0, dual, 1), jnp.inf)
  larger = jnp.where(found, size * (1 + gamma), distance + reach)
  return jnp.where(value > 0, jnp.minimum(size * (1 - gamma), nearest), larger)


def _whole_size(threat, gamma, gradient, state, found):
  del threat, gradient, found
  size, (value, _), (_, nearest) = state
  larger = jnp.maximum(size + 1, jnp.floor(size * (1 + gamma)))
  smaller = jnp.minimum(size - 1, jnp.floor(size * (1 - gamma)))
  return jnp.where(value > 0, jnp.minimum(smaller, nearest), larger)


def _schedule(num_steps, step_size, gamma, dtype):
  """float[num_steps + 1] each: lengths of the steps, changes of the ball; the last only judges."""
  descent = (1 + np.cos(np.linspace(0, np.pi, num_steps + 1))) / 2
  steps = step_size * (_LAST_STEP + (1 - _LAST_STEP) * descent)
  return jnp.asarray(steps, dtype), jnp.asarray(
    _LAST_GAMMA + (gamma - _LAST_GAMMA) * descent, dtype
  )


def _check(threat, num_steps, step_size, gamma):
  if threat.norm not in _BALLS:
    raise ValueError(f'`threat` must be one of {", ".join(_BALLS)}, got {threat.norm!r}.')
  if num_steps < 0 or not step_size > 0 or not 0 < gamma < 1:
    raise ValueError(
      f'`num_steps` must be at least 0, `step_size` positive and `gamma` in (0, 1), got num_steps='
      f'{num_steps}, step_size={step_size}, gamma={gamma}.'
    )
