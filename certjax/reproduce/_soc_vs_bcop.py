"""Orthogonal convolutions of two kinds side by side: SOC (Singla & Feizi 2021) and BCOP (Li et al. 2019).

LipConvnet-5 is certified by its margins, exactly. The second table is of residual networks whose every
convolution is plain, BCOP or SOC, after standard and after adversarial training; what is robust there is
measured by PGD and not proved.
"""

import itertools
from typing import NamedTuple

import jax

from certjax import attacks, certify, evaluate, threats
from certjax.report import Curves, Line
from certjax.reproduce._certified import certified, images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Row, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import accuracy_line, accuracy_row, share

_CONVOLUTIONS = {'SOC': 'soc', 'BCOP': 'bcop'}
_RESIDUAL = {'vanilla': 'plain', 'BCOP': 'bcop', 'SOC': 'soc'}
_RADIUS = 36 / 255
_EPS = 8 / 255
_TRAININGS = {  # One step from a random start: Wong, Rice & Kolter 2020 (arXiv:2001.03994).
  'standard': ('clean', {}),
  'adversarial': ('adversarial', {'eps': _EPS, 'step_size': 1.25 * _EPS, 'num_steps': 1}),
}
_PGD_STEPS, _BATCH = 10, 100
_NOTE = (
  'Published: LipConvnet-5 of width 32 and ResNet-18 on CIFAR-10, 200 epochs. Ours are LipConvnet-5 and ResNet-9 of width 8 '
  '(LipConvnet of width 4 on MNIST): they compare the convolutions with each other.'
)
_PUBLISHED = (
  'Certified with constants that are proved, where the published ones are power iterations; of the last weights, where the '
  'published are the best on test images. Which attack the published robust accuracies stand, and which training, is not known.'
)


class Plan(NamedTuple):
  """What a scale trains and certifies.

  Attributes:
    dataset: name of the data set; the presets are lipconvnet5-CONVOLUTION-DATASET.
    lipschitz: changed fields of these presets.
    residual: changed fields of the presets of residual networks, NETWORK-CONVOLUTION-cifar10.
    num_images: test images, evenly spaced.
    depths: of the LipConvnets.
    network: residual, as these presets call it.
    model: its name as a model, with plain convolutions.
    is_published: whether this is the published setting.
  """

  dataset: str
  lipschitz: dict
  residual: dict
  num_images: int
  depths: tuple = (5,)
  network: str = 'resnet9'
  model: str = 'resnet9-small'
  is_published: bool = False


PLANS = {
  'quick': Plan('digits', {'num_epochs': 30}, {'num_epochs': 12}, 500),
  'reduced': Plan('mnist', {}, {'num_epochs': 2}, 500),
  'full': Plan(
    'cifar10',
    {},
    {'augment': 'crop_flip'},
    10_000,
    tuple(range(5, 41, 5)),
    'resnet18',
    'resnet18',
    is_published=True,
  ),
}


def run(request, *, plan=None) -> Result:
  """Certified and clean accuracy of both, and accuracies of residual networks.

  Args:
    request: a `Request`, whose presets hold those of LipConvnet-5 and ResNet-9.
    plan: default that of the scale.
  """
  plan = plan or PLANS[request.scale]
  images, rows, lines = images_of(request, plan.dataset, plan.num_images), [], []
  for depth, name in itertools.product(plan.depths, _CONVOLUTIONS):
    made, line = _certified_rows(request, plan, depth, name, images)
    rows += made
    lines.append(line)
  for training in _TRAININGS:
    for name in _RESIDUAL:
      rows += _residual_rows(request, plan, training, name, images)
  figure = (
    Curves(plan.dataset, 'certified L2 radius, pixel values', 'certified accuracy', tuple(lines)),
    _published_depths(),
  )
  return Result(tuple(rows), figure, (_PUBLISHED if plan.is_published else _NOTE,))


