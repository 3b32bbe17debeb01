"""Sequential tests: exact errors by DP and by enumeration, thresholds, power, and real images."""

import itertools
import subprocess
import sys
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import special, stats

from certjax import certify
from certjax.certify import _boundaries, _boundary_dp
from certjax.certify import _confidence_sequence as sequence

METHODS = sorted(_boundaries.METHODS)
P0 = [0.5, 0.6, 0.8413, 0.9772, 0.9987]
ALPHA = 1e-3


def cumulative(looks, accept, reject=None):
  looks, accept = np.asarray(looks), np.asarray(accept)
  reject = np.full_like(looks, -1) if reject is None else np.asarray(reject)
  return certify.Boundary(looks, np.zeros_like(looks), accept, reject)


def never_rejecting(boundary):
  return boundary._replace(reject=np.full_like(boundary.reject, -1))


def enumerate_paths(boundary, p):
  """`boundary_error`, path by path."""
  accepted = rejected = samples = 0
  for path in itertools.product((0, 1), repeat=int(boundary.looks[-1])):
    probability = p ** sum(path) * (1 - p) ** (len(path) - sum(path))
    for look, start, accept, reject in zip(*boundary, strict=True):
      count = sum(path[start:look])
      if count >= accept or count <= reject:
        accepted += probability * (count >= accept)
        rejected += probability * (count < accept)
        break
    samples += probability * look
  return accepted, rejected, samples


BY_HAND = [
  cumulative([3, 5, 9, 12], [3, 5, 7, 9], [0, 1, 3, 6]),
  cumulative([1, 2, 11], [2, 2, 8]),
  certify.Boundary(*map(np.array, ([3, 7, 12], [0, 3, 7], [3, 4, 4], [1, 2, -1]))),  # Fresh rounds.
  cumulative([2, 4], [0, 3]),  # Accepts at once.
]


@pytest.mark.parametrize('boundary', BY_HAND)
@pytest.mark.parametrize('p', [0.0, 0.3, 0.9, 1.0])
def test_dp_equals_enumeration(boundary, p):
  expected = enumerate_paths(boundary, p)
  np.testing.assert_allclose(certify.boundary_error(boundary, p), expected, rtol=1e-13, atol=1e-15)


def test_dp_at_scale_is_the_binomial_tail():
  """One look: 10^6 samples, tails down to 1e-30, and summed over 100 looks that decide nothing."""
  for p in (0.5, 0.8413, 0.9987):
    looks = np.linspace(10_000, 10**6, 100).astype(np.int64)
    for deviations in (0, 3, 11):
      count = int(10**6 * p + deviations * np.sqrt(10**6 * p * (1 - p)))
      accept = np.append(looks[:-1] + 1, count)
      accepted, _, samples = certify.boundary_error(cumulative(looks, accept), p)
      assert accepted == pytest.approx(special.betainc(count, 10**6 - count + 1, p), rel=1e-10)
      assert samples == pytest.approx(10**6, rel=1e-12)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('p0', P0)
@pytest.mark.parametrize('alpha, beta', [(ALPHA, None), (0.05, 0.01)])
def test_exact_errors(method, p0, alpha, beta):
  boundary = certify.boundary(method, p0, alpha=alpha, beta=beta, max_samples=125_000)
  beta = (1e-4 if method == 'horvath' else alpha) if beta is None else beta
  for p in (p0, p0 - 1e-4, p0 - 0.01):
    accepted, _, _ = certify.boundary_error(never_rejecting(boundary), p)
    assert accepted <= alpha * (1 - 1e-9)
    assert certify.boundary_error(boundary, p)[0] <= accepted
  ignored = boundary._replace(accept=boundary.looks + 1)
  for p in (p0, p0 + 1e-4, 0.5 + p0 / 2):
    assert certify.boundary_error(ignored, p)[1] <= beta


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('max_samples', [40, 5_000, 125_000])
def test_shape_of_the_thresholds(method, max_samples):
  boundary = certify.boundary(method, 0.7, alpha=ALPHA, max_samples=max_samples)
  looks, starts, accept, reject = boundary
  assert all(part.dtype == np.int64 and part.shape == looks.shape for part in boundary)
  assert looks[-1] == max_samples and (np.diff(looks) > 0).all() and looks[0] > 0
  sizes = looks - starts
  assert (accept <= sizes + 1).all() and (reject < accept).all() and (reject >= -1).all()
  if method == 'horvath':
    np.testing.assert_array_equal(starts, np.append(0, looks[:-1]))
  else:
    assert (
      not starts.any() and (np.diff(accept) >= 0).all() and (np.diff(looks - reject) >= 0).all()
    )


