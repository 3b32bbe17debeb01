"""Deep partition aggregation of Levine & Feizi 2021 with small base learners: DPA, and SS-DPA.

DPA withstands samples that are added or removed; SS-DPA flipped labels alone, with features learned from
all images without labels. Digits have 1,297 training images: parts are fewer there, by a fixed factor, and
still smaller than the published ones.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from certjax import certify, data, evaluate, poisoning, report
from certjax.report import Curves, Line, Run
from certjax.reproduce._certified import images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Row, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import NOT_AVAILABLE, accuracy_row, median_row

_MEMBERS_AT_ONCE = 40
_NOTES = {
  'mlp': (
    'Base learners are networks of one hidden layer of 128 units, trained by full-batch steps; the published ones have '
    'a million weights each and 200 epochs of augmented images.'
  ),
  'nin': (
    'Base learners are networks in networks of a million weights, 200 epochs of shifted (of CIFAR-10 also mirrored) images.'
  ),
  'linear': (
    'Base learners are softmax regressions, trained to their optimum on the features that the setting names; the published ones are the last '
    'block of a network in network above RotNet (MNIST), or linear on features of SimCLR, ResNet-18 (CIFAR-10).'
  ),
}  # fmt: skip


class Plan(NamedTuple):
  """What a scale trains.

  Attributes:
    dataset: name of the data set.
    parts: the published k -> ours.
    learner: a name of `poisoning.LEARNERS`.
    features: None, or changed fields of the preset whose features the members see: SS-DPA.
    preset: of these features.
    parameters: of the learner.
    at_once: members that one program trains.
    is_published: whether this is the published setting.
  """

  dataset: str
  parts: dict
  learner: str = 'mlp'
  features: dict | None = None
  preset: str = 'rotnet-mnist'
  parameters: Mapping = MappingProxyType({})
  at_once: int = _MEMBERS_AT_ONCE
  is_published: bool = False


_ROTNET_DIGITS = {'dataset': 'digits', 'model': 'digits-cnn', 'num_epochs': 40, 'batch_size': 64}
PLANS = {
  'dpa-mnist': {
    'quick': Plan('digits', {1200: 50}),
    'reduced': Plan('mnist', {1200: 1200, 3000: 3000}),
    'full': Plan('mnist', {1200: 1200, 3000: 3000}, 'nin', at_once=20, is_published=True),
  },
  'ssdpa-mnist': {
    'quick': Plan('digits', {1200: 50, 3000: 125}, 'linear', _ROTNET_DIGITS),
    'reduced': Plan('mnist', {1200: 1200}, 'linear', {}),
  },
  'dpa-cifar10': {
    'quick': Plan('digits', {50: 5, 250: 25, 1000: 100}),
    'reduced': Plan('cifar10', {50: 50, 250: 250, 1000: 1000}),
    'full': Plan(
      'cifar10', {50: 50, 250: 250, 1000: 1000}, 'nin', parameters={'mirror': 1}, at_once=10, is_published=True
    ),
  },
  'ssdpa-cifar10': {
    'quick': Plan('digits', {50: 5, 250: 25, 1000: 100}, 'linear', _ROTNET_DIGITS),
    'reduced': Plan('cifar10', {50: 50, 250: 250, 1000: 1000}, 'linear', {'dataset': 'cifar10'}),
    'full': Plan('cifar10', {50: 50, 250: 250, 1000: 1000}, 'linear', {}, 'simclr-cifar10'),
  },
}  # fmt: skip


def run(name, request, *, plan=None, learner=None, num_images=None) -> Result:
  """Median certified samples, clean and base accuracy for each number of parts.

  Args:
    name: a key of `PLANS`.
    request: a `Request`, whose presets hold the plan's for SS-DPA.
    plan: default that of the scale.
    learner: a `poisoning.Learner`, default that of the plan.
    num_images: test images, evenly spaced; default all.
  """
  plan = plan or PLANS[name][request.scale]
  training = data.load(plan.dataset, 'train', data_dir=request.data_dir)
  test = images_of(request, plan.dataset, num_images)
  spec = data.dataset(plan.dataset)
  learner = learner or poisoning.build_learner(
    plan.learner, spec.num_classes, plan.parameters, shape=spec.shape if plan.features is None else None
  )  # fmt: skip
  seen = _seen(request, plan)
  inputs = seen(training.images), seen(test.images)
  rows, lines = [], []
  for theirs, parts in plan.parts.items():
    votes = _votes(request, plan, learner, training, inputs, parts)
    request.say(f'{parts} members are trained and asked')
    proof = certify.aggregate(votes, learner.num_classes)
    found = Run(f'k = {parts}', test.index, test.labels.astype(np.int64), proof)
    rows += _rows(name, request, plan, theirs, parts, votes, found)
    budgets = np.arange(int(proof.radius.max(initial=0)) + 2)
    accuracy = report.certified_accuracy(proof, found.labels, budgets)
    lines.append(Line(f'k = {parts}', budgets, accuracy, 'steps'))
  budget = 'poisoned samples' if plan.features is None else 'flipped labels'
  figure = Curves(plan.dataset, budget, 'certified accuracy', tuple(lines))
  notes = [_NOTES[plan.learner]]
  if any(row.published is None for row in rows):
    notes.append(NOT_AVAILABLE)
  return Result(tuple(rows), (figure,), tuple(notes))


def _seen(request, plan):
  """What members see of images."""
  if plan.features is None:
    return lambda images: images
  changed = {'save_every_epochs': 10, **plan.features}
  where = request.presets[plan.preset].objective
  trained(request, plan.preset, where, **changed)
  return evaluate.frozen_features(request.out / where, plan.dataset)


def _partition(plan, training, parts):
  """Which member sees which sample."""
  if plan.features is not None:
    return poisoning.sorted_unlabelled(training.images, parts)
  buckets = poisoning.pixel_sum(training.images, parts)
  return poisoning.partition(training.images, training.labels, buckets, parts)


def _votes(request, plan, learner, training, inputs, parts):
  """int[N, k], group after group: no more members than one program holds are kept."""
  partition = _partition(plan, training, parts)
  capacity = poisoning.default_capacity(len(training.index), parts)
  group, found = min(plan.at_once, parts), []
  for start in range(0, parts, group):
    ensemble = poisoning.train_ensemble(
      jax.random.key(request.seed), learner, inputs[0], training.labels, partition,
      capacity=capacity, group=group, members=range(start, min(start + group, parts)),
    )  # fmt: skip
    found.append(poisoning.votes(ensemble, inputs[1]).astype(np.int16))
  return np.concatenate(found, axis=1)


def _rows(name, request, plan, theirs, parts, votes, found):
  learned = {
    'mlp': 'networks of 128 hidden units', 'nin': 'networks in networks of a million weights, 200 epochs',
    'linear': f'softmax regressions on {request.presets[plan.preset].objective}',
  }  # fmt: skip
  dealt = 'parts by the sum of pixels' if plan.features is None else 'parts of the sorted images'
  shared = {
    'setting': (
      f'k = {parts}, {learned.get(plan.learner, plan.learner)}, {len(found.index)} test images, {dealt}'
    ),
    'dataset': plan.dataset, 'seed': request.seed, 'comparable': plan.is_published,
  }  # fmt: skip
  beside = f'k = {theirs}'
  there = lambda what: published(f'{name}-{what}', beside)
  what = 'poisoned samples' if plan.features is None else 'flipped labels'
  return [
    median_row(
      found, 'samples', number=f'median certified {what}, published {beside}',
      published=there('median') if beside in numbers(f'{name}-median') else None,
      **{**shared, 'comparable': plan.is_published and beside in numbers(f'{name}-median')},
    ),
    accuracy_row(
      found, 0.0, number=f'clean accuracy of the vote, published {beside}',
      published=there('clean'), **shared,
    ),
    Row(
      f'mean accuracy of a member, published {beside}',
      float((votes == found.labels[:, None]).mean()), 'fraction of images',
      published=there('base'), **shared,
    ),
  ]  # fmt: skip


def _recipe(name, dataset, shows, costs, left_out: Mapping[str, str] = MappingProxyType({})):
  scales = {
    scale: Scale(cost, (PLANS[name][scale].dataset,)) for scale, cost in costs.items()
  }  # fmt: skip
  return Recipe(
    name=name, source='Levine & Feizi 2021 (partition aggregation)', dataset=dataset, shows=shows,
    scales=scales, run=functools.partial(run, name), left_out=left_out,
  )  # fmt: skip


_POISONED = (
  'how many training samples may be poisoned before half of the test images lose their proof'
)
_FLIPPED = 'how many training labels may be flipped before half of the test images lose their proof'
RECIPES = (
  _recipe(
    'dpa-mnist', 'mnist', _POISONED,
    {
      'quick': 'seconds: 50 small networks on digits',
      'reduced': 'four minutes on 2 cores: 1,200 and 3,000 small networks on MNIST',
      'full': 'an accelerator, hours (not timed): 4,200 networks in networks on MNIST, 200 epochs each',
    },
  ),
  _recipe(
    'ssdpa-mnist', 'mnist', _FLIPPED,
    {
      'quick': 'half a minute on 2 cores: features of digits, and 175 linear members',
      'reduced': 'minutes on 2 cores: features of MNIST, and 1,200 linear members',
    },
    {'full': 'no base learner here is the last block of a network in network on given features'},
  ),
  _recipe(
    'dpa-cifar10', 'cifar10', _POISONED,
    {
      'quick': 'seconds: 130 small networks on digits',
      'reduced': 'minutes: 1,300 small networks on CIFAR-10',
      'full': 'an accelerator, a day (not timed): 1,300 networks in networks on CIFAR-10, 200 epochs each',
    },
  ),
  _recipe(
    'ssdpa-cifar10', 'cifar10', _FLIPPED,
    {
      'quick': 'half a minute on 2 cores: features of digits, and 130 linear members',
      'reduced': 'an hour on 2 cores (not timed): features of CIFAR-10, and 1,300 linear members',
      'full': 'an accelerator, days (not timed): SimCLR, 1,000 epochs, and 1,300 linear members, to their optimum',
    },
  ),
)  # fmt: skip
