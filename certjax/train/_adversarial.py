"""Training without noise: on clean images, or on the worst points near them (Madry et al. 2018).

Whatever is trained against an attack has this shape: `threat` says what may move, `attack` how the
worst point is looked for, and the loss sees that point in the image's place.
"""

import math

import jax

from certjax import attacks, threats
from certjax.train._awp import awp
from certjax.train._copies import Objective, ramp
from certjax.train._losses import cross_entropy
from certjax.train._perturb import adversarial

_OVERSHOOT = 1.25  # Step of the one-step attack, in eps.


def clean() -> Objective:
  """Cross-entropy on the images as they are.

  Returns:
    An `Objective`.

  Example:
    >>> clean().perturb is None
    True
  """
  return Objective(cross_entropy, None)


def adversarial_training(
  *, eps=8 / 255, step_size=None, num_steps=10, threat=threats.linf, attack=None, warmup_steps=0,
  gamma=0.0,
):  # fmt: skip
  """Cross-entropy at the worst point that an attack finds in a ball around each image.

    loss = -(1/B) sum_b log softmax(f(x'_b))_{y_b},   x'_b ~ argmax_{|x' - x_b| <= eps} of the same

  The attack sees the model in evaluation mode; the training pass over x' updates the statistics.

  Args:
    eps: radius of the ball, in pixel values.
    step_size: of the attack, in pixel values; default eps / 4. It grows with eps in a warm-up.
    num_steps: steps of the attack.
    threat: `eps -> Threat`.
    attack: `(threat, step_size, num_steps) -> Attack`; default PGD from a random start.
    warmup_steps: steps over which eps grows from 0.
    gamma: of adversarial weight perturbation, as in `awp` (Wu et al. take 0.01); 0 is without.

  Returns:
    An `Objective`, with `weights` beside it where `gamma` is positive.

  Raises:
    ValueError: unless `eps`, `step_size` and `num_steps` are positive, and `gamma` in [0, 1).

  Example:
    >>> objective = adversarial_training(eps=0.5, num_steps=7, threat=threats.l2)

  References:
    Madry et al. 2018 (arXiv:1706.06083).
  """
  # Deviation: PGD hands over the worst point it saw, not its last.
  step_size = eps / 4 if step_size is None else step_size
  check_search(eps=eps, step_size=step_size, num_steps=num_steps)
  make = _pgd if attack is None else attack
  make(threat(eps), step_size, num_steps)  # Its complaints come before any tracing.

  def perturb(keys, model_fn, x, y, step):
    grown = ramp(step, warmup_steps)
    search = make(threat(eps * grown), step_size * grown, num_steps)
    return adversarial(search)(keys, model_fn, x, y, step)

  return awp(Objective(cross_entropy, perturb), gamma)


def fast_adversarial(
  *, eps=8 / 255, step_size=None, threat=threats.linf, warmup_steps=0
) -> Objective:
  """Cross-entropy at the end of one long step from a random point: two gradients an update.

    x'_b = project(x_b, u_b + step_size steepest(grad CE(f(u_b), y_b))),   u_b random in the ball

  Nothing is spent on comparing points: x' is where the step ends, better or not. As in its paper a
  run may at any time learn to be right at x' alone ("catastrophic overfitting": the accuracy at x'
  rises, that under PGD falls to 0): let PGD judge the checkpoints before one is believed.

  Args:
    eps: radius of the ball, in pixel values.
    step_size: default 1.25 eps, and more is known to overfit.
    threat: `eps -> Threat`.
    warmup_steps: steps over which eps grows from 0.

  Returns:
    An `Objective`.

  Raises:
    ValueError: unless `eps` and `step_size` are positive.

  Example:
    >>> objective = fast_adversarial(eps=8 / 255)

  References:
    Wong, Rice & Kolter 2020 (arXiv:2001.03994).
  """
  # Deviation: the step sees the model in evaluation mode, as every attack here; theirs in training mode.
  step_size = _OVERSHOOT * eps if step_size is None else step_size
  check_search(eps=eps, step_size=step_size)
  threat(eps)

  def perturb(keys, model_fn, x, y, step):
    grown = ramp(step, warmup_steps)
    ball = threat(eps * grown)
    start = jax.vmap(ball.sample)(keys, x)
    losses = lambda x: jax.vmap(attacks.cross_entropy)(model_fn(x), y).sum()
    ahead = start + step_size * grown * jax.vmap(ball.steepest)(jax.grad(losses)(start))
    return jax.vmap(ball.project)(x, ahead)

  return Objective(cross_entropy, perturb)


def check_search(**numbers):
  """Raises unless the numbers of an attack are positive and finite."""
  for name, value in numbers.items():
    if not 0 < value < math.inf:
      raise ValueError(
        f'`{name}` must be positive and finite ({_UNITS[name]}), got {name}={value}; for training '
        f'without an attack use `clean`.'
      )


_UNITS = {
  'eps': 'in the unit of the threat',
  'step_size': 'in the unit of the threat',
  'num_steps': 'a count',
  'num_replays': 'a count',
}


def _pgd(threat, step_size, num_steps):
  return attacks.pgd(threat, step_size=step_size, num_steps=num_steps)
