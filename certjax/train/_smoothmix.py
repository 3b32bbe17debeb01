"""SmoothMix (Jeong et al. 2021): mixes images with far adversarial points, towards uniform."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from certjax import threats
from certjax.attacks import cross_entropy as single_cross_entropy
from certjax.train._copies import (
  Objective,
  accuracy,
  check_copies,
  check_num_noises,
  copies,
  cross_entropy,
  divergence,
  fold_after,
  log_mean_softmax,
  logits_of_copies,
  ramp,
  smoothed,
)


class Mixed(NamedTuple):
  """What SmoothMix's `perturb` hands to its loss.

  Attributes:
    copies: x~[B, m, ...], noisy images.
    mixed: x~[B, m, ...], noisy mixtures, under the same noises.
    share: l[B], the adversarial point's share of a mixture.
  """

  copies: Any
  mixed: Any
  share: Any


def smooth_mix(
  smoothing, *, step_size, num_steps=4, num_noises=2, eta=5.0, one_step=False, warmup_steps=0
) -> Objective:
  """Cross-entropy plus mixup with the end of an unconstrained smoothed ascent.

    x^(t+1) = clip(x^(t) + step_size grad J / |grad J|_2),  J as in SmoothAdv, T steps
    x_mix = (1 - l) x + l x^(T),  l ~ U(0, 1/2]
    loss = (1/m) sum_j [CE(p_j, y) + eta [argmax p^ = y] KL((1 - l) p^ + l u || p_j(x_mix))]

  with p^ the mean softmax over the m noises of x, u uniform over the classes. The gradient goes
  through both sides of the divergence. The attack sees the model in evaluation mode. Two training
  passes of B * m rows, each normalised by its own batch: the one over noisy images updates the
  BatchNorm statistics, the one over mixtures does not.

  Args:
    smoothing: a `Smoothing`; the gradient goes through its `sample`.
    step_size: the paper's alpha, an L2 length in pixel values: 2 sigma.
    num_steps: T.
    num_noises: m.
    eta: weight of the mixtures.
    one_step: puts x^(1), no further than step_size times the warm-up, in the place of x.
    warmup_steps: steps over which eta (and that distance) grow from 0.

  Returns:
    An `Objective`; its copies are `Mixed`.

  Raises:
    ValueError: unless `step_size` and `num_steps` are positive and `eta` at least 0.

  Example:
    >>> from certjax import smoothing
    >>> objective = smooth_mix(smoothing.gaussian(sigma=0.25), step_size=0.5)

  References:
    Jeong et al. 2021 (arXiv:2111.09277).
  """
  check_num_noises(num_noises)
  if not (step_size > 0 and num_steps > 0 and eta >= 0):
    raise ValueError(
      f'`step_size` and `num_steps` must be positive and `eta` at least 0, got '
      f'step_size={step_size}, num_steps={num_steps}, eta={eta}.'
    )

  def perturb(keys, model_fn, x, y, step):
    g = smoothed(model_fn, smoothing, keys, num_noises)
    first, last = _ascend(g, x, y, step_size, num_steps)
    if one_step:
      x = jax.vmap(threats.l2(step_size * ramp(step, warmup_steps)).project)(x, first)
    share = jax.vmap(_share)(fold_after(keys, num_noises))
    mixed = jax.vmap(lambda l, a, b: (1 - l) * a + l * b)(share, x, last)
    clean, mixed = (copies(smoothing, keys, part, num_noises) for part in (x, mixed))
    return Mixed(clean, mixed, share)

  def loss(keys, apply, x, y, step):
    del keys
    check_copies(x.copies, num_noises)
    logits, batch_stats = logits_of_copies(apply, x.copies)
    mixed_logits, _ = logits_of_copies(apply, x.mixed)
    right, mix = map(jnp.mean, jax.vmap(_terms)(logits, mixed_logits, x.share, y))
    metrics = {'accuracy': accuracy(logits, y), 'cross_entropy': right, 'mix': mix}
    return right + eta * ramp(step, warmup_steps) * mix, (metrics, batch_stats)

  return Objective(loss, perturb)


def _ascend(g, x, y, step_size, num_steps):
  """(first, last) point of the ascent: no ball, only the box [0, 1]."""
  gradient = jax.grad(lambda x: jnp.sum(jax.vmap(single_cross_entropy)(g(x), y)))
  steepest = jax.vmap(threats.l2(step_size).steepest)

  def step(point, _):
    point = jnp.clip(point + step_size * steepest(gradient(point)), 0, 1)
    return point, point

  last, path = lax.scan(step, x, length=num_steps)
  return path[0], last


def _share(key):
  """l in (0, 1/2]: never 0, so that every class has mass in the target."""
  return (1 - jax.random.uniform(key)) / 2


def _terms(logits, mixed_logits, share, y):
  """(cross-entropy, divergence of the mixtures where the mean is right) of ONE image."""
  log_mean = log_mean_softmax(logits)
  log_uniform = jnp.full_like(log_mean, -jnp.log(float(len(log_mean))))
  log_target = jnp.logaddexp(jnp.log1p(-share) + log_mean, jnp.log(share) + log_uniform)
  apart = jax.vmap(divergence, (None, 0))(log_target, jax.nn.log_softmax(mixed_logits))
  right = (jnp.argmax(log_mean) == y).astype(log_mean.dtype)
  return cross_entropy(logits, y), right * jnp.mean(apart)
