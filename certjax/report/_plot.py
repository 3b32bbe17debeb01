"""Certified accuracy against the radius, as a step curve with its simultaneous band."""

import numpy as np

from certjax.report._accuracy import band, certified_accuracy, proved_radius
from certjax.report._run import common_setting

# Okabe and Ito's colours, told apart by colour-blind readers; line styles repeat the distinction.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
_STYLES = ('-', '--', '-.', (0, (4, 1, 1, 1, 1, 1)))
_NORMS = {'l0': r'$\ell_0$', 'l1': r'$\ell_1$', 'l2': r'$\ell_2$', 'linf': r'$\ell_\infty$'}
_LONGEST_NAME = 40


def plot(runs, path, *, level=0.95, title=None):
  """Draws certified accuracy against radius for one or several runs.

  Args:
    runs: a list of `Run`; their headers name norm and unit.
    path: where to write the PNG, 800 x 500 pixels.
    level: of the band that is shaded around each curve (see `band`); None draws none.
    title: a line above the figure.

  Raises:
    ValueError: if there is no run, a run is empty, or runs differ in norm or unit.

  Example:
    >>> import os, tempfile
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> run = Run('a', np.arange(2), np.array([3, 1]), certificate([3, 1], [0.5, 0.25]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   plot([run], os.path.join(folder, 'curve.png'))
    ...   os.listdir(folder)
    ['curve.png']
  """
  from matplotlib.figure import Figure  # No pyplot: no global state, no display.

  if not runs:
    raise ValueError('`runs` is empty: a plot needs at least one')
  figure = Figure(figsize=(8, 5), dpi=100, layout='constrained')
  axes = figure.subplots()
  end = right_edge(runs)
  for number, run in enumerate(runs):
    _draw(axes, run, number, end, level)
  axes.set(xlim=(0, end), ylim=(0, 1), xlabel=axis_label(runs), ylabel='certified accuracy')
  axes.set_yticks(np.linspace(0, 1, 11))
  axes.grid(color='0.9', linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)
  # Outside the axes, so that it never hides a curve.
  figure.legend(
    loc='outside upper center', ncols=_legend_columns(runs), frameon=False, title=title, fontsize=9
  )
  if level is not None:
    note = f'shaded: simultaneous {level:.0%} confidence band (DKW) over draws of the images'
    figure.supxlabel(note, fontsize=8, color='0.35')
  figure.savefig(path, format='png')


def curve(run, end):
  """The certified accuracy of a run up to its last radius, where it falls to 0.

  Args:
    run: a `Run`.
    end: of the axis; a curve of infinite radii goes on to it.

  Returns:
    (radii, accuracy), float64[S] both: accuracy[i] holds on (radii[i - 1], radii[i]], since at a certified
    radius the image still counts.
  """
  proved = proved_radius(run.certificate, run.labels)
  last = end if np.isposinf(proved).any() else max(0.0, float(proved.max()))
  steps = np.unique(np.concatenate([[0.0], proved[(proved > 0) & (proved < last)], [last]]))
  return steps, certified_accuracy(run.certificate, run.labels, steps)


def _draw(axes, run, number, end, level):
  """One curve up to its last radius."""
  steps, accuracy = curve(run, end)
  last = float(steps[-1])
  style = {
    'color': COLORS[number % len(COLORS)],
    'linestyle': _STYLES[number % len(_STYLES)],
    'linewidth': 1.8,
    'label': _shortened(run.name),
  }
  drop = [accuracy[-1] if last == end else 0.0]
  axes.plot([*steps, last], [*accuracy, *drop], drawstyle='steps-pre', **style)
  if level is not None:
    lower, upper = band(run.certificate, run.labels, steps, level=level)
    axes.fill_between(
      steps, lower, upper, step='pre', color=style['color'], alpha=0.15, linewidth=0
    )


def right_edge(runs):
  """A little beyond the largest finite certified radius of some runs."""
  proved = np.concatenate([proved_radius(run.certificate, run.labels) for run in runs])
  largest = proved[np.isfinite(proved)].max(initial=0.0)
  return 1.04 * float(largest) if largest > 0 else 1.0


def axis_label(runs, names=_NORMS):
  """What the axis of radii counts; `names` of the norms."""
  norm, unit = common_setting(runs, 'norm'), common_setting(runs, 'unit')
  named = ', '.join(part for part in (names.get(norm, norm), unit) if part)
  return f'certified radius ({named})' if named else 'certified radius'


def _legend_columns(runs):
  """As many columns as fit the width."""
  widest = max(len(_shortened(run.name)) for run in runs)
  return max(1, min(len(runs), 100 // (widest + 8)))


def _shortened(name):
  """A name with its middle left out where it is long."""
  half = _LONGEST_NAME // 2
  return name if len(name) <= _LONGEST_NAME else f'{name[: half - 1]}...{name[2 - half :]}'
