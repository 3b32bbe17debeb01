"""SOC: skew orthogonal convolutions, the exponential of a skew filter as a layer.

The filter is normalised by the four reshapes of Singla & Feizi (ICLR'21) so that its norm is about
`bound`; in training their norms come from power iteration, which under-estimates. So
`lipschitz` trusts no estimate: it bounds the norm of the filter that evaluation really uses by SVD, and
returns the exact constant of the truncated series up to that norm.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax.layers._exponential import conv_exponential, skew_filter
from certjax.layers._fourier import apply_fourier, fourier_operator
from certjax.layers._images import check_layer
from certjax.layers._layer import check_input
from certjax.layers._protocol import SPECTRAL
from certjax.layers._resample import fit_channels, invertible_downsampling
from certjax.layers._series import polynomial, series_lipschitz
from certjax.layers._spectrum import norm_upper, power_iteration, reshape_r, reshape_t

EVAL_DEGREE = {'taylor': 12, 'chebyshev': 8}
"""Degrees whose error at norm 1.8 is below 2e-6. Taylor 12 never expands, up to norm 3.379."""

_INITIAL_STEPS = 50  # Power iterations when the layer is made; one a training step then suffices.
_TINY = 1e-12  # A filter of zeros stays zero.
_ROUNDINGS = 8  # Units in the last place by which an entry of the normalised filter may be off.


class SOC(nn.Module):
  """Skew orthogonal convolution: 1-Lipschitz, and norm preserving where no channel is dropped.

    y = p(L) x + b,   L = bound * S / n(S),   S = skew_filter(M)

  with p ~ exp of degree `train_degree` or `eval_degree`, and n(S) the estimate of the least
  of the four reshapes' bounds on ||S||. Strides by invertible downsampling before, more channels by
  zero channels before, fewer by dropping the last ones after.

  The collection 'spectral' holds the singular vectors and the norm that training saw last; pass
  `mutable=['spectral']` with `train=True`, as for batch statistics. Evaluation divides by the
  stored norm.

  Attributes:
    features: channels of the result.
    kernel_size: odd.
    strides: 1 or more; it divides the image.
    padding: 'zero' or 'circular': orthogonal with both.
    use_bias: whether a bias is added.
    series: 'taylor' or 'chebyshev', see `polynomial`.
    train_degree: convolutions in training.
    eval_degree: convolutions in evaluation; default 12 (taylor) or 8 (chebyshev).
    bound: the norm of the normalised filter is at most about this.
    grad: 'exact' or 'approx', see `conv_exponential`.

  Raises:
    ValueError: when called, for an even kernel size, strides that do not divide the image, a
      channel number other than the weights', or an unknown name.

  Example:
    >>> layer = SOC(8, kernel_size=3, strides=2)
    >>> variables = layer.init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> layer.apply(variables, jnp.ones((5, 8, 8, 2))).shape
    (5, 4, 4, 8)
    >>> layer.lipschitz(variables)
    1.0

  References:
    Singla & Feizi 2021 (arXiv:2105.11417).
  """

  features: int
  kernel_size: int = 3
  strides: int = 1
  padding: str = 'zero'
  use_bias: bool = True
  series: str = 'taylor'
  train_degree: int = 5
  eval_degree: int | None = None
  bound: float = 1.8
  grad: str = 'exact'

  @nn.compact
  def __call__(self, x, train=False):
    self._check(x)
    x = self._square(x)
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], x.shape[-1])
    kernel = self.param('kernel', nn.initializers.normal(1 / math.sqrt(shape[-1])), shape)
    skew = skew_filter(kernel)
    kernel = self._normalised(skew, self._estimated_norm(skew, train))
    y = self._exponential(x, kernel, self.train_degree if train else self._eval_degree())
    y = fit_channels(y, self.features)
    if not self.use_bias:
      return y
    bias = self.param('bias', _uniform(1 / math.sqrt(self.features)), (self.features,))
    return y + bias.reshape(1, 1, 1, -1)

  def lipschitz(self, variables) -> float:
    """The exact constant of the series at evaluation degree, up to a proved norm of the filter.

    Args:
      variables: `{'params': ..., 'spectral': ...}`.

    Returns:
      A Python float, rounded up.
    """
    kernel = np.asarray(variables['params']['kernel'])
    skew = skew_filter(kernel.astype(np.float64))
    kernel64 = self._normalised(skew, np.float64(_stored_norm(variables)))
    rounding = _ROUNDINGS * float(jnp.finfo(kernel.dtype).eps) * self.kernel_size
    norm = norm_upper(kernel64) + rounding * float(np.linalg.norm(kernel64))
    return series_lipschitz(self.series, self._eval_degree(), float(self.bound), norm)

  def materialize(self, variables):
    """Evaluation with the operator made once.

    For 1 x 1 filters that is the matrix p(L), for circular padding a matrix a frequency (images of
    the size at initialisation only), else the normalised filter.

    Args:
      variables: `{'params': ..., 'spectral': ...}`.

    Returns:
      A `jax.tree_util.Partial`, x -> y.
    """
    params = variables['params']
    kernel = jnp.asarray(params['kernel'])
    operator = self._normalised(skew_filter(kernel), jnp.asarray(_stored_norm(variables)))
    power = polynomial(self.series, self._eval_degree(), self.bound)
    if self.kernel_size == 1:
      operator = jnp.asarray(_evaluate(power, np.float64(operator[0, 0])), kernel.dtype)
    elif self.padding == 'circular':
      matrices = np.complex128(fourier_operator(operator, self._size(variables)))
      operator = jnp.asarray(_evaluate(power, matrices), jnp.complex64)
    bias = jnp.asarray(params['bias']) if self.use_bias else None
    return jax.tree_util.Partial(_cached(self), operator, bias)  # pyright: ignore[reportArgumentType] # Frozen: it has a hash.

  def _eval_degree(self):
    if self.eval_degree is not None:
      return self.eval_degree
    return EVAL_DEGREE.get(self.series, 1)  # An unknown name is refused by the series.

  def _check(self, x):
    check_layer(self.features, self.kernel_size, self.strides, self.padding)
    if x.ndim != 4:
      raise ValueError(f'`x` must be a batch of images [B, H, W, C], got shape {x.shape}.')
    check_input(self, x, sized=False)

  def _square(self, x):
    """Downsampled, and with zero channels where the result has more."""
    x = invertible_downsampling(x, self.strides)
    return fit_channels(x, max(self.features, x.shape[-1]))

  def _size(self, variables):
    """(H, W) after downsampling, as `check_input` stored them."""
    known = variables[SPECTRAL]['input']
    return tuple(len(known[name]) // self.strides for name in ('height', 'width'))

  def _normalised(self, skew, norm):
    return skew * (self.bound / norm.clip(_TINY))

  def _exponential(self, x, kernel, degree):
    return conv_exponential(
      x, kernel, degree=degree, series=self.series, bound=self.bound, padding=self.padding,
      grad=self.grad,
    )  # fmt: skip

  def _estimated_norm(self, skew, train):
    """sqrt(h w) min(||R||, ||T||) by power iteration; ||S|| = ||R|| and ||U|| = ||T|| if skew."""
    matrices = {'t': reshape_t(skew)}
    if self.kernel_size > 1:
      matrices['r'] = reshape_r(skew)
    start = lambda n: jax.random.normal(self.make_rng('params'), (n,), skew.dtype)
    vectors = {
      name: self.variable(SPECTRAL, name, start, matrix.shape[1])
      for name, matrix in matrices.items()
    }
    norm = self.variable(SPECTRAL, 'norm', jnp.zeros, (), skew.dtype)
    if not train and not self.is_initializing():
      return norm.value
    steps = _INITIAL_STEPS if self.is_initializing() else 1
    estimates = []
    for name, matrix in matrices.items():
      u, v = power_iteration(matrix, vectors[name].value, steps=steps)
      estimates.append(jnp.vdot(u, jnp.matmul(matrix, v, precision='highest')))
      if self.is_mutable_collection(SPECTRAL):
        vectors[name].value = v
    estimate = self.kernel_size * jnp.min(jnp.stack(estimates))
    if self.is_mutable_collection(SPECTRAL):
      norm.value = jax.lax.stop_gradient(estimate)
    return estimate


def _stored_norm(variables):
  if 'norm' not in variables.get(SPECTRAL, {}):
    raise ValueError(
      f'`variables` must hold the collection {SPECTRAL!r} that `init` and training made: '
      f'evaluation divides the filter by the norm stored there.'
    )
  return variables[SPECTRAL]['norm']


def _uniform(scale):
  return lambda key, shape: jax.random.uniform(key, shape, minval=-scale, maxval=scale)


def _evaluate(power, matrix):
  """p(A) of a stack of matrices in double precision, by Horner."""
  identity = np.eye(matrix.shape[-1])
  value = float(power[-1]) * identity
  for a in power[-2::-1]:
    value = value @ matrix + float(a) * identity
  return value


def _check_size(x, operator):
  height, columns = operator.shape[:2]
  if (height, columns) != (x.shape[1], x.shape[2] // 2 + 1):
    raise ValueError(
      f'`x` must have the size that the operator was made for, {height} x {2 * columns - 2} (or '
      f'{2 * columns - 1}) pixels after strides, got {x.shape[1]} x {x.shape[2]}: `materialize` a '
      f'layer initialised for this size, or apply the layer itself.'
    )


@functools.cache
def _cached(layer):
  """One function object a layer: jit caches on its identity."""

  def apply(operator, bias, x):
    x = layer._square(x)
    if operator.ndim == 2:
      y = jnp.matmul(x, operator, precision='highest')
    elif jnp.iscomplexobj(operator):
      _check_size(x, operator)
      y = apply_fourier(operator, x)
    else:
      y = layer._exponential(x, operator, layer._eval_degree())
    y = fit_channels(y, layer.features)
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)

  return apply
