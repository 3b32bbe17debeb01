"""The median certified radius: over all images, in the tables of the threats that report it."""

import csv

import numpy as np
import pytest

from certjax import report
from certjax.certify import certificate


def proof_of(radii):
  """Certificates of label 1; a radius of -1 stands for a wrong label."""
  radii = np.array(radii, float)
  return certificate(np.where(radii < 0, 2, 1), np.maximum(radii, 0)), np.ones(len(radii), int)


@pytest.mark.parametrize(
  'radii, expected',
  [
    ([-1, -1, -1, 4, 5], None),
    ([-1, 0, 8, 8, 9], 8),
    ([-1, -1, 0, 4, 5], 0),
    ([-1, -1, 4, 5], 4),
    ([-1, -1, -1, 5], None),
    ([7], 7),
    ([-1], None),
    ([np.inf, np.inf, 1], np.inf),
  ],
)
def test_median(radii, expected):
  proof, labels = proof_of(radii)
  assert report.median_radius(proof, labels) == expected
  if expected is not None:
    assert report.certified_accuracy(proof, labels, expected) >= 0.5
    assert report.certified_accuracy(proof, labels, np.nextafter(expected, np.inf)) <= 0.5 or (
      np.isinf(expected)
    )


def test_an_abstention_lies_below_a_radius_of_zero():
  labels = np.ones(3, int)
  assert report.median_radius(certificate([1, 1, -1], [0.0, 3.0, 0.0]), labels) == 0
  assert report.median_radius(certificate([1, -1, -1], [3.0, 0.0, 0.0]), labels) is None


@pytest.mark.parametrize('unit', ['pixels', 'mass', 'pixel value'])
def test_tables_show_it_where_the_papers_do(unit):
  runs = []
  for name, radii in (('good', [-1, 0, 8, 8, 9]), ('bad', [-1, -1, -1, 4, 5])):
    proof, labels = proof_of(radii)
    header = {'norm': 'l0', 'unit': unit, 'alpha': 0.05}
    runs.append(report.Run(name, np.arange(5), labels, proof, None, header))
  table = report.table(runs, [0.0, 4.0])
  text = report.markdown(table, high_probability=True).splitlines()
  rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text if line[:1] == '|']
  assert len({len(row) for row in rows}) == 1
  (values,) = [list(csv.DictReader(report.csv(table).splitlines()))]
  if unit == 'pixel value':
    assert 'median' not in rows[0] and 'median_certified_radius' not in values[0]
    return
  at = rows[0].index('median')
  assert [row[at] for row in rows[2::2]] == ['8', 'N/A'] and rows[3][at] == ''
  assert [value['median_certified_radius'] for value in values] == ['8.0', '']
