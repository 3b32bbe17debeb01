"""Losses for Lipschitz networks: on clean images, with a margin that becomes a certificate.

If all logits together are L-Lipschitz, f_y - f_j is sqrt(2) L-Lipschitz, so a loss that asks for
a larger gap asks for a larger certified radius. The published losses differ in how they ask, and
are settings of one formula here.
"""

import math

import jax
import jax.numpy as jnp

from certjax.train._copies import Objective, ramp

_LEAST = 0.01  # EMMA keeps this share of its radius, also for an image that is misclassified.


def lipschitz(
  *, margin=0.0, temperature=1.0, beta=0.0, gamma=0.0, eps=0.0, lipschitz=1.0, warmup_steps=0
) -> Objective:
  r"""Cross-entropy under a margin, annealed and rewarded for the certified radius.

    loss = temperature (1 - p)^beta (-log p) - gamma max(radius, 0)

    p = softmax((f(x) + m) / temperature)_y,   m_y = -margin,
    m_j = sqrt(2) L clip(radius_j, eps / 100, eps)              (held fixed by the gradient),
    radius_j = (f_y - f_j) / (sqrt(2) L),                        radius = min_{j != y} radius_j

  The defaults are plain cross-entropy, as SOC was trained. Of the literature:

    LipCE  margin = 2 sqrt(2) 36 / 255, temperature = 1/4
    AOL    margin = u = sqrt(2), temperature = t = 1/4
    LA     margin = 2, temperature = 3/4, beta = 5
    CR     gamma, and lipschitz = 1 / min(std), so that the radius is in pixel values
    EMMA   eps, and lipschitz

  Args:
    margin: taken off the logit of the label; in units of the logits.
    temperature: of the softmax; a small one asks for no more than the margin.
    beta: annealing: how little an image counts that has its margin; 0, or at least 1.
    gamma: weight of the certified radius.
    eps: the largest radius that EMMA asks for.
    lipschitz: L, the constant of the logits.
    warmup_steps: steps over which `eps` grows.

  Returns:
    An `Objective` on clean images.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = lipschitz(margin=2**0.5, temperature=0.25)
    >>> apply = lambda x, train: (x, {})
    >>> loss, _ = objective.loss(None, apply, jnp.array([[2.0, 0.5, -1.0]]), jnp.array([0]), 0)
    >>> round(float(loss), 6)
    0.134312

  References:
    Prach et al. 2024 (arXiv:2311.16833), LipCE; Prach & Lampert 2022 (arXiv:2208.03160), AOL; Lai
    et al. 2025 (arXiv:2505.15174), LA; Singla, Singla & Feizi 2022 (arXiv:2108.04062), CR; Hu et
    al. 2023 (arXiv:2301.12549), EMMA.
  """
  _check(margin, temperature, beta, gamma, eps, lipschitz)
  per_radius = math.sqrt(2) * lipschitz

  def each(logits, y, largest):
    is_label = jnp.arange(logits.shape[-1]) == y
    radii = jnp.where(is_label, jnp.inf, (logits[y] - logits) / per_radius)
    offset = jnp.where(is_label, -margin, 0.0)
    if eps:
      asked = per_radius * jnp.clip(radii, _LEAST * largest, largest)
      offset = jnp.where(is_label, -margin, jax.lax.stop_gradient(asked))
    log_p = jax.nn.log_softmax((logits + offset) / temperature)[y]
    value = -temperature * log_p
    if beta:
      value *= (-jnp.expm1(log_p)) ** beta
    radius = jnp.maximum(jnp.min(radii), 0)
    return value - gamma * radius, radius

  def loss(keys, apply, x, y, step):
    del keys
    logits, statistics = apply(x, True)
    largest = eps * ramp(step, warmup_steps)
    values, radii = jax.vmap(each, (0, 0, None))(logits, y, largest)
    accuracy = jnp.mean((jnp.argmax(logits, axis=-1) == y).astype(jnp.float32))
    return jnp.mean(values), ({'accuracy': accuracy, 'radius': jnp.mean(radii)}, statistics)

  return Objective(loss, None)


def multi_margin(*, margin=0.5) -> Objective:
  r"""The hinge loss of every rival: zero once all margins are there.

    loss = (1 / K) sum_{j != y} max(0, margin - (f_y - f_j))

  Args:
    margin: in units of the logits; sqrt(2) L eps asks for a certified radius of eps.

  Returns:
    An `Objective` on clean images.

  Raises:
    ValueError: unless the margin is positive and finite.

  Example:
    >>> apply = lambda x, train: (x, {})
    >>> loss, _ = multi_margin(margin=1.0).loss(
    ...   None, apply, jnp.array([[2.0, 1.5, -1.0]]), jnp.array([0]), 0
    ... )
    >>> round(float(loss), 6)  # (1 - 0.5) / 3
    0.166667

  References:
    Li et al. 2019 (arXiv:1911.00937); Trockman & Kolter 2021 (arXiv:2104.07167).
  """
  if not 0 < margin < math.inf:
    raise ValueError(f'`margin` must be positive and finite, got margin={margin}.')

  def each(logits, y):
    missing = jnp.maximum(margin - (logits[y] - logits), 0)
    return jnp.mean(jnp.where(jnp.arange(logits.shape[-1]) == y, 0, missing))

  def loss(keys, apply, x, y, step):
    del keys, step
    logits, statistics = apply(x, True)
    accuracy = jnp.mean((jnp.argmax(logits, axis=-1) == y).astype(jnp.float32))
    return jnp.mean(jax.vmap(each)(logits, y)), ({'accuracy': accuracy}, statistics)

  return Objective(loss, None)


def _check(margin, temperature, beta, gamma, eps, lipschitz):
  for name, value in (('temperature', temperature), ('lipschitz', lipschitz)):
    if not 0 < value < math.inf:
      raise ValueError(f'`{name}` must be positive and finite, got {name}={value}.')
  for name, value in (('margin', margin), ('gamma', gamma), ('eps', eps)):
    if not 0 <= value < math.inf:
      raise ValueError(f'`{name}` must be at least 0 and finite, got {name}={value}.')
  if beta and not 1 <= beta < math.inf:
    raise ValueError(f'`beta` must be 0 or at least 1 (a finite gradient at p = 1), got {beta}.')
