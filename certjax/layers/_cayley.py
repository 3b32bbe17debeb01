"""Cayley's transform: an orthogonal matrix of every shape from any matrix, without iterations.

For square W, A = W - W^* is skew and (I + A)^{-1} (I - A) orthogonal; a tall W = [U; V] adds
V^* V to A, and the second block of columns. I + A has eigenvalues with real part >= 1, so
the inverse is safe. Applied to every frequency of a circular convolution it makes the
convolution orthogonal; its kernel is then as large as the image.
"""

import jax.numpy as jnp
from flax import linen as nn

from certjax.layers._bjorck import adjoint, multiply, one_by_one
from certjax.layers._layer import FourierConvolution
from certjax.layers._linear import Linear


def cayley(w):
  """The (semi-)orthogonal matrix of Cayley's transform.

  With W = [U; V], U square, and A = U - U^* + V^* V:

    Q = [(I + A)^{-1} (I - A); -2 V (I + A)^{-1}],   Q^* Q = I.

  A wide W gives the adjoint of what its adjoint gives: orthonormal rows.

  Args:
    w: float or complex[..., m, n].

  Returns:
    [..., m, n].

  Example:
    >>> q = cayley(jnp.array([[0.0, 1.0], [0.5, -1.0], [1.2, 0.7]]))
    >>> bool(jnp.allclose(q.T @ q, jnp.eye(2), atol=1e-6))
    True

  References:
    Trockman & Kolter 2021 (arXiv:2104.07167).
  """
  rows, columns = w.shape[-2:]
  if rows < columns:
    return adjoint(cayley(adjoint(w)))
  u, v = w[..., :columns, :], w[..., columns:, :]
  a = u - adjoint(u) + multiply(adjoint(v), v)
  identity = jnp.broadcast_to(jnp.eye(columns, dtype=w.dtype), a.shape)
  inverse = one_by_one(jnp.linalg.inv, identity + a)
  return jnp.concatenate([multiply(inverse, identity - a), -2 * multiply(v, inverse)], -2)


def _scaled(w, norm_of, scale):
  """`w` with the Frobenius norm of `norm_of` exchanged for the learned `scale`."""
  square = jnp.sum(norm_of**2)
  norm = jnp.sqrt(jnp.where(square > 0, square, 1))
  return w * (scale / norm).astype(w.dtype)


class Cayley(FourierConvolution):
  """Orthogonal convolution by Cayley's transform at every frequency.

  Norm preserving for circular padding and no fewer outputs than inputs. The operator, and the
  stated constant, belong to the image size of the initialisation.

  Attributes:
    features, kernel_size, strides, padding, use_bias: as in `Convolution`.

  Example:
    >>> import jax
    >>> from certjax import layers
    >>> layer = layers.Cayley(6)
    >>> x = jax.random.normal(jax.random.key(1), (1, 5, 5, 6))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> y = layer.apply(variables, x)
    >>> bool(abs(jnp.linalg.norm(y) / jnp.linalg.norm(x) - 1) < 1e-5)
    True

  References:
    Trockman & Kolter 2021 (arXiv:2104.07167).
  """

  def parameters(self, channels):
    """A kernel, and its learned norm."""
    shape = (self.kernel_size, self.kernel_size, channels, self.features)
    # Deviation: the norm starts at the kernel's expected norm, not at that of the draw.
    scale = nn.initializers.constant(self.features**0.5)
    return {'kernel': (nn.initializers.lecun_normal(), shape), 'scale': (scale, ())}

  def orthogonal(self, matrices, params):
    """Cayley's transform of every frequency."""
    return cayley(_scaled(matrices, params['kernel'], params['scale']))


class CayleyLinear(Linear):
  """Orthogonal linear layer by Cayley's transform.

  Attributes:
    features: outputs.
    use_bias: whether a bias is added.

  Example:
    >>> import jax
    >>> from certjax import layers
    >>> layer = layers.CayleyLinear(3)
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> layers.lipschitz_upper(layer, variables) < 1 + 1e-6
    True

  References:
    Trockman & Kolter 2021 (arXiv:2104.07167).
  """

  def parameters(self, channels):
    """A matrix, and its learned norm."""
    scale = nn.initializers.constant(self.features**0.5)
    return {**super().parameters(channels), 'scale': (scale, ())}

  def normalised(self, params):
    """Cayley's transform."""
    return cayley(_scaled(params['kernel'], params['kernel'], params['scale']))

  def lipschitz(self, variables):
    """At least 1, the constant of the exact transform."""
    return max(1.0, super().lipschitz(variables))
