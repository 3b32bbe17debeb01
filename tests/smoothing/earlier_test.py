"""PixelDP and the Renyi certificate: reference values, order, and the mathematics behind them."""

import mpmath
import numpy as np
import pytest
from scipy import special

from certjax import smoothing, testing

PAIRS = np.array([0.9, 0.99, 0.6]), np.array([0.1, 0.01, 0.1])


def test_reference_values():
  np.testing.assert_allclose(
    smoothing.renyi_radius(*PAIRS, sigma=1.0), [1.031930, 1.908009, 0.688731], atol=5.1e-7
  )
  # The reference tries delta on a grid of 0.001, so ours is a little larger.
  ours, grid = smoothing.pixeldp_radius(*PAIRS, sigma=1.0), [0.390266, 0.554603, 0.296299]
  assert (ours > grid).all()
  np.testing.assert_allclose(ours, grid, atol=3e-4)


def pixeldp_on_a_grid(p_a, p_b):
  """delta = .001, .002, ..., eps by its closed form from p_a = e^{2 eps} p_b + (1 + e^eps) delta."""
  delta = np.arange(1, 300) / 1000
  eps = np.log((-delta + np.sqrt(delta**2 + 4 * p_b * (p_a - delta))) / (2 * p_b))
  eps = np.minimum(eps[eps > 0], 1.0)
  return (eps / np.sqrt(2 * np.log(1.25 / delta[: len(eps)]))).max()


def test_pixeldp_contains_the_reference_grid():
  rng = np.random.default_rng(0)
  np.testing.assert_allclose(
    [pixeldp_on_a_grid(a, b) for a, b in zip(*PAIRS, strict=True)],
    [0.390266, 0.554603, 0.296299], atol=5.1e-7,
  )  # fmt: skip
  for p_a in rng.uniform(0.55, 0.999, 40):
    p_b = rng.uniform(0.001, 1 - p_a)
    assert float(smoothing.pixeldp_radius(p_a, p_b, sigma=1.0)) >= pixeldp_on_a_grid(p_a, p_b)


def test_order():
  """Cohen >= both; Li >= Lecuyer for p_a >= 0.1 (below, with a tiny p_b, it is not so)."""
  p_a, p_b = np.meshgrid(np.linspace(0.02, 0.999, 60), np.geomspace(1e-6, 0.5, 50))
  p_b = np.minimum(p_b, 1 - p_a)
  cohen = smoothing.gaussian(sigma=0.5).radius(p_a, p_b)
  renyi = smoothing.renyi_radius(p_a, p_b, sigma=0.5)
  pixeldp = smoothing.pixeldp_radius(p_a, p_b, sigma=0.5)
  assert (cohen >= renyi).all() and (cohen >= pixeldp).all()
  assert (renyi >= pixeldp)[p_a >= 0.1].all()
  far = p_a > p_b + 0.01
  assert (pixeldp[far] > 0).mean() > 0.9 and (cohen[far] > renyi[far]).mean() > 0.99


def test_the_gaussian_mechanism_is_private():
  """Exact delta of Gaussian noise at the shift of the classical calibration (Balle & Wang 2018)."""
  for eps in np.linspace(0.01, 1, 40):
    delta = np.geomspace(1e-8, 0.5, 60)
    shift = eps / np.sqrt(2 * np.log(1.25 / delta))
    exact = special.ndtr(shift / 2 - eps / shift) - np.exp(eps) * special.ndtr(
      -shift / 2 - eps / shift
    )
    assert (exact <= delta).all()


def test_renyi_against_fifty_digits():
  """Never above the supremum, and within 1e-9 of it."""
  for p_a, p_b in [(0.9, 0.1), (0.6, 0.1), (0.5001, 0.4999), (0.3, 0.01), (0.9999, 1e-5)]:

    def bound(order, p_a=p_a, p_b=p_b):
      t = 1 - mpmath.mpf(order)
      a, b = mpmath.mpf(p_a), mpmath.mpf(p_b)
      mean = ((a**t + b**t) / 2) ** (1 / t)
      return -2 / mpmath.mpf(order) * mpmath.log(1 - a - b + 2 * mean)

    with mpmath.workdps(50):
      # The largest value on a grid of orders, refined, or the limit at order 1.
      low, high = mpmath.mpf(0), mpmath.mpf(6)
      for _ in range(6):
        grid = [low + (high - low) * (i + mpmath.mpf(1) / 2) / 40 for i in range(40)]
        values = [bound(mpmath.exp(value)) for value in grid]
        best = values.index(max(values))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 39)]
      mean = mpmath.sqrt(mpmath.mpf(p_a) * p_b)
      limit = -2 * mpmath.log(1 - mpmath.mpf(p_a) - p_b + 2 * mean)
      truth = mpmath.sqrt(max([*values, limit]))
      ours = float(smoothing.renyi_radius(p_a, p_b, sigma=1.0))
      assert ours <= truth * (1 + mpmath.mpf('1e-11'))  # The grid is a little below the supremum.
      assert ours >= truth * (1 - mpmath.mpf('1e-9'))


def test_laplace_mechanism():
  """(lambda / 2) ln(p_a / p_b): Teng et al. 2020 never less, equal where p_b is far below 1/2."""
  p_a, p_b = np.array([0.9, 0.4, 0.6]), np.array([0.1, 0.01, 0.1])
  ours = smoothing.pixeldp_radius(p_a, p_b, sigma=np.sqrt(2), mechanism='laplace')
  np.testing.assert_allclose(ours, np.log(p_a / p_b) / 2, rtol=1e-11)
  assert float(ours[1]) == pytest.approx(1.844440, abs=5.1e-7)
  teng = np.maximum(np.log(p_a / p_b) / 2, -np.log(1 - p_a + p_b))
  assert (ours <= teng).all()


BOUNDS = {
  'gaussian': lambda a, b, sigma: smoothing.pixeldp_radius(a, b, sigma=sigma),
  'laplace': lambda a, b, sigma: smoothing.pixeldp_radius(a, b, sigma=sigma, mechanism='laplace'),
  'renyi': lambda a, b, sigma: smoothing.renyi_radius(a, b, sigma=sigma),
}


@pytest.mark.parametrize('name', BOUNDS)
def test_radius_properties(name):
  def radius(p_a, p_b=None, *, x=None):
    return BOUNDS[name](p_a, p_b, 0.5)

  testing.check_radius(radius)
  assert float(radius(0.9, 0.0)) > 0 and float(radius(1.0)) > 0
  np.testing.assert_allclose(BOUNDS[name](0.8, 0.1, 2.0), 4 * radius(0.8, 0.1), rtol=1e-11)
  tiny = 0.5 + 10.0 ** -np.arange(3, 15)
  r = radius(tiny)
  assert (r >= 0).all() and (np.diff(r) <= 0).all()


def test_errors():
  for bad in (0, -1, np.nan, np.inf):
    with pytest.raises(ValueError, match='`sigma` must be positive'):
      smoothing.renyi_radius(0.9, sigma=bad)
    with pytest.raises(ValueError, match='`sigma` must be positive'):
      smoothing.pixeldp_radius(0.9, sigma=bad)
  with pytest.raises(ValueError, match='`mechanism` must be one of gaussian, laplace'):
    smoothing.pixeldp_radius(0.9, sigma=1.0, mechanism='uniform')
