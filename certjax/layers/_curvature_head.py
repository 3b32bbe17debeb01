"""The last layers of CRC-Lip: a smooth network of one hidden layer on 1-Lipschitz features.

Its curvature is bounded everywhere (`bounds.curvature`), which proves larger radii than its Lipschitz
constant alone: its slope at the image itself counts, not its steepest anywhere.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax.layers._filter_bounds import operator_norm


class CurvatureHead(nn.Module):
  """f(z) = W_2 softplus(beta (W_1 z + b_1)) / beta + b_2.

  Attributes:
    num_classes: K.
    hidden: H, outputs of W_1.
    beta: sharpness of the softplus.

  Example:
    >>> from certjax import bounds, certify
    >>> head = CurvatureHead(10, hidden=16)
    >>> z = jax.random.normal(jax.random.key(0), (4, 8))
    >>> matrices = head.matrices(head.init(jax.random.key(1), z))
    >>> m = bounds.curvature(matrices['first'], matrices['last'], beta=head.beta)
    >>> around = bounds.expansion(np.asarray(z), **matrices, curvature=m, beta=head.beta)
    >>> bool((certify.curvature_margin(*around).radius > 0).all())
    True

  References:
    Singla & Feizi 2022 (arXiv:2211.08453).
  """

  num_classes: int
  hidden: int = 4096
  beta: float = 1.0

  @nn.compact
  def __call__(self, z, train=False):
    """float[..., D] -> float[..., K]."""
    if not (self.num_classes > 0 and self.hidden > 0 and 0 < self.beta < np.inf):
      raise ValueError(
        f'`num_classes`, `hidden` and `beta` must be positive, got num_classes={self.num_classes}, '
        f'hidden={self.hidden}, beta={self.beta}.'
      )
    before = nn.Dense(self.hidden, precision='highest', name='first')(z)
    after = jnp.logaddexp(0.0, self.beta * before) / self.beta
    return nn.Dense(self.num_classes, precision='highest', name='last')(after)

  def matrices(self, variables):
    """W_1, b_1, W_2, b_2 in float64 as [out, in]: the arguments of `bounds.expansion`."""
    params = variables['params']
    float64 = lambda name, kind: np.asarray(params[name][kind], np.float64)
    kernels = {name: float64(name, 'kernel').T for name in ('first', 'last')}
    return kernels | {f'{name}_bias': float64(name, 'bias') for name in ('first', 'last')}

  def lipschitz(self, variables):
    """|W_1|_2 |W_2|_2, as the softplus has slope at most 1."""
    product = self.hidden_lipschitz(variables) * operator_norm(self.matrices(variables)['last'])
    return float(np.nextafter(product, np.inf))

  def hidden_lipschitz(self, variables):
    """|W_1|_2, of the softplus below W_2, rounded up."""
    return operator_norm(self.matrices(variables)['first'])

  def materialize(self, variables):
    """See `certjax.layers.materialize`: there is nothing to be made."""
    return jax.tree_util.Partial(self.apply, jax.tree.map(jnp.asarray, variables))
