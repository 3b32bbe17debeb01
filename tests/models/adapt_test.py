"""Any model certifies: nnx, linen, plain functions, bfloat16, and numpy outside JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from certjax import certify, models, parallel, smoothing

KEY = jax.random.key(1)
X = np.random.default_rng(0).uniform(0, 1, (3, 4, 4, 1)).astype(np.float32)
NOISE = smoothing.gaussian(sigma=0.5)


class Linen(nn.Module):
  """With BatchNorm and dropout: it must run in evaluation mode."""

  @nn.compact
  def __call__(self, x, train=True):
    x = nn.Dense(8)(x.reshape(len(x), -1))
    x = nn.BatchNorm(use_running_average=not train)(x)
    return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class Nnx(nnx.Module):
  def __init__(self, rngs):
    self.dense = nnx.Linear(16, 3, rngs=rngs)
    self.norm = nnx.BatchNorm(16, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x):
    return self.dense(self.dropout(self.norm(x.reshape(len(x), 16))))


def test_nnx_runs_in_evaluation_mode_and_stays_as_it_was():
  model = Nnx(nnx.Rngs(0))
  model.train()
  model_fn = models.as_model_fn(model)
  kernel, bias = (np.asarray(leaf[...]) for leaf in (model.dense.kernel, model.dense.bias))
  by_hand = X.reshape(3, 16) / np.sqrt(1 + 1e-5) @ kernel + bias
  np.testing.assert_allclose(model_fn(X), by_hand, atol=1e-5)
  assert not model.norm.use_running_average and not model.dropout.deterministic
  assert len(jax.tree.leaves(model_fn)) >= 6, 'weights travel as arguments'
  certify.votes(KEY, model_fn, NOISE, X, num_samples=10, chunk=10)


def test_linen_pairs_and_bound_modules():
  module = Linen()
  variables = module.init({'params': KEY, 'dropout': KEY}, X)
  expected = module.apply(variables, X, train=False)
  pair = models.as_model_fn((module, variables))
  np.testing.assert_array_equal(pair(X), expected)
  np.testing.assert_array_equal(models.as_model_fn(module.bind(variables))(X), expected)
  plain = (nn.Dense(3), nn.Dense(3).init(KEY, X))  # No `train` to be switched off.
  assert models.as_model_fn(plain)(X).shape == (3, 4, 4, 3)


@pytest.mark.parametrize('model', [Linen(), Linen, 3, ('a', 'b')])
def test_what_is_no_model(model):
  with pytest.raises(ValueError, match=r'a model is a function|no weights of its own'):
    models.as_model_fn(model)


def test_bfloat16_rounds_weights_and_input_and_returns_float32():
  module = models.ResNet(10, depth=8, mean=(0.5,) * 3, std=(0.2,) * 3)
  x = np.random.default_rng(0).uniform(0, 1, (4, 16, 16, 3)).astype(np.float32)
  exact = models.bind(module, jax.jit(module.init)(KEY, x))
  rounded = models.in_bfloat16(exact)
  assert {leaf.dtype for leaf in jax.tree.leaves(rounded)} == {jnp.dtype(jnp.bfloat16)}
  full, half = certify.evaluate(exact, x), certify.evaluate(rounded, x)
  assert half.dtype == np.float32
  error = np.abs(full - half).max() / np.abs(full).max()
  assert 1e-4 < error < 0.05
  dtypes = {
    variable.aval.dtype
    for equation in jax.make_jaxpr(rounded)(x).eqns
    for variable in equation.outvars
    if 'custom_vjp' in equation.primitive.name  # Our convolution.
  }
  assert dtypes == {jnp.dtype(jnp.bfloat16)}


W = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)


def predict(x):
  assert type(x) is np.ndarray and x.dtype == np.float32 and x.shape == (20, 4, 4, 1)
  return (x.reshape(20, 16) - 0.5).astype(np.float64) @ W.astype(np.float64)


def test_a_model_outside_jax_votes_like_one_inside():
  """On the first of however many devices; logits 64-bit there, votes equal but for near ties."""
  model_fn = certify.outside(predict)
  votes = certify.votes(KEY, model_fn, NOISE, X, num_samples=333, chunk=20)
  inside = lambda x: (x.reshape(len(x), 16) - 0.5) @ W
  expected = certify.votes(KEY, inside, NOISE, X, num_samples=333, chunk=20)
  assert np.abs(votes - expected).max() <= 1 and (votes.sum(axis=1) == 333).all()
  mesh = parallel.local_mesh()
  again = certify.votes(KEY, model_fn, NOISE, X, num_samples=333, chunk=20, mesh=mesh, slots=2)
  np.testing.assert_array_equal(again, votes)
  proof = certify.sampled(KEY, model_fn, NOISE, X, num_samples=333, chunk=20)
  assert (proof.radius > 0).any()


def test_views_of_a_model_outside_jax():
  views = smoothing.deterministic_splitting(sigma=0.2, shape=(4, 4, 1), quantization=5)
  x = np.round(X * 5) / 5
  inside = lambda x: (x.reshape(len(x), 16) - 0.5) @ W
  proof = certify.enumerated(certify.outside(predict), views, x, chunk=20)
  expected = certify.enumerated(inside, views, x, chunk=20)
  np.testing.assert_array_equal(proof.label, expected.label)


@pytest.mark.parametrize(
  'bad, said',
  [
    (lambda x: x[:, 0, 0, 0], r'got shape \(20,\) for a batch of 20'),
    (lambda x: np.zeros((3, 3)), r'got shape \(3, 3\) for a batch of 20'),
  ],
)
def test_wrong_shapes_from_outside(bad, said):
  with pytest.raises(ValueError, match=said):
    certify.votes(KEY, certify.outside(bad), NOISE, X, num_samples=5, chunk=20)
