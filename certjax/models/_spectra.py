"""Singular values of every layer of a model, beside the bounds that a proof may use.

The singular values are exact for circular padding, at the size of image that the layer sees. A layer
that normalises its weights is measured after normalisation, by its `materialize`: what it really
applies. A stride s is a convolution of stride 1 on blocks of s x s pixels.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

from certjax import layers

_GRAM_STEPS = 6


class LayerSpectrum(NamedTuple):
  """What is known about the linear map of one layer.

  Attributes:
    name: path in the model.
    kind: class of the layer.
    shape: of one input.
    values: float64[n], singular values, descending; empty where the layer has no single linear map.
    every: they are those of every `every`-th frequency along both axes; 1: all.
    lipschitz: the layer's proved constant, None for a layer that states none.
    zero_padded, fantastic_four, gram: upper bounds of the norm with zero padding: by SVD of all
      frequencies of a larger image, by four reshapes (for every size), by Gram iteration in
      place of the SVD. None where they do not apply, or cost too much.
  """

  name: str
  kind: str
  shape: tuple[int, ...]
  values: np.ndarray
  every: int = 1
  lipschitz: float | None = None
  zero_padded: float | None = None
  fantastic_four: float | None = None
  gram: float | None = None


def spectrum_of(layer, *, max_work=2e9):
  """The `LayerSpectrum` of one layer.

  Convolutions and matrices of Flax, and layers with a constant (`layers.materialize`); convolutions
  with groups or dilation, and layers of an unknown kind, get no singular values. Residual layers
  x - 2 B^T relu(B x) are measured by their B: the constant is 1 if its norm is at most 1.

  Args:
    layer: a `Layer`, as `layers_of` finds them.
    max_work: most multiplications, frequencies x C x D x min(C, D), of the SVDs. A dearer layer is
      measured at every second, third, ... frequency that divides its size: exact singular values,
      but not all. Its bound by SVD is left out; that by reshapes, and that by Gram iteration
      where it is affordable, hold all the same.

  Returns:
    A `LayerSpectrum`.

  Raises:
    ValueError: if `max_work` is not positive, or a weight is not finite.

  Example:
    >>> import jax
    >>> from certjax import models
    >>> module, shape = layers.AOL(2, use_bias=False), (4, 4, 2)
    >>> variables = module.init(jax.random.key(0), np.ones((1, *shape), np.float32))
    >>> found = spectrum_of(models.Layer('first', module, variables, shape))
    >>> len(found.values), bool(found.values[0] <= found.lipschitz)
    (32, True)
  """
  if not max_work > 0:
    raise ValueError(f'`max_work` must be positive, got {max_work}; the default is 2e9.')
  module = layer.module
  row = LayerSpectrum(layer.name, type(module).__name__, layer.shape, np.zeros(0))
  if callable(getattr(module, 'lipschitz', None)):
    row = row._replace(lipschitz=layers.lipschitz_upper(module, layer.variables))
    return _of_operator(row, layer, max_work)
  kernel = np.asarray(layer.variables['params'].get('kernel', 0.0), np.float64)
  if isinstance(module, nn.Dense):
    return row._replace(values=_values(kernel))
  if not isinstance(module, nn.Conv) or kernel.ndim != 4 or not _is_plain(module):
    return row
  reach = _reach(module.padding, kernel.shape)
  return _of_kernel(row, kernel, _twice(module.strides), reach, max_work)


def blocked(kernel, strides):
  """The kernel of stride 1, on blocks of pixels as channels, of a convolution with strides.

  Args:
    kernel: [h, w, C, D].
    strides: (rows, columns).

  Returns:
    [ceil(h / rows), ceil(w / columns), rows columns C, D]: the same map up to a shift of the image.

  Example:
    >>> blocked(np.ones((3, 3, 2, 5)), (2, 2)).shape
    (2, 2, 8, 5)
  """
  pads = [(0, -n % s) for n, s in zip(kernel.shape, strides, strict=False)]
  kernel = np.pad(kernel, [*pads, (0, 0), (0, 0)])
  (rows, columns), (h, w, inputs, outputs) = strides, kernel.shape
  taps = kernel.reshape(h // rows, rows, w // columns, columns, inputs, outputs)
  return taps.transpose(0, 2, 1, 3, 4, 5).reshape(h // rows, w // columns, -1, outputs)


def _is_plain(module):
  dilations = (_twice(module.input_dilation), _twice(module.kernel_dilation))
  return dilations == ((1, 1), (1, 1)) and module.feature_group_count == 1


def _of_operator(row, layer, max_work):
  """The spectrum of what a layer with a constant really applies."""
  module, stride = layer.module, getattr(layer.module, 'strides', 1)
  if not callable(getattr(module, 'materialize', None)):
    return row
  if isinstance(module, layers.SOC):
    # The exponential has no small kernel: its frequencies, as if padding were circular.
    module = module.clone(padding='circular')
  # Of the house's layers the first argument is the operator; of others nothing is known.
  operator: Any = (*getattr(layers.materialize(module, layer.variables), 'args', ()), None)[0]
  inputs, outputs = layer.shape[-1] * stride**2, getattr(module, 'features', None)
  if isinstance(module, layers.SLL | layers.CPL):  # x - 2 B^T relu(B x): of B.
    kernel, inverse, _ = (np.asarray(part, np.float64) for part in operator)
    operator, inputs, outputs = kernel * np.sqrt(inverse), None, None
  # A layer built for more channels than it gets or gives applies a part of its operator.
  if getattr(operator, 'ndim', 0) == 2:
    return row._replace(values=_values(operator[:inputs, :outputs]))
  if getattr(operator, 'ndim', 0) != 4:
    return row
  size = tuple(n // stride for n in layer.shape[:2])
  if np.iscomplexobj(operator):
    matrices = np.asarray(operator)[..., :outputs, :inputs]
    return row._replace(values=_of_half_the_frequencies(matrices, size))
  taps = np.asarray(operator, np.float64)[:, :, :inputs, :outputs]
  measured = _of_kernel(
    row._replace(shape=size), taps, (1, 1), [n // 2 for n in taps.shape[:2]], max_work
  )
  return measured._replace(shape=layer.shape)


def _of_kernel(row, kernel, strides, reach, max_work):
  """Singular values and bounds of a convolution with an explicit kernel."""
  size = [-(-n // s) for n, s in zip(row.shape, strides, strict=False)]
  larger = [-(-(n + r) // s) for n, r, s in zip(row.shape, reach, strides, strict=False)]
  taps = blocked(kernel, strides)
  if taps.shape[:2] == (1, 1):  # All frequencies are alike, and padding changes nothing.
    size, larger = (1, 1), (1, 1)
  every = _thinning(size, taps.shape, max_work)
  values = layers.singular_values(taps, tuple(n // every for n in size))
  # No tap wraps from one side of the larger image into the other: circular bounds zero padding.
  affordable = _work(larger, taps.shape) <= 1.5 * max_work
  circular = lambda steps: layers.circular_norm(taps, larger, steps=steps) if affordable else None
  return row._replace(
    values=values, every=every, zero_padded=None if every > 1 else circular(None),
    fantastic_four=layers.norm_upper(taps), gram=circular(_GRAM_STEPS),
  )  # fmt: skip


def _of_half_the_frequencies(matrices, size):
  """All singular values of complex[H, W // 2 + 1, D, C]: the inner columns stand for two."""
  width = size[1] + matrices.shape[0] - size[0]  # With the frame of zero padding, if there is one.
  values = np.linalg.svd(matrices.astype(np.complex128), compute_uv=False)
  alone = [0, width // 2] if width % 2 == 0 else [0]
  twice = np.delete(values, alone, axis=1)
  return np.sort(np.concatenate([values.ravel(), twice.ravel()]))[::-1]


def _values(matrix):
  return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


def _work(size, shape):
  return math.prod(size) * shape[2] * shape[3] * min(shape[2:])


def _thinning(size, shape, max_work):
  """The least e that divides the image, such that its every e-th frequency is affordable."""
  common = math.gcd(*size)
  divisors = [e for e in range(1, common + 1) if common % e == 0]
  return next((e for e in divisors if _work(size, shape) / e**2 <= max_work), common)


def _twice(value):
  """A pair, of what Flax takes as a number, a sequence or None."""
  if value is None or isinstance(value, int):
    return (value or 1,) * 2
  return tuple(value)


def _reach(padding, shape):
  """How many zeros a convolution reads beyond an edge, at most."""
  if isinstance(padding, str):
    return [0 if padding == 'VALID' else n // 2 for n in shape[:2]]
  pads = [padding] * 2 if isinstance(padding, int) else padding
  return [min(max(np.atleast_1d(pad)), n - 1) for pad, n in zip(pads, shape, strict=False)]