def _certified_rows(request, plan, depth, name, images):
  """(rows of one LipConvnet, its curve)."""
  conv = _CONVOLUTIONS[name]
  preset, where = (f'lipconvnet{n}-{conv}-{plan.dataset}' for n in (5, depth))
  deeper = {} if depth == 5 else {'model': f'lipconvnet{depth}-{conv}'}
  net = trained(request, preset, where, **deeper, **plan.lipschitz)
  run = certified(request, net, certify.lipschitz(), images, where, method='lipschitz')
  shared = {
    'setting': (
      f'{net.config["model"]}, {net.config["num_epochs"]} epochs, {len(run.index)} test images, '
      f'margins over the proved constant'
    ),
    'dataset': plan.dataset, 'seed': request.seed, 'comparable': plan.is_published,
  }  # fmt: skip
  said = name if len(plan.depths) == 1 else f'LipConvnet-{depth}, {name}'
  rows = [
    accuracy_row(
      run, radius, number=f'{what} accuracy, {said}', published=published(
        'lipconvnet', f'LipConvnet-{depth}, {name}, {what}'
      ), **shared,
    )
    for what, radius in (('certified', _RADIUS), ('clean', 0.0))
  ]  # fmt: skip
  return rows, accuracy_line(said, run)


def _residual_rows(request, plan, training, name, images):
  """Accuracies of one residual network after one training."""
  conv, (objective, parameters) = _RESIDUAL[name], _TRAININGS[training]
  model = plan.model + ('' if conv == 'plain' else f'-{conv}')
  net = trained(
    request, f'{plan.network}-{conv}-cifar10', f'{training}-{model}', model=model, dataset=plan.dataset,
    objective=objective, objective_parameters=parameters,
    **{'augment': None, 'save_every_epochs': plan.residual.get('num_epochs', 1), **plan.residual},
  )  # fmt: skip
  how = f'{model}, {net.config["num_epochs"]} epochs, {len(images.index)} test images'
  key, attack = jax.random.key(request.seed), _attack()
  clean = evaluate.accuracy(net.model_fn, images, batch_size=_BATCH)
  found = {'clean': (round(clean * len(images.index)), how)}
  if training == 'adversarial':
    stands = evaluate.survivors(key, net.model_fn, attack, images, batch_size=_BATCH)
    found['robust'] = (int(stands.sum()), f'{how}, PGD of {_PGD_STEPS} steps, L_inf 8/255')
  for what, (right, setting) in found.items():
    value, interval = share(right, len(images.index))
    yield Row(
      f'{training} training, {what} accuracy, {name}', value, 'fraction of images', setting,
      plan.dataset, published('orthogonal-resnet', f'{training}, {what}, {name}'), interval,
      request.seed, comparable=plan.is_published and training == 'standard',
    )  # fmt: skip


def _attack():
  return attacks.pgd(threats.linf(_EPS), step_size=_EPS / 4, num_steps=_PGD_STEPS)


def _published_depths():
  """The published certified accuracies at every depth."""
  lines = []
  for name in _CONVOLUTIONS:
    found = [n for n in numbers('lipconvnet') if n.endswith(f', {name}, certified')]
    depth = [int(n.split(',')[0].removeprefix('LipConvnet-')) for n in found]
    lines.append(Line(name, depth, [published('lipconvnet', n).value for n in found], 'o-'))
  return Curves('published: CIFAR-10', 'layers', 'certified accuracy at 36/255', tuple(lines))


RECIPE = Recipe(
  name='soc-vs-bcop',
  source='Singla & Feizi 2021 (SOC); Li et al. 2019 (BCOP)',
  dataset='cifar10',
  shows='orthogonal convolutions: certified, standard and adversarial accuracy of SOC beside BCOP',
  scales={
    'quick': Scale('eight minutes on 2 cores: 8 small networks on digits', ('digits',)),
    'reduced': Scale('an hour on 2 cores: 8 small networks on MNIST', ('mnist',)),
    'full': Scale('accelerators, weeks (not timed): 16 LipConvnets and 6 ResNet-18, 200 epochs, all test images', ('cifar10',)),
  },
  run=run,
)  # fmt: skip
