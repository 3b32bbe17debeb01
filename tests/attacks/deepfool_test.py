"""DeepFool: protocol, the least perturbation of a linear model, near points of a bent one, few rivals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats

pytestmark = pytest.mark.usefixtures('many_programs')

SHAPE, CLASSES = (2, 2, 3), 4
W = np.random.default_rng(0).normal(size=(12, CLASSES)).astype(np.float32)
DUALS = {'linf': 1, 'l2': 2, 'l1': np.inf}
WIDE = {'linf': threats.linf(1.0), 'l2': threats.l2(np.inf), 'l1': threats.l1(np.inf)}


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


def batch(model_fn=linear, size=6):
  x = np.random.default_rng(1).uniform(0.45, 0.55, (size, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.argmax(model_fn(jnp.asarray(x)), axis=1).astype(jnp.int32)


def run(attack, model_fn, x, y):
  return jax.jit(lambda x, y: attack(jax.random.key(0), model_fn, x, y))(x, y)


def lengths(name, x, x_adv):
  return np.asarray(jax.vmap(WIDE[name].distance)(x, x_adv))


@pytest.mark.parametrize('name', ['l1'])
def test_protocol(name):
  make = lambda threat: attacks.deepfool(threat, num_steps=4)
  testing.check_attack(make, getattr(threats, name), linear, *batch(), score=attacks.margin)


@pytest.mark.parametrize('name, order', DUALS.items())
def test_least_perturbation_of_a_linear_model(name, order):
  """min_k (z_y - z_k) / |w_k - w_y|_*, lengthened by the overshoot; it takes one step."""
  x, y = batch()
  z = np.asarray(linear(x))
  gap = z[np.arange(6), y][:, None] - z
  dual = np.array([np.linalg.norm(W - W[:, [c]], order, axis=0) for c in y])
  own = np.arange(CLASSES) == np.asarray(y)[:, None]
  least = np.min(np.where(own, np.inf, gap / np.where(own, 1, dual)), axis=1)
  for num_steps in (1, 5):
    x_adv = run(attacks.deepfool(WIDE[name], num_steps=num_steps), linear, x, y)
    assert (jnp.argmax(linear(x_adv), axis=1) != y).all()
    np.testing.assert_allclose(lengths(name, x, x_adv), 1.02 * least, rtol=1e-4)


def test_curved_boundary():
  """A disc of radius 0.3, from inside: the least L2 distance is 0.3 - |x - centre|. The score is convex
  along a ray, so that each step falls short of the boundary and the next one comes nearer."""

  def model_fn(x):
    far = jnp.sqrt(((x - 0.5) ** 2).sum(1))
    return jnp.stack([jnp.exp(-9 * far) - np.exp(-2.7), jnp.zeros(len(x))], axis=1)

  x = jnp.array([[0.6, 0.5], [0.5, 0.35], [0.55, 0.58]])
  y = jnp.zeros(3, jnp.int32)
  short, long = (
    run(attacks.deepfool(threats.l2(np.inf), num_steps=n), model_fn, x, y) for n in (1, 20)
  )
  least = 0.3 - np.linalg.norm(x - 0.5, axis=1)
  assert (model_fn(short)[:, 0] > 0).all() and (model_fn(long)[:, 0] < 0).all()
  found = lengths('l2', x, long)
  assert (found >= least * (1 - 1e-5)).all() and (found <= 1.03 * least).all()


def test_a_misclassified_image_stays():
  x, y = batch()
  assert np.array_equal(run(attacks.deepfool(threats.l2(1.0)), linear, x, (y + 1) % CLASSES), x)


def test_one_rival_is_the_runner_up():
  x, y = batch()
  z = jnp.where(jnp.arange(CLASSES)[None] == y[:, None], -jnp.inf, linear(x))
  x_adv = run(attacks.deepfool(threats.l2(np.inf), num_rivals=1), linear, x, y)
  pair = jnp.stack([y, jnp.argmax(z, axis=1).astype(jnp.int32)], axis=1)
  gap = np.asarray(jnp.take_along_axis(linear(x), pair, axis=1)) @ np.float32([1, -1])
  dual = np.linalg.norm(W[:, pair[:, 0]] - W[:, pair[:, 1]], axis=0)
  assert (lengths('l2', x, x_adv) <= 1.0201 * gap / dual).all()
  alone = np.asarray(jnp.take_along_axis(linear(x_adv), pair, axis=1)) @ np.float32([1, -1])
  np.testing.assert_allclose(alone, -0.02 * gap, rtol=1e-2)


def test_flat_models_and_nan_leave_the_image():
  x, y = batch()
  for scale in (0.0, jnp.nan):
    model_fn = lambda x, scale=scale: linear(x) * scale
    x_adv = run(attacks.deepfool(threats.l2(0.5), num_steps=3), model_fn, x, y)
    assert np.array_equal(x_adv, x)


@pytest.mark.parametrize(
  'threat, options, message',
  [
    (threats.l0(3), {}, "`threat` must be one of linf, l2, l1, got 'l0'"),
    (threats.l2(0.1), {'num_steps': -1}, 'got num_steps=-1'),
    (threats.l2(0.1), {'overshoot': -0.1}, 'overshoot=-0.1'),
    (threats.l2(0.1), {'num_rivals': 0}, '`num_rivals` at least 1'),
  ],
)
def test_bad_arguments(threat, options, message):
  with pytest.raises(ValueError, match=message):
    attacks.deepfool(threat, **options)
