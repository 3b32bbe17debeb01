"""L1 certificates of uniform noise, splitting noise and its derandomized form (Levine & Feizi 2021).

One network a noise and sigma, trained under it. Uniform and splitting noise are sampled, and hold with
probability 1 - alpha; the derandomized form looks at all its views, and its radius is exact. At each
radius the best sigma counts, as published: chosen on the same images, so slightly too high for all three.
"""

import functools
from typing import NamedTuple

import numpy as np

from certjax import data, evaluate, report, smoothing
from certjax.report import Curves
from certjax.reproduce._certified import Sampling, certified, images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import accuracy_line, accuracy_row

NOISES = {
  'uniform': lambda sigma, shape: smoothing.uniform(sigma=sigma),
  'splitting': lambda sigma, shape: smoothing.splitting(sigma=sigma),
  'deterministic-splitting': lambda sigma, shape: smoothing.deterministic_splitting(
    sigma=sigma, shape=shape
  ),
}
"""Method of `certjax certify` -> function that makes it."""
_SELECTION, _ALPHA = 100, 1e-3
_NOTE = 'At each radius the best sigma counts, published and ours: chosen on the images that it is counted on.'


class Plan(NamedTuple):
  """What a scale trains and certifies.

  Attributes:
    dataset: name of the data set.
    sigmas: standard deviations of the noises.
    num_images: test images, evenly spaced.
    num_samples: N of the sampled noises.
    changed: fields of the preset that are other here.
    preset: of the training; default that of the data set's name.
    is_published: whether this is the published setting.
  """

  dataset: str
  sigmas: tuple
  num_images: int
  num_samples: int
  changed: dict
  preset: str | None = None
  is_published: bool = False


PLANS = {
  'quick': Plan('digits', (0.5, 2.0), 100, 5_000, {}),
  'reduced': Plan('mnist', (0.5, 2.0), 500, 10_000, {}),
}
_PLAIN = {'objective': 'noise', 'objective_parameters': {}}  # The preset is of stability training.
FULL = {
  'cifar10': Plan(
    'cifar10', (0.15, 0.25, *(quarter / 4 for quarter in range(2, 15))), 10_000, 100_000, {},
    'splitting-cifar10', is_published=True,
  ),
  'imagenet': Plan(
    'imagenet2012', (0.5, 2.0, 3.5), 500, 100_000, _PLAIN, 'stability-imagenet', is_published=True
  ),
}  # fmt: skip
"""Of each published table."""


def run(name, request, *, plan=None) -> Result:
  """Certified accuracy at the published radii, by the best sigma of each noise.

  Args:
    name: 'cifar10' or 'imagenet', the published tables.
    request: a `Request`, whose presets hold the plan's.
    plan: default that of the scale.
  """
  plan = plan or {**PLANS, 'full': FULL[name]}[request.scale]
  images = images_of(request, plan.dataset, plan.num_images)
  found = {
    method: {sigma: _run(request, plan, method, sigma, images) for sigma in plan.sigmas}
    for method in NOISES
  }
  rows = [
    _row(request, plan, method, runs, name, number)
    for method, runs in found.items()
    for number in numbers(f'l1-{method}-{name}')
  ]
  panels = tuple(_panel(plan, sigma, found) for sigma in plan.sigmas)
  return Result(tuple(rows), panels, (_NOTE,))


def _run(request, plan, method, sigma, images):
  noise = NOISES[method](sigma, data.dataset(plan.dataset).shape)
  folder = f'{method}-{sigma:g}'
  network = trained(
    request, plan.preset or plan.dataset, folder, noise, method=method, sigma=sigma, **plan.changed
  )  # fmt: skip
  sampling = None if evaluate.is_exact(noise) else Sampling(_SELECTION, plan.num_samples, _ALPHA)
  return certified(
    request, network, noise, images, folder, sampling=sampling, method=method, sigma=sigma
  )


def _row(request, plan, method, runs, name, number):
  radius = float(number.removeprefix('r = '))
  accuracies = [report.certified_accuracy(run.certificate, run.labels, radius) for run in runs.values()]  # fmt: skip
  sigma, best = list(runs.items())[int(np.argmax(accuracies))]
  how = 'every view' if best.header['quantifier'] == 'exact' else f'N = {plan.num_samples:,}'
  return accuracy_row(
    best, radius, number=f'{method}, {number}', published=published(f'l1-{method}-{name}', number),
    setting=f'{len(best.index)} test images, sigma = {sigma:g} of {_said(plan.sigmas)}, {how}',
    dataset=plan.dataset, seed=request.seed, comparable=plan.is_published,
  )  # fmt: skip


def _panel(plan, sigma, found):
  lines = tuple(accuracy_line(method, runs[sigma]) for method, runs in found.items())
  title = f'{plan.dataset}, sigma = {sigma:g}'
  return Curves(title, 'certified L1 radius, pixel values', 'certified accuracy', lines)


def _said(sigmas):
  return ', '.join(f'{sigma:g}' for sigma in sigmas)


def _recipe(name, dataset, cost):
  return Recipe(
    name=f'dssn-{name}', source='Levine & Feizi 2021 (splitting noise)', dataset=dataset,
    shows='L1 certified accuracy of uniform, splitting and derandomized splitting noise',
    scales={
      'quick': Scale('a minute or two on 2 cores: three noises, two sigmas, on digits', ('digits',)),
      'reduced': Scale('an hour or more (not timed): the same on MNIST', ('mnist',)),
      'full': Scale(cost, (dataset,)),
    },
    run=functools.partial(run, name),
  )  # fmt: skip


RECIPES = (
  _recipe(
    'cifar10', 'cifar10',
    'accelerators, weeks (not timed): 45 WRN-40-2, 120 epochs; all test images, N = 100,000',
  ),
  _recipe(
    'imagenet', 'imagenet2012',
    'accelerators, weeks (not timed): 9 ResNet-50, 30 epochs; 500 images, N = 100,000',
  ),
)  # fmt: skip
