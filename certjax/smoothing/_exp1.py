"""Exponential noise of the L1 norm, exp(-|z|_1^k): Laplace noise for k = 1."""

import jax
import jax.numpy as jnp

from certjax.smoothing._exp_inf import norm_bounds
from certjax.smoothing._family import (
  check_positive,
  check_scale,
  check_shape,
  flow,
  gamma_sigma,
  in_norm,
)
from certjax.smoothing._protocol import Smoothing


def exp1(
  *,
  k: float,
  shape: tuple,
  scale: float | None = None,
  sigma: float | None = None,
  norm: str = 'l1',
) -> Smoothing:
  r"""Noise of density proportional to exp(-||z / lambda||_1^k).

    l1: lambda int_{1 - p_a}^{1/2} dp / Phi(p), Phi as in `exp_inf` in Linf;
        k = 1: lambda ln(1 / (2 (1 - p_a)))

  A shift of one coordinate moves ||z||_1 fully, up or down with equal probability, and ||z||_1^k ~
  Gamma(d / k): the law of the score is that of `exp_inf` under a Linf shift. 'l2' and 'linf' are
  converted (divided by sqrt(d) and d).

  Args:
    k: exponent.
    shape: (H, W, C); d is its product.
    scale: lambda, in pixel values.
    sigma: standard deviation of each coordinate; one of the two.
    norm: 'l1', 'l2' or 'linf'.

  Returns:
    A `Smoothing`, unit 'pixel value'.

  Raises:
    ValueError: unless exactly one of `scale` and `sigma` is given and positive; for bad `k`,
      `shape` or `norm`.

  Example:
    >>> round(float(exp1(k=1, scale=1.0, shape=(8, 8, 1)).radius(0.9)), 6)
    1.609438

  References:
    Yang et al. 2020 (arXiv:2002.08118); Teng et al. 2020 for k = 1.
  """
  check_positive(k=k)
  k = float(k)
  shape, d = check_shape(shape)
  scale = check_scale(scale, sigma, (2 / (d * (d + 1))) ** 0.5 * gamma_sigma(d, k))
  radius = in_norm(norm, {'l1': flow(*norm_bounds(d, k))}, scale, d)
  sample = jax.tree_util.Partial(_sample, scale, d / k, 1 / k)
  return Smoothing(sample, radius, norm, 'pixel value', shape)


def _sample(scale, size, power, key, x):
  direction_key, radius_key = jax.random.split(key)
  z = jax.random.laplace(direction_key, x.shape, x.dtype)
  radius = jax.random.gamma(radius_key, size, (), x.dtype) ** power
  return x + scale * radius * z / jnp.sum(jnp.abs(z))
