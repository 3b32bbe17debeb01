"""Fully connected networks with smooth activations: the subjects of curvature certificates."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax.models._convolutions import check_choice
from certjax.models._normalize import Normalize

_ACTIVATIONS = {'softplus': jax.nn.softplus, 'sigmoid': jax.nn.sigmoid, 'tanh': jnp.tanh}


class MLP(nn.Module):
  """Dense layers with one smooth activation between any two.

  Attributes:
    num_classes: K.
    hidden: outputs of each dense layer but the last.
    activation: 'softplus', 'sigmoid' or 'tanh'.
    mean, std: normalisation of each channel.

  Raises:
    ValueError: when called, for an unknown `activation`.

  Example:
    >>> from certjax import bounds
    >>> module, x = MLP(10, hidden=(16,), activation='tanh'), jnp.full((2, 4, 4, 1), 0.5)
    >>> weights, biases = module.matrices(module.init(jax.random.key(0), x), x.shape[1:])
    >>> proof = bounds.crc(x, weights, biases, activation=module.activation)
    >>> proof.radius.shape
    (2,)

  References:
    Singla & Feizi 2020 (arXiv:2006.00731): 1024 wide, 2 to 4 layers, of which the last is counted.
  """

  num_classes: int
  hidden: tuple[int, ...] = (1024,)
  activation: str = 'sigmoid'
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  @nn.compact
  def __call__(self, x, train=False):
    """float[B, ...] -> float[B, K]."""
    del train
    check_choice(self, 'activation', _ACTIVATIONS)
    x = Normalize(self.mean, self.std)(x)
    x = x.reshape(len(x), -1)
    for number, features in enumerate(self.hidden):
      x = _ACTIVATIONS[self.activation](nn.Dense(features, name=f'dense{number}')(x))
    return nn.Dense(self.num_classes, name=f'dense{len(self.hidden)}')(x)

  def matrices(self, variables, shape):
    """([W_1, ...], [b_1, ...]) of pixels in [0, 1]: float64[out, in] and float64[out].

    The normalisation is part of the first; `shape` = (H, W, C) says which pixel has which channel.
    """
    params = variables['params']
    layers = [params[f'dense{number}'] for number in range(len(self.hidden) + 1)]
    weights = [np.asarray(layer['kernel'], np.float64).T for layer in layers]
    biases = [np.asarray(layer['bias'], np.float64) for layer in layers]
    mean, std = (np.broadcast_to(value, shape).ravel() for value in (self.mean, self.std))
    weights[0] = weights[0] / std
    biases[0] = biases[0] - weights[0] @ mean
    return weights, biases


SMOOTH_MLPS = {
  f'mlp{depth}-{activation}': {'hidden': (1024,) * (depth - 1), 'activation': activation}
  for depth in (2, 3, 4)
  for activation in ('sigmoid', 'softplus', 'tanh')
}
"""Name -> fields: the networks of Singla & Feizi, and theirs with tanh."""
