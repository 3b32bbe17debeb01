"""Thermometer encoding (Buckman et al. 2018): pixel values as rows of zeros and ones.

Broken: its gradient is zero, and no more is behind it. BPDA through `soft_thermometer` leaves 0% accuracy at
L_inf 0.031 on CIFAR-10 (Athalye et al. 2018, Table 1).
"""

import jax.numpy as jnp


def thermometer(*, levels=16):
  """Each value as `levels` bits, those below it set.

    t(x)_k = 1{x > k / levels},  k = 1 .. levels

  Its gradient is zero: attack it by `bpda(thermometer(levels=l), soft_thermometer(levels=l))`.

  Args:
    levels: bits a value, at least 1; the authors take 10 to 16.

  Returns:
    `x[..., C] -> x'[..., C * levels]`, a transform for `transformed`.

  Raises:
    ValueError: if `levels` is below 1.

  Example:
    >>> thermometer(levels=10)(jnp.array([0.66])).astype(int).tolist()
    [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]

  References:
    Buckman et al. 2018 (ICLR); Athalye et al. 2018 (arXiv:1802.00420).
  """
  _check(levels)
  return lambda x: _side_by_side(_over(x, levels) > 0, x)


def soft_thermometer(*, levels=16):
  """The thermometer with a gradient: its value, rounded up, is `thermometer`'s.

    s(x)_k = min(max(x - k / levels, 0), 1),  k = 1 .. levels

  Args:
    levels: bits a value, at least 1.

  Returns:
    `x[..., C] -> x'[..., C * levels]`, a `backward` for `bpda`.

  Raises:
    ValueError: if `levels` is below 1.

  Example:
    >>> soft_thermometer(levels=4)(jnp.array([0.75])).tolist()
    [0.5, 0.25, 0.0, 0.0]

  References:
    Athalye et al. 2018 (arXiv:1802.00420).
  """
  _check(levels)
  return lambda x: _side_by_side(jnp.clip(_over(x, levels), 0, 1), x)


def _over(x, levels):
  """float[..., C, levels], by how much each value lies above each level."""
  heights = jnp.arange(1, levels + 1, dtype=x.dtype) / levels
  return x[..., None] - heights.reshape((1,) * x.ndim + (-1,))


def _side_by_side(encoded, x):
  return encoded.reshape(*x.shape[:-1], -1).astype(x.dtype)


def _check(levels):
  if levels < 1:
    raise ValueError(f'`levels` must be at least 1 bit a value, got levels={levels}.')
