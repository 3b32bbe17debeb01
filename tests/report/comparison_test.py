import numpy as np
import pytest
import scipy

from certjax import report
from certjax.certify import certificate


def _pair(seed, num_images=80):
  draw = np.random.default_rng(seed)
  labels = draw.integers(0, 3, num_images)
  return [
    certificate(draw.integers(-1, 3, num_images), draw.integers(0, 6, num_images) / 5)
    for _ in range(2)
  ] + [labels]


def _run(name, index, labels, proved, header=None):
  return report.Run(name, np.array(index), np.array(labels), proved, None, header)


@pytest.mark.parametrize('seed', range(4))
def test_counts_and_mcnemar_by_brute_force(seed):
  a, b, labels = _pair(seed)
  radii = np.arange(6) / 5
  found = report.compare(a, b, labels, radii)
  for i, r in enumerate(radii):
    holds_a = (a.label == labels) & (a.radius >= r)
    holds_b = (b.label == labels) & (b.radius >= r)
    only_a, only_b = np.sum(holds_a & ~holds_b), np.sum(~holds_a & holds_b)
    assert (found.only_a[i], found.only_b[i]) == (only_a, only_b)
    # Two-sided binomial test at 1/2, written out: both tails are equal.
    total, least = only_a + only_b, min(only_a, only_b)
    tail = sum(scipy.special.comb(total, k, exact=True) for k in range(least + 1)) / 2 ** int(total)
    assert found.p_value[i] == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert found.difference[i] == pytest.approx(np.mean(holds_a) - np.mean(holds_b), abs=1e-15)
    assert found.lower[i] <= found.difference[i] <= found.upper[i]
  np.testing.assert_array_equal(found.accuracy_a, report.certified_accuracy(a, labels, radii))
  np.testing.assert_array_equal(found.accuracy_b, report.certified_accuracy(b, labels, radii))
  acr = [report.average_certified_radius(proved, labels) for proved in (a, b)]
  assert found.radius_difference == pytest.approx(acr[0] - acr[1], abs=1e-15)
  credit = [np.where(proved.label == labels, proved.radius, 0) for proved in (a, b)]
  interval = scipy.stats.ttest_rel(*credit).confidence_interval(0.95)
  assert (found.radius_lower, found.radius_upper) == pytest.approx(tuple(interval))


def test_p_value_equals_scipy():
  # 7 images only a certifies, 2 only b.
  a = certificate([0] * 20, [1.0] * 7 + [0.0] * 2 + [1.0] * 11)
  b = certificate([0] * 20, [0.0] * 7 + [1.0] * 2 + [1.0] * 11)
  found = report.compare(a, b, [0] * 20, 0.5)
  assert (found.only_a[0], found.only_b[0]) == (7, 2)
  assert found.p_value[0] == scipy.stats.binomtest(7, 9).pvalue
  same = report.compare(a, a, [0] * 20, [0.5])
  assert same.p_value[0] == 1.0 and same.difference[0] == 0.0 and same.radius_lower == 0.0


def test_holm_by_hand():
  # Ten disagreements of one side each at rising radii give p = 2^(1 - n).
  a = certificate([0] * 12, [0.1] + [0.2] * 4 + [0.3] * 5 + [0.9] * 2)
  b = certificate([0] * 12, [0.0] * 10 + [0.9] * 2)
  found = report.compare(a, b, [0] * 12, [0.1, 0.2, 0.3, 0.5])
  np.testing.assert_array_equal(found.only_a, [10, 9, 5, 0])
  np.testing.assert_allclose(found.p_value, [2**-9, 2**-8, 2**-4, 1])
  np.testing.assert_allclose(found.p_adjusted, [4 * 2**-9, 3 * 2**-8, 2 * 2**-4, 1])
  # Equal p-values stay equal, though the factor falls from one to the next.
  found = report.compare(a, b, [0] * 12, [0.3, 0.3])
  np.testing.assert_allclose(found.p_adjusted, [2 * 2**-4] * 2)


def test_interval_of_the_difference_is_conservative():
  """Exact coverage: sums the trinomial law of (only a, only b) over every outcome."""
  num_images, level = 30, 0.9
  counts = np.array([(i, j) for i in range(31) for j in range(31 - i)])
  intervals = {}
  for i, j in counts:
    a = certificate([0] * num_images, [1.0] * i + [0.0] * (num_images - i))
    b = certificate([0] * num_images, [0.0] * i + [1.0] * j + [0.0] * (num_images - i - j))
    found = report.compare(a, b, [0] * num_images, 0.5, level=level)
    intervals[i, j] = found.lower[0], found.upper[0]
  low, high = np.array([intervals[i, j] for i, j in counts]).T
  for p_a, p_b in ((0.3, 0.1), (0.05, 0.05), (0.5, 0.5), (0.9, 0.0), (0.0, 0.0), (0.2, 0.6)):
    law = scipy.stats.multinomial(num_images, [p_a, p_b, max(0.0, 1 - p_a - p_b)])
    mass = law.pmf(np.column_stack([counts, num_images - counts.sum(1)]))
    assert mass.sum() == pytest.approx(1)
    true = p_a - p_b
    missed = mass[(low > true + 1e-12) | (high < true - 1e-12)].sum()
    assert missed <= 1 - level, (p_a, p_b, missed)


def test_infinite_radii_and_one_image():
  a, b = certificate([0, 0], [np.inf, 1.0]), certificate([0, 0], [np.inf, 0.5])
  found = report.compare(a, b, [0, 0], [np.inf, 1.0])
  assert found.radius_difference == 0.25 and np.isfinite(found.radius_upper)
  assert np.isnan(report.compare(b, certificate([0, 0], [1.0, 1.0]), [0, 0], 0).radius_lower)
  assert np.isnan(report.compare(certificate([0], [1]), certificate([0], [2]), [0], 0).radius_upper)


def test_other_images_are_refused():
  proved = certificate([0] * 4, [1.0] * 4)
  a = _run('a', [0, 1, 2, 3], [0] * 4, proved)
  with pytest.raises(ValueError, match='4 indices are in one only, first 0'):
    report.compare_runs(a, _run('b', [2, 3, 4, 5], [0] * 4, proved))
  with pytest.raises(ValueError, match='2 images other labels, first index 1'):
    report.compare_runs(a, _run('b', [0, 1, 2, 3], [0, 1, 0, 1], proved))
  l2, l1 = ({'norm': norm} for norm in ('l2', 'l1'))
  with pytest.raises(ValueError, match='runs differ in `norm`'):
    report.compare_runs(a._replace(header=l2), _run('b', [0, 1, 2, 3], [0] * 4, proved, l1))
  with pytest.raises(ValueError, match='shape'):
    report.compare(proved, certificate([0], [1]), [0] * 4, [0.5])


def test_markdown():
  a, b, labels = _pair(0)
  index = range(len(labels))
  found = report.compare_runs(_run('a', index, labels, a), _run('b', index, labels, b))
  text = report.comparison_markdown(found, ('first', 'second'))
  rows = [line for line in text.splitlines() if line.startswith('|')]
  assert len({row.count('|') for row in rows}) == 1
  assert len(rows) == 2 + found.radii.size
  assert text.startswith('A: first. B: second. Paired on 80 images.')
  assert f'{found.radius_difference:+.4f}' in text
