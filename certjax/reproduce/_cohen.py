"""Gaussian smoothing of Cohen et al. 2019: the published tables, their logs, and a run on digits.

The quick scale trains the quickstart's network on 8 x 8 digits and certifies it: the same theorem
and procedure, other images and another network, so that its figures stand beside the published ones
and are not compared. With the authors' certification logs the published tables are made again.
"""

import functools
import re

from certjax import report, smoothing
from certjax.report import Curves
from certjax.reproduce._certified import Sampling, certified, images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import accuracy_line, accuracy_row

_PRESET, _SIGMA = 'digits', '0.25'
_LOGS = {'cohen-cifar10': 'cifar10/resnet110', 'cohen-imagenet': 'imagenet/resnet50'}
_NUMBER = re.compile(r'sigma (?P<sigma>[\d.]+), r = (?P<radius>[\d.]+)')
_SELECTION, _ALPHA = 100, 1e-3
_NO_LOGS = 'Without --logs DIR (the authors\' certification logs) only the run on digits is shown.'  # fmt: skip


def run(name, request, *, num_images=500, num_samples=10_000) -> Result:
  """Certified accuracy on digits at the published radii and, with logs, the published table.

  Args:
    name: 'cohen-cifar10' or 'cohen-imagenet'.
    request: a `Request`, whose presets hold 'digits'.
    num_images: test images of digits, evenly spaced.
    num_samples: N of CERTIFY on digits.
  """
  logs = _logs(request.logs, name)  # First: a wrong folder must not cost a training.
  ours = _digits(request, num_images, num_samples)
  setting = (
    f'digits-cnn, {len(ours.index)} test images of 8 x 8 pixels, sigma = {_SIGMA}, '
    f'N0 = {_SELECTION}, N = {num_samples:,}, alpha = {_ALPHA}'
  )
  rows = [
    accuracy_row(
      ours, radius, number=f'certified accuracy, {number}', setting=setting, dataset=_PRESET,
      seed=request.seed, published=published(name, number),
    )
    for number, sigma, radius in _cells(name)
    if sigma == _SIGMA
  ]  # fmt: skip
  if logs:
    rows += [
      _read_again(logs[sigma], radius, name, number) for number, sigma, radius in _cells(name)
    ]
  runs = {f'digits, sigma {_SIGMA}': ours}
  theirs = published(name, numbers(name)[0]).dataset
  runs |= {f'{theirs}, published log, sigma {sigma}': log for sigma, log in logs.items()}
  return Result(tuple(rows), (_figure(runs),), () if logs else (_NO_LOGS,))


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


def _digits(request, num_images, num_samples):
  """The `report.Run` of the quickstart's network, trained and certified, or continued."""
  noise = smoothing.gaussian(sigma=float(_SIGMA))
  run = trained(request, _PRESET, 'digits', noise, sigma=float(_SIGMA))
  images = images_of(request, _PRESET, num_images)
  sampling = Sampling(_SELECTION, num_samples, _ALPHA)
  return certified(
    request, run, noise, images, 'digits', sampling=sampling, method='gaussian', sigma=float(_SIGMA)
  )


def _figure(runs):
  lines = tuple(accuracy_line(name, each) for name, each in runs.items())
  return Curves(
    'Gaussian smoothing', 'certified L2 radius, pixel values', 'certified accuracy', lines
  )


def _recipe(name, dataset, images):
  return Recipe(
    name=name, source='Cohen, Rosenfeld & Kolter 2019', dataset=dataset,
    shows=f'certified accuracy of Gaussian smoothing on {images} at each radius',
    scales={
      'quick': Scale(
        'minutes: the quickstart on digits; seconds more for --logs DIR, the authors\' logs',
        (_PRESET,),
      )
    },
    run=functools.partial(run, name), reads_logs=True,
  )  # fmt: skip


RECIPES = (
  _recipe('cohen-cifar10', 'cifar10', 'CIFAR-10'),
  _recipe('cohen-imagenet', 'imagenet2012', 'ImageNet'),
)
