"""AOL: almost orthogonal layers, a scale for every input channel and no iteration.

  ||W D||_2 <= 1,   D = diag(d),   d_j = (sum_i |W^T W|_ji)^{-1/2}

by Gershgorin's theorem; for a convolution |W^T W| sums the absolute taps of the filter's
correlation with itself. Holds for zero and circular padding and every image size.
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax.layers._bjorck import PRECISION
from certjax.layers._conv import conv_general_dilated
from certjax.layers._filter_bounds import gershgorin_norm
from certjax.layers._layer import Convolution


def self_correlation(kernel):
  """sum_t |G_t|, the absolute taps of K^T * K between the input channels.

  Args:
    kernel: float[h, w, C, D].

  Returns:
    float[C, C].

  Example:
    >>> self_correlation(jnp.array([[[[1.0, -1.0], [1.0, 1.0]]]])).tolist()
    [[2.0, 0.0], [0.0, 2.0]]

  References:
    Prach & Lampert 2022 (arXiv:2208.03160).
  """
  rows, columns = kernel.shape[0] - 1, kernel.shape[1] - 1
  taps = conv_general_dilated(
    kernel.transpose(2, 0, 1, 3), kernel.transpose(0, 1, 3, 2), (1, 1),
    ((rows, rows), (columns, columns)), precision=PRECISION,
  )  # fmt: skip
  return jnp.sum(jnp.abs(taps), (1, 2))


def aol_scale(kernel):
  """The scale d of every input channel.

  Args:
    kernel: float[h, w, C, D].

  Returns:
    float[C]; 0 for a channel without weights.

  Example:
    >>> round(aol_scale(jnp.array([[[[3.0, 4.0]]]])).item(), 6)
    0.2

  References:
    Prach & Lampert 2022 (arXiv:2208.03160).
  """
  rows = jnp.sum(self_correlation(kernel), 1)
  return jnp.where(rows > 0, 1 / jnp.sqrt(jnp.where(rows > 0, rows, 1)), 0)


class AOL(Convolution):
  """Almost orthogonal convolution: 1-Lipschitz, any numbers of channels.

  Attributes:
    features, kernel_size, strides, padding, use_bias: as in `Convolution`.

  Example:
    >>> import jax
    >>> from certjax import layers
    >>> layer = layers.AOL(6, padding='zero')
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 5, 5, 3)))
    >>> layers.lipschitz_upper(layer, variables) < 1 + 1e-6
    True

  References:
    Prach & Lampert 2022 (arXiv:2208.03160).
  """

  def parameters(self, channels):
    """A kernel."""
    shape = (self.kernel_size, self.kernel_size, channels, self.features)
    return {'kernel': (nn.initializers.lecun_normal(), shape)}

  def operator(self, params, size):
    """The filter with its input channels scaled."""
    return params['kernel'] * aol_scale(params['kernel']).reshape(1, 1, -1, 1)

  def norm(self, operator, params, size):
    """Gershgorin's bound of the float32 filter, with the weights that make it 1."""
    scale = np.asarray(aol_scale(jnp.asarray(params['kernel'])), np.float64)
    return gershgorin_norm(operator, 1 / np.where(scale > 0, scale, 1))
