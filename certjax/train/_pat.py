"""Perceptual adversarial training (Laidlaw, Singla & Feizi 2021): the worst points within an LPIPS distance.

Self-bounded, the distance is measured in the network that is being trained: one pass gives activations
and logits, and no second network is needed. Externally bounded, another network's stay as they are.
"""

import functools

import jax
import jax.numpy as jnp

from certjax.attacks import fast_lpa
from certjax.distances import embedding
from certjax.models import features_of
from certjax.train._adversarial import check_search
from certjax.train._copies import Objective, ramp
from certjax.train._losses import cross_entropy


def pat(*, eps=0.5, num_steps=10, embed=None, only_correct=True, warmup_steps=0) -> Objective:
  """Cross-entropy at the end of Fast-LPA, from each image that the network gets right.

    loss = -(1/B) sum_b log softmax(f(x'_b))_{y_b},   |phi(x'_b) - phi(x_b)|_2 <= eps, softly

  The attack does not project, as in the paper: its penalty alone holds x' near, and some points end
  outside of eps. It sees the model in evaluation mode. A step costs about 22 forward and 11 backward
  passes at 10 steps, where PGD's costs 12 and 11.

  Args:
    eps: largest LPIPS distance (the root), by the network itself: 0.5 on CIFAR-10, 0.25 on ImageNet-100.
      With AlexNet's, 1.0 on CIFAR-10.
    num_steps: steps of the attack.
    embed: None for phi of the network in training; or `x[B, H, W, C] -> phi[B, D]`, as
      `distances.embedding` of another network's `FeatureFn`, which stays as it is. The arrays of a
      `jax.tree_util.Partial`, as `phi_of` makes it, travel through the step as arguments.
    only_correct: leave an image that is misclassified already as it is.
    warmup_steps: steps over which eps grows from 0.

  Returns:
    An `Objective`.

  Raises:
    ValueError: unless `eps` and `num_steps` are positive; in training, self-bounded, for a module without
      default taps.

  Example:
    >>> objective = pat(eps=0.25)

  References:
    Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), section 5.
  """
  # Deviation: eps may grow; the paper's learning rate grows instead.
  check_search(eps=eps, num_steps=num_steps)

  def perturb(embed, keys, model_fn, x, y, step):
    search = fast_lpa(
      embed, eps=eps * ramp(step, warmup_steps), num_steps=num_steps, projection='none'
    )
    x_adv = search(keys, features_of(model_fn) if embed is None else model_fn, x, y)
    if not only_correct:
      return x_adv
    correct = jnp.argmax(model_fn(x), axis=-1) == y
    return jax.vmap(jnp.where)(correct, x_adv, x)

  bind = jax.tree_util.Partial if isinstance(embed, jax.tree_util.Partial) else functools.partial
  return Objective(cross_entropy, bind(perturb, embed))


def phi_of(feature_fn):
  """`distances.embedding` of a network as a pytree, for `pat`'s `embed`.

  Args:
    feature_fn: a `FeatureFn` that is a `jax.tree_util.Partial`.

  Returns:
    A `jax.tree_util.Partial`: `x[B, H, W, C] -> phi[B, D]`; its leaves are the weights.

  Example:
    >>> phi = phi_of(jax.tree_util.Partial(lambda scale, x: ((scale * x,), x), jnp.float32(2)))
    >>> len(jax.tree.leaves(phi)), phi(jnp.ones((1, 2, 2, 1))).shape
    (1, (1, 4))
  """
  return jax.tree_util.Partial(_phi, feature_fn)


def _phi(feature_fn, x):
  return embedding(feature_fn)(x)
