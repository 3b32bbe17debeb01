"""Flax models; `registry` maps names to constructors, `bind` turns one into a `model_fn`."""

from certjax.models._bind import bind
from certjax.models._cnn import DigitsCNN, MnistCNN
from certjax.models._normalize import Normalize
from certjax.models._registry import REGISTRY, build
from certjax.models._resnet import ResNet

__all__ = ['REGISTRY', 'DigitsCNN', 'MnistCNN', 'Normalize', 'ResNet', 'bind', 'build']
