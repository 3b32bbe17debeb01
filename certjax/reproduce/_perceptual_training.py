"""Standard, adversarial and perceptual training under threats that none was trained for (Laidlaw et al. 2021).

  union        right under every narrow attack (L_inf, L2, StAdv), image by image
  unseen mean  over the threats that a classifier was not trained for, the perceptual one once, by LPA

The distance of PPGD and LPA is measured by a separate network, trained clean with a seed of its own: an
external bound, as published. What a small grey image does not allow (JPEG, recolouring) stays empty.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from certjax import data, report, train
from certjax.reproduce._attacked import armed, attacked
from certjax.reproduce._certified import images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Row, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import share

MEASURING, MEASURING_SEED = 'measuring', 1000
"""Folder, and seed, of the network that measures."""
CLEAN = {'method': 'none', 'objective': 'clean'}
TRAINED = {
  'Normal': (), 'AT L_inf': ('linf',), 'AT L2': ('l2',), 'AT StAdv': ('stadv',), 'PAT-self': ('lpips',),
}  # fmt: skip
"""Classifier -> the norms that it is trained for."""
_COLOUR = ('linf', 'l2', 'stadv', 'recolor')
TRAINED_WITH_COLOUR = {
  **TRAINED, 'TRADES L_inf': ('linf',), 'AT ReColorAdv': ('recolor',), 'AT all (random)': _COLOUR,
  'AT all (average)': _COLOUR, 'AT all (maximum)': _COLOUR, 'PAT-AlexNet': ('lpips',),
}  # fmt: skip
"""The same, of every published classifier."""
ATTACKS = {
  'L_inf': ('linf', 'autoattack', {}),
  'L2': ('l2', 'autoattack', {}),
  'StAdv': ('stadv', 'latent', {}),
  'PPGD': ('lpips', 'ppgd', {}),
  'LPA': ('lpips', 'lpa', {}),
}
"""Column -> (norm, attack of `certjax attack`, its parameters that are not the defaults)."""
THREATS = ('L_inf', 'L2', 'StAdv', 'LPA')
"""One attack a threat: LPA stands for the perceptual one."""
_NO_ROOM = {
  'ReColorAdv': 'not attacked: the images have no colour',
  'JPEG': 'not attacked: its blocks need sides that are multiples of 16',
}
_OTHER = 'another training, not repeated here'
_COMPARED = ('clean', 'L_inf', 'L2', 'StAdv', 'ReColorAdv', 'union')
"""Columns of the published setting; the AlexNet of the others is trained anew, and differs from theirs."""


class Plan(NamedTuple):
  """What a scale trains and attacks.

  Attributes:
    dataset: name.
    classifiers: name -> (preset, its fields that are other here); 'Normal' also says how the measuring network is
      trained.
    num_images: test images, evenly spaced.
    attacks: as `ATTACKS`.
    threats: as `THREATS`.
    bounds: norm -> eps; default the request's for the data set.
    measured_by: (preset, its fields that are other here) of the measuring network; default those of 'Normal'.
    is_published: whether this is the published setting.
  """

  dataset: str
  classifiers: dict
  num_images: int
  attacks: Any = ATTACKS
  threats: tuple = THREATS
  bounds: Mapping | None = None
  measured_by: tuple | None = None
  is_published: bool = False


_PAT, _EPS = 'pat-self-cifar10', 8 / 255
_SHORT = {'num_epochs': 20}  # Of 60; the bound grows over the first 4 instead of 10.
_RAMPED = {**_SHORT, 'objective_warmup_epochs': 4.0}
PLANS = {
  'quick': Plan(
    'digits', {
      'Normal': ('digits', {**CLEAN, **_SHORT}), 'AT L_inf': ('at-linf-digits', _RAMPED),
      'AT L2': ('at-l2-digits', _RAMPED), 'PAT-self': ('pat-self-digits', _RAMPED),
    }, 100,
  ),
  'reduced': Plan(
    'mnist', {
      'Normal': ('mnist', {**CLEAN, 'num_epochs': 5}), 'AT L_inf': ('madry-mnist-quick', {}),
      'AT L2': ('at-l2-mnist-quick', {}), 'PAT-self': ('pat-self-mnist-quick', {}),
    }, 200,
  ),
  'full': Plan(
    'cifar10', {
      'Normal': (_PAT, {'objective': 'clean', 'objective_parameters': {}}),
      'AT L_inf': (_PAT, {'objective': 'adversarial', 'objective_parameters': {'eps': _EPS, 'num_steps': 10}}),
      'TRADES L_inf': ('trades-cifar10', {}),
      'AT L2': (_PAT, {'objective': 'adversarial-l2', 'objective_parameters': {'eps': 1.0, 'num_steps': 10}}),
      'AT StAdv': ('at-stadv-cifar10', {}), 'AT ReColorAdv': ('at-recolor-cifar10', {}),
      **{f'AT all ({each})': (f'at-all-{each}-cifar10', {}) for each in ('random', 'average', 'maximum')},
      'PAT-self': (_PAT, {}),
      'PAT-AlexNet': (_PAT, {'objective_parameters': {'eps': 1.0, 'num_steps': 10}, 'features': MEASURING}),
    }, 10_000, {**ATTACKS, 'ReColorAdv': ('recolor', 'latent', {})}, (*THREATS, 'ReColorAdv'),
    {'linf': _EPS, 'l2': 1.0, 'stadv': 0.05, 'recolor': 0.06, 'lpips': 0.5},
    ('alexnet-cifar10', {}), is_published=True,
  ),
}  # fmt: skip
FLOWS = {'digits': 'at-linf-digits', 'mnist': 'at-stadv-mnist-quick'}
"""Data set -> preset that the training against flows begins with."""


class Outcome(NamedTuple):
  """Accuracies of one classifier.

  Attributes:
    values: column -> float, 'clean', 'union' and 'unseen mean' among them; the last only where the classifier
      was trained for something, or for nothing at all.
    num_images: that they count.
  """

  values: dict
  num_images: int


def outcome(columns, trained_for, threats=THREATS) -> Outcome:
  """The numbers of a classifier, from what its attacks left.

  Args:
    columns: column of `ATTACKS` -> `report.Column`, those of the threats among them.
    trained_for: norms.
    threats: columns, one attack a threat.

  Raises:
    ValueError: for columns of another model, or of other images.
  """
  for name in set(columns) - set(threats):  # Refuses another model, or other images.
    report.threats_summary([columns[name], columns[threats[0]]])
  found = report.threats_summary([columns[name] for name in threats], trained_for)
  accuracies = {row['name']: row['accuracy'] for row in found['threats']}
  values = {
    'clean': found['clean'], **{name: float(each.correct.mean()) for name, each in columns.items()},
    'union': found['union'], 'unseen mean': report.unseen_mean(accuracies, trained_for),
  }  # fmt: skip
  return Outcome(values, found['num_images'])


def measuring(request, plan) -> train.Measure:
  """The separate network whose activations measure LPIPS."""
  preset, changed = plan.measured_by or plan.classifiers['Normal']
  trained(request, preset, MEASURING, **{**changed, 'seed': MEASURING_SEED})
  return train.load_features(request.out / MEASURING, data.dataset(plan.dataset).shape)


def attacked_columns(request, plan, columns=None) -> dict:
  """Classifier -> column -> `report.Column`, all trained and attacked.

  Args:
    request: a `Request`.
    plan: a `Plan`.
    columns: of the plan's attacks; default all.
  """
  measure = measuring(request, plan)
  images = images_of(request, plan.dataset, plan.num_images)
  ready = {column: armed_for(request, plan, column) for column in columns or plan.attacks}
  found = {}
  for name, (preset, changed) in plan.classifiers.items():
    measured = {'features': request.out / changed['features']} if 'features' in changed else {}
    run = trained(request, preset, slug(name), **{**changed, **measured})
    found[name] = {
      column: attacked(request, slug(name), run, attack, images, measure=measure)
      for column, attack in ready.items()
    }
  return found


def armed_for(request, plan, column, part=1.0):
  """The `Armed` of a column, at a part of its bound."""
  norm, attack, parameters = plan.attacks[column]
  eps = part * bounds_of(request, plan)[norm]
  return armed(request, attack, norm, eps, plan.dataset, **parameters)


def bounds_of(request, plan):
  """Norm -> eps of a plan."""
  return plan.bounds or request.attacks.bounds[plan.dataset]


def run(table, request, *, plan=None) -> Result:
  """The published table, and beside it the classifiers that were trained here.

  Args:
    table: 'pat-cifar10' or 'pat-imagenet100', of the published numbers.
    request: a `Request` with presets and attacks.
    plan: default that of the scale.
  """
  plan = plan or PLANS[request.scale]
  found = attacked_columns(request, plan)
  outcomes = _outcomes(plan, found)
  rows = [_row(request, plan, outcomes, published(table, n), n, n, table) for n in numbers(table)]
  return Result(tuple(rows), (), _notes(request, plan, _MEASURED))


def run_unforeseen(request, *, plan=None) -> Result:
  """Both versions of the slide, each number with ours beside it.

  Args:
    request: a `Request` with presets and attacks.
    plan: default that of the scale, without perceptual training and with one against flows.
  """
  plan = plan or with_flows(PLANS[request.scale], request.attacks.bounds)
  outcomes = _outcomes(plan, attacked_columns(request, plan, plan.threats))
  first = numbers('unforeseen-first-version')
  rows = [
    _row(request, plan, outcomes, published(table, n), n, f'{n}, {version}', table)
    for table, version in _VERSIONS.items()
    for n in first
  ]
  return Result(tuple(rows), (), _notes(request, plan, *_TWO_VERSIONS))


def _outcomes(plan, found):
  trained_for = TRAINED_WITH_COLOUR
  return {
    name: outcome(columns, trained_for[name], plan.threats) for name, columns in found.items()
  }


def with_flows(plan, bounds) -> Plan:
  """A plan without perceptual training, and with one against flows; of the published one, those of the slide."""
  if plan.is_published:
    slide = {name.rsplit(', ', 1)[0] for name in numbers('unforeseen-first-version')}
    return plan._replace(
      classifiers={name: plan.classifiers[name] for name in plan.classifiers if name in slide}
    )
  preset = FLOWS[plan.dataset]
  _, changed = plan.classifiers['AT L2']
  eps = {'eps': bounds[plan.dataset]['stadv'], 'num_steps': 10}
  flows = {**changed, 'objective': 'adversarial-stadv', 'objective_parameters': eps}
  kept = {name: each for name, each in plan.classifiers.items() if name != 'PAT-self'}
  return plan._replace(classifiers={**kept, 'AT StAdv': (preset, flows)})


_VERSIONS = {
  'unforeseen-first-version': 'first version (arXiv v1)',
  'pat-cifar10': 'final version',
}
_TWO_VERSIONS = (
  'The lecture shows this table twice: as in the first version of the paper, with weaker attacks, and as in the '
  'final one, with AutoAttack. Ours is one run, and stands beside both.',
)
_MEASURED = (
  'PPGD and LPA: LPIPS by a separate network, trained clean; published: by an AlexNet of theirs. "unseen mean" counts the '
  'perceptual threat once, by LPA.'
)

_RECIPE = (
  'Sizes as published. Training as of the presets: the rate falls once, where theirs falls again at epoch 90, and colours '
  'of training images stay.'
)


def _row(request, plan, outcomes, there, name, number, table):
  training, column = name.rsplit(', ', 1)
  setting, value, interval = _OTHER, None, None
  compared = plan.is_published and table == 'pat-cifar10' and column in _COMPARED
  if training in outcomes:
    values, count = outcomes[training]
    value, setting = values.get(column), _NO_ROOM.get(column, '')
    if value is not None:
      setting = f'{plan.classifiers[training][0]}, {count} test images'
      if column != 'unseen mean':
        value, interval = share(round(value * count), count)
  seed = None if value is None else request.seed
  return Row(
    number, value, 'fraction of images', setting, plan.dataset, there, interval, seed, compared and value is not None
  )  # fmt: skip


def _notes(request, plan, *more):
  bounds = bounds_of(request, plan)
  sizes = ', '.join(f'{norm} {bounds[norm]:g}' for norm in bounds)
  said = f'Ours on {plan.dataset}: bounds {sizes}; AutoAttack in L_inf and L2.'
  if plan.is_published:
    return (f'{said} {_RECIPE}', *more)
  return (f'{said} The published sizes are of other images.', *more)


def slug(name):
  """The folder of a classifier.

  Example:
    >>> slug('AT L_inf')
    'at-linf'
  """
  return name.lower().replace(' ', '-').replace('_', '')


_SOURCE = 'Laidlaw, Singla & Feizi 2021'


def _recipe(name, dataset, shows, function, full=None):
  left_out = {} if full else {'full': 'no preset trains on ImageNet-100'}
  return Recipe(
    name=name, source=_SOURCE, dataset=dataset, shows=shows, run=function, left_out=left_out,
    scales={
      'quick': Scale('three or four minutes on 2 cores: four or five small networks on digits, 20 epochs, 100 images', ('digits',)),
      'reduced': Scale('an hour or more (not timed): five networks on MNIST, 200 images', ('mnist',)),
      **({'full': Scale(full, ('cifar10',))} if full else {}),
    },
  )  # fmt: skip


RECIPES = (
  _recipe(
    'unforeseen-attacks-cifar10', 'cifar10',
    'adversarial training holds against what it trained for; both versions of the slide', run_unforeseen,
    'accelerators, weeks (not timed): five ResNet-50 and an AlexNet, 100 epochs; all test images',
  ),
  _recipe(
    'pat-cifar10', 'cifar10', 'perceptual adversarial training under all threats, CIFAR-10',
    functools.partial(run, 'pat-cifar10'),
    'accelerators, weeks (not timed): ten ResNet-50, a WRN-34-10 and an AlexNet; all test images',
  ),
  _recipe(
    'pat-imagenet100', 'imagenet100', 'perceptual adversarial training under all threats, ImageNet-100',
    functools.partial(run, 'pat-imagenet100'),
  ),
)  # fmt: skip
