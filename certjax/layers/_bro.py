"""Block reflector (BRO): I - 2 V (V^* V)^{-1} V^*, orthogonal without iterations.

A Householder reflection at the orthogonal complement of V's columns: symmetric, with as many
eigenvalues -1 as V has columns. At every frequency of a circular convolution it makes an
orthogonal convolution; the rank of V is free (half the channels in BRONet).
"""

import jax.numpy as jnp
from flax import linen as nn

from certjax.layers._bjorck import adjoint, multiply, one_by_one
from certjax.layers._layer import FourierConvolution


def block_reflector(v, *, jitter=0.0):
  """The reflection I - 2 V (V^* V)^{-1} V^*.

  Args:
    v: float or complex[..., n, r], r <= n, of full column rank.
    jitter: multiple of the mean squared singular value that is added to V^* V. It keeps the
      inverse finite and the eigenvalues inside [-1, 1].

  Returns:
    [..., n, n].

  Example:
    >>> block_reflector(jnp.array([[1.0], [1.0]])).tolist()
    [[0.0, -1.0], [-1.0, 0.0]]

  References:
    Lai et al. 2025 (BRONet, arXiv:2505.15174).
  """
  size, rank = v.shape[-2:]
  gram = multiply(adjoint(v), v)
  identity = jnp.eye(rank, dtype=v.dtype)
  scale = jnp.trace(gram, axis1=-2, axis2=-1)[..., None, None] / rank
  shifted = gram + jitter * scale * jnp.broadcast_to(identity, gram.shape)
  projection = multiply(v, one_by_one(jnp.linalg.solve, shifted, adjoint(v)))
  return jnp.broadcast_to(jnp.eye(size, dtype=v.dtype), projection.shape) - 2 * projection


class BRO(FourierConvolution):
  """Orthogonal convolution by block reflectors at every frequency.

  Built for max(input, output) channels, and cut. Norm preserving for circular padding and no
  fewer outputs than inputs. The operator belongs to the image size of the initialisation.

  Attributes:
    features, kernel_size, strides, padding, use_bias: as in `Convolution`.
    rank: columns of V; half the channels where None.
    jitter: see `block_reflector`.

  Example:
    >>> import jax
    >>> from certjax import layers
    >>> layer = layers.BRO(6)
    >>> x = jax.random.normal(jax.random.key(1), (1, 5, 5, 6))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> y = layer.apply(variables, x)
    >>> bool(abs(jnp.linalg.norm(y) / jnp.linalg.norm(x) - 1) < 1e-5)
    True

  References:
    Lai et al. 2025 (BRONet, arXiv:2505.15174).
  """

  rank: int | None = None
  jitter: float = 1e-7

  def parameters(self, channels):
    """A kernel from `rank` to all channels: V at every frequency."""
    width = max(channels, self.features)
    rank = max(1, width // 2) if self.rank is None else self.rank
    if not 1 <= rank <= width:
      raise ValueError(f'`rank` must lie in [1, {width}], the number of channels, got {rank}.')
    shape = (self.kernel_size, self.kernel_size, rank, width)
    return {'kernel': (nn.initializers.lecun_normal(), shape)}

  def orthogonal(self, matrices, params):
    """The reflector of every frequency."""
    return block_reflector(matrices, jitter=self.jitter)
