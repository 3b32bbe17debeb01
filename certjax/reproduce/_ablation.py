"""Randomized ablation of Levine & Feizi 2020: how many pixels to show, and how the others look.

A model for each number k of shown pixels, and its certificates. Digits have 64 pixels for MNIST's 784,
each of them a blur of many: a fifth of the published k is shown there, and a changed pixel is a
larger part of the image. Accuracy and abstention are PREDICT's on the samples of the certificate.
"""

from typing import NamedTuple

import numpy as np

from certjax import data, records, report, smoothing
from certjax.report import Curves, Line
from certjax.reproduce._certified import Sampling, certified, images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import NOT_AVAILABLE, accuracy_line, median_row, outcome_rows

_ALPHA = 0.05
BEST = 45  # Pixels of MNIST that the paper shows.
_NOTE = (
  'Accuracy and abstention are of PREDICT on the N samples of the certificate; the published ones draw as many anew. Each '
  'image of a batch has a subset of its own in training; the published networks shared one.'
)


class Plan(NamedTuple):
  """What a scale trains and certifies.

  Attributes:
    dataset: name of the data set.
    preset: of the training.
    num_epochs: of the training.
    shown: the published k -> ours.
    num_images: test images, evenly spaced.
    sampling: of the certificates.
    is_published: whether this is the published setting.
  """

  dataset: str
  preset: str
  num_epochs: int
  shown: dict
  num_images: int
  sampling: Sampling
  is_published: bool = False


