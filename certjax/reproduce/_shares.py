"""Shares of images with their intervals; rows of accuracies and medians; curves."""

import numpy as np

from certjax import certify, evaluate, report
from certjax.report import Line
from certjax.reproduce._nouns import Row

NOT_AVAILABLE = (
  'A median that is missing is N/A: of more than half of the images nothing is proved.'
)
_TAIL = 0.025  # On each side: 95% together.


def share(successes: int, trials: int) -> tuple:
  """(share, (lower, upper)) with the interval of Clopper and Pearson, 95% two-sided.

  The images count as drawn at random: the interval says how much other test images would change.

  Args:
    successes: int, of the images.
    trials: int, how many images there are.

  Example:
    >>> value, (lower, upper) = share(9, 10)
    >>> value, round(lower, 4), round(upper, 4)
    (0.9, 0.555, 0.9975)
  """
  lower = certify.clopper_pearson(successes, trials, alpha=_TAIL)
  upper = certify.clopper_pearson_upper(successes, trials, alpha=_TAIL)
  return successes / trials, (float(lower), float(upper))


def accuracy_row(run, radius, **fields) -> Row:
  """The `Row` of certified accuracy at a radius; other fields are the row's own.

  Args:
    run: a `report.Run`.
    radius: in the unit of the run.
    **fields: of the `Row`.

  Returns:
    A `Row` whose interval is that of `share`.

  Example:
    >>> proof = certify.certificate([3, 1], [0.5, 0.25])
    >>> run = report.Run('a', np.arange(2), np.array([3, 1]), proof)
    >>> row = accuracy_row(run, 0.5, number='at 0.5', setting='', dataset='digits')
    >>> row.ours, row.unit
    (0.5, 'fraction of images')
  """
  accuracy = float(report.certified_accuracy(run.certificate, run.labels, radius))
  value, interval = share(round(accuracy * len(run.index)), len(run.index))
  return Row(ours=value, interval=interval, unit='fraction of images', **fields)


def outcome_rows(lines, alpha, described) -> list[Row]:
  """The `Row`s of PREDICT's accuracy and of its abstentions on the samples of records.

  Args:
    lines: records of `evaluate.certified_records`.
    alpha: of PREDICT.
    described: `what -> dict`, the other fields of the row of 'accuracy' and of that of 'abstained'.

  Example:
    >>> line = {'label': 3, 'candidate': 3, 'count': 80, 'runner_up_count': 20}
    >>> described = lambda what: {'number': what, 'setting': '', 'dataset': 'digits'}
    >>> [row.ours for row in outcome_rows([line], 0.05, described)]
    [1.0, 0.0]
  """
  outcomes = [evaluate.outcome_of(line, alpha=alpha) for line in lines]
  rows = []
  for what, outcome in (('accuracy', 'correct'), ('abstained', 'abstained')):
    value, interval = share(outcomes.count(outcome), len(outcomes))
    rows.append(Row(ours=value, interval=interval, unit='fraction of images', **described(what)))
  return rows


def median_row(run, unit, **fields) -> Row:
  """The `Row` of the median certified radius, None where more than half prove nothing."""
  return Row(ours=report.median_radius(run.certificate, run.labels), unit=unit, **fields)


def accuracy_line(name, run, style='-') -> Line:
  """Certified accuracy at every certified radius, and the fall to 0 behind the last.

  With marks ('o-') where radii are counted, so that none are between two of them.

  Example:
    >>> proof = certify.Certificate(np.array([3, 1]), np.array([0.5, 0.9]))
    >>> line = accuracy_line('a', report.Run('a', np.arange(2), np.array([3, 2]), proof))
    >>> line.x.tolist(), line.y.tolist()
    ([0.0, 0.5, 0.5], [0.5, 0.5, 0.0])
  """
  proved = run.certificate.radius[run.certificate.label == run.labels]
  radii = np.unique([0.0, *proved])
  accuracy = report.certified_accuracy(run.certificate, run.labels, radii)
  return Line(name, np.append(radii, radii[-1]), np.append(accuracy, 0.0), style)
