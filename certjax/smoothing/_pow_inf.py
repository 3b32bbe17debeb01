"""Power-law noise of the largest coordinate, (1 + |z|_inf)^-a: L1 and Linf."""

import functools
import math

import jax
from scipy import special

from certjax.smoothing._differential import differential
from certjax.smoothing._exp_inf import cube_direction, face_bounds
from certjax.smoothing._family import check_positive, check_scale, check_shape, flow, in_norm
from certjax.smoothing._protocol import Smoothing


def pow_inf(
  *,
  a: float,
  shape: tuple,
  scale: float | None = None,
  sigma: float | None = None,
  norm: str = 'linf',
) -> Smoothing:
  r"""Noise of density proportional to (1 + ||z / lambda||_inf)^{-a}.

    l1:   2 lambda d / (a - d) (p_a - 1/2)
    linf: lambda int_{1 - p_a}^{1/2} dp / Phi(p),
          Phi(p) = (a - d) / 2 I(v; d, a + 1 - d),  2 p = I(v; d, a - d)

  with I the regularised incomplete beta function: ||z|| / (lambda + ||z||) ~ Beta(d, a - d), and the
  score a / (1 + ||z||) is largest near the centre. In L1 the radius leaves the straight line
  upwards for p_a > 1 - 1 / (2 d), as in `exp_inf`; 'l2' is converted.

  Args:
    a: exponent, above d.
    shape: (H, W, C); d is its product.
    scale: lambda, in pixel values.
    sigma: standard deviation of each coordinate, for a > d + 2; one of the two.
    norm: 'linf', 'l1' or 'l2' (converted).

  Returns:
    A `Smoothing`, unit 'pixel value'.

  Raises:
    ValueError: unless exactly one of `scale` and `sigma` is given and positive; if a <= d; for a
      bad shape or norm.

  Example:
    >>> float(pow_inf(a=30, scale=1.0, shape=(2, 5, 1), norm='l1').radius(0.75)) < 0.25
    True

  References:
    Yang et al. 2020 (arXiv:2002.08118).
  """
  check_positive(a=a)
  a = float(a)
  shape, d = check_shape(shape)
  if a <= d:
    raise ValueError(f'`a` must exceed the d={d} coordinates of `shape`, got a={a}.')
  unit_sigma = math.inf
  if a > d + 2:
    unit_sigma = math.sqrt(((d - 1) / 3 + 1) * (d + 1) / ((a - d - 1) * (a - d - 2)))
  scale = check_scale(scale, sigma, unit_sigma)
  whole = _bounds(d, a)
  direct = {'l1': flow(*face_bounds(d, 2 * d / (a - d), whole)), 'linf': flow(*whole)}
  radius = in_norm(norm, direct, scale, d)
  sample = jax.tree_util.Partial(_sample, scale, float(d), a - d)
  return Smoothing(sample, radius, norm, 'pixel value', shape)


@functools.lru_cache(maxsize=16)
def _bounds(d, a):
  def phi(tail):
    share = special.betaincinv(d, a - d, 2 * tail)
    return (a - d) / 2 * special.betainc(d, a + 1 - d, share)

  return differential(phi)


def _sample(scale, size, rest, key, x):
  direction_key, top_key, bottom_key = jax.random.split(key, 3)
  top = jax.random.gamma(top_key, size, (), x.dtype)
  radius = top / jax.random.gamma(bottom_key, rest, (), x.dtype)
  return x + scale * radius * cube_direction(direction_key, x.shape, x.dtype)