def test_a_count_that_suffices_later_suffices_now():
  """The last look's 40% of alpha: the same error, fewer samples."""
  looks, starts = _boundaries._geometric_looks(1000)
  raw = _boundaries._group_sequential(looks, 1e-3, ALPHA)
  ours = certify.boundary('group-sequential', 1e-3, alpha=ALPHA, max_samples=1000).accept
  assert (np.diff(raw) < 0).any() and (ours <= raw).all() and (np.diff(ours) >= 0).all()
  for p in (1e-3, 0.01):
    accepted, _, samples = certify.boundary_error(cumulative(looks, ours), p)
    expected, _, more = certify.boundary_error(cumulative(looks, raw), p)
    assert accepted == pytest.approx(expected, rel=1e-10) and samples < more


@pytest.mark.parametrize('method', METHODS)
def test_accept_and_reject_never_overlap(method):
  """Not even where both sides may err nearly always."""
  boundary = certify.boundary(method, 0.7, alpha=0.9, beta=0.9, max_samples=100)
  assert (boundary.reject < boundary.accept).all()


def test_group_sequential_spends_what_it_may():
  for p0 in P0:
    boundary = certify.boundary('group-sequential', p0, alpha=ALPHA, max_samples=125_000)
    assert 0.94e-3 < certify.boundary_error(never_rejecting(boundary), p0)[0] < 1e-3


def test_spending_counts_in_exact_rationals():
  """No budget is exceeded, and one success less at any look would exceed it."""
  looks, budgets = [4, 6, 9, 13, 14], [0.01, 0.02, 0.05, 0.06, 0.2]
  for p in (0.25, 0.5, 0.71):
    counts = _boundary_dp.spending_counts(looks, p, budgets)
    spent = lambda counts, p=p: rational_spending(looks, counts, Fraction(p))
    assert all(s <= Fraction(b) for s, b in zip(spent(counts), budgets, strict=True))
    for t in range(len(looks)):
      less = counts - (np.arange(len(looks)) == t)
      assert spent(less)[t] > Fraction(budgets[t])
  assert _boundary_dp.spending_counts([3], 0.5, [0.125]).tolist() == [4]  # Strictly below: margin.


def rational_spending(looks, counts, p):
  """Pr[accepted by look t], t = 0, 1, ..."""
  mass, drawn, spent, result = {0: Fraction(1)}, 0, Fraction(0), []
  for look, count in zip(looks, counts, strict=True):
    n, after = look - drawn, {}
    for (s, m), k in itertools.product(mass.items(), range(n + 1)):
      after[s + k] = after.get(s + k, 0) + m * comb(n, k) * p**k * (1 - p) ** (n - k)
    spent += sum(m for s, m in after.items() if s >= count)
    mass, drawn = {s: m for s, m in after.items() if s < count}, look
    result.append(spent)
  return result


# p0; exact errors by sample 8,000 of KT at ln 1/alpha, of KT at ln 1/(2 alpha), of the union bound.
PER_SAMPLE = [
  (0.5, 3.811e-4, 7.889e-4, 4.95e-5),
  (0.6, 3.497e-4, 6.489e-4, 4.11e-5),
  (0.8413, 2.342e-4, 4.670e-4, 2.19e-5),
  (0.9772, 7.875e-5, 1.591e-4, 8.84e-6),
]


