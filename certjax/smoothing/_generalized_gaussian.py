"""Generalized Gaussian smoothing: independent coordinates of density ~ exp(-|z / b|^q), q >= 1.

q = 1 is Laplace, q = 2 Gaussian, q -> inf uniform. What is known for L_p, p >= 2, is a limit on
what can be certified (`generalized_gaussian_limit`), no certificate. This file proves what
holds in L1: with F the distribution function of one coordinate and f its density, any set of
probability P changes at most at the rate f(F^-1(P)) when one coordinate moves (the score
-d log f / dz grows with z, so a half-space of that coordinate is worst). Hence F^-1(P) is
1-Lipschitz in every coordinate, that is, in L1.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from certjax.smoothing._gaussian import dimension_factor, exponent
from certjax.smoothing._protocol import Smoothing

_RELATIVE = 1e-12  # scipy's inverse incomplete gamma costs a quantile up to 7e-15 for 1 <= q <= 16.
_LARGEST_Q = 16.0  # Beyond, quantiles near 1/2 underflow.


def generalized_gaussian(
  *,
  q: float,
  sigma: float | None = None,
  scale: float | None = None,
  norm: str = 'l1',
  shape: tuple | None = None,
) -> Smoothing:
  r"""Independent generalized Gaussian noise, density ~ exp(-|z / scale|^q).

    x~ = x + z,  |z| = scale G^(1/q),  G ~ Gamma(1/q), random sign
    radius = (F^-1(p_a) - F^-1(p_b)) / 2,  F^-1(p) = sign scale GammaInv(1/q, |2 p - 1|)^(1/q)
    sigma^2 = scale^2 Gamma(3/q) / Gamma(1/q)

  in L1, exact (a half-space facing along one coordinate attains it). Other norms follow from
  |delta|_1 <= d^(1 - 1/p) |delta|_p, except for q = 2, which is Gaussian and certified in L2
  first. No better L_p certificate is proved for q > 2.

  Args:
    q: exponent of the density, 1 <= q <= 16.
    sigma: standard deviation of each coordinate, in pixel values; this or `scale`.
    scale: the density's scale.
    norm: 'l1', 'l2', 'l3', ..., 'linf'.
    shape: (H, W, C), needed beyond 'l1' (beyond 'l2' for q = 2).

  Returns:
    A `Smoothing`, unit 'pixel value'. One compiled program serves all q and sigma.

  Raises:
    ValueError: unless exactly one of `sigma` and `scale` is given, positive and finite; on a bad
      `q`, on an unknown norm, or where a shape is missing.

  Example:
    >>> round(float(generalized_gaussian(q=1, scale=1.0).radius(0.9)), 6)  # -ln(2 (1 - .9))
    1.609438

  References:
    Kumar, Levine, Goldstein & Feizi 2020 (arXiv:2002.03239) for the law. Yang et al. 2020
    (arXiv:2002.08118) for the L1 radius with p_b = 1 - p_a.
  """
  q = float(q)
  if not 1 <= q <= _LARGEST_Q:
    raise ValueError(
      f'`q` must lie in [1, {_LARGEST_Q:g}], got q={q}: below 1 the density is not log-concave '
      f'and the proof fails; for a uniform law use `smoothing.uniform`.'
    )
  scale = _scale(q, sigma, scale)
  p = exponent(norm)
  if shape is None and p > (2 if q == 2 else 1):
    raise ValueError(
      f'the certificate of norm={norm!r}, q={q:g} depends on the dimension: pass `shape=(H, W, C)`.'
    )
  d = 1 if shape is None else math.prod(shape)
  shrink = dimension_factor(d, p) if q == 2 else float(d) ** (1 - 1 / p)

  def radius(p_a, p_b=None, *, x=None):
    del x  # The certificate is the same everywhere.
    high = _quantile(q, p_a)
    if p_b is None:  # F^-1(1 - p_a) = -F^-1(p_a).
      value = scale * (high - _RELATIVE * np.abs(high))
    else:
      low = _quantile(q, p_b)
      value = scale / 2 * (high - low - _RELATIVE * (np.abs(high) + np.abs(low)))
    value = np.nextafter(value / shrink * (1 - _RELATIVE), -np.inf)
    return np.where(value > 0, value, 0.0)  # False for NaN: nothing is proved.

  noise = jax.tree_util.Partial(_sample, q, scale)
  return Smoothing(noise, radius, norm, 'pixel value', None if shape is None else tuple(shape))


def _scale(q, sigma, scale):
  if (sigma is None) == (scale is None):
    raise ValueError(f'give exactly one of `sigma` and `scale`, got {sigma=} and {scale=}.')
  value = float(scale if sigma is None else sigma)
  if not 0 < value < math.inf:
    raise ValueError(f'`sigma` and `scale` must be positive and finite, got {sigma=}, {scale=}.')
  if sigma is None:
    return value
  return value * math.exp((math.lgamma(1 / q) - math.lgamma(3 / q)) / 2)


def _quantile(q, p):
  """F^-1(p) at scale 1. 2 p - 1 and 1 - p are exact where they are used."""
  p = np.asarray(p, np.float64)
  shape, p = p.shape, np.atleast_1d(p)  # numpy's power of a scalar differs in the last bit.
  p = np.where((p >= 0) & (p <= 1), p, np.nan)
  far = np.minimum(p, 1 - p)
  middle = special.gammaincinv(1 / q, np.abs(2 * p - 1)) ** (1 / q)
  tail = special.gammainccinv(1 / q, 2 * far) ** (1 / q)
  return (np.sign(p - 0.5) * np.where(far < 0.25, tail, middle)).reshape(shape)


@jax.jit
def _sample(q, scale, key, x):
  key_size, key_sign = jax.random.split(key)
  size = jnp.exp(jax.random.loggamma(key_size, 1 / q, x.shape, x.dtype) / q)
  return x + scale * size * jax.random.rademacher(key_sign, x.shape, x.dtype)
