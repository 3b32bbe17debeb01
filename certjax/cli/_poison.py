"""`certjax poison`: an ensemble over parts of a training set, and what poisoning it withstands."""

import contextlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from certjax import configs, records
from certjax.cli import _parse, _progress, _signals

_UNIT = 'samples'
_SYMMETRIC, _FLIPS = 'symmetric difference', 'label flips'
_CONFIG = 'config.json'
_KEPT = ('dataset', 'learner', 'chunk', 'seed', 'skip', 'max_images', 'evenly')
"""Fields of the config that members and their answers depend on, beside the parts."""
_HASHES = ('pixel-sum', 'blake2')


class _Method(NamedTuple):
  """How parts are made, and what their votes prove.

  Attributes:
    norm: what is counted.
    sorted: parts of the sorted images, rather than of a hash.
    scored: the proof reads all preferences, rather than votes.
    prove: `(votes or preferences, num_classes, shifts) -> Certificate`.
  """

  norm: str
  sorted: bool
  scored: bool
  prove: Callable


class _Law(NamedTuple):
  """What a header says of a certificate."""

  norm: str
  unit: str = _UNIT


class _Plan(NamedTuple):
  """All that a run is a function of, checked."""

  method: _Method
  learner: object
  training: object
  images: object
  partition: object
  shifts: tuple
  settings: dict
  header: dict
  where: pathlib.Path


def poison(arguments):
  """`certjax poison METHOD [options]`."""
  config = _parse.parse(configs.Poison, 'poison', arguments)
  from certjax import report

  plan = _plan(config)
  _claim(plan)
  _train(plan)
  _write(plan, config.out)
  text = report.write([report.load(config.out)], config.out)
  print(f'{text}\n{_summary(config.out, len(plan.partition.members))}')
  print(f'everything is in {config.out}')


def _plan(config):
  """Raises `ValueError` for whatever can never be trained or proved, before anything is written."""
  from certjax import data, poisoning

  _parse.check_seed(config.seed)
  method, spec = _method(config), data.dataset(config.dataset)
  for name in ('partitions', 'group', 'chunk', 'capacity'):
    if (number := getattr(config, name)) is not None and number < 1:
      raise ValueError(f'`{name}` must be at least 1, got {number}.')
  learner = poisoning.build_learner(config.learner, spec.num_classes, config.learner_parameters)
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
  settings = _settings(config, method, len(training.labels), shifts)
  header = _header(config, method, settings, training, images)
  where = config.members or config.out
  return _Plan(
    method, learner, training, images, partition, shifts, settings, header, pathlib.Path(where)
  )


def _method(config):
  if config.method not in _METHODS:
    raise ValueError(f'`method` must be one of {", ".join(_METHODS)}; got {config.method!r}.')
  if config.hash not in _HASHES:
    raise ValueError(f'`hash` must be one of {", ".join(_HASHES)}; got {config.hash!r}.')
  overlaps = config.method == 'finite-aggregation'
  if config.spread < 1 or (config.spread > 1) != overlaps:
    rule = 'at least 2 with finite-aggregation' if overlaps else f'1 with {config.method}'
    raise ValueError(f'`spread` must be {rule}, got {config.spread}.')
  return _METHODS[config.method]


def _parts(config, method, training):
  """(partition, shifts) of the training set."""
  from certjax import poisoning

  x, number = training.images, config.partitions * config.spread
  if method.sorted:
    return poisoning.sorted_unlabelled(x, number), (0,)
  shifts = poisoning.draw_shifts(number, config.spread, seed=config.seed)
  hashed = {'pixel-sum': poisoning.pixel_sum, 'blake2': poisoning.blake2}[config.hash]
  buckets = hashed(x, number)
  return poisoning.partition(x, training.labels, buckets, number, shifts=shifts), shifts


def _settings(config, method, num_samples, shifts):
  """What the members and their answers depend on, as JSON: the method of proof is no part of it."""
  from certjax import poisoning

  number, capacity = config.partitions * config.spread, config.capacity
  if capacity is None:
    capacity = poisoning.default_capacity(num_samples, number, spread=config.spread)
  defaults = poisoning.LEARNERS[config.learner].__kwdefaults__ or {}
  return {
    **{name: getattr(config, name) for name in _KEPT},
    'learner_parameters': {**defaults, **config.learner_parameters},
    'group': min(config.group, number),
    'partition': 'sorted' if method.sorted else config.hash,
    'num_members': number, 'shifts': list(shifts), 'capacity': capacity,
  }  # fmt: skip


def _header(config, method, settings, training, images):
  from certjax import evaluate

  whole = {**settings, 'method': config.method}
  samples = {'x': training.images, 'y': training.labels}
  header = evaluate.header('poison', whole, _Law(method.norm), 'exact', samples, images)
  # No weights are kept: members are a function of the training set, and of what stands beside it.
  header['training_sha256'] = header.pop('weights_sha256')
  return header


