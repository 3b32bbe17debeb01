"""Adversarial training: the worst point of a linear model in closed form, and what it is good for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import attacks, data, evaluate, models, parallel, smoothing, threats, train

W = jnp.array([[0.7, -0.3], [-0.2, 0.4], [0.1, 0.9], [-1.1, 0.2]])
X, Y = jnp.array([[0.5, 0.4, 0.6, 0.5], [0.45, 0.55, 0.5, 0.6]]), jnp.array([0, 1])
KEYS = jax.random.split(jax.random.key(0), len(X))


def linear(x):
  return x @ W


def loss_of(objective, x):
  value, (metrics, statistics) = objective.loss(None, lambda x, t: (linear(x), 'new'), x, Y, 0)
  assert statistics == 'new' and 'accuracy' in metrics
  return float(value)


@pytest.mark.parametrize(
  'name, dual, threat', [('adversarial', 1, threats.linf), ('adversarial-l2', 2, threats.l2)]
)
def test_the_loss_of_a_linear_model_is_that_of_its_worst_margin(name, dual, threat):
  """log(1 + exp(-(margin - eps |w_y - w_j|_dual))), the saddle point of Madry et al."""
  eps = 0.1
  made = train.objective(name, None, sigma=0.25, eps=eps, num_steps=40.0)
  x_adv = made['perturb'](KEYS, linear, X, Y, 0)
  sign = np.where(np.asarray(Y) == 0, 1.0, -1.0)
  margins = sign * np.asarray(linear(X) @ jnp.array([1.0, -1.0]))
  worst = margins - eps * np.linalg.norm(np.asarray(W[:, 0] - W[:, 1]), dual)
  expected = np.log1p(np.exp(-worst)).mean()
  assert abs(loss_of(train.Objective(**made), x_adv) - expected) < 1e-5
  distances = jax.vmap(threat(eps).distance)(X, x_adv)
  np.testing.assert_allclose(distances, eps, atol=1e-6)
  assert loss_of(train.clean(), X) == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-6)


def test_the_ball_and_the_step_grow_with_the_warm_up():
  objective = train.adversarial_training(eps=0.1, num_steps=20, warmup_steps=10)
  reached = [
    float(jnp.max(jnp.abs(objective.perturb(KEYS, linear, X, Y, jnp.int32(step)) - X)))
    for step in (0, 4, 9, 50)
  ]
  np.testing.assert_allclose(reached, [0.01, 0.05, 0.1, 0.1], atol=1e-6)


def test_defaults_are_those_of_the_field():
  """2/255 of 8/255; any attack of (threat, step_size, num_steps) can take PGD's place."""
  seen = []

  def attack(threat, step_size, num_steps):
    seen.append((threat.norm, threat.eps, step_size, num_steps))
    return lambda key, model_fn, x, y: x + 1

  objective = train.adversarial_training(attack=attack)
  assert np.array_equal(objective.perturb(KEYS, linear, X, Y, 0), X + 1)
  assert set(seen) == {('linf', 8 / 255, 2 / 255, 10)}


@pytest.mark.parametrize(
  'parameters, said',
  [
    (dict(eps=0.0), '`eps` must be positive'),
    (dict(eps=8.0), 'for 8 grey levels write 8 / 255'),
    (dict(eps=float('nan')), '`eps` must be positive'),
    (dict(step_size=-1.0), '`step_size` must be positive'),
    (dict(num_steps=0), '`num_steps` must be positive .*use `clean`'),
    (dict(num_step=3.0), 'has no parameter num_step; it takes eps, step_size, num_steps'),
  ],
)
def test_bad_parameters(parameters, said):
  with pytest.raises(ValueError, match=said):
    train.objective('adversarial', None, sigma=0.0, **parameters)


@pytest.mark.parametrize('name', ['clean', 'adversarial', 'adversarial-l2'])
def test_they_refuse_noise(name):
  with pytest.raises(ValueError, match='trains on clean images'):
    train.objective(name, smoothing.gaussian(sigma=0.5), sigma=0.5)


class Logistic(nn.Module):
  """A linear classifier of two classes."""

  @nn.compact
  def __call__(self, x, train=False):
    return nn.Dense(2)(x.reshape(len(x), -1) - 0.5)


def two_features(num_images):
  """One pixel that is right nine times in ten and far apart, and 63 that are right and near."""
  rng = np.random.default_rng(0)
  y = rng.integers(0, 2, num_images)
  sign = 2.0 * y - 1
  far = sign * np.where(rng.random(num_images) < 0.9, 1, -1)
  near = sign[:, None] * 0.05 + 0.05 * rng.normal(size=(num_images, 63))
  x = 0.5 + np.concatenate([0.2 * far[:, None], near], axis=1)
  pixels = np.round(255 * np.clip(x, 0, 1)).astype(np.uint8).reshape(-1, 8, 8, 1)
  return data.Images(pixels, y.astype(np.int32), np.arange(num_images))


def test_it_gives_up_what_an_attack_can_turn_round():
  """Clean training reads the near pixels, whose sign an attack of 0.1 turns; ours the far one."""
  images, eps = two_features(256), 0.1
  mesh, tx, module = parallel.data_mesh(jax.devices()[:1]), optax.sgd(1.0), Logistic()
  attack = attacks.pgd(threats.linf(eps), step_size=0.05, num_steps=5)
  found = {}
  for name, parameters in {'clean': {}, 'adversarial': {'eps': eps, 'num_steps': 3}}.items():
    step = train.make_step(module, tx, **train.objective(name, None, sigma=0.0, **parameters))
    state = train.init_state(jax.random.key(0), module, tx, (8, 8, 1))
    batches = data.batches(images, 64, seed=0, num_steps=60)
    state = train.fit(step, state, batches, key=jax.random.key(1), mesh=mesh)
    model_fn = models.bind(module, {'params': state.params})
    robust = evaluate.robust_accuracy(jax.random.key(2), model_fn, attack, images)
    found[name] = (evaluate.accuracy(model_fn, images), robust)
  assert found['clean'][0] > 0.97 and found['clean'][1] < 0.1
  assert 0.85 < found['adversarial'][1] <= found['adversarial'][0] < 0.95
