"""Randomized ablation beside the random replacement of Lee et al. 2019, its exact predecessor.

Both leave few pixels as they are. Ablation says which, so what is seen holds k log2 |S| bits about a
uniform image; Lee et al. put random values in the other places, and the classifier cannot tell which.
Radii follow from probabilities alone, so that the first part needs no data.
"""

import math
from fractions import Fraction

import numpy as np

from certjax import certify, data, smoothing
from certjax.report import Curves, Line
from certjax.reproduce._ablation import BEST_PLANS, certified_under, images_of, setting_of
from certjax.reproduce._certified import Sampling
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import accuracy_line, median_row

_PIXELS, _KEEP = 784, 45  # MNIST, and what the paper shows of it.
_LEE = {'mnist': (Fraction(4, 5), 1), 'imagenet': (Fraction(1, 5), 255)}  # keep, levels.
_GREY = 255
_SAMPLES, _ALPHA = 10_000, 0.05
_NOTE = (
  'At equal numbers of retained pixels the noise of Lee et al. is ablation whose hidden pixels are filled at random: no '
  'probability changes more, and every classifier of it sees less. Their published medians are of binary images.'
)

PLANS = BEST_PLANS
LEE_KEEPS = (0.72, 0.76, 0.8, 0.84, 0.88, 0.92, 0.96)
LEE_TRAINING = {
  'model': 'lee-cnn', 'batch_size': 400, 'optimizer': 'nesterov', 'learning_rate': 0.05,
  'schedule': 'step', 'decay_every_epochs': 10.0,
}  # fmt: skip
"""Lee et al.'s network and descent, and how often they keep a pixel."""
LEE_EPOCHS, LEE_SAMPLING = 30, Sampling(100, 100_000, 1e-3)


def run(request, *, plan=None) -> Result:
  """Thresholds, information and ceilings by arithmetic; medians of models of both laws.

  Args:
    request: a `Request`, whose presets hold the plan's.
    plan: default that of the scale.
  """
  plan = plan or PLANS[request.scale]
  rows = [*_thresholds(), *_same_pixels()]
  models, curves = _models(request, plan)
  figure = (
    _needed(),
    _bits(),
    Curves(plan.dataset, 'changed pixels', 'certified accuracy', curves),
  )
  return Result((*rows, *models), figure, (_NOTE,))


def ceiling(law, *, num_samples=_SAMPLES, alpha=_ALPHA) -> float:
  """The radius of an image for which all samples vote alike."""
  return float(law.radius(certify.clopper_pearson(num_samples, num_samples, alpha=alpha)))


def _thresholds():
  """What a class needs at each radius, beside the authors' files."""
  for name, (keep, levels) in _LEE.items():
    for number in numbers(f'lee-thresholds-{name}'):
      radius = int(number.removeprefix('r = '))
      yield Row(
        f'probability that a class must exceed, {number}',
        float(smoothing.discrete_threshold(keep, levels, radius)), 'probability',
        f'kept with probability {float(keep):g}, {levels + 1} values', ARITHMETIC,
        published(f'lee-thresholds-{name}', number), comparable=True,
      )  # fmt: skip


def _laws():
  """name -> (law, bits of what is seen), of MNIST's grey images, with as many retained pixels."""
  shape, keep = (28, 28, 1), Fraction(_KEEP, _PIXELS)
  return {
    'ablation': (
      smoothing.ablation(keep=_KEEP, shape=shape), smoothing.ablation_information(keep=_KEEP),
    ),
    'Lee et al.': (
      smoothing.discrete(keep=keep, levels=_GREY, shape=shape),
      smoothing.discrete_information(_PIXELS, keep=float(keep), values=_GREY + 1),
    ),
  }  # fmt: skip


def _same_pixels():
  setting = f'{_KEEP} of {_PIXELS} pixels retained (on average), 256 values'
  votes = f'{_SAMPLES:,} of {_SAMPLES:,} votes, alpha = {_ALPHA}'
  for name, (law, bits) in _laws().items():
    yield Row(f'information of what is seen, {name}', bits, 'bits', setting, ARITHMETIC)
    yield Row(
      f'largest radius that votes can certify, {name}', ceiling(law), 'pixels',
      f'{setting}, {votes}', ARITHMETIC,
    )  # fmt: skip


