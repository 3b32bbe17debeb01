"""Projected ascent by any optax optimiser, several runs, and several target classes.

`momentum_pgd` is the momentum iterative method of Dong et al. 2018. One trace: a scan over the runs,
and in it a scan over the steps; each costs one forward and one backward pass.
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from certjax.attacks._apgd import _fold, _goals
from certjax.attacks._loss import margin
from certjax.attacks._pgd import _check as _check_runs
from certjax.attacks._pgd import _keep, row_keys


def optimizer_pgd(
  threat,
  *,
  optimizer,
  num_steps,
  step_size=None,
  random_start=True,
  num_restarts=1,
  loss=None,
  targets=None,
):
  """Ascends the loss by the updates of an optimiser, projected.

    x_{t+1} = project(x, x_t + u_t),  u_t = optimizer's update for the gradient of -loss at x_t

  With a `step_size` only the direction of the update counts: x_t + step_size * steepest(u_t); of
  `optax.sgd(1.0)` it is that of `attacks.pgd`. Each
  image has an optimiser of its own, so that those that look at norms do not mix images. Coordinates
  rescaled one by one, as by Adam, are at home in L_inf: on a linear model in L2 or L1, `optax.adam` does not
  reach the worst point, `optax.sgd` and momentum do.

  Args:
    threat: a `Threat`.
    optimizer: an `optax.GradientTransformation`, such as `optax.adam(0.01)`; its learning rate is in
      pixel values.
    num_steps: static number of steps of a run.
    step_size: None, or the length of a step in the threat's norm.
    random_start: start at a random point of the set instead of at x.
    num_restarts: static number of runs (to each target).
    loss: `(logits[K], y) -> scalar`, made large; with `targets` `(logits[K], y, target) -> scalar`.
      Default: `attacks.cross_entropy`, and `attacks.dlr_targeted`, for which fewer than 4 classes get
      `attacks.margin_targeted`.
    targets: None, or how many other classes to aim at, one a run: those of the largest logits at x, at
      most K - 1.

  Returns:
    An `Attack`: of all points visited, x among them, the one with the largest `attacks.margin`, so a
    misclassified one if there was any. It costs, for each restart and target, `num_steps` + 1
    forward and backward passes.

  Raises:
    ValueError: for a negative `num_steps`, a `step_size` that is not positive, `num_restarts` or
      `targets` below 1, or restarts from the same point.

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.ones(len(x))], axis=1)
    >>> attack = optimizer_pgd(threats.linf(0.25), optimizer=optax.adam(0.1), num_steps=8)
    >>> attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0])).tolist()
    [[0.25, 0.25]]

  References:
    Madry et al. 2018 (arXiv:1706.06083); Gowal et al. 2019, several targets (arXiv:1910.09338).
  """
  _check(num_steps, step_size, random_start, num_restarts, targets)

  def move(x, point, updates):
    if step_size is not None:
      updates = step_size * threat.steepest(updates)
    return threat.project(x, point + updates)

  def attack(key, model_fn, x, y):
    keys, logits = row_keys(key, len(x)), model_fn(x)
    goals, each_loss = _goals(logits, y, loss, targets)

    def run(best, entry):
      number, goal = entry

      def judge(point):
        logits = model_fn(point)
        return -jnp.sum(each_loss(logits, y, goal)), jax.vmap(margin)(logits, y)

      def step(carry, _):
        point, state, best = carry
        gradient, score = jax.grad(judge, has_aux=True)(point)
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
        with jax.numpy_dtype_promotion('standard'):  # optax raises floats to int32 powers.
          updates, state = jax.vmap(optimizer.update)(gradient, state, point)
        return (jax.vmap(move)(x, point, updates), state, _keep(best, (point, score))), None

      start = jax.vmap(threat.sample)(_fold(keys, number), x) if random_start else x
      carry = start, jax.vmap(optimizer.init)(start), best
      return lax.scan(step, carry, length=num_steps + 1)[0][2], None

    numbers = jnp.arange(num_restarts * len(goals), dtype=jnp.uint32)
    goals = jnp.tile(goals, (num_restarts, 1))
    return lax.scan(run, (x, jax.vmap(margin)(logits, y)), (numbers, goals))[0][0]

  return attack


def momentum_pgd(threat, *, step_size, num_steps, momentum=1.0, random_start=False, **options):
  """Steepest steps along a running sum of gradients: MI-FGSM.

    g_{t+1} = momentum * g_t + grad loss / |grad loss|_1
    x_{t+1} = project(x, x_t + step_size * steepest(g_{t+1}))

  Args:
    threat: a `Threat`.
    step_size: length of a step in the threat's norm; the authors take eps / num_steps.
    num_steps: static number of steps; theirs is 10.
    momentum: share of the running sum that is kept, at least 0.
    random_start: start at a random point of the set instead of at x.
    **options: `num_restarts`, `loss`, `targets` of `optimizer_pgd`.

  Returns:
    An `Attack`, as of `optimizer_pgd`.

  Raises:
    ValueError: for a negative `momentum`, and as `optimizer_pgd`.

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.ones(len(x))], axis=1)
    >>> attack = momentum_pgd(threats.linf(0.25), step_size=0.125, num_steps=2)
    >>> attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0])).tolist()
    [[0.25, 0.25]]

  References:
    Dong et al. 2018 (arXiv:1710.06081), Algorithm 1.
  """
  if not momentum >= 0:
    raise ValueError(f'`momentum` must be at least 0, got momentum={momentum}; without it: 0.')
  of_length_1 = optax.stateless(lambda gradient, _: _of_length_1(gradient))
  optimizer = optax.chain(of_length_1, optax.trace(momentum), optax.scale(-1.0))
  return optimizer_pgd(
    threat,
    optimizer=optimizer,
    step_size=step_size,
    num_steps=num_steps,
    random_start=random_start,
    **options,
  )


def _of_length_1(gradient):
  length = jnp.sum(jnp.abs(gradient))
  return gradient / jnp.where(length > 0, length, 1)


def _check(num_steps, step_size, random_start, num_restarts, targets):
  _check_runs(num_steps, 1.0 if step_size is None else step_size, random_start, num_restarts)
  if targets is not None and targets < 1:
    raise ValueError(f'`targets` must be at least 1, or None for no target, got {targets}.')
