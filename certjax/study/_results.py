"""The analysis as a table, files and one plot: perceptibility against each distance."""

import csv
import json
import pathlib

from certjax.report._plot import COLORS

_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
_COLUMNS = ('attack', 'bound', 'unit', 'pairs', 'answers', 'perceptibility', 'lower', 'upper')
_PANELS = 3  # Side by side.


def study_markdown(summary) -> str:
  """Tables of `analyse`.

  Example:
    >>> summary = {'threshold': 0.75, 'level': 0.95, 'workers': 3, 'dropped': [], 'beyond': 0,
    ...            'false_alarms': None, 'conditions': [], 'distances': {}}
    >>> print(study_markdown(summary).splitlines()[0])
    3 workers, 0 left out (fewer than 0.75 of the sentinels right)
  """
  left = f'{len(summary["dropped"])} left out (fewer than {summary["threshold"]:g} of the sentinels right)'
  lines = [f'{summary["workers"]} workers, {left}', '']
  if summary['beyond']:
    lines += [f'{summary["beyond"]} batches beyond the most for one worker are left out', '']
  if (alarms := summary['false_alarms']) is not None:
    interval = f'{alarms["lower"]:.3f} to {alarms["upper"]:.3f}'
    lines += [f'identical pairs called different: {alarms["share"]:.3f} ({interval})', '']
  names = list(summary['distances'])
  lines += _table(
    ['attack', 'bound', 'pairs', 'answers', 'perceptibility', f'{summary["level"]:.0%} interval', *names],
    (
      [
        row['attack'], f'{row["bound"]:g} ({row["unit"]})', str(row['pairs']), str(row['answers']),
        f'{row["perceptibility"]:.3f}', f'{row["lower"]:.3f} to {row["upper"]:.3f}',
        *(f'{row["distances"][name]:.4g}' for name in names),
      ]
      for row in summary['conditions']
    ),
  )  # fmt: skip
  lines.append('')
  lines += _table(
    ['distance', 'Pearson', 'Spearman', 'JND', '2AFC'],
    ([name, *map(_cell, summary['distances'][name].values())] for name in names),
  )
  if any(row['unchanged'] for row in summary['conditions']):
    count = sum(row['unchanged'] for row in summary['conditions'])
    lines += ['', f'{count} adversarial pairs are equal once rounded to 8 bits']
  return '\n'.join(lines)


def write_study(summary, rows, out) -> str:
  """Writes `study.md`, `study.csv`, `study.json`, `study.png` and `answers.csv`.

  Args:
    summary: of `analyse`.
    rows: of `answer_rows`, of all workers.
    out: a directory, made where missing.

  Returns:
    The markdown.

  Raises:
    OSError: if a file cannot be written.

  Example:
    >>> import tempfile
    >>> row = {'attack': 'pgd', 'bound': 0.1, 'unit': 'pixel value', 'pairs': 2, 'answers': 8, 'perceptibility': 0.5}
    >>> row |= {'lower': 0.2, 'upper': 0.8, 'unchanged': 0, 'distances': {}}
    >>> summary = {'threshold': 0.75, 'level': 0.95, 'workers': 3, 'dropped': [], 'beyond': 0}
    >>> summary |= {'false_alarms': None, 'conditions': [row], 'distances': {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   text = write_study(summary, [{'attack': 'pgd', 'answer_same': True}], folder)
    ...   sorted(path.name for path in pathlib.Path(folder).iterdir())
    ['answers.csv', 'study.csv', 'study.json', 'study.md', 'study.png']
  """
  out, text = pathlib.Path(out), study_markdown(summary)
  out.mkdir(parents=True, exist_ok=True)
  (out / 'study.md').write_text(f'{text}\n')
  (out / 'study.json').write_text(json.dumps(summary, indent=1, allow_nan=False) + '\n')
  names = list(summary['distances'])
  table = [
    {name: row[name] for name in _COLUMNS}
    | {f'mean_{name}': row['distances'][name] for name in names}
    for row in summary['conditions']
  ]
  _write_csv(out / 'study.csv', table)
  _write_csv(out / 'answers.csv', rows)
  plot_study(summary, out / 'study.png')
  return text


def plot_study(summary, path):
  """A panel a distance: perceptibility against the mean distance, a colour an attack.

  Args:
    summary: of `analyse`.
    path: where to write the PNG.

  Raises:
    OSError: if it cannot be written.

  Example:
    >>> import os, tempfile
    >>> summary = {'level': 0.95, 'false_alarms': None, 'conditions': [], 'distances': {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   plot_study(summary, os.path.join(folder, 'study.png'))
    ...   os.listdir(folder)
    ['study.png']
  """
  from matplotlib.figure import Figure  # No pyplot: no global state, no display.

  names = list(summary['distances'])
  columns = min(_PANELS, len(names)) or 1
  lines = -(-len(names) // columns) or 1
  figure = Figure(figsize=(1 + 4 * columns, 0.6 + 3.6 * lines), dpi=100, layout='constrained')
  panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
  for axes, name in zip(panels, names, strict=False):
    _draw(axes, name, summary)
  for axes in panels[len(names) :]:
    axes.set_visible(False)
  for row in range(lines):
    panels[row * columns].set_ylabel('perceptibility')
  handles, labels = panels[0].get_legend_handles_labels()
  if handles:
    figure.legend(
      handles,
      labels,
      loc='outside upper center',
      ncols=min(5, len(labels)),
      frameon=False,
      fontsize=9,
    )
  note = f'bars: {summary["level"]:.0%} intervals (Wilson)'
  if summary['false_alarms'] is not None:
    note += '; dotted: identical pairs called different'
  figure.supxlabel(note, fontsize=8, color='0.35')
  figure.savefig(path, format='png')


def _draw(axes, name, summary):
  attacks = sorted({row['attack'] for row in summary['conditions']})
  for number, attack in enumerate(attacks):
    rows = [row for row in summary['conditions'] if row['attack'] == attack]
    rows.sort(key=lambda row: row['distances'][name])
    share = [row['perceptibility'] for row in rows]
    # An exact end may lie on the share itself: rounding must not make a bar negative.
    bars = [
      [max(0.0, row['perceptibility'] - row['lower']) for row in rows],
      [max(0.0, row['upper'] - row['perceptibility']) for row in rows],
    ]
    axes.errorbar(
      [row['distances'][name] for row in rows], share, bars, label=attack, capsize=3, linewidth=1.4,
      color=COLORS[number % len(COLORS)], marker=_MARKERS[number % len(_MARKERS)],
    )  # fmt: skip
  if (alarms := summary['false_alarms']) is not None:
    axes.axhline(alarms['share'], color='0.5', linewidth=0.8, linestyle=':')
  value = summary['distances'][name]['spearman']
  axes.set_title('' if value is None else f'Spearman {value:.2f}', fontsize=9)
  axes.set(ylim=(-0.02, 1.02), xlabel=f'mean {name}')
  largest = max(row['distances'][name] for row in summary['conditions'])
  axes.set_xlim(0, 1.05 * largest or 1)
  axes.grid(color='0.9', linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)


def _write_csv(path, rows):
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def _table(head, rows):
  lines = [head, ['---'] * len(head), *rows]
  return ['| ' + ' | '.join(line) + ' |' for line in lines]


def _cell(value):
  return '-' if value is None else f'{value:.3f}'
