"""Shortest moves onto a hyperplane in the box: reference values, scipy's programs, borders, large images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from certjax.attacks import _hyperplane

SIZE = 6
ORDERS = {'linf': np.inf, 'l2': 2, 'l1': 1}
BATCHED = {name: jax.jit(jax.vmap(move)) for name, move in _hyperplane.MOVES.items()}


def cases(number=24):
  """Images in [0, 1], some values on its border; weights, some 0; and gaps that the box can close."""
  rng = np.random.default_rng(0)
  x = np.clip(rng.uniform(-0.2, 1.2, (number, SIZE)), 0, 1)
  w = rng.normal(size=(number, SIZE)) * (rng.uniform(size=(number, SIZE)) > 0.2)
  w[:, 0] += 0.5
  most, least = (np.sum(np.where(s * w > 0, w * (1 - x), -w * x), axis=1) for s in (1, -1))
  gap = np.where(np.arange(number) % 2, most, least) * rng.uniform(0.1, 0.95, number)
  return tuple(value.astype(np.float32) for value in (x, w, gap))


def test_reference_values():
  """x = (.1, .4, .5), <w, .> = -.5 with w = (2, -1, .5)."""
  x, w = np.float32([[0.1, 0.4, 0.5]]), np.float32([[2, -1, 0.5]])
  gap = -0.5 - np.sum(w * x, axis=1)
  expected = {
    'linf': (-0.1, 0.2333333, -0.2333333),
    'l2': (-0.1, 0.28, -0.14),
    'l1': (-0.1, 0.35, 0),
  }
  for name, move in expected.items():
    np.testing.assert_allclose(BATCHED[name](x, w, gap)[0], move, atol=1e-6)


def least_length(name, x, w, gap):
  """The length of the shortest move, by a program of scipy's."""
  bounds = list(zip(-x, 1 - x, strict=True))
  if name == 'linf':  # min t, |d_i| <= t
    eye, one = np.eye(SIZE), np.ones((SIZE, 1))
    upper = np.block([[eye, -one], [-eye, -one]])
    program = {'A_ub': upper, 'b_ub': np.zeros(2 * SIZE), 'A_eq': [[*w, 0]], 'b_eq': [gap]}
    return optimize.linprog([0] * SIZE + [1], bounds=[*bounds, (0, 1)], **program).fun
  if name == 'l1':  # d = up - down
    program = {'A_eq': [[*w, *-w]], 'b_eq': [gap]}
    sides = [(0, high) for _, high in bounds] + [(0, -low) for low, _ in bounds]
    return optimize.linprog([1] * 2 * SIZE, bounds=sides, **program).fun
  plane = {'type': 'eq', 'fun': lambda d: w @ d - gap, 'jac': lambda d: w}
  start = np.clip(w * gap / (w @ w), -x, 1 - x)
  options = {'jac': lambda d: 2 * d, 'bounds': bounds, 'constraints': [plane], 'tol': 1e-12}
  return np.sqrt(optimize.minimize(lambda d: d @ d, start, **options).fun)


@pytest.mark.parametrize('name', ORDERS)
def test_no_move_is_shorter(name):
  x, w, gap = cases()
  moves = np.float64(BATCHED[name](x, w, gap))
  assert (x + moves >= -1e-7).all() and (x + moves <= 1 + 1e-6).all()
  assert (moves[w == 0] == 0).all()
  np.testing.assert_allclose(np.sum(w * moves, axis=1), gap, rtol=1e-5, atol=1e-6)
  lengths = np.linalg.norm(moves, ORDERS[name], axis=1)
  least = [least_length(name, *map(np.float64, row)) for row in zip(x, w, gap, strict=True)]
  np.testing.assert_allclose(lengths, least, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('name', ORDERS)
def test_ends_of_the_reach(name):
  """A gap of 0 moves nothing; one beyond the box goes to its corner, as far as w says."""
  x, w, _ = cases()
  assert (np.asarray(BATCHED[name](x, w, np.zeros(len(x), np.float32))) == 0).all()
  for sign in (1, -1):
    moves = BATCHED[name](x, w, np.full(len(x), 99 * sign, np.float32))
    corner = np.where(sign * w > 0, 1 - x, np.where(sign * w < 0, -x, 0))
    np.testing.assert_allclose(moves, corner, atol=1e-7)


@pytest.mark.parametrize('name', ORDERS)
def test_a_large_image_keeps_its_digits(name):
  """3,072 values, one weight 10^4 times the others: sums in float32 stay good to 10^-5 of the gap."""
  rng = np.random.default_rng(1)
  x, w = rng.uniform(size=(2, 4, 3072)).astype(np.float32) * np.float32([[[1]], [[1e-2]]])
  w[:, 7] = 100
  x[:, 7] = 0.999
  gap = np.float32([0.05, 0.2, 1.0, 5.0])
  moves = np.float64(BATCHED[name](x, w, gap))
  np.testing.assert_allclose(np.sum(w * moves, axis=1), gap, rtol=1e-5)


def test_values_that_cannot_help_stay_and_equals_go_in_order():
  x, w = jnp.array([0.5, 0.5, 1.0, 0.5]), jnp.array([1.0, -1.0, 1.0, 0.0])
  assert _hyperplane.l1(x, w, 0.75).tolist() == [0.5, -0.25, 0, 0]
  assert _hyperplane.l2(x, w, 0.5).tolist() == [0.25, -0.25, 0, 0]
  assert _hyperplane.linf(x, w, -0.75).tolist() == [-0.25, 0.25, -0.25, 0]
