"""Grid noise: exact thresholds, every boundary, the law by chi-square, the reach, float normals."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import special, stats

from certjax import smoothing, testing
from certjax.smoothing import _grid

SHAPE = (8, 8, 3)
KEY = jax.random.key(5)


def words(values):
  """Sign 0 and a magnitude below 2^63, as two uint32 words."""
  values = np.asarray(values, np.uint64)
  return (values >> np.uint64(32)).astype(np.uint32), values.astype(np.uint32)


def grid_image(shape=SHAPE, seed=0):
  levels = np.random.default_rng(seed).integers(0, 256, shape)
  return (levels.astype(np.float32) / np.float32(255)), levels


@pytest.mark.parametrize('sigma', [0.0007, 0.12, 0.25, 1.0])
def test_thresholds_are_the_nearest_integers(sigma):
  values = _grid.thresholds(sigma)
  assert list(values) == sorted(values, reverse=True) and values[-1] > 0
  with mpmath.workdps(50):
    for i in {*range(0, len(values), 37), len(values) - 1}:
      exact = 2**63 * mpmath.erfc((2 * i + 1) / (510 * mpmath.mpf(sigma)) / mpmath.sqrt(2))
      assert abs(values[i] - exact) <= 0.5 + 1e-9
  beyond = (2 * len(values) + 1) / (510 * sigma)
  clipped = len(values) == 255 * (_grid.reach(sigma) + 1)
  assert clipped or special.erfc(beyond / np.sqrt(2)) * 2**63 <= 0.5 * (1 + 1e-9)


@pytest.mark.parametrize('sigma', [0.004, 0.25, 1.0, 2.0])
def test_one_comparison_decides_every_boundary(sigma):
  """|n| = #{i: u < U_i} at each threshold, one below it, and at random magnitudes."""
  values = np.array(_grid.thresholds(sigma), np.uint64)
  rng = np.random.default_rng(0)
  random = rng.integers(0, 2**63, 4000, dtype=np.uint64) >> rng.integers(0, 63, 4000).astype(
    np.uint64
  )
  tried = np.unique(np.r_[values, values - np.uint64(1), random, np.arange(600, dtype=np.uint64)])
  expected = len(values) - np.searchsorted(values[::-1], tried, side='right')
  high, low = words(tried)
  table = _grid.table(sigma)
  np.testing.assert_array_equal(_grid.noise(table, high, low), expected)
  np.testing.assert_array_equal(_grid.noise(table, high | np.uint32(2**31), low), -expected)


@pytest.mark.parametrize('sigma', [0.004, 0.03])
def test_chi_square_against_the_exact_bin_masses(sigma):
  """768,000 pixels; a correct sampler fails with probability 1e-6."""
  x = jnp.full((16, 16, 3), 128 / 255)
  noise = smoothing.gaussian(sigma=sigma, sampler='grid', shape=x.shape)
  draws = jax.jit(jax.vmap(noise.sample, (0, None)))(jax.random.split(KEY, 1000), x)
  n = np.rint(np.asarray(draws, np.float64) * 255).astype(int).ravel() - 128
  edge = int(4 * 255 * sigma)  # Bins -edge..edge, the two outer ones open.
  cuts = (2 * np.arange(-edge, edge) + 1) / (510 * sigma)
  mass = np.diff(np.r_[0, special.ndtr(cuts), 1])
  counts = np.bincount(np.clip(n, -edge, edge) + edge, minlength=2 * edge + 1)
  assert (mass * n.size > 5).all()
  assert stats.chisquare(counts, mass * n.size).pvalue > 1e-6


def test_draws_reach_beyond_six_standard_deviations():
  """One grey level is 6.03 sigma, drawn with probability 2 Phi(-3.017) = .00256 a pixel: of
  307,200 pixels 785 are expected; within 200 fails with probability below 1e-11."""
  sigma = 0.00065
  x = jnp.full((32, 32, 3), 0.0)
  noise = smoothing.gaussian(sigma=sigma, sampler='grid', shape=x.shape)
  draws = np.asarray(jax.vmap(noise.sample, (0, None))(jax.random.split(KEY, 100), x))
  beyond = np.abs(draws) > 6 * sigma
  assert abs(beyond.sum() - 307_200 * 2 * special.ndtr(-1 / (510 * sigma))) < 200
  assert (draws > 6 * sigma).any() and (draws < -6 * sigma).any()


@pytest.mark.parametrize('sigma', [0.12, 0.25, 0.5, 1.0])
def test_the_smallest_magnitude_lies_beyond_six_standard_deviations(sigma):
  top = int(_grid.noise(_grid.table(sigma), jnp.uint32(0), jnp.uint32(0)))
  assert top / 255 > 6 * sigma and _grid.reach(sigma) >= 6 * sigma
  assert top == len(_grid.thresholds(sigma))


