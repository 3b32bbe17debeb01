"""Which threats break which images: the finished directories of `certjax attack` of one model, side by side.

An image counts as right under a threat if it is right as it is and no attack of that directory broke it. The
union of threats leaves out LPIPS, which is meant to contain the others (`union_accuracy`).
"""

import collections
import json
import pathlib
from typing import NamedTuple

import numpy as np

from certjax import records
from certjax.report._threats import union_accuracy, unseen_mean

_WIDE = 'lpips'
_SAME = ('weights_sha256', 'images_sha256', 'seen_sha256')


class Column(NamedTuple):
  """One threat.

  Attributes:
    name: its norm.
    eps, unit: its size.
    attacks: names of those that ran.
    index: int64[N], in the data set.
    clean, correct: bool[N], right without an attack, and in the worst case over the attacks.
    header: dict, of the records without an attack.
  """

  name: str
  eps: float
  unit: str
  attacks: tuple
  index: np.ndarray
  clean: np.ndarray
  correct: np.ndarray
  header: dict


class Summary(NamedTuple):
  """The table that a finished `certjax attack` leaves.

  Attributes:
    norm, eps, unit: of the threat.
    attacks: names of those that ran.
    correct: images that are right in the worst case over them.
  """

  norm: str
  eps: float
  unit: str
  attacks: tuple
  correct: int


def read_attacks(directory) -> Summary:
  """The table of a directory, its attacks.json.

  Args:
    directory: of a finished `certjax attack`.

  Returns:
    A named tuple: name (of the norm), eps, unit, attacks (names), correct (images right in the worst case).

  Raises:
    ValueError: if there is none, or a damaged one.

  Example:
    >>> import tempfile
    >>> found = {'norm': 'linf', 'eps': 0.1, 'unit': 'pixel value', 'attacks': [{'name': 'pgd'}]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = pathlib.Path(folder) / 'attacks.json'
    ...   _ = path.write_text(json.dumps({**found, 'worst_case': {'correct': 7}}))
    ...   print(read_attacks(folder).attacks, read_attacks(folder).correct)
    ('pgd',) 7
  """
  try:
    found = json.loads((pathlib.Path(directory) / 'attacks.json').read_text())
    names = tuple(row['name'] for row in found['attacks'])
    correct = found['worst_case']['correct']
    return Summary(found['norm'], float(found['eps']), found['unit'], names, correct)
  except (FileNotFoundError, NotADirectoryError) as error:
    raise ValueError(
      f'{directory} holds no attacks.json: run `certjax attack --out {directory}` to its end first.'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'{directory}/attacks.json is damaged: the same attack again writes it.'
    ) from error


def load_attacked(directory) -> Column:
  """What a finished `certjax attack` found.

  Args:
    directory: with `attacks.json` and the records.

  Returns:
    A `Column`.

  Raises:
    ValueError: if it is not finished, or its table is not that of its records.
    OSError: if a file cannot be read.

  Example:
    >>> import tempfile
    >>> line = {'index': 0, 'label': 3, 'radius': 0.0}
    >>> found = {'norm': 'linf', 'eps': 0.1, 'unit': 'pixel value', 'attacks': [{'name': 'pgd'}]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   for name, predict in (('clean', 3), ('pgd', 1)):
    ...     with records.writer(pathlib.Path(folder) / name, {}) as out:
    ...       out.append({**line, 'predict': predict, 'success': predict != 3})
    ...   path = pathlib.Path(folder) / 'attacks.json'
    ...   _ = path.write_text(json.dumps({**found, 'worst_case': {'correct': 0}}))
    ...   column = load_attacked(folder)
    >>> column.attacks, column.clean, column.correct
    (('pgd',), array([ True]), array([False]))
  """
  directory = pathlib.Path(directory)
  summary = read_attacks(directory)
  header, lines = records.read(directory / 'clean')
  clean = np.array([line['predict'] == line['label'] for line in lines])
  broken = set().union(*(_broken(directory / name) for name in summary.attacks))
  index = np.array([line['index'] for line in lines], np.int64)
  correct = clean & ~np.isin(index, sorted(broken))
  if int(correct.sum()) != summary.correct:
    raise ValueError(
      f'{directory}: its records leave {int(correct.sum())} images right, attacks.json says '
      f'{summary.correct}: the same attack again looks at every image.'
    )
  return Column(*summary[:4], index, clean, correct, header)


