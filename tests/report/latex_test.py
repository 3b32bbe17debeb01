"""LaTeX read back by a small reader of its own: no cell is lost, joined or changed."""

import csv
import io
import re

import numpy as np
import pytest

from certjax import report
from certjax.certify import certificate

_WORDS = {
  'textbackslash': '\\', 'textasciitilde': '~', 'textasciicircum': '^', 'textless': '<',
  'textgreater': '>', 'textbar': '|', 'midrule': '', 'toprule': '',
}  # fmt: skip
_TOKEN = re.compile(r'\\([a-zA-Z]+)(?:\{\}|\s*)|\\(.)|(.)', re.DOTALL)


def read(text):
  """Rows of cells as TeX sees them: `%` ends a line, `&` a cell, `\\\\` a row, `$` is no text."""
  body = text.split('\\toprule', 1)[1].split('\\bottomrule', 1)[0]
  rows, cell, row = [], '', []
  comment = False
  for word, escaped, plain in _TOKEN.findall(body):
    if comment:
      comment = plain != '\n'
    elif word:
      cell += _WORDS[word]
    elif escaped == '\\':
      rows.append([*row, cell.strip()])
      cell, row = '', []
    elif escaped:
      assert escaped in '{}$&#_%', f'TeX has no \\{escaped}'
      cell += escaped
    elif plain == '&':
      row, cell = [*row, cell.strip()], ''
    elif plain == '%':
      comment = True
    else:
      assert plain not in '{}#_^~\\', f'{plain} is not text to TeX'
      cell += '' if plain == '$' else plain
  assert not row and not cell.strip()
  return rows


def _run(name, radii, seconds=None, **header):
  size = len(radii)
  labels = np.ones(size, np.int64)
  proved = certificate(np.ones(size), np.array(radii))
  return report.Run(name, np.arange(size), labels, proved, seconds, header or None)


NAMES = (
  r'50%_of\{x} & $5 #1 ~a^2 <b> |c| "d"', r'\\', '% all', r'\end{tabular}', 'plain', 'a\nb \\\\ % c',
)  # fmt: skip


@pytest.mark.parametrize('unit', ['pixel value', 'pixels'])
def test_every_cell_is_read_back(unit):
  """The numbers are those of the CSV, rounded; radii are cut; names survive whatever is in them."""
  rng = np.random.default_rng(0)
  runs = [
    _run(name, rng.uniform(0, 1, 7), np.full(7, 0.5), alpha=0.001, norm='l0', unit=unit)
    for name in NAMES
  ]
  table = report.table(runs, [0, 0.25, 0.5])
  head, *rows = read(report.latex(table))
  exact = list(csv.DictReader(io.StringIO(report.csv(table))))
  assert len(rows) == len(exact) == len(NAMES)
  median = ['median'] * (unit == 'pixels')
  assert head == [
    'run', 'images', 'r = 0', 'r = 0.25', 'r = 0.5', 'ACR', *median, 'abstain', 's / image',
  ]  # fmt: skip
  for cells, numbers in zip(rows, exact, strict=True):
    found = dict(zip(head, cells, strict=True))
    assert found['run'] == ' '.join(numbers['name'].split()) and found['images'] == '7'
    for radius in ('0', '0.25', '0.5'):
      at = float(numbers[f'certified_accuracy@{radius}'])
      assert float(found[f'r = {radius}']) == round(at, 4)
    radius = float(numbers['average_certified_radius'])
    assert radius - 1e-4 < float(found['ACR']) <= radius
    assert float(found['s / image']) == 0.5 and float(found['abstain']) == 0


def test_a_name_opens_no_row_and_claims_are_comments():
  """After the table every line is a comment: a name with a line break ends none."""
  text = report.latex(report.table([_run(r'a' + '\n' + r'\input{x}', [1.0], norm='l2')], [0]))
  before, after = text.split('\\end{tabular}\n')
  assert before.count('\\\\') == 2 and before.startswith('\\begin{tabular}{lrrrr}\n')
  assert all(line.startswith('% ') for line in after.splitlines())
  assert 'Radii: l2.' in after and 'at least 1 - alpha' in after
  exact = report.table([_run('a', [1.0], quantifier='exact'), _run('b\nc', [1.0])], [0])
  _, after = report.latex(exact).split('\\end{tabular}\n')
  assert all(line.startswith('% ') for line in after.splitlines()) and 'b c: each' in after


def test_the_row_of_high_probability():
  table = report.table([_run('a', np.linspace(0, 1, 400), alpha=0.001)], [0.5])
  rows = read(report.latex(table, high_probability=True))
  assert rows[2][0] == 'with high probability' and len(rows[2]) == len(rows[0])
  bound = table.rows[0].high_probability[0]
  assert bound - 1e-4 < float(rows[2][2]) <= bound
