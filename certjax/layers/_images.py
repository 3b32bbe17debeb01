"""What all normalised convolutions share: the checks, the padding, the transpose."""

import jax
import jax.numpy as jnp

from certjax.layers._bjorck import PRECISION
from certjax.layers._conv import conv_general_dilated

PADDINGS = ('circular', 'zero')
"""Circular padding keeps an orthogonal convolution orthogonal; zero padding compresses it."""
_LARGE = 32
"""Pixels of a side from which XLA on CPU convolves several times faster with zeros around the image
than without (32 x 32 x 32: 8 ms against 32, gradient 18 against 67); below, the wider result costs more."""


def check_layer(features, kernel_size, strides, padding):
  """One clear error for a convolution that cannot be built.

  Raises:
    ValueError: for an even kernel size, a number below 1, or an unknown padding.

  Example:
    >>> check_layer(8, 3, 1, 'zero')
  """
  for name, value in (('features', features), ('strides', strides), ('kernel_size', kernel_size)):
    if value < 1:
      raise ValueError(f'`{name}` must be a positive integer, got {name}={value}.')
  if kernel_size % 2 == 0:
    raise ValueError(
      f'`kernel_size` must be odd, so that the kernel has a centre, got {kernel_size}; choose '
      f'{kernel_size - 1} or {kernel_size + 1}.'
    )
  if padding not in PADDINGS:
    raise ValueError(f'`padding` is one of {", ".join(PADDINGS)}, got {padding!r}.')


def convolve(x, kernel, padding) -> jax.Array:
  """Convolution of stride 1 that keeps the size of the image, in full precision.

  Args:
    x: float[B, H, W, C].
    kernel: float[h, w, C, D], h and w odd.
    padding: 'circular' or 'zero'.

  Returns:
    float[B, H, W, D].

  Example:
    >>> x = jnp.arange(3.0).reshape(1, 1, 3, 1)
    >>> convolve(x, jnp.ones((1, 3, 1, 1)), 'circular')[0, 0, :, 0].tolist()
    [3.0, 3.0, 3.0]
  """
  rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
  pads = ((rows, rows), (columns, columns))
  if padding == 'zero':
    return conv_general_dilated(x, kernel, (1, 1), pads, precision=PRECISION)
  height, width = x.shape[1:3]
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode='wrap')
  if min(height, width) < _LARGE:
    return conv_general_dilated(x, kernel, (1, 1), 'VALID', precision=PRECISION)
  x = conv_general_dilated(x, kernel, (1, 1), pads, precision=PRECISION)
  return x[:, rows : rows + height, columns : columns + width]


def transposed(kernel):
  """The filter of the transposed convolution: flipped, channels exchanged.

  Args:
    kernel: float[h, w, C, D].

  Returns:
    float[h, w, D, C].

  Example:
    >>> transposed(jnp.ones((3, 3, 2, 5))).shape
    (3, 3, 5, 2)
  """
  return jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
