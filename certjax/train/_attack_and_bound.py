r"""Certified training that also attacks: SABR and MTL-IBP.

Interval bounds over the whole ball cost accuracy. Both methods look for an adversarial point first:
the one bounds a small box around it, the other trains on it beside the bound.
"""

import math

import jax.numpy as jnp

from certjax import attacks, bounds, threats
from certjax.train._copies import Objective, check_copies
from certjax.train._radius import DEFAULT_EPS, check_shares, growth
from certjax.train._worst_case import cross_entropy, evaluation, metrics, rivals, worst

_TINY = 1e-12  # Of an attack that has nowhere to go.


def sabr(
  *, eps=DEFAULT_EPS, lam=0.4, num_steps=8, step_size=None, exponent=1.0, clean_share=0.0,
  warmup_steps=0,
) -> Objective:  # fmt: skip
  r"""Small boxes: interval bounds over a box of side 2 lam e around a point that an attack finds.

    loss = CE(worst logits over |x' - x*|_inf <= lam e, y),   |x* - x|_inf <= (1 - lam) e

  Args:
    eps, exponent, clean_share, warmup_steps: as in `ibp`.
    lam: share of the radius, in (0, 1]; 1 is IBP without the clean images' loss.
    num_steps: of PGD, from a random start.
    step_size: of PGD, in pixel values at full radius; default a quarter of (1 - lam) eps.

  Returns:
    An `Objective`, with the metrics of `ibp`; 'verified' counts small boxes, and proves nothing.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = sabr(eps=0.1, lam=0.4, warmup_steps=2000)

  References:
    Mueller et al. 2023 (arXiv:2210.04871).
  """
  grown = growth(eps, exponent, clean_share, warmup_steps)
  check_shares(lam=lam)
  if not lam:
    raise ValueError('`lam` must be positive; a box of no size is `adversarial` training.')
  reach = (1 - lam) * eps

  def loss(keys, apply, x, y, step):
    del keys
    check_copies(x, 2)
    half = lam * eps * grown(step)
    region = bounds.box(jnp.clip(x[:, 1] - half, 0, 1), jnp.clip(x[:, 1] + half, 0, 1))
    logits, statistics = apply(x[:, 0], True)
    margins = bounds.interval(evaluation(apply), region, rivals(logits, y))[0]
    return worst(margins), (metrics(logits, y, margins, eps * grown(step)), statistics)

  return Objective(loss, _attacked(reach, step_size, num_steps, grown))


def mtl_ibp(
  *, eps=DEFAULT_EPS, alpha=0.5, attack_scale=1.0, num_steps=8, step_size=None, exponent=1.0,
  clean_share=0.0, warmup_steps=0,
) -> Objective:  # fmt: skip
  r"""An adversarial and an interval loss as two tasks.

    loss = (1 - alpha) CE(f(x*), y) + alpha CE(worst logits over |x' - x|_inf <= e, y)

  Args:
    eps, exponent, clean_share, warmup_steps: as in `ibp`.
    alpha: weight of the interval loss.
    attack_scale: radius of the attack as a multiple of e (2 for CIFAR-10 at 2 / 255).
    num_steps, step_size: of PGD, from a random start; default a quarter of its radius.

  Returns:
    An `Objective`, with the metrics of `ibp`.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = mtl_ibp(eps=0.3, alpha=0.5, warmup_steps=2000)

  References:
    De Palma et al. 2024 (arXiv:2305.13991).
  """
  grown = growth(eps, exponent, clean_share, warmup_steps)
  check_shares(alpha=alpha)
  if not 0 < attack_scale * eps <= 1:
    raise ValueError(
      f'`attack_scale` times `eps` is a radius in pixel values, in (0, 1], got {attack_scale * eps}.'
    )

  def loss(keys, apply, x, y, step):
    del keys
    check_copies(x, 2)
    logits, statistics = apply(x[:, 0], True)
    region = bounds.ball(x[:, 0], eps * grown(step))
    margins = bounds.interval(evaluation(apply), region, rivals(logits, y))[0]
    attacked = cross_entropy(evaluation(apply)(x[:, 1]), y)
    value = (1 - alpha) * attacked + alpha * worst(margins)
    return value, (metrics(logits, y, margins, eps * grown(step)), statistics)

  return Objective(loss, _attacked(attack_scale * eps, step_size, num_steps, grown))


def _attacked(reach, step_size, num_steps, grown):
  """A `perturb` that puts PGD's point beside each image: x[B, 2, ...]."""
  step_size = reach / 4 if step_size is None else step_size
  for name, value in (('num_steps', num_steps), ('step_size', step_size)):
    if not 0 <= value < math.inf:
      raise ValueError(f'`{name}` must be at least 0 and finite, got {name}={value}.')

  def perturb(keys, model_fn, x, y, step):
    done = grown(step)
    size = jnp.maximum(step_size * done, _TINY)
    attack = attacks.pgd(threats.linf(reach * done), step_size=size, num_steps=num_steps)
    return jnp.stack([x, attack(keys, model_fn, x, y)], axis=1)

  return perturb