@pytest.mark.parametrize('p0, krichevsky_trofimov, halved, union_bound', PER_SAMPLE)
def test_errors_when_looking_after_every_sample(p0, krichevsky_trofimov, halved, union_bound):
  """Known errors of the two-sided wealth; ours, one-sided, keeps alpha and wastes less of it."""
  looks = np.arange(1, 8001)

  def counts(threshold):
    def proves(s):
      wealth = special.betaln(s + 0.5, looks - s + 0.5) - special.betaln(0.5, 0.5)
      wealth -= special.xlogy(s, p0) + special.xlog1py(looks - s, -p0)
      return (wealth >= threshold) & (s >= p0 * looks)

    return _boundaries._smallest(proves, looks)

  error = lambda counts: certify.boundary_error(cumulative(looks, counts), p0)[0]
  assert error(counts(np.log(1 / ALPHA))) == pytest.approx(krichevsky_trofimov, abs=0.6e-7)
  assert error(counts(np.log(1 / (2 * ALPHA)))) == pytest.approx(halved, abs=0.6e-7)
  ours = _boundaries._betting(looks, p0, ALPHA)
  assert halved - 1e-7 < error(ours) < ALPHA
  times, _ = _boundaries._union_bound_looks(8000)
  times = times[:-1]  # The last look, at 8,000, is ours.
  accept = _boundaries._union_bound(times, p0, ALPHA)
  found = certify.boundary_error(cumulative(times, accept), p0)[0]
  assert found == pytest.approx(union_bound, abs=0.6e-7 if p0 < 0.9 else 0.6e-8)


@pytest.mark.parametrize('method', METHODS)
def test_acceptance_grows_with_p(method):
  """Also where rejections are heeded: the event grows with every success."""
  boundary = certify.boundary(method, 0.7, alpha=0.2, beta=0.4, max_samples=300)
  accepted = [certify.boundary_error(boundary, p)[0] for p in np.linspace(0.5, 0.99, 50)]
  assert (np.diff(accepted) > -1e-12).all() and accepted[0] < 1e-3 and accepted[-1] > 0.99


POWER = [  # method, probability to accept and expected samples at p = 0.85 and 0.95, p0 = 0.8413.
  ('group-sequential', 0.9999, 31_489, 154.2),
  ('betting', 0.9998, 40_312, 143.9),
  ('union-bound', 0.9998, 44_452, 207.6),
  ('horvath', 0.9999, 109_500, 919.0),
  ('fixed', 0.9999, 125_000, 125_000),
]


@pytest.mark.parametrize('method, power, near, far', POWER)
def test_power(method, power, near, far):
  boundary = certify.boundary(method, 0.8413, alpha=ALPHA, max_samples=125_000)
  for p, samples in ((0.85, near), (0.95, far)):
    accepted, _, expected = certify.boundary_error(boundary, p)
    assert accepted >= power and expected == pytest.approx(samples, rel=1e-3)
  assert method == 'fixed' or certify.boundary_error(boundary, 0.8)[1] > 0.999


def test_fixed_and_horvath_are_clopper_pearson():
  fixed = certify.boundary('fixed', 0.8413, alpha=ALPHA, max_samples=100_000)
  rounds = certify.boundary('horvath', 0.8413, alpha=ALPHA, max_samples=136_000)
  assert (rounds.looks - rounds.starts).tolist() == [1000, 10_000, 125_000]
  for boundary, alpha in ((fixed, ALPHA), (rounds, ALPHA / 3)):
    sizes = boundary.looks - boundary.starts
    assert (certify.clopper_pearson(boundary.accept, sizes, alpha=alpha) >= 0.8413).all()
    assert (certify.clopper_pearson(boundary.accept - 1, sizes, alpha=alpha) < 0.8413).all()
  early = slice(0, 2)  # The last round never rejects.
  upper = lambda k: certify.clopper_pearson_upper(k, [1000, 10_000], alpha=1e-4 / 2)
  assert (upper(rounds.reject[early]) < 0.8413).all() and rounds.reject[2] == -1
  assert (upper(rounds.reject[early] + 1) > 0.8413).all()


