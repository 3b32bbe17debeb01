"""ResNets of four stages (He et al. 2016, table 1): ImageNet's 18, 34 and 50, and CIFAR's 18.

Bottleneck blocks stride in their 3x3 convolution, as torchvision's do ("v1.5"), so that its
weights, and those of Cohen et al. and Salman et al., carry over.

Singla & Feizi 2021 (arXiv:2105.11417) put SOC, or BCOP, in place of every convolution (1 x 1 and shortcuts
included) and keep BatchNorm, ReLU and skip connections: orthogonal convolutions, no certificate.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from certjax.models._chain import framed, rounded_up
from certjax.models._convolutions import CONVOLUTIONS, check_choice, convolution
from certjax.models._normalize import Normalize
from certjax.models._resnet import BasicBlock, batch_norm, shorten

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_EXPANSION = 4  # Output channels of a bottleneck over its inner ones.


class Bottleneck(nn.Module):
  """relu(BN(conv1x1(relu(BN(conv3x3(relu(BN(conv1x1(x)))))))) + shortcut(x)).

  Attributes:
    features: channels inside; 4 times as many leave.
    stride: of the 3x3 convolution.
    conv: the kind of all convolutions, 'plain' or a layer: 'soc', 'bcop', ...
  """

  features: int
  stride: int = 1
  conv: str = 'plain'

  @nn.compact
  def __call__(self, x, train):
    norm = functools.partial(batch_norm, train)
    make = functools.partial(convolution, self.conv, train)
    out = _EXPANSION * self.features
    y = nn.relu(norm(name='bn1')(make(self.features, 1, name='conv1')(x)))
    y = make(self.features, 3, self.stride, name='conv2')(y)
    y = nn.relu(norm(name='bn2')(y))
    y = norm(name='bn3')(make(out, 1, name='conv3')(y))
    if x.shape != y.shape:
      x = shorten('B', out, self.stride, train, x, self.conv)
    return nn.relu(x + y)


class ImageNetResNet(nn.Module):
  """ResNet with stages of w, 2w, 4w and 8w channels (times 4 with bottlenecks).

  Attributes:
    num_classes: K.
    depth: 18 or 34 (basic blocks), 50 (bottlenecks).
    stem: 'imagenet' (7x7 convolution of stride 2, 3x3 max pooling of stride 2) or 'cifar' (3x3
      convolution).
    width: w.
    mean, std: normalisation of each channel.
    conv: the kind of all convolutions, 'plain' or a layer: 'soc', 'bcop', 'cayley', ... Images then get
      zeros around them, so that every stride divides them.
    projection: units of a hidden layer between the mean over pixels and the outputs, as SimCLR trains
      it; 0 for none.

  Raises:
    ValueError: when called, for an unknown depth or name.

  Example:
    >>> import jax
    >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), 'float32')
    >>> variables = jax.eval_shape(ImageNetResNet(1000, depth=18).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    11689512
  """

  num_classes: int
  depth: int = 50
  stem: str = 'imagenet'
  width: int = 64
  mean: tuple[float, ...] = (0.0, 0.0, 0.0)
  std: tuple[float, ...] = (1.0, 1.0, 1.0)
  conv: str = 'plain'
  projection: int = 0

  @nn.compact
  def __call__(self, x, train=False):
    if self.depth not in BLOCKS:
      raise ValueError(f'`depth` must be 18, 34 or 50, got {self.depth}.')
    if self.stem not in ('imagenet', 'cifar'):
      raise ValueError(f"`stem` must be 'imagenet' or 'cifar', got {self.stem!r}.")
    check_choice(self, 'conv', CONVOLUTIONS)
    x = self._stem(self._divisible(Normalize(self.mean, self.std)(x)), train)
    make = Bottleneck if self.depth == 50 else functools.partial(BasicBlock, shortcut='B')
    for stage, count in enumerate(BLOCKS[self.depth]):
      for i in range(count):
        stride = 2 if stage and i == 0 else 1
        name = f'layer{stage + 1}_{i}'
        block = make(self.width << stage, stride, conv=self.conv, name=name)
        x = block(x, train)
    x = jnp.mean(x, axis=(1, 2))
    if self.projection:
      x = nn.relu(nn.Dense(self.projection, name='projection')(x))
    return nn.Dense(self.num_classes, name='fc')(x)

  def _divisible(self, x):
    if self.conv == 'plain':
      return x
    return framed(x, rounded_up(x.shape[1:3], 32 if self.stem == 'imagenet' else 8))

  def _stem(self, x, train):
    make = functools.partial(convolution, self.conv, train, self.width)
    if self.stem == 'cifar':
      x = make(3, name='conv1')(x)
      return nn.relu(batch_norm(train, name='bn1')(x))
    x = make(7, 2, name='conv1')(x)
    x = nn.relu(batch_norm(train, name='bn1')(x))
    padding: Any = ((1, 1), (1, 1))  # Flax takes pairs, and says `str`.
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
