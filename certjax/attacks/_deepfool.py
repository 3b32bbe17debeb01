"""DeepFool (Moosavi-Dezfooli et al. 2016): steps to the nearest boundary of the model made linear.

One trace: a scan over the steps; each costs one forward pass and a backward pass for every
rival class, and one last forward pass judges the end point.
"""

import jax
import jax.numpy as jnp
from jax import lax

from certjax.attacks._ddn import _keep
from certjax.attacks._loss import margin

_NORMS = ('linf', 'l2', 'l1')


def deepfool(threat, *, num_steps=50, overshoot=0.02, num_rivals=10):
  """Walks to the nearest of the boundaries z_k = z_y, as far as first derivatives tell.

    f_k = z_k - z_y,  w_k = grad f_k,  l = argmin_k |f_k| / |w_k|_*
    x_{t+1} = x_t + |f_l| / |w_l|_* steepest(w_l)

  with |.|_* the dual norm; a walk ends where x + (1 + overshoot) (x_t - x) is misclassified. On a linear
  model it is one step, and the least perturbation there is, lengthened by the overshoot.

  Args:
    threat: an L_inf, L2 or L1 `Threat`, which bounds the walk; `threats.l2(inf)` and
      `threats.linf(1.0)` look for a small perturbation of any length.
    num_steps: static number of steps.
    overshoot: share of the way that is added to cross the boundary.
    num_rivals: how many other classes are looked at: those of the largest logits at x.

  Returns:
    An `Attack`: the first misclassified point of the walk (x itself, if it is one); where there is none,
    the one with the largest margin of a wrong class. No key is used.

  Raises:
    ValueError: for another norm, a negative `num_steps` or `overshoot`, or `num_rivals` below 1.

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 0.9)], axis=1)
    >>> attack = deepfool(threats.linf(1.0), num_steps=3)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0]))
    >>> [round(value, 4) for value in x_adv[0].tolist()]  # 0.05 each, and 2% of it.
    [0.449, 0.449]

  References:
    Moosavi-Dezfooli et al. 2016 (arXiv:1511.04599), Algorithm 2.
  """
  _check(threat, num_steps, overshoot, num_rivals)
  # Deviation: the walk stays in [0, 1] and in the threat's ball.

  def attack(key, model_fn, x, y):
    del key
    project, each_margin = jax.vmap(threat.project), jax.vmap(margin)
    logits = model_fn(x)
    classes = jnp.arange(logits.shape[1], dtype=y.dtype)
    own = classes[None, :] == y[:, None]
    number = min(num_rivals, logits.shape[1] - 1)
    rivals = lax.top_k(jnp.where(own, -jnp.inf, logits), number)[1].T

    def away(goal):
      """float[B, K] by which logits turn into z_goal - z_y."""
      chosen = classes[None, :] == goal.astype(y.dtype)[:, None]
      return chosen.astype(logits.dtype) - own.astype(logits.dtype)

    def judged(walk, best):
      point = project(x, x + (1 + overshoot) * (walk - x))
      logits, pull = jax.vjp(model_fn, point)
      new = (point, each_margin(logits, y), jax.vmap(threat.distance)(x, point))
      return logits, pull, _keep(best, new)

    def step(carry, _):
      walk, best = carry
      logits, pull, best = judged(walk, best)
      of_rival = lambda goal: (jnp.sum(away(goal) * logits, axis=1), pull(away(goal))[0])
      gaps, gradients = lax.map(of_rival, rivals)
      ahead = walk + jax.vmap(_to_boundary, (None, 1, 1))(threat, gaps, gradients)
      moves = jax.vmap(lambda found, a, b: jnp.where(found, a, b))
      return (moves(best[1] > 0, walk, project(x, ahead)), best), None

    start = (x, each_margin(logits, y), jnp.zeros(len(x), x.dtype))
    (walk, best), _ = lax.scan(step, (x, start), length=num_steps)
    return judged(walk, best)[2][0]

  return attack


def _to_boundary(threat, gaps, gradients):
  """The step of ONE image to the nearest of the boundaries: gaps[R], gradients[R, ...]."""
  directions = jax.vmap(threat.steepest)(gradients)
  dual = jnp.sum((gradients * directions).reshape(len(gaps), -1), axis=1)
  length = jnp.where(dual > 0, jnp.abs(gaps) / jnp.where(dual > 0, dual, 1.0), jnp.inf)
  nearest = jnp.argmin(length)
  least = jnp.where(jnp.isfinite(length[nearest]), length[nearest], 0)
  return least * directions[nearest]


def _check(threat, num_steps, overshoot, num_rivals):
  if threat.norm not in _NORMS:
    raise ValueError(f'`threat` must be one of {", ".join(_NORMS)}, got {threat.norm!r}.')
  if num_steps < 0 or overshoot < 0 or num_rivals < 1:
    raise ValueError(
      f'`num_steps` and `overshoot` must be at least 0 and `num_rivals` at least 1, got num_steps='
      f'{num_steps}, overshoot={overshoot}, num_rivals={num_rivals}.'
    )
