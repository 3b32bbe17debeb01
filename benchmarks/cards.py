"""The cards of the benchmarks: are they whole, do the README and the site show them, do they come out again?

    python benchmarks/cards.py check           # what is wrong, one line each; exit code 1 if anything is
    python benchmarks/cards.py check --ask     # also asks every script for its --help (slow: they import JAX)
    python benchmarks/cards.py write           # the tables and figures of the pages from the cards
    python benchmarks/cards.py run NAME --data-dir PATH   # the card's command again, old beside new

Pages are the README and those of docs/pages. A table that is a card's stands between `<!-- card: NAME -->` and
`<!-- end -->`; so does a single figure, after the way to it: the first cells of its row, and its column, as in
`<!-- card: mnist; sigma-0.5; r = 1 -->0.8540<!-- end -->`. Each card's table stands on a page at least once.
A card's command has DIR for every place of the machine that made it: `run` takes the places here by
the same options, and writes nothing into the repository.
"""

import argparse
import ast
import datetime
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

import common

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIELDS = {
  'question': str, 'command': str, 'date': str, 'hardware': dict, 'versions': dict, 'rows': list,
}  # fmt: skip
_BLOCK = re.compile(r'<!-- card: (\S+) -->\n\n(.*?)\n\n<!-- end -->', re.DOTALL)
_FIGURE = re.compile(r'<!-- card: ([^;>\n]+); ([^>\n]+) -->([^<\n]*)<!-- end -->')
_MARK = re.compile(r'<!-- (?:card: [^>\n]+|end) -->')
_PLACE = 'DIR'


def load(directory) -> dict:
  """Name -> card of every JSON file of a directory."""
  return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob('*.json'))}


def pages(root) -> list:
  """Paths that may show cards: the README and the pages of the site."""
  return [root / 'README.md', *sorted((root / 'docs' / 'pages').rglob('*.md'))]