def _claim(plan):
  """Writes the members' config to their directory, or raises if there is another."""
  path = plan.where / _CONFIG
  facts = ('training_sha256', 'images_sha256', 'num_images', 'program')
  ours = {**plan.settings, **{name: plan.header[name] for name in facts}}
  text = json.dumps(ours, indent=2, sort_keys=True) + '\n'
  if not path.exists():
    plan.where.mkdir(parents=True, exist_ok=True)
    _whole(path, lambda file: file.write(text.encode()))
    return
  try:
    there = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path} is not JSON ({error}): use another --out.') from error
  if different := list(records.differences(json.loads(text), there)):
    raise ValueError(
      f'{plan.where} holds members of another config: {"; ".join(different)}. Use another --out, '
      f'or the same config.'
    )


def _train(plan):
  """Trains the groups that are not there yet, and keeps each one's answers to all images."""
  import jax

  from certjax import poisoning

  groups, key = _groups(plan), jax.random.key(plan.settings['seed'])
  missing = [group for group in groups if not _path(plan, group).exists()]
  with _progress.bar('training', 'groups of members') as bar, _signals.deferred() as stop:
    bar.start(len(groups) - len(missing), len(groups))
    for group in missing:
      if stop():
        break
      ensemble = poisoning.train_ensemble(
        key, plan.learner, plan.training.images, plan.training.labels, plan.partition,
        capacity=plan.settings['capacity'], group=plan.settings['group'], members=group,
      )  # fmt: skip
      answers = poisoning.preferences(ensemble, plan.images.images, chunk=plan.settings['chunk'])
      save = lambda file, answers=answers: np.savez_compressed(file, preferences=answers)
      _whole(_path(plan, group), save)
      bar.advance()


def _groups(plan):
  number, group = plan.settings['num_members'], plan.settings['group']
  return [range(start, min(start + group, number)) for start in range(0, number, group)]


def _path(plan, group):
  return plan.where / f'members-{group.start:06}.npz'


def _answers(plan):
  """int[N, M] votes of all members, or int[N, M, K] preferences where the proof needs them."""
  from certjax import poisoning

  found = []
  for group in _groups(plan):
    path = _path(plan, group)
    try:
      with open(path, 'rb') as file, np.load(file) as arrays:
        answers = arrays['preferences']
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
      raise ValueError(f'{path} is damaged ({error}): delete it, and run again.') from error
    if not plan.method.scored:
      answers = poisoning.first_choices(answers).astype(np.int16)
    found.append(answers)
  return np.concatenate(found, axis=1)


def _write(plan, out):
  """One record an image, with the votes of its label and the members that are right."""
  from certjax import poisoning

  answers = _answers(plan)
  votes = poisoning.first_choices(answers) if plan.method.scored else answers
  proof = plan.method.prove(answers, plan.learner.num_classes, plan.shifts)
  with records.writer(out, plan.header) as run:
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


def _summary(out, num_members):
  """The figures of the papers' tables."""
  from certjax import report

  run, (_, lines) = report.load(out), records.read(out)
  median = report.median_radius(run.certificate, run.labels)
  base = np.mean([line['members_right'] for line in lines]) / num_members
  clean = report.clean_accuracy(run.certificate, run.labels)
  said = 'N/A' if median is None else f'{median:.0f}'
  return (
    f'clean accuracy {clean:.4f}, base accuracy {base:.4f} ({num_members} members), '
    f'median of certified samples {said}'
  )


def _whole(path, save):
  """A file that is there as a whole, or not at all."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    with open(temporary, 'wb') as file:
      save(file)
    os.replace(temporary, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      temporary.unlink()


def _plain(votes, num_classes, shifts):
  from certjax import certify

  del shifts
  return certify.aggregate(votes, num_classes)


def _finite(votes, num_classes, shifts):
  from certjax import certify

  return certify.finite_aggregation(votes, num_classes, shifts=shifts)


def _run_off(preferences, num_classes, shifts):
  """In blocks of images: as floats, all preferences at once would take four times the memory."""
  from certjax import certify

  del num_classes, shifts
  parts = []
  for start in range(0, len(preferences), _BLOCK):
    block = preferences[start : start + _BLOCK]
    scores = np.where(block < 0, np.float32(np.nan), block.astype(np.float32))
    parts.append(certify.run_off_election(scores))
  return certify.Certificate(*(np.concatenate(part) for part in zip(*parts, strict=True)))


_BLOCK = 500
_METHODS = {
  'dpa': _Method(_SYMMETRIC, sorted=False, scored=False, prove=_plain),
  'ss-dpa': _Method(_FLIPS, sorted=True, scored=False, prove=_plain),
  'finite-aggregation': _Method(_SYMMETRIC, sorted=False, scored=False, prove=_finite),
  'run-off': _Method(_SYMMETRIC, sorted=False, scored=True, prove=_run_off),
}