def test_boundaries_are_cached_and_read_only():
  make = lambda **options: certify.boundary('betting', 0.7, alpha=ALPHA, max_samples=500, **options)
  assert make() is make(beta=ALPHA)
  with pytest.raises(ValueError, match='read-only'):
    make().accept[0] = 0


NEEDED = [
  ('fixed', 20), ('group-sequential', 20), ('betting', 23), ('union-bound', 35), ('horvath', 23),
]  # fmt: skip


@pytest.mark.parametrize('method, needed', NEEDED)
def test_too_few_samples(method, needed):
  with pytest.raises(ValueError, match=rf'`max_samples`=5 can never prove .* {needed} are needed'):
    certify.boundary(method, 0.7, alpha=ALPHA, max_samples=5)
  certify.boundary(method, 0.7, alpha=ALPHA, max_samples=needed)
  with pytest.raises(ValueError, match='can never prove'):
    certify.boundary(method, 0.7, alpha=ALPHA, max_samples=needed - 1)


def test_no_number_of_samples_is_enough():
  with pytest.raises(ValueError, match='more than 100000000 are needed'):
    certify.boundary('fixed', 1 - 1e-10, alpha=ALPHA, max_samples=1000)


GOOD = dict(method='betting', p0=0.7, alpha=ALPHA, max_samples=1000)
BAD = [
  (dict(method='kt'), "`method`='kt' is unknown: choose from group-sequential, betting"),
  (dict(p0=1.0), r'`p0` is a probability in \(0, 1\), got p0=1.0'),
  (dict(p0=np.nan), 'got p0=nan'),
  (dict(alpha=0.0), r'`alpha` is a failure probability in \[1e-30, 1\), got alpha=0.0'),
  (dict(alpha=np.nan), 'got alpha=nan'),
  (dict(beta=1.0), 'got beta=1.0'),
  (dict(max_samples=0), '`max_samples` must lie in 1 .. 100000000, got 0'),
  (dict(max_samples=1e3), '`max_samples` must be an integer, got 1000.0'),
]


@pytest.mark.parametrize('change, said', BAD)
def test_bad_arguments(change, said):
  with pytest.raises(ValueError, match=said):
    certify.boundary(**{**GOOD, **change})


def test_extreme_arguments_stay_sound():
  for p0 in (1e-300, 1e-17, 1e-6, 0.999):
    for method in METHODS:
      boundary = certify.boundary(method, p0, alpha=1e-12, beta=0.9, max_samples=50_000)
      assert certify.boundary_error(never_rejecting(boundary), p0)[0] <= 1e-12
      assert (boundary.accept > 0).all()
  with pytest.raises(ValueError, match=r'`p` is a probability in \[0, 1\], got p=nan'):
    certify.boundary_error(boundary, np.nan)


def test_needs_no_jax():
  script = (
    "import sys; sys.modules['jax'] = None; from certjax import certify; "
    "certify.boundary('betting', 0.7, alpha=1e-3, max_samples=99); certify.confidence_sequence"
  )
  subprocess.run([sys.executable, '-c', script], check=True)


# Confidence sequences.

LOOKS = _boundaries._geometric_looks(2000)[0]


