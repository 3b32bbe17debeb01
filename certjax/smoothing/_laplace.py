r"""Laplace smoothing: the L1 certificate of Teng et al. 2020 and the exact Linf growth bound.

L1: a shift by delta changes the density by a factor within e^(+-||delta||_1 / scale), hence
p_a falls and p_b grows by no more than that, and so does 1 - p_a grow.

Linf (the differential method of Yang et al. 2020): moving at unit speed, no region of
probability p gains probability faster than Phi(p) / scale, where

  Phi(p) = max_{P(U) = p} E[1_U S],  S = sum_i sign(z_i) = 2 K - d,  K ~ Binomial(d, 1/2),

so a class of probability p needs the distance scale G(p), G(p) = int_p^{1/2} dq / Phi(q), to
reach 1/2, and with G(1 - p) = -G(p) the label stays for radii below
scale (G(p_b) - G(p_a)) / 2. Phi is concave and linear between the tails t_k = P(K >= k), where
Phi(t_k) = k P(K = k) by sum_{j >= k} (2 j - d) C(d, j) = k C(d, k); the integral between two
neighbours is therefore elementary,

  int_{t_{k+1}}^{t_k} dq / Phi(q) = ln(k / (d - k)) / (2 k - d) = 2 atanh(s / d) / s,  s = 2 k - d,

and only the piece that contains p needs a binomial tail.
"""

import functools
import math
from typing import NamedTuple

import jax
import numpy as np

from certjax.smoothing._protocol import Smoothing, image_shape, own_parameter

_RELATIVE = 1e-14  # A logarithm, a division and a few products: below 10 ulp (2e-15) together.
_LINF_RELATIVE = 1e-11  # Up to 1e4 summands, each off by an ulp (2e-12), and the tails' rounding.
_SMALLEST = 1e-290  # Smaller probabilities are raised to it, which proves less.
_BITS = 1100  # Fixed point of the binomial tails: 2^-1100 is far below `_SMALLEST`.


def laplace(*, scale=None, sigma=None, norm='l1', shape=None) -> Smoothing:
  r"""Independent Laplace noise.

    x~ = x + z,  density of z proportional to exp(-||z||_1 / scale),  scale = sigma / sqrt(2)
    l1:    radius = max{(scale / 2) ln(p_a / p_b), -scale ln(1 - p_a + p_b)}
                  = -scale ln(2 (1 - p_a))  with p_b = 1 - p_a
    linf:  radius = (scale / 2) (G(p_b) - G(p_a)),  G(p) = int_p^{1/2} dq / Phi(q)

  with Phi(p) the largest E[1_U sum_i sign(z_i)] over the regions U of probability p.

  Args:
    scale: of the law, in pixel values.
    sigma: standard deviation of a coordinate instead.
    norm: 'l1' or 'linf'.
    shape: (H, W, C) of the images; needed for 'linf', whose radius depends on d.

  Returns:
    A `Smoothing` in the given norm, unit 'pixel value'. One compiled program serves all scales.

  Raises:
    ValueError: unless exactly one of `scale` and `sigma` is given, positive and finite; on an
      unknown norm, or 'linf' without `shape`.

  Example:
    >>> round(float(laplace(scale=1.0).radius(0.9)), 6)
    1.609438

  References:
    Teng, Lee & Yuan 2020, l1 Adversarial Robustness Certificates; Yang et al. 2020
    (arXiv:2002.08118), differential method.
  """
  scale = own_parameter('scale', scale, sigma, 1 / math.sqrt(2))
  shape = None if shape is None else image_shape(shape)
  if norm not in _RADII:
    raise ValueError(f'`norm` must be one of {sorted(_RADII)}, got {norm!r}.')
  if norm == 'linf' and shape is None:
    raise ValueError("norm='linf' needs `shape`: its radius depends on the dimension.")
  radius = functools.partial(_radius, _RADII[norm](shape), scale)
  return Smoothing(jax.tree_util.Partial(_sample, scale), radius, norm, 'pixel value', shape)


def _sample(scale, key, x):
  return x + scale * jax.random.laplace(key, x.shape, x.dtype)


def _radius(distance, scale, p_a, p_b=None, *, x=None):
  del x  # The certificate is the same everywhere.
  p_a = np.clip(np.asarray(p_a, np.float64), 0.0, np.nextafter(1.0, 0.0))  # NaN stays NaN.
  p_b = None if p_b is None else np.maximum(np.asarray(p_b, np.float64), _SMALLEST)
  value = np.nextafter(scale * distance(p_a, p_b) * (1 - _RELATIVE), -np.inf)
  proved = (value > 0) & (p_a > (0.5 if p_b is None else p_b))  # False for NaN.
  return np.where(proved, value, 0.0)


