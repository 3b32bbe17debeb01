"""Gaussian smoothing: the L2 certificate of Cohen, Rosenfeld & Kolter 2019, and its L_p forms.

Theorem 1: if f(x + N(0, sigma^2 I)) is class A with probability at least p_a, and every
other class with probability at most p_b, then the smoothed classifier returns A on the ball

  ||delta||_2 < (sigma / 2) (Phi^-1(p_a) - Phi^-1(p_b)).

The bound is tight: a half-space classifier attains it. Radii are rounded strictly inside
the open ball of the theorem, so the closed ball of the returned radius is proved.
"""

import math
import re

import jax
import numpy as np
from scipy import special

from certjax.smoothing import _grid
from certjax.smoothing._protocol import Smoothing

_RELATIVE = 1e-14  # scipy's ndtri is off by up to 2 ulp (4e-16); this covers it 20 times over.
_SAMPLERS = ('normal', 'grid')


def gaussian(
  *, sigma: float, norm: str = 'l2', shape: tuple | None = None, sampler: str = 'normal'
) -> Smoothing:
  r"""Isotropic Gaussian noise.

    x~ = x + sigma z,  z ~ N(0, I)
    radius = (sigma / 2) (Phi^-1(p_a) - Phi^-1(p_b))                      norm 'l2', 'l1'
    radius = (sigma / 2) (Phi^-1(p_a) - Phi^-1(p_b)) / d^(1/2 - 1/p)      norm 'l3', ..., 'linf'

  with d the number of entries of `shape`. Both lines are exact, worst over all classifiers: a
  half-space facing along one coordinate (p <= 2) or along the diagonal (p >= 2) attains them.

  The sampler 'normal' is `jax.random.normal` in float32 (threefry bits through the inverse
  error function), whose support is about [-5.42, 5.23] standard deviations: the law is
  Gaussian up to that truncation and to float rounding, as in every published implementation.
  The sampler 'grid' is sound for images on the 1/255 grid: exact integer noise, see
  `certjax.smoothing._grid`. Its certificate holds for every x' on the grid; x is rounded to
  it. p_a and p_b move by the total variation that 64 random bits leave (below 1e-12 for CIFAR).

  Args:
    sigma: standard deviation in pixel values of [0, 1].
    norm: 'l2', or 'lp' with a number p >= 1 or inf in its place: 'l1', 'l3', 'linf'.
    shape: (H, W, C); needed by norms beyond 'l2' and by the sampler 'grid'.
    sampler: 'normal' or 'grid'.

  Returns:
    A `Smoothing` in that norm, unit 'pixel value'. One compiled program serves all sigmas (of
    one table size for 'grid').

  Raises:
    ValueError: unless 0 < sigma < inf (10 for 'grid'), the norm and the sampler are known, and
      a shape is given where one is needed.

  Example:
    >>> round(float(gaussian(sigma=0.5).radius(0.8, 0.1)), 6)
    0.530793
    >>> round(float(gaussian(sigma=0.25, norm='linf', shape=(32, 32, 3)).radius(0.99)), 6)
    0.010493

  References:
    Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918), Theorem 1. Kumar, Levine, Goldstein &
    Feizi 2020 (arXiv:2002.03239) for p >= 2. Voracek & Hein 2023 for the grid.
  """
  sigma = float(sigma)
  if not (0 < sigma < math.inf):
    raise ValueError(
      f'`sigma` is a standard deviation in pixel values of [0, 1] and must be positive and '
      f'finite, got sigma={sigma}; the usual values are 0.12, 0.25, 0.5 and 1.'
    )
  if sampler not in _SAMPLERS:
    raise ValueError(f'`sampler` must be one of {_SAMPLERS}, got sampler={sampler!r}.')
  p = exponent(norm)
  if shape is None and (p > 2 or sampler == 'grid'):
    raise ValueError(
      f'the certificate of norm={norm!r}, sampler={sampler!r} depends on the dimension: pass '
      f'`shape=(H, W, C)`.'
    )
  dimension = 1 if shape is None else math.prod(shape)
  shrink = dimension_factor(dimension, p)
  if sampler == 'grid':
    noise = _grid.sampler(sigma)
    # Deviation: Voracek & Hein skip ambiguous draws; here they cost total variation instead.
    variation = _upwards(dimension * _grid.variation(sigma))
  else:
    noise, variation = jax.tree_util.Partial(_sample, sigma), 0.0

  def radius(p_a, p_b=None, *, x=None):
    del x  # The certificate is the same everywhere.
    p_a, p_b = _less_certain(p_a, p_b, variation)
    high = _downwards(special.ndtri(p_a))
    if p_b is None:  # Phi^-1(1 - p_a) = -Phi^-1(p_a), without the rounding of 1 - p_a.
      value = sigma * high
    else:
      value = sigma / 2 * (high - _upwards(special.ndtri(p_b)))
    value = np.nextafter(value * (1 - _RELATIVE), -np.inf)
    if shrink > 1:
      value = np.nextafter(value / shrink * (1 - _RELATIVE), -np.inf)
    return np.where(value > 0, value, 0.0)  # False for NaN: nothing is proved.

  return Smoothing(noise, radius, norm, 'pixel value', None if shape is None else tuple(shape))


def exponent(norm: str) -> float:
  """p of a norm's name: 'l1' -> 1, 'l2.5' -> 2.5, 'linf' -> inf.

  Raises:
    ValueError: unless the name is 'l' and a number of at least 1, or 'linf'.

  Example:
    >>> exponent('l3'), exponent('linf')
    (3.0, inf)
  """
  match = re.fullmatch(r'l(inf|\d+(?:\.\d+)?)', str(norm))
  if match is None or float(match[1]) < 1:
    raise ValueError(f"`norm` must be 'l1', 'l2', 'l3', ... or 'linf', got norm={norm!r}.")
  return float(match[1])


def dimension_factor(d: int, p: float) -> float:
  """d^(1/2 - 1/p), and 1 for p <= 2: how far an L_p ball of radius 1 reaches in L2.

  Example:
    >>> dimension_factor(100, 2.0), dimension_factor(100, math.inf)
    (1.0, 10.0)
  """
  return float(d) ** max(0.5 - 1 / p, 0.0)


def _sample(sigma, key, x):
  return x + sigma * jax.random.normal(key, x.shape, x.dtype)


def _less_certain(p_a, p_b, variation):
  """What the bounds are worth under a law that is `variation` away in total variation."""
  p_a = np.asarray(p_a, np.float64)
  p_b = None if p_b is None else np.asarray(p_b, np.float64)
  if variation == 0:
    return p_a, p_b
  lower = np.maximum(np.nextafter(p_a - variation, -np.inf), 0.0)
  upper = None if p_b is None else np.minimum(np.nextafter(p_b + variation, np.inf), 1.0)
  return lower, upper


def _downwards(value):
  return value * (1 - _RELATIVE * np.sign(value))


def _upwards(value):
  return value * (1 + _RELATIVE * np.sign(value))
