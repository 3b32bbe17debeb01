"""Wright's omega against scipy, projected Sinkhorn and its support against exact optima."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special

from certjax import attacks, parallel
from certjax.attacks._sinkhorn import project, support, wright_omega
from certjax.attacks._transport import change, stencil

SQUARE = np.array([1, 2, 1, 2, 4, 2, 1, 2, 1]) / 16
AHEAD = SQUARE + np.array([0.05, 0, 0, 0, -0.1, 0, 0, 0, 0.05])


def test_omega():
  printed = wright_omega(jnp.array([0.0, 1.0, 10.0, 100.0, 1000.0]))
  np.testing.assert_allclose(printed, [0.5671432904, 1, 7.92942, 95.44149, 993.09917], rtol=1e-6)
  omega = jax.jit(wright_omega)
  z = np.r_[np.linspace(-60, 60, 997), np.geomspace(60, 1e30, 101), -80.0, 1.0, np.inf, -np.inf]
  # scipy is called on the rounded arguments, so that only omega's own rounding counts.
  single = np.float32(z)
  got, exact = np.asarray(omega(jnp.asarray(single))), special.wrightomega(np.float64(single))
  assert (np.isinf(got) == np.isinf(exact)).all()
  finite = np.isfinite(exact)
  np.testing.assert_allclose(got[finite], exact[finite], rtol=2e-6)
  above = finite & (single > -2)
  np.testing.assert_allclose(got[above], exact[above], rtol=4e-7)
  with parallel.x64():
    double = np.asarray(omega(jnp.asarray(z)))
    np.testing.assert_allclose(double[finite], special.wrightomega(z)[finite], rtol=1e-14)


def test_gradient_of_omega():
  with parallel.x64():
    check_grads(jax.jit(wright_omega), (jnp.array([-30.0, -1.0, 0.5, 2.0, 300.0]),), order=1)


@functools.cache
def projection(shape, size, p):
  """(x, y, eps, lam) -> (image, what leaves each pixel, cost of the plan) after many iterations."""
  places = stencil(shape, size, p=p)

  @jax.jit
  def run(x, y, eps, lam):
    plan = project(x, y, eps, places, regularization=lam, num_iterations=20_000, tolerance=1e-12)
    return x + change(plan, places), plan.sum(0), places.cost_of(plan)

  return run


def projected(shape, x, y, eps, lam, size, p=1):
  """(image, cost) in float64."""
  with parallel.x64():
    image, rows, cost = projection(shape, size, p)(np.float64(x), np.float64(y), eps, lam)
  np.testing.assert_allclose(rows, x, rtol=1e-12)
  return np.asarray(image), float(cost)


def test_two_pixels():
  image, cost = projected((1, 2, 1), [0.5, 0.5], [0.9, 0.1], 0.1, 10.0, 3)
  np.testing.assert_allclose(image, [0.599998, 0.400002], atol=6e-7)
  assert abs(cost - 0.1) < 1e-6
  # lam y = 900: the published step's e^{lam y} is infinite in float64.
  image, _ = projected((1, 2, 1), [0.5, 0.5], [0.9, 0.1], 0.1, 1000.0, 3)
  np.testing.assert_allclose(image, [0.6, 0.4], atol=1e-4)


def test_empty_pixels_receive():
  image, cost = projected((1, 3, 1), [1.0, 0, 0], [0.2, 0.3, 0.5], 0.5, 100.0, 5)
  np.testing.assert_allclose(image, [0.60065, 0.29870, 0.10065], atol=6e-6)
  assert abs(cost - 0.5) < 1e-5
  x, y = (np.reshape(v, (1, 3, 1)) for v in ([1.0, 0, 0], [0.2, 0.3, 0.5]))
  assert abs(attacks.wasserstein_distance(x, y) - 1.3) < 1e-8


def test_square_over_distance():
  """The exact projection has corners .080178, the centre .214645, objective .0031342."""
  image, cost = projected((3, 3, 1), SQUARE, AHEAD, 0.05, 1000.0, 3)
  assert abs(0.5 * np.sum((image - AHEAD) ** 2) - 0.0031399) < 6e-8
  exact = [0.080178, 0.080178, 0.214645]
  assert np.abs(image[[0, 8, 4]] - exact).max() < 4.8e-4
  distance = attacks.wasserstein_distance(SQUARE.reshape(3, 3, 1), image.reshape(3, 3, 1))
  assert abs(distance - 0.05) < 5e-6 and abs(cost - 0.05) < 1e-6
  image, _ = projected((3, 3, 1), SQUARE, AHEAD, 0.05, 100.0, 3)
  distance = attacks.wasserstein_distance(SQUARE.reshape(3, 3, 1), image.reshape(3, 3, 1))
  assert abs(distance - 0.0479) < 6e-5
  assert abs(np.abs(image[[0, 8, 4]] - exact).max() - 7.1e-3) < 6e-5


def test_square_over_squared_distance_and_inside_the_ball():
  image, _ = projected((3, 3, 1), SQUARE, AHEAD, 0.05, 1000.0, 3, p=2)
  np.testing.assert_allclose(image[:5], [0.0675, 0.1325, 0.0625, 0.1325, 0.21], atol=5e-4)
  assert abs(0.5 * np.sum((image - AHEAD) ** 2) - 0.0039375) < 6e-7
  image, _ = projected((3, 3, 1), SQUARE, AHEAD, 0.2, 1000.0, 3)
  assert np.abs(image - AHEAD).max() < 1.8e-3


@pytest.mark.parametrize('lam, first, second', [(100.0, 0.2875, 0.5875), (10.0, 0.28749, 0.58709)])
def test_support(lam, first, second):
  """The linear program's values are .2875 and .5875."""
  places = stencil((3, 3, 1), 3)
  with parallel.x64():
    x, slope = jnp.asarray(SQUARE), jnp.zeros(9, jnp.float64).at[0].set(1).at[8].set(2)
    for eps, expected in ((0.05, first), (0.2, second)):
      run = jax.jit(
        lambda eps: support(x, slope, eps, places, regularization=lam, num_iterations=60)
      )
      plan = run(eps)
      value = float(jnp.sum(slope * (x + change(plan, places))))
      assert abs(value - expected) < (1e-12 if lam == 100 else 6e-6)
      assert float(places.cost_of(plan)) <= eps * (1 + 1e-12)
    rough = support(x, slope, 0.2, places, regularization=lam, num_iterations=4)
    assert 0 < float(places.cost_of(rough)) <= 0.2  # The bisection ends on the safe side.
