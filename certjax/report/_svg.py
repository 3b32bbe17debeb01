"""The curve of certified accuracy as a drawing inside a page: its colours follow the reader's light or dark."""

import numpy as np

from certjax.report._accuracy import band
from certjax.report._html import Html, escaped
from certjax.report._plot import axis_label, curve, right_edge
from certjax.report._table import default_radii

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 800, 420, 56, 48, 12  # Pixels of the view.
_DASHES = (
  '',
  '9 4',
  '9 4 2 4',
  '3 3',
)  # A second sign beside the colour, for whoever cannot tell these.
_COLORS = 7
_NORMS = {'l0': 'L0', 'l1': 'L1', 'l2': 'L2', 'linf': 'L\N{INFINITY}'}


def drawing(runs, *, level=0.95) -> list:
  """Certified accuracy against the radius, with the simultaneous band, and the key below it.

  Args:
    runs: a list of `Run`.
    level: of the band, see `band`.

  Returns:
    A list of `Html`: a figure and its key.
  """
  end = right_edge(runs)
  x = lambda r: _LEFT + (_WIDTH - _LEFT - 12) * r / end
  y = lambda a: _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - a)
  label = axis_label(runs, _NORMS)
  said = f'{label} from 0 to {end:.3g}'
  parts = [
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Certified accuracy as a curve over the {escaped(said)}; '
    f'the table above holds its values.">'
  ]
  for tick in np.linspace(0, 1, 6):
    parts.append(
      f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
      f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>'
    )
  for tick in default_radii(runs):  # Those of the table.
    parts.append(
      f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:.3g}</text>'
    )
  parts.append(
    f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escaped(label)}</text>'
  )
  middle = (y(0) + y(1)) / 2
  parts.append(
    f'<text x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})">certified accuracy</text>'
  )
  for number, run in enumerate(runs):
    steps, accuracy = curve(run, end)
    lower, upper = band(run.certificate, run.labels, steps, level=level)
    color = f'var(--c{number % _COLORS})'
    around = _stairs(x(steps), y(upper)) + _stairs(x(steps), y(lower))[::-1]
    parts.append(f'<path d="{_path(around)}Z" style="fill: {color}" opacity="0.13"/>')
    line = _stairs(x(steps), y(accuracy))
    if steps[-1] < end:  # Beyond the last radius nothing is certified.
      line.append((line[-1][0], round(float(y(0)), 1)))
    parts.append(f'<path d="{_path(line)}" {_stroke(number)}/>')
  figure = Html(
    '<figure style="width:auto">'
    + ''.join(parts)
    + f'</svg><figcaption>Shaded: simultaneous {level:.0%} confidence band '
    '(Dvoretzky-Kiefer-Wolfowitz) over draws of the images.</figcaption></figure>\n'
  )
  return [figure, _key(runs)]


def _key(runs):
  rows = ''.join(
    f'<li><svg viewBox="0 0 40 10" aria-hidden="true"><path d="M0 5H40" {_stroke(i)}/></svg>{escaped(run.name)}</li>'
    for i, run in enumerate(runs)
  )
  return Html(f'<ul class="key">{rows}</ul>\n')


def _stroke(number):
  dashes = _DASHES[number % len(_DASHES)]
  dashed = f' stroke-dasharray="{dashes}"' if dashes else ''
  return f'fill="none" style="stroke: var(--c{number % _COLORS})" stroke-width="2.5"{dashed}'


def _stairs(x, y):
  """Corners of a curve that holds y[i] on (x[i - 1], x[i]]; those that a tenth of a pixel joins are one."""
  corners = [(x[0], y[0])]
  for i in range(1, len(x)):
    corners += [(x[i - 1], y[i]), (x[i], y[i])]
  kept = []
  for corner in ((round(float(a), 1), round(float(b), 1)) for a, b in corners):
    if not kept or corner != kept[-1]:
      kept.append(corner)
  return kept


def _path(corners):
  first, *rest = corners
  return f'M{first[0]} {first[1]}' + ''.join(f'L{a} {b}' for a, b in rest)
