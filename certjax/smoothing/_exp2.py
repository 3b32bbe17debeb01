"""Exponential noise of the L2 norm, |z|_2^-j exp(-|z|_2^k): L2, Gaussian for k = 2."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from certjax.smoothing._expp import gaussian_bounds
from certjax.smoothing._family import (
  check_positive,
  check_scale,
  check_shape,
  flow,
  gamma_ratio,
  gamma_sigma,
  in_norm,
  one_class,
)
from certjax.smoothing._level_set import IsotropicLaw, level_set
from certjax.smoothing._protocol import Smoothing

_SHARES = special.gammainc, special.gammaincc
_MARGIN = 1e-12  # scipy's betaincinv: 109 ulp (2e-14), halved by the square root.


def exp2(
  *,
  k: float,
  shape: tuple,
  j: float = 0.0,
  scale: float | None = None,
  sigma: float | None = None,
  norm: str = 'l2',
) -> Smoothing:
  r"""Noise of density proportional to ||z||_2^{-j} exp(-||z / lambda||_2^k).

    k = 1, j = 0: radius = lambda (d - 1) atanh(m),  m^2 = I^{-1}(2 p_a - 1; 1/2, (d - 1) / 2)
    k = 2, j = 0: radius = lambda / sqrt(2) Phi^-1(p_a)
    else:         the level-set method, see `certjax.smoothing._level_set`

  The first two are flows and use p_b; the level-set method uses only p_a (p_b <= 1 - p_a).
  'l1' has the radius of 'l2', 'linf' that over sqrt(d): converted, not tight.

  Args:
    k: exponent.
    shape: (H, W, C); d is its product, at least 2.
    j: exponent of the pole, 0 <= j < d.
    scale: lambda, in pixel values.
    sigma: standard deviation of each coordinate; one of the two.
    norm: 'l2', 'l1' or 'linf'.

  Returns:
    A `Smoothing`, unit 'pixel value'.

  Raises:
    ValueError: unless exactly one of `scale` and `sigma` is given and positive; for bad `k`, `j`,
      `shape` or `norm`.

  Example:
    >>> round(float(exp2(k=1, sigma=1.0, shape=(32, 32, 3)).radius(0.9)), 6)
    1.281296

  References:
    Yang et al. 2020 (arXiv:2002.08118).
  """
  check_positive(k=k)
  k, j = float(k), float(j)
  shape, d = check_shape(shape)
  if d < 2 or not 0 <= j < d:
    raise ValueError(
      f'`j` must lie in [0, d) and `shape` hold d >= 2 coordinates, got j={j}, d={d}; in one '
      f'dimension use expp.'
    )
  scale = check_scale(scale, sigma, gamma_sigma(d, k, j) / math.sqrt(d))
  radius = in_norm(norm, {'l2': _bound(d, k, j)}, scale, d)
  sample = jax.tree_util.Partial(_sample, scale, (d - j) / k, 1 / k)
  return Smoothing(sample, radius, norm, 'pixel value', shape)


def sphere_direction(key, shape, dtype):
  """A uniform point on the unit sphere."""
  z = jax.random.normal(key, shape, dtype)
  return z / jnp.sqrt(jnp.sum(z**2))


@functools.lru_cache(maxsize=16)
def _bound(d, k, j):
  if (k, j) == (2, 0):
    return flow(*gaussian_bounds(math.sqrt(0.5)))
  if (k, j) == (1, 0):
    return flow(
      lambda tail: _atanh(d, tail) * (1 - _MARGIN), lambda tail: _atanh(d, tail) * (1 + _MARGIN)
    )
  return one_class(level_set(_law(d, k, j)))


def _atanh(d, tail):
  """(d - 1) atanh(m) as asinh(m / sqrt(1 - m^2)): neither end cancels."""
  half = (d - 1) / 2
  tail = np.maximum(tail, 1e-300)
  middle = np.maximum(1 - 2 * tail, 0.0)  # Exact for tails in [1/4, 1/2].
  rest = special.betaincinv(half, 0.5, 2 * tail)
  square = np.where(tail > 0.25, special.betaincinv(0.5, half, middle), 1 - rest)
  rest = np.where(tail > 0.25, 1 - square, rest)
  return (d - 1) * np.arcsinh(np.sqrt(square / rest))


def _law(d, k, j):
  shape, c = (d - j) / k, j / k
  moments = []  # (factor, shape) of E[k r^(k-1)] and E[j / r]: r^k is a gamma variable.
  for factor, delta in [(k, 1 - 1 / k), (j, -1 / k)]:
    if factor > 0:
      finite = shape + delta > 0
      factor *= gamma_ratio(shape, delta) if finite else math.inf
      moments.append((factor, shape + delta if finite else shape))

  def quantile(below, above):
    near = special.gammaincinv(shape, np.minimum(below, 0.5))
    if shape > 1e5:  # Farther down scipy's series for gammainc stops too early (8e-8 off at 1e6).
      near = np.maximum(near, shape - 4.2 * math.sqrt(shape))
    return np.where(below < 0.5, near, special.gammainccinv(shape, np.minimum(above, 0.5)))

  def moment(w):
    return tuple(sum(m * share(s, w) for m, s in moments) for share in _SHARES)

  def stretch(w, t):
    if j == 0:
      return -t / w
    # ln g = -c ln w - w, so c y + w (e^y - 1) = -t for y = ln((s / r)^k). As u = (w / c) e^y has
    # u + ln u = right (wrightomega's equation), y is a difference; Newton restores its digits.
    right = (w - t) / c + np.log(w / c)
    y = right - special.wrightomega(right) - np.log(w / c)
    for _ in range(2):
      y -= (c * y + w * np.expm1(y) + t) / (c + w * np.exp(y))
    return np.expm1(y)

  slope = lambda r: k * r ** (k - 1) + j / r
  valley = (c / (k - 1)) ** (1 / k) if k > 1 else math.inf  # The slope falls, then rises.

  def slopes(low, high):
    return slope(np.clip(valley, low, high)), np.maximum(slope(low), slope(high))

  return IsotropicLaw(
    d, k, quantile,
    mass=lambda w: tuple(share(shape, w) for share in _SHARES),
    moment=moment,
    stretch=stretch,
    # d ln u / d ln w = -v / (c + v), v = w (1 + u) = s^k: it rises with w.
    trend=lambda w, u: c - (k - 1) * w * (1 + u),
    slopes=slopes,
  )  # fmt: skip


def _sample(scale, size, power, key, x):
  direction_key, radius_key = jax.random.split(key)
  radius = jax.random.gamma(radius_key, size, (), x.dtype) ** power
  return x + scale * radius * sphere_direction(direction_key, x.shape, x.dtype)
