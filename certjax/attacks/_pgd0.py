"""PGD0 (Croce & Hein 2019): projected gradient descent on few pixels of any colour.

One trace: a scan over the steps of all restarts, each one forward and one backward pass. The
best point seen is returned, not the last.
"""

import jax
import jax.numpy as jnp
from jax import lax

from certjax import threats
from certjax.attacks._loss import cross_entropy
from certjax.attacks._pgd import _keep, _sum_and_each, row_keys
from certjax.tracing import is_traced


def pgd0(*, pixels, step_size, num_steps, num_restarts=1, loss=cross_entropy):
  """Steps along the gradient, and goes back to the nearest image with few changed pixels.

    x_{t+1} = project(x, x_t + step_size * g / |g|_1),  g = grad loss(model_fn(x_t), y)

  The projection onto the images with at most `pixels` changed pixels is exact (`threats.l0`), so
  the pixels are chosen anew at every step. On a model that is linear in x one step of a large
  `step_size` finds the worst point of the set.

  Args:
    pixels: a whole number of pixels, all channels of one together; may be traced.
    step_size: L1 length of a step over all values of the image. The authors take 120000 / 255 / 2 = 235
      for CIFAR-10, 0.08 for each of its 3072 values on average.
    num_steps: static number of steps of each run; theirs is 20.
    num_restarts: static number of runs; theirs is 3.
    loss: `(logits[K], y) -> scalar`, made large. Where it saturates the gradient is 0 and nothing moves:
      `attacks.margin` does not.

  Returns:
    An `Attack`. Of all points visited, x among them, it returns the one with the largest loss. It
    costs num_restarts * (num_steps + 1) forward and backward passes.

  Raises:
    ValueError: if `num_steps` is negative, `num_restarts` below 1, `step_size` not positive, or
      `pixels` no whole number.

  Example:
    >>> model_fn = lambda x: jnp.stack([x[:, 0, :, 0] @ jnp.array([1.0, 2.0]), jnp.ones(1)], axis=1)
    >>> attack = pgd0(pixels=1, step_size=10.0, num_steps=1)
    >>> attack(jax.random.key(0), model_fn, jnp.full((1, 1, 2, 1), 0.5), jnp.array([0])).ravel().tolist()
    [0.5, 0.0]

  References:
    Croce & Hein 2019 (arXiv:1909.05040), section 3.2.
  """
  _check(step_size, num_steps, num_restarts)
  threat, period = threats.l0(pixels), num_steps + 1
  # Deviation: the first run starts at x; the others change a random set of pixels, not those that
  # move farthest in a random image. The end of a run is judged as well.

  def attack(key, model_fn, x, y):
    keys = row_keys(key, len(x))
    value_and_gradient = jax.value_and_grad(
      lambda x: _sum_and_each(jax.vmap(loss)(model_fn(x), y)), has_aux=True
    )

    def restart(run, point):
      del point
      return jax.vmap(threat.sample)(jax.vmap(jax.random.fold_in, (0, None))(keys, run), x)

    def step(carry, index):
      point, best = carry
      if num_restarts > 1:
        fresh = (index > 0) & (index % period == 0)
        point = lax.cond(fresh, restart, lambda run, point: point, index // period, point)
      (_, value), gradient = value_and_gradient(point)
      best = _keep(best, (point, value))
      ahead = point + step_size * jax.vmap(_of_length_1)(gradient)
      return (jax.vmap(threat.project)(x, ahead), best), None

    start = (x, (x, jnp.full(len(x), -jnp.inf)))
    return lax.scan(step, start, jnp.arange(num_restarts * period, dtype=jnp.int32))[0][1][0]

  return attack


def _of_length_1(gradient):
  length = jnp.sum(jnp.abs(gradient))
  return gradient / jnp.where(length > 0, length, 1.0)


def _check(step_size, num_steps, num_restarts):
  if num_steps < 0 or num_restarts < 1 or not (is_traced(step_size) or step_size > 0):
    raise ValueError(
      f'`num_steps` must be at least 0, `num_restarts` at least 1 and `step_size` positive, got '
      f'num_steps={num_steps}, num_restarts={num_restarts}, step_size={step_size}.'
    )
