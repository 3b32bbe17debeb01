"""Independent generalised Gaussian noise, exp(-|z_i|^p): the L1 certificate."""

import functools
import math

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
  gamma_sigma,
  in_norm,
)
from certjax.smoothing._protocol import Smoothing

_MARGIN = 1e-12  # scipy's inverse incomplete gamma and normal functions: below 1e-14 (tests).


def expp(
  *,
  p: float,
  scale: float | None = None,
  sigma: float | None = None,
  norm: str = 'l1',
  shape: tuple | None = None,
) -> Smoothing:
  r"""Independent noise of density proportional to exp(-|z_i / lambda|^p).

    p >= 1: radius = lambda P^{-1}(1/p, 2 p_a - 1)^{1/p}           (the quantile of one coordinate)
    p < 1:  radius = lambda int_{1 - p_a}^{1/2} dq / Phi(q)
                   = lambda int_c^inf dt / (e^{t^p} - 1),  c^p = P^{-1}(1/p, 2 (1 - p_a)),
            Phi(q) = (1 - e^{-c(q)^p}) / (2 Gamma(1 + 1/p))

  in L1, P the lower regularised incomplete gamma function; p = 1 is Laplace noise, p = 2 Gaussian
  noise of standard deviation lambda / sqrt(2), whose L2 certificate is used too. Other norms are
  converted (from 'l1': divided by sqrt(d) and d).

  Args:
    p: exponent.
    scale: lambda, in pixel values.
    sigma: standard deviation, lambda sqrt(Gamma(3/p) / Gamma(1/p)); one of the two.
    norm: 'l1', 'l2' or 'linf'.
    shape: (H, W, C), only for the converted norms.

  Returns:
    A `Smoothing`, unit 'pixel value'.

  Raises:
    ValueError: unless exactly one of `scale` and `sigma` is given and positive; for bad `p` or
      `norm`; if a converted norm lacks `shape`.

  Example:
    >>> round(float(expp(p=4, sigma=1.0).radius(0.9)), 6)
    1.335214

  References:
    Yang et al. 2020 (arXiv:2002.08118).
  """
  check_positive(p=p)
  p = float(p)
  shape, dimension = (None, None) if shape is None else check_shape(shape)
  scale = check_scale(scale, sigma, gamma_sigma(1, p))
  direct = {'l1': flow(*_bounds(p))}
  if p == 2:
    direct['l2'] = flow(*gaussian_bounds(math.sqrt(0.5)))
  radius = in_norm(norm, direct, scale, dimension)
  return Smoothing(jax.tree_util.Partial(_sample, scale, 1 / p), radius, norm, 'pixel value', shape)


def gaussian_bounds(sigma: float):
  """Bounds for Gaussian noise, -sigma Phi^-1(tail)."""

  def value(tail):
    return -sigma * special.ndtri(np.maximum(tail, 1e-300))

  return lambda tail: value(tail) * (1 - _MARGIN), lambda tail: value(tail) * (1 + _MARGIN)


@functools.lru_cache(maxsize=16)
def _bounds(p):
  shape = 1 / p
  if p < 1:
    height = 1 / (2 * special.gamma(1 + shape))
    return differential(lambda tail: -height * np.expm1(-special.gammaincinv(shape, 2 * tail)))

  def quantile(tail):
    tail = np.maximum(tail, 1e-300)
    middle = np.maximum(1 - 2 * tail, 0.0)  # Exact for tails in [1/4, 1/2].
    power = np.where(
      tail > 0.25, special.gammaincinv(shape, middle), special.gammainccinv(shape, 2 * tail)
    )
    # The density is largest at 0: the chord is a lower bound, and holds where c^p underflows.
    return np.maximum(power ** (1 / p), middle * special.gamma(1 + shape))

  return lambda tail: quantile(tail) * (1 - _MARGIN), lambda tail: quantile(tail) * (1 + _MARGIN)


def _sample(scale, size, key, x):
  size_key, sign_key = jax.random.split(key)
  # In logarithms: Gamma(1 / p) underflows for large p, its p-th root does not.
  magnitude = jnp.exp(jax.random.loggamma(size_key, size, x.shape, x.dtype) * size)
  return x + scale * magnitude * jax.random.rademacher(sign_key, x.shape, x.dtype)
