"""Deep partition aggregation on MNIST, with small base learners, and on digits."""

from typing import NamedTuple

import jax
import numpy as np

from certjax import certify, data, poisoning, report
from certjax.report import Curves, Line, Run
from certjax.reproduce._nouns import Recipe, Result, Row, Scale
from certjax.reproduce._published import published
from certjax.reproduce._shares import accuracy_row

_MEMBERS_AT_ONCE = 40
_NOTE = (
  'Base learners are networks of one hidden layer, trained by full-batch steps; the published ones have a '
  'million weights each and 200 epochs of augmented images.'
)


class Plan(NamedTuple):
  """What a scale trains.

  Attributes:
    dataset: name of the data set.
    parts: the published k -> ours.
  """

  dataset: str
  parts: dict


PLANS = {
  'quick': Plan('digits', {1200: 50}),
  'reduced': Plan('mnist', {1200: 1200, 3000: 3000}),
}


def run(request, *, plan=None, learner=None, num_images=None) -> Result:
  """Median certified samples, clean and base accuracy for each number of parts.

  Args:
    request: a `Request`.
    plan: default that of the scale.
    learner: a `poisoning.Learner`, default `poisoning.mlp`.
    num_images: test images, evenly spaced; default all.
  """
  plan = plan or PLANS[request.scale]
  spec = data.dataset(plan.dataset)
  training = data.load(plan.dataset, 'train', data_dir=request.data_dir)
  indices = data.subset(spec.size('test'), evenly=num_images or spec.size('test'))
  test = data.load(plan.dataset, 'test', data_dir=request.data_dir, indices=indices)
  learner = learner or poisoning.mlp(spec.num_classes)
  rows, lines = [], []
  for theirs, parts in plan.parts.items():
    votes = _votes(request, learner, training, test, parts)
    request.say(f'{parts} members are trained and asked')
    proof = certify.aggregate(votes, spec.num_classes)
    found = Run(f'k = {parts}', test.index, test.labels.astype(np.int64), proof)
    rows += _rows(request, plan, theirs, parts, votes, found)
    budgets = np.arange(int(proof.radius.max(initial=0)) + 2)
    accuracy = report.certified_accuracy(proof, found.labels, budgets)
    lines.append(Line(f'k = {parts}', budgets, accuracy, 'steps'))
  figure = Curves(plan.dataset, 'poisoned samples', 'certified accuracy', tuple(lines))
  return Result(tuple(rows), (figure,), (_NOTE,))


def _votes(request, learner, training, test, parts):
  """int[N, k], group after group: no more members than one program holds are kept."""
  buckets = poisoning.pixel_sum(training.images, parts)
  partition = poisoning.partition(training.images, training.labels, buckets, parts)
  capacity = poisoning.default_capacity(len(training.index), parts)
  group, found = min(_MEMBERS_AT_ONCE, parts), []
  for start in range(0, parts, group):
    ensemble = poisoning.train_ensemble(
      jax.random.key(request.seed), learner, training.images, training.labels, partition,
      capacity=capacity, group=group, members=range(start, min(start + group, parts)),
    )  # fmt: skip
    found.append(poisoning.votes(ensemble, test.images).astype(np.int16))
  return np.concatenate(found, axis=1)


def _rows(request, plan, theirs, parts, votes, found):
  shared = {
    'setting': (
      f'k = {parts}, networks of 128 hidden units, {len(found.index)} test images, parts by the sum '
      f'of pixels'
    ),
    'dataset': plan.dataset, 'seed': request.seed,
  }  # fmt: skip
  beside = f'k = {theirs}'
  median = report.median_radius(found.certificate, found.labels)
  return [
    Row(
      f'median certified poisoned samples, published {beside}', median, 'samples',
      published=published('dpa-mnist-median', beside), **shared,
    ),
    accuracy_row(
      found, 0.0, number=f'clean accuracy of the vote, published {beside}',
      published=published('dpa-mnist-clean', beside), **shared,
    ),
    Row(
      f'mean accuracy of a member, published {beside}',
      float((votes == found.labels[:, None]).mean()), 'fraction of images',
      published=published('dpa-mnist-base', beside), **shared,
    ),
  ]  # fmt: skip


RECIPE = Recipe(
  name='dpa-mnist',
  source='Levine & Feizi 2021 (partition aggregation)',
  dataset='mnist',
  shows='how many training samples may be poisoned before half of the test images lose their proof',
  scales={
    'quick': Scale('seconds: 50 small networks on digits', ('digits',)),
    'reduced': Scale('minutes: 1,200 and 3,000 small networks on MNIST', ('mnist',)),
  },
  run=run,
)
