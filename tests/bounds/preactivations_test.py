"""Boxes before the ReLUs: interval arithmetic in numpy, no sampled point outside, gradients."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from certjax import bounds, parallel


@pytest.fixture(autouse=True)
def _float64():
  with parallel.x64():
    yield


RNG = np.random.default_rng(0)
WEIGHTS = [RNG.normal(size=shape) for shape in ((4, 5), (5, 3), (3, 2))]


def model(weights, x, tap=None):
  for i, w in enumerate(weights):
    x = x @ w
    if i < len(weights) - 1:
      if tap is not None:
        tap.append(x)
      x = jax.nn.relu(x)
  return x


def by_hand(low, high):
  for w in WEIGHTS[:-1]:
    center, reach = (low + high) / 2 @ w, (high - low) / 2 @ np.abs(w)
    low, high = center - reach, center + reach
    yield low, high
    low, high = np.maximum(low, 0), np.maximum(high, 0)


def test_interval_arithmetic_of_numpy():
  x = RNG.uniform(size=(3, 4))
  region = bounds.ball(x, 0.1)
  found = jax.jit(lambda region: bounds.preactivations(lambda x: model(WEIGHTS, x), region))(region)
  expected = list(by_hand(np.clip(x - 0.1, 0, 1), np.clip(x + 0.1, 0, 1)))
  assert [lower.shape for lower, _ in found] == [(3, 5), (3, 3)]
  for box, known in zip(found, expected, strict=True):
    np.testing.assert_allclose(box, known, atol=1e-12)


@pytest.mark.parametrize('norm', ['l2', 'l1'])
def test_other_balls_are_exact_in_the_first_layer(norm):
  x = np.full((1, 4), 0.5)
  ((lower, upper), _) = jax.jit(
    lambda x: bounds.preactivations(lambda x: model(WEIGHTS, x), bounds.ball(x, 0.1, norm))
  )(x)
  reach = 0.1 * np.linalg.norm(WEIGHTS[0], 2 if norm == 'l2' else np.inf, axis=0)
  np.testing.assert_allclose([lower[0], upper[0]], x @ WEIGHTS[0] + [[-1], [1]] * reach, atol=1e-12)


def test_no_point_leaves_the_boxes():
  region = bounds.ball(np.full((1, 4), 0.6), 0.2)
  points = np.random.default_rng(1).uniform(0.4, 0.8, (20_000, 4))

  @jax.jit
  def both(region, points):
    tap = []
    model(WEIGHTS, points, tap)
    return bounds.preactivations(lambda x: model(WEIGHTS, x), region), tap

  for (lower, upper), values in zip(*both(region, points), strict=True):
    assert (values >= lower - 1e-12).all() and (values <= upper + 1e-12).all()


def test_it_counts_every_relu(small):
  """A maximum and an absolute value are one each; tanh is none."""
  for name, count in (('relu', 2), ('tanh', 0), ('conv', 2), ('max-pool', 2)):
    model_fn, shape = small.networks[name]
    region = bounds.ball(np.full((2, *shape), 0.5), 0.1)
    found = jax.eval_shape(lambda region, f=model_fn: bounds.preactivations(f, region), region)
    assert len(found) == count and all(lower.shape[0] == 2 for lower, _ in found)
  model_fn = lambda x: jnp.maximum(jnp.abs(x[:, :2]), x[:, 2:])
  region = bounds.ball(np.full((1, 4), 0.5), 0.1)
  assert len(jax.eval_shape(lambda region: bounds.preactivations(model_fn, region), region)) == 2


def test_gradients():
  x = RNG.uniform(0.2, 0.8, (2, 4))

  @jax.jit
  def width(weights):
    boxes = bounds.preactivations(lambda x: model(weights, x), bounds.ball(x, 0.1))
    return sum(jnp.sum(jnp.tanh(upper) - lower**2) for lower, upper in boxes)

  jax.test_util.check_grads(width, (WEIGHTS,), 1, modes=['rev'])
