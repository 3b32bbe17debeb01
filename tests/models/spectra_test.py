"""Layers found in a model, and their spectra against the unrolled map that the layer applies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from certjax import layers, models

KEY = jax.random.key(0)


def placed(module, shape, seed=0):
  """A `Layer` with random weights."""
  x = jnp.zeros((1, *shape))
  variables = jax.jit(module.init)(jax.random.key(seed), x)
  return models.Layer('layer', module, variables, shape)


def unrolled(layer):
  """float64, the Jacobian at a random image."""
  x = jax.random.normal(jax.random.key(7), (1, *layer.shape))
  jacobian = jax.jit(jax.jacrev(lambda x: layer.module.apply(layer.variables, x)))(x)
  return np.asarray(jacobian, np.float64).reshape(-1, x.size)


def values(matrix):
  return np.linalg.svd(matrix, compute_uv=False)


CIRCULAR = {
  'conv': (nn.Conv(3, (3, 3), padding='CIRCULAR', use_bias=False), (4, 6, 2)),
  'conv, stride 2': (nn.Conv(5, (3, 3), strides=2, padding='CIRCULAR', use_bias=False), (4, 6, 2)),
  'conv, even': (nn.Conv(3, (2, 4), padding='CIRCULAR', use_bias=False), (4, 5, 2)),
  'conv 1 x 1, stride 2': (nn.Conv(3, (1, 1), strides=2, use_bias=False), (4, 4, 2)),
  'dense': (nn.Dense(3), (5,)),
  'SOC, stride 2, wider': (layers.SOC(6, strides=2, padding='circular', eval_degree=3), (4, 6, 1)),
  'SOC, narrower': (layers.SOC(2, padding='circular', eval_degree=3), (3, 3, 4)),
  'SOC, 1 x 1': (layers.SOC(2, kernel_size=1, eval_degree=2), (1, 1, 3)),
  'BCOP': (layers.BCOP(4, num_steps=3), (4, 4, 2)),
  'Cayley': (layers.Cayley(3), (4, 5, 2)),
  'Cayley, narrower': (layers.Cayley(2), (3, 3, 4)),
  'LOT, few steps': (layers.LOT(3, num_steps=2), (4, 4, 3)),
  'BRO, stride 2': (layers.BRO(3, strides=2), (4, 4, 2)),
  'RKO': (layers.RKO(3), (4, 4, 2)),
  'AOL, stride 2': (layers.AOL(3, strides=2), (4, 4, 2)),
  'normalised': (layers.NormalizedLinear(3), (5,)),
}


@pytest.mark.parametrize('name', CIRCULAR)
def test_the_values_are_those_of_the_unrolled_map(name):
  layer = placed(*CIRCULAR[name])
  measured = models.spectrum_of(layer)
  exact = values(unrolled(layer))
  if name == 'conv 1 x 1, stride 2':  # All frequencies are alike: one stands for all.
    exact = np.unique(exact.round(5))[::-1]
  assert measured.values == pytest.approx(exact[: len(measured.values)], abs=2e-5)
  assert np.all(exact[len(measured.values) :] < 1e-5)  # Of channels that are dropped or added.
  if measured.lipschitz is not None:
    assert exact[0] <= measured.lipschitz * (1 + 1e-6)


@pytest.mark.parametrize(
  'module',
  [
    nn.Conv(3, (3, 3), use_bias=False),
    nn.Conv(3, (3, 3), strides=2, use_bias=False),
    nn.Conv(3, (4, 4), strides=2, padding=1, use_bias=False),
    nn.Conv(3, (3, 2), padding='VALID', use_bias=False),
    nn.Conv(3, (2, 2), padding=((1, 0), (0, 1)), use_bias=False),
    layers.RKO(3, padding='zero'),
    layers.BCOP(3, padding='zero'),
  ],
)
@pytest.mark.parametrize('size', [(4, 4), (5, 7)])
def test_bounds_hold_with_zero_padding(module, size):
  layer = placed(module, (*size, 2))
  measured = models.spectrum_of(layer)
  norm = values(unrolled(layer))[0] * (1 - 1e-6)
  for bound in (measured.zero_padded, measured.gram, measured.fantastic_four):
    assert norm <= bound <= 3.1 * norm
  assert measured.gram >= measured.zero_padded * (1 - 1e-12)


def test_zero_padding_is_not_bounded_by_the_circular_norm():
  """A filter whose norm with zero padding exceeds the one with circular padding."""
  kernel = np.random.default_rng(130).standard_normal((2, 2, 3, 3)).transpose(2, 3, 1, 0)
  layer = placed(nn.Conv(2, (3, 3), use_bias=False), (4, 4, 2))
  layer.variables['params']['kernel'] = jnp.asarray(kernel, jnp.float32)
  measured, norm = models.spectrum_of(layer), values(unrolled(layer))[0]
  assert measured.values[0] * (1 + 1e-5) < norm <= measured.zero_padded


def test_residual_layers_are_measured_by_their_inner_map():
  """The Jacobian where all of relu is open is I - 2 B^T B."""
  for make in (layers.SLL, layers.CPL):
    layer = placed(make(2), (3, 3, 2))
    layer.variables['params']['hidden_bias'] = jnp.full(2, 1e3)
    exact = np.sort(values(unrolled(layer)))
    b = models.spectrum_of(layer).values
    assert b[0] <= 1 + 1e-6
    np.testing.assert_allclose(np.sort(abs(1 - 2 * b**2)), exact, atol=1e-5)


def test_a_dear_layer_is_measured_at_some_frequencies():
  layer = placed(nn.Conv(3, (3, 3)), (8, 8, 2))
  full, thin = models.spectrum_of(layer), models.spectrum_of(layer, max_work=100)
  assert (full.every, len(full.values)) == (1, 128) and (thin.every, len(thin.values)) == (4, 8)
  apart = abs(thin.values[:, None] - full.values).min(1)
  assert apart.max() < 1e-12
  assert thin.zero_padded is thin.gram is None and thin.fantastic_four == full.fantastic_four
  with pytest.raises(ValueError, match='`max_work` must be positive, got 0'):
    models.spectrum_of(layer, max_work=0)


def test_what_is_not_understood_has_no_values():
  grouped = placed(nn.Conv(4, (3, 3), feature_group_count=2), (4, 4, 2))
  assert len(models.spectrum_of(grouped).values) == 0


def abstract(name, shape):
  channels = shape[-1]
  module = models.build(name, num_classes=4, mean=(0.5,) * channels, std=(0.25,) * channels)
  return module, jax.eval_shape(module.init, KEY, jnp.zeros((1, *shape)))


@pytest.mark.parametrize(
  ('name', 'shape', 'count'),
  [
    ('digits-cnn', (8, 8, 1), 4),
    ('resnet20', (32, 32, 3), 20),
    ('wrn40-2', (32, 32, 3), 41),
    ('lipconvnet5-small-soc', (8, 8, 1), 4),
    ('lipconvnet5-small-cayley', (28, 28, 1), 6),
  ],
)
def test_every_layer_of_a_model_is_found(name, shape, count):
  """All parameters of two axes or more belong to a layer that is listed; each once."""
  module, variables = abstract(name, shape)
  found = models.layers_of(module, variables, shape)
  matrices = [leaf for leaf in jax.tree.leaves(variables['params']) if leaf.ndim > 1]
  owned = [
    leaf for layer in found for leaf in jax.tree.leaves(layer.variables['params']) if leaf.ndim > 1
  ]
  assert sum(leaf.size for leaf in owned) == sum(leaf.size for leaf in matrices)
  assert len(found) == count == len({layer.name for layer in found})
  heights = [layer.shape[0] for layer in found if len(layer.shape) == 3]
  assert heights == sorted(heights, reverse=True)  # In the order in which an image meets them.


def test_a_model_with_an_array_of_its_own_is_no_layer():
  class Positions(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      x = x + self.param('position', nn.initializers.ones, (1, 4, 4, 1))
      return nn.Dense(3)(x.mean((1, 2)))

  variables = Positions().init(KEY, jnp.zeros((1, 4, 4, 1)))
  found = models.layers_of(Positions(), variables, (4, 4, 1))
  assert [layer.name for layer in found] == ['Dense_0']


def test_a_layer_that_is_called_twice_is_listed_once():
  class Twice(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      shared = nn.Conv(2, (3, 3), name='shared')
      return nn.Dense(3)(shared(shared(x)[:, ::2]).mean((1, 2)))

  variables = Twice().init(KEY, jnp.zeros((1, 4, 4, 2)))
  found = models.layers_of(Twice(), variables, (4, 4, 2))
  assert [(layer.name, layer.shape) for layer in found] == [
    ('shared', (4, 4, 2)),
    ('Dense_0', (2,)),
  ]
