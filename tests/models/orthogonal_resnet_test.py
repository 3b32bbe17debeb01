"""Residual networks with orthogonal convolutions: the layout stays, every convolution changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from certjax import layers, models, parallel
from certjax.models._imagenet_resnet import Bottleneck
from certjax.models._resnet import BasicBlock

KEY = jax.random.key(0)


def shapes(module, side, channels=3):
  """(logits' shape, {collection: {path: shape}})."""
  x = jnp.zeros((2, side, side, channels))
  logits, variables = jax.eval_shape(lambda x: module.init_with_output(KEY, x), x)
  paths = {
    kind: {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
    for kind, tree in variables.items()
  }
  return logits.shape, paths


def build(name, **options):
  return models.build(name, num_classes=10, **options)


@pytest.mark.parametrize(
  'name, expected',
  [
    ('resnet9', 6_573_130),  # DAWNBench's network as it is quoted.
    ('resnet34', 21_282_122),  # The CIFAR variants in wide use.
    ('resnet50-cifar', 23_520_842),
  ],
)
def test_number_of_parameters(name, expected):
  params = shapes(build(name), 32)[1]['params']
  assert sum(int(np.prod(shape)) for shape in params.values()) == expected


@pytest.mark.parametrize('name', ['resnet9', 'resnet50-cifar'])
def test_every_convolution_changes_and_nothing_else(name):
  plain, soc = (shapes(build(f'{name}{suffix}'), 32)[1] for suffix in ('', '-soc'))
  assert plain['batch_stats'] == soc['batch_stats'] and 'spectral' not in plain
  assert set(plain['params']) == set(soc['params'])
  changed = {path for path, shape in plain['params'].items() if len(shape) == 4}
  for path, shape in soc['params'].items():
    if path not in changed:
      assert shape == plain['params'][path], path
      continue
    # The filter is square: what enters (four times as much under a stride) or leaves, the larger.
    assert shape[:2] == plain['params'][path][:2] and shape[2] == shape[3], path
    halves = 'shortcut' in path and 'layer1' not in path
    assert shape[2] >= max(plain['params'][path][2:]) * (2 if halves else 1), path
  assert len({path.rsplit('[', 1)[0] for path in changed}) == len(
    [path for path in soc['spectral'] if path.endswith("['norm']")]
  )


@pytest.mark.parametrize('name', ['resnet9-small', 'resnet9-small-soc', 'resnet18-bcop'])
@pytest.mark.parametrize('side, channels', [(28, 1), (8, 1)])
def test_sizes_of_images(name, side, channels):
  module = build(name, mean=(0.5,) * channels, std=(0.25,) * channels)
  assert shapes(module, side, channels)[0] == (2, 10)


def test_a_stride_meets_no_odd_image():
  """20 x 20 becomes 24 x 24 for orthogonal layers, whose strides must divide."""
  module = models.ImageNetResNet(10, depth=18, stem='cifar', width=2, conv='cayley')
  spectral = shapes(module, 20)[1]['spectral']
  assert spectral["['conv1']['input']['height']"] == (24,)
  assert spectral["['layer4_1']['conv2']['input']['height']"] == (3,)
  stem = models.ImageNetResNet(10, depth=18, width=2, conv='soc')
  assert shapes(stem, 48)[1]['spectral']["['layer4_1']['conv2']['input']['height']"] == (2,)


def test_a_training_pass_reaches_every_layer():
  """All estimates of spectra move, those of the two kinds of blocks included."""
  x = jnp.ones((2, 8, 8, 1))
  for module, arguments in (
    (models.ResNet9(4, conv='soc', width=1, mean=(0.5,), std=(0.25,)), ()),
    (BasicBlock(4, 2, 'B', conv='soc'), (False,)),
    (Bottleneck(2, 2, conv='soc'), (False,)),
  ):
    shapes = jax.eval_shape(lambda x: module.init(KEY, x, *arguments), x)  # noqa: B023
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: rng.uniform(1, 2, a.shape).astype(np.float32), shapes)  # noqa: B023

    @functools.partial(jax.vmap, axis_size=1, axis_name=parallel.AXIS)  # BatchNorm's axis.
    def updated():
      return module.apply(variables, x, True, mutable=['spectral', 'batch_stats'])[1]  # noqa: B023

    after = jax.jit(lambda: updated()['spectral'])()
    assert set(jax.eval_shape(updated)) == {'spectral', 'batch_stats'}
    before = jax.tree.leaves_with_path(variables['spectral'])
    for (path, leaf), new in zip(before, jax.tree.leaves(after), strict=True):
      moved = path[-1].key in ('norm', 'r', 't')  # The rest is the size of the image.
      assert (new[0] != leaf).any() == moved, jax.tree_util.keystr(path)


def test_block_of_skew_convolutions_against_its_layers():
  """relu(BN(SOC(relu(BN(SOC(x))))) + BN(SOC1x1(x))), its convolutions 1-Lipschitz, its gradient finite."""
  block = BasicBlock(4, stride=2, shortcut='B', conv='soc')
  x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
  variables = jax.jit(lambda x: block.init(KEY, x, False))(x)
  parts = {
    'conv1': layers.SOC(4, 3, strides=2, use_bias=False),
    'conv2': layers.SOC(4, 3, use_bias=False),
    'shortcut_0': layers.SOC(4, 1, strides=2, use_bias=False),
  }
  scale = np.float32(1 / np.sqrt(1 + 1e-5))  # BatchNorm at initialisation.

  @jax.jit
  def both(variables, x):
    part = lambda name, x: scale * parts[name].apply(layers.subtree(variables, name), x)
    by_hand = jax.nn.relu(part('conv2', jax.nn.relu(part('conv1', x))) + part('shortcut_0', x))
    params = variables['params']
    loss = lambda params: jnp.sum(block.apply({**variables, 'params': params}, x, False) ** 2)
    return block.apply(variables, x, False), by_hand, jax.grad(loss)(params)

  y, by_hand, gradient = both(variables, x)
  np.testing.assert_allclose(y, by_hand, atol=1e-5)
  for path, leaf in jax.tree.leaves_with_path(gradient):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
  for name, layer in parts.items():
    assert 1 <= layers.lipschitz_upper(layer, layers.subtree(variables, name)) < 1 + 1e-5


def test_resnet9_against_plain_operations():
  module = models.ResNet9(3, width=2)
  x = np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3)).astype(np.float32)
  shapes = jax.eval_shape(module.init, KEY, x)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda a: (rng.normal(size=a.shape) * (a.size / a.shape[-1]) ** -0.5).astype(np.float32),
    shapes['params'],
  )
  stats = jax.tree.map_with_path(
    lambda path, a: jnp.full(a.shape, 0.7 if path[-1].key == 'var' else 0.1), shapes['batch_stats']
  )

  def unit(params, name, x):
    y = lax.conv_general_dilated(
      x,
      params[f'{name}_conv']['kernel'],
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    norm = jax.tree.map(lambda a: a.reshape(1, 1, 1, -1), params[f'{name}_bn'])
    return jax.nn.relu((y - 0.1) / np.float32(0.7 + 1e-5) ** 0.5 * norm['scale'] + norm['bias'])

  def halved(x):
    side = x.shape[1] // 2
    return x.reshape(len(x), side, 2, side, 2, -1).max(axis=(2, 4))

  @jax.jit
  def both(params, x):
    one = functools.partial(unit, params)
    y = halved(one('layer1', one('prep', x)))
    y = y + one('layer1_residual_res2', one('layer1_residual_res1', y))
    y = halved(one('layer3', halved(one('layer2', y))))
    y = y + one('layer3_residual_res2', one('layer3_residual_res1', y))
    by_hand = y.max(axis=(1, 2)) @ params['linear']['kernel'] + params['linear']['bias'][None]
    return module.apply({'params': params, 'batch_stats': stats}, x), by_hand

  logits, by_hand = both(params, x)
  np.testing.assert_allclose(logits, by_hand, atol=1e-4)
  assert np.std(logits) > 1e-2


@pytest.mark.parametrize(
  'module, side, said',
  [
    (models.ResNet9(4, conv='dense'), 32, '`conv` must be one of plain, soc, bcop'),
    (models.ResNet9(4), 4, 'of 8 x 8 pixels or more'),
    (models.ImageNetResNet(4, depth=18, conv='relu'), 32, '`conv` must be one of plain, soc'),
  ],
)
def test_errors(module, side, said):
  with pytest.raises(ValueError, match=said) as error:
    jax.eval_shape(module.init, KEY, jnp.zeros((1, side, side, 3)))
  assert '\n' not in str(error.value)