def test_float32_normals_never_leave_their_range():
  """`jax.random.normal` is sqrt(2) erf_inv(u), u uniform on a float32 grid of (-1, 1)."""
  lowest = np.nextafter(np.float32(-1), np.float32(0))
  u = jax.random.uniform(KEY, (10_000,), minval=lowest, maxval=1.0)
  formula = lambda u: np.float32(np.sqrt(2)) * jax.lax.erf_inv(u)
  np.testing.assert_allclose(formula(u), jax.random.normal(KEY, (10_000,)), rtol=1e-6)
  largest = jnp.float32(1 - 2**-23) * 2 + lowest  # The largest draw of [0, 1), stretched.
  assert -5.43 < float(formula(jnp.float32(lowest))) < -5.41
  assert 5.2 < float(formula(largest)) < 5.3
  draws = np.asarray(jax.jit(lambda: jax.random.normal(jax.random.key(1), (2_000_000,)))())
  assert -5.43 < draws.min() and draws.max() < 5.3


@pytest.mark.parametrize('sigma', [0.12, 1.0])
def test_samples_stay_on_the_grid_and_within_the_clip(sigma):
  x, levels = grid_image()
  noise = smoothing.gaussian(sigma=sigma, sampler='grid', shape=SHAPE)
  k = _grid.reach(sigma)
  grid = np.arange(-255 * k, 255 * (k + 1) + 1).astype(np.float32) / np.float32(255)
  keys = jax.random.split(KEY, 20)
  plain = np.stack([np.asarray(noise.sample(key, x)) for key in keys])
  jitted = np.asarray(jax.jit(jax.vmap(noise.sample, (0, None)))(keys, x))
  np.testing.assert_array_equal(plain, jitted)
  assert np.isin(plain, grid).all()
  moved = np.rint(255 * plain.astype(np.float64)).astype(int) - levels
  assert moved.std() == pytest.approx(255 * sigma, rel=0.05)  # 3840 pixels: 4 standard errors.


def test_clip():
  """A guide that answers 'all thresholds' makes every draw an extreme one."""
  draw = smoothing.gaussian(sigma=1.0, sampler='grid', shape=SHAPE).sample
  table, *rest = draw.args
  table = table._replace(guide=np.full_like(table.guide, 5000))
  pixels = np.asarray(draw.func(table, *rest, KEY, jnp.ones((64,))))
  assert set(np.unique(pixels)) == {-6.0, 7.0}


def test_protocol_and_one_program_for_many_sigmas():
  x, _ = grid_image((6, 5, 3))
  traces = []

  @jax.jit
  def draw(sample, key, x):
    traces.append(1)
    return sample(key, x)

  for sigma in (0.12, 0.25, 0.5, 1.0):
    noise = smoothing.gaussian(sigma=sigma, sampler='grid', shape=x.shape)
    draw(noise.sample, KEY, x)
  assert len(traces) == 1
  testing.check_smoothing(noise, x)


@pytest.mark.parametrize('sigma', [0.25, 1.0])
def test_the_radius_pays_for_the_bits(sigma):
  """Phi^-1 at p_a - variation, in 50 digits; the loss stays below 1e-8 up to ImageNet's size."""
  p_a = np.array([0.6, 0.9, 0.999, 0.99993])
  for shape in ((32, 32, 3), (224, 224, 3)):
    ours = smoothing.gaussian(sigma=sigma, sampler='grid', shape=shape).radius(p_a)
    free = smoothing.gaussian(sigma=sigma).radius(p_a)
    variation = np.prod(shape) * len(_grid.thresholds(sigma)) * mpmath.mpf(2) ** -64
    assert variation < np.prod(shape) * 2.0**-50
    with mpmath.workdps(50):
      truth = [
        sigma * mpmath.sqrt(2) * mpmath.erfinv(2 * (mpmath.mpf(p) - variation) - 1) for p in p_a
      ]
    assert all(ours < truth) and (ours < free).all() and (ours > free * (1 - 1e-7)).all()
    rival = smoothing.gaussian(sigma=sigma, sampler='grid', shape=shape).radius(p_a, 1 - p_a)
    assert (rival <= ours * (1 + 1e-12)).all() and (rival > 0).all()


def test_bad_arguments():
  with pytest.raises(ValueError, match=r'pass `shape=\(H, W, C\)`'):
    smoothing.gaussian(sigma=0.25, sampler='grid')
  with pytest.raises(ValueError, match='sigma up to 10'):
    smoothing.gaussian(sigma=11, sampler='grid', shape=SHAPE)
  with pytest.raises(ValueError, match='`sampler` must be one of'):
    smoothing.gaussian(sigma=1, sampler='exact')
