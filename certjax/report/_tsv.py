"""The field's log: tab separated, `idx label predict radius correct time`, one image per line.

Public logs differ, and all of these are read: times as `0:02:31.238689` or as plain seconds, no
radius (logs of predictions), no time, a `correct` that counts up instead of telling right from
wrong. So `correct` is never believed: an image is correct when label equals prediction.
"""

import re
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

import numpy as np

from certjax.certify import certificate
from certjax.report._run import Run

_REQUIRED = {'idx', 'label', 'predict'}
_OPTIONAL = {'radius', 'correct', 'time'}
_CLOCK = re.compile(r'(?:(\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)')


def read_tsv(path):
  r"""Reads a log of certificates or predictions.

  A prediction (no `radius` column) becomes a certificate of radius 0.

  Args:
    path: the file.

  Returns:
    A `Run` named after the file, without a header.

  Raises:
    ValueError: naming file and line, if a column or value is unknown, or indices do not increase.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = Path(folder) / 'cohen.tsv'
    ...   _ = path.write_text('idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.49\t1\t0:00:17.3\n')
    ...   run = read_tsv(path)
    >>> run.name, run.certificate.radius, run.seconds
    ('cohen', array([0.49]), array([17.3]))
  """
  path = Path(path)
  with path.open(encoding='utf-8', errors='replace') as file:
    lines = file.read().splitlines()
  columns = lines[0].split('\t') if lines else []
  if not _REQUIRED <= set(columns) <= _REQUIRED | _OPTIONAL:
    raise ValueError(
      f'{path}:1: columns {columns}; a log has `idx label predict radius correct time`, by tabs'
    )
  rows = [_row(line, columns, f'{path}:{n}') for n, line in enumerate(lines[1:], 2) if line.strip()]
  index, labels, predict, radius, seconds = (np.array(column) for column in _columns(rows))
  if (late := np.flatnonzero(np.diff(index) <= 0)).size:
    raise ValueError(f'{path}: idx {index[late[0] + 1]} after {index[late[0]]}: must increase')
  name = path.name.removesuffix('.tsv')
  seconds = seconds if 'time' in columns else None
  return Run(name, index, labels, certificate(predict, radius), seconds)


def write_tsv(path, run, *, digits=3, prediction=False):
  r"""Writes a log that the field's tools read.

  The radius is cut, never rounded up, to `digits` significant digits: read back, it does not
  exceed the stored one (Cohen et al. round to the nearest, which can claim more than was proved).
  Times are printed as H:MM:SS.ffffff; the column is left out where the run has none.

  Args:
    path: the file.
    run: a `Run`.
    digits: significant digits of the radius; 3 in published logs.
    prediction: leave the radius out, for a log of predictions.

  Raises:
    OSError: if it cannot be written.

  Example:
    >>> import tempfile
    >>> run = Run('a', np.arange(1), np.array([3]), certificate([3], [0.49987]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   write_tsv(Path(folder) / 'a.tsv', run)
    ...   print((Path(folder) / 'a.tsv').read_text().replace('\t', ' '))
    idx label predict radius correct
    0 3 3 0.499 1
  """
  columns = ['idx', 'label', 'predict', *['radius'] * (not prediction), 'correct']
  seconds = np.full(len(run.index), np.nan)
  if run.seconds is not None:
    columns, seconds = [*columns, 'time'], run.seconds
  lines = ['\t'.join(columns)]
  for idx, label, predict, radius, second in zip(
    run.index, run.labels, *run.certificate, seconds, strict=True
  ):
    values = {
      'idx': idx,
      'label': label,
      'predict': predict,
      'radius': floor_significant(radius, digits),
      'correct': int(label == predict),
      'time': _clock(second),
    }
    lines.append('\t'.join(str(values[column]) for column in columns))
  Path(path).write_text('\n'.join(lines) + '\n')


def floor_significant(value, digits):
  """The text of a radius cut to significant digits: read back, it never exceeds `value`.

  Example:
    >>> floor_significant(0.16599, 3), floor_significant(0.5, 3), floor_significant(1.0, 3)
    ('0.165', '0.5', '1.0')
  """
  # The shortest decimal that reads back as `value`: cutting a log read before changes nothing.
  exact = Decimal(repr(float(value)))
  if not exact.is_finite() or not exact:
    return repr(float(value))
  step = Decimal(1).scaleb(exact.adjusted() - digits + 1)
  return repr(float(exact.quantize(step, rounding=ROUND_FLOOR)))


def floor_decimals(value, decimals):
  """The text of a float cut to a number of decimals.

  Example:
    >>> floor_decimals(0.28999, 4), floor_decimals(2.0, 2), floor_decimals(float('inf'), 2)
    ('0.2899', '2.00', 'inf')
  """
  exact = Decimal(repr(float(value)))
  if not exact.is_finite():
    return repr(float(value))
  return f'{exact.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_FLOOR):f}'


def _row(line, columns, where):
  """(idx, label, predict, radius, seconds) of one line."""
  values = line.split('\t')
  if len(values) != len(columns):
    raise ValueError(f'{where}: {len(values)} values for the {len(columns)} columns {columns}')
  value = dict(zip(columns, values, strict=True))
  try:
    whole = (int(value['idx']), int(value['label']), int(value['predict']))
    return *whole, float(value.get('radius', 0)), _seconds(value.get('time', 'nan'))
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error


def _columns(rows):
  """The columns with their dtypes, also of no rows."""
  kinds = (np.int64, np.int64, np.int64, np.float64, np.float64)
  return [np.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]


def _seconds(text):
  if match := _CLOCK.fullmatch(text.strip()):
    days, hours, minutes, seconds = match.groups(default='0')
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)
  return float(text)


def _clock(seconds):
  """H:MM:SS.ffffff, always with its six digits; hours may pass 24."""
  if not np.isfinite(seconds):
    return 'nan'
  minutes, micros = divmod(round(float(seconds) * 1e6), 60_000_000)
  whole, micros = divmod(micros, 1_000_000)
  return f'{minutes // 60}:{minutes % 60:02}:{whole:02}.{micros:06}'
