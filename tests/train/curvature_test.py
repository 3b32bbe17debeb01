"""Curvature-regularised training: its loss by hand, its attack, and what it buys."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import attacks, bounds, data, models, parallel, threats, train

MODULE = models.MLP(3, hidden=(8,), activation='softplus')
X = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (6, 2, 2, 1)), jnp.float32)
Y = jnp.array([0, 1, 2, 0, 1, 2], jnp.int32)
VARIABLES = MODULE.init(jax.random.key(0), X)


def test_the_loss_by_hand():
  """Cross-entropy, and gamma times the curvature of each image's label and best rival."""
  objective = train.crt(gamma=0.7, num_norm_steps=200)
  apply = lambda x, train: (MODULE.apply(VARIABLES, x), {})
  value, (metrics, statistics) = jax.jit(lambda: objective.loss(None, apply, X, Y, 0))()
  weights, _ = MODULE.matrices(VARIABLES, X.shape[1:])
  curvature = bounds.deep_curvature(weights)
  logits, y = np.asarray(MODULE.apply(VARIABLES, X), np.float64), np.asarray(Y)
  rival = np.argmax(np.where(np.arange(3) == y[:, None], -np.inf, logits), axis=1)
  entropy = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(6), y])
  assert float(metrics['curvature']) == pytest.approx(curvature[y, rival].mean(), rel=1e-5)
  assert float(value) == pytest.approx(entropy + 0.7 * curvature[y, rival].mean(), rel=1e-5)
  assert statistics == {} and 0 <= metrics['accuracy'] <= 1


def test_its_short_attack_nearly_reaches_that_of_the_paper():
  """30 multipliers of 10 steps; and the budget grows from 0 in the warm-up."""
  objective = train.crt(eps=0.5, warmup_steps=10)
  model_fn = models.bind(MODULE, VARIABLES)
  keys = jax.random.split(jax.random.key(1), 6)
  perturb = jax.jit(lambda step: objective.perturb(keys, model_fn, X, Y, step))
  weights, _ = MODULE.matrices(VARIABLES, X.shape[1:])
  long = attacks.cra(
    threats.l2(0.5), curvature=bounds.deep_curvature(weights), num_multipliers=30, num_steps=10
  )
  x_adv = perturb(9)
  value = lambda x: jax.vmap(attacks.margin)(model_fn(x), Y)
  best = jax.jit(lambda: long(keys, model_fn, X, Y))()
  gained, most = value(x_adv) - value(X), value(best) - value(X)
  assert (most > 0.01).all() and (gained >= 0.999 * most).all()
  length = jnp.linalg.norm((perturb(0) - X).reshape(6, -1), axis=1)
  assert (length <= 0.05 * (1 + 1e-5)).all() and (length > 0.01).all()


def test_it_certifies_more_than_plain_training():
  """On digits, 100 steps each: the curvature falls to less than a third, certified radii rise."""
  images = data.load('digits', 'train')
  x, y = np.asarray(images.images)[:256], np.asarray(images.labels)[:256]
  module = models.MLP(10, hidden=(32,), activation='sigmoid')
  tx = optax.adam(3e-2)
  batch = {'x': x, 'y': y.astype(np.int32), 'index': np.arange(256, dtype=np.int32)}
  radii, curvature, mesh = {}, {}, parallel.data_mesh(jax.devices()[:1])
  for name, objective in (('clean', train.clean()), ('crt', train.crt(gamma=0.05, eps=1.0))):
    step = train.make_step(module, tx, **objective._asdict())
    specs = (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED)
    step = parallel.pmap(step, mesh, specs, (parallel.REPLICATED, parallel.REPLICATED))
    state = train.init_state(jax.random.key(0), module, tx, (8, 8, 1))
    for _ in range(100):
      state, _ = step(state, jax.random.key(1), batch)
    weights, biases = module.matrices(state.variables, (8, 8, 1))
    pixels = np.asarray(x, np.float64)[::8] / 255
    proof = bounds.crc(pixels, weights, biases, activation='sigmoid')
    correct = proof.label == y[::8]
    assert correct.mean() > 0.8
    radii[name] = np.where(correct, proof.radius, 0)
    curvature[name] = bounds.deep_curvature(weights, activation='sigmoid').max()
  assert curvature['crt'] < curvature['clean'] / 3
  assert radii['crt'].mean() > 1.25 * radii['clean'].mean()
  assert (radii['crt'] >= 1).mean() > 0.2 > (radii['clean'] >= 1).mean()


def test_matrices_are_the_network():
  """With a normalisation of each of three channels."""
  module = models.MLP(
    4, hidden=(5, 6), activation='tanh', mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)
  )
  x = np.random.default_rng(1).uniform(size=(3, 2, 2, 3)).astype(np.float32)
  variables = module.init(jax.random.key(2), x)
  weights, biases = module.matrices(variables, x.shape[1:])
  value = x.reshape(3, -1)
  for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
    value = value @ weight.T + bias
    value = np.tanh(value) if i < 2 else value
  np.testing.assert_allclose(module.apply(variables, x), value, atol=1e-5)


@pytest.mark.parametrize(
  'options, said',
  [
    (dict(gamma=-1.0), '`gamma` must be at least 0 and finite'),
    (dict(eps=float('nan')), '`eps` must be at least 0 and finite'),
    (dict(num_steps=0), '`num_multipliers` and `num_steps` must be at least 1'),
    (dict(num_norm_steps=0), '`num_norm_steps` must be at least 1'),
  ],
)
def test_bad_parameters(options, said):
  with pytest.raises(ValueError, match=said):
    train.crt(**options)


def test_without_a_ball_there_is_no_attack():
  assert train.crt(eps=0.0).perturb is None


def test_unknown_activation():
  with pytest.raises(ValueError, match='`activation` must be one of softplus, sigmoid, tanh'):
    models.MLP(3, activation='relu').init(jax.random.key(0), X)
