"""Projected gradient descent (Madry et al. 2018), for any threat.

One trace: a scan over the steps; each costs one forward and one backward pass, and one
last forward pass judges the end point. The best point seen is returned, not the last. Several runs are
a scan around it.
"""

import jax
import jax.numpy as jnp
from jax import lax

from certjax.attacks._loss import cross_entropy
from certjax.tracing import is_traced


def pgd(threat, *, step_size, num_steps, random_start=True, num_restarts=1, loss=cross_entropy):
  """Ascends the loss along the threat's steepest direction.

    x_{t+1} = project(x, x_t + step_size * steepest(grad loss(model_fn(x_t), y)))

  Args:
    threat: a `Threat`.
    step_size: length of a step in the threat's norm, in pixel values.
    num_steps: static number of steps.
    random_start: start at a random point of the set instead of at x.
    num_restarts: static number of runs.
    loss: `(logits[K], y) -> scalar`, made large.

  Returns:
    An `Attack`: `(key, model_fn, x[B, ...], y[B]) -> x_adv[B, ...]`. `key` is one key, folded
    by row, or `Key[B]`. Of all points visited, x among them, it returns the one with the
    largest loss. Momentum, other optimisers and target classes: `attacks.momentum_pgd`,
    `attacks.optimizer_pgd`.

  Raises:
    ValueError: if `num_steps` is negative, `step_size` is not positive, `num_restarts` is below 1, or
      several runs start from the same point.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.ones(len(x))], axis=1)
    >>> attack = pgd(threats.linf(0.25), step_size=0.25, num_steps=1, random_start=False)
    >>> attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0])).tolist()
    [[0.25, 0.25]]

  References:
    Madry et al. 2018 (arXiv:1706.06083).
  """
  _check(num_steps, step_size, random_start, num_restarts)

  def attack(key, model_fn, x, y):
    keys = row_keys(key, len(x))
    value_and_gradient = jax.value_and_grad(
      lambda x: _sum_and_each(jax.vmap(loss)(model_fn(x), y)), has_aux=True
    )

    def step(carry, _):
      point, best = carry
      (_, value), gradient = value_and_gradient(point)
      best = _keep(best, (point, value))
      ahead = point + step_size * jax.vmap(threat.steepest)(gradient)
      return (jax.vmap(threat.project)(x, ahead), best), None

    def run(best, keys):
      start = jax.vmap(threat.sample)(keys, x) if random_start else x
      (point, best), _ = lax.scan(step, (start, best), length=num_steps)
      return _keep(best, (point, jax.vmap(loss)(model_fn(point), y))), None

    best = (x, jax.vmap(loss)(model_fn(x), y)) if random_start else (x, jnp.full(len(x), -jnp.inf))
    if num_restarts == 1:
      return run(best, keys)[0][0]
    numbers = jnp.arange(num_restarts, dtype=jnp.uint32)
    fold = jax.vmap(jax.random.fold_in, (0, None))
    return lax.scan(lambda best, number: run(best, fold(keys, number)), best, numbers)[0][0]

  return attack


def row_keys(key, batch):
  """`Key[B]` as it is; one key folded by row."""
  if key.ndim == 1:
    return key
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))


def _sum_and_each(values):
  return jnp.sum(values), values


def _keep(best, new):
  """Row by row the point with the larger loss; a NaN never replaces a number."""
  better = new[1] > best[1]
  where = lambda a, b: jnp.where(better.reshape((-1,) + (1,) * (a.ndim - 1)), b, a)
  return where(best[0], new[0]), where(best[1], new[1])


def _check(num_steps, step_size, random_start=True, num_restarts=1):
  if num_steps < 0 or not (is_traced(step_size) or step_size > 0):
    raise ValueError(
      f'`num_steps` must be at least 0 and `step_size` positive, got num_steps={num_steps}, '
      f'step_size={step_size}.'
    )
  if num_restarts < 1:
    raise ValueError(f'`num_restarts` must be at least 1, got num_restarts={num_restarts}.')
  if num_restarts > 1 and not random_start:
    raise ValueError(
      f'`num_restarts`={num_restarts} runs from the same point are one: set random_start=True.'
    )
