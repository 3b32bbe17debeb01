r"""Adversarial training for free: one gradient moves the weights and the images.

A minibatch is trained on m times in a row; each pass's gradient in the images makes the next pass's
attack, so that an attack of m steps costs nothing beyond m steps of plain training.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from certjax import threats
from certjax.train._adversarial import check_search
from certjax.train._copies import ramp
from certjax.train._losses import cross_entropy


class Replays(NamedTuple):
  """How a step of training repeats its minibatch.

  Attributes:
    num: updates of the weights a step.
    move: `(x, x', gradient, step) -> x''`, the points of the next update from those of the last and the
      gradient of its loss in them.
  """

  num: int
  move: Callable


class Replayed(NamedTuple):
  """A training method of several updates a step: `make_step(module, tx, **made._asdict())`.

  Attributes:
    loss, perturb: of an `Objective`; `perturb` makes the points of the first update.
    replays: a `Replays`.
  """

  loss: Callable
  perturb: Callable
  replays: Replays


def free_adversarial(
  *, eps=8 / 255, step_size=None, num_replays=8, threat=threats.linf, warmup_steps=0
) -> Replayed:
  """Cross-entropy at points that climb its gradient from update to update of one minibatch.

    x'_0 random in the ball;   for i = 0 .. m - 1:
      w     <- w - rate grad_w CE(f_w(x'_i), y)
      x'_{i+1} = project(x, x'_i + step_size steepest(grad_x CE(f_w(x'_i), y)))     the same pass

  The one pass in training mode makes both gradients and updates BatchNorm's statistics. m updates are
  one step: an epoch costs m plain ones (the paper divides its epochs by m), and a learning-rate
  schedule of the optimiser counts updates.

  Args:
    eps: radius of the ball, in pixel values.
    step_size: default eps.
    num_replays: m.
    threat: `eps -> Threat`.
    warmup_steps: steps over which eps grows from 0.

  Returns:
    A `Replayed`. Metrics are means over the m updates.

  Raises:
    ValueError: unless `eps`, `step_size` and `num_replays` are positive.

  Example:
    >>> free_adversarial(num_replays=4).replays.num
    4

  References:
    Shafahi et al. 2019 (arXiv:1904.12843).
  """
  # Deviation: a minibatch starts at random; theirs takes over the perturbation of the one before, which
  # would make a step depend on the order and the devices of the last.
  step_size = eps if step_size is None else step_size
  check_search(eps=eps, step_size=step_size, num_replays=num_replays)
  threat(eps)

  def perturb(keys, model_fn, x, y, step):
    del model_fn, y
    return jax.vmap(threat(eps * ramp(step, warmup_steps)).sample)(keys, x)

  def move(x, x_adv, gradient, step):
    grown = ramp(step, warmup_steps)
    ball = threat(eps * grown)
    return jax.vmap(ball.project)(x, x_adv + step_size * grown * jax.vmap(ball.steepest)(gradient))

  return Replayed(cross_entropy, perturb, Replays(num_replays, move))


def replay(replays, descend, state, x, start):
  """(state, metrics) after all updates of a step on the images x.

  Args:
    replays: a `Replays`.
    descend: `(state, x') -> (state, metrics, gradient in x')`, one update.
    state: a `TrainState`.
    x: the images.
    start: x' of the first update.
  """

  def again(carry, _):
    state, x_adv = carry
    moved, metrics, gradient = descend(state, x_adv)
    return (moved, replays.move(x, x_adv, gradient, state.step)), metrics

  (state, _), metrics = lax.scan(again, (state, start), length=replays.num)
  return state, jax.tree.map(lambda metric: jnp.mean(metric, axis=0), metrics)
