"""RKO: the kernel as one matrix of C k^2 rows and D columns, orthonormalised and divided by k.

A convolution reads every pixel k^2 times, so its norm is at most k times that of the matrix:
1-Lipschitz for both paddings and every size, norm preserving for k = 1 only.
"""

from flax import linen as nn

from certjax.layers._bjorck import bjorck
from certjax.layers._layer import Convolution
from certjax.layers._spectrum import norm_upper


def rko_filter(kernel, *, num_steps=20):
  """The reshaped kernel, orthonormalised by Bjorck and divided by its side.

  Args:
    kernel: float[k, k, C, D].
    num_steps: Bjorck iterations.

  Returns:
    float[k, k, C, D].

  Example:
    >>> import jax.numpy as jnp
    >>> round(rko_filter(2 * jnp.ones((3, 3, 1, 1)))[0, 0, 0].item(), 4)
    0.1111

  References:
    The baseline of Li et al. 2019 (arXiv:1911.00937).
  """
  matrix = bjorck(kernel.reshape(-1, kernel.shape[-1]), num_steps=num_steps)
  return matrix.reshape(kernel.shape) / kernel.shape[0]


class RKO(Convolution):
  """Reshaped-kernel orthogonalisation.

  Attributes:
    features, kernel_size, strides, padding, use_bias: as in `Convolution`.
    num_steps: Bjorck iterations.

  Example:
    >>> import jax
    >>> from certjax import layers
    >>> layer = layers.RKO(6)
    >>> variables = layer.init(jax.random.key(0), jax.numpy.ones((1, 5, 5, 3)))
    >>> layers.lipschitz_upper(layer, variables) < 1 + 1e-6
    True

  References:
    Li et al. 2019 (arXiv:1911.00937).
  """

  num_steps: int = 20

  def parameters(self, channels):
    """A kernel."""
    shape = (self.kernel_size, self.kernel_size, channels, self.features)
    return {'kernel': (nn.initializers.lecun_normal(), shape)}

  def operator(self, params, size):
    """The filter of `rko_filter`."""
    return rko_filter(params['kernel'], num_steps=self.num_steps)

  def norm(self, operator, params, size):
    """k times the norm of the matrix, by full SVD: one of the Fantastic Four."""
    return norm_upper(operator)
