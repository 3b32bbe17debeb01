"""Spectra of a network's layers as a table, files and one plot."""

import json
import math
from pathlib import Path

import numpy as np

from certjax.report._plot import _STYLES, COLORS, _shortened

_POINTS = 1000  # Singular values that are kept of a layer: evenly spaced in rank, both ends too.
_BOUNDS = ('lipschitz', 'zero_padded', 'fantastic_four', 'gram')
_COLUMNS = ('layer', 'kind', 'input', 'values', 'every', 'min', 'median', 'max', *_BOUNDS)
_DIGITS = 6


def write_spectra(spectra, out_directory):
  """Writes `spectrum.json`, `spectrum.csv` and `spectrum.png`.

  Args:
    spectra: a list of layers' spectra, with the fields of `models.LayerSpectrum`.
    out_directory: created where missing.

  Returns:
    The table as markdown; bounds are rounded up, the largest singular value too.

  Raises:
    ValueError: if there is no layer.
    OSError: if a file cannot be written.

  Example:
    >>> write_spectra([], 'nowhere')
    Traceback (most recent call last):
    ...
    ValueError: `spectra` is empty: the model has no layer with a matrix or a convolution.
  """
  if not spectra:
    raise ValueError('`spectra` is empty: the model has no layer with a matrix or a convolution.')
  out_directory = Path(out_directory)
  out_directory.mkdir(parents=True, exist_ok=True)
  rows = [_row(spectrum) for spectrum in spectra]
  kept = [
    {**row, 'singular_values': _thinned(spectrum.values).tolist()}
    for row, spectrum in zip(rows, spectra, strict=True)
  ]
  (out_directory / 'spectrum.json').write_text(json.dumps(kept, indent=1) + '\n')
  lines = [_COLUMNS, *([_exact(row[name]) for name in _COLUMNS] for row in rows)]
  (out_directory / 'spectrum.csv').write_text(''.join(','.join(line) + '\n' for line in lines))
  plot_spectra(spectra, out_directory / 'spectrum.png')
  return _markdown(rows)


def plot_spectra(spectra, path):
  """One curve a layer: its singular values against their rank, as a share of all.

  Args:
    spectra: as for `write_spectra`; layers without singular values are left out.
    path: where to write the PNG.

  Raises:
    OSError: if it cannot be written.

  Example:
    >>> import os, tempfile
    >>> from types import SimpleNamespace
    >>> layer = SimpleNamespace(name='dense', values=np.array([2.0, 1.0, 0.5]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   plot_spectra([layer], os.path.join(folder, 'spectrum.png'))
    ...   os.listdir(folder)
    ['spectrum.png']
  """
  from matplotlib.figure import Figure  # No pyplot: no global state, no display.

  figure = Figure(figsize=(8, 5), dpi=100, layout='constrained')
  axes = figure.subplots()
  shown = [spectrum for spectrum in spectra if len(spectrum.values)]
  for number, spectrum in enumerate(shown):
    values = _thinned(spectrum.values)
    axes.plot(
      np.linspace(0, 1, len(values)), values, label=_shortened(spectrum.name), linewidth=1.6,
      color=COLORS[number % len(COLORS)],
      linestyle=_STYLES[number // len(COLORS) % len(_STYLES)],
      marker='o' if len(values) == 1 else None,
    )  # fmt: skip
  axes.axhline(1, color='0.5', linewidth=0.8)
  axes.set(xlim=(0, 1), xlabel='rank, as a share of all', ylabel='singular value')
  axes.set_ylim(bottom=0)
  axes.grid(color='0.9', linewidth=0.8)
  axes.spines[['top', 'right']].set_visible(False)
  if shown:
    columns = -(-len(shown) // 24)
    figure.legend(loc='outside right upper', ncols=columns, frameon=False, fontsize=7)
  figure.savefig(path, format='png')


def _row(spectrum):
  """Plain numbers: what the table, the CSV and the JSON share."""
  values = np.asarray(spectrum.values)
  some = len(values) > 0
  return {
    'layer': spectrum.name,
    'kind': spectrum.kind,
    'input': ' x '.join(map(str, spectrum.shape)),
    'values': len(values),
    'every': spectrum.every,
    'min': float(values[-1]) if some else None,
    'median': float(np.median(values)) if some else None,
    'max': float(values[0]) if some else None,
    **{name: _finite(getattr(spectrum, name)) for name in _BOUNDS},
  }


def _finite(value):
  """JSON has no infinity: a bound that proves nothing is left out."""
  return None if value is None or not math.isfinite(value) else float(value)


def _thinned(values):
  count = min(len(values), _POINTS)
  return np.asarray(values)[np.linspace(0, len(values) - 1, count).round().astype(int)]


def _exact(value):
  return '' if value is None else repr(value) if isinstance(value, float) else str(value)


def _markdown(rows):
  names = [name for name in _COLUMNS if name != 'every' or any(row['every'] > 1 for row in rows)]
  lines = ['| ' + ' | '.join(name.replace('_', ' ') for name in names) + ' |']
  lines.append('| ' + ' | '.join('---' for _ in names) + ' |')
  for row in rows:
    cells = (_cell(row[name], name) for name in names)
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def _cell(value, name):
  """Upper bounds are rounded up, what is merely measured is rounded."""
  if value is None:
    return '-'
  if not isinstance(value, float):
    return str(value)
  if name in _BOUNDS or name == 'max':
    value = math.ceil(value * 10**_DIGITS) / 10**_DIGITS
  return f'{value:.{_DIGITS}f}'
