"""AlexNet, for ImageNet and for CIFAR, and VGG-16: the networks behind perceptual distances.

Plain convolutions, ReLU after each, max pooling after some, three dense layers. Layers carry
torchvision's names (`features.3`, `classifier.6`) and pixels are flattened channels first, so that
published weights load as they are.
"""

from flax import linen as nn

from certjax.layers import conv_general_dilated
from certjax.models._convolutions import check_choice
from certjax.models._normalize import Normalize

_POOL = 'pool'
# (features, kernel size, stride, padding), or pooling.
_LAYERS = {
  'imagenet': (
    (64, 11, 4, 2), _POOL, (192, 5, 1, 2), _POOL, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), _POOL,
  ),
  'cifar': (
    (64, 3, 2, 1), _POOL, (192, 3, 1, 1), _POOL, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), _POOL,
  ),
  'vgg16': tuple(
    layer
    for features, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    for layer in (*((features, 3, 1, 1),) * count, _POOL)
  ),
}  # fmt: skip
_WINDOW = {'imagenet': 3, 'cifar': 2, 'vgg16': 2}  # Of max pooling, whose stride is 2.
_CLASSIFIER = {'imagenet': (1, 4, 6), 'cifar': (1, 4, 6), 'vgg16': (0, 3, 6)}
_HIDDEN = 4096


class AlexNet(nn.Module):
  """Five convolutions (thirteen in VGG-16) and three dense layers.

  A perceptual distance reads the ReLUs after the five convolutions, or the last ones before each pooling of
  VGG-16: `convolutions` names them.

  Attributes:
    num_classes: K.
    variant: 'imagenet' (torchvision's, 224 x 224), 'cifar' (32 x 32, kernels of 3 x 3) or 'vgg16'.
    hidden: outputs of the dense layers but the last.
    mean, std: normalisation of each channel; ImageNet's, on CIFAR too, as published.

  Raises:
    ValueError: when called, for an unknown variant, or images too small for the poolings.

  Example:
    >>> import jax
    >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), 'float32')
    >>> variables = jax.eval_shape(AlexNet(1000).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    61100840

  References:
    Krizhevsky 2014 (arXiv:1404.5997); Simonyan & Zisserman 2015 (arXiv:1409.1556), D; the CIFAR variant:
    Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655).
  """

  # Deviation: without dropout before the dense layers.

  num_classes: int
  variant: str = 'imagenet'
  hidden: int = _HIDDEN
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  std: tuple[float, ...] = (0.229, 0.224, 0.225)

  @property
  def convolutions(self):
    """Names of the layers before the ReLUs that a perceptual distance reads."""
    names, layers = self._names(), _LAYERS[self.variant]
    if self.variant != 'vgg16':
      return tuple(name for name, layer in zip(names, layers, strict=True) if layer != _POOL)
    return tuple(names[i - 1] for i, layer in enumerate(layers) if layer == _POOL)

  @nn.compact
  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, K]."""
    del train
    check_choice(self, 'variant', _LAYERS)
    shape, x = x.shape, Normalize(self.mean, self.std)(x)
    for name, layer in zip(self._names(), _LAYERS[self.variant], strict=True):
      x = self._pooled(x) if layer == _POOL else nn.relu(_convolution(layer, name)(x))
      if not x.size:
        raise ValueError(
          f'images of shape {shape[1:]} are too small for `variant`={self.variant!r}: take cifar for '
          f'32 x 32 pixels, or larger images.'
        )
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    *hidden, last = (f'classifier_{number}' for number in _CLASSIFIER[self.variant])
    for name in hidden:
      x = nn.relu(nn.Dense(self.hidden, name=name)(x))
    return nn.Dense(self.num_classes, name=last)(x)

  def _pooled(self, x):
    window = _WINDOW[self.variant]
    return nn.max_pool(x, (window, window), strides=(2, 2))

  def _names(self):
    """A name for each layer, ReLUs counted."""
    names, number = [], 0
    for layer in _LAYERS[self.variant]:
      names.append(f'features_{number}')
      number += 1 if layer == _POOL else 2
    return names


def _convolution(layer, name):
  features, size, stride, padding = layer
  return nn.Conv(
    features, (size, size), strides=stride, padding=padding, conv_general_dilated=conv_general_dilated,
    name=name,
  )  # fmt: skip
