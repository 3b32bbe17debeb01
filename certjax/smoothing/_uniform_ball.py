"""Uniform noise in an L2 ball: the exact L2 certificate, by the volume that two balls share."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from certjax.smoothing._family import check_scale, check_shape, in_norm, total_variation
from certjax.smoothing._protocol import Smoothing

_MARGIN = 1e-12  # scipy's betaincinv is off by up to 109 ulp (2e-14), the root halves that.


def uniform_ball(
  *, shape: tuple, scale: float | None = None, sigma: float | None = None, norm: str = 'l2'
) -> Smoothing:
  r"""Uniform noise in the ball ||z||_2 <= lambda.

    radius = 2 lambda sqrt(I^{-1}((p_a - p_b) / 2; 1/2, (d + 1) / 2))

  because the two balls differ by TV(r) = Pr[|z_1| < r / 2], z_1^2 / lambda^2 ~ Beta(1/2,
  (d + 1) / 2). That is lambda (2 - 4 BetaPPF(3/4 - p_a / 2; (d + 1) / 2, (d + 1) / 2)) of Yang et
  al. for p_b = 1 - p_a, without the cancellation near 1/2. In 'l1' the L2 radius is returned, in
  'linf' the L2 radius over sqrt(d): converted, not tight.

  The sampler takes d coordinates of a uniform point on the sphere in d + 2 dimensions.

  Args:
    shape: (H, W, C); d is its product.
    scale: lambda, in pixel values.
    sigma: standard deviation of each coordinate, lambda / sqrt(d + 2); one of the two.
    norm: 'l2', 'l1' or 'linf'.

  Returns:
    A `Smoothing`, unit 'pixel value'.

  Raises:
    ValueError: unless exactly one of `scale` and `sigma` is given and positive; for a bad shape
      or norm.

  Example:
    >>> round(float(uniform_ball(sigma=1.0, shape=(32, 32, 3)).radius(0.9)), 6)
    1.049034

  References:
    Yang et al. 2020, "Randomized Smoothing of All Shapes and Sizes" (arXiv:2002.08118).
  """
  shape, dimension = check_shape(shape)
  scale = check_scale(scale, sigma, (dimension + 2) ** -0.5)

  def lower(tail):
    share = special.betaincinv(0.5, (dimension + 1) / 2, 0.5 - tail)
    return 2 * np.sqrt(share) * (1 - _MARGIN)

  radius = in_norm(norm, {'l2': total_variation(lower)}, scale, dimension)
  return Smoothing(jax.tree_util.Partial(_sample, scale), radius, norm, 'pixel value', shape)


def _sample(scale, key, x):
  direction_key, rest_key = jax.random.split(key)
  z = jax.random.normal(direction_key, x.shape, x.dtype)
  rest = 2 * jax.random.exponential(rest_key, (), x.dtype)  # Two more squared normals.
  return x + scale * z / jnp.sqrt(jnp.sum(z**2) + rest)
