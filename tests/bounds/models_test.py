"""Bounds of the models of the registry: what their layers are made of is read."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import bounds, layers, models

pytestmark = pytest.mark.usefixtures('many_programs')


def test_one_trace_for_all_weights_and_images():
  module = models.build('digits-cnn', num_classes=10)
  variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  bound = jax.jit(chex.assert_max_traces(lambda f, r: bounds.interval(f, r)[0], n=1))
  for scale in (1.0, 2.0):
    model_fn = models.bind(module, jax.tree.map(lambda w, s=scale: s * w, variables))
    region = bounds.ball(np.full((2, 8, 8, 1), 0.5, np.float32), np.float32(0.01 * scale))
    assert np.isfinite(bound(model_fn, region)).all()


@pytest.mark.parametrize('name, shape', [('resnet20', (8, 8, 3)), ('mnist-cnn', (28, 28, 1))])
def test_models_of_the_registry(name, shape):
  """BatchNorm, shortcuts, pooling: all are read."""
  module = models.build(name, num_classes=10)
  x = np.random.default_rng(0).uniform(0, 1, (1, *shape)).astype(np.float32)
  variables = jax.jit(module.init)(jax.random.key(0), jnp.asarray(x))
  model_fn = models.bind(module, variables)
  lower, upper = jax.jit(bounds.interval)(model_fn, bounds.ball(x, np.float32(1e-3)))
  logits = np.asarray(jax.jit(model_fn)(x))
  assert (lower <= logits).all() and (upper >= logits).all() and np.isfinite(lower).all()


def test_a_scan_of_a_lipschitz_layer_is_unrolled():
  layer = layers.SOC(4, kernel_size=3)
  x = np.random.default_rng(7).uniform(0.1, 0.9, (1, 4, 4, 4)).astype(np.float32)
  variables = jax.jit(layer.init)(jax.random.key(0), jnp.asarray(x))
  model_fn = lambda x: layer.apply(variables, x).reshape(1, -1)

  @jax.jit
  def found(x):
    sides = bounds.crown(model_fn, bounds.ball(x, 0.01))
    return *sides, jax.jacobian(lambda x: model_fn(x)[0])(x).reshape(64, -1)

  lower, upper, jacobian = found(x)
  reach = 0.01 * np.abs(jacobian).sum(axis=1)  # A linear network: CROWN is exact.
  np.testing.assert_allclose((upper - lower)[0] / 2, reach, rtol=1e-4)
