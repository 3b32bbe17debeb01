"""An ensemble over the parts of a training set, and how many poisoned samples its answers withstand.

Four rules over the same kind of members (Levine & Feizi 2021; Wang, Levine & Feizi 2022; Rezaei et al.
2023): who sees which sample, and what the votes then prove. Exact; one record an image.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from certjax import certify, data, poisoning, records
from certjax.evaluate import _members
from certjax.evaluate._frozen_features import frozen_features
from certjax.evaluate._header import header

_UNIT = 'samples'
_SYMMETRIC, _FLIPS = 'symmetric difference', 'label flips'
_KEPT = ('dataset', 'learner', 'chunk', 'seed', 'skip', 'max_images', 'evenly')
"""Fields of the config that members and their answers depend on, beside the parts."""
_HASHES = {'pixel-sum': poisoning.pixel_sum, 'blake2': poisoning.blake2}
_BLOCK = 500  # Images whose preferences are floats at once.


class _Method(NamedTuple):
  """How parts are made, and what their votes prove.

  Attributes:
    norm: what is counted.
    sorted: parts of the sorted images, rather than of a hash.
    scored: the proof reads all preferences, rather than votes.
    trusted: images are, so that members may share features learned from all of them.
    prove: `(votes or preferences, num_classes, shifts) -> Certificate`.
  """

  norm: str
  sorted: bool
  scored: bool
  trusted: bool
  prove: Callable


class _Law(NamedTuple):
  """What a header says of a certificate."""

  norm: str
  unit: str = _UNIT


class PoisonPlan(NamedTuple):
  """All that a run is a function of, checked.

  Attributes:
    method: what is proved, and how.
    members: whose votes.
    images: `data.Images` that are certified.
    shifts: which members a sample reaches.
  """

  method: _Method
  members: Any
  images: Any
  shifts: tuple

  @property
  def num_members(self):
    """M."""
    return self.members.settings['num_members']


def poison_plan(config) -> PoisonPlan:
  """Loads and deals the samples that a config names; nothing is written.

  Args:
    config: a `configs.Poison`.

  Returns:
    A `PoisonPlan`.

  Raises:
    ValueError: for whatever can never be trained or proved.

  Example:
    >>> import pathlib, tempfile
    >>> from certjax import configs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   folder = pathlib.Path(folder)
    ...   plan = poison_plan(configs.Poison(
    ...     'dpa', out=folder, dataset='digits', data_dir=folder, partitions=40, learner='nearest-neighbour',
    ...     max_images=3,
    ...   ))
    >>> plan.members.header['norm'], plan.images.index
    ('symmetric difference', array([0, 1, 2]))
  """
  method, spec = _method(config), data.dataset(config.dataset)
  for name in ('partitions', 'group', 'chunk', 'capacity'):
    if (number := getattr(config, name)) is not None and number < 1:
      raise ValueError(f'`{name}` must be at least 1, got {number}.')
  features = None if config.features is None else frozen_features(config.features, config.dataset)
  learner = poisoning.build_learner(
    config.learner, spec.num_classes, config.learner_parameters,
    shape=spec.shape if features is None else None,
  )  # fmt: skip
  training = data.load(config.dataset, 'train', data_dir=config.data_dir)
  if config.partitions > len(training.labels):
    raise ValueError(
      f'`partitions` must be at most the {len(training.labels)} training samples, got '
      f'{config.partitions}: a part would have less than one sample on average.'
    )
  source = data.source(config.dataset, 'test', config.data_dir)
  index = data.subset(
    len(source), skip=config.skip, max_images=config.max_images, evenly=config.evenly
  )
  images = data.load(config.dataset, 'test', data_dir=config.data_dir, indices=index)
  partition, shifts = _parts(config, method, training)
  settings = _settings(config, method, len(training.labels), shifts, features)
  inputs = lambda: tuple(
    each.images if features is None else features(each.images) for each in (training, images)
  )
  members = _members.Members(
    learner, inputs, training.labels, partition, settings,
    _header(config, method, settings, training, images), pathlib.Path(config.members or config.out),
  )  # fmt: skip
  return PoisonPlan(method, members, images, shifts)


def train_members(plan: PoisonPlan, *, on_start=None, on_group=None, stopped=None):
  """Claims the members' directory, and trains those that are missing.

  Args:
    plan: from `poison_plan`.
    on_start: called once as `on_start(groups done, groups)`.
    on_group: called as `on_group()` after each group.
    stopped: asked before each group; if it says so, training ends there.

  Raises:
    ValueError: if the directory holds members of another config.
  """
  _members.claim(plan.members)
  _members.train(plan.members, on_start=on_start, on_group=on_group, stopped=stopped)


def poison_records(plan: PoisonPlan, out):
  """Writes one record an image, with the votes of its label and the members that are right.

  Args:
    plan: from `poison_plan`, its members trained.
    out: directory of the records; those that are there already stay.

  Raises:
    ValueError: if members are damaged, or the records are of another run.

  Example:
    >>> import pathlib, tempfile
    >>> from certjax import configs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   folder = pathlib.Path(folder)
    ...   plan = poison_plan(configs.Poison(
    ...     'dpa', out=folder / 'run', dataset='digits', data_dir=folder, partitions=40, learner='nearest-neighbour',
    ...     max_images=3,
    ...   ))
    ...   train_members(plan)
    ...   poison_records(plan, folder / 'run')
    ...   [record['count'] > 20 for record in records.read(folder / 'run')[1]]
    [True, True, False]
  """
  answers = _members.answers(plan.members, scored=plan.method.scored)
  votes = poisoning.first_choices(answers) if plan.method.scored else answers
  proof = plan.method.prove(answers, plan.members.learner.num_classes, plan.shifts)
  with records.writer(out, plan.members.header) as run:
    done = {record['index'] for record in run.finished}
    for i, index in enumerate(plan.images.index.tolist()):
      label, predict = int(plan.images.labels[i]), int(proof.label[i])
      record = {
        'index': index, 'label': label, 'predict': predict, 'radius': float(proof.radius[i]),
        'count': int(np.sum((votes[i] == predict) & (votes[i] >= 0))),
        'members_right': int(np.sum(votes[i] == label)),
      }  # fmt: skip
      if index not in done:
        run.append(record)


def _method(config):
  if config.method not in METHODS:
    raise ValueError(f'`method` must be one of {", ".join(METHODS)}; got {config.method!r}.')
  if config.hash not in _HASHES:
    raise ValueError(f'`hash` must be one of {", ".join(_HASHES)}; got {config.hash!r}.')
  overlaps = config.method == 'finite-aggregation'
  if config.spread < 1 or (config.spread > 1) != overlaps:
    rule = 'at least 2 with finite-aggregation' if overlaps else f'1 with {config.method}'
    raise ValueError(f'`spread` must be {rule}, got {config.spread}.')
  method = METHODS[config.method]
  if config.features is not None and not method.trusted:
    raise ValueError(
      f'`features` learned from all training images void the certificate of {config.method}: one inserted '
      f'image may reach every member. Use ss-dpa (flipped labels), or no --features.'
    )
  return method


def _parts(config, method, training):
  """(partition, shifts) of the training set."""
  x, number = training.images, config.partitions * config.spread
  if method.sorted:
    return poisoning.sorted_unlabelled(x, number), (0,)
  shifts = poisoning.draw_shifts(number, config.spread, seed=config.seed)
  buckets = _HASHES[config.hash](x, number)
  return poisoning.partition(x, training.labels, buckets, number, shifts=shifts), shifts


def _settings(config, method, num_samples, shifts, features):
  """What the members and their answers depend on, as JSON: the method of proof is no part of it."""
  number, capacity = config.partitions * config.spread, config.capacity
  if capacity is None:
    capacity = poisoning.default_capacity(num_samples, number, spread=config.spread)
  defaults = poisoning.learner_parameters(config.learner)
  return {
    **{name: getattr(config, name) for name in _KEPT},
    'learner_parameters': {**defaults, **config.learner_parameters},
    'group': min(config.group, number),
    'partition': 'sorted' if method.sorted else config.hash,
    'num_members': number, 'shifts': list(shifts), 'capacity': capacity,
    **({} if features is None else {'features': features.facts}),
  }  # fmt: skip


def _header(config, method, settings, training, images):
  whole = {**settings, 'method': config.method}
  samples = {'x': training.images, 'y': training.labels}
  made = header('poison', whole, _Law(method.norm), 'exact', samples, images)
  # No weights are kept: members are a function of the training set, and of what stands beside it.
  made['training_sha256'] = made.pop('weights_sha256')
  return made


def _plain(votes, num_classes, shifts):
  del shifts
  return certify.aggregate(votes, num_classes)


def _finite(votes, num_classes, shifts):
  return certify.finite_aggregation(votes, num_classes, shifts=shifts)


def _run_off(preferences, num_classes, shifts):
  """In blocks of images: as floats, all preferences at once would take four times the memory."""
  del num_classes, shifts
  parts = []
  for start in range(0, len(preferences), _BLOCK):
    block = preferences[start : start + _BLOCK]
    scores = np.where(block < 0, np.float32(np.nan), block.astype(np.float32))
    parts.append(certify.run_off_election(scores))
  return certify.Certificate(*(np.concatenate(part) for part in zip(*parts, strict=True)))


METHODS = {
  'dpa': _Method(_SYMMETRIC, sorted=False, scored=False, trusted=False, prove=_plain),
  'ss-dpa': _Method(_FLIPS, sorted=True, scored=False, trusted=True, prove=_plain),
  'finite-aggregation': _Method(
    _SYMMETRIC, sorted=False, scored=False, trusted=False, prove=_finite
  ),
  'run-off': _Method(_SYMMETRIC, sorted=False, scored=True, trusted=False, prove=_run_off),
}
"""Name -> rule, for `configs.Poison`."""
