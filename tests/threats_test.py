"""Threat sets: the public check on each, exact projections against a solver, bad budgets."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import testing, threats

THREATS = {'linf': threats.linf, 'l2': threats.l2, 'l1': threats.l1}
X = np.random.default_rng(0).uniform(0, 1, (4, 4, 3)).astype(np.float32)


@pytest.mark.parametrize('name', THREATS)
@pytest.mark.parametrize('eps', [1e-3, 0.1, 0.9])
def test_properties(name, eps):
  testing.check_threat(THREATS[name], eps, X)


@pytest.mark.parametrize('make', [threats.l0, threats.patch])
@pytest.mark.parametrize('budget', [1, 3])
def test_properties_in_whole_pixels(make, budget):
  testing.check_threat(make, budget, X, num_keys=3)


@pytest.mark.parametrize('name', THREATS)
def test_zero_change_and_zero_gradient_are_safe(name):
  threat = THREATS[name](0.1)
  assert np.array_equal(threat.project(X, X), X)
  assert np.isfinite(threat.steepest(jnp.zeros_like(X))).all()
  for value in (0.0, 1e-30, 1e30):  # The norm neither over- nor underflows.
    assert np.isfinite(threat.steepest(jnp.full((3,), value))).all()
  gradient = jax.grad(lambda x: threat.distance(X, x))(jnp.asarray(X))
  assert np.isfinite(gradient).all()


def test_l2_projection_is_the_nearest_point_of_the_ball():
  """Away from the box: x + eps delta / |delta|."""
  x, delta = jnp.full((5,), 0.5), jnp.array([0.3, -0.1, 0.2, 0.0, 0.25])
  moved = threats.l2(0.1).project(x, x + delta)
  np.testing.assert_allclose(moved - x, 0.1 * delta / jnp.linalg.norm(delta), atol=1e-7)


def test_l1_projection_reference_values():
  """Alone, and where the box takes part; the threshold is 4/15 (in tenths) and 0.15."""
  v = jnp.array([0.9, -0.6, 0.3, -0.05, 0.2])
  x = jnp.full((5,), 0.5)
  moved = threats.l1(0.1).project(x, x + v / 10) - x
  np.testing.assert_allclose(moved, [0.06333333, -0.03333333, 0.00333333, 0, 0], atol=1e-7)
  x = jnp.array([0.8, 0.3, 0.5, 0.02, 0.95])
  moved = threats.l1(0.7).project(x, x + v) - x
  np.testing.assert_allclose(moved, [0.2, -0.3, 0.15, 0, 0.05], atol=1e-6)


def test_l1_projection_is_the_nearest_point_of_ball_and_box():
  """A solution d of the convex problem meets its optimality conditions with one threshold theta:
  theta is 0 or the budget is used up, and each value stops at a side of the box, stays, or is theta short.
  """
  project = jax.jit(jax.vmap(lambda eps, x, v: threats.l1(eps).project(x, v), (None, 0, 0)))
  x, v = cases((2, 3, 2))
  for eps in (0.01, 0.3, 2.0, 100.0):
    d = np.float64(project(eps, x, v)) - x
    for x_1, v_1, d_1 in zip(np.float64(x), np.float64(v) - x, d, strict=True):
      size, length, used = np.abs(v_1), np.abs(d_1), np.abs(d_1).sum()
      room = np.where(v_1 > 0, 1 - x_1, x_1)
      assert used <= eps * (1 + 1e-5) and (d_1 * v_1 >= 0).all() and (length <= room + 1e-6).all()
      low = np.max((size - length)[length < room - 1e-6], initial=0)  # theta is no less than this,
      high = np.min((size - length)[length > 1e-6], initial=np.inf)  # and no more than this.
      assert low <= high + 2e-6
      assert abs(used - eps) <= 1e-5 * eps + 1e-6 or low <= 2e-6


def test_l1_projection_of_a_large_image():
  """Sums of 10^5 values keep the budget, and use it up."""
  rng = np.random.default_rng(3)
  x, v = (rng.uniform(low, 1, 10**5).astype(np.float32) for low in (0, -1))
  used = np.abs(np.float64(threats.l1(12.0).project(x, x + v)) - x).sum()
  assert abs(used - 12) <= 12e-5


def cases(shape, number=40):
  """Images, and points off them: inside the box, far outside it, and some values left alone."""
  rng = np.random.default_rng(2)
  x = rng.uniform(0, 1, (number, *shape)).astype(np.float32)
  x = np.where(rng.uniform(size=x.shape) < 0.2, np.round(x), x)
  size = rng.choice(np.float32([0.3, 3]), (number, 1, 1, 1))
  delta = size * rng.normal(size=x.shape).astype(np.float32)
  return x, x + np.where(rng.uniform(size=x.shape) < 0.3, np.float32(0), delta)


def supports(make, shape, budget):
  """bool[S, H, W, 1], all sets of pixels that may change."""
  height, width = shape[:2]
  seen = []
  if make is threats.l0:
    for chosen in itertools.combinations(range(height * width), budget):
      seen.append(np.isin(np.arange(height * width), chosen).reshape(height, width))
  else:
    for i, j in itertools.product(range(height - budget + 1), range(width - budget + 1)):
      seen.append(np.zeros((height, width), bool))
      seen[-1][i : i + budget, j : j + budget] = True
  return np.stack(seen)[..., None]


@pytest.mark.parametrize(
  'make, shape', [(threats.l0, (2, 3, 2)), (threats.patch, (3, 4, 2))], ids=['l0', 'patch']
)
def test_projection_is_the_nearest_of_all_sets_of_pixels(make, shape):
  """Every support is tried, with the clipped values inside; the budget is traced."""
  x, v = cases(shape)
  project = jax.jit(jax.vmap(lambda k, x, v: make(k).project(x, v), (None, 0, 0)))
  for budget in range(4):
    moved = np.asarray(project(budget, x, v), np.float64)
    allowed = supports(make, shape, budget)[:, None]
    far = np.where(allowed, np.clip(np.float64(v), 0, 1), np.float64(x)) - v
    least = (far**2).sum(axis=(2, 3, 4)).min(axis=0)
    np.testing.assert_allclose(((moved - v) ** 2).sum(axis=(1, 2, 3)), least, rtol=1e-5, atol=1e-6)
    assert all(
      (allowed[:, 0] | (a == b)).all(axis=(1, 2, 3)).any() for a, b in zip(moved, x, strict=True)
    )
    assert moved.min() >= 0 and moved.max() <= 1


def smallest_square(changed):
  fits = lambda side: (supports(threats.patch, (3, 3), side) | ~changed).all(axis=(1, 2, 3)).any()
  return next(side for side in range(4) if fits(side))


def test_distances_in_whole_pixels():
  """Every set of at most 4 of 9 pixels, against the smallest square by trying all of them."""
  rows = []
  for number in range(5):
    for chosen in itertools.combinations(range(9), number):
      changed = np.isin(np.arange(9), chosen).reshape(3, 3, 1)
      x, x_adv = jnp.zeros((3, 3, 2)), jnp.asarray(changed * np.float32([0, 0.5]))
      rows.append((x, x_adv, number, smallest_square(changed)))
  x, x_adv, number, side = (np.stack(each) for each in zip(*rows, strict=True))
  assert np.array_equal(jax.vmap(threats.l0(1).distance)(x, x_adv), number)
  assert np.array_equal(jax.vmap(threats.patch(1).distance)(x, x_adv), side)


def test_a_change_that_fits_a_square_is_not_rounded_away():
  """Beside a change of 1 the energy of one of 1e-5 is lost in float32; the square holds both."""
  x = jnp.full((5, 5, 1), 0.5)
  x_adv = x.at[1:3, 1:3].set(1.0).at[3, 3].set(0.5 + 1e-5)
  assert np.array_equal(threats.patch(3).project(x, x_adv), x_adv)
  wide = x_adv.at[1, 4].set(0.6)  # Now nothing fits.
  moved = threats.patch(3).project(x, wide)
  assert float(threats.patch(3).distance(x, moved)) <= 3 and float(moved[1, 1, 0]) == 1


def test_nan_pixels_stay():
  x = jnp.full((3, 3, 1), 0.5)
  x_adv = x.at[0, 0].set(jnp.nan).at[2, 2].set(1.0)
  for threat in (threats.l0(9), threats.patch(3)):
    assert np.array_equal(threat.project(x, x_adv), x.at[2, 2].set(1.0))


@pytest.mark.parametrize(
  'make, places', [(threats.l0, 36), (threats.patch, 6)], ids=['l0', 'patch']
)
def test_samples_take_every_place_evenly(make, places):
  """2,000 draws; a place off by 5 standard errors has probability below 1e-6: 4e-5 for all."""
  x = jnp.zeros((3, 4, 1) if places == 6 else (3, 3, 1))
  sample = jax.jit(jax.vmap(make(2).sample, (0, None)))
  drawn = np.asarray(sample(jax.random.split(jax.random.key(0), 2000), x)) > 0
  found, counts = np.unique(drawn.reshape(2000, -1), axis=0, return_counts=True)
  assert len(found) == places and set(found.sum(axis=1)) == {2 if places == 36 else 4}
  mean = 2000 / places
  assert (np.abs(counts - mean) < 5 * np.sqrt(mean)).all()


def test_samples_fill_the_ball():
  """Mean radius of the uniform law in a d-ball is d / (d + 1); 2,000 draws, 5 errors: 6e-7."""
  threat, x = threats.l2(0.1), jnp.full((5,), 0.5)
  points = jax.vmap(threat.sample, (0, None))(jax.random.split(jax.random.key(0), 2000), x)
  radii = np.linalg.norm(np.asarray(points) - 0.5, axis=1) / 0.1
  spread = np.sqrt(5 / 7 - (5 / 6) ** 2)
  assert abs(radii.mean() - 5 / 6) < 5 * spread / np.sqrt(2000)


def test_samples_fill_the_l1_ball():
  """The share of eps that is used is Beta(5, 1); 2,000 draws, 5 standard errors: 6e-7. So is its sign."""
  x = jnp.full((5,), 0.5)
  keys = jax.random.split(jax.random.key(0), 2000)
  delta = np.asarray(jax.vmap(threats.l1(0.1).sample, (0, None))(keys, x)) - 0.5
  used, spread = np.abs(delta).sum(axis=1) / 0.1, np.sqrt(5 / 7 - (5 / 6) ** 2)
  assert abs(used.mean() - 5 / 6) < 5 * spread / np.sqrt(2000)
  assert abs((delta > 0).mean() - 0.5) < 2.5 / np.sqrt(10_000)


@pytest.mark.parametrize('make', THREATS.values())
@pytest.mark.parametrize('eps', [-0.1, np.nan])
def test_bad_eps(make, eps):
  with pytest.raises(ValueError, match='`eps` must be at least 0'):
    make(eps)


def test_grey_levels_are_named():
  with pytest.raises(ValueError, match=r'pixel units of \[0, 1\], got eps=8; .* write 8 / 255'):
    threats.linf(8)


@pytest.mark.parametrize('name', ['l0', 'patch'])
def test_bad_whole_budgets(name):
  make = getattr(threats, name)
  for budget in (-1, 0.5, np.nan, np.inf, '3'):
    with pytest.raises(
      ValueError, match='is a whole number of pixels, 0 or more, got .*write round'
    ):
      make(budget)
  for call in (
    lambda x: make(1).project(x, x),
    make(1).steepest,
    lambda x: make(1).sample(jax.random.key(0), x),
    lambda x: make(1).distance(x, x),
  ):
    with pytest.raises(ValueError, match=r'those of ONE image \[H, W, C\], got shape \(2, 3\)'):
      call(jnp.zeros((2, 3)))


def test_eps_may_be_traced():
  moved = jax.jit(lambda eps: threats.l2(eps).project(X, X + 1))(0.25)
  assert float(jnp.linalg.norm(moved - X)) <= 0.25 * (1 + 1e-6)


BROKEN = {
  'leaves the ball': lambda eps: threats.l2(eps)._replace(project=lambda x, x_adv: x_adv),
  'leaves the box': lambda eps: threats.l2(eps)._replace(sample=lambda key, x: x + eps),
  'moves at eps 0': lambda eps: threats.l2(eps)._replace(project=lambda x, x_adv: x + 1e-3),
  'not steepest': lambda eps: threats.l2(eps)._replace(
    steepest=lambda g: -threats.l2(1).steepest(g)
  ),
}
BROKEN_PIXELS = {
  'one pixel too many': lambda k: threats.l0(k + 1 if k else 0)._replace(
    eps=k, distance=threats.l0(k).distance
  ),
  'always the first pixel': lambda k: threats.l0(k)._replace(
    steepest=lambda g: jnp.zeros_like(g).at[0, 0].set(jnp.sign(g[0, 0]))
  ),
  'a direction of any size': lambda k: threats.l0(k)._replace(
    steepest=lambda g: 2 * threats.l0(k).steepest(g)
  ),
}


@pytest.mark.parametrize('fault', BROKEN)
def test_the_check_sees_faults(fault):
  with pytest.raises(AssertionError):
    testing.check_threat(BROKEN[fault], 0.1, jnp.ones((3, 3)))


@pytest.mark.parametrize('fault', BROKEN_PIXELS)
def test_the_check_sees_faults_in_whole_pixels(fault):
  with pytest.raises(AssertionError):
    testing.check_threat(BROKEN_PIXELS[fault], 1, X, num_keys=5)
