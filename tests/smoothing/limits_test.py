"""Limits in high dimension: published values, exact optima, and no certificate above a limit."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import optimize, special, stats

from certjax import certify, smoothing, testing

INF = math.inf
P_A = np.array([0.4, 0.55, 0.7, 0.9, 0.99, 0.9999])
P_B = np.array([0.3, 0.45, 0.1, 0.05, 0.01, 1e-5])


@pytest.mark.parametrize(
  'p, gaussian, iid',
  [
    (2, 0.581586969, 1.76776695), (3, 0.152537912, 0.463647735), (4, 0.0781194836, 0.237448652),
    (INF, 0.010493106, 0.0318943977),
  ],
)  # fmt: skip
def test_reference_values_of_cifar(p, gaussian, iid):
  given = dict(sigma=0.25, d=3072, p=p)
  np.testing.assert_allclose(smoothing.gaussian_radius_lp(0.99, 0.01, **given), gaussian, rtol=1e-8)
  np.testing.assert_allclose(smoothing.iid_limit(0.99, 0.01, **given), iid, rtol=1e-8)


def test_reference_values_of_imagenet_and_of_a_log_row():
  given = dict(sigma=0.25, d=150_528, p=INF)
  assert float(smoothing.iid_limit(0.99, 0.01, **given)) == pytest.approx(0.00455634253, rel=1e-8)
  radius = smoothing.gaussian_radius_lp(0.99, 0.01, **given)
  assert float(radius) == pytest.approx(0.00149901515, rel=1e-8)
  p_a = certify.clopper_pearson(75_635, 100_000, alpha=0.001)
  assert float(p_a) == pytest.approx(0.752132852, abs=1e-9)
  row = dict(sigma=0.5, d=3072, p=3)
  assert float(smoothing.iid_limit(p_a, **row)) == pytest.approx(0.18626, abs=5e-6)
  over_c = smoothing.generalized_gaussian_limit(p_a, q=3, **row)
  assert float(over_c) == pytest.approx(0.30976, abs=5e-6)


@pytest.mark.parametrize(
  'p_a, expected', [(0.6, 0.000118806404), (0.9, 0.000575978109), (0.999, 0.000779277889)]
)
def test_the_cube_in_linf(p_a, expected):
  ours = smoothing.uniform_linf_limit(p_a, sigma=1.0, d=3072, p=INF)
  assert float(ours) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize('p', [2, 3, INF])
@pytest.mark.parametrize('d', [3, 3072, 150_528])
def test_no_certificate_exceeds_a_limit(p, d):
  given = dict(sigma=0.5, d=d, p=p)
  for p_a, p_b in ((P_A, P_B), (P_A[1:], None)):
    gaussian = smoothing.gaussian_radius_lp(p_a, p_b, **given)
    assert (gaussian <= smoothing.iid_limit(p_a, p_b, **given)).all()
    tight = dict(q=2, constant=math.sqrt(0.5) * (1 + 1e-12))
    assert (gaussian <= smoothing.generalized_gaussian_limit(p_a, p_b, **tight, **given)).all()
    cube = smoothing.uniform_linf_limit(p_a, p_b, **given)
    assert (cube <= smoothing.iid_limit(p_a, p_b, **given)).all()
    if d == 3:
      for q in (1, 2, 3, 8):
        noise = smoothing.generalized_gaussian(q=q, sigma=0.5, norm=f'l{p}', shape=(d,))
        assert (noise.radius(p_a, p_b) <= smoothing.iid_limit(p_a, p_b, **given)).all()


def test_half_spaces_of_the_sum_stay_below_the_iid_limit():
  """d = 1: the exact radius of symmetric laws of standard deviation 1, among them one near
  Chebyshev's worst case (three points, smoothed)."""
  for law in (stats.norm(), stats.laplace(scale=2**-0.5), stats.uniform(-(3**0.5), 12**0.5)):
    for p_a in (0.6, 0.9, 0.99):
      assert law.ppf(p_a) <= smoothing.iid_limit(p_a, sigma=1.0, d=1, p=INF)
  p_a = 0.9  # 2 (1 - p_a) of the mass at +-c with 2 (1 - p_a) c^2 = 1 attains it.
  attained = 1 / math.sqrt(2 * (1 - p_a))
  assert float(smoothing.iid_limit(p_a, sigma=1.0, d=1, p=2)) == pytest.approx(attained, rel=1e-9)


