import csv
import io

import numpy as np
import pytest

from certjax import report
from certjax.certify import certificate


def _run(name, radii, labels=None, seconds=None, **header):
  size = len(radii)
  labels = np.ones(size, np.int64) if labels is None else np.array(labels)
  proved = certificate(np.ones(size), radii)
  return report.Run(name, np.arange(size), labels, proved, seconds, header or None)


def test_rows_are_the_single_functions():
  run = _run('a', [0.1, 0.5, 0.9, 1.0], [1, 1, 2, 1], np.array([1, 2, np.nan, 3]), alpha=0.01)
  found = report.table([run], [0.0, 0.5])
  (row,) = found.rows
  np.testing.assert_array_equal(row.accuracy, [0.75, 0.5])
  np.testing.assert_array_equal(
    row.high_probability, report.high_probability_accuracy(row.accuracy, 4, alpha=0.01)
  )
  assert row.average_radius == pytest.approx(0.4) and row.seconds == 2.0 and row.alpha == 0.01


@pytest.mark.parametrize(
  'largest, step, columns',
  [
    (0.457, 0.05, 10),
    (0.9528, 0.1, 10),
    (1.9057, 0.2, 10),
    (3.8114, 0.5, 8),
    (0.3, 0.05, 7),
    (2.5, 0.25, 11),
    (1e-4, 1e-5, 11),
  ],
)
def test_default_radii(largest, step, columns):
  radii = report.default_radii([_run('a', [0.01 * largest, largest])])
  assert radii.size == columns
  assert radii[1] == step
  # A radius that lies on the grid is met exactly: 3 * 0.1 > 0.3 would lose it.
  np.testing.assert_array_equal(radii, [float(f'{i * step:.9g}') for i in range(columns)])


def test_default_radii_always_fit():
  for largest in 10.0 ** np.linspace(-3, 5, 400):
    radii = report.default_radii([_run('a', [largest / 3, largest])])
    assert 6 <= radii.size <= 12 and radii[0] == 0 and radii[-1] <= largest < radii[-1] + radii[1]


def test_default_radii_of_whole_units_and_odd_cases():
  np.testing.assert_array_equal(report.default_radii([_run('a', [0.0, 5.0])]), range(6))
  np.testing.assert_array_equal(report.default_radii([_run('a', [0.0, 1.0])]), range(2))
  np.testing.assert_array_equal(report.default_radii([_run('a', [0.0, 300.0])]), range(0, 301, 50))
  np.testing.assert_array_equal(report.default_radii([_run('a', [0.0])]), [0])
  np.testing.assert_array_equal(report.default_radii([_run('a', [np.inf])]), [0])
  # A radius of a wrong label makes no column.
  assert report.default_radii([_run('a', [0.35, 9.0], [1, 2])]).max() <= 0.35


def test_markdown_rounds_accuracies_and_cuts_radii():
  run = _run('a|b', [0.99999, 0.99999, 0.2], [1, 1, 2], np.array([150.0, 150.0, 151.0]))
  text = report.markdown(report.table([run], [0.0, 0.29999]))
  lines = text.splitlines()
  assert lines[0] == '| run | images | r = 0 | r = 0.2999 | ACR | abstain | s / image |'
  assert lines[2] == r'| a\|b | 3 | 0.6667 | 0.6667 | 0.6666 | 0.0000 | 150 |'
  assert text.endswith('that all of the table hold at once is not claimed.\n')


def test_claims():
  sampled = _run('s', [0.5], alpha=0.01, norm='l1', unit='pixel value', quantifier='1 - alpha')
  exact = _run('e', [0.5], norm='l1', unit='pixel value', quantifier='exact')
  text = report.markdown(report.table([sampled]), high_probability=True)
  assert 'Radii: l1, pixel value.' in text and '(alpha = 0.01)' in text and 'exact' not in text
  assert 'with high probability' in text
  text = report.markdown(report.table([exact]), high_probability=True)
  assert text.endswith(
    'The certificates are exact: nothing was sampled, and they hold for certain.\n'
  )
  assert 'alpha' not in text and 'high probability' not in text
  text = report.markdown(report.table([sampled, exact]))
  assert 's: each certificate holds' in text and 'e: the certificates are exact' in text
  text = report.markdown(report.table([_run('log', [0.5])]))
  assert 'at least 1 - alpha over' in text and 's / image' not in text


def test_csv_is_unrounded():
  runs = [_run('a, b', [1 / 3, 0.5]), _run('c', [1 / 7], seconds=np.array([2.5]))]
  rows = list(csv.DictReader(io.StringIO(report.csv(report.table(runs, [0.25, 0.4])))))
  assert [row['name'] for row in rows] == ['a, b', 'c']
  assert rows[0]['certified_accuracy@0.4'] == '0.5'
  assert float(rows[0]['average_certified_radius']) == (1 / 3 + 0.5) / 2
  assert rows[0]['seconds_per_image'] == '' and rows[1]['seconds_per_image'] == '2.5'


def test_runs_that_do_not_fit_together():
  with pytest.raises(ValueError, match='`runs` is empty'):
    report.table([])
  runs = [_run('a', [1.0], norm='l2'), _run('b', [1.0], norm='l1')]
  with pytest.raises(ValueError, match=r'runs differ in `norm` \(a: l2, b: l1\)'):
    report.table(runs)
  assert report.table([runs[0], _run('log', [1.0])]).norm == 'l2'


def test_write(tmp_path):
  runs = [_run('a', [0.5, 0.7]), _run('b', [0.6, 0.1])]
  text = report.write(runs, tmp_path / 'new' / 'out')
  assert sorted(path.name for path in (tmp_path / 'new' / 'out').iterdir()) == [
    'curve.png',
    'table.csv',
    'table.md',
  ]
  assert (tmp_path / 'new' / 'out' / 'table.md').read_text() == text
  text = report.write(runs, tmp_path, [0.0, 0.5], compare=runs)
  assert (tmp_path / 'comparison.md').read_text() in text
  assert (tmp_path / 'table.csv').read_text() == report.csv(report.table(runs, [0.0, 0.5]))
