"""From a Flax module to a `FeatureFn`: activations inside the network and its logits, in one pass.

An activation is relu of what a submodule puts out. For a convolution or BatchNorm before a ReLU that is
the network's own activation (XLA computes it once), and a block that ends in ReLU stays as it is. What
nobody reads, the logits or later layers, jit prunes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax.models._alexnet import AlexNet
from certjax.models._bind import module_of
from certjax.models._cnn import DigitsCNN, MnistCNN
from certjax.models._imagenet_resnet import BLOCKS, ImageNetResNet
from certjax.models._network_in_network import NetworkInNetwork
from certjax.models._resnet import ResNet
from certjax.models._resnet9 import ResNet9
from certjax.models._wide_resnet import WideResNet

_ACTIVATIONS = 'intermediates'  # Flax's collection.


def bind_features(module, variables, taps=None):
  """A `FeatureFn` in evaluation mode: `x[B, ...] -> (activations, logits)`.

  The result is a pytree, as that of `bind`; two bindings of one module and the same taps share one trace.

  Args:
    module: a `flax.linen.Module` called as `module(x, train=False)`.
    variables: its variables, `{'params': ..., 'batch_stats': ...}`.
    taps: names of submodules, as 'layer1_0' or 'layer1_0/conv1', whose outputs are the activations, in
      this order, images each; default `taps_of(module)`.

  Returns:
    A `jax.tree_util.Partial`; activations are float[B, H_l, W_l, C_l], at least 0.

  Raises:
    ValueError: without taps, for a module that has no default ones; when called, for a name that is no
      submodule.

  Example:
    >>> import jax
    >>> from certjax import models
    >>> module = models.build('digits-cnn', num_classes=10)
    >>> x = jax.numpy.zeros((2, 8, 8, 1))
    >>> variables = jax.eval_shape(module.init, jax.random.key(0), x)
    >>> run = lambda variables, x: bind_features(module, variables)(x)
    >>> activations, logits = jax.eval_shape(run, variables, x)
    >>> [a.shape for a in activations], logits.shape
    ([(2, 8, 8, 16), (2, 4, 4, 32)], (2, 10))
  """
  taps = taps_of(module) if taps is None else tuple(taps)
  return jax.tree_util.Partial(_evaluation(module, taps), variables)


def features_of(model_fn, taps=None):
  """The `FeatureFn` of a model that `bind` made: what a self-bounded attack calls.

  Args:
    model_fn: from `bind`.
    taps: as in `bind_features`.

  Returns:
    A `FeatureFn` of the same variables.

  Raises:
    ValueError: for any other function, or as in `bind_features`.

  Example:
    >>> from certjax import models
    >>> module = models.build('digits-cnn', num_classes=10)
    >>> x = jax.numpy.zeros((2, 8, 8, 1))
    >>> variables = jax.eval_shape(module.init, jax.random.key(0), x)
    >>> run = lambda variables, x: features_of(models.bind(module, variables))(x)
    >>> len(jax.eval_shape(run, variables, x)[0])
    2
  """
  module = module_of(model_fn)
  if module is None:
    raise ValueError(
      f'`model_fn` must come from `models.bind`, got {model_fn!r}: hand over a function '
      f'x -> (activations, logits) where a feature function is asked for.'
    )
  return bind_features(module, model_fn.args[0], taps)


def self_bounded(attack, taps=None):
  """An `Attack` on bound models from one whose distance is measured in the attacked model itself.

  Args:
    attack: an attack whose `model_fn` is a `FeatureFn`, as `attacks.ppgd(None)`.
    taps: as in `bind_features`.

  Returns:
    An `Attack`; its `model_fn` must come from `bind`.

  Example:
    >>> from certjax import attacks
    >>> attack = self_bounded(attacks.fast_lpa(None, eps=0.5, num_steps=10))
  """

  def bound(key, model_fn, x, y):
    return attack(key, features_of(model_fn, taps), x, y)

  return bound


def bind_representation(module, variables):
  """What a linear classifier on a frozen network reads: `x[B, ...] -> float32[B, D]`.

  The last of `taps_of(module)`: of residual networks its mean over pixels, of plain ones all its
  activations; of a Network in Network those of the second block, as RotNet.

  Args:
    module: a `flax.linen.Module` called as `module(x, train=False)`.
    variables: its variables.

  Returns:
    A `jax.tree_util.Partial`; two bindings of one module share one trace.

  Raises:
    ValueError: as `taps_of`.

  Example:
    >>> import jax
    >>> from certjax import models
    >>> module = models.build('digits-cnn', num_classes=4)
    >>> x = jax.numpy.zeros((2, 8, 8, 1))
    >>> variables = jax.eval_shape(module.init, jax.random.key(0), x)
    >>> run = lambda variables, x: bind_representation(module, variables)(x)
    >>> jax.eval_shape(run, variables, x).shape
    (2, 512)

  References:
    Gidaris et al. 2018 (arXiv:1803.07728); Chen et al. 2020 (arXiv:2002.05709).
  """
  return jax.tree_util.Partial(_representation(module), variables)


def taps_of(module):
  """Where a perceptual distance reads a network: each convolution of a plain one, each stage of a residual
  one (its stem left out).

  Args:
    module: a `flax.linen.Module`.

  Returns:
    Names for `bind_features`.

  Raises:
    ValueError: for a module without default taps, with those that have some.

  Example:
    >>> from certjax import models
    >>> taps_of(models.build('resnet18', num_classes=10))
    ('layer1_1', 'layer2_1', 'layer3_1', 'layer4_1')
  """
  for kind, names in _TAPS.items():
    if isinstance(module, kind):
      return tuple(names(module))
  known = ', '.join(kind.__name__ for kind in _TAPS)
  raise ValueError(
    f'`taps` have a default for {known}; got {type(module).__name__}: name the submodules to read.'
  )


_TAPS = {
  AlexNet: lambda module: module.convolutions,
  DigitsCNN: lambda module: ('Conv_0', 'Conv_1'),
  MnistCNN: lambda module: ('Conv_0', 'Conv_1'),
  NetworkInNetwork: lambda module: ('block1', 'block2'),
  ResNet: lambda module: [f'layer{stage}_{module.depth // 6 - 1}' for stage in (1, 2, 3)],
  ImageNetResNet: lambda module: [
    f'layer{stage + 1}_{count - 1}' for stage, count in enumerate(BLOCKS[module.depth])
  ],
  ResNet9: lambda module: ('layer1_residual_res2_bn', 'layer2_bn', 'layer3_residual_res2_bn'),
  WideResNet: lambda module: [f'block{stage}_layer_{module.depth // 6 - 1}' for stage in (1, 2, 3)],
}


_FLAT = (AlexNet, DigitsCNN, MnistCNN, NetworkInNetwork)


@functools.cache
def _representation(module):
  """One function object for a module: jit caches on its identity."""
  evaluate, flat = _evaluation(module, taps_of(module)[-1:]), isinstance(module, _FLAT)

  def apply(variables, x):
    (activations,), _ = evaluate(variables, x)
    return activations.reshape(len(x), -1) if flat else jnp.mean(activations, axis=(1, 2))

  return apply


@functools.cache
def _evaluation(module, taps):
  """One function object for a module and taps: jit caches on its identity."""

  def apply(variables, x):
    wanted = lambda layer, method: method == '__call__' and '/'.join(layer.path) in taps
    logits, state = module.apply(
      variables, x, train=False, capture_intermediates=wanted, mutable=[_ACTIVATIONS]
    )
    return tuple(nn.relu(_output(module, state, tap)) for tap in taps), logits

  apply.module = module
  return apply


def _output(module, state, tap):
  outputs = state.get(_ACTIVATIONS, {})
  for name in tap.split('/'):
    outputs = outputs.get(name, {})
  outputs = outputs.get('__call__', ())
  if len(outputs) != 1 or np.ndim(outputs[0]) != 4:
    raise ValueError(
      f'`taps` must name submodules of {type(module).__name__} that are called once and put out images '
      f'[B, H, W, C]; {tap!r} is none: `models.layers_of` lists its layers.'
    )
  return outputs[0]
