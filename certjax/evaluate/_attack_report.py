"""Attacks in numbers: accuracy under each, in the worst case over them, and how far the broken images moved."""

import json
import math

import numpy as np

_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def attack_summary(result, *, norm, eps, unit, flags=()) -> dict:
  """What `attacked` found, as JSON.

  An image counts for the accuracy where the answer is its label; an abstention is no answer, counted apart.
  Distances are those of images that were right and are no longer: of the worst case, the nearest of all attacks.

  Args:
    result: `Attacked`.
    norm, eps, unit: of the threat.
    flags: of `distrust_flags` and `square_flag`.

  Returns:
    A dict: norm, eps, unit, num_images, clean, attacks (a list), worst_case, flags. A row has accuracy, correct,
    wrong, abstained, broken, distances (quantiles, None where nothing was broken) and, of attacks, parts: name,
    images seen, and broken.

  Example:
    >>> from certjax.evaluate import Attacked, Outcome
    >>> index, labels, none = np.arange(2), np.array([3, 1]), np.zeros(2)
    >>> clean = Outcome('clean', index, labels, labels, none)
    >>> pgd = Outcome('pgd', index, labels, np.array([3, 7]), np.array([0.1, 0.1]))
    >>> summary = attack_summary(Attacked(clean, {'pgd': (pgd,)}), norm='linf', eps=0.1, unit='pixel value')
    >>> summary['clean']['accuracy'], summary['worst_case']['accuracy'], summary['attacks'][0]['broken']
    (1.0, 0.5, 1)
  """
  clean = result.clean
  rows = []
  for name, parts in result.parts.items():
    predict, distance = result.adversarial(name)
    each = [
      {'name': part.name, 'seen': len(part.index), 'broken': int((~part.survives).sum())}
      for part in parts
    ]
    rows.append({'name': name, **_row(clean, predict, distance), 'parts': each})
  return {
    'norm': norm, 'eps': eps, 'unit': unit, 'num_images': len(clean.index),
    'clean': {'name': 'clean', **_row(clean, clean.predict, np.full(len(clean.index), np.inf))},
    'attacks': rows, 'worst_case': _worst(result),
    'flags': [flag._asdict() for flag in flags],
  }  # fmt: skip


def attack_markdown(summary) -> str:
  """A table of `attack_summary`, and its flags.

  Example:
    >>> row = {'name': 'clean', 'accuracy': 0.5, 'correct': 1, 'wrong': 1, 'abstained': 0, 'broken': 0,
    ...        'distances': None}
    >>> summary = {'norm': 'linf', 'eps': 0.1, 'unit': 'pixel value', 'num_images': 2, 'clean': row,
    ...            'attacks': [], 'worst_case': {**row, 'name': 'worst case'}, 'flags': []}
    >>> print(attack_markdown(summary).splitlines()[-2])
    | clean | 0.5000 | 1 | 0 | 0 | - |
  """
  levels = ' / '.join(f'{level:.0%}' for level in _LEVELS)
  lines = [
    f'{summary["num_images"]} images, {summary["norm"]} at most {summary["eps"]:g} ({summary["unit"]})', '',
    f'| attack | accuracy | wrong | abstained | broken | distance of the broken, {levels} |',
    '| --- | --- | --- | --- | --- | --- |',
  ]  # fmt: skip
  lines += [_line(row) for row in (summary['clean'], *summary['attacks'], summary['worst_case'])]
  if summary['flags']:
    lines += ['', 'Reasons to distrust this:']
    lines += [
      f'- {flag["name"]}: {flag["message"]} (see {flag["link"]})' for flag in summary['flags']
    ]
  return '\n'.join(lines)


def write_attack_report(summary, directory) -> str:
  """Writes `attacks.json` and `attacks.md`, and returns the markdown.

  Args:
    summary: of `attack_summary`.
    directory: a local path.

  Returns:
    The markdown.

  Raises:
    OSError: if a file cannot be written.

  Example:
    >>> import pathlib, tempfile
    >>> from certjax.evaluate import Attacked, Outcome
    >>> clean = Outcome('clean', np.arange(1), np.array([3]), np.array([3]), np.zeros(1))
    >>> summary = attack_summary(Attacked(clean, {}), norm='linf', eps=0.1, unit='pixel value')
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   text = write_attack_report(summary, pathlib.Path(folder))
    ...   sorted(path.name for path in pathlib.Path(folder).iterdir())
    ['attacks.json', 'attacks.md']
  """
  text = attack_markdown(summary)
  content = json.dumps(summary, sort_keys=True, allow_nan=False, indent=2)
  (directory / 'attacks.json').write_text(f'{content}\n')
  (directory / 'attacks.md').write_text(f'{text}\n')
  return text


def _worst(result):
  """The row of the worst case: a wrong answer counts before an abstention."""
  found = [result.adversarial(name) for name in result.parts]
  clean, alive = result.clean, result.survives_all()
  predict = np.where(clean.survives, clean.labels, clean.predict)
  for other, _ in found:
    broken = clean.survives & (other != clean.labels)
    predict = np.where(broken & ((predict == clean.labels) | (predict < 0)), other, predict)
  nearest = np.min([distance for _, distance in found], axis=0, initial=np.inf)
  return {'name': 'worst case', **_row(clean, predict, nearest), 'survivors': int(alive.sum())}


def _row(clean, predict, distance):
  correct, abstained = int((predict == clean.labels).sum()), int((predict < 0).sum())
  moved = np.sort(distance[np.isfinite(distance)])
  return {
    'accuracy': correct / len(predict), 'correct': correct, 'abstained': abstained,
    'wrong': len(predict) - correct - abstained, 'broken': len(moved),
    'distances': {f'{level:g}': _quantile(moved, level) for level in _LEVELS} if len(moved) else None,
  }  # fmt: skip


def _quantile(ordered, level):
  """The smallest value that a share `level` does not exceed: one that was measured."""
  return float(ordered[max(math.ceil(level * len(ordered)) - 1, 0)])


def _line(row):
  distances = '-'
  if row['distances']:
    distances = ' / '.join(f'{value:.4g}' for value in row['distances'].values())
  cells = (
    row['name'], f'{row["accuracy"]:.4f}', row['wrong'], row['abstained'], row['broken'], distances,
  )  # fmt: skip
  return f'| {" | ".join(map(str, cells))} |'
