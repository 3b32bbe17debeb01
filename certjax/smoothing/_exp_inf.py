"""Exponential noise of the largest coordinate, |z|_inf^-j exp(-|z|_inf^k): L1 and Linf.

The score of a shift acts through the largest coordinate only. In Linf every coordinate moves,
so it acts always; in L1 one moves, so it acts with probability 1 / d.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from certjax.smoothing._differential import differential
from certjax.smoothing._family import (
  check_positive,
  check_scale,
  check_shape,
  flow,
  gamma_ratio,
  gamma_sigma,
  in_norm,
)
from certjax.smoothing._protocol import Smoothing

_MARGIN = 1e-12  # A ratio of gamma functions (1e-13) and elementary functions.
_MOST_SHAPE = 2e5  # Deep in the lower tail scipy's gammainc is 2e-11 off at 3e5, 8e-6 at 1e6.


def exp_inf(
  *,
  k: float,
  shape: tuple,
  j: float = 0.0,
  scale: float | None = None,
  sigma: float | None = None,
  norm: str = 'linf',
) -> Smoothing:
  r"""Noise of density proportional to ||z||_inf^{-j} exp(-||z / lambda||_inf^k).

    l1:   2 lambda c (p_a - 1/2),  c = d / (d - 1) G((d - j) / k) / G((d - 1 - j) / k)
    linf: lambda int_{1 - p_a}^{1/2} dp / Phi(p),  j = 0,
          Phi(p) = (k / 2) G(s') / G(s) Q(s', w),  2 p = Q(s, w),  s = d / k, s' = (d + k - 1) / k,

  Q the upper regularised incomplete gamma function (for k < 1 the lower one, the score falling
  with ||z||); for k = 1 that is lambda ln(1 / (2 (1 - p_a))). The differential method makes both;
  in L1, Phi is constant only for p >= 1 / (2 d): below, with j = 0, its true value Phi_inf(d p) / d
  is used and the radius grows beyond the straight line. Other norms, and Linf for j > 0, are
  converted; where both bounds apply, the larger radius counts.

  Args:
    k: exponent.
    shape: (H, W, C); d is its product, at least 2.
    j: exponent of the pole, 0 <= j < d - 1.
    scale: lambda, in pixel values.
    sigma: standard deviation of each coordinate; one of the two.
    norm: 'linf', 'l1' or 'l2' (converted).

  Returns:
    A `Smoothing`, unit 'pixel value'.

  Raises:
    ValueError: unless exactly one of `scale` and `sigma` is given and positive; for bad `k`, `j`,
      `shape` or `norm`.

  Example:
    >>> round(float(exp_inf(k=1, sigma=1.0, shape=(32, 32, 3)).radius(0.99)), 6)
    0.002205

  References:
    Yang et al. 2020 (arXiv:2002.08118).
  """
  check_positive(k=k)
  k, j = float(k), float(j)
  shape, d = check_shape(shape)
  if not 0 <= j < d - 1:
    raise ValueError(
      f'`j` must lie in [0, d - 1) with d={d} coordinates (the product of `shape`), got j={j}.'
    )
  scale = check_scale(scale, sigma, (((d - 1) / 3 + 1) / d) ** 0.5 * gamma_sigma(d, k, j))
  slope = 2 * d / (d - 1) * gamma_ratio((d - 1 - j) / k, 1 / k)
  whole = norm_bounds(d, k) if j == 0 else None
  direct = {'l1': flow(*face_bounds(d, slope, whole))}
  if whole is not None:
    direct['linf'] = flow(*whole)
  radius = in_norm(norm, direct, scale, d)
  sample = jax.tree_util.Partial(_sample, scale, (d - j) / k, 1 / k)
  return Smoothing(sample, radius, norm, 'pixel value', shape)


@functools.lru_cache(maxsize=16)
def norm_bounds(dimension: int, k: float):
  """Bounds (lower, upper) at scale 1 for exp(-|z|^k), any norm, when every shift moves |z| fully.

  The score is +-k |z|^{k-1} with a fair sign; |z|^k ~ Gamma(d / k).

  Args:
    dimension: d.
    k: exponent.

  Returns:
    Two functions of the tail, see `flow`.
  """
  if k == 1:

    def closed(tail):
      tail = np.maximum(tail, 1e-300)
      # 2 tail - 1 is exact in [-1/2, 0].
      near = -np.log1p(np.maximum(2 * tail - 1, -0.5))
      return np.where(tail > 0.25, near, -np.log(2 * tail))

    return lambda tail: closed(tail) * (1 - _MARGIN), lambda tail: closed(tail) * (1 + _MARGIN)
  size, pushed = dimension / k, (dimension + k - 1) / k
  if size > _MOST_SHAPE:
    raise ValueError(
      f'`k`={k:g} with {dimension} coordinates: d / k must be at most {_MOST_SHAPE:g}, beyond it the '
      f'incomplete gamma function is not known well enough to prove anything; use a larger `k`.'
    )
  factor = k / 2 * gamma_ratio(size, 1 - 1 / k)
  if k > 1:
    return differential(
      lambda tail: factor * special.gammaincc(pushed, special.gammainccinv(size, 2 * tail))
    )
  return differential(
    lambda tail: factor * special.gammainc(pushed, special.gammaincinv(size, 2 * tail))
  )


def face_bounds(dimension: int, slope: float, whole=None):
  """Bounds at scale 1 for a shift of one coordinate that acts where this is the largest.

  Phi(p) is 1 / `slope` for p >= 1 / (2 d), and Phi_inf(d p) / d below, whose integral is the Linf
  radius at the tail d p.

  Args:
    dimension: d.
    slope: 1 / Phi(1/2).
    whole: bounds of the Linf radius; None where unknown (then the straight line goes on).

  Returns:
    Two functions of the tail, see `flow`.
  """
  edge = 0.5 / dimension

  def make(rest, margin, unknown):
    def bound(tail):
      line = slope * (0.5 - np.maximum(tail, edge if rest else 0)) * margin
      below = tail < edge
      if rest is None:
        return np.where(below, line + unknown, line)
      more = rest(np.minimum(dimension * np.where(below, tail, edge), 0.5))
      return np.where(below, line + more, line)

    return bound

  lower, upper = whole or (None, None)
  return make(lower, 1 - _MARGIN, 0.0), make(upper, 1 + _MARGIN, np.inf)


def cube_direction(key, shape, dtype):
  """A point on the surface of [-1, 1]^d by the cone measure."""
  z = jax.random.uniform(key, shape, dtype, minval=-1, maxval=1)
  return z / jnp.max(jnp.abs(z))


def _sample(scale, size, power, key, x):
  direction_key, radius_key = jax.random.split(key)
  radius = jax.random.gamma(radius_key, size, (), x.dtype) ** power
  return x + scale * radius * cube_direction(direction_key, x.shape, x.dtype)
