"""Attacks over a data set: who survives, what broke the others, stored and looked at again.

Each attack is a list of parts. A part sees only the images that all parts before it left alone, in one
batch shape; the rows that are missing are padding. So an attack of one part runs on what is classified
right without it, and AutoAttack's expensive parts on what is left.

A part's directory holds `records.jsonl` (`certjax.records`) and its adversarial images. Every record says what the
classifier makes of the image **as it was read back from the disk**, in a forward pass of its own; what lies
there already is judged again, and a record that is not confirmed is an error.
"""

import contextlib
import functools
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from certjax import attacks, data, records
from certjax.evaluate._adversarials import read_stored, write_adversarials
from certjax.evaluate._stored_sets import stored_set
from certjax.evaluate._targets import on_grid

CLEAN = 'clean'
"""Directory of the records without an attack."""


class Outcome(NamedTuple):
  """What one part did, or what was there before any: a row an image that it saw.

  Attributes:
    name: of the part.
    index: int64[M], in the data set.
    labels: int64[M].
    predict: int64[M], the classifier's label of the adversarial image, -1 where it abstains.
    distance: float64[M], in the threat's norm; 0 for 'clean'.
  """

  name: str
  index: np.ndarray
  labels: np.ndarray
  predict: np.ndarray
  distance: np.ndarray

  @property
  def survives(self):
    """bool[M], where the label is still right. An abstention is no right answer."""
    return self.predict == self.labels


class Attacked(NamedTuple):
  """What attacks did to a list of images.

  Attributes:
    clean: the `Outcome` without attack, of all images.
    parts: dict from the name of an attack to its tuple of `Outcome`, in order.
  """

  clean: Outcome
  parts: dict

  def survives(self, name):
    """bool[N], the images that are right without, and under, this attack."""
    alive = self.clean.index[self.clean.survives]
    for part in self.parts[name]:
      alive = np.setdiff1d(alive, part.index[~part.survives])
    return np.isin(self.clean.index, alive)

  def survives_all(self):
    """bool[N], the worst case: right under every attack."""
    columns = [self.survives(name) for name in self.parts]
    return functools.reduce(np.logical_and, columns, self.clean.survives)

  def adversarial(self, name):
    """(predict int64[N], distance float64[N]) where an attack succeeded; elsewhere (label, inf)."""
    predict = np.where(self.clean.survives, self.clean.labels, self.clean.predict)
    distance = np.full(len(predict), np.inf)
    for part in self.parts[name]:
      broken = ~part.survives
      places = np.searchsorted(self.clean.index, part.index[broken])
      predict[places], distance[places] = part.predict[broken], part.distance[broken]
    return predict, distance


def attacked(
  key, directory, target, plan, threat, images, *, header, batch_size=250, stop=lambda: False, watch=None
):  # fmt: skip
  """Runs attacks over images; the same call goes on where an earlier one ended.

  Args:
    key: root key. Part p of an attack draws for image i with fold_in(fold_in(key, i), p), so AutoAttack gives the
      points of `attacks.autoattack` under fold_in(key, i).
    directory: local; gets `clean/` and NAME/ for each attack, NAME/1-PART/ and so on where it has several parts.
    target: a `Target`.
    plan: dict from a name to a tuple of `attacks.Part`.
    threat: the `Threat` of all of them, or a `StoredSet`.
    images: `data.Images` or `data.Stream`, in increasing order of their index.
    header: dict of JSON values that the records depend on.
    batch_size: images an attack sees at once.
    stop: asked before every batch; once it says True, the rest is left.
    watch: `(title) -> context manager` of an object with `start(done, total)` and `at(done)`, or None.

  Returns:
    `Attacked`, or None if it was stopped.

  Raises:
    ValueError: if an adversarial image is outside its set, or the classifier's answer on a stored one is not
      that of its record; for records under another header.
    OSError: if something cannot be written.

  Example:
    >>> import tempfile
    >>> from certjax import threats
    >>> from certjax.evaluate import plain_target
    >>> images = data.Images(np.array([102, 128], np.uint8).reshape(1, 1, 2, 1), np.array([1]), np.array([20]))
    >>> target, threat = plain_target(lambda x: x.reshape(len(x), -1), batch_size=1), threats.linf(0.1)
    >>> plan = {'fgsm': (attacks.Part('fgsm', attacks.fgsm(threat), {}),)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   result = attacked(jax.random.key(0), folder, target, plan, threat, images, header={}, batch_size=1)
    >>> result.clean.survives, result.survives('fgsm')
    (array([ True]), array([False]))
  """
  directory = records.locate(directory)
  if not isinstance(directory, pathlib.Path):
    raise ValueError(f'`directory` keeps adversarial images and must be local, got {directory}.')
  if batch_size < 1:
    raise ValueError(f'`batch_size` must be at least 1, got {batch_size}.')
  run = _Run(key, target, stored_set(threat), header, batch_size, stop, watch or _unwatched)
  if (clean := _part(run, directory / CLEAN, images, None, 0)) is None:
    return None
  done = {}
  for name, parts in plan.items():
    done[name] = _chain(run, directory / name, images, clean, parts)
    if done[name] is None:
      return None
  return Attacked(clean, done)


