"""Published PyTorch weights in our models.

Our residual networks name their layers as the published code does, so a leaf of the Flax tree
and a tensor of the file correspond by name: `layer1_0 / conv1 / kernel` is
`layer1.0.conv1.weight`. Kernels are transposed from OIHW to HWIO, matrices from (out, in).
"""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np

from certjax.models._registry import build
from certjax.models._state_dict import read_state_dict

_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
_SYNONYMS = (
  (r'\bdownsample\b', 'shortcut'),
  (r'\bconvShortcut\b', 'shortcut'),
  (r'\blinear\b', 'fc'),
  # ART's network for derandomized smoothing, one array a file.
  (r'^W_(\w+)_MNIST$', r'\1.weight'),
  (r'^B_(\w+)_MNIST$', r'\1.bias'),
  (r'^CONV2D1\b', 'conv1'),
  (r'^DENSE1\b', 'fc1'),
  (r'^DENSE2\b', 'fc'),
)
# A counter that only training reads; a block that TRADES' network builds and never calls; layers
# that hold the normalisation, which is an argument of our models; the accuracy that was measured.
_IGNORED = re.compile(r'num_batches_tracked$|\bsub_block1\.|^(module\.)?(norm|normaliz\w*)\.|^acc$')
_SHOWN = 3


def load_weights(path, model, *, shape=(32, 32, 3)):
  """Variables of a model from a published file of weights.

  Reads CIFAR ResNets as Cohen et al., Salman et al. and akamaster publish them, ResNet-18 of CIFAR,
  torchvision's ResNets and wide ResNets, numbered layers of `nn.Sequential` for `FeedForward`, and
  ART's arrays for `derandomized-cnn`.
  Wrappers (`module.`, `1.module.`, ...) are stripped.
  A file's normalisation is not read: give `mean` and `std` to the model.

  Args:
    path: as in `read_state_dict`.
    model: a Flax module, or a key of `REGISTRY` (its number of classes is then the file's).
    shape: (H, W, C) of an image that the model takes.

  Returns:
    {'params': ..., 'batch_stats': ...}, float32 numpy arrays, for `bind(module, variables)`.

  Raises:
    ValueError: for a file that cannot be read, or where tensors are missing, left over,
      wrongly shaped, or not finite.

  Example:
    >>> variables = load_weights('checkpoint.pth.tar', 'resnet110')  # doctest: +SKIP
  """
  state = read_state_dict(path)
  state = {name: array for name, array in state.items() if not _IGNORED.search(name)}
  state = _renamed(state, _usual_name, path)
  if isinstance(model, str):
    model = build(model, num_classes=_num_classes(state, path))
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
  leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
  names = [_name([key.key for key in keys]) for keys, _ in leaves]
  prefix = _wrapper(state, names)
  state = _renamed(state, lambda name: name.removeprefix(prefix), path)
  wanted = {name: _torch_shape(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}
  _check(state, wanted, f'{path} does not fit {type(model).__name__}')
  return jax.tree.unflatten(tree, [_array(state[name]) for name in names])


def _renamed(state, new_name, path):
  """The state under new names, which must stay distinct."""
  renamed = {}
  for name, array in state.items():
    if (name := new_name(name)) in renamed:
      raise ValueError(f'{path} holds {name} twice, under two names: remove one.')
    renamed[name] = array
  return renamed


def _usual_name(name):
  """One name for each idea."""
  for pattern, word in _SYNONYMS:
    name = re.sub(pattern, word, name)
  return name


def _num_classes(state, path):
  biases = [array for name, array in state.items() if re.search(r'\bfc\.bias$', name)]
  numbered = {
    int(found[1]): array
    for name, array in state.items()
    if (found := re.search(r'(?:^|\.)(\d+)\.bias$', name))
  }
  if not biases and len(numbered) == sum(name.endswith('bias') for name in state) > 0:
    return len(numbered[max(numbered)])  # Of an `nn.Sequential`: the last.
  if len(biases) != 1:
    raise ValueError(f'{path} has {len(biases)} layers named fc or linear: pass a module instead.')
  return len(biases[0])


def _name(keys):
  """('params', 'layer1_0', 'conv1', 'kernel') -> 'layer1.0.conv1.weight'."""
  _, *modules, leaf = keys
  return '.'.join(
    [*(part.replace('_', '.') for part in modules), _LEAVES[leaf] if leaf in _LEAVES else leaf]
  )


def _wrapper(state, names):
  """The prefix under which most of `names` are found."""
  prefixes = collections.Counter(
    there.removesuffix(name)
    for there in state
    for name in names
    if f'.{there}'.endswith(f'.{name}')
  )
  return max(prefixes, key=lambda prefix: prefixes[prefix], default='')


def _torch_shape(leaf):
  """PyTorch keeps outputs and inputs first: OIHW and (out, in)."""
  return (*leaf.shape[:-3:-1], *leaf.shape[:-2]) if leaf.ndim > 1 else leaf.shape


def _array(array):
  if array.ndim > 1:
    array = array.transpose(*range(2, array.ndim), 1, 0)
  return np.asarray(array, np.float32, order='C')


def _check(state, wanted, title):
  """Raises unless names and shapes are those wanted and all numbers are finite."""
  shared = [name for name in wanted if name in state]
  problems = {
    'missing': [name for name in wanted if name not in state],
    'unexpected': [name for name in state if name not in wanted],
    'wrong shape': [
      f'{name} {state[name].shape}, expected {wanted[name]}'
      for name in shared
      if state[name].shape != wanted[name]
    ],
    'not finite': [name for name in shared if not np.isfinite(state[name]).all()],
  }
  texts = []
  for what, found in problems.items():
    if found:
      rest = f' and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''
      texts.append(f'{what}: {"; ".join(found[:_SHOWN])}{rest}')
  if texts:
    raise ValueError(f'{title}. {". ".join(texts)}. Choose the architecture that was trained.')
