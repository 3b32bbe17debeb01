"""Gaussian smoothing: reference radii, rounding down in 50 digits, moments."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from certjax import certify, smoothing

N = 100_000


def test_reference_radii_of_p_a_and_p_b():
  radius = smoothing.gaussian(sigma=0.5).radius
  np.testing.assert_allclose(radius(0.8, [0.1, 0.2]), [0.530793200, 0.420810617], atol=1e-9)
  np.testing.assert_allclose(radius(0.8), 0.420810617, atol=1e-9)


@pytest.mark.parametrize(
  'sigma, num_samples, expected',
  [
    (0.25, 100, 0.375118756), (0.25, 1000, 0.615815654), (0.25, 10_000, 0.799644379),
    (0.25, N, 0.952864141), (0.25, 10**6, 1.086693425),
    (0.12, N, 0.457374788), (0.5, N, 1.905728282), (1.0, N, 3.811456563),
  ],
)  # fmt: skip
def test_largest_radius(sigma, num_samples, expected):
  ours = certify.largest_radius(smoothing.gaussian(sigma=sigma), num_samples, 0.001)
  assert ours == pytest.approx(expected, abs=1e-9)


def test_radii_of_counts():
  noise = smoothing.gaussian(sigma=0.5)
  counts = np.array([99_000, 90_000, 60_000, 50_490, 50_489])
  proof = certify.from_votes(
    noise, np.zeros(5, int), np.stack([counts, N - counts], 1), num_samples=N, alpha=0.001
  )
  np.testing.assert_allclose(
    proof.radius, [1.144999978, 0.632422345, 0.120472396, 0.000011216, 0], atol=1e-9
  )
  assert proof.label.tolist() == [0, 0, 0, 0, certify.ABSTAIN]


def test_smallest_counts_that_certify():
  noise = smoothing.gaussian(sigma=0.5)
  of_100 = np.arange(101)
  proof = certify.from_votes(
    noise, np.zeros(101, int), np.stack([of_100, 100 - of_100], 1), num_samples=100, alpha=0.001
  )
  assert of_100[proof.label == 0].min() == 66
  certify.check_num_samples(noise, 10, 0.001)
  with pytest.raises(ValueError, match=r'at least 10 are needed \(PREDICT: 11\)'):
    certify.check_num_samples(noise, 9, 0.001)


def test_published_radii():
  """(sigma, successes of 10^5, radius) read off published logs, 3 to 5 digits, rounded to nearest."""
  rows = [
    (0.12, 99_936, 0.373), (0.25, 95_126, 0.409), (0.25, 75_214, 0.167), (0.5, 67_422, 0.219),
    (0.12, 99_997, 0.43812), (0.12, N, 0.45737), (0.12, 85_281, 0.12402), (0.25, 78_498, 0.19384),
    (0.25, 99_998, 0.92241), (0.5, 90_164, 0.63708), (0.5, 99_674, 1.3322), (1.0, 74_532, 0.64656),
  ]  # fmt: skip
  for sigma, count, expected in rows:
    bound = certify.clopper_pearson(count, N, alpha=0.001)
    digits = len(f'{expected:.10g}'.split('.')[1])
    ours = float(smoothing.gaussian(sigma=sigma).radius(bound))
    assert ours == pytest.approx(expected, abs=0.51 * 10**-digits)


def test_radius_is_below_the_theorem_in_fifty_digits():
  """Phi at (radius / sigma) must stay below p_a: the closed ball is inside the open one."""
  rng = np.random.default_rng(0)
  p_a = np.r_[
    0.5 + 10.0 ** -np.arange(1, 16), 1 - 10.0 ** -np.arange(1, 16), rng.uniform(0.5, 1, 60)
  ]
  p_b = np.minimum(1 - p_a, rng.uniform(0, 0.5, len(p_a)))
  p_b = np.minimum(np.nextafter(p_b, 2), np.nextafter(p_a, 0))
  for sigma in (0.12, 1.0):
    noise = smoothing.gaussian(sigma=sigma)
    for a, b, one, two in zip(p_a, p_b, noise.radius(p_a), noise.radius(p_a, p_b), strict=True):
      with mpmath.workdps(50):
        top, rival = (mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1) for p in (a, b))
        truths = sigma * top, mpmath.mpf(sigma) / 2 * (top - rival)
        for ours, truth in zip((one, two), truths, strict=True):
          assert mpmath.mpf(ours) < truth or ours == 0
          assert truth - mpmath.mpf(ours) <= 1e-13 * (sigma * (abs(top) + abs(rival)))


def test_moments():
  """10^6 draws: a mean or variance off by 5 standard errors has probability below 1e-6."""
  noise = smoothing.gaussian(sigma=0.25)
  x = jnp.full((1000,), 0.5)
  keys = jax.random.split(jax.random.key(0), 1000)
  z = (np.asarray(jax.vmap(noise.sample, (0, None))(keys, x), np.float64) - 0.5) / 0.25
  assert abs(z.mean()) < 5e-3
  assert abs(z.var() - 1) < 5 * np.sqrt(2) * 1e-3
  assert abs((z**4).mean() - 3) < 5 * np.sqrt(96) * 1e-3


@pytest.mark.parametrize('sigma', [0, -0.25, np.nan, np.inf])
def test_bad_sigma(sigma):
  with pytest.raises(ValueError, match='`sigma` is a standard deviation in pixel values'):
    smoothing.gaussian(sigma=sigma)
