"""Two runs on the same images, image by image: which one certifies more, and is that chance?

At one radius only the images that one run certifies and the other does not speak: McNemar's exact
test. Paired, the same difference is often clear where two separate intervals overlap.
"""

from typing import NamedTuple

import numpy as np
import scipy

from certjax.report._accuracy import proved_radius
from certjax.report._run import common_setting
from certjax.report._table import default_radii
from certjax.report._tsv import floor_decimals


class Comparison(NamedTuple):
  """What `compare` finds; arrays run over the radii, a difference is a minus b.

  Attributes:
    radii: float64[R].
    accuracy_a: float64[R], certified accuracy of a.
    accuracy_b: float64[R], certified accuracy of b.
    only_a: int64[R], images that a certifies up to the radius and b does not.
    only_b: int64[R], the reverse.
    difference: float64[R], accuracy_a - accuracy_b.
    lower: float64[R], confidence bounds of the difference at each radius.
    upper: float64[R].
    p_value: float64[R], McNemar's exact test at each radius.
    p_adjusted: float64[R], the same by Holm's method over all radii.
    radius_difference: mean of the difference of certified radii (ACR of a minus ACR of b).
    radius_lower: confidence bounds of that mean.
    radius_upper: float.
    num_images: int.
    level: float, confidence of each interval.
  """

  radii: np.ndarray
  accuracy_a: np.ndarray
  accuracy_b: np.ndarray
  only_a: np.ndarray
  only_b: np.ndarray
  difference: np.ndarray
  lower: np.ndarray
  upper: np.ndarray
  p_value: np.ndarray
  p_adjusted: np.ndarray
  radius_difference: float
  radius_lower: float
  radius_upper: float
  num_images: int
  level: float


def compare(a, b, labels, radii, *, level=0.95):
  r"""Paired comparison of two lists of certificates of the same images.

  The interval of a difference of accuracies is conservative at every sample size: the shares of
  images that only a and only b certify each get Clopper-Pearson bounds at a quarter of 1 - level a
  side, and

    lower = L(only a) - U(only b),   upper = U(only a) - L(only b).

  It can contain 0 where the test already rejects. The interval of the mean radius difference is
  Student's t on the paired differences: approximate, NaN for a single image or infinite radii.

  Args:
    a: `Certificate` of arrays [N].
    b: `Certificate` of the same images.
    labels: int[N], the true labels.
    radii: float[R].
    level: confidence of each interval.

  Returns:
    A `Comparison`.

  Example:
    >>> from certjax.certify import certificate
    >>> a, b = certificate([1] * 8, [0.5] * 8), certificate([1] * 8, [0.5] + [0.2] * 7)
    >>> both = compare(a, b, [1] * 8, [0.0, 0.5])
    >>> both.only_a, both.only_b, both.p_value
    (array([0, 7]), array([0, 0]), array([1.      , 0.015625]))

  References:
    McNemar 1947; Holm 1979.
  """
  radii = np.atleast_1d(np.asarray(radii, np.float64))
  proved_a, proved_b = proved_radius(a, labels), proved_radius(b, labels)
  holds_a, holds_b = (p >= np.maximum(radii, 0.0)[:, None] for p in (proved_a, proved_b))
  only_a, only_b = (holds_a & ~holds_b).sum(1), (holds_b & ~holds_a).sum(1)
  accuracy_a, accuracy_b = holds_a.mean(1), holds_b.mean(1)
  p_value = np.array([_mcnemar(*pair) for pair in zip(only_a, only_b, strict=True)])
  num_images = proved_a.size
  lower, upper = _paired_interval(only_a, only_b, num_images, level)
  return Comparison(
    radii=radii,
    accuracy_a=accuracy_a,
    accuracy_b=accuracy_b,
    only_a=only_a,
    only_b=only_b,
    difference=(only_a - only_b) / num_images,
    lower=lower,
    upper=upper,
    p_value=p_value,
    p_adjusted=_holm(p_value),
    **_mean_difference(np.maximum(proved_a, 0.0), np.maximum(proved_b, 0.0), level),
    num_images=num_images,
    level=level,
  )


