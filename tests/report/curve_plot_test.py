import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from certjax import report
from certjax.certify import certificate


def _run(name, radii, labels=None, **header):
  size = len(radii)
  labels = np.ones(size, np.int64) if labels is None else np.array(labels)
  return report.Run(name, np.arange(size), labels, certificate(np.ones(size), radii), None, header)


@pytest.fixture
def drawn(monkeypatch):
  """The figures that are saved while the test runs."""
  figures, save = [], Figure.savefig

  def savefig(self, *args, **kwargs):
    figures.append(self)
    return save(self, *args, **kwargs)

  monkeypatch.setattr(Figure, 'savefig', savefig)
  return figures


def _height(line, r):
  """The drawn curve at r; with steps-pre a vertex gives the height of the segment to its left."""
  x, y = line.get_data()
  return y[np.searchsorted(x, r, side='left')]


def test_the_drawn_curve_is_the_certified_accuracy(tmp_path, drawn):
  draw = np.random.default_rng(0)
  run = _run('a', draw.integers(0, 20, 50) / 10, draw.integers(0, 2, 50))
  report.plot([run], tmp_path / 'curve.png')
  (axes,) = drawn[0].axes
  (line,) = axes.get_lines()
  assert line.get_drawstyle() == 'steps-pre'
  for r in np.linspace(0, line.get_xdata()[-1], 77):
    assert _height(line, r) == report.certified_accuracy(run.certificate, run.labels, r)
  assert line.get_ydata()[-1] == 0
  assert axes.get_ylim() == (0, 1) and axes.get_xlim()[0] == 0


def test_png_labels_and_legend(tmp_path, drawn):
  runs = [
    _run(f'sigma {i}', np.arange(9) * i / 9, norm='l2', unit='pixel value') for i in (1, 2, 3)
  ]
  report.plot(runs, tmp_path / 'curve.png', title='title')
  with Image.open(tmp_path / 'curve.png') as image:
    assert image.format == 'PNG' and image.size == (800, 500)
  figure = drawn[0]
  (axes,) = figure.axes
  assert axes.get_xlabel() == r'certified radius ($\ell_2$, pixel value)'
  assert axes.get_ylabel() == 'certified accuracy'
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ['sigma 1', 'sigma 2', 'sigma 3']
  assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_no_global_state_of_matplotlib(tmp_path):
  code = (
    'import sys; import numpy as np\n'
    'from certjax import report; from certjax.certify import certificate\n'
    "run = report.Run('a', np.arange(1), np.ones(1, int), certificate([1], [0.5]))\n"
    'report.plot([run], sys.argv[1])\n'
    "assert 'matplotlib.pyplot' not in sys.modules"
  )
  subprocess.run([sys.executable, '-c', code, str(tmp_path / 'curve.png')], check=True)


def test_the_band_is_shaded(tmp_path, drawn):
  run = _run('a', np.linspace(0, 1, 200))
  report.plot([run], tmp_path / 'with.png')
  report.plot([run], tmp_path / 'without.png', level=None)
  shaded, bare = (figure.axes[0] for figure in drawn)
  assert not bare.collections and len(shaded.collections) == 1
  heights = shaded.collections[0].get_paths()[0].vertices
  lower, upper = report.band(run.certificate, run.labels, 0.0)
  at_zero = heights[heights[:, 0] == 0, 1]
  assert lower in at_zero and at_zero.max() == upper


@pytest.mark.parametrize('radii', [[0.0], [np.inf, 1.0], [np.inf], [1e-9], [300.0, 2.0]])
def test_odd_radii_are_drawn(tmp_path, drawn, radii):
  report.plot([_run('a', radii)], tmp_path / 'curve.png')
  (line,) = drawn[0].axes[0].get_lines()
  x, y = line.get_data()
  assert np.isfinite(x).all()
  assert y[-1] == np.mean(np.isinf(radii))
  assert line.get_ydata()[0] == 1


def test_no_correct_image(tmp_path, drawn):
  report.plot([_run('a', [0.5, 0.2], [3, 3])], tmp_path / 'curve.png')
  assert np.all(drawn[0].axes[0].get_lines()[0].get_ydata() == 0)


def test_many_runs_with_long_names(tmp_path, drawn):
  runs = [_run(f'{i} ' + 'very long name ' * 6, np.arange(9) * i / 9) for i in range(1, 10)]
  report.plot(runs, tmp_path / 'curve.png')
  figure = drawn[0]
  styles = {(line.get_color(), str(line.get_linestyle())) for line in figure.axes[0].get_lines()}
  assert len(styles) == len(runs)
  assert figure.legends[0].get_window_extent().width <= 800
  assert figure.axes[0].get_window_extent().height >= 200


def test_errors(tmp_path):
  with pytest.raises(ValueError, match='`runs` is empty'):
    report.plot([], tmp_path / 'curve.png')
  runs = [_run('a', [1.0], unit='pixels'), _run('b', [1.0], unit='patch side')]
  with pytest.raises(ValueError, match='runs differ in `unit`'):
    report.plot(runs, tmp_path / 'curve.png')
  with pytest.raises(OSError):
    report.plot(runs[:1], tmp_path / 'missing' / 'curve.png')
