"""Structural similarity (Wang et al. 2004): local means, variances and covariances compared.

The Gaussian window is separable, so local means are two products with banded matrices, for all
channels at once: no grouped convolution.
"""

import jax.numpy as jnp
import numpy as np

_C1, _C2 = 0.01**2, 0.03**2  # For pixel values in [0, 1].


def ssim(*, padding='same', size=11, sigma=1.5, dissimilarity=True):
  r"""1 - SSIM, or SSIM itself.

    SSIM = mean of (2 m1 m2 + c1) (2 s12 + c2) / ((m1^2 + m2^2 + c1) (s1^2 + s2^2 + c2))

  over all windows and channels; m, s^2 and s12 are means, variances and covariance under the
  window's weights, c1 = 0.01^2, c2 = 0.03^2.

  Args:
    padding: 'valid', windows inside the image (scikit-image, TensorFlow), or 'same', one window a pixel
      with zeros around the image (pytorch-ssim, PAT). The numbers differ.
    size: pixels of a window's side, odd.
    sigma: standard deviation of the Gaussian window, in pixels.
    dissimilarity: 1 - SSIM, 0 for equal images; False gives SSIM.

  Returns:
    A `Distance` (or a similarity): `(x1[H, W, C], x2[H, W, C]) -> scalar`.

  Raises:
    ValueError: for an unknown `padding`, an even `size` or a `sigma` not above 0; when called, for
      images smaller than the window.

  Example:
    >>> x = jnp.linspace(0.0, 1.0, 16 * 16).reshape(16, 16, 1)
    >>> round(float(ssim(padding='valid', dissimilarity=False)(x, x)), 5)
    1.0

  References:
    Wang, Bovik, Sheikh & Simoncelli 2004, IEEE Transactions on Image Processing 13(4).
  """
  if padding not in _WINDOWS:
    raise ValueError(f'`padding` must be one of {", ".join(_WINDOWS)}; got {padding!r}.')
  if size < 1 or size % 2 == 0 or not sigma > 0:
    raise ValueError(
      f'`size` must be odd and `sigma` positive, got size={size}, sigma={sigma}: the window of the '
      f'paper has size=11, sigma=1.5.'
    )

  def distance(x1, x2):
    _check_shape(x1.shape, x2.shape, size)
    rows, columns = (jnp.asarray(_WINDOWS[padding](n, size, sigma), x1.dtype) for n in x1.shape[:2])
    mean = lambda x: jnp.einsum('ih,hwc,jw->ijc', rows, x, columns, precision='highest')
    m1, m2 = mean(x1), mean(x2)
    variances = mean(x1 * x1) - m1 * m1 + mean(x2 * x2) - m2 * m2
    covariance = mean(x1 * x2) - m1 * m2
    above = (2 * m1 * m2 + _C1) * (2 * covariance + _C2)
    value = jnp.mean(above / ((m1 * m1 + m2 * m2 + _C1) * (variances + _C2)))
    return 1 - value if dissimilarity else value

  return distance


def _same(length, size, sigma):
  """float64[length, length]: row i holds the weights of the window around pixel i."""
  offsets = np.subtract.outer(np.arange(length), np.arange(length))
  weights = np.exp(-(np.arange(-(size // 2), size // 2 + 1) ** 2) / (2 * sigma**2))
  inside = np.abs(offsets) <= size // 2
  return np.where(inside, np.exp(-(offsets**2) / (2 * sigma**2)), 0) / weights.sum()


def _valid(length, size, sigma):
  """The rows of `_same` whose windows lie inside."""
  return _same(length, size, sigma)[size // 2 : length - size // 2]


_WINDOWS = {'same': _same, 'valid': _valid}


def _check_shape(shape, other, size):
  if len(shape) != 3 or shape != other:
    raise ValueError(
      f'`x1` and `x2` must be ONE image [H, W, C] each, of one shape, got {shape} and {other}: use '
      f'jax.vmap for a batch.'
    )
  if min(shape[:2]) < size:
    raise ValueError(
      f'`x1` must be at least as large as the window, `size`={size}, got shape {shape}: take a '
      f'smaller odd `size`.'
    )
