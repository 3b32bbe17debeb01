"""Convolutions of images, or to images: few channels on one side, where XLA on CPU is far from its speed.

  few products an output     y[m] = sum_{taps, channels} x[s m + a, c] w[a, c]     one fused loop
  few features, stride 1     y[m] = sum_a (x w[a])[m + a]                          one matrix product, then shifts
  windows of whole strides   each block of (stride, stride) pixels is one pixel    stride 1, more channels

All are the same products, summed in another order; the last one serves every platform. Where a matrix
precision is pinned, as in bounds and certified layers, the convolution stays the one primitive that it is.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# Measured on 2 cores, 28 to 32 pixels a side: sums of taps take 0.03 to 0.7 of XLA's time below these
# limits, as long at 500 to 800 products; shifted products a third to a half up to 4 features.
_PRODUCTS, _TAPS = 512, 32
_FEATURES, _SHIFTS, _CHANNELS = 4, 25, 8
_BLOCK_CHANNELS = 3


# Called outside of jit, each is one program and not a hundred; inside, it leaves no trace.
_program = functools.partial(jax.jit, static_argnums=0, inline=True)


def route(options, x, w):
  """The cheapest way for these shapes: `(options, x, w) -> y`, or None for XLA's convolution.

  Args:
    options: of the convolution (`_conv._Options`).
    x: float[N, H, W, C].
    w: float[h, k, C, D].

  Example:
    >>> from certjax.layers._conv import _Options
    >>> options = _Options((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), None, None)
    >>> route(options, jnp.ones((2, 8, 8, 64)), jnp.ones((3, 3, 64, 64))) is None
    True
  """
  by_config = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue] # Made at run time.
  pinned = options.precision is not None or by_config is not None
  dilated = options.x_dilation != (1, 1) or options.w_dilation != (1, 1)
  if pinned or dilated or options.dtype is not None or 0 in (*x.shape, *w.shape):
    return None
  height, width, channels, features = w.shape
  taps = height * width * channels
  if _slow_convolutions(x.dtype):
    if taps <= _TAPS and taps * features <= _PRODUCTS:
      return by_taps
    few = features <= _FEATURES and channels >= _CHANNELS and height * width <= _SHIFTS
    if few and options.strides == (1, 1):
      return by_shifts
  whole = all(size % stride == 0 for size, stride in zip(w.shape[:2], options.strides, strict=True))
  if whole and max(options.strides) > 1 and channels <= _BLOCK_CHANNELS:
    return by_blocks
  return None


def _slow_convolutions(dtype):
  """XLA's on CPU; sums of lower precision than float32 are left to it everywhere."""
  return jax.default_backend() == 'cpu' and dtype in (jnp.float32, jnp.float64)


@_program
def by_taps(options, x, w):
  """Every product of an output in one fused loop over the features."""
  sizes = [(n - size) // s + 1 for n, size, s in _axes(options, x, w)]
  (s, t), (m, n) = options.strides, sizes
  x = _padded(x, options.padding)
  y = 0
  for i in range(w.shape[0]):
    rows = x[:, i : i + (m - 1) * s + 1 : s]
    for j in range(w.shape[1]):
      pixels = rows[:, :, j : j + (n - 1) * t + 1 : t]
      for c in range(w.shape[2]):
        y = y + pixels[..., c : c + 1] * w[None, None, None, i, j, c]
  return y


@_program
def by_shifts(options, x, w):
  """x times the kernel of every tap at once, then as many shifted sums of few features."""
  height, width, channels, features = w.shape
  products = x.reshape(-1, channels) @ w.transpose(2, 0, 1, 3).reshape(channels, -1)
  products = products.reshape(*x.shape[:3], height, width, features)
  sizes = [n - size + 1 for n, size, _ in _axes(options, x, w)]
  (top, _), (left, _) = options.padding
  y = 0
  for i in range(height):
    for j in range(width):
      y = y + _shifted(products[..., i, j, :], (top - i, left - j), sizes)
  return y


@_program
def by_blocks(options, x, w):
  """Each block of (stride, stride) pixels as the channels of one, in image and kernel alike.

  XLA on CPU gathers windows of few channels slowly: this takes 0.1 to 0.4 of the time for windows of 2 and
  4 pixels, at 16 a sixth more.
  """
  (s, t), (h, k, channels, features) = options.strides, w.shape
  edges, counts = [(0, 0, 0)], []
  for axis, stride in enumerate(options.strides):
    size, (low, high) = x.shape[1 + axis], options.padding[axis]
    counts.append((size + low + high - w.shape[axis]) // stride + w.shape[axis] // stride)
    edges.append((low, counts[-1] * stride - size - low, 0))
  x = lax.pad(x, jnp.zeros((), x.dtype), [*edges, (0, 0, 0)])
  m, n = counts
  x = x.reshape(-1, m, s, n, t, channels).transpose(0, 1, 3, 2, 4, 5).reshape(len(x), m, n, -1)
  w = w.reshape(h // s, s, k // t, t, channels, features).transpose(0, 2, 1, 3, 4, 5)
  w = w.reshape(h // s, k // t, -1, features)
  return lax.conv_general_dilated(x, w, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _axes(options, x, w):
  """(length with padding, of the kernel, stride) of both axes."""
  lengths = [n + sum(pad) for n, pad in zip(x.shape[1:3], options.padding, strict=True)]
  return list(zip(lengths, w.shape[:2], options.strides, strict=True))


def _padded(x, padding):
  edges = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
  return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _shifted(part, starts, sizes):
  """part moved by `starts` pixels and cut, or filled with zeros, to `sizes`."""
  ends = [size - start - n for size, start, n in zip(sizes, starts, part.shape[1:3], strict=True)]
  return _padded(part, list(zip(starts, ends, strict=True)))
