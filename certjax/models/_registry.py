"""Names of architectures, as configs and checkpoints store them."""

import difflib
import functools

from certjax.models._cnn import DigitsCNN, MnistCNN
from certjax.models._resnet import ResNet

REGISTRY = {
  'digits-cnn': DigitsCNN,
  'mnist-cnn': MnistCNN,
  'resnet20': functools.partial(ResNet, depth=20),
  'resnet110': functools.partial(ResNet, depth=110, shortcut='B'),
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
