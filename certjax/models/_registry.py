"""Names of architectures, as configs and checkpoints store them."""

import difflib
import functools

from certjax.models._alexnet import AlexNet
from certjax.models._bagnet import BAGNETS, BagNet
from certjax.models._cnn import DigitsCNN, MnistCNN
from certjax.models._derandomized_cnn import DerandomizedCNN
from certjax.models._feed_forward import FEED_FORWARD, FeedForward
from certjax.models._imagenet_resnet import ImageNetResNet
from certjax.models._kw_large import KWLarge
from certjax.models._lee_cnn import LeeCNN
from certjax.models._lip_convnet import LipConvNet
from certjax.models._lipnext import LipNeXt
from certjax.models._mlp import MLP, SMOOTH_MLPS
from certjax.models._network_in_network import NetworkInNetwork
from certjax.models._resnet import ResNet
from certjax.models._resnet9 import ResNet9
from certjax.models._vit import VITS, ViT
from certjax.models._wide_resnet import WideResNet

_RESIDUAL = {  # Each with plain, SOC and BCOP convolutions.
  'resnet9': ResNet9,
  'resnet9-small': functools.partial(ResNet9, width=8),  # For digits and MNIST on a CPU.
  'resnet18': functools.partial(ImageNetResNet, depth=18, stem='cifar'),
  'resnet34': functools.partial(ImageNetResNet, depth=34, stem='cifar'),
  'resnet50-cifar': functools.partial(ImageNetResNet, depth=50, stem='cifar'),
}

REGISTRY = {
  'digits-cnn': DigitsCNN,
  'mnist-cnn': MnistCNN,
  'alexnet': AlexNet,
  'alexnet-cifar': functools.partial(AlexNet, variant='cifar'),
  'vgg16': functools.partial(AlexNet, variant='vgg16'),
  'derandomized-cnn': DerandomizedCNN,
  'lee-cnn': LeeCNN,
  'nin': NetworkInNetwork,
  'nin4': functools.partial(NetworkInNetwork, blocks=4),
  **{name: functools.partial(FeedForward, **fields) for name, fields in FEED_FORWARD.items()},
  'wasserstein-cnn': functools.partial(
    FeedForward, **FEED_FORWARD['kw-mnist']
  ),  # The same network.
  **{name: functools.partial(MLP, **fields) for name, fields in SMOOTH_MLPS.items()},
  'resnet20': functools.partial(ResNet, depth=20),
  'resnet110': functools.partial(ResNet, depth=110, shortcut='B'),
  **{
    f'{name}{suffix}': functools.partial(module, conv=conv)
    for name, module in _RESIDUAL.items()
    for suffix, conv in (('', 'plain'), ('-soc', 'soc'), ('-bcop', 'bcop'))
  },
  'resnet9-cayley': functools.partial(ResNet9, conv='cayley'),
  'resnet18-simclr': functools.partial(
    ImageNetResNet, depth=18, stem='cifar', projection=512
  ),  # With the projection that training needs, and features do not.
  'resnet18-imagenet': functools.partial(ImageNetResNet, depth=18),
  'resnet50': functools.partial(ImageNetResNet, depth=50),
  **{name: functools.partial(BagNet, **fields) for name, fields in BAGNETS.items()},
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
  **{
    f'lipconvnet{5 * blocks}-soc-pool': functools.partial(LipConvNet, blocks=blocks, pool='lip')
    for blocks in range(1, 9)
  },
  **{
    f'lipconvnet{5 * blocks}-soc-crc': functools.partial(
      LipConvNet, blocks=blocks, pool='lip', last='curvature'
    )
    for blocks in range(1, 9)
  },
  'lipconvnet5-small-soc-crc': functools.partial(
    LipConvNet, width=8, pool='lip', last='curvature', hidden=256
  ),
  'lipconvnet5-small-soc-pool': functools.partial(LipConvNet, width=8, pool='lip'),
  **{
    f'kwlarge{size}-{conv}': functools.partial(KWLarge, conv=conv, width=width, hidden=hidden)
    for size, width, hidden in (('', 32, 512), ('-small', 8, 64))
    for conv in ('soc', 'bcop', 'cayley')
  },
  'lipnext-l32w1024': LipNeXt,
  'lipnext-l32w2048': functools.partial(LipNeXt, width=2048),
  'lipnext-small': functools.partial(LipNeXt, depths=(4,), width=64),
  **{name: functools.partial(ViT, **fields) for name, fields in VITS.items()},
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