def compare_runs(a, b, radii=None, *, level=0.95):
  """`compare` for two `Run`s, after checking that they are of the same images.

  Args:
    a: a `Run`.
    b: a `Run` of the same images.
    radii: float[R], by default multiples of a round step up to the largest certified radius.
    level: confidence of each interval.

  Returns:
    A `Comparison`.

  Raises:
    ValueError: if indices or labels differ, saying how many; or norms or units.

  Example:
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> index, labels = np.arange(8), np.full(8, 1)
    >>> a = Run('a', index, labels, certificate(labels, [0.5] * 8))
    >>> b = Run('b', index, labels, certificate(labels, [0.5] + [0.2] * 7))
    >>> compare_runs(a, b, [0.0, 0.5]).only_a
    array([0, 7])
  """
  different = np.setxor1d(a.index, b.index)
  if different.size:
    raise ValueError(
      f'{a.name} ({a.index.size} images) and {b.name} ({b.index.size}) are not of the same images: '
      f'{different.size} indices are in one only, first {different[0]}; compare runs of one list'
    )
  wrong = np.flatnonzero(a.labels != b.labels)
  if wrong.size:
    raise ValueError(
      f'{a.name} and {b.name} give {wrong.size} images other labels, first index '
      f'{a.index[wrong[0]]}: not the same data set'
    )
  for key in ('norm', 'unit'):
    common_setting([a, b], key)
  radii = default_radii([a, b]) if radii is None else radii
  return compare(a.certificate, b.certificate, a.labels, radii, level=level)


def comparison_markdown(comparison, names=('A', 'B')):
  """A `Comparison` as a markdown table with the sentence on the mean radius.

  Args:
    comparison: what `compare` returned.
    names: of the two runs.

  Returns:
    The text.

  Example:
    >>> from certjax.certify import certificate
    >>> a, b = certificate([1] * 8, [0.5] * 8), certificate([1] * 8, [0.5] + [0.2] * 7)
    >>> text = comparison_markdown(compare(a, b, [1] * 8, [0.5]), ('ours', 'theirs'))
    >>> print(text.splitlines()[-3])
    | 0.5000 | 1.0000 | 0.1250 | 7 | 0 | +0.8750 | +0.0028 to +0.9984 | 0.016 | 0.016 |
  """
  c = comparison
  lines = [
    f'A: {names[0]}. B: {names[1]}. Paired on {c.num_images} images.',
    '',
    f'| radius | A | B | only A | only B | A - B | {c.level:.0%} interval | p | p (Holm) |',
    '| ---: ' * 9 + '|',
  ]
  for i, radius in enumerate(c.radii):
    lines.append(
      f'| {floor_decimals(radius, 4)} | {c.accuracy_a[i]:.4f} | {c.accuracy_b[i]:.4f} '
      f'| {c.only_a[i]} | {c.only_b[i]} | {c.difference[i]:+.4f} '
      f'| {c.lower[i]:+.4f} to {c.upper[i]:+.4f} | {c.p_value[i]:.2g} | {c.p_adjusted[i]:.2g} |'
    )
  lines += [
    '',
    f'Mean radius, A - B: {c.radius_difference:+.4f} ({c.level:.0%} interval '
    f'{c.radius_lower:+.4f} to {c.radius_upper:+.4f}, paired t). p: exact McNemar test. '
    'Intervals of A - B: Clopper-Pearson on both kinds of disagreement, conservative.',
  ]
  return '\n'.join(lines) + '\n'


def _mcnemar(only_a, only_b):
  """Two-sided p-value of `only_a` among all disagreements, if either side were as likely."""
  total = int(only_a + only_b)
  return scipy.stats.binomtest(int(only_a), total, 0.5).pvalue if total else 1.0


def _paired_interval(only_a, only_b, num_images, level):
  """Bounds of P[only a] - P[only b]; Bonferroni over the two shares."""
  each = (1 + level) / 2  # Two-sided on each share: a quarter of 1 - level on each side.

  def bounds(counts):
    tests = (scipy.stats.binomtest(int(count), num_images) for count in counts)
    return np.array([test.proportion_ci(each, method='exact') for test in tests]).T

  (lower_a, upper_a), (lower_b, upper_b) = bounds(only_a), bounds(only_b)
  return lower_a - upper_b, upper_a - lower_b


def _holm(p_value):
  """Holm's step-down adjustment: the family of radii errs with at most the given level."""
  order = np.argsort(p_value, kind='stable')
  factors = np.arange(p_value.size, 0, -1)
  adjusted = np.empty_like(p_value)
  adjusted[order] = np.maximum.accumulate(np.minimum(p_value[order] * factors, 1.0))
  return adjusted


def _mean_difference(radius_a, radius_b, level):
  """Mean of the paired differences, with Student's interval."""
  same = radius_a == radius_b  # Also both infinite.
  difference = np.subtract(radius_a, radius_b, out=np.zeros_like(radius_a), where=~same)
  mean = float(np.mean(difference))
  half = np.nan
  if difference.size > 1 and np.isfinite(difference).all():
    error = np.std(difference, ddof=1) / np.sqrt(difference.size)
    half = float(error * scipy.stats.t.ppf((1 + level) / 2, difference.size - 1))
  return {
    'radius_difference': mean,
    'radius_lower': mean - half,
    'radius_upper': mean + half,
  }
