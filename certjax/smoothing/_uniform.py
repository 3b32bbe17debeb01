"""Uniform smoothing in a cube: L1 and Linf certificates.

A shift by delta leaves the cubes around x and x' with the common share

  prod_i (1 - |delta_i| / (2 lam))  >=  1 - ||delta||_1 / (2 lam),

so no class's probability changes by more than ||delta||_1 / (2 lam): the smoothed classifier
is 1/(2 lam)-Lipschitz in L1 (Lee et al. 2019; Yang et al. 2020). In Linf the worst delta moves
every coordinate alike. Both bounds are attained.
"""

import math

import jax
import numpy as np

from certjax.smoothing._box import box_radius
from certjax.smoothing._protocol import Smoothing, image_shape, own_parameter

_RELATIVE = 1e-14  # log1p, expm1 and a handful of products: below 10 ulp (2e-15) together.


def uniform(*, lam=None, sigma=None, norm='l1', shape=None, box=False) -> Smoothing:
  r"""Noise that is uniform in a cube.

    x~ = x + u,  u ~ U(-lam, lam)^d,  lam = sqrt(3) sigma
    l1:    radius = lam (p_a - p_b)
    linf:  radius = 2 lam (1 - (1 - (p_a - p_b) / 2)^(1/d))

  Args:
    lam: half the side of the cube in pixel values.
    sigma: standard deviation of a coordinate instead.
    norm: 'l1' or 'linf'.
    shape: (H, W, C) of the images; needed for 'linf', whose radius depends on d.
    box: l1 only: certify the x' inside [0, 1]^d alone, which moves no coordinate past the edge
      and makes radii larger (`radius` then reads `x`; without it, it is the plain one).

  Returns:
    A `Smoothing` in the given norm, unit 'pixel value'. One compiled program serves all lam.

  Raises:
    ValueError: unless exactly one of `lam` and `sigma` is given, positive and finite; on an
      unknown norm, 'linf' without `shape` or with `box`.

  Example:
    >>> round(float(uniform(lam=1.0).radius(0.75, 0.25)), 6)
    0.5

  References:
    Lee et al. 2019 (arXiv:1906.04948); Yang et al. 2020 (arXiv:2002.08118); Voracek & Hein 2023
    for `box`.
  """
  lam = half_width(lam, sigma)
  shape = None if shape is None else image_shape(shape)
  if norm not in _RADII:
    raise ValueError(f'`norm` must be one of {sorted(_RADII)}, got {norm!r}.')
  if norm == 'linf' and (shape is None or box):
    raise ValueError(
      f"norm='linf' needs `shape`, for its radius depends on the dimension, and has no `box` "
      f'form: got shape={shape}, box={box}.'
    )
  radius = _RADII[norm](lam, shape, box)
  return Smoothing(jax.tree_util.Partial(_sample, lam), radius, norm, 'pixel value', shape)


def half_width(lam, sigma) -> float:
  """Half the width of uniform noise, from itself or from its standard deviation.

  Example:
    >>> round(half_width(None, 0.5), 6)
    0.866025
  """
  return own_parameter('lam', lam, sigma, math.sqrt(3))


def probability_gap(p_a, p_b):
  """p_a - p_b; 2 p_a - 1, exactly, where `p_b` is None.

  Example:
    >>> float(probability_gap(0.75, None))
    0.5
  """
  p_a = np.asarray(p_a, np.float64)
  return 2 * (p_a - 0.5) if p_b is None else p_a - np.asarray(p_b, np.float64)


def l1_radius(lam, box):
  """The radius function of a smoothed classifier that is 1/(2 lam)-Lipschitz in L1.

  Args:
    lam: half the width of the noise.
    box: see `uniform`; sound for coordinates that are independent under the noise only.

  Returns:
    `(p_a, p_b=None, *, x=None) -> float64[...]`.

  Example:
    >>> round(float(l1_radius(2.0, box=False)(0.75)), 6)
    1.0
  """

  def radius(p_a, p_b=None, *, x=None):
    gap = probability_gap(p_a, p_b)
    plain = _below(lam * gap)
    if not box or x is None:
      return plain
    # The greedy radius is never smaller; the maximum only undoes its larger rounding margin.
    return np.maximum(plain, box_radius(np.nextafter(gap, -np.inf), lam, x))

  return radius


def _linf_radius(lam, shape, box):
  del box
  dimension = math.prod(shape)

  def radius(p_a, p_b=None, *, x=None):
    del x  # The certificate is the same everywhere.
    lost = np.minimum(probability_gap(p_a, p_b), 1.0) / 2
    return _below(-2 * lam * np.expm1(np.log1p(-lost) / dimension))

  return radius


_RADII = {'l1': lambda lam, shape, box: l1_radius(lam, box), 'linf': _linf_radius}


def _below(value):
  """Strictly below a positive value; 0 for what is not positive, NaN included."""
  value = np.nextafter(value * (1 - _RELATIVE), -np.inf)
  return np.where(value > 0, value, 0.0)


def _sample(lam, key, x):
  return x + lam * jax.random.uniform(key, x.shape, x.dtype, -1, 1)