@pytest.mark.parametrize('p', [2, 2.5, 4])
def test_the_cube_radius_is_the_smallest_distance_that_loses_the_overlap(p):
  """Brute force over 20,000 directions and a local search: no shift of smaller L_p norm leaves an
  overlap of 1 - (p_a - p_b) / 2, and equal shifts do."""
  d, sigma, gap = 3, 0.5, 0.7
  lam = math.sqrt(3) * sigma
  ours = float(smoothing.uniform_linf_limit(0.85, 0.15, sigma=sigma, d=d, p=p))
  overlap = lambda delta: np.prod(np.maximum(1 - np.abs(delta) / (2 * lam), 0), axis=-1)
  v = np.abs(np.random.default_rng(0).normal(size=(20_000, d))) ** 1.5
  v = v / np.linalg.norm(v, p, axis=1, keepdims=True)
  assert (overlap(0.999 * ours * v) > 1 - gap / 2).all()
  equal = np.full(d, ours / d ** (1 / p))
  assert overlap(equal) == pytest.approx(1 - gap / 2, rel=1e-9)
  best = optimize.minimize(
    lambda u: overlap(ours * np.abs(u) / np.linalg.norm(u, p)), v[0], method='Nelder-Mead'
  )
  assert best.fun >= 1 - gap / 2 - 1e-9


def test_below_p_2_the_cube_formula_would_over_claim():
  with pytest.raises(ValueError, match='exact for `p` >= 2 only'):
    smoothing.uniform_linf_limit(0.9, sigma=1.0, d=10, p=1)


def test_l1_ball_limit_is_the_half_space_of_a_simulated_coordinate():
  """400,000 points of the ball; quantile errors of 5 standard errors: probability below 1e-5."""
  d, n = 8, 400_000
  rng = np.random.default_rng(0)
  exponential = rng.exponential(size=(n, d + 1))
  coordinate = exponential[:, 0] / exponential.sum(axis=1) * rng.choice([-1, 1], n)
  for p_a, p_b in ((0.9, 0.1), (0.7, 0.05), (0.45, 0.2)):
    ours = float(smoothing.l1_ball_limit(p_a, p_b, scale=1.0, d=d))
    seen = (np.quantile(coordinate, p_a) - np.quantile(coordinate, p_b)) / 2
    assert ours == pytest.approx(seen, abs=0.003)
  sigma = math.sqrt(2 / ((d + 1) * (d + 2)))
  assert coordinate.std() == pytest.approx(sigma, rel=0.01)
  assert float(smoothing.l1_ball_limit(0.9, scale=1.0, d=10**6)) < 2e-6


@pytest.mark.parametrize('q', [2, 3, 6])
def test_the_sum_is_as_sub_gaussian_as_the_limit_claims(q):
  """E exp(s z) <= exp(s^2 / 2) for unit variance, by numerical integration."""
  b = math.sqrt(special.gamma(1 / q) / special.gamma(3 / q))
  for s in (0.3, 1.0, 3.0):
    density = lambda z: mpmath.exp(-((z / b) ** q)) * q / (2 * b * special.gamma(1 / q))  # noqa: B023
    mean = 2 * mpmath.quad(lambda z: mpmath.cosh(s * z) * density(z), [0, 2, 4, 8, 16])  # noqa: B023
    assert mean <= math.exp(s**2 / 2) * (1 + 1e-9)
  with pytest.raises(ValueError, match='proved for `q` >= 2'):
    smoothing.generalized_gaussian_limit(0.9, sigma=1.0, d=3, p=2, q=1.5)


def test_nothing_can_be_certified_without_a_lead():
  given = dict(sigma=1.0, d=10, p=3)
  for limit in (smoothing.iid_limit, smoothing.uniform_linf_limit):
    np.testing.assert_array_equal(limit([0.5, 0.3, np.nan], **given), 0)
  assert float(smoothing.iid_limit(1.0, **given)) == INF
  assert float(smoothing.l1_ball_limit(0.3, 0.4, scale=1.0, d=3)) == 0


# The generalized Gaussian itself: moments, and its L1 radius.


@pytest.mark.parametrize('q', [1, 2, 3, 8])
def test_moments(q):
  """400,000 draws; 6 standard errors of the absolute moments: probability below 1e-7."""
  sigma = 0.25
  sample = smoothing.generalized_gaussian(q=q, sigma=sigma).sample
  keys = jax.random.split(jax.random.key(q), 400)
  z = (np.asarray(jax.vmap(sample, (0, None))(keys, jnp.full((1000,), 0.5)), float) - 0.5) / sigma
  b = math.sqrt(special.gamma(1 / q) / special.gamma(3 / q))
  moment = lambda k: b**k * special.gamma((k + 1) / q) / special.gamma(1 / q)
  for k in (1, 2, 4):
    error = math.sqrt((moment(2 * k) - moment(k) ** 2) / z.size)
    assert abs((np.abs(z) ** k).mean() - moment(k)) < 6 * error
  assert abs(z.mean()) < 6 / math.sqrt(z.size)
  assert stats.kstest(z.ravel()[:20_000], stats.gennorm(q, scale=b).cdf).pvalue > 1e-7


