"""The published numbers: one data file, every entry with the place it was read at."""

import functools
import json
import pathlib

from certjax.reproduce._nouns import KINDS, Published

PATH = pathlib.Path(__file__).with_name('published.json')
_FIELDS = {'paper', 'source', 'table', 'dataset', 'setting', 'unit', 'values'}
_OPTIONAL = {'kind', 'decimals'}


def published(table: str, number: str) -> Published:
  """A published number.

  Args:
    table: a key of `published.json`.
    number: a key of its `values`.

  Raises:
    ValueError: if there is no such table or number.

  Example:
    >>> published('cohen-cifar10', 'sigma 0.25, r = 0.5').value
    0.43
  """
  return _find(_tables(), 'table', table)(number)


def numbers(table: str) -> tuple:
  """The names of a table's numbers, in its order.

  Args:
    table: its name in published.json.

  Raises:
    ValueError: if there is no such table.

  Example:
    >>> numbers('dssn-views')
    ('sigma 0.5', 'sigma 3.5')
  """
  return tuple(_find(_tables(), 'table', table).values)


class _Table:
  """One entry of the file, checked."""

  def __init__(self, name, entry):
    if not _FIELDS <= set(entry) <= _FIELDS | _OPTIONAL:
      raise ValueError(f'{PATH.name}: {name} must have {sorted(_FIELDS)}, got {sorted(entry)}.')
    if entry.get('kind', 'value') not in KINDS:
      raise ValueError(f'{PATH.name}: {name}: `kind` must be one of {KINDS}, got {entry["kind"]}.')
    self.values = entry['values']
    self._shared = {key: value for key, value in entry.items() if key != 'values'}

  def __call__(self, number):
    return Published(**self._shared, value=float(_find(self.values, 'number', number)))


def _find(there, what, name):
  if name not in there:
    raise ValueError(f'{PATH.name} has no {what} {name!r}: there are {", ".join(there)}.')
  return there[name]


@functools.lru_cache
def _tables():
  return {name: _Table(name, entry) for name, entry in json.loads(PATH.read_text()).items()}
