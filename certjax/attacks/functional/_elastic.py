"""Elastic attack (Kang et al. 2019): a flow that a Gaussian filter smooths, so no penalty has to."""

import math

import jax.numpy as jnp
import numpy as np

from certjax.attacks.functional._field import warp
from certjax.attacks.functional._functional import Functional, in_box

_SIGMA_OF_HEIGHT = 3 / 224
_REACH = 4  # Standard deviations: the 25 taps of 224 pixels, the 5 of 32.


def elastic(eps, *, sigma=None) -> Functional:
  """x_adv[i, j] is x at (i, j) + (G * latent)[i, j], bilinearly, with G a Gaussian filter of sum 1.

  Args:
    eps: largest |latent|, and so displacement, down and to the right each, in pixels; may be traced.
    sigma: standard deviation of G in pixels; default 3 / 224 of the height.

  Returns:
    A `Functional` with latents float[H, W, 2]. Beyond the border the nearest pixel continues.

  Raises:
    ValueError: if `eps` is negative or `sigma` is not positive.

  Example:
    >>> x, right = jnp.array([[[0.0], [1.0], [0.5]]]), jnp.full((1, 3, 2), 0.5)
    >>> [round(float(value), 3) for value in elastic(0.5).decode(x, right).ravel()]
    [0.5, 0.75, 0.5]

  References:
    Kang et al. 2019 (arXiv:1908.08016), section 3.
  """
  # Deviation: the filter's weights are renormalised at the border, where the authors' flow fades.
  if sigma is not None and not sigma > 0:
    raise ValueError(
      f'`sigma` must be positive, got sigma={sigma}: functional.stadv has no filter.'
    )

  def decode(x, latent):
    scale = x.shape[0] * _SIGMA_OF_HEIGHT if sigma is None else sigma
    rows, columns = (jnp.asarray(gaussian_filter(n, scale), x.dtype) for n in x.shape[:2])
    flow = jnp.einsum('ij,jkd,lk->ild', rows, latent, columns, precision='highest')
    return jnp.clip(warp(x, flow), 0, 1)

  return in_box('elastic', eps, 'px', lambda shape: (*shape[:2], 2), decode)


def gaussian_filter(size, sigma):
  """float64[size, size], the matrix of a Gaussian filter along one axis; its rows sum to 1.

  Example:
    >>> gaussian_filter(2, 0.1).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
  """
  distance = np.subtract.outer(np.arange(size), np.arange(size))
  weights = np.exp(-(distance**2) / (2 * sigma**2)) * (
    np.abs(distance) <= math.ceil(_REACH * sigma)
  )
  return weights / weights.sum(axis=1, keepdims=True)