def _fifth(*shown):
  return {keep: keep // 5 for keep in shown}


def _same(*shown):
  return dict(zip(shown, shown, strict=True))


_FEW, _MANY = Sampling(100, 1_000, _ALPHA), Sampling(1_000, 10_000, _ALPHA)
_QUICK = 'ablation-mnist-quick'
PLANS = {
  'quick': Plan('digits', _QUICK, 60, _fifth(20, 45, 80), 300, _FEW),
  'reduced': Plan('mnist', _QUICK, 2, _same(20, 30, 40, 45, 50, 60, 80), 200, _FEW),
  'full': Plan(
    'mnist', 'ablation-mnist', 400, _same(*range(5, 101, 5)), 10_000, _MANY, is_published=True
  ),
}  # fmt: skip
BEST_PLANS = {scale: plan._replace(shown={BEST: plan.shown[BEST]}) for scale, plan in PLANS.items()}


def run_shown(request, *, plan=None) -> Result:
  """Median, accuracy and abstention for each number of shown pixels.

  Args:
    request: a `Request`, whose presets hold the plan's.
    plan: default that of the scale.
  """
  plan = plan or PLANS[request.scale]
  images, rows, found = images_of(request, plan.dataset, plan.num_images), [], {}
  for theirs, keep in plan.shown.items():
    run = found[keep] = _certified(request, plan, images, f'keep-{keep}', keep=keep)
    rows += _rows(request, plan, run, f'k = {theirs}', f'k = {keep}')
  medians = [report.median_radius(run.certificate, run.labels) for run in found.values()]
  there = [(keep, at) for keep, at in zip(found, medians, strict=True) if at is not None]
  shown, certified_pixels = np.array(there or np.empty((0, 2))).T
  lines = [Line(plan.dataset, shown, certified_pixels, 'o-')]
  if plan.dataset == 'mnist':  # Else k is another share of the pixels.
    lines.append(Line('published', *_published_medians(), '--'))
  curves = tuple(accuracy_line(f'k = {keep}', run, 'o-') for keep, run in found.items())
  figure = (
    Curves(f'{plan.dataset}: median', 'pixels shown', 'certified pixels', tuple(lines)),
    Curves(plan.dataset, 'changed pixels', 'certified accuracy', curves),
  )
  lacking = any(row.published is None for row in rows)
  return Result(tuple(rows), figure, (_NOTE, *((NOT_AVAILABLE,) if lacking else ())))


def run_nulls(request, *, plan=None) -> Result:
  """The same for both looks of a hidden pixel.

  Args:
    request: a `Request`, whose presets hold the plan's.
    plan: default that of the scale; each of its k twice.
  """
  plan = plan or BEST_PLANS[request.scale]
  images, rows, curves = images_of(request, plan.dataset, plan.num_images), [], []
  training = data.load(plan.dataset, 'train', data_dir=request.data_dir)
  mean = round(float(training.images.mean(dtype=np.float64)) / 255, 4)  # As published: 0.1307.
  for keep in plan.shown.values():
    for null, more in (('multichannel', {}), ('mean', {'null': 'mean', 'mean': mean})):
      run = _certified(request, plan, images, f'keep-{keep}-{null}', keep=keep, **more)
      how = f'k = {keep}, hidden pixels: {null}' + (f' {mean}' if more else '')
      rows += _rows(request, plan, run, null, how, prefix='ablation-null')
      curves.append(accuracy_line(f'{null}, k = {keep}', run, 'o-'))
  figure = Curves(plan.dataset, 'changed pixels', 'certified accuracy', tuple(curves))
  return Result(tuple(rows), (figure,), (_NOTE,))


def certified_under(request, plan, images, where, law, method, parameters, **changed) -> report.Run:
  """A model of its own, trained under a law, and its certificates.

  Args:
    request: a `Request`, whose presets hold the plan's.
    plan: a `Plan`.
    images: `data.Images`.
    where: name of the folder of both, and of the run.
    law: a `Smoothing`.
    method, parameters: what configs call it.
    **changed: other fields of the preset that are changed.
  """
  run = trained(
    request, plan.preset, where, law, dataset=plan.dataset, num_epochs=plan.num_epochs,
    method=method, parameters=parameters, save_every_epochs=plan.num_epochs, **changed,
  )  # fmt: skip
  settings = {'method': method, **parameters}
  proved = certified(request, run, law, images, where, sampling=plan.sampling, **settings)
  return proved._replace(name=where)


def _certified(request, plan, images, where, **parameters):
  law = smoothing.ablation(**parameters, shape=data.dataset(plan.dataset).shape)
  return certified_under(request, plan, images, where, law, 'ablation', parameters)


def setting_of(plan, how) -> str:
  """How a number of a plan was obtained, in words."""
  height, width, _ = data.dataset(plan.dataset).shape
  return (
    f'{how}, {plan.num_epochs} epochs, {plan.num_images:,} test images of {height} x {width} pixels, '
    f'{plan.sampling}'
  )


def _rows(request, plan, run, beside, how, prefix='ablation'):
  """Three rows of one law."""
  there = lambda what: published(f'{prefix}-{what}', beside)
  shared = {
    'setting': setting_of(plan, how),
    'dataset': plan.dataset, 'seed': request.seed, 'comparable': plan.is_published,
  }  # fmt: skip
  rows = [
    median_row(
      run, 'pixels', number=f'median certified pixels, published {beside}',
      published=there('median') if beside in numbers(f'{prefix}-median') else None,
      **{**shared, 'comparable': plan.is_published and beside in numbers(f'{prefix}-median')},
    )
  ]  # fmt: skip
  _, lines = records.read(request.out / run.name)
  described = lambda what: {
    'number': f'{what}, published {beside}', 'published': there(what), **shared,
  }  # fmt: skip
  return rows + outcome_rows(lines, plan.sampling.alpha, described)


def _published_medians():
  names = numbers('ablation-median')
  k = [float(name.removeprefix('k = ')) for name in names]
  return k, [published('ablation-median', name).value for name in names]


def _recipe(name, shows, run, costs):
  datasets = {'quick': 'digits', 'reduced': 'mnist', 'full': 'mnist'}
  return Recipe(
    name=name, source='Levine & Feizi 2020 (randomized ablation)', dataset='mnist', shows=shows,
    scales={scale: Scale(cost, (datasets[scale],)) for scale, cost in costs.items()}, run=run,
  )  # fmt: skip


RECIPES = (
  _recipe(
    'ablation-k-mnist',
    'how many pixels ablation should show: certified pixels against accuracy, a model for each k',
    run_shown,
    {
      'quick': 'two minutes on 2 cores: 3 models on digits',
      'reduced': 'half an hour on 2 cores: 7 models on MNIST, 2 epochs each',
      'full': 'days on an accelerator: 20 models on MNIST, 400 epochs each, all test images',
    },
  ),
  _recipe(
    'ablation-encodings',
    'hidden pixels in channels of their own beside hidden pixels of the mean grey',
    run_nulls,
    {
      'quick': 'a minute on 2 cores: 2 models on digits',
      'reduced': 'ten minutes on 2 cores: 2 models on MNIST, 2 epochs each',
      'full': 'hours on an accelerator: 2 models on MNIST, 400 epochs each, all test images',
    },
  ),
)
