"""Changes of resolution and of width that keep distances: what a square, stride-1 layer needs
to become one with strides and other channel numbers."""

import jax.numpy as jnp


def invertible_downsampling(x, stride):
  """Moves every stride x stride block of pixels into channels: an isometry.

  Channel c of the block's pixel (a, b) becomes channel (c stride + a) stride + b.

  Args:
    x: float[B, H, W, C].
    stride: block size; it divides H and W.

  Returns:
    float[B, H / stride, W / stride, C stride^2].

  Raises:
    ValueError: if `stride` does not divide the image.

  Example:
    >>> invertible_downsampling(jnp.arange(8.0).reshape(1, 2, 2, 2), 2).ravel().tolist()
    [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]

  References:
    Jacobsen, Smeulders & Oyallon 2018 (arXiv:1802.07088).
  """
  batch, height, width, channels = x.shape
  if stride < 1 or height % stride or width % stride:
    raise ValueError(
      f'`strides` must divide the image, got strides={stride} for {height} x {width} pixels: pad '
      f'or resize the image, or choose another stride.'
    )
  x = x.reshape(batch, height // stride, stride, width // stride, stride, channels)
  x = jnp.transpose(x, (0, 1, 3, 5, 2, 4))
  return x.reshape(batch, height // stride, width // stride, channels * stride**2)


def fit_channels(x, channels):
  """Zero channels at the end (an isometry), or the last channels dropped (1-Lipschitz).

  Args:
    x: float[..., C].
    channels: how many the result has.

  Returns:
    float[..., channels].

  Example:
    >>> fit_channels(jnp.ones(2), 3).tolist(), fit_channels(jnp.ones(2), 1).tolist()
    ([1.0, 1.0, 0.0], [1.0])
  """
  missing = channels - x.shape[-1]
  if missing <= 0:
    return x[..., :channels]
  return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
