"""Members of an ensemble as files: each group's answers to all images, beside what they depend on.

The directory belongs to one config. A group is there as a whole or not at all, so that an interrupted
training goes on at the first group that is missing, and another rule of proof may read the same members.
"""

import contextlib
import json
import os
import zipfile
from typing import Any, NamedTuple

import jax
import numpy as np

from certjax import poisoning, records

_CONFIG = 'config.json'
_FACTS = ('training_sha256', 'images_sha256', 'num_images', 'program')
"""What a header knows of the members beside their settings."""


class Members(NamedTuple):
  """All that the members and their answers are a function of.

  Attributes:
    learner: a `poisoning.Learner`.
    inputs: `() -> (x, x_test)`, what members learn from and what they answer; called if some are missing.
    labels: int[N], of the training samples.
    partition: a `poisoning.Partition`.
    settings: dict of JSON values, with 'seed', 'num_members', 'group', 'capacity' and 'chunk'.
    header: dict, that of the records.
    where: their directory.
  """

  learner: Any
  inputs: Any
  labels: Any
  partition: Any
  settings: dict
  header: dict
  where: Any


def claim(members: Members):
  """Writes the members' config to their directory, where there is none.

  Raises:
    ValueError: if there is another, or it is not JSON.
  """
  path = members.where / _CONFIG
  ours = {**members.settings, **{name: members.header[name] for name in _FACTS}}
  text = json.dumps(ours, indent=2, sort_keys=True) + '\n'
  if not path.exists():
    members.where.mkdir(parents=True, exist_ok=True)
    _whole(path, lambda file: file.write(text.encode()))
    return
  try:
    there = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path} is not JSON ({error}): use another --out.') from error
  if different := list(records.differences(json.loads(text), there)):
    raise ValueError(
      f'{members.where} holds members of another config: {"; ".join(different)}. Use another --out, '
      f'or the same config.'
    )


def train(members: Members, *, on_start=None, on_group=None, stopped=None):
  """Trains the groups that are not there yet, and keeps each one's answers to all images.

  Args:
    members: a `Members`.
    on_start: called once as `on_start(groups done, groups)`.
    on_group: called as `on_group()` after each group.
    stopped: asked before each group; if it says so, training ends there.
  """
  groups, settings = _groups(members), members.settings
  missing = [group for group in groups if not _path(members, group).exists()]
  if on_start:
    on_start(len(groups) - len(missing), len(groups))
  x, x_test = members.inputs() if missing else (None, None)
  for group in missing:
    if stopped and stopped():
      break
    ensemble = poisoning.train_ensemble(
      jax.random.key(settings['seed']), members.learner, x, members.labels, members.partition,
      capacity=settings['capacity'], group=settings['group'], members=group,
    )  # fmt: skip
    answers = poisoning.preferences(ensemble, x_test, chunk=settings['chunk'])
    save = lambda file, answers=answers: np.savez_compressed(file, preferences=answers)
    _whole(_path(members, group), save)
    if on_group:
      on_group()


def answers(members: Members, *, scored):
  """What all members say, once all groups are there.

  Args:
    members: a `Members`.
    scored: whether the proof reads all preferences, rather than votes.

  Returns:
    int[N, M] votes, or int[N, M, K] preferences.

  Raises:
    ValueError: if a file is damaged.
  """
  found = []
  for group in _groups(members):
    path = _path(members, group)
    try:
      with open(path, 'rb') as file, np.load(file) as arrays:
        ranks = arrays['preferences']
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
      raise ValueError(f'{path} is damaged ({error}): delete it, and run again.') from error
    found.append(ranks if scored else poisoning.first_choices(ranks).astype(np.int16))
  return np.concatenate(found, axis=1)


def _groups(members):
  number, group = members.settings['num_members'], members.settings['group']
  return [range(start, min(start + group, number)) for start in range(0, number, group)]


def _path(members, group):
  return members.where / f'members-{group.start:06}.npz'


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
