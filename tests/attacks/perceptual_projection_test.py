"""Back into the perceptual set: linear segments to the digit, always inside, row by row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax.attacks import _perceptual_projection as projections

RNG = np.random.default_rng(0)
W = RNG.normal(size=(8, 12)).astype(np.float32)
SIZE = 8


def curved(x):
  """A bounded, bent embedding of 8 pixels, with folds: saturated far out."""
  return jnp.concatenate([jnp.sin(x @ W), jnp.abs(x @ W[:, :3])], axis=1)


def pairs(size=SIZE):
  x, x_adv = np.random.default_rng(1).uniform(0, 1, (2, SIZE, 8)).astype(np.float32)
  x_adv[0] = x[0]  # Nothing to do.
  x_adv[1] = 0.999 * x[1] + 0.001 * x_adv[1]  # Inside already.
  x_adv[2:4] = 0.8 * x[2:4] + 0.2 * x_adv[2:4]  # A little outside of 0.5.
  return x[:size], x_adv[:size]


@functools.partial(jax.jit, static_argnames=('method', 'num_steps'))
def projected(x, x_adv, eps, method, num_steps=10):
  point = projections.PROJECTIONS[method](curved, x, curved(x), x_adv, eps, num_steps)
  return point, jnp.linalg.norm(curved(point) - curved(x), axis=1)


def test_bisection_ends_on_the_inner_side():
  """|x' - x| = 1: multiples of 2^-10. The last point measured for 0.7 is 0.7001953, outside."""
  x, x_adv = np.zeros((3, 1), np.float32), np.ones((3, 1), np.float32)
  run = jax.jit(lambda eps: projections.bisection(lambda x: x, x, x, x_adv, eps)[0, 0])
  found = [float(run(jnp.float32(eps))) for eps in (0.3, 0.7, 0.0, 1.0)]
  assert found == [307 / 1024, 716 / 1024, 0.0, 1.0]


def test_newton_is_exact_on_a_ball():
  """d is linear along its own gradient: one step, to 0.99 eps, in the direction of x' - x."""
  x = np.full((1, 2), 0.5, np.float32)
  x_adv = np.array([[0.8, 0.9]], np.float32)
  found = jax.jit(lambda x_adv: projections.newton(lambda x: x, x, x, x_adv, 0.25, 1))(x_adv)
  np.testing.assert_allclose(found - x, [[0.99 * 0.25 * 0.6, 0.99 * 0.25 * 0.8]], atol=1e-6)


@pytest.mark.parametrize('method', ['newton', 'bisection'])
def test_inside_and_near_the_boundary(method):
  x, x_adv = pairs()
  for eps in (0.5, 0.05):
    point, distance = projected(x, x_adv, eps, method)
    assert (distance <= eps + 1e-6).all() and (point >= 0).all() and (point <= 1).all()
    assert np.array_equal(point[:2], x_adv[:2])  # What is inside stays, bit for bit.
    assert (distance[2:] > 0.6 * eps).all()
  assert np.array_equal(projected(x, x_adv, 0.0, method)[0][2:], x[2:])


def test_rows_that_newton_fails_on_are_bisected_alone():
  """One step is too few for some rows; the others end where Newton left them."""
  x, x_adv = pairs()
  many, few = (projected(x, x_adv, 0.5, 'newton', steps) for steps in (10, 1))
  same = [np.array_equal(a, b) for a, b in zip(many[0], few[0], strict=True)]
  assert 2 < sum(same) < SIZE
  assert (few[1] <= 0.5 + 1e-6).all()


def test_rows_do_not_depend_on_the_batch():
  x, x_adv = pairs()
  whole = projected(x, x_adv, 0.5, 'newton', 1)[0]
  alone = [projected(x[i : i + 1], x_adv[i : i + 1], 0.5, 'newton', 1)[0][0] for i in range(SIZE)]
  np.testing.assert_allclose(whole, alone, atol=1e-5)


@pytest.mark.parametrize('method', ['newton', 'bisection'])
def test_nan_gives_the_image(method):
  x, x_adv = pairs()
  x_adv[3] = np.nan
  point, _ = projected(x, x_adv, 0.5, method)
  assert np.array_equal(point[3], x[3]) and np.isfinite(point).all()
