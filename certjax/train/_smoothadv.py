"""SmoothAdv (Salman et al. 2019): adversarial training of the smoothed classifier."""

from certjax import attacks, threats
from certjax.train._copies import (
  Objective,
  augmented,
  check_num_noises,
  copies,
  fold_after,
  ramp,
  smoothed,
)


def _pgd(threat, num_steps):
  return attacks.pgd(
    threat, step_size=2 * threat.eps / num_steps, num_steps=num_steps, random_start=False
  )


def _ddn(threat, num_steps):
  return attacks.ddn(threat, num_steps=num_steps)


_ATTACKS = {'pgd': _pgd, 'ddn': _ddn}


def smooth_adv(
  smoothing, *, eps, num_steps=10, num_noises=1, attack='pgd', threat=threats.l2, warmup_steps=0
) -> Objective:
  """Trains on points that the smoothed classifier gets wrong, under the noises that show it.

    x' ~ argmax_{|x' - x| <= eps} J(x'),  J(x') = -log (1/m) sum_j softmax(f(x' + eps_j))_y
    loss = -(1/m) sum_j log softmax(f(x' + eps_j))_y

  The noises eps_j of an image stay the same in every step of the attack and in the training
  pass: `perturb` returns the noisy copies of x' themselves. The attack sees the model in
  evaluation mode; the one training pass over all B * m rows updates the BatchNorm statistics.

  Args:
    smoothing: a `Smoothing`; the gradient goes through its `sample`.
    eps: radius of the attack, in pixel values. (The paper's code divides its grey levels by 256:
      its 64, 127, 255, 512 are 0.25, 0.496, 0.996, 2.)
    num_steps: T; PGD makes steps of 2 eps / T from the image itself.
    num_noises: m.
    attack: 'pgd', 'ddn' (L2 only), or `(threat, num_steps) -> Attack`.
    threat: `eps -> Threat`.
    warmup_steps: steps over which eps grows from 0.

  Returns:
    An `Objective`.

  Raises:
    ValueError: for an unknown attack, or unless `eps` and `num_steps` are positive.

  Example:
    >>> from certjax import smoothing
    >>> objective = smooth_adv(smoothing.gaussian(sigma=0.25), eps=0.25, num_steps=2, num_noises=4)

  References:
    Salman et al. 2019 (arXiv:1906.04584).
  """
  check_num_noises(num_noises)
  if not (callable(attack) or attack in _ATTACKS):
    raise ValueError(
      f'`attack` must be one of {", ".join(_ATTACKS)}, or (threat, num_steps) -> Attack; got '
      f'{attack!r}.'
    )
  if not (eps > 0 and num_steps > 0):
    raise ValueError(
      f'`eps` (pixel values) and `num_steps` must be positive, got eps={eps}, '
      f'num_steps={num_steps}; for training without an attack use `augmented`.'
    )
  make = attack if callable(attack) else _ATTACKS[attack]
  make(threat(eps), num_steps)  # Its complaints come before any tracing.

  def perturb(keys, model_fn, x, y, step):
    search = make(threat(eps * ramp(step, warmup_steps)), num_steps)
    g = smoothed(model_fn, smoothing, keys, num_noises)
    x_adv = search(fold_after(keys, num_noises), g, x, y)
    return copies(smoothing, keys, x_adv, num_noises)

  return Objective(augmented(smoothing, num_noises=num_noises).loss, perturb)
