"""A convolution whose gradients are written as forward convolutions.

XLA on CPU runs the two convolutions that automatic differentiation derives (kernel and
input in permuted dimension orders) as naive loops wherever they stand inside `lax.scan` or
`lax.fori_loop`: 5 to 190 times slower than outside. Both are convolutions again, so the
custom rule transposes the operands instead of the dimension numbers and stays on the fast path:

  y = dilate(x, d) * dilate(w, r)              stride s
  dx = dilate(dy, s) * dilate(flip(w)^T, r)    stride d (s > 1, d = r = 1: without dy's zeros)
  dw = (dilate(x^T, d) * dilate(dy^T, s))^T    stride r, x^T with batch and channels exchanged

Both go through the same rule, so that gradients of gradients (of bounds, which pass backwards
through a convolution) stay on it too. Convolutions from or to few channels are summed in another order
(`_few_channels`).

Forward-mode derivatives need `jax.lax.conv_general_dilated` itself: a custom VJP has none.
"""

import functools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from certjax.layers._few_channels import route

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def conv_general_dilated(
  lhs,
  rhs,
  window_strides,
  padding,
  lhs_dilation=None,
  rhs_dilation=None,
  dimension_numbers=None,
  feature_group_count=1,
  batch_group_count=1,
  precision=None,
  preferred_element_type=None,
) -> jax.Array:
  """Two-dimensional convolution with the signature of `jax.lax.conv_general_dilated`.

  Pass it to a layer as `nn.Conv(..., conv_general_dilated=conv_general_dilated)`.
  NHWC images and HWIO kernels with one feature group take the custom gradient; whatever
  else is asked for (groups, other layouts) goes to JAX's own convolution.

  Args:
    lhs: float[N, H, W, C], images.
    rhs: float[h, w, C, D], kernel.
    window_strides: (int, int).
    padding: 'SAME', 'VALID' or ((low, high), (low, high)), zeros.
    lhs_dilation, rhs_dilation: (int, int), spacing of the image's and the kernel's entries.
    dimension_numbers, feature_group_count, batch_group_count: as in JAX, see above.
    precision: as in JAX, used forwards and backwards.
    preferred_element_type: as in JAX.

  Returns:
    float[N, H', W', D].

  Example:
    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> conv_general_dilated(x, w, (1, 1), 'VALID')[0, :, :, 0].tolist()
    [[9.0, 9.0], [9.0, 9.0]]
  """
  if not _is_plain(lhs, dimension_numbers, feature_group_count, batch_group_count):
    return lax.conv_general_dilated(
      lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
      feature_group_count, batch_group_count, precision, preferred_element_type,
    )  # fmt: skip
  lhs_dilation, rhs_dilation = (tuple(d or (1, 1)) for d in (lhs_dilation, rhs_dilation))
  if isinstance(padding, str):
    images, window = (
      [_length(n, d) for n, d in zip(sizes, dilation, strict=True)]
      for sizes, dilation in ((lhs.shape[1:3], lhs_dilation), (rhs.shape[:2], rhs_dilation))
    )
    padding = lax.padtype_to_pads(images, window, window_strides, padding)
  padding = tuple((int(low), int(high)) for low, high in padding)
  options = _Options(
    tuple(window_strides), padding, lhs_dilation, rhs_dilation, precision, preferred_element_type
  )
  return _conv(options, lhs, rhs)


class _Options(NamedTuple):
  """Of one convolution, all but its operands."""

  strides: tuple
  padding: tuple
  x_dilation: tuple
  w_dilation: tuple
  precision: object
  dtype: object


def _is_plain(lhs, dimension_numbers, feature_group_count, batch_group_count):
  layout = lax.conv_dimension_numbers((1,) * 4, (1,) * 4, _DIMENSIONS)
  if dimension_numbers is not None and lhs.ndim == 4:
    asked = lax.conv_dimension_numbers((1,) * 4, (1,) * 4, dimension_numbers)
  else:
    asked = layout
  groups = feature_group_count != 1 or batch_group_count != 1
  return lhs.ndim == 4 and asked == layout and not groups


