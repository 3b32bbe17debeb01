r"""Curvature-regularised training (CRT): networks whose curvature certificates are large.

The certificate of `bounds.crc` shrinks with the curvature of f_y - f_j, so its bound joins the loss, at
the worst points of an L2 ball that the primal-dual attack finds with that same bound.
"""

import math

import jax
import jax.numpy as jnp
import optax

from certjax import attacks, bounds, threats
from certjax.train._copies import Objective, ramp

_MULTIPLIERS, _STEPS, _NORM_STEPS = 4, 2, 10


def crt(
  *, gamma=0.01, eps=1.58, num_multipliers=_MULTIPLIERS, num_steps=_STEPS, num_norm_steps=_NORM_STEPS,
  warmup_steps=0,
) -> Objective:  # fmt: skip
  r"""Cross-entropy at the worst point of an L2 ball, and the curvature bound of the runner-up.

    loss = (1/B) sum_b [ -log softmax(f(x'_b))_{y_b} + gamma K_{y_b j_b} ],   j_b = argmax_{j != y_b} f_j(x'_b)

  with x'_b from `attacks.cra` and K of `bounds.estimate_curvature`. For a fully connected (or any
  feed-forward) network with smooth activations.

  Args:
    gamma: weight of the curvature.
    eps: radius of the ball, in pixel values; 0 trains on the images themselves.
    num_multipliers, num_steps: of the attack.
    num_norm_steps: of the power iteration.
    warmup_steps: steps over which eps grows from 0.

  Returns:
    An `Objective`. Metrics: 'accuracy' at x', and 'curvature', the mean of K.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = crt(gamma=0.01, eps=1.58)

  References:
    Singla & Feizi 2020 (arXiv:2006.00731).
  """
  # Deviation: their attack takes 30 multipliers of 10 steps and leaves [0, 1]; this one is warm-started,
  # accelerated, cut to [0, 1], and within a thousandth of theirs (`attacks/cra_test.py`).
  for name, value in (('gamma', gamma), ('eps', eps)):
    if not 0 <= value < math.inf:
      raise ValueError(f'`{name}` must be at least 0 and finite, got {name}={value}.')
  if num_norm_steps < 1:
    raise ValueError(f'`num_norm_steps` must be at least 1, got {num_norm_steps}.')
  options = {'num_multipliers': num_multipliers, 'num_steps': num_steps}
  attacks.cra(threats.l2(eps), curvature=None, **options)  # Its complaints come before any tracing.
  curvature = lambda model_fn, x: bounds.estimate_curvature(
    model_fn, x[0], num_steps=num_norm_steps
  )

  def perturb(keys, model_fn, x, y, step):
    threat = threats.l2(eps * ramp(step, warmup_steps))
    return attacks.cra(threat, curvature=curvature(model_fn, x), **options)(keys, model_fn, x, y)

  def loss(keys, apply, x, y, step):
    del keys, step
    logits, statistics = apply(x, True)
    bends = curvature(lambda x: apply(x, False)[0], x)
    others = jnp.where(jax.nn.one_hot(y, logits.shape[1], dtype=bool), -jnp.inf, logits)
    bend = jnp.mean(bends[y, jnp.argmax(others, axis=1)])
    value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y)) + gamma * bend
    accuracy = jnp.mean((jnp.argmax(logits, axis=-1) == y).astype(jnp.float32))
    return value, ({'accuracy': accuracy, 'curvature': bend}, statistics)

  return Objective(loss, perturb if eps else None)
