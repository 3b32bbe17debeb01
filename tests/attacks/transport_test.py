"""Plans over a stencil against loops, the exact distance against Beckmann and permutations, repairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from certjax import attacks
from certjax.attacks import _transport
from certjax.attacks._transport import change, feasible, stencil
from certjax.smoothing._wasserstein import divergence

SHAPE = (3, 4, 2)


def shares(seed, shape):
  x = np.random.default_rng(seed).random(shape)
  return x / x.sum()


def test_costs_and_borders_of_the_stencil():
  places = stencil((2, 2, 1))
  np.testing.assert_allclose(places.cost[:5], [8**0.5, 5**0.5, 2, 5**0.5, 8**0.5], rtol=1e-15)
  assert stencil((2, 2, 1), p=2).cost[0] == 8 and stencil((2, 2, 1), ground='l1').cost[1] == 3
  assert places.cost[12] == 0 and places.index[12].tolist() == [0, 1, 2, 3]
  assert places.index[0].tolist() == [4] * 4  # Two up and two left of all four lies nothing.


def test_a_plan_moves_mass_as_loops_do():
  places, rng = stencil(SHAPE), np.random.default_rng(0)
  moves = rng.random((25, *SHAPE)).astype(np.float32) * (places.index < 24).reshape(25, *SHAPE)
  expected, cost = np.zeros(SHAPE), 0.0
  for down, right in itertools.product(range(-2, 3), repeat=2):
    for i, j in itertools.product(range(3), range(4)):
      if 0 <= i + down < 3 and 0 <= j + right < 4:
        mass = moves[5 * (down + 2) + right + 2, i, j]
        expected[i, j] -= mass
        expected[i + down, j + right] += mass
        cost += mass.sum() * (down**2 + right**2) ** 0.5
  flat = jnp.asarray(moves.reshape(25, -1))
  np.testing.assert_allclose(change(flat, places), expected.ravel(), atol=1e-5)
  np.testing.assert_allclose(places.cost_of(flat), cost, rtol=1e-5)


def test_distance_over_l1_is_the_cheapest_flow():
  rng = np.random.default_rng(1)
  x, z = (a.reshape(3, 3, 1) / a.sum() for a in (rng.random(9), rng.random(9)))
  edges = np.eye(12)
  columns = [np.ravel(divergence(e[:6].reshape(2, 3, 1), e[6:].reshape(3, 2, 1))) for e in edges]
  matrix = np.float64(np.stack(columns, axis=1))
  flow = optimize.linprog(np.ones(24), A_eq=np.hstack([matrix, -matrix]), b_eq=np.ravel(z - x))
  for ground, expected in (('l1', 0.4704266621), ('l2', 0.4195463528)):
    assert abs(attacks.wasserstein_distance(x, z, ground=ground) - expected) < 1e-9
  assert abs(flow.fun - 0.4704266621) < 1e-9


@pytest.mark.parametrize('p', [1, 2])
def test_distance_of_equal_masses_is_the_best_assignment(p):
  """Birkhoff: of n equal masses the cheapest plan is a permutation; channels add up."""
  rng, total, images = np.random.default_rng(2), 0.0, np.zeros((2, 4, 5, 2))
  for channel in range(2):
    here, there = (rng.choice(20, 5, replace=False) for _ in range(2))
    for image, at in zip(images, (here, there), strict=True):
      image[..., channel].flat[at] = 0.1
    points = [np.stack(np.unravel_index(at, (4, 5)), axis=1) for at in (here, there)]
    total += min(
      0.1 * sum(np.linalg.norm(points[0][i] - points[1][j]) ** p for i, j in enumerate(order))
      for order in itertools.permutations(range(5))
    )
  assert abs(attacks.wasserstein_distance(3 * images[0], 3 * images[1], p=p) - total) < 1e-8


def test_masses_far_below_rounding_do_not_contradict():
  x = np.zeros((1, 6, 1))
  x[0, :2, 0] = 0.5, 0.5
  x_adv = np.array([0.5, 0.25, 0.25, 1e-38, 3e-16, 1e-38]).reshape(1, 6, 1)
  assert abs(attacks.wasserstein_distance(x, x_adv) - 0.25) < 1e-9


def test_no_transport_between_different_masses():
  x = shares(3, SHAPE)
  other = x.copy()
  other[0, 0] += [0.01, -0.01]  # From channel to channel nothing may go.
  assert attacks.wasserstein_distance(x, other) == np.inf
  assert attacks.wasserstein_distance(x, x * (1 + 1e-7)) < 1e-6


def test_feasible_plans_hold_all_limits_and_keep_what_they_may():
  places, capacity = stencil(SHAPE, 3), 0.06
  x = jnp.asarray(np.minimum(shares(4, SHAPE), capacity).ravel(), jnp.float32)
  inside = places.index < x.size
  rng = np.random.default_rng(4)

  @jax.jit
  def checked(plan, eps, capacity):
    moves = feasible(plan, x, eps, capacity, places)
    return moves, places.cost_of(moves), x + change(moves, places)

  for scale in (1e-3, 1e-2, 1.0):
    plan = jnp.asarray(rng.random(inside.shape) * inside * scale, jnp.float32)
    for eps in (0.0, 0.02, 10.0):
      moves, cost, image = checked(plan, eps, capacity)
      assert float(moves.min()) >= 0 and (np.asarray(moves <= plan)).all()
      assert (np.asarray(moves.sum(0) <= x * (1 + 1e-5))).all()
      assert float(cost) <= eps
      assert float(image.max()) <= capacity + 1e-7
      assert np.asarray(moves).any() == (eps > 0)
  small = jnp.asarray(rng.random(inside.shape) * inside, jnp.float32).at[4].set(0) * 1e-4
  np.testing.assert_array_equal(checked(small, 1.0, 1.0)[0], small)


def test_a_chain_of_full_pixels_passes_mass_on():
  """Three full pixels in a row and an empty one: all may shift, but a swap of two may not."""
  places = stencil((1, 4, 1), 3)
  x = jnp.array([1.0, 1.0, 1.0, 0.0]) / 3
  shift = jnp.zeros((9, 4)).at[5, :3].set(0.25)
  kept = jax.jit(lambda moves: _transport.within_capacity(moves, x, 1 / 3, places))
  np.testing.assert_allclose(kept(shift), shift)
  swap = jnp.zeros((9, 4)).at[5, 0].set(0.25).at[3, 1].set(0.25)
  assert not np.asarray(kept(swap)).any()


@pytest.mark.parametrize(
  'make, match',
  [
    (lambda: stencil(SHAPE, 4), '`size` of the stencil must be odd'),
    (lambda: stencil(SHAPE, p=0), '`p` must be positive'),
    (lambda: stencil(SHAPE, ground='l3'), '`ground` must be one of l1, l2'),
    (lambda: attacks.wasserstein_distance(np.ones(SHAPE), np.ones((3, 4, 1))), 'got shapes'),
    (lambda: attacks.wasserstein_distance(np.ones(SHAPE), -np.ones(SHAPE)), 'no negative'),
    (lambda: attacks.wasserstein_distance(np.zeros(SHAPE), np.ones(SHAPE)), 'some mass'),
  ],
)
def test_bad_arguments(make, match):
  with pytest.raises(ValueError, match=match):
    make()
