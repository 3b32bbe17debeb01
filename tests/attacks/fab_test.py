"""FAB: protocol, least perturbations of linear models, near borders too, a bent one, rivals, restarts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats
from certjax.attacks import _hyperplane
from certjax.attacks._fab import _around, fab

pytestmark = pytest.mark.usefixtures('many_programs')

SHAPE, CLASSES = (2, 2, 3), 4
W = np.random.default_rng(0).normal(size=(12, CLASSES)).astype(np.float32)
V = np.random.default_rng(4).normal(size=(CLASSES, CLASSES)).astype(np.float32)
DUALS = {'linf': 1, 'l2': 2, 'l1': np.inf}
WIDE = {'linf': threats.linf(1.0), 'l2': threats.l2(np.inf), 'l1': threats.l1(np.inf)}


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


def network(x):
  return jnp.sin(2 * linear(x)) @ V


def batch(model_fn=linear, low=0.45, high=0.55):
  x = np.random.default_rng(1).uniform(low, high, (6, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.argmax(model_fn(jnp.asarray(x)), axis=1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=('name', 'model_fn', 'options'))
def search(eps, x, y, name='l2', model_fn=linear, options=()):
  attack = fab(getattr(threats, name)(eps), **{'num_steps': 20, **dict(options)})
  return attack(jax.random.key(0), model_fn, x, y)


def lengths(name, x, x_adv):
  return np.asarray(jax.vmap(WIDE[name].distance)(x, x_adv))


def gaps_and_slopes(x, y):
  """Of the linear model: z_y - z_k, infinite for y, and w_k - w_y[B, K, 12]."""
  z = np.asarray(linear(x))
  gap = z[np.arange(6), y][:, None] - z
  own = np.arange(CLASSES) == np.asarray(y)[:, None]
  return np.where(own, np.inf, gap), np.stack([(W - W[:, [c]]).T for c in y])


def test_protocol():
  make = lambda threat: fab(threat, num_steps=3, num_restarts=2, targets=2)
  testing.check_attack(make, threats.l1, network, *batch(network), score=attacks.margin)


@pytest.mark.parametrize('name, order', DUALS.items())
def test_least_perturbation_of_a_linear_model(name, order):
  """min_k (z_y - z_k) / |w_k - w_y|_*, found to 1%; below it there is nothing, and x comes back."""
  x, y = batch()
  gap, slope = gaps_and_slopes(x, y)
  dual = np.linalg.norm(slope, order, axis=2)
  least = np.min(gap / np.where(dual > 0, dual, 1), axis=1)
  found = search(WIDE[name].eps, x, y, name)
  assert (jnp.argmax(linear(found), axis=1) != y).all()
  far = lengths(name, x, found) / least
  assert (far >= 1 - 1e-4).all() and (far <= 1.01).all()
  eps = np.float32(np.median(least))
  within = np.asarray(search(eps, x, y, name))
  near = far * least <= eps
  assert 0 < near.sum() < 6 and np.array_equal(within[near], found[near])
  assert np.array_equal(within[~near], x[~near])


@pytest.mark.parametrize('name, order', [('linf', np.inf), ('l2', 2), ('l1', 1)])
def test_least_perturbation_at_the_border(name, order):
  """Images at 0 and 1: the shortest move in the box is longer than the formula says, and found."""
  x, y = batch(low=-0.5, high=1.5)
  x = jnp.clip(x, 0, 1)
  y = jnp.argmax(linear(x), axis=1).astype(jnp.int32)
  gap, slope = gaps_and_slopes(x, y)
  least = np.full((6, CLASSES), np.inf)
  move = jax.jit(_hyperplane.MOVES[name])
  for i, k in np.argwhere(np.isfinite(gap)):
    w = np.float64(slope[i, k])
    step = np.float64(move(x[i].ravel(), slope[i, k], gap[i, k]))
    if w @ step >= gap[i, k] * (1 - 1e-4):  # Else the box holds no point of that class.
      least[i, k] = np.linalg.norm(step, order)
  least = least.min(axis=1)
  found = search(WIDE[name].eps, x, y, name)
  far = lengths(name, x, found)
  assert (np.isfinite(least) & (jnp.argmax(linear(found), axis=1) != y)).all()
  assert (far >= least * (1 - 1e-3)).all() and (far <= 1.02 * least).all()


def test_curved_boundary():
  """A disc of radius 0.3, from inside: the least L2 distance is 0.3 - |x - centre|."""

  def disc(x):
    far = jnp.sqrt(((x - 0.5) ** 2).sum(1))
    return jnp.stack([jnp.exp(-9 * far) - np.exp(-2.7), jnp.zeros(len(x))], axis=1)

  x = jnp.array([[0.6, 0.5], [0.5, 0.35], [0.55, 0.58]])
  found = search(np.inf, x, jnp.zeros(3, jnp.int32), model_fn=disc, options=(('num_steps', 30),))
  least = 0.3 - np.linalg.norm(x - 0.5, axis=1)
  far = lengths('l2', x, found)
  assert (far >= least * (1 - 1e-5)).all() and (far <= 1.02 * least).all()


def test_one_target_is_the_runner_up_and_all_targets_are_all_classes():
  x, y = batch()
  gap, slope = gaps_and_slopes(x, y)
  least = gap / np.maximum(np.linalg.norm(slope, axis=2), 1e-9)
  one, nine = (search(np.inf, x, y, options=(('targets', k),)) for k in (1, 9))
  rows, runner_up = np.arange(6), np.argmin(gap, axis=1)
  assert (np.argmin(least, axis=1) != runner_up).any()
  np.testing.assert_allclose(lengths('l2', x, one), least[rows, runner_up], rtol=0.01)
  np.testing.assert_allclose(lengths('l2', x, nine), least.min(axis=1), rtol=0.01)


def test_restarts_start_around_the_image_and_only_help():
  """One run starts at x; others at half the least distance found, none of them farther from x."""
  wavy = lambda x: jnp.sin(3 * linear(x)) @ V
  x, y = batch(wavy, 0.2, 0.8)
  one, three = (
    search(np.inf, x, y, model_fn=wavy, options=(('num_restarts', n), ('num_steps', 6)))
    for n in (1, 3)
  )
  before, after = lengths('l2', x, one), lengths('l2', x, three)
  assert (before > 0).all() and (after > 0).all()
  assert (after <= before * (1 + 1e-4)).all() and (after < 0.9 * before).any()
  around = lambda key: [_around(threat, key, x[0], jnp.float32(0.1)) for threat in WIDE.values()]
  starts = jax.jit(jax.vmap(around))(jax.random.split(jax.random.key(0), 20))
  for order, points in zip((np.inf, 2, 1), map(np.asarray, starts), strict=True):
    far = np.linalg.norm((points - np.asarray(x[0])).reshape(20, -1), order, axis=1)
    np.testing.assert_allclose(far, 0.1, rtol=1e-4)
    assert len(np.unique(points, axis=0)) == 20


def test_what_it_cannot_use_leaves_the_image():
  """A misclassified image, a flat model, NaN."""
  x, y = batch()
  assert np.array_equal(search(1.0, x, (y + 1) % CLASSES), x)
  scaled = jax.jit(
    lambda scale: fab(threats.l2(0.5), num_steps=2)(
      jax.random.key(0), lambda x: linear(x) * scale, x, y
    )
  )
  for scale in (0.0, jnp.nan):
    assert np.array_equal(scaled(scale), x)


@pytest.mark.parametrize(
  'threat, options, message',
  [
    (threats.l0(3), {}, "`threat` must be one of linf, l2, l1, got 'l0'"),
    (threats.l2(0.1), {'num_steps': -1}, 'got num_steps=-1, num_restarts=1'),
    (threats.l2(0.1), {'num_restarts': 0}, '`num_restarts` at least 1'),
    (threats.l2(0.1), {'targets': 0}, '`targets` must be at least 1, or None'),
    (threats.l2(0.1), {'alpha_max': 1.5}, r'`alpha_max` must be in \[0, 1\]'),
    (threats.l2(0.1), {'eta': 0.9}, '`eta` at least 1'),
    (threats.l2(0.1), {'beta': 1}, r'`beta` in \(0, 1\), got'),
  ],
)
def test_bad_arguments(threat, options, message):
  with pytest.raises(ValueError, match=message):
    fab(threat, **options)