def test_reference_l1_radii():
  """Laplace and p = 4 of item 11 and 12 at unit variance; q = 2 is the Gaussian."""
  p = np.array([0.6, 0.8, 0.9, 0.99, 0.999])
  radius = lambda q: smoothing.generalized_gaussian(q=q, sigma=1.0).radius(p)
  np.testing.assert_allclose(
    radius(1), [0.157786318, 0.64791539, 1.13804446, 2.766218, 4.39439153], rtol=1e-8
  )
  np.testing.assert_allclose(
    radius(4), [0.311884352, 0.952945657, 1.33521374, 2.01601079, 2.3978479], rtol=1e-8
  )
  np.testing.assert_allclose(radius(2), smoothing.gaussian(sigma=1.0).radius(p), rtol=1e-11)
  laplace = smoothing.generalized_gaussian(q=1, scale=1.0).radius
  np.testing.assert_allclose(laplace([0.9, 0.4], [0.1, 0.01]), [1.609438, 1.844440], atol=1e-6)


@pytest.mark.parametrize('q', [1, 1.5, 2, 3, 7, 16])
def test_l1_radius_is_below_the_quantile_in_fifty_digits(q):
  """F(radius) < p_a at scale 1, and not by much: with p_b too."""
  p_a = np.array([0.5 + 1e-9, 0.51, 0.7, 0.749, 0.75, 0.751, 0.9, 0.999, 1 - 1e-6, 1 - 1e-12])
  noise = smoothing.generalized_gaussian(q=q, scale=1.0)
  with mpmath.workdps(50):
    order = 1 / mpmath.mpf(q)
    cdf = lambda z: (1 + mpmath.sign(z) * mpmath.gammainc(order, 0, abs(z) ** q, True)) / 2
    for p, radius in zip(p_a, noise.radius(p_a), strict=True):
      radius = mpmath.mpf(float(radius))
      assert cdf(radius) < p < cdf(radius * (1 + mpmath.mpf(10) ** -11))
  half = noise.radius(p_a, np.nextafter(1 - p_a, 1))
  np.testing.assert_allclose(half, noise.radius(p_a), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize('q', [1, 1.5, 4])
def test_no_set_of_the_plane_beats_the_l1_radius(q):
  """Neyman-Pearson on a grid of the plane: the worst set of mass p_a keeps mass 1/2 after every
  shift within the L1 radius (slack of the grid: 0.002)."""
  law = stats.gennorm(q)
  edges = np.linspace(-9, 9, 722)
  mass = lambda shift: np.diff(law.cdf(edges - shift))
  for p_a in (0.7, 0.95):
    radius = float(smoothing.generalized_gaussian(q=q, scale=1.0).radius(p_a))
    for share in (0.0, 0.3, 0.5):
      here = np.outer(mass(0), mass(0)).ravel()
      there = np.outer(mass(radius * share), mass(radius * (1 - share))).ravel()
      order = np.argsort(there / np.maximum(here, 1e-300), kind='stable')
      kept = np.interp(p_a, np.cumsum(here[order]), np.cumsum(there[order]))
      assert kept >= 0.5 - 0.002
      if share == 0:
        assert kept == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize('norm, power', [('l1', 0), ('l2', 1 / 2), ('l4', 3 / 4), ('linf', 1)])
def test_other_norms_pay_the_largest_l1_norm_of_their_ball(norm, power):
  """|delta|_1 = d^(1 - 1/p) for equal entries of L_p norm 1; q = 2 pays as the Gaussian does."""
  radius = lambda q, norm: smoothing.generalized_gaussian(
    q=q, sigma=0.5, norm=norm, shape=(4, 4, 1)
  ).radius(P_A, P_B)
  np.testing.assert_allclose(radius(3, norm), radius(3, 'l1') / 16**power, rtol=1e-11)
  gaussian = smoothing.gaussian(sigma=0.5, norm=norm, shape=(4, 4, 1)).radius(P_A, P_B)
  np.testing.assert_allclose(radius(2, norm), gaussian, rtol=1e-10)


@pytest.mark.parametrize('q, norm', [(1, 'l1'), (2, 'l2'), (3, 'linf')])
def test_protocol(q, norm):
  noise = smoothing.generalized_gaussian(q=q, sigma=0.25, norm=norm, shape=(4, 4, 1))
  testing.check_smoothing(noise, np.zeros((4, 4, 1), np.float32))


def test_bad_arguments():
  with pytest.raises(ValueError, match='exactly one of `sigma` and `scale`'):
    smoothing.generalized_gaussian(q=2)
  with pytest.raises(ValueError, match='exactly one of `sigma` and `scale`'):
    smoothing.generalized_gaussian(q=2, sigma=1, scale=1)
  with pytest.raises(ValueError, match='`q` must lie in'):
    smoothing.generalized_gaussian(q=0.5, sigma=1)
  with pytest.raises(ValueError, match='depends on the dimension'):
    smoothing.generalized_gaussian(q=3, sigma=1, norm='l2')
