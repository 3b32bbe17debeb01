"""Binomial bounds: reference values, exact rational tails, exact coverage, simulation."""

from fractions import Fraction
from math import comb

import mpmath
import numpy as np
import pytest
from scipy import stats

from certjax import certify

REFERENCE = [  # (successes, trials, lower bound at alpha = 0.001), ten digits.
  (100_000, 100_000, 0.9999309248),
  (99_000, 100_000, 0.9889893404),
  (90_000, 100_000, 0.8970364962),
  (93_657, 100_000, 0.9341538120),
  (49_179, 100_000, 0.4869002524),
  (50_000, 100_000, 0.4951090429),
  (1000, 1000, 0.9931160484),
  (100, 100, 0.9332543008),
  (10, 10, 0.5011872336),
  (9, 10, 0.3762769109),
  (1, 100, 1.00050e-5),
  (0, 100, 0.0),
]


@pytest.mark.parametrize('successes, trials, expected', REFERENCE)
def test_reference_values(successes, trials, expected):
  bound = float(certify.clopper_pearson(successes, trials, alpha=0.001))
  assert bound == pytest.approx(expected, abs=0.6e-10)


def test_upper_reference_values():
  bounds = certify.clopper_pearson_upper([0, 99_000, 50_000], [100, 100_000, 100_000], alpha=0.001)
  np.testing.assert_allclose(bounds, [0.0667456992, 0.9909445314, 0.5048909571], atol=0.6e-10)


def test_published_logs():
  """(successes, trials, p_lower as logged) of runs at alpha = 0.001."""
  logged = [
    (99_936, 10**5, 0.999072), (99_944_708, 10**8, 0.99944), (91_037_357, 10**8, 0.910285),
    (95_126, 10**5, 0.94912), (75_214, 10**5, 0.747899), (94_984_832, 10**8, 0.949781),
    (75_097_101, 10**8, 0.750837), (67_422, 10**5, 0.669624), (36_296, 10**5, 0.358265),
  ]  # fmt: skip
  successes, trials, bounds = (np.array(column) for column in zip(*logged, strict=True))
  ours = certify.clopper_pearson(successes, trials, alpha=0.001)
  np.testing.assert_allclose(ours, bounds, atol=0.5001e-6)


@pytest.mark.parametrize('trials', [1, 2, 7, 40])
@pytest.mark.parametrize('alpha', [0.05, 1e-3, 1e-9])
def test_tail_inequality_in_exact_rationals(trials, alpha):
  """Pr[X >= k] <= alpha at the bound; 1e-9 relative above it the inequality fails."""
  for k in range(1, trials + 1):
    bound = float(certify.clopper_pearson(k, trials, alpha=alpha))
    assert _tail(k, trials, Fraction(bound)) <= Fraction(alpha)
    assert _tail(k, trials, Fraction(min(bound * (1 + 1e-9), 1.0))) > Fraction(alpha)


def _tail(k, n, p):
  return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize('alpha', [1e-3, 1e-12, 0.3])
def test_tail_inequality_at_scale(alpha):
  """scipy's independent survival function agrees, for counts up to 10^8."""
  for trials in (100, 10**5, 10**8):
    k = np.unique(np.r_[1, np.linspace(1, trials, 201).astype(int), trials])
    bound = certify.clopper_pearson(k, trials, alpha=alpha)
    assert (stats.binom.sf(k - 1, trials, bound) <= alpha * (1 + 1e-10)).all()
    assert (np.diff(bound) > 0).all()


@pytest.mark.parametrize('trials', [10**4, 10**5, 10**8])
def test_tail_near_one_in_fifty_digits(trials):
  """Where p is near 1 an ulp of p counts most: the tail there, summed in 50 digits."""
  for failures in (0, 1, 5, 40):
    bound = float(certify.clopper_pearson(trials - failures, trials, alpha=0.001))
    with mpmath.workdps(50):
      p = mpmath.mpf(bound)
      tail = sum(
        mpmath.binomial(trials, i) * (1 - p) ** i * p ** (trials - i) for i in range(failures + 1)
      )
      assert mpmath.mpf('0.000999999') < tail <= mpmath.mpf('0.001')


@pytest.mark.parametrize('p', [0.02, 0.3, 0.5, 0.9, 0.999])
def test_exact_coverage(p):
  """The bound exceeds p with probability at most alpha, summed over all outcomes."""
  for alpha in (0.05, 1e-3):
    k = np.arange(301)
    probability = stats.binom.pmf(k, 300, p)
    lower = certify.clopper_pearson(k, 300, alpha=alpha)
    upper = certify.clopper_pearson_upper(k, 300, alpha=alpha)
    assert probability[lower > p].sum() <= alpha
    assert probability[upper < p].sum() <= alpha


