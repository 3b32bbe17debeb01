"""The proof of the Gaussian certificate in one dimension, as a linear program."""

import numpy as np
from scipy import special

from certjax import smoothing
from certjax.report import Curves, Line
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, at_every_scale
from certjax.reproduce._published import published

_PROBABILITIES = (0.6, 0.8, 0.9, 0.99)
_CELLS = 100  # All probabilities end at an edge: there the program meets the theorem.
_SIGMA, _PAIRS = 0.5, 2000
_SEEN = 1e-5  # Scores nearer to 0 or 1 have lost the digits that a slope needs.


def run(request) -> Result:
  """Worst scores at certified radii, the steepest slope of Phi^-1, and the two figures."""
  rows = [_worst(p) for p in _PROBABILITIES]
  for name, score in SMOOTHED.items():
    rows.append(_slope(name, score, request.seed))
  return Result(tuple(rows), (_worst_figure(), _value_figure()))


SMOOTHED = {
  'half-plane': lambda x: special.ndtr((x[:, 0] + 0.2) / _SIGMA),
  'strip': lambda x: (
    special.ndtr((0.7 - x[:, 1]) / _SIGMA) - special.ndtr((-0.4 - x[:, 1]) / _SIGMA)
  ),
}
"""Probabilities of sets of the plane under noise, in closed form."""


def _worst(p):
  radius = float(smoothing.gaussian(sigma=1.0).radius(p))
  worst = smoothing.worst_case(p, radius, num_cells=_CELLS)
  return Row(
    number=f'worst score at the certified radius, p_a = {p}',
    ours=worst.value, unit='score',
    setting=f'linear program over {_CELLS} cells of equal mass, shift {radius:.6f} sigma',
    dataset=ARITHMETIC, published=published('gaussian-theorem', 'worst score at the radius'),
    comparable=True,
  )  # fmt: skip


def _slope(name, score, seed):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(_PAIRS, 2))
  other = x + rng.normal(size=x.shape) * 10.0 ** rng.uniform(-2, 0, (_PAIRS, 1))
  scores = np.stack([score(x), score(other)])
  seen = np.minimum(scores, 1 - scores).min(axis=0) > _SEEN
  slopes = smoothing.probit_slope(score, x[seen], other[seen])
  return Row(
    number=f'steepest slope of Phi^-1 of a smoothed score, {name}',
    ours=float(slopes.max()) * _SIGMA, unit='slope times sigma',
    setting=f'{int(seen.sum())} random pairs of points, sigma = {_SIGMA}',
    dataset=ARITHMETIC, seed=seed, published=published('probit-lipschitz', 'slope'),
    comparable=True,
  )  # fmt: skip


def _worst_figure():
  """The worst score for two shifts: steps at the same place, since only the mean decides."""
  lines = []
  for p in (0.6, 0.9):
    worst = smoothing.worst_case(p, 1.0, num_cells=_CELLS)
    inner = np.clip(worst.edges[:-1], -3, 3)
    lines.append(Line(f'mean {p}', inner, worst.score, 'steps'))
  return Curves('the worst score', 'noise along delta, in sigma', 'score', tuple(lines))


def _value_figure():
  shifts, lines = np.linspace(0, 3, 13), []
  for p in (0.6, 0.8, 0.99):
    found = [smoothing.worst_case(p, float(shift), num_cells=_CELLS) for shift in shifts]
    lines.append(Line(f'p_a = {p}: theorem', shifts, [one.bound for one in found]))
    lines.append(Line(f'p_a = {p}: linear program', shifts, [one.value for one in found], 'o'))
  return Curves('smoothed score after a shift', '|delta| / sigma', 'least score', tuple(lines))


RECIPE = Recipe(
  name='one-dimensional-proof',
  source='Cohen et al. 2019; Levine, Singla & Feizi 2019',
  dataset=ARITHMETIC,
  shows='the worst classifier of a given probability is a half-space, and decides the certificate',
  scales=at_every_scale('seconds'),
  run=run,
)
