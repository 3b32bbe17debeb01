"""A result as a table, a card for each number, and a figure."""

import json
import re

from certjax import report
from certjax.reproduce._nouns import ARITHMETIC, verdict

_COLUMNS = (
  'number', 'published', 'on', 'ours', '95% interval', 'on', 'setting', 'seed', 'compared',
)  # fmt: skip
_SIGNS = {'value': '', 'at most': '\N{LESS-THAN OR EQUAL TO} ', 'at least': '\N{GREATER-THAN OR EQUAL TO} '}  # fmt: skip
_CARD = '[0-9][0-9][0-9]-*.json'


def markdown(result) -> str:
  """The table of a `Result`, its sources and its notes.

  Args:
    result: a `Result`.

  Returns:
    The text.

  Example:
    >>> from certjax.reproduce import Result, Row
    >>> print(markdown(Result((Row('views', 127, 'forward passes', 'a count', 'none'),))).splitlines()[2])
    | views (forward passes) |  |  | 127 |  | arithmetic | a count |  |  |
  """
  lines = [_COLUMNS, ('---',) * len(_COLUMNS), *map(_cells, result.rows)]
  text = ['| ' + ' | '.join(cell.replace('|', r'\|') for cell in line) + ' |' for line in lines]
  sources = dict.fromkeys(
    f'Published: {one.paper} ({one.table}): {one.setting}. Read in: {one.source}.'
    for row in result.rows
    if (one := row.published)
  )
  return '\n'.join([*text, *(f'\n{line}' for line in (*sources, *result.notes))]) + '\n'


def cards(recipe, request, result, command, versions) -> list[dict]:
  """One dict of JSON values a number: the paper's, ours, and how ours was obtained.

  Args:
    recipe: a `Recipe`.
    request: the `Request` that was run.
    result: its `Result`.
    command: of `command_of`.
    versions: dict of what the numbers depend on.

  Returns:
    A list of dicts, one a row of the result.

  Raises:
    ValueError: for a row that is called comparable and is not (`verdict`).

  Example:
    >>> import pathlib
    >>> from certjax.reproduce import RECIPES, Request, Result, Row
    >>> recipe, request = RECIPES['dssn-cifar10'], Request('quick', pathlib.Path('out'))
    >>> row = Row('views', 127, 'forward passes', 'a count', 'none')
    >>> (card,) = cards(recipe, request, Result((row,)), command_of(recipe, request), {})
    >>> card['ours']['value'], card['compared'], card['command']
    (127, '', 'certjax reproduce dssn-cifar10 --scale quick --seed 0')
  """
  return [
    {
      'recipe': recipe.name, 'scale': request.scale, 'number': row.number, 'unit': row.unit,
      'paper': recipe.source,
      'published': row.published and row.published._asdict(),
      'ours': {
        'value': row.ours, 'interval': row.interval, 'setting': row.setting,
        'dataset': row.dataset, 'seed': row.seed,
      },
      'compared': verdict(row), 'command': command, 'versions': versions,
    }
    for row in result.rows
  ]  # fmt: skip


def write(recipe, request, result, versions) -> str:
  """Writes `table.md`, `cards/` and, where there is one, `figure.png` into `request.out`.

  Args:
    recipe: a `Recipe`.
    request: the `Request` that was run.
    result: its `Result`.
    versions: dict of what the numbers depend on, for the cards.

  Returns:
    The table as markdown.

  Raises:
    ValueError: for a row that is called comparable and is not, before anything is written.
    OSError: if a file cannot be written.

  Example:
    >>> import pathlib, tempfile
    >>> from certjax.reproduce import RECIPES, Request, Result, Row
    >>> result = Result((Row('views', 127, 'forward passes', 'a count', 'none'),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   text = write(RECIPES['dssn-cifar10'], Request('quick', pathlib.Path(folder)), result, {})
    ...   sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob('*.*'))
    ['cards/000-views.json', 'table.md']
  """
  made = cards(recipe, request, result, command_of(recipe, request), versions)
  text, folder = markdown(result), request.out / 'cards'
  folder.mkdir(parents=True, exist_ok=True)
  for stale in folder.glob(_CARD):  # Of an earlier run: a number must not outlive its table.
    stale.unlink()
  for number, card in enumerate(made):
    name = re.sub(r'[^a-z0-9.]+', '-', card['number'].lower()).strip('-')
    (folder / f'{number:03}-{name}.json').write_text(json.dumps(card, indent=2) + '\n')
  (request.out / 'table.md').write_text(text)
  if result.figure:
    report.plot_panels(result.figure, request.out / 'figure.png')
  if result.shown:
    most = max(len(shown.index) for shown in result.shown)
    report.plot_attacked(result.shown, request.out / 'figure.png', num_images=most)
  return text


def command_of(recipe, request) -> str:
  """The command line of a request, without this machine's places.

  Args:
    recipe: a `Recipe`.
    request: a `Request`.

  Example:
    >>> import pathlib
    >>> from certjax.reproduce import RECIPES, Request
    >>> command_of(RECIPES['dssn-cifar10'], Request('quick', pathlib.Path('out')))
    'certjax reproduce dssn-cifar10 --scale quick --seed 0'
  """
  words = ['certjax reproduce', recipe.name, '--scale', request.scale, '--seed', str(request.seed)]
  places = {'--logs': request.logs, '--weights': request.weights}
  return ' '.join([*words, *(f'{name} DIR' for name, place in places.items() if place)])


def _cells(row):
  there = row.published
  published = '' if there is None else _SIGNS[there.kind] + _text(there.value, there.decimals)
  interval = '' if row.interval is None else ' to '.join(map(_text, row.interval))
  seed = '' if row.seed is None else str(row.seed)
  number = f'{row.number} ({row.unit})' if row.unit else row.number
  on = lambda dataset: 'arithmetic' if dataset == ARITHMETIC else dataset
  return (
    number, published, on(there.dataset) if there else '', '' if row.ours is None else _text(row.ours),
    interval, on(row.dataset), row.setting, seed, verdict(row),
  )  # fmt: skip


def _text(value, decimals=None):
  return f'{value:.5g}' if decimals is None else f'{value:.{decimals}f}'
