"""Bounds of a mean of scores in [0, 1]: published values, coverage, the test martingale."""

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from certjax import certify, smoothing

METHODS = ('hoeffding', 'bernstein', 'betting')
N, ALPHA = 100_000, 1e-3


def test_reference_values():
  ones = np.ones(N)
  width = 1 - certify.mean_lower_bound(ones, alpha=ALPHA, method='hoeffding')
  assert float(width) == pytest.approx(0.005876970, abs=1e-9)
  width = 1 - certify.mean_lower_bound(np.ones(10_000), alpha=ALPHA, method='hoeffding')
  assert float(width) == pytest.approx(0.018584611, abs=1e-9)
  radius = smoothing.gaussian(sigma=0.25).radius
  largest = lambda method: float(radius(certify.mean_lower_bound(ones, alpha=ALPHA, method=method)))
  assert largest('bernstein') == pytest.approx(0.892917474, abs=1e-9)
  assert largest('hoeffding') == pytest.approx(0.629861701, abs=1e-9)
  assert largest('betting') > 0.93  # Clopper-Pearson, for hard votes: 0.952864.


def test_reference_values_from_sums():
  """Mean .99, variance .001."""
  squares = 0.001 * (N - 1) + N * 0.99**2
  bound = lambda method: certify.mean_lower_bound_from_sums(
    0.99 * N, squares, num_samples=N, alpha=ALPHA, method=method
  )
  assert 0.99 - float(bound('bernstein')) == pytest.approx(0.000567251, abs=1e-9)
  radius = smoothing.gaussian(sigma=0.25).radius
  assert float(radius(bound('bernstein'))) == pytest.approx(0.576393255, abs=1e-8)
  assert float(radius(bound('hoeffding'))) == pytest.approx(0.536873608, abs=1e-9)


LAWS = {  # name: (sampler of (rng, shape), mean)
  'point mass at 0': (lambda rng, shape: np.zeros(shape), 0.0),
  'point mass at 1': (lambda rng, shape: np.ones(shape), 1.0),
  'point mass at .7': (lambda rng, shape: np.full(shape, 0.7), 0.7),
  'almost always 1': (lambda rng, shape: (rng.random(shape) < 0.99).astype(float), 0.99),
  'rarely 1': (lambda rng, shape: (rng.random(shape) < 0.02).astype(float), 0.02),
  'fair coin': (lambda rng, shape: rng.integers(0, 2, shape).astype(float), 0.5),
  'near 1': (lambda rng, shape: rng.beta(50, 1, shape), 50 / 51),
  'both ends': (lambda rng, shape: rng.beta(0.1, 0.1, shape), 0.5),
}


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('law', LAWS)
def test_coverage(method, law):
  """2000 bounds of 60 scores at alpha = .05: a sound bound errs more than `allowed` times with
  probability below 1e-6."""
  draw, mean = LAWS[law]
  scores = draw(np.random.default_rng(3), (2000, 60))
  bounds = certify.mean_lower_bound(scores, alpha=0.05, method=method)
  allowed = stats.binom.isf(1e-6, 2000, 0.05)
  assert (bounds > mean).sum() <= allowed
  uppers = certify.mean_upper_bound(scores, alpha=0.05, method=method)
  assert (uppers < mean).sum() <= allowed
  assert ((bounds >= 0) & (uppers <= 1) & (bounds <= uppers)).all()


def test_the_coverage_test_sees_a_bet_that_looks_ahead(monkeypatch):
  """Bets on scores that were already seen are not a martingale."""
  from certjax.certify import _mean

  cheat = lambda scores, log: np.where(scores > 0.5, 0.9, 0.0)
  monkeypatch.setattr(_mean, '_bets', cheat)
  scores = np.random.default_rng(0).integers(0, 2, (200, 60)).astype(float)
  assert (certify.mean_lower_bound(scores, alpha=0.05) > 0.5).mean() > 0.5


def test_the_martingale_by_enumeration():
  """All 2^10 sequences of a biased coin: the expected capital at the true mean is 1, exactly,
  and the bound exceeds the mean on sequences of total probability at most alpha."""
  from certjax.certify import _mean

  n, p, alpha = 10, 0.7, 0.1
  rows = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)
  weight = np.prod(np.where(rows == 1, p, 1 - p), axis=1)
  bets = np.array([_mean._bets(row, math.log(1 / alpha)) for row in rows])
  assert ((bets >= 0) & (bets < 1)).all()
  assert weight @ np.prod(1 + bets * (rows - p), axis=1) == pytest.approx(1, abs=1e-12)
  bounds = certify.mean_lower_bound(rows, alpha=alpha)
  assert weight @ (bounds > p) <= alpha
  assert (bounds > 0).any()