def _needed():
  """Which probability a radius needs."""
  radii = np.arange(1, 12)
  lee = [smoothing.discrete_threshold(Fraction(_KEEP, _PIXELS), _GREY, int(r)) for r in radii]
  ours = [0.5 + float(smoothing.ablation_change(_PIXELS, _KEEP, int(r))) for r in radii]
  binary = [float(smoothing.discrete_threshold(*_LEE['mnist'], int(r))) for r in radii]
  lines = (
    Line(f'ablation, {_KEEP} shown', radii, np.array(ours), 'o-'),
    Line(f'Lee et al., {_KEEP} kept', radii, np.array(lee, float), 's--'),
    Line('Lee et al., binary, 0.8 kept', radii, np.array(binary), '^:'),
  )
  return Curves('784 pixels', 'changed pixels', 'probability needed', lines)


def _bits():
  """How much of an image is seen."""
  kept = np.arange(5, 101, 5)
  lee = [smoothing.discrete_information(_PIXELS, keep=k / _PIXELS) for k in kept.tolist()]
  ours = [smoothing.ablation_information(keep=k) for k in kept.tolist()]
  lines = (Line('ablation', kept, np.array(ours)), Line('Lee et al.', kept, np.array(lee), '--'))
  return Curves('784 grey pixels', 'retained pixels', 'bits seen', lines)


def _models(request, plan):
  """(rows, curves) of one network and schedule under each law; as published, Lee et al.'s under theirs."""
  shape = data.dataset(plan.dataset).shape
  (keep,), num_pixels = plan.shown.values(), math.prod(shape[:2])
  kept, binary = round(keep / num_pixels, 4), float(_LEE['mnist'][0])
  laws = {'ablation': ('ablation', {'keep': keep}, 'ablation')}
  if plan.is_published:
    laws |= {
      f'Lee et al., binary, {each:g} kept': ('discrete', {'keep': each, 'levels': 1}, 'lee')
      for each in LEE_KEEPS
    }
  else:
    laws |= {
      f'Lee et al., binary, {binary:g} kept': ('discrete', {'keep': binary, 'levels': 1}, 'lee'),
      'Lee et al., as many pixels': ('discrete', {'keep': kept, 'levels': _GREY}, 'lee'),
    }
  images, rows, curves = images_of(request, plan.dataset, plan.num_images), [], []
  factories = {'ablation': smoothing.ablation, 'discrete': smoothing.discrete}
  for name, (method, parameters, beside) in laws.items():
    law = factories[method](**parameters, shape=shape)
    where = '-'.join([method, *(f'{value:g}' for value in parameters.values())])
    theirs = plan.is_published and beside == 'lee'
    used, more = plan, {}
    if theirs:
      used, more = plan._replace(num_epochs=LEE_EPOCHS, sampling=LEE_SAMPLING), LEE_TRAINING
    run = certified_under(request, used, images, where, law, method, parameters, **more)
    said = ', '.join(f'{key} = {value:g}' for key, value in parameters.items())
    rows.append(median_row(
      run, 'pixels', number=f'median certified pixels, {name}', setting=setting_of(used, said),
      dataset=plan.dataset, seed=request.seed, published=published('ablation-vs-lee', beside),
      comparable=plan.is_published and not theirs,  # The best of theirs is compared.
    ))  # fmt: skip
    curves.append(accuracy_line(name, run, 'o-'))
  if plan.is_published:
    found = [row for row in rows[1:] if row.ours is not None]
    rows += [
      row._replace(
        number='median certified pixels, Lee et al., binary, the best of their settings',
        comparable=True,
      )
      for row in sorted(found, key=lambda row: -row.ours)[:1]
    ]
  return rows, tuple(curves)


RECIPE = Recipe(
  name='ablation-vs-lee',
  source='Levine & Feizi 2020 (randomized ablation); Lee et al. 2019',
  dataset='mnist',
  shows='why ablation certifies more pixels than random replacement: thresholds, information, medians',
  scales={
    'quick': Scale(
      'a minute or two on 2 cores: arithmetic, and 3 models on digits', ('digits',)
    ),
    'reduced': Scale('a quarter of an hour on 2 cores: 3 models on MNIST', ('mnist',)),
    'full': Scale('an accelerator, a day (not timed): 8 models on MNIST, all test images', ('mnist',)),
  },
  run=run,
)  # fmt: skip
