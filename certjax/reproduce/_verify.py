"""Does a card come out again? Its number beside what the recipe finds now."""

import json
import pathlib
import shlex
from typing import NamedTuple

from certjax.reproduce._nouns import EXACT, SCALES

SAME, INSIDE, OTHER, GONE = 'same', 'inside its interval', 'another', 'gone'
"""What became of a number: equal up to the last bits; a draw that its 95% interval covers; none of both; not measured."""
_FIELDS = {'recipe': str, 'scale': str, 'number': str, 'command': str, 'ours': dict}


class Asked(NamedTuple):
  """One run of a recipe that cards name.

  Attributes:
    recipe, scale, seed: of `certjax reproduce`.
    places: the options among `--logs` and `--weights` that it was run with.
  """

  recipe: str
  scale: str
  seed: int
  places: tuple[str, ...] = ()


class Checked(NamedTuple):
  """A number before and now.

  Attributes:
    number: what is measured.
    before, now: the two; None where it was not measured.
    became: `SAME`, `INSIDE`, `OTHER` or `GONE`.
  """

  number: str
  before: float | None
  now: float | None
  became: str


def read_cards(paths) -> dict:
  """Cards of `certjax reproduce`, by the run that made them.

  Args:
    paths: of a card, of a file whose `cards` are cards, or of a directory of either.

  Returns:
    `Asked` -> list of cards, in the order in which they are met.

  Raises:
    ValueError: for a file that holds no card of `certjax reproduce`.
    OSError: if one cannot be read.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...   _ = (pathlib.Path(directory) / 'card.json').write_text(
    ...     '{"recipe": "landscape", "scale": "quick", "number": "a", "ours": {"value": 1},'
    ...     ' "command": "certjax reproduce landscape --scale quick --seed 3"}')
    ...   list(read_cards([directory]))
    [Asked(recipe='landscape', scale='quick', seed=3, places=())]
  """
  asked = {}
  for path in map(pathlib.Path, paths):
    files = sorted(path.rglob('*.json')) if path.is_dir() else [path]
    if not files:
      raise ValueError(f'{path} holds no card: name the directory that `certjax reproduce` wrote.')
    for file in files:
      for card in _cards(file):
        asked.setdefault(_run_of(card, file), []).append(card)
  return asked


def check_cards(cards, result) -> list[Checked]:
  """Each card's number beside that of a new `Result`.

  Args:
    cards: of one run.
    result: of the same recipe, scale and seed.

  Example:
    >>> from certjax.reproduce import Result, Row
    >>> found = [('a', 0.5, 'x'), ('b', 0.4, 'x'), ('c', 0.1, 'x'), ('c', 0.5, 'y'), ('d', 0.9, 'x')]
    >>> again = Result(tuple(Row(name, now, '', setting, 'digits') for name, now, setting in found))
    >>> ours = {'value': 0.5, 'interval': [0.3, 0.7], 'dataset': 'digits', 'setting': 'y'}
    >>> cards = [{'number': number, 'ours': ours} for number in 'abcde']
    >>> [one.became for one in check_cards(cards, again)]
    ['same', 'inside its interval', 'same', 'another', 'gone']
  """
  checked = []
  for card in cards:
    before, now = card['ours'].get('value'), _now(card, result.rows)
    checked.append(Checked(card['number'], before, now, _became(before, now, card)))
  return checked


def _now(card, rows):
  """The number of the same name and data set; of several the one of the same setting, whose words may change."""
  ours = card['ours']
  named = [
    row for row in rows if (row.number, row.dataset) == (card['number'], ours.get('dataset'))
  ]
  same = [row for row in named if row.setting == ours.get('setting')] or named
  return same[0].ours if len(same) == 1 else None


def _became(before, now, card):
  if before is None or now is None:
    return SAME if before is now else GONE if now is None else OTHER
  if now == before or abs(now - before) <= EXACT * abs(before):
    return SAME
  low, high = card['ours'].get('interval') or (before, before)
  return INSIDE if low <= now <= high else OTHER


def _cards(path):
  try:
    found = json.loads(path.read_text())
  except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
    raise ValueError(f'{path} is no JSON: {error}') from None
  cards = found['cards'] if isinstance(found, dict) and 'cards' in found else [found]
  for card in cards if isinstance(cards, list) else [cards]:
    wrong = [
      name
      for name, kind in _FIELDS.items()
      if not isinstance(card, dict) or not isinstance(card.get(name), kind)
    ]
    if wrong:
      raise ValueError(
        f'{path} is no card of `certjax reproduce`: {", ".join(wrong)} missing. Cards of benchmarks are '
        'run again by `python benchmarks/cards.py run NAME`.'
      )
    yield card


def _run_of(card, path):
  """Of the command no word is run: recipe, scale and seed are read, and checked where they are used."""
  words = shlex.split(card['command'])
  seed = words[words.index('--seed') + 1] if '--seed' in words[:-1] else '0'
  if not seed.isdecimal() or card['scale'] not in SCALES:
    raise ValueError(f'{path}: seed {seed!r}, scale {card["scale"]!r}: not of `certjax reproduce`.')
  places = tuple(word for word in words if word in ('--logs', '--weights'))
  return Asked(card['recipe'], card['scale'], int(seed), places)