def test_betting_bound_in_fifty_digits():
  """At the returned m the capital reaches 1 / alpha; a little above it no longer does."""
  from certjax.certify import _mean

  rng = np.random.default_rng(0)
  for scores in (rng.beta(5, 1, 300), np.ones(200), (rng.random(300) < 0.95).astype(float)):
    m = float(certify.mean_lower_bound(scores, alpha=ALPHA))
    bets = _mean._bets(scores, math.log(1 / ALPHA))
    with mpmath.workdps(50):
      capital = lambda m: mpmath.fprod(  # noqa: B023
        1 + mpmath.mpf(b) * (mpmath.mpf(s) - m)
        for b, s in zip(bets, scores, strict=True)  # noqa: B023
      )
      assert capital(mpmath.mpf(m)) >= 1000 > capital(mpmath.mpf(m) * (1 + mpmath.mpf(10) ** -11))


def test_widths_are_ordered_on_scores_of_a_confident_classifier():
  scores = np.random.default_rng(0).beta(30, 0.5, 20_000)
  hoeffding, bernstein, betting = (
    float(certify.mean_lower_bound(scores, alpha=ALPHA, method=method)) for method in METHODS
  )
  assert hoeffding < bernstein < betting < scores.mean()
  gaussian = scores.std() * math.sqrt(2 * math.log(1 / ALPHA) / len(scores))
  assert scores.mean() - betting < 1.3 * gaussian


def test_sums_give_what_the_scores_give():
  scores = np.random.default_rng(1).beta(5, 1, (3, 5000))
  for method in ('hoeffding', 'bernstein'):
    ours = certify.mean_lower_bound_from_sums(
      scores.sum(1), (scores**2).sum(1), num_samples=5000, alpha=ALPHA, method=method
    )
    direct = certify.mean_lower_bound(scores, alpha=ALPHA, method=method)
    np.testing.assert_allclose(ours, direct, rtol=1e-10)
    assert (ours <= direct + 1e-15).all()


def test_soft_radius_of_a_smoothed_score():
  """Score Phi(x / tau): its smoothed value is Phi(x / sqrt(tau^2 + sigma^2)), 1/2 at distance x, so
  no radius from bounds may exceed x. 200 images at alpha = .05 each side: more than 60 errors
  with probability below 1e-9 (a one-sided bound errs at most .05 of the time)."""
  sigma, tau, x = 0.5, 0.3, 0.4
  rng = np.random.default_rng(0)
  scores = stats.norm.cdf((x + sigma * rng.normal(size=(200, 2000))) / tau)
  low = certify.mean_lower_bound(scores, alpha=0.05)
  high = certify.mean_upper_bound(1 - scores, alpha=0.05)
  radius = smoothing.gaussian(sigma=sigma).radius(low, high)
  exact = sigma * x / math.hypot(tau, sigma)
  assert (radius > exact).sum() <= 60 and (radius > 0.8 * exact).all() and exact < x


def test_nan_counts_against_the_bound():
  scores = np.full(1000, 0.9)
  holes = scores.copy()
  holes[:100] = np.nan
  filled = np.where(np.isnan(holes), 0, holes)
  for method in METHODS:
    given = dict(alpha=ALPHA, method=method)
    assert certify.mean_lower_bound(holes, **given) == certify.mean_lower_bound(filled, **given)
    assert certify.mean_upper_bound(holes, **given) >= certify.mean_upper_bound(scores, **given)


def test_bad_arguments():
  with pytest.raises(ValueError, match=r'map a score of another range'):
    certify.mean_lower_bound([-0.5, 0.5], alpha=ALPHA)
  with pytest.raises(ValueError, match='`method` must be'):
    certify.mean_lower_bound([0.5], alpha=ALPHA, method='clt')
  with pytest.raises(ValueError, match='given the scores'):
    certify.mean_lower_bound_from_sums(5.0, num_samples=10, alpha=ALPHA, method='betting')
  with pytest.raises(ValueError, match='needs `squares`'):
    certify.mean_lower_bound_from_sums(5.0, num_samples=10, alpha=ALPHA, method='bernstein')
  with pytest.raises(ValueError, match=r'`total` must lie in \[0, num_samples\]'):
    certify.mean_lower_bound_from_sums(11.0, num_samples=10, alpha=ALPHA)
  with pytest.raises(ValueError, match='`alpha` is a failure probability'):
    certify.mean_lower_bound([0.5], alpha=0)
  with pytest.raises(ValueError, match='with N >= 1'):
    certify.mean_lower_bound([], alpha=ALPHA)
