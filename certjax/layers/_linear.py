"""Linear layers with orthonormal columns or rows, and the normalised last layer.

The kernel is float[C, D] as in Flax, y = x K: row j of a published weight matrix is the
column j here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax.layers._bjorck import bjorck, multiply
from certjax.layers._filter_bounds import operator_norm


def normalise_rows(kernel):
  """Every output's weights divided by their norm: w_j / ||w_j||.

  The certificate of a network before it, with constant L, is
  min_j (f_y - f_j) / (||w_y - w_j|| L).

  Args:
    kernel: float[C, D], an output a column.

  Returns:
    float[C, D], columns of norm 1; zero columns stay zero.

  Example:
    >>> normalise_rows(jnp.array([[0.0, 2.0], [4.0, 0.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]

  References:
    Singla et al. 2022 (arXiv:2108.04062), last-layer normalisation.
  """
  square = jnp.sum(kernel**2, 0, keepdims=True)
  return kernel / jnp.sqrt(jnp.where(square > 0, square, 1))


class Linear(nn.Module):
  """The frame of the linear layers: parameters -> normalised matrix -> x K + b.

  Attributes:
    features: outputs.
    use_bias: whether a bias is added.
  """

  features: int
  use_bias: bool = True

  def parameters(self, channels):
    """{name: (initializer, shape)} for `channels` inputs."""
    return {'kernel': (nn.initializers.orthogonal(), (channels, self.features))}

  def normalised(self, params):
    """The matrix float[C, features] of the parameters."""
    raise NotImplementedError

  @nn.compact
  def __call__(self, x, train=False):
    """float[..., C] -> float[..., features]."""
    if self.features < 1:
      raise ValueError(f'`features` must be a positive integer, got features={self.features}.')
    table: dict[str, Any] = self.parameters(x.shape[-1])
    if self.use_bias:
      table = {**table, 'bias': (nn.initializers.zeros, (self.features,))}
    if self.has_variable('params', 'kernel'):
      known = len(self.get_variable('params', 'kernel'))
      if known != x.shape[-1]:
        raise ValueError(
          f'`x` must have the {known} channels that the layer was initialised with, got '
          f'{x.shape[-1]}; initialise a layer for these.'
        )
    params = {name: self.param(name, *how) for name, how in table.items()}
    return self.evaluate(self.normalised(params), params.get('bias'), x)

  def evaluate(self, kernel, bias, x):
    """The layer with its matrix given."""
    y = multiply(x, kernel)
    return y if bias is None else y + bias.reshape((1,) * (x.ndim - 1) + (-1,))

  def materialize(self, variables):
    """See `certjax.layers.materialize`."""
    bias = variables['params'].get('bias')
    return jax.tree_util.Partial(self.evaluate, self._made(variables), bias)

  def lipschitz(self, variables):
    """The largest singular value of the matrix that float32 made of the weights."""
    return operator_norm(np.asarray(self._made(variables)))

  def _made(self, variables):
    """The matrix of the variables, by one program."""
    return jax.jit(self.normalised)(jax.tree.map(jnp.asarray, variables['params']))


class OrthogonalLinear(Linear):
  """Orthogonal linear layer by Bjorck's iteration: orthonormal rows or columns.

  Attributes:
    features: outputs.
    use_bias: whether a bias is added.
    num_steps: Bjorck iterations.

  Example:
    >>> from certjax import layers
    >>> layer = layers.OrthogonalLinear(3)
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> layers.lipschitz_upper(layer, variables) < 1 + 1e-6
    True

  References:
    Anil et al. 2019 (arXiv:1811.05381).
  """

  num_steps: int = 20

  def normalised(self, params):
    """The polar factor."""
    return bjorck(params['kernel'], num_steps=self.num_steps)

  def lipschitz(self, variables):
    """At least 1, what the exact iteration cannot exceed."""
    return max(1.0, super().lipschitz(variables))


class NormalizedLinear(Linear):
  """Last layer whose outputs have weights of norm 1 (LLN).

  Its own constant may reach sqrt(features); margins use ||w_y - w_j|| instead.

  Attributes:
    features: outputs.
    use_bias: whether a bias is added.

  Example:
    >>> from certjax import layers
    >>> layer = layers.NormalizedLinear(3)
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> layers.lipschitz_upper(layer, variables) < 1 + 1e-6
    True

  References:
    Singla et al. 2022 (arXiv:2108.04062).
  """

  def normalised(self, params):
    """`normalise_rows`."""
    return normalise_rows(params['kernel'])

  def lipschitz(self, variables):
    """The exact norm in float64, and what float32 made of it, whichever is larger."""
    kernel = np.asarray(variables['params']['kernel'], np.float64)
    norms = np.linalg.norm(kernel, axis=0)
    exact = operator_norm(kernel / np.where(norms > 0, norms, 1))
    return max(exact, super().lipschitz(variables))
