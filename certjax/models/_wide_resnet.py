"""Wide residual networks of Zagoruyko & Komodakis 2016 (arXiv:1605.07146), without dropout.

Pre-activation blocks, three stages, depth 6n + 4: the networks of TRADES, of Yang et al. 2020
and of most CIFAR leaderboards, with their names of layers.
"""

import functools

import jax.numpy as jnp
from flax import linen as nn

from certjax.models._normalize import Normalize
from certjax.models._resnet import batch_norm, conv


class WideBlock(nn.Module):
  """conv3x3(relu(BN(conv3x3(z)))) + x with z = relu(BN(x)); where channels change, + conv1x1(z).

  Attributes:
    features: channels of the output.
    stride: of the first convolution.
  """

  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, train):
    norm = functools.partial(batch_norm, train)
    z = nn.relu(norm(name='bn1')(x))
    if x.shape[-1] != self.features:
      x = conv(self.features, (1, 1), strides=self.stride, name='shortcut')(z)
    y = conv(self.features, (3, 3), strides=self.stride, padding=1, name='conv1')(z)
    y = nn.relu(norm(name='bn2')(y))
    return x + conv(self.features, (3, 3), padding=1, name='conv2')(y)


class WideResNet(nn.Module):
  """WRN-`depth`-`width` for 32x32 images, in 16, 16w, 32w and 64w channels.

  Attributes:
    num_classes: K.
    depth: 6n + 4: 16, 28, 34, 40, ...
    width: w.
    mean, std: normalisation of each channel.

  Example:
    >>> import jax
    >>> x = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
    >>> variables = jax.eval_shape(WideResNet(10, depth=16, width=1).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    175066
  """

  num_classes: int
  depth: int = 28
  width: int = 10
  mean: tuple[float, ...] = (0.0, 0.0, 0.0)
  std: tuple[float, ...] = (1.0, 1.0, 1.0)

  @nn.compact
  def __call__(self, x, train=False):
    if (self.depth - 4) % 6:
      raise ValueError(f'`depth` must be 6n + 4 (16, 28, 34, 40, ...), got {self.depth}.')
    x = Normalize(self.mean, self.std)(x)
    x = conv(16, (3, 3), padding=1, name='conv1')(x)
    for stage, features in enumerate((16, 32, 64)):
      for i in range((self.depth - 4) // 6):
        stride = 2 if stage and i == 0 else 1
        name = f'block{stage + 1}_layer_{i}'
        x = WideBlock(features * self.width, stride, name=name)(x, train)
    x = nn.relu(batch_norm(train, name='bn1')(x))
    return nn.Dense(self.num_classes, name='fc')(jnp.mean(x, axis=(1, 2)))
