"""ResNet-9: the residual network of DAWNBench's fastest CIFAR-10 entries.

Layers bear the names of that code (David Page's cifar10-fast).
"""

import functools

import jax.numpy as jnp
from flax import linen as nn

from certjax.models._chain import check_images
from certjax.models._convolutions import CONVOLUTIONS, check_choice, convolution
from certjax.models._normalize import Normalize
from certjax.models._resnet import batch_norm


class ResNet9(nn.Module):
  """Eight 3 x 3 convolutions, each with BatchNorm and ReLU, and one linear layer:

    w - 2w, pool - residual of two 2w - 4w, pool - 8w, pool - residual of two 8w - pool all - K

  Pooling takes the largest of 2 x 2 pixels. With another `conv` than 'plain', every convolution
  is one of that kind, but BatchNorm and skip connections stay: orthogonal convolutions
  without a Lipschitz constant of the network.

  Attributes:
    num_classes: K.
    conv: 'plain' or a layer: 'soc', 'bcop', 'cayley', ...
    width: w.
    mean, std: normalisation of each channel.

  Raises:
    ValueError: when called, for an unknown name or images below 8 x 8 pixels.

  Example:
    >>> import jax
    >>> x = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
    >>> variables = jax.eval_shape(ResNet9(10).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    6573130

  References:
    Page 2018, "How to train your ResNet"; orthogonal: Trockman & Kolter 2021 (arXiv:2104.07167).
  """

  # Deviation: without the factor 1 / 8 that the published code puts on the logits.

  num_classes: int
  conv: str = 'plain'
  width: int = 64
  mean: tuple[float, ...] = (0.0, 0.0, 0.0)
  std: tuple[float, ...] = (1.0, 1.0, 1.0)

  @nn.compact
  def __call__(self, x, train=False):
    check_choice(self, 'conv', CONVOLUTIONS)
    check_images(x, least=8)
    unit = functools.partial(self._unit, train)
    x = unit('prep', 1, Normalize(self.mean, self.std)(x))
    x = _halved(unit('layer1', 2, x))
    x = x + unit('layer1_residual_res2', 2, unit('layer1_residual_res1', 2, x))
    x = _halved(unit('layer2', 4, x))
    x = _halved(unit('layer3', 8, x))
    x = x + unit('layer3_residual_res2', 8, unit('layer3_residual_res1', 8, x))
    return nn.Dense(self.num_classes, name='linear')(jnp.max(x, axis=(1, 2)))

  def _unit(self, train, name, times, x):
    """relu(BN(conv3x3(x))) with `times` w channels."""
    x = convolution(self.conv, train, times * self.width, 3, name=f'{name}_conv')(x)
    return nn.relu(batch_norm(train, name=f'{name}_bn')(x))


def _halved(x):
  return nn.max_pool(x, (2, 2), strides=(2, 2))
