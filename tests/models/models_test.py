"""Models: shapes, sizes, published layouts, normalisation first, one trace for all weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from certjax import data, models


def size(module, shape):
  variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape)))
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables['params']))


@pytest.mark.parametrize(
  'name, shape, expected',
  [
    ('resnet20', (32, 32, 3), 269_722),  # 0.27M, He et al. 2016, table 6.
    ('resnet110', (32, 32, 3), 1_730_714),  # 1.7M; 1x1 shortcuts included.
    ('resnet18', (32, 32, 3), 11_173_962),  # The CIFAR variant in wide use.
    ('wrn40-2', (32, 32, 3), 2_243_546),  # 2.2M, Zagoruyko & Komodakis 2016.
    ('wrn28-10', (32, 32, 3), 36_479_194),  # 36.5M, there.
    ('wrn34-10', (32, 32, 3), 46_160_474),  # 46.2M, the network of TRADES.
    ('mnist-cnn', (28, 28, 1), 166_406),  # Wong & Kolter's MNIST network.
    ('digits-cnn', (8, 8, 1), 38_282),
    ('derandomized-cnn', (28, 28, 2), 117_366),
    ('lee-cnn', (28, 28, 1), 431_080),
    ('resnet18', (32, 32, 6), 11_175_690),  # Levine & Feizi's, of images beside their negatives.
  ],
)
def test_number_of_parameters(name, shape, expected):
  assert (
    size(models.build(name, num_classes=10, mean=(0.0,) * shape[-1], std=(1.0,) * shape[-1]), shape)
    == expected
  )


@pytest.mark.parametrize(
  'name, expected', [('resnet18-imagenet', 11_689_512), ('resnet50', 25_557_032)]
)
def test_number_of_parameters_on_imagenet(name, expected):
  """torchvision's counts."""
  assert size(models.build(name, num_classes=1000), (224, 224, 3)) == expected


def repeats(name):
  """Whether a network's layers are those of a smaller one of the table."""
  return name.startswith(('lipconvnet', 'resnet34', 'resnet50-cifar')) and '5-small' not in name


@pytest.mark.parametrize('name', [name for name in models.REGISTRY if not repeats(name)])
def test_convolutions_take_the_custom_gradient(name):
  """Every convolution goes through `layers.conv_general_dilated` (its custom VJP)."""
  sizes = {
    'digits-cnn': (8, 8, 1),
    'mnist-cnn': (28, 28, 1),
    'bagnet33': (40, 40, 3),
    'alexnet': (64, 64, 3),
  }
  shape = sizes.get(name, (32, 32, 3))
  module = models.build(name, num_classes=10, mean=(0.5,) * shape[-1], std=(1.0,) * shape[-1])
  x = jnp.zeros((1, *shape))
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  jaxpr = jax.make_jaxpr(lambda v, x: module.apply(v, x))(variables, x)
  primitives = [equation.primitive.name for equation in jaxpr.eqns]
  assert 'conv_general_dilated' not in primitives
  # FFT; matrices and shifts; matrices.
  without = name.endswith('cayley') or name.startswith(('lipnext', 'mlp'))
  assert without or any('custom_vjp' in primitive for primitive in primitives)


def test_normalisation_is_the_first_layer():
  spec = data.dataset('cifar10')
  raw = models.ResNet(10, depth=8)
  normal = models.ResNet(10, depth=8, mean=spec.mean, std=spec.std)
  x = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
  variables = jax.jit(raw.init)(jax.random.key(0), x)
  by_hand = (x - np.float32(spec.mean)) / np.float32(spec.std)
  ours, expected = (jax.jit(net.apply)(variables, z) for net, z in ((normal, x), (raw, by_hand)))
  np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_resnet_block_against_plain_operations():
  """One option-A block with stride 2, written out with `lax` convolutions."""
  from certjax.models._resnet import BasicBlock

  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
  block = BasicBlock(8, stride=2)
  variables = block.init(jax.random.key(0), x, False)
  names = sorted(variables['params'])
  kernels = [variables['params'][name]['kernel'] for name in names if name.startswith('conv')]
  conv = lambda x, w, s: lax.conv_general_dilated(
    x, w, (s, s), ((1, 1), (1, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  scale = 1 / np.sqrt(1 + 1e-5)  # BatchNorm at initialisation.
  y = conv(jax.nn.relu(scale * conv(x, kernels[0], 2)), kernels[1], 1) * scale
  shortcut = np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (2, 2)))
  np.testing.assert_allclose(block.apply(variables, x, False), jax.nn.relu(y + shortcut), atol=1e-4)


def test_bind_is_one_trace_for_all_weights():
  module = models.build('digits-cnn', num_classes=10, width=2)
  x = jnp.zeros((2, 8, 8, 1))
  a, b = (models.bind(module, module.init(jax.random.key(seed), x)) for seed in (0, 1))
  traces = []

  @jax.jit
  def run(model_fn, x):
    traces.append(1)
    return model_fn(x)

  assert not np.array_equal(run(a, x + 1), run(b, x + 1)) and len(traces) == 1


def test_unknown_name_and_depth():
  with pytest.raises(ValueError, match="Did you mean 'resnet20'"):
    models.build('resnet-20', num_classes=10)
  with pytest.raises(ValueError, match='`depth` must be 6n'):
    models.ResNet(10, depth=21).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  with pytest.raises(ValueError, match='`depth` must be 6n'):
    models.WideResNet(10, depth=30).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  with pytest.raises(ValueError, match='`depth` must be 18, 34 or 50'):
    models.ImageNetResNet(10, depth=20).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  with pytest.raises(ValueError, match="`stem` must be 'imagenet' or 'cifar'"):
    models.ImageNetResNet(10, stem='mnist').init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