def test_wealth_in_fifty_digits():
  """Against the mixture's integral; both sides of 1 / alpha for the smallest count that proves."""
  mpmath = pytest.importorskip('mpmath')
  with mpmath.workdps(50):
    for n, p0 in ((30, 0.5), (200, 0.8413), (1500, 0.9772)):
      s = int(_boundaries._betting(np.array([n]), p0, ALPHA)[0])
      p = mpmath.mpf(p0)

      def wealth(s, n=n, p=p):
        part = lambda a, b: mpmath.betainc(a, b, p, 1)
        half = mpmath.mpf(1) / 2
        against = p**s * (1 - p) ** (n - s)
        return part(s + half, n - s + half) / part(half, half) / against

      assert wealth(s) >= 1 / ALPHA > wealth(s - 1)
      prior = lambda q: 1 / mpmath.sqrt(q * (1 - q))
      weighted = lambda q, s=s, n=n, p=p, prior=prior: (
        (q / p) ** s * ((1 - q) / (1 - p)) ** (n - s) * prior(q)
      )
      mean = mpmath.quad(weighted, [p, mpmath.mpf(s) / n, 1]) / mpmath.quad(prior, [p, 1])
      assert float(mean / wealth(s)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize('n', [1, 2, 10, 100, 3000])
def test_what_the_wealth_refutes_is_an_interval(n):
  """From 0 up to the bound, for the largest alpha allowed."""
  p0 = np.concatenate([np.geomspace(1e-9, 1e-2, 500), np.linspace(0.01, 1, 2000)[:-1]])
  for s in np.unique(np.linspace(0, n, 9).astype(int)):
    refuted = sequence.log_wealth_proves(s, n, p0, 0.5)
    assert (np.diff(refuted.astype(int)) <= 0).all()


@pytest.mark.parametrize('method', ['betting', 'union-bound'])
def test_bound_reaches_p0_where_the_boundary_accepts(method):
  looks = _boundaries._LOOKS[method](20_000)[0]
  for p0 in P0:
    accept = _boundaries.METHODS[method](looks, p0, ALPHA)
    look = np.flatnonzero(accept <= looks)
    assert len(look)
    bound = lambda counts, look=look, looks=looks: certify.confidence_sequence(
      method, counts, look, looks, alpha=ALPHA
    )[0]
    assert (bound(accept[look]) >= p0 - 1e-15).all() and (bound(accept[look] - 1) < p0).all()


@pytest.mark.parametrize('method', ['betting', 'union-bound'])
@pytest.mark.parametrize('alpha', [0.3, ALPHA])
def test_exact_coverage_of_the_sequence(method, alpha):
  """Pr[lower > p or upper < p at some look], each side by DP over all counts of all looks."""
  looks = LOOKS[LOOKS < 300]
  counts, look = np.arange(300)[:, None], np.arange(len(looks))
  lower, upper = certify.confidence_sequence(
    method, np.minimum(counts, looks), look, looks, alpha=alpha, beta=alpha / 2
  )
  assert (lower <= upper).all() and (lower >= 0).all() and (upper <= 1).all()
  for p in (0.02, 0.5, 0.8413, 0.9772):
    missed = np.where(counts <= looks, lower > p, True)
    low = certify.boundary_error(cumulative(looks, np.argmax(missed, axis=0)), p)[0]
    missed = np.where(counts <= looks, upper < p, False)
    boundary = cumulative(looks, looks + 1, missed.sum(axis=0) - 1)
    high = certify.boundary_error(boundary, p)[1]
    assert low <= alpha and high <= alpha / 2
    if method == 'betting' and p in (0.5, 0.8413):
      assert low > alpha / 20  # Not for want of trying.


def test_coverage_of_the_sequence_by_simulation():
  """10^5 runs of 49 looks at alpha = 0.05: misses above 5,500 have probability below 1e-12."""
  rng = np.random.default_rng(0)
  p = 0.9
  counts = np.cumsum(rng.binomial(np.diff(LOOKS, prepend=0), p, (100_000, len(LOOKS))), axis=1)
  largest = np.array([np.unique(column, return_inverse=True) for column in counts.T], object)
  ever = np.zeros(len(counts), bool)
  for look, (unique, inverse) in enumerate(largest):
    lower, _ = certify.confidence_sequence('betting', unique, look, LOOKS, alpha=0.05)
    ever |= (lower > p)[inverse]
  assert 1_000 < ever.sum() < 5_500


def test_one_look_is_clopper_pearson_at_its_share():
  lower, upper = certify.confidence_sequence('union-bound', [90, 0, 100], 0, [100], alpha=0.06)
  expected = certify.clopper_pearson([90, 0, 100], 100, alpha=0.06 / 6)
  np.testing.assert_allclose(lower, expected, rtol=1e-8)
  assert (lower <= expected).all()
  mirrored = certify.clopper_pearson_upper([90, 0, 100], 100, alpha=0.06 / 6)
  np.testing.assert_allclose(upper, mirrored, rtol=1e-8)
  assert (upper >= mirrored).all()


def test_tolerance():
  """It stops once the proved radius is within the fraction of the limit, and not before."""
  radius = lambda p: np.maximum(stats.norm.ppf(p), 0.0)
  met = lambda counts, look, tolerance: certify.tolerance_met(
    'betting', radius, counts, look, LOOKS, alpha=ALPHA, tolerance=tolerance
  )[0]
  last = len(LOOKS) - 1
  assert met(LOOKS[last], last, 1e-9)  # At the end, with all successes, the limit is the bound.
  assert not met(LOOKS[0], 0, 0.3) and met(LOOKS[last - 5], last - 5, 0.1)
  assert met(0, 9, 0.01)  # No radius in reach: nothing to wait for.
  look = np.arange(len(LOOKS))
  stopped = [met(np.round(0.9 * LOOKS).astype(int), look, t) for t in (0.05, 0.1, 0.3)]
  assert stopped[0].sum() < stopped[1].sum() < stopped[2].sum()
  bounds = lambda counts, look: certify.confidence_sequence(
    'betting', counts, look, LOOKS, alpha=ALPHA
  )
  counts = np.round(0.9 * LOOKS).astype(int)
  lower, upper = bounds(counts, look)
  limit, _ = bounds(counts + LOOKS[-1] - LOOKS, last)
  reachable = radius(np.minimum(upper, limit))
  np.testing.assert_array_equal(stopped[2], radius(lower) >= 0.7 * reachable)
  assert (limit < upper).any() and (limit > upper).any()  # Each of the two ends some sampling.


BAD_SEQUENCE = [
  (dict(method='horvath'), "`method`='horvath' is unknown: choose from betting, union-bound"),
  (dict(alpha=0.6), r'`alpha` must lie in \(0, 1/2\], got alpha=0.6'),
  (dict(beta=0.0), 'got beta=0.0'),
  (dict(successes=101), r'`successes` must lie in \[0, samples drawn\], got 101 of 100'),
  (dict(successes=np.nan), 'got nan of 100'),
  (dict(look=2), r'`look` must lie in 0 .. 1, got \[2\]'),
  (dict(looks=[100, 100]), r'`looks` must be increasing sample numbers from 1, got \[100, 100\]'),
]


@pytest.mark.parametrize('change, said', BAD_SEQUENCE)
def test_bad_arguments_of_the_sequence(change, said):
  good = dict(method='betting', successes=5, look=0, looks=[100, 200], alpha=ALPHA)
  with pytest.raises(ValueError, match=said):
    certify.confidence_sequence(**{**good, **change})


def test_bad_tolerance():
  with pytest.raises(ValueError, match=r'`tolerance` is a fraction in \(0, 1\), got tolerance=1'):
    certify.tolerance_met('betting', None, 5, 0, [9], alpha=ALPHA, tolerance=1)


# Real images.


def test_samples_on_published_radii(shared):
  """Exact expectations on every tenth image: at least 10 times fewer than 100,000."""
  from certjax import report

  logs = shared / 'logs/cohen_logs/data/certify'
  for path, radius in (('cifar10/resnet110', 0.5), ('imagenet/resnet50', 1.0)):
    run = report.load(logs / path / 'noise_0.50/test/sigma_0.50')
    radii = run.certificate.radius[run.certificate.label >= 0][::10]
    p = stats.norm.cdf(radii / 0.5)
    p0 = float(np.nextafter(stats.norm.cdf(radius / 0.5), 1))
    boundary = certify.boundary('group-sequential', p0, alpha=ALPHA, max_samples=125_000)
    accepted, _, samples = np.array([certify.boundary_error(boundary, each) for each in p]).T
    assert samples.mean() < 10_000
    assert abs(accepted.sum() - (radii > radius).sum()) < 1.5
