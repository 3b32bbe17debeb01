"""Power-law noise of the L2 norm, (1 + |z|_2^k)^-a: L2 by the level-set method."""

import functools
import math

import jax
import numpy as np
from scipy import special

from certjax.smoothing._exp2 import sphere_direction
from certjax.smoothing._family import (
  check_positive,
  check_scale,
  check_shape,
  gamma_ratio,
  in_norm,
  one_class,
)
from certjax.smoothing._level_set import IsotropicLaw, level_set
from certjax.smoothing._protocol import Smoothing

_OUTSIDE = 1e-20  # Probability beyond each end of the radial quadrature.


def pow2(
  *,
  k: float,
  a: float,
  shape: tuple,
  scale: float | None = None,
  sigma: float | None = None,
  norm: str = 'l2',
) -> Smoothing:
  r"""Noise of density proportional to (1 + ||z / lambda||_2^k)^{-a}.

  The radius is the level-set method's, see `certjax.smoothing._level_set`; it uses only p_a
  (p_b <= 1 - p_a). 'l1' has the radius of 'l2', 'linf' that over sqrt(d): converted, not tight.
  ||z||^k is a ratio of Gamma(d / k) and Gamma(a - d / k) variables.

  Args:
    k: exponent.
    a: exponent of the tail, above d / k.
    shape: (H, W, C); d is its product, at least 2.
    scale: lambda, in pixel values.
    sigma: standard deviation of each coordinate, for a > (d + 2) / k; one of the two.
    norm: 'l2', 'l1' or 'linf'.

  Returns:
    A `Smoothing`, unit 'pixel value'.

  Raises:
    ValueError: unless exactly one of `scale` and `sigma` is given and positive; if a <= d / k; for
      bad `k`, `shape` or `norm`.

  Example:
    >>> pow2(k=2, a=30, sigma=0.5, shape=(4, 4, 1)).norm
    'l2'

  References:
    Yang et al. 2020 (arXiv:2002.08118).
  """
  check_positive(k=k, a=a)
  k, a = float(k), float(a)
  shape, d = check_shape(shape)
  if d < 2 or a <= d / k:
    raise ValueError(
      f'`a` must exceed d / k={d / k:g} and `shape` hold d >= 2 coordinates, got a={a}, d={d}.'
    )
  top, rest = d / k, a - d / k
  unit_sigma = math.inf
  if rest > 2 / k:
    unit_sigma = math.sqrt(gamma_ratio(top, 2 / k) * gamma_ratio(rest, -2 / k) / d)
  scale = check_scale(scale, sigma, unit_sigma)
  radius = in_norm(norm, {'l2': _bound(d, k, a)}, scale, d)
  sample = jax.tree_util.Partial(_sample, scale, top, rest, 1 / k)
  return Smoothing(sample, radius, norm, 'pixel value', shape)


@functools.lru_cache(maxsize=16)
def _bound(d, k, a):
  return one_class(level_set(_law(d, k, a)))


def _law(d, k, a):
  top, rest = d / k, a - d / k
  low, median = special.betaincinv(top, rest, [_OUTSIDE, 0.5])
  high = special.betaincinv(rest, top, _OUTSIDE)  # 1 minus the upper end.
  span = (max(low / (1 - low), 1e-290), median / (1 - median), min(1 / high - 1, 1e290))

  def log_ratio(w, t):
    # s^k - r^k = (1 + r^k) (e^{-t / a} - 1).
    change = (1 + 1 / w) * np.expm1(-t / a)
    inside = change > -1
    return np.where(inside, np.log1p(np.where(inside, change, 0.0)) / k, -np.inf)

  return IsotropicLaw(
    d, k, span,
    log_density=lambda y: top * y - a * np.logaddexp(0, y),
    log_ratio=log_ratio,
    slope=lambda r: a * k / r / (1 + r**-k),
  )  # fmt: skip


def _sample(scale, top, rest, power, key, x):
  direction_key, top_key, rest_key = jax.random.split(key, 3)
  ratio = jax.random.gamma(top_key, top, (), x.dtype)
  ratio = ratio / jax.random.gamma(rest_key, rest, (), x.dtype)
  return x + scale * ratio**power * sphere_direction(direction_key, x.shape, x.dtype)
