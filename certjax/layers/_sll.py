"""SLL and CPL: residual layers x - 2 W^T D relu(W x + b) whose Jacobian is symmetric.

With R in [0, 1] the slopes of relu, the Jacobian is I - 2 B^T R B, B = D^{1/2} W, with
eigenvalues in [1 - 2 ||B||^2, 1]: 1-Lipschitz for ||B|| <= 1, and max(1, 2 ||B||^2 - 1) always.

  CPL:  D = I / ||W||^2
  SLL:  D = diag(1 / T),  T_i = sum_j |W W^T|_ij q_j / q_i,  q > 0

Both hold for zero and circular padding and every image size.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax.layers._aol import self_correlation
from certjax.layers._bjorck import gram_scale
from certjax.layers._filter_bounds import ROUNDING, gershgorin_norm
from certjax.layers._fourier import fourier_operator
from certjax.layers._images import convolve, transposed
from certjax.layers._layer import Convolution
from certjax.layers._resample import fit_channels
from certjax.layers._spectrum import supremum_norm

_GRID = 16  # Frequencies an axis of CPL's bound: 4% above the supremum for 3 taps.


def residual_step(x, kernel, inverse, bias, *, padding):
  """x - 2 W^T (inverse relu(W x + bias)).

  Args:
    x: float[B, H, W, C].
    kernel: float[k, k, C, D], the filter of W.
    inverse: float[D], the diagonal of D.
    bias: float[D].
    padding: 'circular' or 'zero'.

  Returns:
    float[B, H, W, C].

  Example:
    >>> one = jnp.ones((1, 1, 1, 1))
    >>> residual_step(one, one, jnp.ones(1), jnp.zeros(1), padding='zero').ravel().tolist()
    [-1.0]

  References:
    Meunier et al. 2022 (arXiv:2110.12690); Araujo et al. 2023 (arXiv:2303.03169).
  """
  hidden = jax.nn.relu(convolve(x, kernel, padding) + bias.reshape(1, 1, 1, -1))
  return x - 2 * convolve(hidden * inverse.reshape(1, 1, 1, -1), transposed(kernel), padding)


def sll_inverse(kernel, q):
  """The diagonal 1 / T of SLL; 0 for a hidden channel without weights.

  Args:
    kernel: float[k, k, C, D].
    q: float[D], positive.

  Returns:
    float[D].

  Example:
    >>> (1 / sll_inverse(jnp.array([[[[1.0, 3.0], [2.0, -1.0]]]]), jnp.ones(2))).round(4).tolist()
    [6.0, 11.0]

  References:
    Araujo et al. 2023 (arXiv:2303.03169).
  """
  total = jnp.sum(self_correlation(transposed(kernel)) * q.reshape(1, -1), 1) / q
  return jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)


def cpl_inverse(kernel, *, gram_steps=5):
  """1 / U^2 for an upper bound U of the convolution's norm at every image size.

  U is Gram iteration's bound on a grid of frequencies over cos(pi d / grid)^2, d = (k - 1) / 2:
  between the points a trigonometric polynomial of degree d rises by no more (Riesz).

  Args:
    kernel: float[k, k, C, D].
    gram_steps: Gram steps; each halves the logarithm of what the bound is too large by.

  Returns:
    float[], 0 for a zero kernel.

  Example:
    >>> round(float(cpl_inverse(jnp.full((1, 1, 1, 1), 2.0))), 6)
    0.25

  References:
    Meunier et al. 2022 (arXiv:2110.12690); Delattre et al. 2023 (arXiv:2305.16173).
  """
  # Deviation: power iteration in the paper, whose estimate is too small to prove anything.
  size = kernel.shape[0]
  grid = max(_GRID, 4 * size) if size > 1 else 1
  norm = jnp.max(gram_scale(fourier_operator(kernel, (grid, grid)), num_steps=gram_steps))
  norm = norm / math.cos(math.pi * (size // 2) / grid) ** 2
  return jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1) ** 2, 0)


class _Residual(Convolution):
  """x - 2 W^T D relu(W x + b), on max(input, features) channels, the last outputs dropped.

  Attributes:
    hidden: channels of W's output; those of the image where None.
  """

  hidden: int | None = None

  def parameters(self, channels):
    """The kernel of W and the bias inside relu."""
    width = max(channels, self.features)
    hidden = self.hidden or width
    shape = (self.kernel_size, self.kernel_size, width, hidden)
    return {
      'kernel': (nn.initializers.lecun_normal(), shape),
      'hidden_bias': (nn.initializers.zeros, (hidden,)),
    }

  def operator(self, params, size):
    """(kernel, diagonal, bias)."""
    return params['kernel'], self.diagonal(params), params['hidden_bias']

  def transform(self, operator, x):
    """One residual step."""
    x = fit_channels(x, operator[0].shape[2])
    return fit_channels(residual_step(x, *operator, padding=self.padding), self.features)

  def norm(self, operator, params, size):
    """max(1, 2 ||B||^2 - 1) for the float32 diagonal."""
    return max(1.0, 2 * self.square(operator, params) - 1)


class SLL(_Residual):
  """SDP-based Lipschitz layer: residual, 1-Lipschitz, with a learned diagonal q.

  Attributes:
    features, kernel_size, strides, padding, use_bias: as in `Convolution`.
    hidden: channels inside; those of the image where None.

  Example:
    >>> from certjax import layers
    >>> layer = layers.SLL(6, padding='zero')
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 5, 5, 6)))
    >>> layers.lipschitz_upper(layer, variables) < 1 + 1e-5
    True

  References:
    Araujo et al. 2023 (arXiv:2303.03169).
  """

  def parameters(self, channels):
    """Those of the residual layer, and log q."""
    table = super().parameters(channels)
    return {**table, 'log_q': (nn.initializers.zeros, table['hidden_bias'][1])}

  def diagonal(self, params):
    """`sll_inverse`."""
    return sll_inverse(params['kernel'], jnp.exp(params['log_q']))

  def square(self, operator, params):
    """Gershgorin's bound of ||B||^2, with the weights that make it 1."""
    kernel, inverse, _ = (np.asarray(part, np.float64) for part in operator)
    root = np.sqrt(inverse)
    weights = np.exp(np.asarray(params['log_q'], np.float64)) / np.where(root > 0, root, 1)
    return gershgorin_norm(np.swapaxes(kernel * root, 2, 3), weights) ** 2


class CPL(_Residual):
  """Convex potential layer: residual and 1-Lipschitz.

  Attributes:
    features, kernel_size, strides, padding, use_bias: as in `Convolution`.
    hidden: channels inside; those of the image where None.
    gram_steps: see `cpl_inverse`.

  Example:
    >>> from certjax import layers
    >>> layer = layers.CPL(6, padding='zero')
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 5, 5, 6)))
    >>> layers.lipschitz_upper(layer, variables)
    1.0

  References:
    Meunier et al. 2022 (arXiv:2110.12690).
  """

  gram_steps: int = 5

  def diagonal(self, params):
    """`cpl_inverse`, for all hidden channels."""
    inverse = cpl_inverse(params['kernel'], gram_steps=self.gram_steps)
    return jnp.broadcast_to(inverse, params['hidden_bias'].shape)

  def square(self, operator, params):
    """The norm's float64 bound for every size, times the float32 diagonal."""
    return supremum_norm(operator[0]) ** 2 * float(operator[1].max()) * ROUNDING
