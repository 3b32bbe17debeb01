"""LOT: the polar factor of a convolution, (V V^*)^{-1/2} V at every frequency.

Newton's iteration for the inverse square root, times V, is Bjorck's iteration on V
(Z_k V of the coupled iteration is its k-th iterate), so it is that one which runs here. The
singular values approach 1 from below: whatever the number of steps, the layer is 1-Lipschitz.
"""

import jax.numpy as jnp
from flax import linen as nn

from certjax.layers._bjorck import bjorck
from certjax.layers._layer import FourierConvolution


def centred_orthogonal(key, shape, dtype=float):
  """An initial kernel whose centre is an orthogonal matrix, and all else 0.

  Example:
    >>> import jax
    >>> kernel = centred_orthogonal(jax.random.key(0), (3, 3, 1, 1))
    >>> abs(kernel[:, :, 0, 0]).round(4).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
  """
  centre = nn.initializers.orthogonal()(key, shape[2:], dtype)
  return jnp.zeros(shape, dtype).at[shape[0] // 2, shape[1] // 2].set(centre)


class LOT(FourierConvolution):
  """Layer-wise orthogonal training: the orthogonal convolution nearest to the kernel's.

  Norm preserving for circular padding, no fewer outputs than inputs, and enough steps. The
  operator belongs to the image size of the initialisation.

  Attributes:
    features, kernel_size, strides, padding, use_bias: as in `Convolution`.
    num_steps: iterations; 10 as published suffice near orthogonality, each multiplies a small
      singular value by 3/2.

  Example:
    >>> import jax
    >>> from certjax import layers
    >>> layer = layers.LOT(6)
    >>> x = jax.random.normal(jax.random.key(1), (1, 5, 5, 6))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> y = layer.apply(variables, x)
    >>> bool(abs(jnp.linalg.norm(y) / jnp.linalg.norm(x) - 1) < 1e-5)
    True

  References:
    Xu, Li & Li 2022 (arXiv:2210.11620).
  """

  num_steps: int = 10

  def parameters(self, channels):
    """A kernel that starts orthogonal."""
    shape = (self.kernel_size, self.kernel_size, channels, self.features)
    return {'kernel': (centred_orthogonal, shape)}

  def orthogonal(self, matrices, params):
    """The polar factor of every frequency; one Gram step is the published scale."""
    # Deviation: float32 where the paper iterates in float64; Bjorck's form corrects itself.
    return bjorck(matrices, num_steps=self.num_steps, gram_steps=1)