def figure(table, way) -> str | None:
  """One cell of a markdown table; None where the way leads to none, or to several.

  Args:
    table: the text.
    way: the first cells of the row, as many as tell it from the others, then the column's title; joined by `; `.

  Example:
    >>> figure('| run | eps | clean |\\n| --- | --- | --- |\\n| a | 1 | 0.5 |\\n| a | 2 | 0.4 |', 'a; 2; clean')
    '0.4'
  """
  titles, _, *rows = [
    [cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines()
  ]
  *cells, column = way.split('; ')
  rows = [row for row in rows if row[: len(cells)] == cells]
  if not cells or len(rows) != 1 or titles.count(column) != 1:
    return None
  return rows[0][titles.index(column)]


def rewritten(text, cards) -> str:
  """A page with every marked table and figure taken from its card; unknown ones stay as they are."""

  def block(match):
    name, old = match.groups()
    table = cards.get(name, {}).get('table', old)
    return f'<!-- card: {name} -->\n\n{table}\n\n<!-- end -->'

  def cell(match):
    name, way, old = match.groups()
    table = cards.get(name, {}).get('table')
    found = figure(table, way) if table else None
    return f'<!-- card: {name}; {way} -->{old if found is None else found}<!-- end -->'

  return _FIGURE.sub(cell, _BLOCK.sub(block, text))


def marked(text) -> set:
  """Names of the cards whose tables a page shows."""
  return {name for name, _ in _BLOCK.findall(text)}


def page_problems(text, cards) -> list:
  """What is wrong with the marked tables and figures of a page, as lines."""
  blocks, figures, found = _BLOCK.findall(text), _FIGURE.findall(text), []
  if len(_MARK.findall(text)) != 2 * (len(blocks) + len(figures)):
    found.append('a `<!-- card: NAME -->` or `<!-- end -->` has no partner')
  for name, *_ in [*blocks, *figures]:
    if 'table' not in cards.get(name, {}):
      found.append(f'{name} is marked, and no card of that name has a table')
  for name, table in blocks:
    if table != cards.get(name, {}).get('table', table):
      found.append(f'{name} differs from its card: python benchmarks/cards.py write')
  for name, way, old in figures:
    if 'table' not in cards.get(name, {}):
      continue
    if (new := figure(cards[name]['table'], way)) is None:
      found.append(f'{name} has no one figure at `{way}`')
    elif new != old:
      found.append(f'{name}; {way} is {new} in its card: python benchmarks/cards.py write')
  return found


def card_problems(card, root) -> list:
  """What is wrong with one card, as lines."""
  wrong = [
    name for name, kind in FIELDS.items() if not isinstance(card.get(name), kind) or not card[name]
  ]
  if wrong:
    return [f'{name} is missing or empty' for name in wrong]
  try:
    datetime.date.fromisoformat(card['date'])
  except ValueError:
    return [f'date is none: {card["date"]!r}']
  script, options = _script(card, root), _options(card)
  if not script.is_file():
    return [f'its command names {script.name}, which is not there']
  known = _known_options(script) if script.suffix == '.py' else None
  if known is None:
    return []
  return [f'{script.name} knows no {option}' for option in options if not known(option)]


def help_problems(card, root) -> list:
  """Runs the card's script with --help."""
  script = _script(card, root)
  if script.suffix != '.py' or 'argparse' not in script.read_text():
    return []
  done = subprocess.run(
    [sys.executable, script, '--help'], capture_output=True, text=True, cwd=root
  )
  if done.returncode:
    return [f'{script.name} --help: {done.stderr.strip().splitlines()[-1]}']
  return [f'{script.name} --help names no {o}' for o in _options(card) if o not in done.stdout]


def command_again(card, places, directory) -> list:
  """The command of a card with this machine's places in it.

  Args:
    card: the card.
    places: dict option -> path, as `{'--data-dir': '/data'}`.
    directory: what stands for `--out`.

  Raises:
    ValueError: if a place is missing, or one is given that the command does not name.
  """
  words = shlex.split(card['command'])
  asked = [before for before, word in zip(words, words[1:], strict=False) if word == _PLACE]
  if words[0] != 'python' or not all(option.startswith('-') for option in asked):
    raise ValueError(f'`{card["command"]}` is no Python script with options: run it by hand.')
  places = {'--out': str(directory), **places}
  missing = [option for option in asked if option not in places]
  unknown = [option for option in places if option not in asked and option != '--out']
  if missing or unknown:
    raise ValueError(
      f'`{card["command"]}` needs {" ".join(f"{o} PATH" for o in missing) or "nothing more"}'
      f'{"".join(f", and has no {o}" for o in unknown)}.'
    )
  filled = [
    places[before] if word == _PLACE else word
    for before, word in zip(words, words[1:], strict=False)
  ]
  return [sys.executable, *filled]


def compared(old, new) -> list:
  """Old beside new, one row a value that is a number or has changed.

  Example:
    >>> compared([{'run': 'a', 'clean': 0.5}], [{'run': 'a', 'clean': 0.75}])
    [{'row': 'a', 'field': 'clean', 'old': 0.5, 'new': 0.75}]
  """
  rows = []
  for i in range(max(len(old), len(new))):
    before = _flat(old[i]) if i < len(old) else {}
    after = _flat(new[i]) if i < len(new) else {}
    title = next((v for v in [*before.values(), *after.values()] if isinstance(v, str)), str(i))
    for field in [*before, *(name for name in after if name not in before)]:
      values = [values.get(field, '-') for values in (before, after)]
      if any(isinstance(value, int | float) for value in values) or values[0] != values[1]:
        rows.append({'row': title, 'field': field, 'old': values[0], 'new': values[1]})
  return rows


def run(name, places, root=ROOT) -> str:
  """Makes a card again in a temporary directory; returns old beside new as markdown."""
  cards = load(root / 'benchmarks' / 'results')
  if name not in cards:
    raise ValueError(f'no card is called {name!r}; there are {", ".join(cards)}.')
  with tempfile.TemporaryDirectory() as scratch:
    results = pathlib.Path(scratch) / 'results'
    results.mkdir()
    words = command_again(cards[name], places, pathlib.Path(scratch) / 'out')
    print(' '.join(words[1:]), flush=True)
    subprocess.run(words, check=True, cwd=root, env={**os.environ, common.ELSEWHERE: str(results)})
    made = load(results)
  if name not in made:
    raise ValueError(f'the command made no card {name}: it made {", ".join(made) or "none"}.')
  return common.markdown(compared(cards[name]['rows'], made[name]['rows']))


def check(root=ROOT, *, ask=False) -> list:
  """Everything that is wrong, as lines."""
  cards = load(root / 'benchmarks' / 'results')
  found = []
  for name, card in cards.items():
    problems = card_problems(card, root)
    found += [f'{name}: {problem}' for problem in problems]
    if ask and not problems:
      found += [f'{name}: {problem}' for problem in help_problems(card, root)]
  texts = {str(path.relative_to(root)): path.read_text() for path in pages(root)}
  shown = set().union(*map(marked, texts.values()))
  return [
    *found,
    *(f'{page}: {wrong}' for page, text in texts.items() for wrong in page_problems(text, cards)),
    *(
      f'{n} has a table that no page shows' for n in cards if 'table' in cards[n] and n not in shown
    ),
  ]


def main(argv=None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  actions = parser.add_subparsers(dest='action', required=True)
  checking = actions.add_parser('check', help='what is wrong')
  checking.add_argument('--ask', action='store_true', help='ask every script for its --help')
  actions.add_parser('write', help='the tables and figures of the pages from the cards')
  running = actions.add_parser('run', help='a card again, old beside new')
  running.add_argument('name')
  arguments, rest = parser.parse_known_args(argv)
  if rest and (arguments.action != 'run' or len(rest) % 2):
    parser.error(f'unknown: {" ".join(rest)} (places are pairs: --data-dir PATH)')
  if arguments.action == 'run':
    try:
      print(run(arguments.name, dict(zip(rest[::2], rest[1::2], strict=True))))
    except ValueError as error:
      parser.error(str(error))
    return 0
  if arguments.action == 'write':
    cards = load(common.RESULTS)
    for path in pages(ROOT):
      path.write_text(rewritten(path.read_text(), cards))
  problems = check(ask=arguments.action == 'check' and arguments.ask)
  print('\n'.join(problems) or 'the cards are whole, and the pages show them')
  return 1 if problems else 0


def _script(card, root):
  """The file that a command runs."""
  words = shlex.split(card['command'])
  return root / words[words[0] == 'python']


def _options(card):
  return [word for word in shlex.split(card['command']) if word.startswith('--')]


def _known_options(script):
  """A function that knows the options of a script by its source: importing JAX 30 times is slow.

  An option that is made from a variable stands for any.
  """
  names, anything = set(), False
  for node in ast.walk(ast.parse(script.read_text())):
    if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == 'add_argument':
      names |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
      anything |= any(isinstance(argument, ast.JoinedStr) for argument in node.args)
  return lambda option: anything or option in names


def _flat(row, prefix=''):
  """Nested dicts and lists as one dict."""
  items = row.items() if isinstance(row, dict) else enumerate(row)
  flat = {}
  for key, value in items:
    name = f'{prefix}{key}'
    flat |= _flat(value, f'{name}.') if isinstance(value, dict | list) else {name: value}
  return flat


if __name__ == '__main__':
  sys.exit(main())
