"""How much any noise can certify in L_p: the formulas at the authors' published counts."""

import math
import re

import numpy as np

from certjax import certify, smoothing
from certjax.report import Curves, Line
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, at_every_scale
from certjax.reproduce._published import numbers, published

_DIMENSION, _SAMPLES, _ALPHA = 3_072, 100_000, 1e-3
_FIGURE = {'CIFAR-10, d = 3,072': 3_072, 'ImageNet, d = 150,528': 150_528}
_SIGMA, _P_A = 0.25, 0.99
_NOTE = (
  'The limits are taken at the published median count. The published median of 500 images is the mean '
  'of the two in the middle, whose counts are not published; limits are convex in the '
  'probability, so where these two differ the published number is a little above ours.'
)


def run(request) -> Result:
  """Each published limit, from its count of votes; and limit beside certificate for all p >= 2."""
  del request  # Nothing is drawn.
  rows = [
    _row(table, name, limit)
    for table, limit in _LIMITS.items()
    for name in numbers(table)
  ]  # fmt: skip
  panels = tuple(_panel(title, d) for title, d in _FIGURE.items())
  return Result(tuple(rows), panels, (_NOTE,))


def _iid(p_a, sigma, p):
  return smoothing.iid_limit(p_a, sigma=sigma, d=_DIMENSION, p=p)


def _generalized_gaussian(p_a, sigma, p):
  return smoothing.generalized_gaussian_limit(p_a, sigma=sigma, d=_DIMENSION, p=p, q=p)


def _exact(p_a, sigma, p):
  return smoothing.gaussian_radius_lp(p_a, sigma=sigma, d=_DIMENSION, p=p)


_LIMITS = {
  'curse-iid': _iid,
  'curse-generalized-gaussian': _generalized_gaussian,
  'curse-exact': _exact,
}


def _row(table, name, limit):
  sigma, p = map(float, re.findall(r'sigma ([\d.]+), p = (\d+)', name)[0])
  votes = published('curse-counts', name).value
  between = (math.floor(votes), math.ceil(votes))  # Half a vote: a median of an even number.
  p_a = [float(certify.clopper_pearson(n, _SAMPLES, alpha=_ALPHA)) for n in between]
  there = published(table, name)
  return Row(
    number=f'{there.table}, {name}',
    ours=float(np.mean([limit(each, sigma, p) for each in p_a])), unit=there.unit,
    setting=f'the formula at {votes:g} of {_SAMPLES:,} votes, alpha = {_ALPHA}',
    dataset=ARITHMETIC, published=there, comparable=True,
  )  # fmt: skip


def _panel(title, d):
  norms = np.linspace(2, 12, 101)
  certified = [float(smoothing.gaussian_radius_lp(_P_A, sigma=_SIGMA, d=d, p=p)) for p in norms]
  limit = [float(smoothing.iid_limit(_P_A, sigma=_SIGMA, d=d, p=p)) for p in norms]
  lines = (
    Line('no symmetric i.i.d. noise certifies more', norms, limit, '--'),
    Line('Gaussian certificate', norms, certified),
    Line('8 / 255', [2, 12], [8 / 255] * 2, ':'),
  )
  return Curves(title, 'p', f'L_p radius at sigma {_SIGMA}, p_a = {_P_A}', lines, log='y')


RECIPE = Recipe(
  name='curse-of-dimensionality',
  source='Kumar, Levine, Goldstein & Feizi 2020',
  dataset='cifar10',
  shows='for p > 2 what any i.i.d. noise certifies in L_p shrinks as images grow',
  scales=at_every_scale('seconds'),
  run=run,
)