class _Run(NamedTuple):
  """What all parts share."""

  key: Any
  target: Any
  threat: Any
  header: dict
  batch_size: int
  stop: Any
  watch: Any


def _chain(run, directory, images, clean, parts):
  """The outcomes of the parts of an attack, each of the images that those before it left; None if stopped."""
  found, before = [], clean
  for number, part in enumerate(parts):
    mine = np.isin(images.index, before.index[before.survives])
    if not mine.any():
      break
    place = directory / f'{number + 1}-{part.name}' if len(parts) > 1 else directory
    before = _part(run, place, _some(images, np.flatnonzero(mine)), part, number)
    if before is None:
      return None
    found.append(before)
  return tuple(found)


def _some(images, positions):
  if isinstance(images, data.Stream):
    return images._replace(index=images.index[positions])
  return data.take(images, positions)


def _part(run, directory, images, part, number):
  """The `Outcome` of a part, or without one of the images as they are; None if stopped."""
  total = len(images.index)
  settings = {
    'part': part.name if part else CLEAN, 'settings': part.settings if part else {}, 'num_images': total,
    'seen_sha256': records.fingerprint(np.asarray(images.index, np.int64)),
  }  # fmt: skip
  found = []
  with (
    records.writer(directory, {**run.header, **settings}, num_images=total) as writer,
    run.watch(directory.name) as bar,
  ):
    known = {record['index']: record for record in writer.finished}
    bar.start(0, total)
    for start in range(0, total, run.batch_size):
      if run.stop():
        return None
      begun = time.perf_counter()
      batch = data.take(images, slice(start, start + run.batch_size))
      rows = _batch(run, directory, batch, part, number, start, known)
      seconds = (time.perf_counter() - begun) / len(rows)
      for row in rows:
        if row['index'] not in known:
          writer.append(row, {'seconds': round(seconds, 6)})
      found += rows
      bar.at(len(found))
  column = lambda name, kind: np.array([row[name] for row in found], kind)
  return Outcome(
    settings['part'], column('index', np.int64), column('label', np.int64),
    column('predict', np.int64), column('distance', np.float64),
  )  # fmt: skip


def _batch(run, directory, batch, part, number, start, known):
  """The records of one batch: attacked where one is missing, then judged as it lies on the disk."""
  x, index = data.to_float(batch.images), batch.index
  x_adv, distance, place = x, np.zeros(len(x)), directory
  if part is not None:
    place = directory / 'adversarial' / f'{start:08}.npz'
    if not any(int(i) in known for i in index):  # The array comes before its records.
      found = _attack(run, part, x, batch.labels, index, number)
      write_adversarials(place, index, *run.threat.store(x, found).values())
    stored = read_stored(place, index)
    x_adv, distance = stored['x_adv'], run.threat.check(x, stored, place)
  predict = run.target.judge(x_adv, index)
  rows = [
    {
      'index': int(i), 'label': int(y), 'predict': int(answer), 'radius': 0.0, 'distance': float(d),
      'success': bool(answer != y),
    }
    for i, y, answer, d in zip(index, batch.labels, predict, distance, strict=True)
  ]  # fmt: skip
  for row in rows:
    if (old := known.get(row['index'], row)) != row:
      said = '; '.join(records.differences(row, old))
      raise ValueError(
        f'{place}: image {row["index"]}: the record is not confirmed: {said}. The array or the record was '
        f'changed: remove {directory}, and the same command attacks anew.'
      )
  return rows


def _attack(run, part, x, labels, index, number):
  """What the attack returns, float32[B, ...], of the batch padded to the one shape that is compiled."""
  columns = {'x': x, 'y': np.asarray(labels, np.int32), 'index': np.asarray(index, np.uint32)}
  full, mask = data.pad_batch(columns, run.batch_size)
  found = _attack_rows(part.attack, run.key, np.uint32(number), run.target.model_fn, *full.values())
  found = np.asarray(found, np.float32)[mask]
  return found if run.target.grid is None else on_grid(x, found, run.target.grid)


@functools.partial(jax.jit, static_argnums=0)
def _attack_rows(attack, key, number, model_fn, x, y, index):
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
  return attack(attacks.part_keys(keys, number), model_fn, x, y)


class _Silent:
  """A bar that shows nothing."""

  def start(self, done, total):
    """Nothing."""

  def at(self, done):
    """Nothing."""


@contextlib.contextmanager
def _unwatched(title):
  del title
  yield _Silent()
