"""Why parts must not depend on positions: one image in the middle moves all that come after it.

Inserted at the front it would only rename the parts: each would get all images of its neighbour.
"""

import functools

import jax
import numpy as np

from certjax import certify, data, poisoning
from certjax.report import Curves, Line
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, at_every_scale
from certjax.reproduce._published import published

_DATASET = 'digits'
_PARTS = 50


def run(request, *, num_parts=_PARTS, num_inserted=20, num_images=500) -> Result:
  """Parts, votes and labels that one inserted image changes, by position and by a hash.

  Each of some test images is inserted in the middle of the training set with a wrong label, alone;
  all members (1-nearest neighbour) are trained again.

  Args:
    request: a `Request`; only `data_dir` matters: nothing is drawn.
    num_parts: k.
    num_inserted: images that are tried.
    num_images: test images, evenly spaced.
  """
  training = data.load(_DATASET, 'train', data_dir=request.data_dir)
  every = data.subset(data.dataset(_DATASET).size('test'), evenly=num_images)
  test = data.load(_DATASET, 'test', data_dir=request.data_dir, indices=every)
  found = {
    name: _tried(deal, training, test, num_inserted)
    for name, deal in {
      'by position': lambda x, y: poisoning.by_position(len(x), num_parts),
      'by a hash': lambda x, y: poisoning.partition(
        x, y, poisoning.pixel_sum(x, num_parts), num_parts
      ),
    }.items()
  }
  setting = (
    f'{num_parts} parts of {len(training.index)} images, 1-nearest neighbour, {num_inserted} images '
    f'inserted in the middle, one at a time, {len(test.index)} test images'
  )
  rows = [row for name, each in found.items() for row in _rows(name, each, setting)]
  return Result(tuple(rows), _figure(found))


def _tried(deal, training, test, num_inserted):
  """int[t] parts changed, int[t, N] votes changed, int[t] labels changed where none may."""
  before = _votes(deal, training.images, training.labels, test.images)
  proof = certify.aggregate(before, _classes())
  parts, votes, broken = [], [], []
  middle = len(training.index) // 2
  for image, label in zip(test.images[:num_inserted], test.labels[:num_inserted], strict=True):
    x = np.insert(training.images, middle, image, axis=0)
    y = np.insert(training.labels, middle, (label + 1) % _classes())
    parts.append(changed_parts(deal, training.images, training.labels, x, y))
    after = _votes(deal, x, y, test.images)
    votes.append((after != before).sum(axis=1))
    label = certify.aggregate(after, _classes()).label
    broken.append(int(((label != proof.label) & (proof.radius >= 1)).sum()))
  return np.array(parts), np.array(votes), np.array(broken)


def changed_parts(deal, x, y, x_after, y_after) -> int:
  """How many parts hold other samples, or the same in another order."""
  before, after = (
    [(x[part].tobytes(), y[part].tobytes()) for part in deal(x, y).members]
    for x, y in ((x, y), (x_after, y_after))
  )
  return sum(one != other for one, other in zip(before, after, strict=True))


def _votes(deal, x, y, images):
  partition = deal(x, y)
  number = len(partition.members)
  ensemble = poisoning.train_ensemble(
    jax.random.key(0), _learner(), x, y, partition, group=number,
    capacity=poisoning.default_capacity(data.dataset(_DATASET).size('train'), number),
  )  # fmt: skip
  return poisoning.votes(ensemble, images)


@functools.lru_cache
def _learner():
  """One object, so that its program is compiled once."""
  return poisoning.nearest_neighbour(_classes())


def _classes():
  return data.dataset(_DATASET).num_classes


def _rows(name, found, setting):
  parts, votes, broken = (np.max(each) for each in found)
  measured = {
    'most parts that one image changes': (parts, 'parts', 'partition-lemma'),
    'most votes that one image changes': (votes, 'votes', 'partition-votes'),
    'most labels that one image changes, certified against one': (
      broken, 'images', 'partition-theorem',
    ),
  }  # fmt: skip
  hashed = name == 'by a hash'
  return [
    Row(
      f'{number}, parts {name}', float(value), unit, setting, _DATASET,
      published(table, 'hash') if hashed else None, comparable=hashed,
    )
    for number, (value, unit, table) in measured.items()
  ]  # fmt: skip


def _figure(found):
  """Changed parts of each inserted image, and changed votes of each test image."""
  parts = tuple(
    Line(name, np.arange(1, len(each[0]) + 1), each[0], 'o') for name, each in found.items()
  )
  votes = tuple(
    Line(name, np.arange(each[1].shape[1]), np.sort(each[1].max(axis=0)))
    for name, each in found.items()
  )
  return (
    Curves('one image in the middle', 'inserted image', 'parts that change', parts),
    Curves('its effect on votes', 'test images, sorted', 'votes that change, at most', votes),
  )


RECIPE = Recipe(
  name='naive-partitioning',
  source='Levine & Feizi 2021 (partition aggregation)',
  dataset=ARITHMETIC,
  shows='one image more changes every part dealt by position, and one part dealt by a hash',
  scales=at_every_scale('seconds, a theorem of any training set', (_DATASET,)),
  run=run,
)
