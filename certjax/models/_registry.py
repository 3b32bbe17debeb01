"""Names of architectures, as configs and checkpoints store them."""

import difflib
import functools

from certjax.models._cnn import DigitsCNN, MnistCNN
from certjax.models._imagenet_resnet import ImageNetResNet
from certjax.models._lip_convnet import LipConvNet
from certjax.models._resnet import ResNet
from certjax.models._wide_resnet import WideResNet

REGISTRY = {
  'digits-cnn': DigitsCNN,
  'mnist-cnn': MnistCNN,
  'resnet20': functools.partial(ResNet, depth=20),
  'resnet110': functools.partial(ResNet, depth=110, shortcut='B'),
  'resnet18': functools.partial(ImageNetResNet, depth=18, stem='cifar'),
  'resnet18-imagenet': functools.partial(ImageNetResNet, depth=18),
  'resnet50': functools.partial(ImageNetResNet, depth=50),
  'wrn40-2': functools.partial(WideResNet, depth=40, width=2),
  'wrn28-10': functools.partial(WideResNet, depth=28, width=10),
  'wrn34-10': functools.partial(WideResNet, depth=34, width=10),
  **{
    f'lipconvnet{5 * blocks}-{conv}': functools.partial(LipConvNet, conv=conv, blocks=blocks)
    for conv in ('soc', 'bcop', 'cayley')
    for blocks in range(1, 9)
  },
  **{  # For digits (small) and MNIST (tiny) on a CPU.
    f'lipconvnet5-{size}-{conv}': functools.partial(LipConvNet, conv=conv, width=width)
    for size, width in (('small', 8), ('tiny', 4))
    for conv in ('soc', 'bcop', 'cayley')
  },
}


def build(name, **options):
  """The module that `name` stands for.

  Args:
    name: a key of `REGISTRY`.
    **options: fields of the module: `num_classes`, `mean`, `std`, ...

  Returns:
    A `flax.linen.Module`.

  Raises:
    ValueError: for an unknown name, with the known ones.

  Example:
    >>> build('resnet20', num_classes=10).depth
    20
  """
  if name not in REGISTRY:
    near = difflib.get_close_matches(name, REGISTRY, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise ValueError(f'`model` must be one of {", ".join(REGISTRY)}; got {name!r}.{hint}')
  return REGISTRY[name](**options)
