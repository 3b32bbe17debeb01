r"""Penalties on the boxes before the ReLUs, which keep a short warm-up of interval training stable.

With the mean E over the images of a batch and the units of a layer, [l, u] the box before ReLU i of m,
w = u - l its width, c = (l + u) / 2 its centre, and w_0 the width of the images' box,

  tightness  (1 / tau m) sum_i max(0, tau - E w_0 / E w_i)
  balance    (1 / tau m) sum_i max(0, tau - alpha_i) + max(0, tau - beta_i)

where alpha_i compares the active units (l > 0) with the inactive ones (u < 0) by the sums of |c|, beta_i
by the sums of (c - E c)^2: the smaller sum over the larger. Shi et al. 2021 (arXiv:2103.17268).
"""

import math

import jax
import jax.numpy as jnp

from certjax import bounds

SMALLEST = 1e-4
"""Radius of the boxes, in pixel values, where the ball is smaller: the ratios of widths have a limit
there. Deviation: their code has 1e-6, which float32 rounds by 3% beside a pixel of 1."""


def penalty_of(tightness, balance, tolerance):
  """Their weighted sum.

  Args:
    tightness, balance: weights; the paper has 1/2 for both on CIFAR-10.
    tolerance: tau, below which a ratio costs something.

  Returns:
    `(model_fn, region) -> scalar`; None where both weights are 0.

  Raises:
    ValueError: for a number out of range.
  """
  for name, value in (('tightness', tightness), ('balance', balance)):
    if not 0 <= value < math.inf:
      raise ValueError(f'`{name}` is a weight, at least 0 and finite, got {name}={value}.')
  if not 0 < tolerance <= 1:
    raise ValueError(
      f'`tolerance` is the least ratio that costs nothing, in (0, 1], got {tolerance}.'
    )
  if not tightness and not balance:
    return None

  def penalty(model_fn, region):
    boxes = bounds.preactivations(model_fn, region)
    if not boxes:  # A network without ReLUs.
      return 0.0
    width = jnp.mean(region.upper - region.lower)
    loose = sum(_growth(width, box, tolerance) for box in boxes)
    uneven = sum(_imbalance(box, tolerance) for box in boxes)
    return (tightness * loose + balance * uneven) / (tolerance * len(boxes))

  return penalty


def _growth(width, box, tolerance):
  lower, upper = box
  return jax.nn.relu(tolerance - _ratio(width, jnp.mean(upper - lower)))


def _imbalance(box, tolerance):
  lower, upper = box
  center = (lower + upper) / 2
  total = lambda which, value: jnp.sum(jnp.where(which, value, 0))
  short = lambda value: jax.nn.relu(
    tolerance - _smaller_to_larger(total(lower > 0, value), total(upper < 0, value))
  )
  return short(jnp.abs(center)) + short((center - jnp.mean(center)) ** 2)


def _smaller_to_larger(a, b):
  # Deviation: without active or without inactive units their code adds a constant, here it is 0; the
  # gradient is 0 in both.
  return jnp.where((a > 0) & (b > 0), _ratio(jnp.minimum(a, b), jnp.maximum(a, b)), 1)


def _ratio(a, b):
  """a / b; 1, which costs nothing, where b is 0."""
  positive = b > 0
  return jnp.where(positive, a / jnp.where(positive, b, 1), 1)
