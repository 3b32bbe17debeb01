"""BagNets (Brendel & Bethge 2019): classifiers that average the opinions of small parts of the image.

  logits = mean over cells of f(the pixels that the cell sees)

A cell sees a square of `receptive_field` pixels and the next one starts `stride` pixels further, so
a patch on the image changes few cells and leaves the others as they are, bit for bit: what robust
masking builds on (`certify.patch_from_masking`).
"""

import functools
import math

import jax.numpy as jnp
from flax import linen as nn

from certjax.models._convolutions import conv
from certjax.models._normalize import Normalize
from certjax.models._resnet import batch_norm, shorten

_EXPANSION = 4  # Output channels of a bottleneck over its inner ones.
_STEM = 3  # Pixels that the stem sees.


class LocalBottleneck(nn.Module):
  """relu(BN(conv1x1(relu(BN(conv(relu(BN(conv1x1(x)))))))) + shortcut(x)), without padding.

  Attributes:
    features: channels inside; 4 times as many leave.
    kernel_size: of the middle convolution, 1 or 3.
    stride: of the middle convolution.
  """

  features: int
  kernel_size: int
  stride: int

  @nn.compact
  def __call__(self, x, train):
    norm = functools.partial(batch_norm, train)
    size, out = (self.kernel_size, self.kernel_size), _EXPANSION * self.features
    y = nn.relu(norm(name='bn1')(conv(self.features, (1, 1), name='conv1')(x)))
    y = conv(self.features, size, strides=self.stride, padding='VALID', name='conv2')(y)
    y = nn.relu(norm(name='bn2')(y))
    y = norm(name='bn3')(conv(out, (1, 1), name='conv3')(y))
    if self.stride != 1 or x.shape[-1] != out:
      x = shorten('B', out, self.stride, train, x)
    return nn.relu(x[:, : y.shape[1], : y.shape[2]] + y)


class BagNet(nn.Module):
  """ResNet of bottlenecks without padding, most of whose 3 x 3 convolutions are 1 x 1.

  Layers bear the names of the published PyTorch code, so that `load_weights` reads its files.

  Attributes:
    num_classes: K.
    kernel3: of each stage, how many of its first blocks have a 3 x 3 convolution: (1, 1, 0, 0) is
      BagNet-9, (1, 1, 1, 0) BagNet-17, (1, 1, 1, 1) BagNet-33.
    blocks: of each stage, how many there are.
    strides: of each stage's first block.
    width: channels of the stem; stage i has 2^i times as many, and 4 times that at its end.
    mean, std: normalisation of each channel.

  Raises:
    ValueError: when called, for fields that do not fit each other, or an image smaller than the
      receptive field.

  Example:
    >>> from certjax import models
    >>> module = models.build('bagnet-digits', num_classes=10)
    >>> module.receptive_field, module.stride
    (3, 1)

  References:
    Brendel & Bethge 2019 (arXiv:1904.00760).
  """

  num_classes: int
  kernel3: tuple[int, ...] = (1, 1, 1, 0)
  blocks: tuple[int, ...] = (3, 4, 6, 3)
  strides: tuple[int, ...] = (2, 2, 2, 1)
  width: int = 64
  mean: tuple[float, ...] = (0.0, 0.0, 0.0)
  std: tuple[float, ...] = (1.0, 1.0, 1.0)

  @property
  def receptive_field(self) -> int:
    """Pixels that a cell sees, along an axis."""
    field, step = _STEM, 1
    for _, _, size, stride in self._plan():
      field, step = field + (size - 1) * step, step * stride
    return field

  @property
  def stride(self) -> int:
    """Pixels from a cell to the next, along an axis."""
    return math.prod(self.strides)

  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, K], the mean over all cells."""
    return jnp.mean(self.local_logits(x, train), axis=(1, 2))

  @nn.compact
  def local_logits(self, x, train=False):
    """float[B, H, W, C] -> float[B, h, w, K]: what each cell says, cell (i, j) of the pixels
    (stride i, ..., stride i + receptive_field - 1) x (the same of j)."""
    self._check(x)
    x = Normalize(self.mean, self.std)(x)
    x = conv(self.width, (1, 1), name='conv1')(x)
    x = conv(self.width, (_STEM, _STEM), padding='VALID', name='conv2')(x)
    # Deviation: running statistics follow 0.1 of a batch everywhere, where the paper's code takes 0.001 here.
    x = nn.relu(batch_norm(train, name='bn1')(x))
    for name, features, size, stride in self._plan():
      x = LocalBottleneck(features, size, stride, name=name)(x, train)
    # Deviation: the paper's code averages before `fc`, which is the same but for rounding.
    return nn.Dense(self.num_classes, name='fc')(x)

  def _plan(self):
    """(name, channels inside, kernel size, stride) of each block."""
    for stage, count in enumerate(self.blocks):
      for i in range(count):
        size = 3 if i < self.kernel3[stage] else 1
        stride = self.strides[stage] if i == 0 else 1
        yield f'layer{stage + 1}_{i}', self.width << stage, size, stride

  def _check(self, x):
    if not len(self.kernel3) == len(self.blocks) == len(self.strides):
      raise ValueError(
        f'`kernel3`, `blocks` and `strides` name one number a stage, got {self.kernel3}, {self.blocks} '
        f'and {self.strides}.'
      )
    if any(wide > count for wide, count in zip(self.kernel3, self.blocks, strict=True)):
      raise ValueError(
        f'`kernel3` counts blocks of a stage, got {self.kernel3} of {self.blocks}: leave the rest out.'
      )
    if min(x.shape[1:3]) < self.receptive_field:
      raise ValueError(
        f'a BagNet of receptive field {self.receptive_field} sees nothing of images of shape '
        f'{x.shape[1:]}: choose one of a smaller field, or larger images.'
      )


_GREY = {'mean': (0.0,), 'std': (1.0,)}
BAGNETS = {
  'bagnet9': {'kernel3': (1, 1, 0, 0)},
  'bagnet17': {'kernel3': (1, 1, 1, 0)},
  'bagnet33': {'kernel3': (1, 1, 1, 1)},
  # For MNIST on a CPU: receptive field 9, a cell every other pixel; for 8 x 8 digits: 3, at every pixel.
  'bagnet-small': {'kernel3': (1, 1), 'blocks': (1, 1), 'strides': (2, 1), 'width': 16, **_GREY},
  'bagnet-digits': {'kernel3': (0,), 'blocks': (1,), 'strides': (1,), 'width': 16, **_GREY},
}  # fmt: skip
"""Name -> fields."""
