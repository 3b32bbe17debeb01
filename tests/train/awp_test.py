"""Adversarial weight perturbation: the direction layer by layer, and the step written out."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import parallel, train

pytestmark = pytest.mark.usefixtures('many_programs')

SHAPE, RATE, GAMMA = (2, 2, 1), 0.5, 0.1
BATCH = {
  'x': np.random.default_rng(0).uniform(0.2, 0.8, (8, *SHAPE)).astype(np.float32),
  'y': (np.arange(8) % 2).astype(np.int32),
  'index': np.arange(8, dtype=np.int32),
}


class Small(nn.Module):
  """Two layers, no statistics."""

  @nn.compact
  def __call__(self, x, train=False):
    return nn.Dense(2)(nn.tanh(nn.Dense(4)(x.reshape(len(x), -1))))


def one_step(tx=None, **method):
  """(first state, state after one step, metrics)."""
  module, tx = Small(), tx or optax.sgd(RATE)
  state = train.init_state(jax.random.key(0), module, tx, SHAPE)
  first, seen = jax.device_get(state), []
  after = train.fit(
    train.make_step(module, tx, **method), state, [BATCH], key=jax.random.key(1), log_every=1,
    mesh=parallel.data_mesh(jax.devices()[:1]), on_log=lambda step, metrics: seen.append(metrics),
  )  # fmt: skip
  return first, jax.device_get(after), seen[0]


def moved(params, gradient, gamma):
  """Kernels by gamma |w| along the gradient, in float64; biases not at all."""

  def move(w, g):
    w, g = np.asarray(w, float), np.asarray(g, float)
    return w if w.ndim < 2 else w + gamma * np.linalg.norm(w) / np.linalg.norm(g) * g

  return jax.tree.map(move, params, gradient)


def test_layers_move_in_proportion_to_their_size():
  rng = np.random.default_rng(0)
  params = {name: jnp.float32(rng.normal(size=shape)) for name, shape in SHAPES.items()}
  gradient = {name: jnp.float32(rng.normal(size=shape)) for name, shape in SHAPES.items()}
  gradient['flat'] = jnp.zeros_like(gradient['flat'])
  weights = train.awp(train.clean(), GAMMA).weights
  found = weights(params, gradient, 0)
  expected = moved(params, {**gradient, 'flat': np.ones(SHAPES['flat'])}, GAMMA)
  for name in ('kernel', 'convolution', 'bias'):
    np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
  assert np.array_equal(found['flat'], params['flat'])  # Without a gradient nothing moves.
  again = weights(params, jax.tree.map(lambda g: 1e3 * g, gradient), 0)
  chex.assert_trees_all_close(again, found, atol=1e-5)


SHAPES = {'kernel': (3, 4), 'convolution': (3, 3, 2, 4), 'bias': (4,), 'flat': (2, 2)}


def test_the_gradient_is_that_of_the_moved_weights_and_the_step_from_those_that_stayed():
  def perturb(keys, model_fn, x, y, step):
    return x + 0.1 * jnp.mean(model_fn(x))  # Another point at other weights.

  def loss(params, x):
    logits = Small().apply({'params': params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, BATCH['y']).mean()

  tx = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(RATE))  # The decay is of w, not of w'.
  method = train.awp(train.Objective(train.cross_entropy, perturb), GAMMA)
  first, after, metrics = one_step(tx, **method._asdict())
  x = np.asarray(
    perturb(None, lambda x: Small().apply({'params': first.params}, x), BATCH['x'], 0, 0)
  )
  value_and_grad = jax.jit(jax.value_and_grad(loss))
  below, gradient = value_and_grad(first.params, x)
  uphill = jax.tree.map(np.float32, moved(first.params, gradient, GAMMA))
  value, gradient = jax.device_get(value_and_grad(uphill, x))
  expected = jax.tree.map(lambda w, g: w - RATE * (g + 0.1 * w), first.params, gradient)
  chex.assert_trees_all_close(after.params, expected, atol=1e-5)
  assert metrics['loss'] == pytest.approx(float(value), abs=1e-5)
  assert value > below + 1e-3  # It is uphill.


def test_zero_is_without():
  objective = train.trades()
  assert train.awp(objective, 0.0) is objective
  made = train.objective('adversarial-awp', None, sigma=0.0, gamma=0.0)
  assert sorted(made) == ['loss', 'perturb']


def test_methods_with_it_by_name():
  params, gradient = {'kernel': np.eye(2)}, {'kernel': np.ones((2, 2))}
  for name, gamma in {'adversarial-awp': 0.01, 'trades-awp': 5e-3}.items():
    made = train.objective(name, None, sigma=0.0)
    assert sorted(made) == ['loss', 'perturb', 'weights']
    moved = made['weights'](params, gradient, 0)['kernel'] - params['kernel']
    np.testing.assert_allclose(moved, gamma * np.sqrt(2) / 2, rtol=1e-3)


@pytest.mark.parametrize('gamma', [-0.1, 1.0, float('nan')])
def test_bad_gamma(gamma):
  with pytest.raises(
    ValueError, match=r'`gamma` is a share of the norm of the weights, in \[0, 1\)'
  ):
    train.awp(train.clean(), gamma)
