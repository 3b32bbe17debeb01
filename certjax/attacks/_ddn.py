"""DDN (Rony et al. 2019): direction and length of an L2 perturbation apart, to a near point.

One trace: a scan over the steps; each costs one forward and one backward pass, and one
last forward pass judges the end point. The nearest misclassified point is returned.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.attacks._loss import cross_entropy, margin
from certjax.attacks._pgd import row_keys

_LAST_STEP = 0.01
"""Length of the last gradient step; the first has length 1."""


def ddn(threat, *, num_steps, gamma=0.05, init_norm=None, levels=None, loss=cross_entropy):
  """Shrinks a misclassified point's length by `gamma`, grows another's, and turns it uphill.

    v_t = x_t - x + a_t steepest(grad loss(model_fn(x_t), y)),  a_t from 1 to 0.01 along a cosine
    r_{t+1} = r_t (1 - gamma) where x_t is misclassified, else r_t (1 + gamma)
    x_{t+1} = project(x, x + r_{t+1} v_t / |v_t|_2)

  A point is misclassified where another class's logit exceeds that of y. Where the gradient is 0,
  a random direction of the image's own stands in.

  Args:
    threat: an L2 `Threat`; `threats.l2(inf)` looks for the smallest perturbation of any length.
    num_steps: static number of steps.
    gamma: change of the length a step.
    init_norm: r_0; default `eps` of the threat (or the farthest corner of [0, 1], if nearer). The
      paper's 1 suits an unbounded search.
    levels: rounds points to this many grey levels, before the projection; None leaves them.
    loss: `(logits[K], y) -> scalar`, whose gradient is followed.

  Returns:
    An `Attack`: of all points visited, x among them, the nearest misclassified one; where there is
    none, the one with the largest margin of a wrong class.

  Raises:
    ValueError: for another norm, a negative `num_steps`, a `gamma` outside (0, 1), or fewer than 2
      `levels`.

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 0.9)], axis=1)
    >>> attack = ddn(threats.l2(1.0), num_steps=40, init_norm=0.1)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0]))
    >>> bool(0.07 < jnp.linalg.norm(x_adv - 0.5) < 0.075)  # The least is 0.1 / sqrt(2).
    True

  References:
    Rony et al. 2019 (arXiv:1811.09600), Algorithm 1.
  """
  _check(threat, num_steps, gamma, levels)
  # Deviation: the length never exceeds eps (the paper cuts the result back at the end, perhaps into
  # the right class), and a search without success returns its best point rather than x.
  descent = (1 + np.cos(np.linspace(0, np.pi, num_steps))) / 2
  step_sizes = _LAST_STEP + (1 - _LAST_STEP) * descent

  def move(step_size, x, point, gradient, anywhere, radius):
    direction = threat.steepest(jnp.where(jnp.any(gradient != 0), gradient, anywhere))
    ahead = x + radius * threat.steepest(point - x + step_size * direction)
    if levels is not None:
      ahead = jnp.round(ahead * (levels - 1)) / (levels - 1)
    return threat.project(x, ahead)

  def attack(key, model_fn, x, y):
    distance = jax.vmap(threat.distance)
    draw = lambda key: jax.random.normal(key, x.shape[1:], x.dtype)
    anywhere = jax.vmap(draw)(row_keys(key, len(x)))
    limit = jnp.minimum(threat.eps, distance(jnp.zeros_like(x), jnp.maximum(x, 1 - x)))
    gradient_and_margin = jax.grad(lambda x: _sum_and_margins(model_fn(x), y, loss), has_aux=True)

    def step(carry, step_size):
      point, radius, best = carry
      gradient, value = gradient_and_margin(point)
      best = _keep(best, (point, value, distance(x, point)))
      radius = jnp.minimum(radius * jnp.where(value > 0, 1 - gamma, 1 + gamma), limit)
      each = jax.vmap(move, (None, 0, 0, 0, 0, 0))
      point = each(step_size, x, point, gradient, anywhere, radius)
      return (point, radius, best), None

    radius = limit if init_norm is None else jnp.minimum(init_norm, limit)
    nothing = jnp.full_like(limit, -jnp.inf)
    start = (x, radius, (x, nothing, -nothing))
    (point, _, best), _ = lax.scan(step, start, jnp.asarray(step_sizes, x.dtype))
    value = jax.vmap(margin)(model_fn(point), y)
    return _keep(best, (point, value, distance(x, point)))[0]

  return attack


def _sum_and_margins(logits, y, loss):
  return jnp.sum(jax.vmap(loss)(logits, y)), jax.vmap(margin)(logits, y)


def _keep(best, new):
  """Row by row of two (point, margin, distance): misclassified before not, then the nearer, or,
  of two that are not, the larger margin; a NaN never replaces a number."""
  found, success = best[1] > 0, new[1] > 0
  better = jnp.where(success, ~found | (new[2] < best[2]), ~found & (new[1] > best[1]))
  better &= new[2] >= 0  # A model may hide a NaN of its input; a distance cannot.
  where = lambda a, b: jnp.where(better.reshape((-1,) + (1,) * (a.ndim - 1)), b, a)
  return jax.tree.map(where, best, new)


def _check(threat, num_steps, gamma, levels):
  if threat.norm != 'l2':
    raise ValueError(f'`threat` must be L2: DDN scales Euclidean lengths; got {threat.norm!r}.')
  if num_steps < 0 or not 0 < gamma < 1:
    raise ValueError(
      f'`num_steps` must be at least 0 and `gamma` in (0, 1), got num_steps={num_steps}, '
      f'gamma={gamma}.'
    )
  if levels is not None and levels < 2:
    raise ValueError(f'`levels` must be at least 2 grey levels (256 for 8 bits), got {levels}.')
