"""A convolution whose gradients are written as forward convolutions.

XLA on CPU runs the two convolutions that automatic differentiation derives (kernel and
input in permuted dimension orders) as naive loops wherever they stand inside `lax.scan` or
`lax.fori_loop`: 5 to 190 times slower than outside. Both are convolutions again, so the
custom rule transposes the operands instead of the dimension numbers and stays on the fast path:

  y = x * w                          (stride s, kernel dilation r)
  dx = dilate(dy, s) * flip(w)^T     stride 1
  dw = (x^T * dilate(dy^T, s))^T     stride r, x^T with batch and channels exchanged

Forward-mode derivatives need `jax.lax.conv_general_dilated` itself: a custom VJP has none.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

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
):
  """Two-dimensional convolution with the signature of `jax.lax.conv_general_dilated`.

  Pass it to a layer as `nn.Conv(..., conv_general_dilated=conv_general_dilated)`.
  NHWC images and HWIO kernels with one feature group take the custom gradient; whatever
  else is asked for (input dilation, groups, other layouts) goes to JAX's own convolution.

  Args:
    lhs: float[N, H, W, C], images.
    rhs: float[h, w, C, D], kernel.
    window_strides: (int, int).
    padding: 'SAME', 'VALID' or ((low, high), (low, high)), zeros.
    rhs_dilation: (int, int), spacing of the kernel's entries.
    precision: as in JAX, used forwards and backwards.

  Returns:
    float[N, H', W', D].

  Example:
    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> conv_general_dilated(x, w, (1, 1), 'VALID')[0, :, :, 0].tolist()
    [[9.0, 9.0], [9.0, 9.0]]
  """
  if not _is_plain(lhs, lhs_dilation, dimension_numbers, feature_group_count, batch_group_count):
    return lax.conv_general_dilated(
      lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
      feature_group_count, batch_group_count, precision, preferred_element_type,
    )  # fmt: skip
  rhs_dilation = tuple(rhs_dilation or (1, 1))
  if isinstance(padding, str):
    window = [(k - 1) * r + 1 for k, r in zip(rhs.shape[:2], rhs_dilation, strict=True)]
    padding = lax.padtype_to_pads(lhs.shape[1:3], window, window_strides, padding)
  padding = tuple((int(low), int(high)) for low, high in padding)
  options = (tuple(window_strides), padding, rhs_dilation, precision, preferred_element_type)
  return _conv(options, lhs, rhs)


def _is_plain(lhs, lhs_dilation, dimension_numbers, feature_group_count, batch_group_count):
  layout = lax.conv_dimension_numbers((1,) * 4, (1,) * 4, _DIMENSIONS)
  if dimension_numbers is not None and lhs.ndim == 4:
    asked = lax.conv_dimension_numbers((1,) * 4, (1,) * 4, dimension_numbers)
  else:
    asked = layout
  dilated = lhs_dilation is not None and any(d != 1 for d in lhs_dilation)
  groups = feature_group_count != 1 or batch_group_count != 1
  return lhs.ndim == 4 and asked == layout and not dilated and not groups


def _forward(x, w, strides, padding, x_dilation, w_dilation, precision, dtype):
  return lax.conv_general_dilated(
    x, w, strides, padding, x_dilation, w_dilation, _DIMENSIONS,
    precision=precision, preferred_element_type=dtype,
  )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(options, x, w):
  strides, padding, dilation, precision, dtype = options
  return _forward(x, w, strides, padding, (1, 1), dilation, precision, dtype)


def _conv_fwd(options, x, w):
  return _conv(options, x, w), (x, w)


def _conv_bwd(options, residuals, dy):
  x, w = residuals
  dy = dy.astype(x.dtype)
  return _input_gradient(options, x, w, dy), _kernel_gradient(options, x, w, dy)


def _input_gradient(options, x, w, dy):
  strides, padding, dilation, precision, _ = options
  pads = []
  for axis in (0, 1):
    reach = (w.shape[axis] - 1) * dilation[axis]
    spread = (dy.shape[1 + axis] - 1) * strides[axis] + 1  # length of the dilated cotangent
    low = reach - padding[axis][0]
    pads.append((low, x.shape[1 + axis] + reach - spread - low))
  flipped = jnp.swapaxes(jnp.flip(w, (0, 1)), 2, 3)
  if strides == (1, 1) and min(min(pad) for pad in pads) >= 0:  # Its own gradients stay fast too.
    return _conv(((1, 1), tuple(pads), dilation, precision, None), dy, flipped)
  return _forward(dy, flipped, (1, 1), pads, strides, dilation, precision, None)


def _kernel_gradient(options, x, w, dy):
  strides, padding, dilation, precision, _ = options
  pads = []
  for axis in (0, 1):
    reach = (w.shape[axis] - 1) * dilation[axis]
    spread = (dy.shape[1 + axis] - 1) * strides[axis] + 1
    low = padding[axis][0]
    pads.append((low, reach + spread - x.shape[1 + axis] - low))
  images = jnp.transpose(x, (3, 1, 2, 0))
  cotangent = jnp.transpose(dy, (1, 2, 0, 3))
  dw = _forward(images, cotangent, dilation, pads, (1, 1), strides, precision, None)
  return jnp.transpose(dw, (1, 2, 0, 3))


_conv.defvjp(_conv_fwd, _conv_bwd)
