"""Panels of curves and of regions of the plane, side by side in one picture."""

from typing import Any, NamedTuple

import numpy as np

from certjax.report._plot import COLORS, _shortened

_WIDTH, _HEIGHT, _DPI = 4.6, 4.2, 100  # Inches a panel, and dots an inch.
_LOGS = ('', 'x', 'y', 'xy')
_TINT = 0.55  # Share of white in the colour of a region, so that what lies on it is seen.


class Line(NamedTuple):
  """One curve.

  Attributes:
    name: for the legend; '' leaves it out.
    x, y: float[N].
    style: of matplotlib, as '-', '--', 'o', or 'steps' for a step function, y[i] from x[i] on.
  """

  name: str
  x: Any
  y: Any
  style: str = '-'


class Curves(NamedTuple):
  """A panel of curves.

  Attributes:
    title, xlabel, ylabel: texts.
    lines: a sequence of `Line`.
    log: which axes are logarithmic: '', 'x', 'y' or 'xy'.
  """

  title: str
  xlabel: str
  ylabel: str
  lines: tuple
  log: str = ''


class Regions(NamedTuple):
  """A panel of labelled regions of the plane, with discs.

  Attributes:
    title: a text.
    labels: int[H, W], -1 is white; row 0 is at the bottom.
    extent: (left, right, bottom, top) of the outer edges.
    discs: float[N, 3], centre and radius; 0 draws the centre alone.
  """

  title: str
  labels: Any
  extent: tuple
  discs: Any = ()


def plot_panels(panels, path):
  """Draws panels from left to right into a PNG.

  Args:
    panels: a sequence of `Curves` and `Regions`.
    path: where to write it.

  Raises:
    ValueError: without a panel, for one without a curve, or another `log`.
    OSError: if it cannot be written.

  Example:
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = os.path.join(folder, 'a.png')
    ...   plot_panels([Curves('a', 'radius', 'accuracy', (Line('', [0, 1], [1, 0]),))], path)
    ...   os.path.getsize(path) > 1000
    True
  """
  from matplotlib.figure import Figure  # No pyplot: no global state, no display.

  if not panels:
    raise ValueError('`panels` is empty: a picture needs at least one.')
  figure = Figure(figsize=(_WIDTH * len(panels), _HEIGHT), dpi=_DPI, layout='constrained')
  for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
    (_draw_curves if isinstance(panel, Curves) else _draw_regions)(panel, axes)
    axes.set_title(panel.title, fontsize=10)
  figure.savefig(path, format='png')


def _draw_curves(panel, axes):
  if not panel.lines or panel.log not in _LOGS:
    raise ValueError(
      f'{panel.title}: needs a line, and a `log` of {_LOGS}, got {len(panel.lines)} lines and '
      f'log={panel.log!r}.'
    )
  for number, line in enumerate(panel.lines):
    steps = {'drawstyle': 'steps-post', 'linestyle': '-'} if line.style == 'steps' else {}
    drawn = () if steps else (line.style,)
    axes.plot(
      np.asarray(line.x), np.asarray(line.y), *drawn, **steps, label=_shortened(line.name) or None,
      color=COLORS[number % len(COLORS)], linewidth=1.6, markersize=3,
    )  # fmt: skip
  axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
  for axis in panel.log:
    getattr(axes, f'set_{axis}scale')('log')
  axes.grid(color='0.9', linewidth=0.8)
  axes.spines[['top', 'right']].set_visible(False)
  if any(line.name for line in panel.lines):
    axes.legend(frameon=False, fontsize=8)


def _draw_regions(panel, axes):
  from matplotlib.patches import Circle

  labels = np.asarray(panel.labels)
  axes.imshow(_colours(labels), extent=panel.extent, origin='lower', interpolation='nearest')
  for x, y, radius in panel.discs:
    axes.plot(x, y, 'k.', markersize=4)
    axes.add_patch(Circle((x, y), radius, fill=False, linewidth=1.2))
  axes.set(xlim=panel.extent[:2], ylim=panel.extent[2:], xticks=[], yticks=[])


def _colours(labels):
  """float[H, W, 3], a tint a label."""
  from matplotlib.colors import to_rgb

  palette = np.array([to_rgb(colour) for colour in COLORS])
  tinted = _TINT + (1 - _TINT) * palette[labels % len(COLORS)]
  return np.where((labels < 0)[..., None], 1.0, tinted)
