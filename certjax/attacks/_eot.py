"""Expectation over transformation (Athalye et al. 2018): attacks on models that draw random numbers.

A random model is `random_fn: (Key[B], x[B, ...]) -> logits[B, K]`, one key a row. A gradient of a single
draw points elsewhere at the next one; the mean over many draws is what the attacker climbs.
"""

import jax
import jax.numpy as jnp
from jax import lax

from certjax.attacks._loss import cross_entropy
from certjax.attacks._pgd import _check, _keep, _sum_and_each, row_keys


def eot_pgd(threat, *, step_size, num_steps, num_draws=20, random_start=True, loss=cross_entropy):
  """Projected gradient ascent on the mean loss of a random model, with fresh draws at every step.

    x_{t+1} = project(x, x_t + step_size * steepest( (1/m) sum_j grad loss(random_fn(key_tj, x_t), y) ))

  Args:
    threat: a `Threat`.
    step_size: length of a step in the threat's norm, in pixel values.
    num_steps: static number of steps.
    num_draws: static m, the draws a step. They go one by one, so memory does not grow with them.
    random_start: start at a random point of the set instead of at x.
    loss: `(logits[K], y) -> scalar`, made large in the mean.

  Returns:
    An `Attack` on `random_fn` in place of a `ModelFn`: `(key, random_fn, x[B, ...], y[B]) -> x_adv[B, ...]`. Of
    all points visited, x among them, it returns the one with the largest mean loss, as estimated by the m
    draws made there.

  Raises:
    ValueError: if `num_steps` is negative, `step_size` not positive, or `num_draws` below 1.

  Example:
    >>> from certjax import threats
    >>> def random_fn(keys, x):
    ...   scale = jax.vmap(lambda key: jax.random.uniform(key, (), x.dtype, 0.5, 1.5))(keys)
    ...   return jnp.stack([scale * x.sum(1), jnp.ones(len(x))], axis=1)
    >>> attack = eot_pgd(threats.linf(0.25), step_size=0.25, num_steps=1, random_start=False)
    >>> attack(jax.random.key(0), random_fn, jnp.full((1, 2), 0.5), jnp.array([0])).tolist()
    [[0.25, 0.25]]

  References:
    Athalye et al. 2018 (arXiv:1707.07397; 1802.00420, section 4.2).
  """
  _check(num_steps, step_size)
  _check_draws(num_draws)

  def attack(key, random_fn, x, y):
    keys = row_keys(key, len(x))
    start = jax.vmap(threat.sample)(keys, x) if random_start else x

    def mean(point, keys):
      """The mean loss of each row, and its gradient."""
      each = lambda point, keys: _sum_and_each(jax.vmap(loss)(random_fn(keys, point), y))

      def draw(total, index):
        (_, value), slope = jax.value_and_grad(each, has_aux=True)(point, _fold(keys, index))
        return jax.tree.map(jnp.add, total, (value, slope)), None

      nothing = (jnp.zeros(len(x), x.dtype), jnp.zeros_like(x))
      total = lax.scan(draw, nothing, jnp.arange(num_draws, dtype=jnp.uint32))[0]
      return jax.tree.map(lambda sums: sums / num_draws, total)

    def step(carry, number):
      point, best = carry
      value, gradient = mean(point, _fold(keys, number + 1))
      ahead = point + step_size * jax.vmap(threat.steepest)(gradient)
      ahead = jax.vmap(threat.project)(x, ahead)
      if random_start:  # The first pass judges x itself.
        ahead = jnp.where(number == 0, start, ahead)
      return (ahead, _keep(best, (point, value))), None

    numbers = jnp.arange(num_steps + 1 + random_start, dtype=jnp.uint32)
    best = (x, jnp.full(len(x), -jnp.inf, x.dtype))
    return lax.scan(step, (x, best), numbers)[0][1][0]

  return attack


def eot(key, random_fn, *, num_draws):
  """The mean softmax of a random model over draws that stay the same in every call.

    g(x) = log( (1/m) sum_j softmax(random_fn(key_j, x)) )

  For any attack on a `ModelFn`. The draws are shared by all images and all steps, so the attack may
  fit them: judge its result with fresh ones.

  Args:
    key: one typed key.
    random_fn: `(Key[B], x[B, ...]) -> logits[B, K]`.
    num_draws: static m.

  Returns:
    A `ModelFn`; its outputs are log probabilities.

  Raises:
    ValueError: if `num_draws` is below 1.

  Example:
    >>> noise = jax.vmap(lambda key: jax.random.normal(key, (2,)))
    >>> g = eot(jax.random.key(0), lambda keys, x: x + noise(keys), num_draws=8)
    >>> g(jnp.array([[2.0, 0.0]])).shape
    (1, 2)

  References:
    Athalye et al. 2018 (arXiv:1707.07397).
  """
  _check_draws(num_draws)
  keys = jax.random.split(key, num_draws)

  def mean_model(x):
    draw = lambda key: jax.nn.log_softmax(random_fn(jnp.broadcast_to(key, (len(x),)), x))
    logs = jax.vmap(draw)(keys)
    return jax.nn.logsumexp(logs, axis=0) - jnp.log(jnp.asarray(num_draws, logs.dtype))

  return mean_model


def _fold(keys, number):
  return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _check_draws(num_draws):
  if num_draws < 1:
    raise ValueError(f'`num_draws` must be at least 1, got num_draws={num_draws}.')
