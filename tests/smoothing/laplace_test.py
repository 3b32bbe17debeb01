"""Laplace smoothing: reference radii, 50 digits, explicit worst regions in 1 to 3 dimensions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from certjax import smoothing, testing

SHAPE = (32, 32, 3)
VARIANTS = {
  'l1': lambda: smoothing.laplace(scale=0.7),
  'linf 1': lambda: smoothing.laplace(scale=0.7, norm='linf', shape=(1, 1, 1)),
  'linf 2': lambda: smoothing.laplace(scale=0.7, norm='linf', shape=(1, 2, 1)),
  'linf 3': lambda: smoothing.laplace(scale=0.7, norm='linf', shape=(1, 1, 3)),
  'linf 3072': lambda: smoothing.laplace(scale=0.7, norm='linf', shape=SHAPE),
  'linf 150528': lambda: smoothing.laplace(scale=0.7, norm='linf', shape=(224, 224, 3)),
}


def test_reference_radii():
  radius = smoothing.laplace(sigma=1.0).radius
  np.testing.assert_allclose(
    radius([0.6, 0.8, 0.9, 0.99, 0.999]),
    [0.157786318, 0.64791539, 1.13804446, 2.766218, 4.39439153], rtol=5e-9,
  )  # fmt: skip
  radius = smoothing.laplace(scale=1.0).radius
  np.testing.assert_allclose(
    radius([0.9, 0.4, 0.6], [0.1, 0.01, 0.1]), [1.609438, 1.844440, 0.895880], atol=5e-7
  )


@pytest.mark.parametrize('name', VARIANTS)
def test_radius_is_a_proof(name):
  testing.check_radius(VARIANTS[name]().radius)


@pytest.mark.parametrize('name', VARIANTS)
def test_extreme_probabilities(name):
  """Radii stay finite, ordered and silent (warnings are errors) at 0, 1 and next to them."""
  radius = VARIANTS[name]().radius
  p = np.r_[0.5 + 10.0 ** -np.arange(3, 16), 1 - 10.0 ** -np.arange(1, 16), 1.0]
  one, two = radius(np.sort(p)), radius(np.sort(p), 0.0)
  assert np.isfinite(one).all() and np.isfinite(two).all()
  assert (np.diff(one) >= 0).all() and (np.diff(two) >= 0).all() and (two > one).all()
  rivals = radius(0.4, [0.0, 5e-324, 1e-300, 1e-200, 1e-20, 0.01, 0.39])
  assert (np.diff(rivals) <= 0).all() and rivals[-1] > 0
  assert (radius([0.0, 5e-324, 1e-300], [0.0, 0.0, 0.0]) == 0).all()


def test_l1_radius_is_below_the_theorem_in_fifty_digits():
  mpmath = pytest.importorskip('mpmath')
  rng = np.random.default_rng(0)
  p_a = np.r_[
    0.5 + 10.0 ** -np.arange(1, 16), 1 - 10.0 ** -np.arange(1, 16), rng.uniform(0.5, 1, 60),
    rng.uniform(0.1, 0.5, 30), 0.75, 0.7, 0.7,
  ]  # fmt: skip
  p_b = np.minimum(10 ** rng.uniform(-20, 0, len(p_a)), np.nextafter(p_a, 0))
  p_b[-3:] = 0.25, np.nextafter(0.2, 0), np.nextafter(0.2, 1)  # Where the formula changes.
  radius = smoothing.laplace(scale=0.7).radius
  with mpmath.workdps(50):
    for a, b, one, two in zip(p_a, p_b, radius(p_a), radius(p_a, p_b), strict=True):
      scale, a, b = (mpmath.mpf(float(v)) for v in (0.7, a, b))
      teng = max(scale / 2 * mpmath.log(a / b), -scale * mpmath.log(1 - a + b))
      assert teng * (1 - mpmath.mpf('3e-14')) < two < teng
      if a > 0.5:
        truth = -scale * mpmath.log(2 * (1 - a))
        assert truth * (1 - mpmath.mpf('3e-14')) < one < truth


def phi_pieces(mpmath, dimension):
  """Definition: Phi(p) is the integral of the upper quantile of S, here [(P, Phi)] at its bends."""
  tail, rate, bends = mpmath.mpf(0), mpmath.mpf(0), [(mpmath.mpf(0), mpmath.mpf(0))]
  for k in range(dimension, -1, -1):
    mass = mpmath.mpf(mpmath.binomial(dimension, k)) / mpmath.mpf(2) ** dimension
    tail, rate = tail + mass, rate + mass * (2 * k - dimension)
    bends.append((tail, rate))
    if tail > 0.5:
      return bends


@pytest.mark.parametrize('dimension', [1, 2, 3, 4, 9, 10, 101, 400])
def test_linf_bound_is_below_the_quadrature(dimension):
  """int dp / Phi by mpmath, piece by piece, from the definition of Phi."""
  mpmath = pytest.importorskip('mpmath')
  radius = smoothing.laplace(scale=1.0, norm='linf', shape=(dimension,)).radius
  with mpmath.workdps(30):
    bends = phi_pieces(mpmath, dimension)

    def integral(start):
      total, half = mpmath.mpf(0), mpmath.mpf(1) / 2
      for (p0, f0), (p1, f1) in itertools.pairwise(bends):
        low, high = max(p0, start), min(p1, half)
        if low < high:
          phi = lambda q, p0=p0, f0=f0, p1=p1, f1=f1: f0 + (f1 - f0) * (q - p0) / (p1 - p0)
          total += mpmath.quad(lambda q, phi=phi: 1 / phi(q), [low, high])
      return total

    for p_a in (0.5 + 1e-9, 0.51, 0.6, 0.9, 0.999):
      truth = integral(1 - mpmath.mpf(p_a))
      assert truth * (1 - mpmath.mpf('1e-10')) < float(radius(p_a)) < truth
    for p_a, p_b in ((0.9, 0.03), (0.6, 0.1), (0.4, 0.02)):
      from_a = integral(1 - mpmath.mpf(p_a)) if p_a > 0.5 else -integral(mpmath.mpf(p_a))
      truth = (from_a + integral(mpmath.mpf(p_b))) / 2
      assert truth * (1 - mpmath.mpf('1e-10')) < float(radius(p_a, p_b)) < truth


def test_one_dimension_has_one_norm():
  p_a = np.array([0.51, 0.7, 0.99])
  one = smoothing.laplace(scale=0.3, norm='linf', shape=(1, 1, 1)).radius(p_a)
  np.testing.assert_allclose(one, smoothing.laplace(scale=0.3).radius(p_a), rtol=2e-11)


def test_many_dimensions_approach_the_gaussian_rate():
  """S / sqrt(d) tends to a normal law; that limit is no bound: in few dimensions it is larger."""
  p_a = np.array([0.6, 0.9, 0.99])
  ratio = {}
  for shape in ((1, 1, 3), SHAPE, (224, 224, 3)):
    radius = smoothing.laplace(scale=1.0, norm='linf', shape=shape).radius
    ratio[shape[0]] = radius(p_a) * np.sqrt(np.prod(shape)) / stats.norm.ppf(p_a)
  np.testing.assert_allclose(ratio[32], 1, atol=1e-4)
  np.testing.assert_allclose(ratio[224], 1, atol=2e-6)
  assert ratio[1][0] < 0.98


CELLS = 40


def cells(delta, scale):
  """Masses under the noise at 0 and at delta of cells of one coordinate, by likelihood ratio."""
  edges = np.r_[-np.inf, np.linspace(0, delta, CELLS) if delta > 0 else [0.0], np.inf]
  return (np.diff(stats.laplace.cdf(edges, loc=loc, scale=scale)) for loc in (0.0, delta))


def gained(delta, scale, p):
  """Probability at `delta` of an explicit region of probability at most p at 0.

  Unions of product cells, taken by likelihood ratio: genuine regions, hence a lower bound of what
  the worst one gains, and the Neyman-Pearson optimum as cells get small.
  """
  here, there = np.ones(1), np.ones(1)
  for value in delta:
    p0, p1 = cells(value, scale)
    here, there = np.outer(here, p0).ravel(), np.outer(there, p1).ravel()
  order = np.argsort(-there / here)
  return np.interp(p, np.r_[0, np.cumsum(here[order])], np.r_[0, np.cumsum(there[order])])


DIRECTIONS = {
  'l1': [(1.0,), (1.0, 0.0), (0.5, 0.5), (0.7, 0.3), (0.4, 0.3, 0.3), (1.0, 0.0, 0.0)],
  'linf': [(1.0,), (1.0, 1.0), (1.0, 0.5), (1.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.6, 0.8)],
}


@pytest.mark.parametrize('norm', DIRECTIONS)
def test_no_explicit_region_beats_the_radius(norm):
  """At the radius the label keeps its lead over every region; further out it loses it."""
  scale, rng = 0.8, np.random.default_rng(0)
  p_a = np.r_[0.55, 0.7, 0.9, 0.99, rng.uniform(0.3, 0.95, 12)]
  p_b = np.r_[0.45, 0.3, 0.1, 0.01, rng.uniform(0.01, 1, 12) * np.minimum(p_a[4:], 1 - p_a[4:])]
  lead = 0.1
  for direction in DIRECTIONS[norm]:
    noise = smoothing.laplace(scale=scale, norm=norm, shape=(1, 1, len(direction)))
    for a, b, radius in zip(p_a, p_b, noise.radius(p_a, p_b), strict=True):
      margin = lambda reach, a=a, b=b, direction=direction: (
        1 - gained(np.array(direction) * reach, scale, 1 - a)
        - gained(np.array(direction) * reach, scale, b)
      )  # fmt: skip
      assert margin(radius * (1 + 1e-9)) > -1e-8
      if direction[0] == sum(direction) or norm == 'linf' and min(direction) == 1:
        assert margin(radius * 1.3 + 0.02) < 0, 'a worst direction: the bound is nearly attained'
      lead = min(lead, margin(radius))
  assert lead < 1e-6, 'p_b = 1 - p_a is tight in one dimension'


def test_moments():
  """10^6 draws: a mean or variance off by 5 standard errors has probability below 1e-6."""
  noise = smoothing.laplace(sigma=0.25)
  keys = jax.random.split(jax.random.key(0), 1000)
  draws = jax.vmap(noise.sample, (0, None))(keys, jnp.full((1000,), 0.5))
  z = (np.asarray(draws, np.float64) - 0.5) / 0.25
  assert abs(z.mean()) < 5e-3
  assert abs(z.var() - 1) < 5e-3 * np.sqrt(5)  # Fourth moment 6 at variance 1.
  assert abs(np.abs(z).mean() - 1 / np.sqrt(2)) < 5e-3 / np.sqrt(2)


@pytest.mark.parametrize(
  'options, said',
  [
    ({}, 'exactly one of `scale` and `sigma`'),
    (dict(scale=1.0, sigma=1.0), 'exactly one of `scale` and `sigma`'),
    (dict(scale=-1.0), '`scale` .* must be positive and finite'),
    (dict(scale=1.0, norm='l2'), r"one of \['l1', 'linf'\]"),
    (dict(scale=1.0, norm='linf'), 'needs `shape`'),
  ],
)
def test_bad_arguments(options, said):
  with pytest.raises(ValueError, match=said):
    smoothing.laplace(**options)
