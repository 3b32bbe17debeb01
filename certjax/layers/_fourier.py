"""Circular convolutions as one matrix a frequency: exact, and easy to make orthogonal.

  y_f = Q_f x_f,   Q_f = sum_t K[t]^T exp(2 pi i f . (t - r) / n),   r = (k - 1) / 2

The singular values of the convolution are those of all Q_f (Sedghi et al. 2018), so a map
Q -> orthogonal Q applied to every frequency makes an orthogonal convolution. Only half of
the frequencies is stored: the others are conjugates.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.layers._bjorck import PRECISION


def _phases(size, taps, count):
  """complex128[count, taps], the first `count` frequencies of an axis of length `size`."""
  offsets = np.arange(taps) - (taps - 1) // 2
  return np.exp(2j * np.pi * np.outer(np.arange(count), offsets) / size)


def fourier_operator(kernel, size):
  """The circular convolution with `kernel` on images of `size`, a matrix a frequency.

  A kernel larger than the image wraps around.

  Args:
    kernel: float[h, w, C, D], a correlation filter with odd h and w.
    size: (H, W) of the image.

  Returns:
    complex[H, W // 2 + 1, D, C]: y_f = Q_f x_f under `jnp.fft.rfft2`.

  Example:
    >>> fourier_operator(jnp.ones((1, 1, 1, 1)), (4, 4)).shape
    (4, 3, 1, 1)

  References:
    Sedghi, Gupta & Long 2018 (arXiv:1805.10408).
  """
  kernel = lax.complex(kernel, jnp.zeros_like(kernel))
  rows = jnp.asarray(_phases(size[0], kernel.shape[0], size[0]), kernel.dtype)
  columns = jnp.asarray(_phases(size[1], kernel.shape[1], size[1] // 2 + 1), kernel.dtype)
  return jnp.einsum('ft,gs,tscd->fgdc', rows, columns, kernel, precision=PRECISION)


def apply_fourier(operator, x):
  """Multiplies every frequency of the images by its matrix.

  Args:
    operator: complex[H, W // 2 + 1, D, C].
    x: float[B, H, W, C].

  Returns:
    float[B, H, W, D].

  Example:
    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> identity = fourier_operator(jnp.ones((1, 1, 1, 1)), (4, 4))
    >>> bool(jnp.allclose(apply_fourier(identity, x), x, atol=1e-5))
    True
  """
  frequencies = jnp.fft.rfft2(x, axes=(1, 2))
  product = jnp.einsum('fgdc,bfgc->bfgd', operator, frequencies, precision=PRECISION)
  return jnp.fft.irfft2(product, s=x.shape[1:3], axes=(1, 2))
