"""Independent power-law noise: the L1 certificate of the differential method."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from certjax.smoothing._differential import differential
from certjax.smoothing._family import check_positive, check_scale, check_shape, flow, in_norm
from certjax.smoothing._protocol import Smoothing


def pareto(
  *,
  a: float,
  scale: float | None = None,
  sigma: float | None = None,
  norm: str = 'l1',
  shape: tuple | None = None,
) -> Smoothing:
  r"""Independent noise of density proportional to (1 + |z_i| / lambda)^{-(a + 1)}.

    Phi(q) = (a / 2) (1 - (1 - 2 q)^{(a + 1) / a}),  radius = lambda int_{1 - p_a}^{1/2} dq / Phi(q)
           = lambda (2 p_a - 1) / a  2F1(1, b; b + 1; (2 p_a - 1)^{1 + 1/a}),  b = a / (a + 1)

  The integral is what is computed, as scipy's 2F1 loses digits near p_a = 1. 'l2' and 'linf' are
  converted from 'l1' (divided by sqrt(d) and d).

  Args:
    a: exponent of the tail of the distribution, Pr[|z_i| > t] = (1 + t / lambda)^{-a}.
    scale: lambda, in pixel values.
    sigma: standard deviation, lambda (2 / ((a - 1) (a - 2)))^{1/2}, for a > 2; one of the two.
    norm: 'l1', 'l2' or 'linf'.
    shape: (H, W, C), only for the converted norms.

  Returns:
    A `Smoothing`, unit 'pixel value'.

  Raises:
    ValueError: unless exactly one of `scale` and `sigma` is given and positive, `sigma` only for
      a > 2; if a converted norm lacks `shape`.

  Example:
    >>> round(float(pareto(a=3, sigma=1.0).radius(0.9)), 6)
    0.448919

  References:
    Yang et al. 2020 (arXiv:2002.08118).
  """
  check_positive(a=a)
  a = float(a)
  shape, dimension = (None, None) if shape is None else check_shape(shape)
  unit_sigma = math.sqrt(2 / ((a - 1) * (a - 2))) if a > 2 else math.inf
  scale = check_scale(scale, sigma, unit_sigma)
  radius = in_norm(norm, {'l1': flow(*_bounds(a))}, scale, dimension)
  return Smoothing(jax.tree_util.Partial(_sample, scale, a), radius, norm, 'pixel value', shape)


@functools.lru_cache(maxsize=16)
def _bounds(a):
  return differential(lambda tail: -a / 2 * np.expm1((a + 1) / a * _log1p(-2 * tail)))


def _log1p(x):
  with np.errstate(divide='ignore'):  # The tail 1/2: Phi is a / 2 there.
    return np.log1p(x)


def _sample(scale, a, key, x):
  size_key, sign_key = jax.random.split(key)
  size = jnp.expm1(jax.random.exponential(size_key, x.shape, x.dtype) / a)
  return x + scale * size * jax.random.rademacher(sign_key, x.shape, x.dtype)