def _l1_distance(p_a, p_b):
  """Teng et al.'s larger branch, at scale 1."""
  if p_b is None:  # The second branch: it is the larger one, as 4 p_a (1 - p_a) <= 1.
    return _minus_log(2 * (p_a - 0.5), 2 * (1 - p_a))
  gap = p_a - p_b
  ratio = np.maximum(p_a, _SMALLEST) / p_b
  first = np.where(ratio < 2, np.log1p(np.maximum(gap, 0.0) / p_b), np.log(ratio))
  return np.maximum(first / 2, _minus_log(gap, (1 - p_a) + p_b))


def _minus_log(gap, rest):
  """-ln(rest) of rest = 1 - gap, by whichever of the two keeps its digits; 0 if gap <= 0."""
  near = -np.log1p(-np.clip(gap, 0.0, 0.5))
  return np.where(gap < 0.5, near, -np.log(np.maximum(rest, _SMALLEST)))


def _linf_distance(dimension):
  """(G(p_b) - G(p_a)) / 2, rounded down, in dimension d."""

  def distance(p_a, p_b):
    # 1 - p_a is exact where p_a >= 1/2; below, G is that of p_a itself, with a minus.
    small = np.where(p_a >= 0.5, 1 - p_a, p_a)
    from_a = np.where(p_a >= 0.5, 1 - _LINF_RELATIVE, -1 - _LINF_RELATIVE) * _growth(
      dimension, small
    )
    if p_b is None:
      return from_a
    return (from_a + (1 - _LINF_RELATIVE) * _growth(dimension, np.minimum(p_b, 0.5))) / 2

  return distance


_RADII = {
  'l1': lambda shape: _l1_distance,
  'linf': lambda shape: _linf_distance(math.prod(shape)),
}


class _Pieces(NamedTuple):
  """Where Phi bends on [0, 1/2], from 1/2 downwards; piece j lies below end j."""

  end: np.ndarray  # 1/2, then tails P(K >= k).
  rate: np.ndarray  # Phi at the end.
  slope: np.ndarray  # Of Phi below the end.
  growth: np.ndarray  # G at the end.


def _growth(dimension, p):
  """G(p) for p in (0, 1/2], to a relative error below `_LINF_RELATIVE`."""
  pieces = _pieces(dimension)
  p = np.maximum(p, max(pieces.end[-1], _SMALLEST))  # Raising p proves less.
  # The piece with end[j + 1] < p <= end[j]; ends decrease.
  j = np.clip(np.searchsorted(-pieces.end, -p, side='right') - 1, 0, len(pieces.end) - 2)
  end, rate, slope = pieces.end[j], pieces.rate[j], pieces.slope[j]
  below = (end - p) / rate  # The integral if Phi were constant.
  bend = slope * below
  here = pieces.rate[j + 1] + slope * (p - pieces.end[j + 1])  # Phi(p), a sum of positives.
  safe = np.where(slope > 0, slope, 1.0)
  near = np.where(slope > 0, -np.log1p(-np.clip(bend, 0.0, 0.5)) / safe, below)
  return pieces.growth[j] + np.where(bend < 0.5, near, np.log(rate / here) / safe)


@functools.lru_cache(maxsize=16)
def _pieces(dimension):
  """Exact integers in fixed point, so a tail is off by its conversion to float64 alone."""
  d, one = dimension, 1 << _BITS
  k = d // 2 + d % 2  # The smallest k with a slope 2 k - d >= 0.
  mass = (math.comb(d, k) << _BITS) >> d  # P(K = k)
  tail = one // 2 + (0 if d % 2 else mass // 2)  # P(K >= k)
  ends, rates, slopes, growths, growth = [], [], [], [], 0.0
  while k <= d and tail / one > _SMALLEST:
    slope = 2 * k - d
    ends.append(min(tail / one, 0.5))
    rates.append(k * mass / one)
    slopes.append(float(slope))
    growths.append(growth)
    if slope == 0:
      growth = 1 / d  # Half of 2 / d: the piece below 1/2.
    elif k < d:
      growth += 2 * math.atanh(slope / d) / slope
    tail, mass, k = tail - mass, mass * (d - k) // (k + 1), k + 1
  last = tail / one if k <= d else 0.0
  rate = k * mass / one if k <= d else 0.0
  columns = ([*ends, last], [*rates, rate], [*slopes, 0.0], [*growths, growth])
  return _Pieces(*(np.array(column) for column in columns))
