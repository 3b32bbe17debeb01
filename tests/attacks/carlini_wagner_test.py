"""Carlini & Wagner: protocol, the search of the constant, the least perturbation of a linear model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats
from certjax.attacks import _carlini_wagner

pytestmark = pytest.mark.usefixtures('many_programs')

CLASSES, SIZE = 3, 4
W = np.random.default_rng(0).normal(size=(4, CLASSES)).astype(np.float32)
UNBOUNDED = threats.l2(np.inf)
OPTIONS = dict(num_steps=200, binary_search_steps=9, learning_rate=0.004)


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


def batch():
  x = np.random.default_rng(1).uniform(0.4, 0.6, (SIZE, 2, 2, 1)).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(np.argmax(linear(x), axis=1).astype(np.int32))


def two(x):
  """Without a third class the way to the runner-up is the nearest."""
  return linear(x)[:, :2]


def run(attack, x, y, model_fn=linear):
  return jax.jit(lambda x, y: attack(jax.random.key(0), model_fn, x, y))(x, y)


def least(x, y, model_fn=linear, confidence=0.0):
  """min_k (z_y - z_k + confidence) / |w_k - w_y|_2."""
  z = np.asarray(model_fn(x))
  w, own = W[:, : z.shape[1]], np.arange(z.shape[1]) == np.asarray(y)[:, None]
  dual = np.array([np.linalg.norm(w - w[:, [label]], axis=0) for label in y])
  gap = z[np.arange(SIZE), y][:, None] - z + confidence
  return np.min(np.where(own, np.inf, gap / np.where(own, 1, dual)), axis=1)


def margins(x, y, model_fn=linear):
  return np.asarray(jax.vmap(attacks.margin)(model_fn(x), y))


def lengths(x, x_adv):
  return np.linalg.norm(np.asarray(x_adv - x, np.float64).reshape(len(x), -1), axis=1)


def test_protocol():
  """At 0.05 some of the images can be changed and others not."""
  options = dict(num_steps=8, binary_search_steps=4, learning_rate=0.05, initial_const=0.1)
  make = lambda t: jax.jit(attacks.carlini_wagner(t, **options), static_argnums=1)
  x, y = batch()
  assert 0 < (least(x, y) < 0.05).sum() < SIZE
  testing.check_attack(make, threats.l2, linear, x, y, score=attacks.margin, eps=0.05)


def test_constants_of_the_search():
  outcomes = [False, False, False, True, True, False, True, False, True]
  expected = [1e-3, 1e-2, 0.1, 1, 0.55, 0.325, 0.4375, 0.38125, 0.409375]
  place = _carlini_wagner.Search(jnp.array([1e-3]), jnp.zeros(1), jnp.full(1, jnp.inf))
  seen = []
  for outcome in outcomes:
    seen.append(float(place.const[0]))
    place = _carlini_wagner.next_const(place, jnp.array([outcome]))
  np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_variables():
  x = jnp.array([0.0, 0.25, 0.5, 1.0])
  w = _carlini_wagner.to_variable(x)
  np.testing.assert_allclose(w, [-7.2543286, -0.5493055, 0, 7.2543286], rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(jax.nn.sigmoid(2 * w), x, atol=1e-6)


@pytest.mark.parametrize(
  'model_fn, options', [(linear, {'targets': 2}), (two, {'confidence': 0.2})]
)
def test_least_perturbation_of_a_linear_model(model_fn, options):
  x, confidence = batch()[0], options.get('confidence', 0.0)
  y = jnp.argmax(model_fn(x), axis=1).astype(jnp.int32)
  x_adv = run(attacks.carlini_wagner(UNBOUNDED, **OPTIONS, **options), x, y, model_fn)
  assert (margins(x_adv, y, model_fn) > confidence).all()
  ratio = lengths(x, x_adv) / least(x, y, model_fn, confidence)
  assert (ratio >= 1 - 1e-4).all() and (ratio <= 1.05).all(), ratio


def test_a_success_outside_the_ball_is_brought_inside():
  """On a linear model the way to the least is the best way: its end in the ball has the worst margin there."""
  x = batch()[0]
  y = jnp.argmax(two(x), axis=1).astype(jnp.int32)
  eps = float(0.8 * least(x, y, two).min())
  x_adv = run(attacks.carlini_wagner(threats.l2(eps), **OPTIONS), x, y, two)
  assert (lengths(x, x_adv) <= eps * (1 + 1e-5)).all() and (margins(x_adv, y, two) < 0).all()
  gain = margins(x_adv, y, two) - margins(x, y, two)
  np.testing.assert_allclose(gain, eps * np.linalg.norm(W[:, 0] - W[:, 1]), rtol=0.05)


def test_images_that_stay():
  x, y = batch()
  attack = attacks.carlini_wagner(UNBOUNDED, num_steps=3, binary_search_steps=2)
  assert np.array_equal(run(attack, x, (y + 1) % CLASSES), x)
  # NaN variables would look like a success to a model that does not pass NaN on.
  blind = lambda x: jnp.where(jnp.isnan(x.sum((1, 2))), jnp.eye(1, CLASSES, 1), linear(x) * 0)
  poisoned = lambda x: blind(x) + jnp.where(x.sum((1, 2)) > -1, jnp.nan, 0) * jnp.eye(1, CLASSES)
  assert np.array_equal(run(attack, x, jnp.zeros(SIZE, jnp.int32), poisoned), x)


@pytest.mark.parametrize(
  'threat, options, message',
  [
    (threats.linf(0.1), {}, '`threat` must be L2'),
    (UNBOUNDED, {'num_steps': -1}, '`num_steps` must be at least 0'),
    (UNBOUNDED, {'binary_search_steps': 0}, 'binary_search_steps=0'),
    (UNBOUNDED, {'learning_rate': 0.0}, '`learning_rate` and `initial_const` must be positive'),
    (UNBOUNDED, {'confidence': -1.0}, '`confidence` at least 0'),
    (UNBOUNDED, {'targets': 0}, '`targets` must be at least 1'),
  ],
)
def test_bad_arguments(threat, options, message):
  with pytest.raises(ValueError, match=message):
    attacks.carlini_wagner(threat, **options)
