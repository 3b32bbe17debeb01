"""BCOP: an orthogonal convolution with a small kernel, from projectors and block convolution.

A symmetric projector P gives the orthogonal filter [P, I - P] of two taps, two projectors
one of 2 x 2 taps, and products of filters (block convolutions) stay orthogonal: k - 1 of them
and one orthogonal matrix make a k x k filter. All projectors have half rank, as published.
Orthogonal with circular padding; with zero padding a compression of it, 1-Lipschitz.
"""

import jax
import jax.numpy as jnp

from certjax.layers._bjorck import PRECISION, bjorck, multiply, one_by_one
from certjax.layers._layer import Convolution


def block_orthogonal(p, q):
  """The orthogonal filter of 2 x 2 taps of two symmetric projectors.

    [[P Q, P (I - Q)], [(I - P) Q, (I - P) (I - Q)]]

  Args:
    p: float[C, C], a symmetric projector.
    q: float[C, C], a symmetric projector.

  Returns:
    float[2, 2, C, C], taps, then output and input channels.

  Example:
    >>> filter = block_orthogonal(jnp.eye(1), jnp.zeros((1, 1)))
    >>> filter[:, :, 0, 0].tolist()
    [[0.0, 1.0], [0.0, 0.0]]

  References:
    Xiao et al. 2018 (arXiv:1806.05393).
  """
  identity = jnp.eye(len(p), dtype=p.dtype)
  rows, columns = jnp.stack([p, identity - p]), jnp.stack([q, identity - q])
  return jnp.einsum('iab,jbc->ijac', rows, columns, precision=PRECISION)


def block_convolve(a, b):
  """The filter that applies `b`, then `a`: (A * B)[s] = sum_t A[t] B[s - t].

  Args:
    a: float[h, w, D, C], taps, then output and input channels.
    b: float[h', w', C, B].

  Returns:
    float[h + h' - 1, w + w' - 1, D, B].

  Example:
    >>> block_convolve(jnp.ones((2, 1, 1, 1)), jnp.ones((2, 1, 1, 1)))[:, 0, 0, 0].tolist()
    [1.0, 2.0, 1.0]

  References:
    Xiao et al. 2018 (arXiv:1806.05393).
  """
  (h, w), (height, width) = b.shape[:2], a.shape[:2]
  terms = (
    jnp.pad(
      jnp.einsum('ijdc,cb->ijdb', a, b[s, t], precision=PRECISION),
      ((s, h - 1 - s), (t, w - 1 - t), (0, 0), (0, 0)),
    )
    for s in range(h)
    for t in range(w)
  )
  return sum(terms, jnp.zeros((height + h - 1, width + w - 1, a.shape[2], b.shape[3]), a.dtype))


def bcop_filter(matrices, *, num_steps=20):
  """The orthogonal filter of 2 k - 1 unconstrained matrices.

  The first 2 (k - 1) become projectors on half of their orthonormalised columns, in pairs
  the k - 1 filters of 2 x 2 taps; the last becomes the orthogonal matrix on their left.

  Args:
    matrices: float[2 k - 1, C, C].
    num_steps: Bjorck iterations.

  Returns:
    float[k, k, C, C], HWIO.

  Raises:
    ValueError: if the number of matrices is even.

  Example:
    >>> import jax
    >>> bcop_filter(jax.random.normal(jax.random.key(0), (5, 4, 4))).shape
    (3, 3, 4, 4)

  References:
    Li et al. 2019 (arXiv:1911.00937).
  """
  if len(matrices) % 2 == 0:
    raise ValueError(f'`matrices` holds 2 k - 1 matrices, an odd number, got {len(matrices)}.')
  *halves, last = bjorck(matrices, num_steps=num_steps)
  rank = matrices.shape[-1] // 2
  projectors = [multiply(q[:, :rank], q[:, :rank].T) for q in halves]
  return compose(projectors, last)


def compose(projectors, last):
  """The filter `last` * block_orthogonal(P_1, P_2) * block_orthogonal(P_3, P_4) * ...

  Args:
    projectors: list of 2 (k - 1) arrays float[C, C].
    last: float[C, C], orthogonal.

  Returns:
    float[k, k, C, C], HWIO.
  """
  kernel = last[None, None]
  for p, q in zip(projectors[::2], projectors[1::2], strict=True):
    kernel = block_convolve(kernel, block_orthogonal(p, q))
  return jnp.swapaxes(kernel, 2, 3)


def _orthogonal_matrices(key, shape, dtype=float):
  """Uniformly distributed orthogonal matrices: those of `jax.random.orthogonal`, one by one."""
  return one_by_one(_orthogonal, jax.random.normal(key, shape, dtype))


def _orthogonal(normal):
  q, r = jnp.linalg.qr(normal)
  sign = jnp.where(jnp.diagonal(r, axis1=-2, axis2=-1) < 0, -1, 1).astype(q.dtype)
  return q * sign[..., None, :]


class BCOP(Convolution):
  """Block convolution orthogonal parametrisation: an orthogonal k x k convolution.

  Built for max(input, output) channels; rows and columns beyond are cut. Norm preserving for
  circular padding and no fewer outputs than inputs, and 1-Lipschitz always.

  Attributes:
    features, kernel_size, strides, padding, use_bias: as in `Convolution`.
    num_steps: Bjorck iterations.

  Example:
    >>> from certjax import layers
    >>> layer = layers.BCOP(6, kernel_size=3)
    >>> x = jax.random.normal(jax.random.key(1), (1, 5, 5, 6))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> y = layer.apply(variables, x)
    >>> bool(abs(jnp.linalg.norm(y) / jnp.linalg.norm(x) - 1) < 1e-5)
    True
    >>> layers.lipschitz_upper(layer, variables) < 1 + 1e-5
    True

  References:
    Li et al. 2019 (arXiv:1911.00937).
  """

  num_steps: int = 20

  def parameters(self, channels):
    """2 k - 1 square matrices."""
    width = max(channels, self.features)
    return {'kernel': (_orthogonal_matrices, (2 * self.kernel_size - 1, width, width))}

  def operator(self, params, size):
    """The filter of `bcop_filter`, cut to the output channels."""
    return bcop_filter(params['kernel'], num_steps=self.num_steps)[..., : self.features]
