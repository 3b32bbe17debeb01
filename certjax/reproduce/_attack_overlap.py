"""Which images fall to which threats, and how far the perceptual one contains the others.

One classifier, one attack a threat: an image is vulnerable to a threat if its attack broke it. The sets of
vulnerable images overlap; each image is counted once, by exactly the threats that broke it. The perceptual
threat comes in three sizes: the bound of the comparison, a half and a quarter of it.
"""

import numpy as np

from certjax import report
from certjax.report import Regions
from certjax.reproduce._attacked import attacked
from certjax.reproduce._certified import images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Row, Scale
from certjax.reproduce._perceptual_training import PLANS, armed_for, measuring, slug
from certjax.reproduce._shares import share

NARROW = ('L_inf', 'L2', 'StAdv')
SHARES = (1.0, 0.5, 0.25)
"""Of the perceptual bound."""
_CLASSIFIER = 'AT L_inf'
_NOTE = (
  'An attack is a lower bound: an image that none broke may still be vulnerable. The lecture draws the same sets '
  'as overlapping ellipses; its shares are not held here.'
)


def run(request, *, plan=None) -> Result:
  """Shares of images by exactly the threats that broke them; how much of the others LPA breaks.

  Args:
    request: a `Request` with presets and attacks.
    plan: a `Plan` of the perceptual comparison, of which one classifier is trained; default that of the scale.
  """
  plan = plan or PLANS[request.scale]
  columns = _columns(request, plan)
  found = report.threats_summary(columns)
  count, clean = found['num_images'], columns[0].clean
  shared = {
    'unit': 'fraction of images', 'dataset': plan.dataset, 'seed': request.seed,
    'setting': f'{plan.classifiers[_CLASSIFIER][0]}, {count} test images, {int(clean.sum())} right',
  }  # fmt: skip
  rows = [
    _share_row(f'broken by exactly: {", ".join(one["broken_by"]) or "none"}', one['images'], int(clean.sum()), shared)
    for one in found['subsets']
  ]  # fmt: skip
  broken = [clean & ~column.correct for column in columns]
  narrow = np.any(broken[: len(NARROW)], axis=0)
  for column, mine in zip(columns[len(NARROW) :], broken[len(NARROW) :], strict=True):
    if narrow.any():
      number = f'of the images that {", ".join(NARROW)} broke, broken by LPA at {column.eps:g}'
      rows.append(_share_row(number, int((narrow & mine).sum()), int(narrow.sum()), shared))
  return Result(tuple(rows), (_picture(columns, broken, clean),), (_NOTE,))


def _columns(request, plan):
  """A `report.Column` a threat, LPA at each of its sizes."""
  measure = measuring(request, plan)
  images = images_of(request, plan.dataset, plan.num_images)
  preset, changed = plan.classifiers[_CLASSIFIER]
  classifier = trained(request, preset, slug(_CLASSIFIER), **changed)
  sizes = [(name, 1.0) for name in NARROW] + [('LPA', part) for part in SHARES]
  ready = [armed_for(request, plan, name, part) for name, part in sizes]
  return [
    attacked(request, slug(_CLASSIFIER), classifier, attack, images, measure=measure)
    for attack in ready
  ]


def _share_row(number, successes, trials, shared):
  value, interval = share(successes, trials)
  return Row(number=number, ours=value, interval=interval, **shared)


def _picture(columns, broken, clean):
  """A row an image that is right without attack, a column a threat; sorted, so that sets show as blocks."""
  table = np.stack(broken, axis=1)[clean]
  order = np.lexsort((*table.T[::-1], table.sum(axis=1)))
  names = ', '.join(f'{column.name} {column.eps:g}' for column in columns)
  return Regions(f'broken (orange), left to right:\n{names}', table[order].astype(np.int64), (0, 1, 0, 1))  # fmt: skip


RECIPE = Recipe(
  name='attack-overlap',
  source='Laidlaw, Singla & Feizi 2021',
  dataset='imagenet100',
  shows='which images fall to which threats, and whether the perceptual one contains the others',
  scales={
    'quick': Scale(
      'a minute or two on 2 cores: two small networks on digits, 20 epochs, 100 images', ('digits',)
    ),
    'reduced': Scale('half an hour or more (not timed): the same on MNIST, 200 images', ('mnist',)),
  },
  run=run,
  left_out={'full': 'no preset trains against attacks on ImageNet-100'},
)