def threats_summary(columns, trained=()) -> dict:
  """The threats of one model in numbers, as JSON.

  Args:
    columns: of `load_attacked`, of one model and the same images.
    trained: names of threats that the model was trained against.

  Returns:
    A dict: num_images, clean (accuracy), threats (a list: name, norm, eps, unit, attacks, accuracy, broken), union
    (accuracy under all but LPIPS, None without any) and its threats, unseen_mean (None without `trained`),
    trained, subsets (a list: the names of the threats that broke an image, and how many images were broken by
    exactly these; the empty list stands for those that were right to the end).

  Raises:
    ValueError: for another model, other images, or one threat and size twice; for an unknown name in `trained`.

  Example:
    >>> right, index = np.array([True, True, True, False]), np.arange(4)
    >>> column = lambda name, correct: Column(name, 0.1, '', ('pgd',), index, right, right & correct, {})
    >>> first, second = column('linf', index != 0), column('l2', index != 1)
    >>> summary = threats_summary([first, second], trained=['linf'])
    >>> summary['clean'], summary['union'], summary['unseen_mean'], summary['subsets'][1]
    (0.75, 0.25, 0.5, {'broken_by': ['linf'], 'images': 1})
  """
  if not columns:
    raise ValueError('`runs` names no directory of `certjax attack`.')
  for column in columns[1:]:
    _check_same(columns[0], column)
  names = _names(columns)
  correct = np.stack([column.correct for column in columns], axis=1)
  narrow = [i for i, column in enumerate(columns) if column.name != _WIDE]
  clean = columns[0].clean
  accuracies = {name: float(correct[:, i].mean()) for i, name in enumerate(names)}
  counts = collections.Counter(tuple(np.flatnonzero(~row).tolist()) for row in correct[clean])
  rows = [
    {
      'name': name, 'norm': column.name, 'eps': column.eps, 'unit': column.unit,
      'attacks': list(column.attacks), 'accuracy': accuracies[name],
      'broken': int((clean & ~column.correct).sum()),
    }
    for name, column in zip(names, columns, strict=True)
  ]  # fmt: skip
  return {
    'num_images': len(clean), 'clean': float(clean.mean()), 'threats': rows,
    'union': union_accuracy(correct[:, narrow]) if narrow else None,
    'union_of': [names[i] for i in narrow], 'trained': list(trained),
    'unseen_mean': unseen_mean(accuracies, trained) if trained else None,
    'subsets': [
      {'broken_by': [names[i] for i in subset], 'images': count}
      for subset, count in sorted(counts.items(), key=lambda item: (len(item[0]), item[0]))
    ],
  }  # fmt: skip


def threats_markdown(summary) -> str:
  """Tables of `threats_summary`.

  Example:
    >>> summary = {'num_images': 2, 'clean': 1.0, 'threats': [], 'union': 0.5, 'union_of': ['linf', 'l2'],
    ...            'trained': [], 'unseen_mean': None, 'subsets': [{'broken_by': ['l2'], 'images': 1}]}
    >>> print(threats_markdown(summary).splitlines()[-1])
    | l2 | 1 |
  """
  lines = [
    f'{summary["num_images"]} images, {summary["clean"]:.4f} right without an attack', '',
    '| threat | size | attacks | accuracy | broken |', '| --- | --- | --- | --- | --- |',
  ]  # fmt: skip
  lines += [
    f'| {row["name"]} | {row["eps"]:g} ({row["unit"]}) | {", ".join(row["attacks"])} | '
    f'{row["accuracy"]:.4f} | {row["broken"]} |'
    for row in summary['threats']
  ]
  if summary['union'] is not None:
    lines.append(f'| union | {", ".join(summary["union_of"])} | | {summary["union"]:.4f} | |')
  if summary['unseen_mean'] is not None:
    trained = ', '.join(summary['trained'])
    lines.append(f'| unseen mean | all but {trained} | | {summary["unseen_mean"]:.4f} | |')
  lines += ['', '| broken by exactly | images |', '| --- | --- |']
  lines += [
    f'| {", ".join(subset["broken_by"]) or "none"} | {subset["images"]} |'
    for subset in summary['subsets']
  ]
  return '\n'.join(lines)


def write_threats(directories, out, trained=()) -> str:
  """Writes `threats.json` and `threats.md` of several directories of `certjax attack`.

  Args:
    directories: one a threat.
    out: a directory, made where missing.
    trained: as in `threats_summary`.

  Returns:
    The markdown.

  Raises:
    ValueError: as `load_attacked` and `threats_summary`.
    OSError: if a file cannot be read or written.

  Example:
    >>> write_threats(['nowhere'], 'nowhere')
    Traceback (most recent call last):
    ...
    ValueError: nowhere holds no attacks.json: run `certjax attack --out nowhere` to its end first.
  """
  summary = threats_summary([load_attacked(directory) for directory in directories], trained)
  text, out = threats_markdown(summary), pathlib.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  content = json.dumps(summary, sort_keys=True, allow_nan=False, indent=2)
  (out / 'threats.json').write_text(f'{content}\n')
  (out / 'threats.md').write_text(f'{text}\n')
  return text


def _broken(directory):
  """Indices that an attack, or one of its parts, broke."""
  parts = [path.parent for path in sorted(directory.glob(f'*/{records.RECORDS}'))]
  lines = [line for part in parts or [directory] for line in records.read(part)[1]]
  return {line['index'] for line in lines if line['success']}


def _names(columns):
  """The norms; with their sizes where a norm comes twice."""
  counts = collections.Counter(column.name for column in columns)
  names = [
    column.name if counts[column.name] == 1 else f'{column.name} {column.eps:g}'
    for column in columns
  ]
  if len(set(names)) < len(names):
    raise ValueError(f'`runs` holds a threat twice at one size: {", ".join(names)}.')
  return names


def _check_same(first, other):
  for name in _SAME:
    if first.header.get(name) != other.header.get(name):
      raise ValueError(
        f'`runs` must be attacks on one model and the same images: {name} differs between {first.name} and '
        f'{other.name}.'
      )