def _length(size, dilation):
  """Of an axis with zeros between its entries."""
  return (size - 1) * dilation + 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(options, x, w) -> jax.Array:
  # Gradients come here again: that of an image is a convolution to few features.
  if way := route(options, x, w):
    return way(options, x, w)
  return lax.conv_general_dilated(
    x, w, options.strides, options.padding, options.x_dilation, options.w_dilation, _DIMENSIONS,
    precision=options.precision, preferred_element_type=options.dtype,
  )  # fmt: skip


def _conv_fwd(options, x, w):
  return _conv(options, x, w), (x, w)


def _conv_bwd(options, residuals, dy):
  x, w = residuals
  dy = dy.astype(x.dtype)
  return _input_gradient(options, x, w, dy), _kernel_gradient(options, x, w, dy)


def _input_gradient(options, x, w, dy):
  if max(options.strides) > 1 and options.x_dilation == options.w_dilation == (1, 1):
    return _strided_input_gradient(options, x, w, dy)
  pads = []
  for axis in (0, 1):
    reach = (w.shape[axis] - 1) * options.w_dilation[axis]
    spread = _length(dy.shape[1 + axis], options.strides[axis])
    low = reach - options.padding[axis][0]
    length = _length(x.shape[1 + axis], options.x_dilation[axis])
    pads.append((low, length + reach - spread - low))
  turned = jnp.swapaxes(jnp.flip(w, (0, 1)), 2, 3)
  back = _Options(
    options.x_dilation, tuple(pads), options.strides, options.w_dilation, options.precision, None
  )
  return _conv(back, dy, turned)


def _strided_input_gradient(options, x, w, dy):
  """One convolution without the zeros between dy's entries, which are multiplied like numbers on CPU.

  Pixel m s + r of the padded image gets sum_q w[q s + r] dy[m - q]: for each r < s, its own channels
  of a convolution of stride 1.
  """
  (s, t), (h, k), (_, height, width, channels) = options.strides, w.shape[:2], x.shape
  rows, columns = min(h, s), min(k, t)  # Of s and t phases, those that the kernel reaches.
  taps, steps = -(-h // s), -(-k // t)
  w = jnp.pad(w, ((0, taps * rows - h), (0, steps * columns - k), (0, 0), (0, 0)))
  w = w.reshape(taps, rows, steps, columns, channels, -1)
  turned = jnp.flip(w, (0, 2)).transpose(0, 2, 5, 1, 3, 4).reshape(taps, steps, w.shape[-1], -1)
  pads = ((taps - 1, taps - 1), (steps - 1, steps - 1))
  alone = _Options((1, 1), pads, (1, 1), (1, 1), options.precision, None)
  phases = cast(jax.Array, _conv(alone, dy, turned))  # `partial` hides the type of a custom_vjp.
  batch, m, n, _ = phases.shape
  phases = phases.reshape(batch, m, n, rows, columns, channels)
  phases = jnp.pad(phases, ((0, 0),) * 3 + ((0, s - rows), (0, t - columns), (0, 0)))
  whole = phases.transpose(0, 1, 3, 2, 4, 5).reshape(batch, m * s, n * t, channels)
  (top, _), (left, _) = options.padding
  edges = ((0, 0), (-top, height + top - m * s), (-left, width + left - n * t), (0, 0))
  return lax.pad(whole, jnp.zeros((), whole.dtype), [(low, high, 0) for low, high in edges])


def _kernel_gradient(options, x, w, dy):
  pads = []
  for axis in (0, 1):
    reach = (w.shape[axis] - 1) * options.w_dilation[axis]
    spread = _length(dy.shape[1 + axis], options.strides[axis])
    low = options.padding[axis][0]
    length = _length(x.shape[1 + axis], options.x_dilation[axis])
    pads.append((low, reach + spread - length - low))
  images = jnp.transpose(x, (3, 1, 2, 0))
  cotangent = jnp.transpose(dy, (1, 2, 0, 3))
  back = _Options(
    options.w_dilation, tuple(pads), options.x_dilation, options.strides, options.precision, None
  )
  return jnp.transpose(_conv(back, images, cotangent), (1, 2, 0, 3))


_conv.defvjp(_conv_fwd, _conv_bwd)
