"""Panels: what is drawn are the numbers that were given."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from certjax import report


@pytest.fixture
def drawn(monkeypatch):
  """The figures that are saved while the test runs."""
  figures, save = [], Figure.savefig

  def savefig(self, *args, **kwargs):
    figures.append(self)
    return save(self, *args, **kwargs)

  monkeypatch.setattr(Figure, 'savefig', savefig)
  return figures


def test_curves_and_regions_are_the_numbers(tmp_path, drawn):
  x = np.arange(1.0, 5.0)
  curves = report.Curves(
    'title', 'x', 'y', (report.Line('a', x, x**2), report.Line('b', x, 1 / x, 'steps')), log='xy'
  )
  labels = np.array([[0, 0, 1], [2, -1, 1]])
  regions = report.Regions('plane', labels, (-1, 2, 0, 2), [(0.5, 1.5, 0.25)])
  report.plot_panels([curves, regions], tmp_path / 'figure.png')
  left, right = drawn[0].axes
  first, second = left.get_lines()
  np.testing.assert_array_equal(first.get_xydata(), np.column_stack([x, x**2]))
  np.testing.assert_array_equal(second.get_xydata(), np.column_stack([x, 1 / x]))
  assert second.get_drawstyle() == 'steps-post' and first.get_drawstyle() == 'default'
  assert (left.get_xscale(), left.get_yscale()) == ('log', 'log')
  assert [text.get_text() for text in left.get_legend().get_texts()] == ['a', 'b']
  assert (left.get_title(), right.get_title()) == ('title', 'plane')
  colours = right.get_images()[0].get_array()
  assert right.get_images()[0].origin == 'lower'
  assert (colours[1, 1] == 1).all() and (colours[0, 0] == colours[0, 1]).all()  # -1 is white.
  assert len({tuple(colours[at]) for at in ((0, 0), (0, 2), (1, 0))}) == 3
  (disc,) = right.patches
  assert (disc.center, disc.radius) == ((0.5, 1.5), 0.25)
  with Image.open(tmp_path / 'figure.png') as image:
    assert image.format == 'PNG' and image.size[0] > image.size[1]


def test_panels_that_cannot_be_drawn(tmp_path):
  with pytest.raises(ValueError, match='`panels` is empty'):
    report.plot_panels([], tmp_path / 'figure.png')
  with pytest.raises(ValueError, match='needs a line'):
    report.plot_panels([report.Curves('t', 'x', 'y', ())], tmp_path / 'figure.png')
  line = report.Line('a', [1], [1])
  with pytest.raises(ValueError, match="log='z'"):
    report.plot_panels([report.Curves('t', 'x', 'y', (line,), log='z')], tmp_path / 'figure.png')
