"""Gaussian smoothing of Cohen et al. 2019: the published tables, their logs, and a run on digits.

The quick scale trains the quickstart's network on 8 x 8 digits and certifies it: the same theorem
and procedure, other images and another network, so that its figures stand beside the published ones
and are not compared. The full one is the published setting, a network for each sigma. With the authors'
certification logs the published tables are made again.
"""

import functools
import re
from typing import NamedTuple

from certjax import data, report, smoothing
from certjax.report import Curves
from certjax.reproduce._certified import Sampling, certified, images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import accuracy_line, accuracy_row

_LOGS = {'cohen-cifar10': 'cifar10/resnet110', 'cohen-imagenet': 'imagenet/resnet50'}
_NUMBER = re.compile(r'sigma (?P<sigma>[\d.]+), r = (?P<radius>[\d.]+)')
_ALPHA = 1e-3
_NO_LOGS = "Without --logs DIR (the authors' certification logs) only our own run is shown."
_ORDER = 'Ours are evenly spaced images in the order of the prepared data set, which need not be that of the authors.'


class Plan(NamedTuple):
  """What a scale trains and certifies.

  Attributes:
    preset: of the training, and of the data set.
    sigmas: as the published table prints them; a network for each.
    num_images: test images, evenly spaced.
    sampling: of the certificates.
    is_published: whether this is the published setting.
  """

  preset: str
  sigmas: tuple
  num_images: int
  sampling: Sampling
  is_published: bool = False


_FEW, _MANY = Sampling(100, 10_000, _ALPHA), Sampling(100, 100_000, _ALPHA)
_SMALLER = {
  'quick': Plan('digits', ('0.25',), 500, _FEW), 'reduced': Plan('mnist', ('0.25',), 500, _FEW),
}  # fmt: skip
_CIFAR10 = Plan('cohen-cifar10', ('0.12', '0.25', '0.50', '1.00'), 500, _MANY, is_published=True)
_IMAGENET = Plan(
  'cohen-imagenet', ('0.25', '0.50', '1.00'), 500, _MANY._replace(chunk=400), is_published=True
)
PLANS = {
  'cohen-cifar10': {**_SMALLER, 'full': _CIFAR10}, 'cohen-imagenet': {**_SMALLER, 'full': _IMAGENET},
}  # fmt: skip


def run(name, request, *, plan=None, num_images=None, num_samples=None) -> Result:
  """Certified accuracy of ours at the published radii and, with logs, the published table.

  Args:
    name: 'cohen-cifar10' or 'cohen-imagenet'.
    request: a `Request`, whose presets hold the plan's.
    plan: default that of the scale.
    num_images: test images, evenly spaced; default those of the plan.
    num_samples: N of CERTIFY, likewise.
  """
  logs = _logs(request.logs, name)  # First: a wrong folder must not cost a training.
  plan = plan or PLANS[name][request.scale]
  samples = num_samples or plan.sampling.num_samples
  sampling = plan.sampling._replace(num_samples=samples)
  plan = plan._replace(num_images=num_images or plan.num_images, sampling=sampling)
  ours = {sigma: _certified(request, plan, sigma) for sigma in plan.sigmas}
  config = request.presets[plan.preset]
  height, width, _ = data.dataset(config.dataset).shape
  rows = [
    accuracy_row(
      ours[sigma], radius, number=f'certified accuracy, {number}', dataset=config.dataset,
      setting=(
        f'{config.model}, {len(ours[sigma].index)} test images of {height} x {width} pixels, '
        f'sigma = {sigma}, {plan.sampling}'
      ),
      seed=request.seed, published=published(name, number), comparable=plan.is_published,
    )
    for number, sigma, radius in _cells(name)
    if sigma in ours
  ]  # fmt: skip
  if logs:
    rows += [
      _read_again(logs[sigma], radius, name, number) for number, sigma, radius in _cells(name)
    ]
  runs = {f'{config.dataset}, sigma {sigma}': run for sigma, run in ours.items()}
  theirs = published(name, numbers(name)[0]).dataset
  runs |= {f'{theirs}, published log, sigma {sigma}': log for sigma, log in logs.items()}
  notes = (*(() if logs else (_NO_LOGS,)), *((_ORDER,) if plan.is_published else ()))
  return Result(tuple(rows), (_figure(runs),), notes)


def _read_again(log, radius, name, number):
  """Every image of the table is in the log: nothing is left to chance, and there is no interval."""
  there = published(name, number)
  row = accuracy_row(
    log, radius, number=f'certified accuracy, {number}', dataset=there.dataset, published=there,
    setting=f"the authors' log of {len(log.index)} images, read again", comparable=True,
  )  # fmt: skip
  return row._replace(interval=None)


def _cells(name):
  """(number, sigma as printed, radius) of the published table."""
  for number in numbers(name):
    found = _NUMBER.fullmatch(number)
    if found is None:
      raise ValueError(f'`published.json`: {number!r} names no sigma and radius.')
    yield number, found['sigma'], float(found['radius'])


def _logs(directory, name):
  """sigma -> `report.Run` of the authors; none without a directory."""
  if directory is None:
    return {}
  found = {}
  for sigma in dict.fromkeys(sigma for _, sigma, _ in _cells(name)):
    path = directory / 'certify' / _LOGS[name] / f'noise_{sigma}' / 'test' / f'sigma_{sigma}'
    if not path.is_file():
      raise ValueError(
        f'`logs`={directory} has no {path.relative_to(directory)}: give the folder data of '
        f'github.com/locuslab/smoothing.'
      )
    found[sigma] = report.load(path)
  return found


def _certified(request, plan, sigma):
  """The `report.Run` of a network under noise of one sigma, trained and certified, or continued."""
  noise, dataset = smoothing.gaussian(sigma=float(sigma)), request.presets[plan.preset].dataset
  where = dataset if len(plan.sigmas) == 1 else f'sigma-{sigma}'
  run = trained(request, plan.preset, where, noise, sigma=float(sigma))
  images = images_of(request, dataset, plan.num_images)
  return certified(
    request,
    run,
    noise,
    images,
    where,
    sampling=plan.sampling,
    method='gaussian',
    sigma=float(sigma),
  )


def _figure(runs):
  lines = tuple(accuracy_line(name, each) for name, each in runs.items())
  return Curves(
    'Gaussian smoothing', 'certified L2 radius, pixel values', 'certified accuracy', lines
  )


def _recipe(name, dataset, images, cost):
  return Recipe(
    name=name, source='Cohen, Rosenfeld & Kolter 2019', dataset=dataset,
    shows=f'certified accuracy of Gaussian smoothing on {images} at each radius',
    scales={
      'quick': Scale(
        "minutes: the quickstart on digits; seconds more for --logs DIR, the authors' logs",
        ('digits',),
      ),
      'reduced': Scale('an hour on 2 cores (not timed): the same on MNIST', ('mnist',)),
      'full': Scale(cost, (dataset,)),
    },
    run=functools.partial(run, name), reads_logs=True,
  )  # fmt: skip


RECIPES = (
  _recipe(
    'cohen-cifar10', 'cifar10', 'CIFAR-10',
    'an accelerator, a day or more (not timed): 4 ResNet-110, 90 epochs; 500 images, N = 100,000',
  ),
  _recipe(
    'cohen-imagenet', 'imagenet2012', 'ImageNet',
    'accelerators, days (not timed): 3 ResNet-50, 90 epochs; 500 images, N = 100,000',
  ),
)  # fmt: skip
