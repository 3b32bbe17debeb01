"""The pages of `certjax report --html`: of certified runs, and of attacks on one model.

What a page shows is what `write` and `write_threats` write, number by number, with the contract cards, the settings and
example images that the caller brings along.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from certjax.report import _html, _svg
from certjax.report._attacked import load_attacked, threats_markdown, threats_summary
from certjax.report._compare import compare_runs, comparison_markdown
from certjax.report._table import markdown, table
from certjax.report._tsv import floor_decimals

_LISTED = 200  # Indices that a page names one by one.
_KINDS = ('certified', 'wrong', 'abstained')
_SAID = {
  'certified': 'certified and right',
  'wrong': 'certified with a wrong label',
  'abstained': 'abstained',
}


class Card(NamedTuple):
  """A contract card: `title` a text, `rows` a list of (term, text)."""

  title: str
  rows: Any


class Example(NamedTuple):
  """An image of a run, with its outcome.

  Attributes:
    kind: 'certified', 'wrong' or 'abstained'.
    index: in the data set.
    label, predict: -1 is an abstention.
    radius: certified, in the unit of the run.
    image: uint8[H, W, C].
  """

  kind: str
  index: int
  label: int
  predict: int
  radius: float
  image: Any


def outcomes(run) -> dict:
  """The positions in a run of each kind of outcome.

  Args:
    run: a `Run`.

  Returns:
    A dict of int[...]: 'certified' by increasing radius, 'wrong' by decreasing radius, 'abstained' by index.

  Example:
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> run = Run('a', np.arange(4), np.full(4, 3), certificate([3, 3, 1, -1], [0.5, 0.1, 0.2, 0.0]))
    >>> {kind: places.tolist() for kind, places in outcomes(run).items()}
    {'certified': [1, 0], 'wrong': [2], 'abstained': [3]}
  """
  label, radius = np.asarray(run.certificate.label), np.asarray(run.certificate.radius)
  abstained, right = label < 0, label == run.labels
  by_radius = np.argsort(radius, kind='stable')
  return {
    'certified': by_radius[(right & ~abstained)[by_radius]],
    'wrong': by_radius[::-1][(~right & ~abstained)[by_radius[::-1]]],
    'abstained': np.flatnonzero(abstained),
  }


def chosen(run, num_images=4) -> list:
  """Which images a page shows: (kind, position in the run), at most `num_images` of each kind.

  Of those that are certified and right some between the smallest and the largest radius; of the wrong ones
  those with the largest radii; of abstentions some between the first and the last.

  Args:
    run: a `Run`.
    num_images: of each kind.

  Returns:
    A list of (str, int), kind by kind.

  Example:
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> run = Run('a', np.arange(5), np.full(5, 3), certificate([3, 3, 3, 1, -1], [0.5, 0.1, 0.3, 0.2, 0]))
    >>> chosen(run, num_images=2)
    [('certified', 1), ('certified', 0), ('wrong', 3), ('abstained', 4)]
  """
  found = []
  for kind, places in outcomes(run).items():
    if kind == 'wrong':
      picked = places[:num_images]
    else:
      few = min(num_images, len(places))
      picked = places[np.linspace(0, len(places) - 1, few).astype(int)] if few else places
    found += [(kind, int(place)) for place in picked]
  return found


def write_html(
  path, runs, radii=None, *, compare=None, high_probability=False, cards=(), examples=None, notes=()
):  # fmt: skip
  """Writes the page of certified runs.

  Args:
    path: of the file; its directory is made where missing.
    runs: a list of `Run`.
    radii, compare, high_probability: as in `write`.
    cards: a list of `Card`.
    examples: dict, a run's name -> a list of `Example`.
    notes: sentences about what is missing.

  Raises:
    ValueError: as `write`.
    OSError: if the file cannot be written.

  Example:
    >>> import tempfile
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> run = Run('a', np.arange(2), np.array([3, 1]), certificate([3, 1], [0.5, 0.25]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   write_html(pathlib.Path(folder) / 'page.html', [run])
    ...   'Certified accuracy at radius r' in (pathlib.Path(folder) / 'page.html').read_text()
    True
  """
  runs = [run._replace(name=' '.join(run.name.split())) for run in runs]
  summary = table(runs, radii)
  tables = _html.from_markdown(
    markdown(summary, high_probability=high_probability), 'Certified accuracy at radius r'
  )
  sections = [_html.Section('Results', [*tables, *_svg.drawing(runs)])]
  if compare is not None:
    a, b = compare
    text = comparison_markdown(compare_runs(a, b, radii), (a.name, b.name))
    sections.append(_html.Section('Comparison', _html.from_markdown(text, 'Image by image')))
  sections.append(_html.Section('What the certificates say', [_card(card) for card in cards]))
  sections.append(_html.Section('Outcomes', _outcomes(runs)))
  shown = [_examples(name, each) for name, each in (examples or {}).items() if each]
  sections.append(_html.Section('Examples', [*map(_html.paragraph, notes), *shown]))
  problems = [_html.paragraph(f'{run.name}: {line}') for run in runs for line in run.problems]
  sections.append(_html.Section('What is missing', problems))
  headers = [_html.settings(f'Settings of {run.name}', run.header) for run in runs if run.header]
  sections.append(_html.Section('Settings', headers))
  names = ', '.join(run.name for run in runs)
  count = sum(len(run.index) for run in runs)
  said = f'{count} certified images of {len(runs)} {"run" if len(runs) == 1 else "runs"}: {names}.'
  _write(path, _html.page('Certified robustness', said, sections))


def write_threats_html(path, directories, trained=()):
  """Writes the page of several directories of `certjax attack`, of one model and the same images.

  Args:
    path: of the file; its directory is made where missing.
    directories, trained: as in `write_threats`.

  Raises:
    ValueError: as `write_threats`.
    OSError: if a file cannot be read or written.

  Example:
    >>> write_threats_html('page.html', ['nowhere'])
    Traceback (most recent call last):
    ...
    ValueError: nowhere holds no attacks.json: run `certjax attack --out nowhere` to its end first.
  """
  columns = [load_attacked(directory) for directory in directories]
  text = threats_markdown(threats_summary(columns, trained))
  sections = [
    _html.Section(
      'Results', _html.from_markdown(text, 'Accuracy under attack', 'Images by what broke them')
    ),
    _html.Section('How to read it', [_html.paragraph(_UPPER)]),
    _html.Section('Images that were broken', [_broken(column) for column in columns]),
    _html.Section(
      'Settings',
      [_html.settings(f'Settings of {_threat(column)}', column.header) for column in columns],
    ),
  ]
  count = f'{len(columns)} threat{"s" if len(columns) > 1 else ""}'
  said = f'{count} on one model and {len(columns[0].index)} images.'
  _write(path, _html.page('Accuracy under attack', said, sections))


_UPPER = (
  'Accuracies under attack are upper bounds: the attacks that ran broke the others, and a stronger one may break more. '
  'Nothing here is a certificate. The union leaves out LPIPS, which is meant to contain the other threats.'
)


def _write(path, text):
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding='utf-8')


def _card(card):
  return _html.terms(card.title, card.rows)


def _outcomes(runs):
  """How many images ended how, and which are not certified."""
  found = [(run, outcomes(run)) for run in runs]
  rows = [[run.name, *(str(len(each[kind])) for kind in _KINDS)] for run, each in found]
  pieces = [_html.table('Images by outcome', ['run', *(_SAID[kind] for kind in _KINDS)], rows)]
  for run, each in found:
    for kind in _KINDS[1:]:
      if len(each[kind]):
        title = f'{run.name}: {_SAID[kind]}, {len(each[kind])} of {len(run.index)} images'
        pieces.append(_html.details(title, _listed(run.index[each[kind]])))
  return pieces


def _broken(column):
  index = column.index[column.clean & ~column.correct]
  return _html.details(
    f'{_threat(column)}: {len(index)} of {len(column.index)} images', _listed(index)
  )


def _threat(column):
  return f'{column.name} {column.eps:g} ({column.unit})'


def _listed(index):
  index = sorted(int(i) for i in index)
  rest = f' and {len(index) - _LISTED} more' if len(index) > _LISTED else ''
  return f'Indices: {", ".join(map(str, index[:_LISTED]))}{rest}' if index else 'None.'


def _examples(name, examples):
  rows = [(one.image, _alt(one), _caption(one)) for one in examples]
  return _html.Html(f'<h3>{_html.escaped(name)}</h3>\n{_html.figures(rows).text}')


def _alt(one):
  return f'image {one.index}, of class {one.label}'


def _caption(one):
  if one.kind == 'abstained':
    return f'{one.index}: class {one.label}, abstained'
  radius = floor_decimals(one.radius, 4)
  answer = f'certified as {one.predict}' if one.kind == 'wrong' else 'certified'
  return f'{one.index}: class {one.label}, {answer}, radius {radius}'
