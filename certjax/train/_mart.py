r"""MART: adversarial training that treats misclassified images apart.

Images that the model gets wrong anyway gain nothing from an attack on them; what helps there is that
the prediction stays as it is near them.
"""

import jax
import jax.numpy as jnp

from certjax import attacks, threats
from certjax.train._adversarial import check_search
from certjax.train._awp import awp
from certjax.train._copies import Objective, divergence, ramp
from certjax.train._trades import accuracies, both, check_weight, near


def mart(
  *, eps=8 / 255, step_size=None, num_steps=10, lam=5.0, threat=threats.linf, warmup_steps=0,
  gamma=0.0,
):  # fmt: skip
  r"""Boosted cross-entropy at the worst points, and a divergence where the model is unsure of y.

    loss = (1/B) sum_b [ BCE(p(x'_b), y_b) + lam KL(p(x_b) || p(x'_b)) (1 - p_{y_b}(x_b)) ]
    BCE(p, y) = -log p_y - log(1 - max_{k != y} p_k),   x'_b ~ argmax_{|x' - x_b| <= eps} CE(f(x'), y_b)

  The attack, the two passes of the loss and what updates BatchNorm's statistics are those of `trades`,
  with the cross-entropy in place of the divergence in the attack. Every p is differentiated.

  Args:
    eps, step_size, num_steps, threat, warmup_steps, gamma: as in `trades`.
    lam: weight of the divergence (paper: 5 or 6).

  Returns:
    An `Objective`, with `weights` beside it where `gamma` is positive. Metrics: 'accuracy' of the images,
    'robust_accuracy' at x', 'divergence' (weighted).

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = mart(eps=0.031, step_size=0.007, lam=5.0)

  References:
    Wang et al. 2020 (ICLR, openreview rklOg6EFwS).
  """
  # Deviation: PGD hands over the worst point it saw, not its last.
  step_size = eps / 4 if step_size is None else step_size
  check_search(eps=eps, step_size=step_size, num_steps=num_steps)
  check_weight(lam=lam)
  threat(eps)

  def perturb(keys, model_fn, x, y, step):
    grown = ramp(step, warmup_steps)
    search = attacks.pgd(
      near(threat(eps * grown)), step_size=step_size * grown, num_steps=num_steps
    )
    return jnp.stack([x, search(keys, model_fn, x, y)], axis=1)

  def loss(keys, apply, x, y, step):
    del keys, step
    natural, attacked, statistics = both(apply, x)
    apart = jnp.mean(jax.vmap(_unsure)(natural, attacked, y))
    value = jnp.mean(jax.vmap(_boosted)(attacked, y)) + lam * apart
    return value, ({**accuracies(natural, attacked, y), 'divergence': apart}, statistics)

  return awp(Objective(loss, perturb), gamma)


def _boosted(logits, y):
  """-log p_y - log(1 - max_{k != y} p_k) of ONE example, finite wherever the logits are."""
  place = jnp.arange(logits.shape[-1])
  rival = jnp.argmax(jnp.where(place == y, -jnp.inf, logits))
  others = jax.nn.logsumexp(jnp.where(place == rival, -jnp.inf, logits))  # 1 - p is their sum.
  total = jax.nn.logsumexp(logits)
  return 2 * total - logits[y] - others


def _unsure(natural, attacked, y):
  """KL(p(x) || p(x')) (1 - p_y(x)) of ONE example."""
  log_p, log_q = jax.nn.log_softmax(natural), jax.nn.log_softmax(attacked)
  return divergence(log_p, log_q) * (1 - jnp.exp(log_p[y]))
