"""Flax models; `registry` maps names to constructors, `bind` turns one into a `model_fn`,
`load_weights` reads published weights into one."""

from certjax.models._adapt import as_model_fn, in_bfloat16
from certjax.models._alexnet import AlexNet
from certjax.models._bagnet import BagNet
from certjax.models._bind import bind, module_of
from certjax.models._cnn import DigitsCNN, MnistCNN
from certjax.models._features import (
  bind_features,
  bind_representation,
  features_of,
  self_bounded,
  taps_of,
)
from certjax.models._feed_forward import FeedForward
from certjax.models._imagenet_resnet import ImageNetResNet
from certjax.models._kw_large import KWLarge
from certjax.models._layers_of import Layer, layers_of
from certjax.models._lip_convnet import LipConvNet
from certjax.models._lipnext import LipNeXt
from certjax.models._mlp import MLP
from certjax.models._nearest_neighbour import nearest_neighbour
from certjax.models._network_in_network import NetworkInNetwork
from certjax.models._normalize import Normalize
from certjax.models._registry import REGISTRY, build
from certjax.models._resnet import ResNet
from certjax.models._resnet9 import ResNet9
from certjax.models._spectra import LayerSpectrum, spectrum_of
from certjax.models._state_dict import read_state_dict
from certjax.models._vit import ViT, visible_tokens
from certjax.models._weights import load_weights
from certjax.models._wide_resnet import WideResNet

__all__ = [
  'MLP',
  'REGISTRY',
  'AlexNet',
  'BagNet',
  'DigitsCNN',
  'FeedForward',
  'ImageNetResNet',
  'KWLarge',
  'Layer',
  'LayerSpectrum',
  'LipConvNet',
  'LipNeXt',
  'MnistCNN',
  'NetworkInNetwork',
  'Normalize',
  'ResNet',
  'ResNet9',
  'ViT',
  'WideResNet',
  'as_model_fn',
  'bind',
  'bind_features',
  'bind_representation',
  'build',
  'features_of',
  'in_bfloat16',
  'layers_of',
  'load_weights',
  'module_of',
  'nearest_neighbour',
  'read_state_dict',
  'self_bounded',
  'spectrum_of',
  'taps_of',
  'visible_tokens',
]
