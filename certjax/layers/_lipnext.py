"""LipNeXt's block: an orthogonal matrix on the channels, a shift of the pixels, beta-Abs.

The only norm-preserving depthwise circular convolutions are single taps +-1: shifts. They
carry information between pixels, the matrix between channels, and both keep the norm; no
kernel is normalised, and the products are plain matrix products.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax.layers._activations import beta_abs
from certjax.layers._bjorck import bjorck, multiply
from certjax.layers._filter_bounds import operator_norm
from certjax.layers._layer import check_input

SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
"""(rows, columns) by which the runs of channels move."""


def spatial_shift(x, shifts=SHIFTS):
  """Rolls each of len(shifts) runs of channels, as equal as can be, by its own offset.

  Args:
    x: float[B, H, W, C].
    shifts: tuple of (rows, columns).

  Returns:
    float[B, H, W, C], a permutation of x.

  Example:
    >>> x = jnp.arange(3.0).reshape(1, 1, 3, 1)
    >>> spatial_shift(x, ((0, 1),)).ravel().tolist()
    [2.0, 0.0, 1.0]

  References:
    LipNeXt (arXiv:2601.18513).
  """
  runs = jnp.array_split(x, len(shifts), axis=-1)
  rolled = [jnp.roll(run, shift, (1, 2)) for run, shift in zip(runs, shifts, strict=True)]
  return jnp.concatenate(rolled, -1)


class LipNeXtBlock(nn.Module):
  """y = beta-Abs(shift(x R) + b), with R orthogonal: norm preserving up to the bias.

  The stored R may be kept on the manifold by its optimizer; the retraction here (the polar
  factor by Bjorck) takes off what is left.

  Attributes:
    beta: share of the channels whose sign is dropped.
    shifts: offsets of the runs of channels.
    use_bias: whether a bias is added.
    num_steps: Bjorck iterations; few suffice near the manifold.

  Example:
    >>> from certjax import layers
    >>> block = layers.LipNeXtBlock()
    >>> variables = block.init(jax.random.key(0), jnp.ones((1, 4, 4, 6)))
    >>> layers.lipschitz_upper(block, variables) < 1 + 1e-6
    True

  References:
    LipNeXt (arXiv:2601.18513).
  """

  beta: float = 0.5
  shifts: tuple = SHIFTS
  use_bias: bool = True
  num_steps: int = 20

  @nn.compact
  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, H, W, C]."""
    check_input(self, x, sized=False)
    width = x.shape[-1]
    kernel = self.param('kernel', nn.initializers.orthogonal(), (width, width))
    bias = self.param('bias', nn.initializers.zeros, (width,)) if self.use_bias else None
    return self.evaluate(bjorck(kernel, num_steps=self.num_steps), bias, x)

  def evaluate(self, matrix, bias, x):
    """The block with its orthogonal matrix given."""
    y = spatial_shift(multiply(x, matrix), self.shifts)
    return beta_abs(y if bias is None else y + bias.reshape(1, 1, 1, -1), beta=self.beta)

  def materialize(self, variables):
    """See `certjax.layers.materialize`."""
    bias = variables['params'].get('bias')
    return jax.tree_util.Partial(self.evaluate, self._made(variables), bias)

  def lipschitz(self, variables):
    """The norm of the matrix: shift and beta-Abs have constant 1."""
    return max(1.0, operator_norm(np.asarray(self._made(variables))))

  def _made(self, variables):
    """The orthogonal matrix of the variables."""
    kernel = jnp.asarray(variables['params']['kernel'])
    return bjorck(kernel, num_steps=self.num_steps)
