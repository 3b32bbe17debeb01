"""CIFAR ResNets of He et al. 2016, section 4.2: depth 6n + 2, three stages of n basic blocks.

Shortcuts without parameters (option A: stride and zero-padded channels) or, as in the
network that Cohen et al. trained, a 1x1 convolution with BatchNorm (option B).

Layers bear the names of the published PyTorch code, with `_` for its dots, here and in the
other residual networks: `load_weights` needs no table.
"""

import functools

import jax.numpy as jnp
from flax import linen as nn

from certjax import parallel
from certjax.models._convolutions import conv, convolution
from certjax.models._normalize import Normalize


class BasicBlock(nn.Module):
  """relu(BN(conv3x3(relu(BN(conv3x3(x))))) + shortcut(x)).

  Attributes:
    features: channels of the output.
    stride: of the first convolution.
    shortcut: 'A' or 'B'.
    conv: the kind of all convolutions, 'plain' or a layer: 'soc', 'bcop', ...
  """

  features: int
  stride: int = 1
  shortcut: str = 'A'
  conv: str = 'plain'

  @nn.compact
  def __call__(self, x, train):
    norm = functools.partial(batch_norm, train)
    make = functools.partial(convolution, self.conv, train, self.features, 3)
    y = make(self.stride, name='conv1')(x)
    y = nn.relu(norm(name='bn1')(y))
    y = norm(name='bn2')(make(name='conv2')(y))
    if x.shape != y.shape:
      x = shorten(self.shortcut, self.features, self.stride, train, x, self.conv)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """ResNet of depth 6n + 2 for 32x32 images, in 16, 32 and 64 channels.

  Attributes:
    num_classes: K.
    depth: 20, 32, 44, 56, 110, ...
    shortcut: 'A' (no parameters) or 'B' (1x1 convolution).
    mean, std: normalisation of each channel.

  Example:
    >>> import jax
    >>> x = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
    >>> variables = jax.eval_shape(ResNet(10, depth=20).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    269722
  """

  num_classes: int
  depth: int = 20
  shortcut: str = 'A'
  mean: tuple[float, ...] = (0.0, 0.0, 0.0)
  std: tuple[float, ...] = (1.0, 1.0, 1.0)

  @nn.compact
  def __call__(self, x, train=False):
    if (self.depth - 2) % 6:
      raise ValueError(f'`depth` must be 6n + 2 (20, 32, 56, 110, ...), got {self.depth}.')
    x = Normalize(self.mean, self.std)(x)
    x = conv(16, (3, 3), padding=1, name='conv1')(x)
    x = nn.relu(batch_norm(train, name='bn1')(x))
    for stage, features in enumerate((16, 32, 64)):
      for i in range((self.depth - 2) // 6):
        stride = 2 if stage and i == 0 else 1
        block = BasicBlock(features, stride, self.shortcut, name=f'layer{stage + 1}_{i}')
        x = block(x, train)
    return nn.Dense(self.num_classes, name='fc')(jnp.mean(x, axis=(1, 2)))


def shorten(shortcut, features, stride, train, x, kind='plain'):
  """The shortcut where stride or channels change; called inside a compact module.

  Args:
    shortcut: 'A' (every `stride`-th pixel, channels padded by zeros on both sides) or 'B' (1x1
      convolution and BatchNorm).
    features: channels of the output.
    stride: of the block.
    train: whether BatchNorm takes the batch's statistics.
    x: float[B, H, W, C].
    kind: of the 1x1 convolution.

  Returns:
    float[B, H / stride, W / stride, features].
  """
  if shortcut == 'B':
    x = convolution(kind, train, features, 1, stride, name='shortcut_0')(x)
    return batch_norm(train, name='shortcut_1')(x)
  x = x[:, ::stride, ::stride]
  extra = features - x.shape[-1]
  return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


def batch_norm(train, *, name):
  """Statistics over the batch of all devices in training, running ones otherwise."""
  axis = parallel.AXIS if train else None
  return nn.BatchNorm(
    use_running_average=not train, momentum=0.9, epsilon=1e-5, axis_name=axis, name=name
  )
