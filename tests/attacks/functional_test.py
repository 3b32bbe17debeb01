"""Every functional threat, and the one search: protocol, Adam of optax, what counts as best."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import attacks, testing, threats
from certjax.attacks import functional

pytestmark = pytest.mark.usefixtures('many_programs')

SIZE = 8
W = np.random.default_rng(0).normal(size=(SIZE * SIZE, 3)).astype(np.float32)
THREATS = {
  'recolor': lambda eps: functional.recolor(eps, space='grey', resolution=(4,)),
  'stadv': functional.stadv,
  'elastic': functional.elastic,
  'jpeg': functional.jpeg,
  'fog': functional.fog,
  'gabor': lambda eps: functional.gabor(eps, number=3),
  'snow': lambda eps: functional.snow(eps, number=3),
  'additive': functional.additive,
}


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W[: x[0].size]


def batch(size=8, pixels=2):
  """Images off the border of [0, 1], and the labels that the model gives them."""
  x = np.random.default_rng(1).uniform(0.2, 0.8, (size, pixels, pixels, 1)).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(np.argmax(linear(x), axis=1).astype(np.int32))


def three(eps):
  """C + S + D: colours, then places, then values."""
  return functional.compose(*(THREATS[name](eps) for name in ('recolor', 'stadv', 'additive')))


def margins(x, y):
  return np.asarray(jax.vmap(attacks.margin)(linear(x), y))


def test_protocol():
  make = lambda threat: functional.latent_attack(
    threat.functional, num_steps=2, step_size=0.05, random_start=True
  )
  threat = lambda eps: types.SimpleNamespace(
    functional=functional.additive(eps), distance=threats.linf(1.0).distance
  )
  testing.check_attack(make, threat, linear, *batch(), score=attacks.margin)


def test_three_threats_at_once():
  """Never worse, one trace for all budgets, and eps = 0 changes no bit."""
  x, y = batch()
  traces = []

  @jax.jit
  def attack(keys, x, y, eps):
    traces.append(len(x))
    run = functional.latent_attack(
      three(eps), num_steps=5, step_size=(0.05, 0.1, 0.02), penalty_weight=0.01
    )
    return run(keys, linear, x, y)

  keys = jax.random.split(jax.random.key(0), len(x))
  x_adv = attack(keys, x, y, 0.2)
  gain = margins(x_adv, y) - margins(x, y)
  assert (gain > 0.1).all() and x_adv.min() >= 0 and x_adv.max() <= 1
  assert np.array_equal(attack(keys, x, y, 0.0), x)
  assert traces == [8]


def test_latents_that_change_nothing_and_latents_of_the_set():
  """Also at the border of [0, 1]; far latents come back into the set, near ones stay."""
  x = batch(2, SIZE)[0]
  x = x.at[0].set(jnp.round(x[0]))
  key = jax.random.key(0)

  @jax.jit
  def each(x):
    found = {}
    for name, make in THREATS.items():
      threat = make(0.2)
      sample = threat.sample(key, x)
      strokes = isinstance(sample, functional.Strokes)
      far = sample._replace(strength=100 * sample.strength) if strokes else 100 * sample
      points = {'init': threat.init(key, x), 'sample': sample, 'far': threat.project(x, far)}
      images = {point: threat.decode(x, latent) for point, latent in points.items()}
      distances = {point: threat.distance(latent) for point, latent in points.items()}
      found[name] = images, distances, points['sample'], threat.project(x, sample)
    return found

  for image in x:
    for name, (images, distances, sample, same) in each(image).items():
      assert np.array_equal(images['init'], image), name
      assert distances['init'] == 0, name
      assert 0.02 < distances['sample'] <= 0.2 * (1 + 1e-5), name
      np.testing.assert_allclose(distances['far'], 0.2, rtol=1e-4, err_msg=name)
      for moved in (images['sample'], images['far']):
        assert moved.min() >= 0 and moved.max() <= 1, name
        # What is 0 or 1 may be pushed outwards alone.
        assert ((image == 0) | (image == 1)).all() or not np.array_equal(moved, image), name
      near = jax.tree.map(lambda a, b: np.abs(a - b).max(), sample, same)
      assert max(jax.tree.leaves(near)) < 1e-5, name


def test_linear_optimum_of_signs():
  """The margin grows by eps |w|_1, the difference of weights; three steps of eps / 2 reach it."""
  x, y = batch(4)
  two = lambda x: linear(x)[:, :2]
  y = jnp.argmax(two(x), axis=1).astype(jnp.int32)
  attack = functional.latent_attack(
    functional.additive(0.1), num_steps=3, step_size=0.05, optimizer='sign'
  )
  x_adv = jax.jit(lambda key, x, y: attack(key, two, x, y))(jax.random.key(0), x, y)
  gap = lambda x: two(x)[jnp.arange(4), y] - two(x)[jnp.arange(4), 1 - y]
  np.testing.assert_allclose(
    gap(x) - gap(x_adv), 0.1 * np.abs(W[:4, 0] - W[:4, 1]).sum(), rtol=1e-4
  )


@pytest.mark.parametrize('name', ['adam', 'l2'])
def test_steps_are_those_of_optax(name):
  x, y = batch(3)
  penalty = lambda latent: jnp.sum(latent**2)
  threat = functional.additive(1.0)._replace(penalty=penalty)
  optimizer = {
    'adam': optax.adam(-0.01),
    'l2': optax.chain(optax.normalize_by_update_norm(), optax.scale(0.01)),
  }[name]
  objective = lambda latent, x, y: (
    attacks.cross_entropy(linear((x + latent)[None])[0], y) - penalty(latent)
  )
  slope = jax.jit(jax.grad(objective))
  latent = [jnp.zeros(image.shape) for image in x]
  state = [optimizer.init(one) for one in latent]
  for _ in range(4):
    for i in range(3):  # Row by row: a norm is that of one image.
      gradient = slope(latent[i], x[i], y[i])
      with jax.numpy_dtype_promotion('standard'):  # Optax's counts are integers.
        update, state[i] = optimizer.update(gradient, state[i])
      latent[i] = latent[i] + update
  attack = functional.latent_attack(
    threat,
    num_steps=4,
    step_size=0.01,
    optimizer=name,
    loss=attacks.cross_entropy,
    penalty_weight=1.0,
  )
  x_adv = jax.jit(lambda key, x, y: attack(key, linear, x, y))(jax.random.key(0), x, y)
  np.testing.assert_allclose(x_adv - x, jnp.stack(latent), atol=2e-5)


def one_pixel(model_of_pixel, **options):
  """Where an attack takes a pixel of .5, whose wrong class has the logit `model_of_pixel`."""
  model_fn = lambda x: jnp.stack([jnp.zeros(len(x)), model_of_pixel(x[:, 0, 0, 0])], axis=1)
  options = {'step_size': 0.125, 'optimizer': 'sign', 'num_steps': 3} | options
  attack = functional.latent_attack(functional.additive(0.5), **options)
  x = jnp.full((1, 1, 1, 1), 0.5)
  run = jax.jit(lambda key, x, y: attack(key, model_fn, x, y))
  return float(run(jax.random.key(0), x, jnp.array([0]))[0, 0, 0, 0])


def test_the_best_point_is_kept():
  # Steps .625, .75, .875: a wrong class only between, though the slope goes on.
  window = lambda p: jnp.where((p > 0.7) & (p < 0.8), 1.0, -1.0) + p - jax.lax.stop_gradient(p)
  assert one_pixel(window) == 0.75
  assert one_pixel(window, keep='last') == 0.875  # Right again.
  # Misclassified comes before the larger objective, and the larger margin among misclassified.
  assert one_pixel(lambda p: p - 0.6, loss=lambda logits, y: -jnp.abs(logits[1] - 0.2)) == 0.75
  assert one_pixel(lambda p: p - 0.6) == 0.875
  # What is worse than x gives x: ascent on a loss that misleads, misclassified or not.
  for sign in (-1.0, 1.0):
    misled = lambda p, sign=sign: (
      sign + jax.lax.stop_gradient(2 * (0.5 - p)) + p - jax.lax.stop_gradient(p)
    )
    assert one_pixel(misled) == 0.5


def test_nan_never_replaces_a_number():
  assert one_pixel(lambda p: jnp.where(p > 0.7, jnp.nan, p - 1)) == 0.625  # Logits.
  root = lambda p: jnp.where(p > 0.5, p, p - 1) + 0 * jnp.sqrt(p - 0.5)  # The gradient, at x.
  assert one_pixel(root) == 0.5
  assert one_pixel(root, random_start=True, num_steps=2) != 0.5


def test_compose():
  """In order, each with its own random numbers, step size and budget."""
  light = functional.additive(0.5)
  double = light._replace(name='double', decode=lambda x, latent: x * (1 + latent.mean()), eps=0.25)
  x = jnp.full((1, 1, 1), 0.25)
  latent = (jnp.full((1, 1, 1), 0.25), jnp.full((1, 1, 1), 0.125))
  for parts, expected in (((light, double), 0.5625), ((double, light), 0.53125)):
    threat = functional.compose(*parts)
    values = latent if parts[0] is light else latent[::-1]
    assert threat.name == '+'.join(part.name for part in parts)
    assert float(threat.decode(x, values)[0, 0, 0]) == expected
    assert float(threat.distance(values)) == 0.5  # .25 of .5, and .125 of .25.
  first, second = threat.sample(jax.random.key(0), x)
  assert first != second
  counted = light._replace(penalty=lambda latent: jnp.ones(()))
  assert float(functional.compose(counted, counted, weights=(2, 3)).penalty(latent)) == 5
  attack = functional.latent_attack(
    functional.compose(light, light), num_steps=1, step_size=(0.125, 0.25), optimizer='sign'
  )
  two = lambda x: linear(x)[:, :2]
  moved = jax.jit(lambda key, x, y: attack(key, two, x, y))(
    jax.random.key(0), x[None], jnp.array([1])
  )
  np.testing.assert_allclose(jnp.abs(moved[0] - x), np.full((1, 1, 1), 0.375), atol=1e-6)


def test_errors():
  attack = functional.latent_attack
  light = functional.additive(0.5)
  for options, text in (
    ({'num_steps': -1, 'step_size': 1}, '`num_steps` must be at least 0'),
    (
      {'num_steps': 1, 'step_size': (1, 0)},
      r'`step_size` positive, got num_steps=1, step_size=\(1, 0\)',
    ),
    ({'num_steps': 1, 'step_size': 1, 'penalty_weight': -1}, '`penalty_weight` must be at least 0'),
    ({'num_steps': 1, 'step_size': 1, 'optimizer': 'sgd'}, "one of 'adam', 'sign', 'l2', got"),
    (
      {'num_steps': 1, 'step_size': 1, 'keep': 'first'},
      "`keep` must be one of 'best', 'last', got",
    ),
  ):
    with pytest.raises(ValueError, match=text):
      attack(light, **options)
  with pytest.raises(ValueError, match='for grey levels write 8 / 255'):
    functional.additive(8)
  with pytest.raises(ValueError, match='one of `weights` for each, got 1 parts'):
    functional.compose(light, weights=(1, 2))
  with pytest.raises(ValueError, match='one or more parts'):
    functional.compose()
  with pytest.raises(ValueError, match=r'images \[B, H, W, C\], got one of shape \(4,\)'):
    attack(light, num_steps=1, step_size=1)(
      jax.random.key(0), linear, jnp.zeros((2, 4)), jnp.zeros(2, int)
    )
