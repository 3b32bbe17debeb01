"""What splitting noise shows of a pixel, beside added noise: the same overlap in less range."""

from fractions import Fraction

import jax
import numpy as np

from certjax import smoothing
from certjax.report import Curves, Line
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, at_every_scale
from certjax.reproduce._published import numbers, published

_STEPS = 255
_SIGMA = 0.5
_PAIR = (100, 120)  # Two values of a pixel, in steps of 1/255.
_DRAWN = (51, 153)  # Further apart, so that a histogram shows it.
_SHAPE = (1, 1, 1)
_BINS = np.linspace(-1, 2, 61)


def run(request, *, num_draws=50_000) -> Result:
  """Views of the exact method, how many tell two values apart, and histograms of what is seen.

  Args:
    request: a `Request`; only its seed matters.
    num_draws: of each noise, for the histograms.
  """
  rows = [_views_row(name) for name in numbers('dssn-views')]
  views = smoothing.deterministic_splitting(sigma=_SIGMA, shape=_SHAPE)
  changed = told_apart(views, *_PAIR)
  setting = (
    f'all {views.num_views} views of pixels {_PAIR[0]}/255 and {_PAIR[1]}/255, sigma = {_SIGMA}'
  )
  rows.append(Row(
    'share of views that tell two values of a pixel apart', changed / views.num_views, 'probability',
    setting, ARITHMETIC, published('splitting-lemma', '20 steps'), comparable=True,
  ))  # fmt: skip
  cuts = len({float(view) for view in _all_views(views, _PAIR[0])})
  rows.append(Row(
    'different values that the classifier may see of one pixel', float(cuts), 'values', setting, ARITHMETIC,
  ))  # fmt: skip
  laws = {
    'x + uniform noise': smoothing.uniform(sigma=_SIGMA),
    'splitting noise': smoothing.splitting(sigma=_SIGMA),
  }
  key = jax.random.key(request.seed)
  panels = tuple(_panel(name, law, key, num_draws) for name, law in laws.items())
  return Result(tuple(rows), panels)


def told_apart(views, low, high) -> int:
  """How many of the views differ between two values of a pixel, in steps of 1/255."""
  return int((_all_views(views, low) != _all_views(views, high)).sum())


def _all_views(views, steps):
  x = np.full(_SHAPE, steps / _STEPS, np.float32)
  index = np.arange(views.num_views, dtype=np.int32)
  return np.asarray(jax.jit(jax.vmap(views.view, (None, 0)))(x, index)).ravel()


def _views_row(name):
  there, sigma = published('dssn-views', name), float(Fraction(name.removeprefix('sigma ')))
  found = smoothing.deterministic_splitting(sigma=sigma, shape=_SHAPE).num_views
  return Row(
    f'views that prove an image exactly, {name}', float(found), there.unit, f'sigma = {sigma:g}',
    ARITHMETIC, there, comparable=True,
  )  # fmt: skip


def _panel(title, law, key, num_draws):
  """What two values of a pixel look like, as densities."""
  lines = []
  for steps in _DRAWN:
    keys = jax.random.split(key, num_draws)
    x = np.full(_SHAPE, steps / _STEPS, np.float32)
    seen = np.asarray(jax.jit(jax.vmap(law.sample, (0, None)))(keys, x)).ravel()
    density, _ = np.histogram(seen, _BINS, density=True)
    lines.append(Line(f'x = {steps}/255', _BINS[:-1], density, 'steps'))
  return Curves(title, 'what the classifier sees', 'density', tuple(lines))


RECIPE = Recipe(
  name='ssn-representation',
  source='Levine & Feizi 2021 (splitting noise)',
  dataset=ARITHMETIC,
  shows='splitting noise tells two pixel values apart as seldom as added noise, inside [0, 1]',
  scales=at_every_scale('seconds'),
  run=run,
)
