"""The table of a certification paper: certified accuracy at a few radii, one run per row."""

import csv as csv_module
import io
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from certjax.report._accuracy import (
  abstention_rate,
  average_certified_radius,
  certified_accuracy,
  high_probability_accuracy,
  median_radius,
  proved_radius,
)
from certjax.report._run import common_setting
from certjax.report._tsv import floor_decimals

_MAX_COLUMNS = 12
_ROUND_STEPS = ('1', '2', '2.5', '5')
_DEFAULT_ALPHA = 0.001
_MEDIAN_UNITS = ('pixels', 'features', 'mass', 'samples')
"""Of threats whose papers report the median certified radius."""


class Row(NamedTuple):
  """One run of a `Table`.

  Attributes:
    name: the run's.
    num_images: N.
    accuracy: float64[R], certified accuracy at the radii of the table.
    high_probability: float64[R], see `high_probability_accuracy`; None for exact certificates.
    average_radius: average certified radius.
    abstention: share of images without a certificate.
    seconds: mean per image, None where no time was recorded.
    alpha: failure probability of each certificate, None where the header does not say.
    exact: whether nothing was sampled.
    median: median certified radius over all images, None where more than half have none.
  """

  name: str
  num_images: int
  accuracy: np.ndarray
  high_probability: np.ndarray | None
  average_radius: float
  abstention: float
  seconds: float | None
  alpha: float | None
  exact: bool
  median: float | None


class Table(NamedTuple):
  """Runs at common radii: `radii` float64[R], `rows` a list of `Row`, `norm` and `unit` or ''."""

  radii: np.ndarray
  rows: list
  norm: str
  unit: str


def table(runs, radii=None, *, rho=0.001):
  """Computes what a paper's table shows.

  Args:
    runs: a list of `Run`.
    radii: float[R], by default `default_radii(runs)`.
    rho: failure probability of the high-probability accuracies.

  Returns:
    A `Table`.

  Raises:
    ValueError: if there is no run, a run has no images, or runs differ in norm or unit.

  Example:
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> labels = np.array([3, 1])
    >>> found = table([Run('a', np.arange(2), labels, certificate(labels, [0.5, 0.25]))], [0.0, 0.5])
    >>> found.rows[0].accuracy, round(float(found.rows[0].average_radius), 6)
    (array([1. , 0.5]), 0.375)
  """
  if not runs:
    raise ValueError('`runs` is empty: a table needs at least one')
  for run in runs:
    if not run.index.size:
      raise ValueError(f'{run.name} holds no image yet; certify at least one')
  norm, unit = common_setting(runs, 'norm'), common_setting(runs, 'unit')
  radii = default_radii(runs) if radii is None else np.atleast_1d(np.asarray(radii, np.float64))
  return Table(radii, [_row(run, radii, rho) for run in runs], norm, unit)


def default_radii(runs):
  """Multiples of a round step from 0 up to the largest certified radius, 7 to 12 of them.

  Args:
    runs: a list of `Run`.

  Returns:
    float64[R]; whole numbers where all radii are.

  Raises:
    ValueError: if a run has no image, or its labels do not fit.

  Example:
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> one, label = np.arange(1), np.array([3])
    >>> default_radii([Run('a', one, label, certificate(label, [0.9528]))])
    array([0. , 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
  """
  radii = np.concatenate([proved_radius(run.certificate, run.labels) for run in runs])
  radii = radii[np.isfinite(radii)]
  largest = radii.max(initial=0.0)
  if largest <= 0:
    return np.zeros(1)
  whole = (radii == np.floor(radii)).all()
  largest = Decimal(repr(float(largest)))
  magnitude = largest.adjusted()
  steps = (Decimal(s).scaleb(m) for m in (magnitude - 1, magnitude) for s in _ROUND_STEPS)
  for step in steps:
    if largest < step * _MAX_COLUMNS and not (whole and step % 1):
      # Decimal multiples, since 3 * 0.1 exceeds 0.3 and the accuracy is inclusive.
      return np.array([float(i * step) for i in range(int(largest / step) + 1)])
  raise AssertionError('unreachable: twelve of the largest step exceed the largest radius')


def markdown(table, *, high_probability=False):
  r"""A `Table` in markdown, ending with what its certificates claim.

  Accuracies are rounded, radii are cut: a printed radius does not exceed the computed one.

  Args:
    table: what `table` returned.
    high_probability: adds a row with the accuracies that hold with high probability.

  Returns:
    The text.

  Example:
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> labels = np.array([3, 1])
    >>> run = Run('a', np.arange(2), labels, certificate(labels, [0.5, 0.25]))
    >>> print('\n'.join(markdown(table([run], [0.0, 0.5])).splitlines()[:3]))
    | run | images | r = 0 | r = 0.5 | ACR | abstain |
    | --- | ---: | ---: | ---: | ---: | ---: |
    | a | 2 | 1.0000 | 0.5000 | 0.3750 | 0.0000 |
  """
  head, *rows = cells(table, high_probability=high_probability)
  rows = [[row[0].replace('|', r'\|'), *row[1:]] for row in rows]
  lines = [head, ['---', *['---:'] * (len(head) - 1)], *rows]
  return '\n'.join([*('| ' + ' | '.join(line) + ' |' for line in lines), '', *claims(table)]) + '\n'


