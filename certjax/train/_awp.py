r"""Adversarial weight perturbation (AWP): descend where the loss is worst near the weights, too.

A loss that is flat around the weights generalises better under attack. So its gradient is taken at
weights moved uphill, layer by layer in proportion to the layer's own size, and applied to those that
were not moved.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class PerturbedWeights(NamedTuple):
  """A training method with AWP: `make_step(module, tx, **made._asdict())`.

  Attributes:
    loss, perturb: of an `Objective`.
    weights: `(params, gradient, step) -> params'`, where `make_step` differentiates the loss.
  """

  loss: Callable
  perturb: Callable
  weights: Callable


def awp(objective, gamma):
  r"""A training method, with its weights moved against it before each gradient.

    w'_l = w_l + gamma |w_l| g_l / |g_l|,   g = grad_w loss(w),      w <- w - rate grad loss(w')

  for every kernel l (bias and scale of one dimension stay), with Frobenius norms; the images that the
  loss sees are those that `perturb` found at w. Statistics are updated by the pass at w'. One
  more forward and backward pass a step.

  Args:
    objective: an `Objective`.
    gamma: relative size of the perturbation: 0.01 for adversarial training, 0.005 for TRADES.

  Returns:
    A `PerturbedWeights`; `objective` itself for `gamma` 0.

  Raises:
    ValueError: unless `gamma` is in [0, 1).

  Example:
    >>> from certjax import train
    >>> sorted(awp(train.trades(), 0.005)._asdict())
    ['loss', 'perturb', 'weights']

  References:
    Wu, Xia & Wang 2020 (arXiv:2004.05884).
  """
  # Deviation: weight decay is that of w; the authors' optimiser decays w'.
  if not 0 <= gamma < 1:
    raise ValueError(
      f'`gamma` is a share of the norm of the weights, in [0, 1), got gamma={gamma}; 0.01 is usual, 0 is '
      f'without perturbation.'
    )
  if not gamma:
    return objective

  def weights(params, gradient, step):
    del step
    return jax.tree.map(lambda w, g: _uphill(w, g, gamma), params, gradient)

  return PerturbedWeights(objective.loss, objective.perturb, weights)


def _uphill(w, gradient, gamma):
  """w moved along its gradient by gamma |w|; not at all where the gradient vanishes."""
  if w.ndim < 2:
    return w
  length = jnp.sqrt(jnp.sum(gradient**2))
  size = gamma * jnp.sqrt(jnp.sum(w**2))
  return w + jnp.where(length > 0, size / jnp.where(length > 0, length, 1.0), 0.0) * gradient
