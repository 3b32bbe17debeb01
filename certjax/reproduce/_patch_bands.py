"""Derandomized smoothing by bands (Levine & Feizi 2020): every square patch, wherever it lies.

Exact: all bands of an image vote, and the certificate counts those that a patch can meet. The published
numbers on MNIST that stand beside are those of interval bounds (Chiang et al. 2020), the method that bands
replaced; those of bands themselves are of CIFAR-10.
"""

from typing import NamedTuple

from certjax import data, smoothing
from certjax.report import Curves
from certjax.reproduce._certified import certified, images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Scale
from certjax.reproduce._published import published
from certjax.reproduce._shares import accuracy_line, accuracy_row

_THETAS = (0.2, 0.3)  # Of the authors' scripts: certification, and attacks.
_RULES = {'counts': False, 'places': True}
_BESIDE = (('patch-ibp', (2, 5)), ('patch-bands', (5,)))  # Tables, and their sides.
_NOTE = (
  'The rule of counts is the published one; that of places uses the same votes and certifies no less. A patch of 5 x 5 is a '
  'thirty-first of an image of MNIST, one of 2 x 2 a sixteenth of a digit.'
)


class Plan(NamedTuple):
  """What a scale trains and certifies.

  Attributes:
    dataset: name of the data set.
    num_epochs: of the training.
    width: columns of a band.
    sides: the published side of a patch -> ours.
    num_images: test images, evenly spaced.
    preset: of the training.
  """

  dataset: str
  num_epochs: int
  width: int
  sides: dict
  num_images: int
  preset: str = 'bands-mnist-quick'


PLANS = {
  'quick': Plan('digits', 60, 2, {2: 1, 5: 2}, 500),
  'reduced': Plan('mnist', 8, 2, {2: 2, 5: 5}, 500),
  'full': Plan('mnist', 400, 2, {2: 2, 5: 5}, 10_000, 'bands-mnist'),
}


def run(request, *, plan=None) -> Result:
  """Clean and certified accuracy by both thresholds and both rules.

  Args:
    request: a `Request`, whose presets hold the plan's.
    plan: default that of the scale.
  """
  plan = plan or PLANS[request.scale]
  shape = data.dataset(plan.dataset).shape
  law = smoothing.bands(width=plan.width, shape=shape)
  model = trained(
    request, plan.preset, 'model', law, dataset=plan.dataset, num_epochs=plan.num_epochs,
    parameters={'width': plan.width}, save_every_epochs=plan.num_epochs,
  )  # fmt: skip
  images, rows, lines = images_of(request, plan.dataset, plan.num_images), [], []
  for theta in _THETAS:
    for rule, per_location in _RULES.items():
      views = smoothing.bands(width=plan.width, shape=shape, theta=theta, per_location=per_location)
      run = certified(
        request, model, views, images, f'theta-{theta:g}-{rule}', method='bands', chunk=1000,
        width=plan.width, theta=theta, per_location=per_location,
      )  # fmt: skip
      name = f'theta {theta:g}, rule of {rule}'
      rows += _rows(request, plan, run, name, both=not per_location)
      lines.append(accuracy_line(name, run, 'o-'))
  figure = Curves(plan.dataset, 'side of a patch', 'certified accuracy', tuple(lines))
  return Result(tuple(rows), (figure,), (_NOTE,))


def _rows(request, plan, run, name, both):
  """Rows beside the published ones; of the rule of places, whose labels are the same, fewer."""
  height, width, _ = data.dataset(plan.dataset).shape
  shared = {
    'setting': (
      f'{name}, bands of {plan.width} of {width} columns, {plan.num_epochs} epochs, {len(run.index)} '
      f'test images of {height} x {width} pixels'
    ),
    'dataset': plan.dataset, 'seed': request.seed,
  }  # fmt: skip
  for table, sides in _BESIDE if both else _BESIDE[:1]:
    for theirs in sides:
      side = plan.sides[theirs]
      for what, at in (('certified', side), ('clean', 0)) if both else (('certified', side),):
        size = f'{theirs} x {theirs}'
        number = f'{what} accuracy, {name}, {side} x {side}, beside {table} at {size}'
        yield accuracy_row(
          run, at, number=number, published=published(table, f'{size}, {what}'), **shared
        )


RECIPE = Recipe(
  name='patch-bands-mnist',
  source='Levine & Feizi 2020 (derandomized smoothing); Chiang et al. 2020',
  dataset='mnist',
  shows='which share of images no square patch can turn, by bands, beside interval bounds',
  scales={
    'quick': Scale('half a minute on 2 cores: one model on digits', ('digits',)),
    'reduced': Scale('a quarter of an hour on 2 cores: one model on MNIST', ('mnist',)),
    'full': Scale('an accelerator, hours (not timed): one model on MNIST, 400 epochs, all test images', ('mnist',)),
  },
  run=run,
)  # fmt: skip
