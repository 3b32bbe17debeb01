"""The frame of the normalised convolutions: parameters -> operator -> image.

A layer says which parameters it has and how they become an operator (the normalised filter, or
a matrix a frequency); the frame checks, downsamples, adds the bias, caches the operator
(`materialize`), and states the constant: 1 by the layer's theorem, and no less than the
float64 bound of the operator that float32 made of the weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax.layers._filter_bounds import nearly_orthogonal_norm, operator_norm
from certjax.layers._fourier import apply_fourier, fourier_operator
from certjax.layers._images import check_layer, convolve
from certjax.layers._protocol import SPECTRAL
from certjax.layers._resample import invertible_downsampling


def check_input(module, x, *, sized):
  """Remembers the image's shape at initialisation, and refuses another one afterwards.

  The shape is kept as the lengths of three arrays, so that it is known under `jax.jit`.

  Args:
    module: a Flax module in its compact call.
    x: float[B, H, W, C].
    sized: whether height and width must stay too, not only the channels.

  Raises:
    ValueError: if the channels, or the pixels of a sized layer, are others.
  """
  shape = dict(zip(('height', 'width', 'channels'), x.shape[1:], strict=True))
  if module.is_initializing():
    module.variable(SPECTRAL, 'input', lambda: {name: jnp.zeros(n) for name, n in shape.items()})
    return
  if not module.has_variable(SPECTRAL, 'input'):
    return
  known = {name: len(a) for name, a in module.get_variable(SPECTRAL, 'input').items()}
  if known['channels'] != shape['channels']:
    raise ValueError(
      f'`x` must have the {known["channels"]} channels that the layer was initialised with, got '
      f'{shape["channels"]}; initialise a layer for these.'
    )
  if sized and known != shape:
    raise ValueError(
      f'`x` must have the {known["height"]} x {known["width"]} pixels that the layer was '
      f'initialised with, got {shape["height"]} x {shape["width"]}: its operator and constant '
      f'depend on the size; initialise one for this size and keep the parameters.'
    )


class Convolution(nn.Module):
  """A convolution with a normalised filter; see the module's docstring.

  Attributes:
    features: output channels.
    kernel_size: side of the kernel, odd.
    strides: invertible downsampling before the convolution.
    padding: 'circular' or 'zero'.
    use_bias: whether a bias is added.
  """

  features: int
  kernel_size: int = 3
  strides: int = 1
  padding: str = 'circular'
  use_bias: bool = True

  sized = False  # Whether the operator depends on the image's height and width.

  def parameters(self, channels):
    """{name: (initializer, shape)} for `channels` input channels after downsampling."""
    raise NotImplementedError

  def operator(self, params, size):
    """The normalised filter float[k, k, C, features] of the parameters."""
    raise NotImplementedError

  def transform(self, operator, x):
    """Applies the operator to a downsampled image; a filter may have more input channels."""
    return convolve(x, operator[:, :, : x.shape[-1]], self.padding)

  def norm(self, operator, params, size):
    """float64 upper bound of the operator's Lipschitz constant, for this one operator."""
    return nearly_orthogonal_norm(operator)

  @nn.compact
  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, H / strides, W / strides, features]."""
    check_layer(self.features, self.kernel_size, self.strides, self.padding)
    check_input(self, x, sized=self.sized)
    x = invertible_downsampling(x, self.strides)
    table = self.parameters(x.shape[-1])
    if self.use_bias:
      table = {**table, 'bias': (nn.initializers.zeros, (self.features,))}
    params = {name: self.param(name, *how) for name, how in table.items()}
    return self._transformed(self.operator(params, x.shape[1:3]), params.get('bias'), x)

  def evaluate(self, operator, bias, x):
    """The layer with its operator given."""
    return self._transformed(operator, bias, invertible_downsampling(x, self.strides))

  def _transformed(self, operator, bias, x):
    y = self.transform(operator, x)
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)

  def materialize(self, variables):
    """See `certjax.layers.materialize`."""
    params, operator, _ = self._made(variables)
    return jax.tree_util.Partial(self.evaluate, operator, params.get('bias'))

  def lipschitz(self, variables):
    """See `certjax.layers.lipschitz_upper`."""
    params, operator, size = self._made(variables)
    operator, params = jax.tree.map(np.asarray, (operator, params))
    return max(1.0, self.norm(operator, params, size))

  def _made(self, variables):
    """(parameters, operator, size) of the variables, by one program."""
    params, size = jax.tree.map(jnp.asarray, variables['params']), self._size(variables)
    return params, jax.jit(self.operator, static_argnums=1)(params, size), size

  def _size(self, variables):
    """(H, W) after downsampling; None for a layer of every size."""
    if not self.sized:
      return None
    if 'input' not in variables.get(SPECTRAL, {}):
      raise ValueError(
        f'`variables` must hold the collection {SPECTRAL!r} that `init` made: the operator of '
        f'{type(self).__name__} depends on the size of the image.'
      )
    known = variables[SPECTRAL]['input']
    return tuple(len(known[name]) // self.strides for name in ('height', 'width'))


class FourierConvolution(Convolution):
  """A convolution given by a matrix a frequency, made of the Fourier transform of a small kernel.

  Zero padding puts the image into a frame of zeros of width (k - 1) / 2, and cuts the frame off
  afterwards: 1-Lipschitz, but not norm preserving.
  """

  sized = True

  def orthogonal(self, matrices, params):
    """complex[..., D, C] -> (semi-)orthogonal complex[..., D, C], every frequency by itself."""
    raise NotImplementedError

  def operator(self, params, size):
    """The normalised matrices complex[H, W // 2 + 1, features, C]."""
    frame = 2 * self._frame
    operator = fourier_operator(params['kernel'], tuple(n + frame for n in size))
    return self.orthogonal(operator, params)[..., : self.features, :]

  def transform(self, operator, x):
    """Applies the operator inside its frame."""
    n = self._frame
    framed = jnp.pad(x, ((0, 0), (n, n), (n, n), (0, 0)))
    y = apply_fourier(operator[..., : x.shape[-1]], framed)
    return y[:, n : n + x.shape[1], n : n + x.shape[2]]

  def norm(self, operator, params, size):
    """The largest singular value over all frequencies."""
    return operator_norm(operator)

  @property
  def _frame(self):
    return 0 if self.padding == 'circular' else self.kernel_size // 2
