"""Small convolutional networks for 8x8 digits and 28x28 MNIST."""

import functools

from flax import linen as nn

from certjax.layers import conv_general_dilated
from certjax.models._normalize import Normalize

_conv = functools.partial(nn.Conv, conv_general_dilated=conv_general_dilated)


class DigitsCNN(nn.Module):
  """conv 3x3 (w) - conv 3x3 stride 2 (2w) - dense (4w) - dense (K), ReLU between.

  Attributes:
    num_classes: K.
    width: w.
    mean, std: normalisation of each channel.

  Example:
    >>> import jax
    >>> x = jax.ShapeDtypeStruct((1, 8, 8, 1), 'float32')
    >>> variables = jax.eval_shape(DigitsCNN(10).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    38282
  """

  num_classes: int
  width: int = 16
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  @nn.compact
  def __call__(self, x, train=False):
    del train
    x = Normalize(self.mean, self.std)(x)
    x = nn.relu(_conv(self.width, (3, 3))(x))
    x = nn.relu(_conv(2 * self.width, (3, 3), strides=2)(x))
    x = nn.relu(nn.Dense(4 * self.width)(x.reshape(len(x), -1)))
    return nn.Dense(self.num_classes)(x)


class MnistCNN(nn.Module):
  """conv 4x4 stride 2 (w) - conv 4x4 stride 2 (2w) - dense 100 - dense K, padding 1.

  With w = 16 the architecture of Wong & Kolter's robust MNIST network (arXiv:1711.00851).

  Attributes:
    num_classes: K.
    width: w.
    mean, std: normalisation of each channel.

  Example:
    >>> import jax
    >>> x = jax.ShapeDtypeStruct((1, 28, 28, 1), 'float32')
    >>> variables = jax.eval_shape(MnistCNN(10).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    166406
  """

  num_classes: int
  width: int = 16
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  @nn.compact
  def __call__(self, x, train=False):
    del train
    x = Normalize(self.mean, self.std)(x)
    x = nn.relu(_conv(self.width, (4, 4), strides=2, padding=1)(x))
    x = nn.relu(_conv(2 * self.width, (4, 4), strides=2, padding=1)(x))
    x = nn.relu(nn.Dense(100)(x.reshape(len(x), -1)))
    return nn.Dense(self.num_classes)(x)
