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

  def shares(top, rest, w):
    # w / (1 + w) is a beta variable; each share from the argument that does not round to 1.
    return special.betainc(top, rest, w / (1 + w)), special.betainc(rest, top, 1 / (1 + w))

  def quantile(below, above):
    near = special.betaincinv(top, rest, np.minimum(below, 0.5))
    far = special.betaincinv(rest, top, np.minimum(above, 0.5))
    ratio = lambda part, rest: part / np.maximum(rest, 1e-300)
    return np.where(below < 0.5, ratio(near, 1 - near), ratio(1 - far, far))

  def moment(w):
    # a k E[w^(1 - 1/k) / (1 + w)]: again a beta integral.
    delta = 1 - 1 / k
    whole = k * gamma_ratio(top, delta) * gamma_ratio(rest, 1 / k)
    return tuple(whole * share for share in shares(top + delta, rest + 1 / k, w))

  slope = lambda r: a * k * r ** (k - 1) / (1 + r**k)
  peak = max(k - 1, 0) ** (1 / k)  # The slope rises, then falls.

  def slopes(low, high):
    return np.minimum(slope(low), slope(high)), slope(np.clip(peak, low, high))

  return IsotropicLaw(
    d, k, quantile,
    mass=lambda w: shares(top, rest, w),
    moment=moment,
    stretch=lambda w, t: (1 + 1 / w) * np.expm1(-t / a),
    trend=lambda w, u: w - (k - 1),  # d ln u / d ln w = -1 / (1 + w).
    slopes=slopes,
  )  # fmt: skip


def _sample(scale, top, rest, power, key, x):
  direction_key, top_key, rest_key = jax.random.split(key, 3)
  ratio = jax.random.gamma(top_key, top, (), x.dtype)
  ratio = ratio / jax.random.gamma(rest_key, rest, (), x.dtype)
  return x + scale * ratio**power * sphere_direction(direction_key, x.shape, x.dtype)
