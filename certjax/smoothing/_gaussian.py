"""Gaussian smoothing: the L2 certificate of Cohen, Rosenfeld & Kolter 2019.

Theorem 1: if f(x + N(0, sigma^2 I)) is class A with probability at least p_a, and every
other class with probability at most p_b, then the smoothed classifier returns A on the ball

  ||delta||_2 < (sigma / 2) (Phi^-1(p_a) - Phi^-1(p_b)).

The bound is tight: a half-space classifier attains it. Radii are rounded strictly inside
the open ball of the theorem, so the closed ball of the returned radius is proved.
"""

import math

import jax
import numpy as np
from scipy import special

from certjax.smoothing._protocol import Smoothing

_RELATIVE = 1e-14  # scipy's ndtri is off by up to 2 ulp (4e-16); this covers it 20 times over.


def gaussian(*, sigma: float) -> Smoothing:
  r"""Isotropic Gaussian noise.

    x~ = x + sigma z,  z ~ N(0, I)
    radius = (sigma / 2) (Phi^-1(p_a) - Phi^-1(p_b))

  The generator is `jax.random.normal` in float32 (threefry bits through the inverse error
  function), whose support is about [-5.42, 5.23] standard deviations: the law is Gaussian up
  to that truncation and to float rounding, as in every published implementation.

  Args:
    sigma: standard deviation in pixel values of [0, 1].

  Returns:
    A `Smoothing` in norm 'l2', unit 'pixel value'. One compiled program serves all sigmas.

  Raises:
    ValueError: unless 0 < sigma < inf.

  Example:
    >>> round(float(gaussian(sigma=0.5).radius(0.8, 0.1)), 6)
    0.530793

  References:
    Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918), Theorem 1.
  """
  sigma = float(sigma)
  if not (0 < sigma < math.inf):
    raise ValueError(
      f'`sigma` is a standard deviation in pixel values of [0, 1] and must be positive and '
      f'finite, got sigma={sigma}; the usual values are 0.12, 0.25, 0.5 and 1.'
    )

  def radius(p_a, p_b=None, *, x=None):
    del x  # The certificate is the same everywhere.
    p_a = np.asarray(p_a, np.float64)
    high = _downwards(special.ndtri(p_a))
    if p_b is None:  # Phi^-1(1 - p_a) = -Phi^-1(p_a), without the rounding of 1 - p_a.
      value = sigma * high
    else:
      value = sigma / 2 * (high - _upwards(special.ndtri(np.asarray(p_b, np.float64))))
    value = np.nextafter(value * (1 - _RELATIVE), -np.inf)
    return np.where(value > 0, value, 0.0)  # False for NaN: nothing is proved.

  return Smoothing(jax.tree_util.Partial(_sample, sigma), radius, 'l2', 'pixel value')


def _sample(sigma, key, x):
  return x + sigma * jax.random.normal(key, x.shape, x.dtype)


def _downwards(value):
  return value * (1 - _RELATIVE * np.sign(value))


def _upwards(value):
  return value * (1 + _RELATIVE * np.sign(value))
