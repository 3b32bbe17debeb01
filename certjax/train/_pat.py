"""Perceptual adversarial training (Laidlaw, Singla & Feizi 2021): the worst points within an LPIPS distance.

Self-bounded, the distance is measured in the network that is being trained: one pass gives activations
and logits, and no second network is needed.
"""

import jax.numpy as jnp

from certjax import attacks, models
from certjax.train._adversarial import check_search
from certjax.train._copies import Objective, ramp
from certjax.train._losses import cross_entropy
from certjax.train._perturb import adversarial


def pat(*, eps=0.5, num_steps=10, attack=None, warmup_steps=0) -> Objective:
  """Cross-entropy at the end of Fast-LPA, from each image that the network gets right.

    loss = -(1/B) sum_b log softmax(f(x'_b))_{y_b},   |phi(x'_b) - phi(x_b)|_2 <= eps, softly

  The attack does not project, as in the paper: its penalty alone holds x' near, and some points end
  outside of eps. An image that is misclassified already stays as it is.

  Args:
    eps: largest LPIPS distance (the root), by the network itself: 0.5 on CIFAR-10, 0.25 on ImageNet-100.
      With AlexNet's, 1.0 on CIFAR-10.
    num_steps: steps of the attack.
    attack: `(eps, num_steps) -> Attack`; default self-bounded Fast-LPA. With another network's
      embedding, `lambda eps, num_steps: attacks.fast_lpa(embed, eps=eps, num_steps=num_steps,
      projection='none')`.
    warmup_steps: steps over which eps grows from 0.

  Returns:
    An `Objective`.

  Raises:
    ValueError: unless `eps` and `num_steps` are positive; in training, for a module without default taps
      (`models.taps_of`).

  Example:
    >>> objective = pat(eps=0.25)

  References:
    Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), section 5.
  """
  # Deviation: eps may grow; the paper's learning rate grows instead.
  check_search(eps=eps, num_steps=num_steps)
  make = _self_bounded if attack is None else attack
  make(eps, num_steps)  # Its complaints come before any tracing.

  def perturb(keys, model_fn, x, y, step):
    search = adversarial(make(eps * ramp(step, warmup_steps), num_steps))
    x_adv = search(keys, model_fn, x, y, step)
    correct = jnp.argmax(model_fn(x), axis=-1) == y
    return jnp.where(correct.reshape(-1, *(1,) * (x.ndim - 1)), x_adv, x)

  return Objective(cross_entropy, perturb)


def _self_bounded(eps, num_steps):
  return models.self_bounded(
    attacks.fast_lpa(None, eps=eps, num_steps=num_steps, projection='none')
  )
