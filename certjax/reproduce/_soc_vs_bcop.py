"""Orthogonal convolutions of two kinds side by side: SOC (Singla & Feizi 2021) and BCOP (Li et al. 2019).

LipConvnet-5 is certified by its margins, exactly. The second table is of residual networks whose every
convolution is plain, BCOP or SOC, after standard and after adversarial training; what is robust there is
measured by PGD and not proved.
"""

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


class Plan(NamedTuple):
  """What a scale trains and certifies.

  Attributes:
    dataset: name of the data set; the presets are lipconvnet5-CONVOLUTION-DATASET.
    lipschitz: changed fields of these presets.
    residual: changed fields of the presets resnet9-CONVOLUTION-cifar10.
    num_images: test images, evenly spaced.
  """

  dataset: str
  lipschitz: dict
  residual: dict
  num_images: int


PLANS = {
  'quick': Plan('digits', {'num_epochs': 30}, {'num_epochs': 12}, 500),
  'reduced': Plan('mnist', {}, {'num_epochs': 2}, 500),
}


def run(request, *, plan=None) -> Result:
  """Certified and clean accuracy of both, and accuracies of residual networks.

  Args:
    request: a `Request`, whose presets hold those of LipConvnet-5 and ResNet-9.
    plan: default that of the scale.
  """
  plan = plan or PLANS[request.scale]
  images, rows, lines = images_of(request, plan.dataset, plan.num_images), [], []
  for name in _CONVOLUTIONS:
    made, line = _certified_rows(request, plan, name, images)
    rows += made
    lines.append(line)
  for training in _TRAININGS:
    for name in _RESIDUAL:
      rows += _residual_rows(request, plan, training, name, images)
  figure = (
    Curves(plan.dataset, 'certified L2 radius, pixel values', 'certified accuracy', tuple(lines)),
    _published_depths(),
  )
  return Result(tuple(rows), figure, (_NOTE,))


def _certified_rows(request, plan, name, images):
  """(rows of one LipConvnet, its curve)."""
  where = f'lipconvnet5-{_CONVOLUTIONS[name]}-{plan.dataset}'
  net = trained(request, where, where, **plan.lipschitz)
  run = certified(request, net, certify.lipschitz(), images, where, method='lipschitz')
  shared = {
    'setting': (
      f'{net.config["model"]}, {net.config["num_epochs"]} epochs, {len(run.index)} test images, '
      f'margins over the proved constant'
    ),
    'dataset': plan.dataset, 'seed': request.seed,
  }  # fmt: skip
  rows = [
    accuracy_row(
      run, radius, number=f'{what} accuracy, {name}', published=published(
        'lipconvnet', f'LipConvnet-5, {name}, {what}'
      ), **shared,
    )
    for what, radius in (('certified', _RADIUS), ('clean', 0.0))
  ]  # fmt: skip
  return rows, accuracy_line(name, run)


def _residual_rows(request, plan, training, name, images):
  """Accuracies of one residual network after one training."""
  conv, (objective, parameters) = _RESIDUAL[name], _TRAININGS[training]
  model = 'resnet9-small' + ('' if conv == 'plain' else f'-{conv}')
  net = trained(
    request, f'resnet9-{conv}-cifar10', f'{training}-{model}', model=model, dataset=plan.dataset,
    augment=None, objective=objective, objective_parameters=parameters,
    **{'save_every_epochs': plan.residual.get('num_epochs', 1), **plan.residual},
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
      request.seed,
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
    'quick': Scale('minutes on 2 cores (estimated): 8 small networks on digits', ('digits',)),
    'reduced': Scale('an hour on 2 cores: 8 small networks on MNIST', ('mnist',)),
  },
  run=run,
)
