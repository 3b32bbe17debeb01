"""Perturbations of the training step: `(keys, model_fn, x, y, step) -> x'`."""


def adversarial(attack):
  """Trains on the attack's points (Madry et al. 2018).

  Args:
    attack: an `Attack`; it gets one key an example.

  Returns:
    A `perturb` for `make_step`.

  Example:
    >>> from certjax import attacks, threats
    >>> perturb = adversarial(attacks.pgd(threats.l2(0.5), step_size=0.125, num_steps=7))
  """

  def perturb(keys, model_fn, x, y, step):
    del step
    return attack(keys, model_fn, x, y)

  return perturb
