"""DDN: protocol, the smallest perturbation of a linear model, a numpy version of every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats
from certjax.attacks import _ddn

SHAPE, CLASSES = (2, 2, 3), 3
W = np.random.default_rng(0).normal(size=(12, CLASSES)).astype(np.float32)


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


def batch(size=4):
  """Images off the border of [0, 1], and the labels that the model gives them."""
  x = np.random.default_rng(1).uniform(0.3, 0.7, (size, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(np.argmax(linear(x), axis=1).astype(np.int32))


def margins(x, y):
  return np.asarray(jax.vmap(attacks.margin)(linear(x), y))


@pytest.mark.parametrize('options', [{}, {'init_norm': 0.02, 'levels': 256}], ids=str)
def test_protocol(options):
  make = lambda threat: attacks.ddn(threat, num_steps=5, **options)
  testing.check_attack(make, threats.l2, linear, *batch(), score=attacks.margin)


def test_finds_the_smallest_perturbation_of_a_linear_model():
  """|l_1 - l_0| / |w_1 - w_0|; the length ends within a swing of gamma = 5% of it."""
  x = batch(20)[0]
  two = lambda x: linear(x)[:, :2]
  y = jnp.argmax(two(x), axis=1).astype(jnp.int32)
  logits, w = np.asarray(two(x), np.float64), np.float64(W)
  least = np.abs(logits[:, 1] - logits[:, 0]) / np.linalg.norm(w[:, 1] - w[:, 0])
  attack = attacks.ddn(threats.l2(np.inf), num_steps=150, init_norm=1.0)
  x_adv = attack(jax.random.key(0), two, x, y)
  length = np.linalg.norm(np.asarray(x_adv - x, np.float64).reshape(20, -1), axis=1)
  assert (jnp.argmax(two(x_adv), axis=1) != y).all()
  assert (length >= least * (1 - 1e-4)).all() and (length <= least * 1.06 + 1e-6).all()


def numpy_ddn(x, y, eps, num_steps, gamma=0.05):
  """One image, step by step; returns the nearest misclassified point or that of largest margin."""
  margin = lambda p: (lambda l: np.max(np.delete(l, y)) - l[y])(linear(p[None])[0].astype(float))
  limit = min(eps, np.linalg.norm(np.maximum(x, 1 - x)))
  point, radius, seen = x, limit, []
  for t in range(num_steps + 1):
    value, distance = margin(point), np.linalg.norm(point - x)
    seen.append((value > 0, -distance if value > 0 else value, point))
    p = np.exp(linear(point[None])[0].astype(float))
    p = p / p.sum() - np.eye(CLASSES)[y]
    gradient = (W @ p).reshape(x.shape)
    angle = np.pi * t / max(num_steps - 1, 1)
    delta = (
      point - x + (0.01 + 0.99 * (1 + np.cos(angle)) / 2) * gradient / np.linalg.norm(gradient)
    )
    radius = min(radius * (1 - gamma if value > 0 else 1 + gamma), limit)
    delta = delta * radius / np.linalg.norm(delta)
    point = np.clip(x + delta * min(1, eps / np.linalg.norm(delta)), 0, 1)
  return max(seen, key=lambda entry: entry[:2])[2]


@pytest.mark.parametrize('eps', [0.05, 0.3])
def test_every_step_is_that_of_numpy(eps):
  x, y = batch(6)
  x_adv = attacks.ddn(threats.l2(eps), num_steps=6)(jax.random.key(0), linear, x, y)
  expected = [numpy_ddn(*row, eps, 6) for row in zip(np.float64(x), np.asarray(y), strict=True)]
  np.testing.assert_allclose(x_adv, np.stack(expected), atol=2e-5)
  if eps == 0.05:  # Both outcomes of the search occur.
    assert 0 < (margins(x_adv, y) > 0).sum() < 6


def test_a_misclassified_image_stays():
  x, y = batch()
  wrong = (y + 1) % CLASSES
  assert np.array_equal(
    attacks.ddn(threats.l2(0.5), num_steps=4)(jax.random.key(0), linear, x, wrong), x
  )


def test_a_flat_start_is_left_in_a_random_direction():
  """The gradient at x is exactly 0; a little way off it is not, and the label changes there."""
  bump = lambda x: jnp.stack([jnp.full(len(x), 0.01), jnp.sum((x - 0.5) ** 2, axis=1)], axis=1)
  x, y = jnp.full((3, 5), 0.5), jnp.zeros(3, jnp.int32)
  x_adv = attacks.ddn(threats.l2(0.3), num_steps=4)(jax.random.key(0), bump, x, y)
  distance = np.linalg.norm(np.asarray(x_adv - x), axis=1)
  assert (distance > 0.1).all() and (distance <= 0.3 + 1e-6).all()
  assert np.abs(np.asarray(x_adv[0] - x_adv[1])).max() > 1e-2  # Each row has its own direction.


def test_nan_logits_leave_the_image():
  x, y = batch()
  attack = attacks.ddn(threats.l2(0.1), num_steps=3)
  assert np.array_equal(attack(jax.random.key(0), lambda x: linear(x) * jnp.nan, x, y), x)


def test_levels_round_inside_the_ball():
  x, y = batch()
  x = jnp.round(x * 255) / 255
  attack = attacks.ddn(threats.l2(np.inf), num_steps=30, init_norm=0.5, levels=256)
  x_adv = np.asarray(attack(jax.random.key(0), linear, x, y)) * 255
  assert (margins(x_adv / 255, y) > 0).all()
  np.testing.assert_allclose(x_adv, np.round(x_adv), atol=1e-3)


@pytest.mark.parametrize(
  'make, match',
  [
    (lambda: attacks.ddn(threats.linf(0.1), num_steps=3), '`threat` must be L2'),
    (lambda: attacks.ddn(threats.l2(0.1), num_steps=-1), '`num_steps` must be at least 0'),
    (lambda: attacks.ddn(threats.l2(0.1), num_steps=1, gamma=1.0), '`gamma` in'),
    (lambda: attacks.ddn(threats.l2(0.1), num_steps=1, levels=1), '`levels` must be at least 2'),
  ],
)
def test_bad_arguments(make, match):
  with pytest.raises(ValueError, match=match):
    make()


def test_a_point_of_nan_is_never_kept():
  """Its margin may look like a success, where the model hides the NaN; its distance does not."""
  x = jnp.zeros((2, 3))
  hides = lambda x: jnp.stack([jnp.where(jnp.isnan(x).any(1), 0.0, 1.0), jnp.full(len(x), 0.5)], 1)
  point = x.at[0, 1].set(jnp.nan)
  distance = jax.vmap(threats.l2(1.0).distance)(x, point)
  value = hides(point)[:, 1] - hides(point)[:, 0]
  best = _ddn._keep((x, jnp.full(2, -0.5), jnp.zeros(2)), (point, value, distance))
  assert value[0] > 0 and np.isnan(distance[0])
  np.testing.assert_array_equal(best[0], x)
