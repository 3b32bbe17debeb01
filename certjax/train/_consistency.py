"""Consistency regularisation (Jeong & Shin 2020): predictions under noise agree, confidently."""

import jax
import jax.numpy as jnp

from certjax.train._copies import (
  Objective,
  accuracy,
  augmented,
  check_copies,
  check_num_noises,
  cross_entropy,
  divergence,
  log_mean_softmax,
  logits_of_copies,
)


def consistency(smoothing, *, num_noises=2, weight=10.0, eta=0.5) -> Objective:
  """Cross-entropy, divergence from the mean prediction, and the mean prediction's entropy.

    loss = (1/m) sum_j [CE(p_j, y) + weight KL(p^ || p_j)] + eta H(p^),  p^ = (1/m) sum_j p_j

  One pass over all B * m rows updates the BatchNorm statistics. With SmoothAdv's points:
  `make_step(module, tx, consistency(...).loss, perturb=smooth_adv(...).perturb)`, the same m in both.

  Args:
    smoothing: a `Smoothing`.
    num_noises: m.
    weight: the paper's lambda: 20 for sigma 0.25, 10 for 0.5 and 1 on CIFAR-10; 5 on ImageNet.
    eta: weight of the entropy; 0.1 for sigma 1 on ImageNet.

  Returns:
    An `Objective`.

  Raises:
    ValueError: for fewer than 2 noises, or a negative `weight` or `eta`.

  Example:
    >>> from certjax import smoothing
    >>> objective = consistency(smoothing.gaussian(sigma=0.25), weight=20.0)

  References:
    Jeong & Shin 2020 (arXiv:2006.04062).
  """
  check_num_noises(num_noises, smallest=2)
  if not (weight >= 0 and eta >= 0):
    raise ValueError(f'`weight` and `eta` must be at least 0, got weight={weight}, eta={eta}.')

  def each(logits, y):
    log_mean = log_mean_softmax(logits)
    apart = jnp.mean(jax.vmap(divergence, (None, 0))(log_mean, jax.nn.log_softmax(logits)))
    return cross_entropy(logits, y), apart, -jnp.sum(jnp.exp(log_mean) * log_mean)

  def loss(keys, apply, x, y, step):
    del keys, step
    check_copies(x, num_noises)
    logits, batch_stats = logits_of_copies(apply, x)
    right, apart, entropy = map(jnp.mean, jax.vmap(each)(logits, y))
    metrics = {'accuracy': accuracy(logits, y), 'cross_entropy': right, 'consistency': apart}
    metrics = {**metrics, 'entropy': entropy}
    return right + weight * apart + eta * entropy, (metrics, batch_stats)

  return Objective(loss, augmented(smoothing, num_noises=num_noises).perturb)