def cells(table, *, high_probability=False):
  """The texts of a `Table`: its head and its rows, as lists of equal length."""
  timed = any(row.seconds is not None for row in table.rows)
  head = ['run', 'images', *(f'r = {_plain(radius)}' for radius in table.radii)]
  median = table.unit in _MEDIAN_UNITS
  head += ['ACR', *['median'] * median, 'abstain', *['s / image'] * timed]
  found = [head]
  for row in table.rows:
    seconds = '' if row.seconds is None else _three_digits(row.seconds)
    found.append(
      [row.name, str(row.num_images)]
      + [f'{accuracy:.4f}' for accuracy in row.accuracy]
      + [floor_decimals(row.average_radius, 4), *[_median(row)] * median]
      + [f'{row.abstention:.4f}', *[seconds] * timed]
    )
    if high_probability and row.high_probability is not None:
      # Cut like a radius: it is a lower bound.
      bounds = [floor_decimals(bound, 4) for bound in row.high_probability]
      found.append(['with high probability', '', *bounds, '', '', *[''] * (median + timed)])
  return found


def csv(table):
  """A `Table` as comma-separated values, numbers unrounded.

  Args:
    table: what `table` returned.

  Returns:
    The text, a header line and one line a run.

  Example:
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> labels = np.array([3, 1])
    >>> run = Run('a', np.arange(2), labels, certificate(labels, [0.5, 0.25]))
    >>> print(csv(table([run], [0.5])).splitlines()[1][:9])
    a,2,0.5,0
  """
  at = [_plain(radius) for radius in table.radii]
  head = ['name', 'num_images', *(f'certified_accuracy@{r}' for r in at)]
  head += [f'high_probability_accuracy@{r}' for r in at]
  head += ['average_certified_radius', 'abstention_rate', 'seconds_per_image', 'alpha', 'exact']
  text = io.StringIO()
  writer = csv_module.writer(text, lineterminator='\n')
  median = table.unit in _MEDIAN_UNITS
  writer.writerow([*head, 'norm', 'unit', *['median_certified_radius'] * median])
  for row in table.rows:
    bounds = [''] * len(at) if row.high_probability is None else row.high_probability.tolist()
    writer.writerow(
      [row.name, row.num_images, *row.accuracy.tolist(), *bounds, row.average_radius]
      + [row.abstention, row.seconds, row.alpha, row.exact, table.norm, table.unit]
      + [row.median] * median
    )
  return text.getvalue()


def _row(run, radii, rho):
  header = run.header or {}
  alpha, exact = header.get('alpha'), header.get('quantifier') == 'exact'
  accuracy = certified_accuracy(run.certificate, run.labels, radii)
  bound = None
  if not exact:
    each = _DEFAULT_ALPHA if alpha is None else alpha
    bound = high_probability_accuracy(accuracy, run.index.size, alpha=each, rho=rho)
  known = [] if run.seconds is None else run.seconds[np.isfinite(run.seconds)]
  return Row(
    name=run.name,
    num_images=int(run.index.size),
    accuracy=accuracy,
    high_probability=bound,
    average_radius=average_certified_radius(run.certificate, run.labels),
    abstention=abstention_rate(run.certificate),
    seconds=float(np.mean(known)) if len(known) else None,
    alpha=None if exact else alpha,
    exact=exact,
    median=median_radius(run.certificate, run.labels),
  )


def _plain(radius):
  """A radius cut to four decimals, without trailing zeros."""
  text = floor_decimals(radius, 4)
  return text.rstrip('0').rstrip('.') if '.' in text else text


def _median(row):
  return 'N/A' if row.median is None else _plain(row.median)


def _three_digits(seconds):
  return f'{seconds:.0f}' if seconds >= 100 else f'{seconds:#.3g}'


def claims(table):
  """What the certificates of a `Table` promise, and in which norm, as lines of text."""
  claims = []
  if table.norm or table.unit:
    claims += [f'Radii: {", ".join(part for part in (table.norm, table.unit) if part)}.', '']
  exact = [row.name for row in table.rows if row.exact]
  sampled = [row for row in table.rows if not row.exact]
  if sampled:
    alphas = sorted({row.alpha for row in sampled if row.alpha is not None})
    value = f' (alpha = {", ".join(map(str, alphas))})' if alphas else ''
    which = f'{", ".join(row.name for row in sampled)}: each' if exact else 'Each'
    claims.append(
      f'{which} certificate holds for its image separately, with probability at least 1 - alpha'
      f'{value} over the sampled noise; that all of the table hold at once is not claimed.'
    )
  if exact:
    which = f'{", ".join(exact)}: the' if sampled else 'The'
    claims.append(
      f'{which} certificates are exact: nothing was sampled, and they hold for certain.'
    )
  return claims
