r"""How the radius of certified training grows in the warm-up.

From the first step at full radius the bounds are loose, the loss prefers a constant classifier, and no
schedule of the learning rate brings it back: so the radius starts at 0.
"""

import math

import jax.numpy as jnp

DEFAULT_EPS = 0.1
"""Radius of the methods at bounds unless another is given, in pixel values."""
_MIDDLE = 0.25  # Share of a smooth ramp that is curved.


def smooth_ramp(step, *, start, end, last=1.0, exponent=4.0):
  r"""From 0 to `last` between two steps: a power at first, then a line of the same slope.

    a (t - start)^e                              for start <= t < mid
    a q (1 + e (t - mid) / (mid - start))        from mid on,   q = (mid - start)^e

  with mid = start + floor((end - start) / 4).

  Args:
    step: t, an int or int32.
    start, end: steps; 0 until the first, `last` from the second on.
    last: value at the end.
    exponent: e, at least 1; 1 makes a straight line.

  Returns:
    A float scalar.

  Example:
    >>> round(float(smooth_ramp(600, start=100, end=1100, last=0.3)), 6)
    0.115385

  References:
    Zhang et al. 2020 (arXiv:1906.06316), their code.
  """
  step = jnp.asarray(step, float)
  if end <= start:
    return jnp.where(step >= start, last, 0.0)
  curved = max(math.floor(_MIDDLE * (end - start)), 1)
  along = (step - start) / curved
  at_middle = last * curved / ((end - start - curved) * exponent + curved)
  power = jnp.clip(along, 0, 1) ** exponent
  line = 1 + exponent * (along - 1)
  return jnp.where(step >= end, last, at_middle * jnp.where(along < 1, power, line))


def growth(eps, exponent, clean_share, warmup_steps):
  """step -> share of `eps` that is reached, in [0, 1].

  Args:
    eps: radius at the end, in pixel values.
    exponent: of `smooth_ramp`.
    clean_share: share of the warm-up, at its begin, without any radius.
    warmup_steps: steps until the end.

  Raises:
    ValueError: for a number out of range.
  """
  if not 0 <= eps <= 1:
    raise ValueError(f'`eps` is in pixel values of [0, 1], got eps={eps}.')
  if not 1 <= exponent < math.inf:
    raise ValueError(f'`exponent` must be at least 1 (a straight ramp) and finite, got {exponent}.')
  check_shares(clean_share=clean_share)
  start = clean_share * warmup_steps
  return lambda step: smooth_ramp(step, start=start, end=warmup_steps, exponent=exponent)


def check_shares(**shares):
  """Raises unless all lie in [0, 1]."""
  for name, value in shares.items():
    if not 0 <= value <= 1:
      raise ValueError(f'`{name}` is a share, in [0, 1], got {name}={value}.')