def test_coverage_by_simulation():
  """10^5 draws at alpha = 0.05: more than 5,300 misses have probability below 1e-5."""
  draws = np.random.default_rng(0).binomial(1000, 0.87, 100_000)
  misses = np.sum(certify.clopper_pearson(draws, 1000, alpha=0.05) > 0.87)
  assert 2_500 < misses < 5_300


RANDOMIZED = [  # (successes of 10^5, uniform, bound at alpha = 0.001).
  (100_000, 1.0, 0.999930925),
  (100_000, 0.5, 0.999937856),
  (100_000, 0.1, 0.999953949),
  (90_000, 1.0, 0.897036496),
  (90_000, 0.5, 0.897041520),
  (90_000, 0.1, 0.897045598),
]


@pytest.mark.parametrize('successes, uniform, expected', RANDOMIZED)
def test_randomized_reference_values(successes, uniform, expected):
  bound = float(certify.randomized_clopper_pearson(successes, 100_000, uniform, alpha=0.001))
  assert bound == pytest.approx(expected, abs=0.6e-9)


def test_randomized_tail_in_exact_rationals():
  for k in range(13):
    for w in (1.0, 0.5, 0.125, 2.0**-12):
      bound = Fraction(float(certify.randomized_clopper_pearson(k, 12, w, alpha=0.05)))
      spent = lambda p, k=k, w=w: (
        _tail(k + 1, 12, p) + Fraction(w) * (_tail(k, 12, p) - _tail(k + 1, 12, p))
      )
      assert bound == 0 or spent(bound) <= Fraction(0.05)
      if 0 < bound < 1 - Fraction(1, 10**9):
        assert spent(bound * (1 + Fraction(1, 10**8))) > Fraction(0.05)


def test_randomized_bound_spends_all_of_alpha():
  """10^5 draws at alpha = 0.05: misses within 5 standard errors (345) of 5,000: 6e-7."""
  rng = np.random.default_rng(1)
  draws, w = rng.binomial(50, 0.9, 100_000), 1 - rng.random(100_000)
  misses = np.sum(certify.randomized_clopper_pearson(draws, 50, w, alpha=0.05) > 0.9)
  assert abs(misses - 5000) < 345


def test_randomized_bad_uniform():
  with pytest.raises(ValueError, match=r'`uniform` must lie in \(0, 1\], got 0.0'):
    certify.randomized_clopper_pearson(3, 5, 0.0, alpha=0.05)


P_VALUES = [
  (10, 0, 0.001953125),
  (11, 0, 0.0009765625),
  (66, 34, 0.0017899304),
  (67, 33, 0.00087371984),
  (552, 448, 0.0011150492),
  (553, 447, 0.00088998596),
]


@pytest.mark.parametrize('top, runner_up, expected', P_VALUES)
def test_predict_p_values(top, runner_up, expected):
  p = float(certify.predict_p_value(top, runner_up))
  assert p == pytest.approx(expected, rel=1e-7)
  assert p == pytest.approx(stats.binomtest(top, top + runner_up).pvalue, rel=1e-12)


def test_predict_p_value_of_ties_is_one():
  np.testing.assert_array_equal(certify.predict_p_value([0, 5, 500], [0, 5, 500]), [1, 1, 1])


@pytest.mark.parametrize(
  'successes, trials, alpha, said',
  [
    (11, 10, 0.001, 'got successes=11 of trials=10'),
    (-1, 10, 0.001, 'got successes=-1'),
    (np.nan, 10, 0.001, 'got successes=nan'),
    (5, 10, 0.0, 'alpha=0.0'),
    (5, 10, 1.0, 'alpha=1.0'),
    (5, 10, np.nan, 'alpha=nan'),
  ],
)
def test_bad_arguments(successes, trials, alpha, said):
  with pytest.raises(ValueError, match=said):
    certify.clopper_pearson(successes, trials, alpha=alpha)


def test_levels_that_scipy_does_not_know_end_in_zero_or_a_bound():
  """betaincinv gives NaN there; it must neither loop nor prove more than the level allows."""
  bound = certify.clopper_pearson([2, 10, 1000], 10**6, alpha=1e-300)
  assert (bound >= 0).all() and (bound <= np.array([2, 10, 1000]) / 1e6).all()
