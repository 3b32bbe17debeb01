"""Feature functions: published sizes, the network's own activations, one pass, one trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import distances, models
from certjax.models._alexnet import AlexNet
from certjax.models._features import bind_features, features_of, self_bounded, taps_of


def initial(module, shape):
  return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape)))


def filled(module, shape, seed=0):
  """Variables without compiling an initialisation."""
  rng = np.random.default_rng(seed)
  fan_in = lambda leaf: np.prod(leaf.shape[:-1])
  draw = lambda leaf: np.float32(rng.normal(size=leaf.shape) / fan_in(leaf) ** 0.5)
  return jax.tree.map(draw, initial(module, shape))


@pytest.mark.parametrize(
  'module, shape, size',
  [
    (AlexNet(10, variant='cifar'), (32, 32, 3), 43_008),
    (AlexNet(1000), (224, 224, 3), 484_992),
    (AlexNet(1000, variant='vgg16'), (224, 224, 3), 6_121_472),
    (models.ImageNetResNet(10, depth=18, stem='cifar'), (32, 32, 3), 122_880),
    (models.ResNet(10, depth=8), (32, 32, 3), 28_672),
    (models.WideResNet(10, depth=10, width=2), (32, 32, 3), 57_344),
    (models.ResNet9(10, width=4), (32, 32, 3), 6_656),
    (models.MnistCNN(10, width=16), (28, 28, 1), 4_704),
  ],
)
def test_length_of_phi(module, shape, size):
  """Those of PAT's networks as published; sizes of the stages times channels for the rest."""
  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  phi = lambda variables, x: distances.embedding(bind_features(module, variables))(x)
  assert jax.eval_shape(phi, initial(module, shape), x).shape == (1, size)


@pytest.mark.parametrize('variant, parameters', [('imagenet', 61_100_840), ('vgg16', 138_357_544)])
def test_published_networks(variant, parameters):
  """torchvision's number of parameters, and names."""
  leaves = initial(AlexNet(1000, variant=variant), (224, 224, 3))['params']
  assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(leaves)) == parameters
  dense = {'imagenet': {1, 4, 6}, 'vgg16': {0, 3, 6}}[variant]
  assert {name for name in leaves if 'classifier' in name} == {f'classifier_{i}' for i in dense}
  last = {'imagenet': 'features_10', 'vgg16': 'features_28'}[variant]
  assert last in leaves and f'features_{int(last[9:]) + 1}' not in leaves


def test_alexnet_of_cifar_by_hand():
  """Every layer written out, with pixels flattened channels first."""
  module = AlexNet(3, variant='cifar', hidden=5, mean=(0.5,) * 3, std=(0.25,) * 3)
  x = np.random.default_rng(1).uniform(0, 1, (1, 16, 16, 3)).astype(np.float32)
  variables = filled(module, (16, 16, 3))

  @jax.jit
  def outputs(variables, x):
    leaves, y, seen = variables['params'], (x - 0.5) / 0.25, []
    for number, stride, pooled in ((0, 2, 1), (3, 1, 1), (6, 1, 0), (8, 1, 0), (10, 1, 1)):
      layer, pads = leaves[f'features_{number}'], ((1, 1), (1, 1))
      y = jax.lax.conv_general_dilated(
        y, layer['kernel'], (stride, stride), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
      )
      y = jnp.maximum(y + layer['bias'][None, None, None], 0)
      seen.append(y)
      if pooled:
        y = y.reshape(1, y.shape[1] // 2, 2, y.shape[2] // 2, 2, -1).max((2, 4))
    y = y.transpose(0, 3, 1, 2).reshape(1, -1)
    for number in (1, 4, 6):
      layer = leaves[f'classifier_{number}']
      y = y @ layer['kernel'] + layer['bias'][None]
      y = y if number == 6 else jnp.maximum(y, 0)
    return bind_features(module, variables)(x), (tuple(seen), y)

  found, expected = outputs(variables, x)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


@pytest.fixture(scope='module')
def digits():
  """A module, two sets of variables, images."""
  module = models.DigitsCNN(10, width=2)
  x = np.random.default_rng(1).uniform(0, 1, (3, 8, 8, 1)).astype(np.float32)
  return module, filled(module, (8, 8, 1)), filled(module, (8, 8, 1), 1), x


def test_activations_and_logits_of_one_pass(digits):
  module, variables, other, x = digits
  traces = []

  @jax.jit
  def run(feature_fn, x):
    traces.append(1)
    return feature_fn(x)

  activations, logits = run(bind_features(module, variables), x)
  dense = variables['params']
  hidden = (
    activations[1].reshape(3, -1) @ dense['Dense_0']['kernel'] + dense['Dense_0']['bias'][None]
  )
  by_hand = np.maximum(hidden, 0) @ dense['Dense_1']['kernel'] + dense['Dense_1']['bias'][None]
  np.testing.assert_allclose(logits, by_hand, atol=1e-5)
  assert all((a >= 0).all() and (a == 0).any() and (a > 0).any() for a in activations)
  # The features of a bound model are the same function: weights are arguments, one trace for all.
  same = run(features_of(models.bind(module, variables)), x)
  assert np.array_equal(same[1], logits) and np.array_equal(same[0][0], activations[0])
  assert not np.array_equal(run(bind_features(module, other), x)[1], logits)
  assert len(traces) == 1
  jaxpr = jax.make_jaxpr(lambda x: bind_features(module, variables)(x))(x)
  convolutions = [eqn for eqn in jaxpr.eqns if 'custom_vjp' in eqn.primitive.name]
  assert len(convolutions) == 2, 'the network runs once'


def test_taps_by_name(digits):
  module, variables, _, x = digits
  shapes = lambda taps: [
    a.shape for a in jax.eval_shape(lambda x: bind_features(module, variables, taps)(x)[0], x)
  ]
  assert shapes(['Conv_1', 'Conv_0']) == shapes(None)[::-1] == [(3, 4, 4, 4), (3, 8, 8, 2)]
  with pytest.raises(ValueError, match="`taps` must name .* DigitsCNN .* 'Conv_2' is none"):
    shapes(['Conv_2'])
  with pytest.raises(ValueError, match="'Dense_0' is none"):
    shapes(['Dense_0'])


def test_self_bounded_hands_over_the_features(digits):
  module, variables, _, x = digits
  attack = lambda key, feature_fn, x, y: x + feature_fn(x)[0][0][..., :1]
  found = self_bounded(attack)(None, models.bind(module, variables), x, None)
  np.testing.assert_allclose(
    found, x + bind_features(module, variables)(x)[0][0][..., :1], atol=1e-6
  )
  with pytest.raises(ValueError, match='`model_fn` must come from `models.bind`'):
    self_bounded(attack)(None, lambda x: x, x, None)


def test_default_taps():
  assert taps_of(models.ResNet(10, depth=110)) == ('layer1_17', 'layer2_17', 'layer3_17')
  assert taps_of(models.ImageNetResNet(10, depth=50)) == (
    'layer1_2',
    'layer2_3',
    'layer3_5',
    'layer4_2',
  )
  with pytest.raises(ValueError, match='`taps` have a default for AlexNet, .*got MLP'):
    taps_of(models.MLP(10))


def test_images_too_small_for_alexnet():
  with pytest.raises(ValueError, match="too small for `variant`='imagenet'"):
    initial(AlexNet(10), (32, 32, 3))
  with pytest.raises(ValueError, match='`variant` must be one of imagenet, cifar, vgg16'):
    initial(AlexNet(10, variant='mnist'), (32, 32, 3))
