import subprocess
import sys

import numpy as np
import pytest
import scipy

from certjax import report
from certjax.certify import certificate


def _brute_force(proved, labels, radii):
  """Counts images one by one."""
  counts = []
  for r in radii:
    rows = zip(proved.label, proved.radius, labels, strict=True)
    counts.append(sum(label == true and radius >= r for label, radius, true in rows))
  return np.array(counts) / len(labels)


def _random_run(seed, num_images=60, num_classes=3):
  """Radii on a coarse grid, so that many equal the asked ones; wrong labels and abstentions."""
  draw = np.random.default_rng(seed)
  label = draw.integers(-1, num_classes, num_images)
  radius = draw.integers(0, 8, num_images) / 8
  return certificate(label, np.where(label < 0, 0, radius)), draw.integers(
    0, num_classes, num_images
  )


@pytest.mark.parametrize('seed', range(5))
def test_accuracy_against_counting(seed):
  proved, labels = _random_run(seed)
  radii = np.arange(10) / 8
  accuracy = report.certified_accuracy(proved, labels, radii)
  assert accuracy.dtype == np.float64
  np.testing.assert_array_equal(accuracy, _brute_force(proved, labels, radii))
  assert report.clean_accuracy(proved, labels) == np.mean(proved.label == labels)
  assert report.abstention_rate(proved) == np.mean(proved.label == -1)
  # The average certified radius is the area under the curve.
  fine = (np.arange(16) + 0.5) / 16
  area = report.certified_accuracy(proved, labels, fine).sum() / 16
  assert report.average_certified_radius(proved, labels) == pytest.approx(area, abs=1e-12)


def test_inclusive_and_all_images_in_the_denominator():
  proved = certificate([3, 1, 7, -1], [0.5, 0.9, 0.25, 0.0])
  labels = [3, 2, 7, -1]  # A label of -1 does not make an abstention correct.
  above = np.nextafter(0.5, 1)
  radii = [-1.0, -np.inf, 0.0, 0.25, 0.5, above, 0.9, np.inf]
  accuracy = report.certified_accuracy(proved, labels, radii)
  np.testing.assert_array_equal(accuracy, [0.5, 0.5, 0.5, 0.5, 0.25, 0, 0, 0])
  assert report.certified_accuracy(proved, labels, 0.5).shape == ()
  assert report.average_certified_radius(proved, labels) == 0.75 / 4


def test_infinite_radii():
  proved = certificate([1, 1], [np.inf, 2.0])
  np.testing.assert_array_equal(
    report.certified_accuracy(proved, [1, 1], [2, 3, np.inf]), [1, 0.5, 0.5]
  )
  assert report.average_certified_radius(proved, [1, 1]) == np.inf
  assert report.average_certified_radius(proved, [2, 1]) == 1.0


def test_arguments_are_checked():
  proved = certificate([1, 1], [0.5, 0.5])
  with pytest.raises(ValueError, match=r'shape \(3,\), the certificate \(2,\)'):
    report.certified_accuracy(proved, [1, 1, 1], 0)
  with pytest.raises(ValueError, match='must be numbers'):
    report.certified_accuracy(proved, [1, 1], np.nan)
  with pytest.raises(ValueError, match='no images'):
    report.certified_accuracy(certificate([], []), [], 0)
  with pytest.raises(ValueError, match='no images'):
    report.abstention_rate(certificate([], []))
  with pytest.raises(ValueError, match='level'):
    report.band(proved, [1, 1], 0, level=95)
  with pytest.raises(ValueError, match='rho'):
    report.high_probability_accuracy(0.5, 100, rho=0)


def test_high_probability_accuracy_as_published():
  bound = report.high_probability_accuracy(
    [0.572, 0.458, 0.372, 0.286], 500, alpha=0.001, rho=0.001
  )
  np.testing.assert_array_equal(bound.round(6), [0.562680, 0.448680, 0.362680, 0.276680])
  assert report.high_probability_accuracy(0.0, 500) == 0.0


@pytest.mark.parametrize('alpha', [0.01, 0.001, 0.0001])
@pytest.mark.parametrize('num_images', [10, 427, 500, 2_000, 10_000, 50_000])
def test_high_probability_accuracy_keeps_its_promise(alpha, num_images):
  """All certificates are of no worth: how often does the share of false ones pass the allowance?"""
  allowance = 1 - report.high_probability_accuracy(1.0, num_images, alpha=alpha)
  false = np.floor(allowance * num_images + 1e-6)
  assert scipy.stats.binom.sf(false, num_images, alpha) <= 0.001


def test_the_published_allowance_alone_would_not_keep_it():
  alpha, num_images, log = 0.001, 10_000, np.log(1000)
  published = alpha + np.sqrt(alpha * (1 - alpha) * log / num_images) + log / (3 * num_images)
  assert scipy.stats.binom.sf(np.floor(published * num_images), num_images, alpha) > 0.0015
  assert report.high_probability_accuracy(1.0, num_images) < 1 - published


def _violations(draw_radii, truth, num_draws=2_000, num_images=200):
  """How often the band misses the true curve anywhere. The sup is reached at or beside a radius."""
  rng, label, missed = np.random.default_rng(0), np.zeros(num_images, np.int64), 0
  for _ in range(num_draws):
    correct, radius = draw_radii(rng, num_images)
    proved = certificate(np.where(correct, 0, 1), radius)
    at = np.concatenate([[0.0], radius, np.nextafter(radius, np.inf)])
    lower, upper = report.band(proved, label, at, level=0.95)
    missed += bool(np.any((lower > truth(at) + 1e-12) | (upper < truth(at) - 1e-12)))
  return missed / num_draws


def test_band_covers_the_curve_and_is_tight():
  # Continuous radii, where the inequality is asymptotically sharp. False alarm of the upper
  # limit: the miss rate is at most .05, and Binomial(2000, .05) > 149 has probability 1e-6; of the
  # lower: the true rate is about .045, and Binomial(2000, .045) < 50 has probability 1e-6.
  rate = _violations(
    lambda rng, n: (np.ones(n, bool), rng.random(n)), lambda r: np.clip(1 - r, 0, 1)
  )
  assert 0.025 <= rate <= 0.0745


def test_band_covers_with_misses_and_atoms():
  # Four in ten are wrong, radii sit on a few values. False alarm as above, 1e-6.
  def draw(rng, n):
    return rng.random(n) < 0.6, rng.integers(0, 4, n) / 4

  def truth(r):
    return 0.6 * np.clip(4 - np.ceil(4 * r), 0, 4) / 4

  assert _violations(draw, truth) <= 0.0745


def test_band_is_clipped_and_speaks_of_n():
  proved = certificate([1] * 50, [1.0] * 50)
  lower, upper = report.band(proved, [1] * 50, [0.5, 2.0], level=0.9)
  half = np.sqrt(np.log(20) / 100)
  np.testing.assert_allclose([*lower, *upper], [1 - half, 0, 1, half])


def test_report_needs_no_jax_and_plots_are_imported_late():
  code = (
    "import sys; sys.modules['jax'] = None; sys.modules['jaxlib'] = None\n"
    'import certjax.report, certjax.records\n'
    "assert 'matplotlib' not in sys.modules"
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_public_names():
  assert sorted(report.__all__) == report.__all__
  assert all(hasattr(report, name) for name in report.__all__)
