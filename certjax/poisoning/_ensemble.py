"""Ensembles of base learners over the parts of a training set, trained as one program.

Members are trained in groups of one fixed shape: each part is padded to `capacity` samples, the last
group is padded with empty parts, so that one program serves all groups and all training sets. A
member is a function of `fold_in(key, i)` and its own ordered part; on CPU members run one after
another through one and the same loop body, so that its bits depend neither on its neighbours nor on
its place. That is what partition aggregation needs: one sample more or less changes one member,
hence one vote (Levine & Feizi 2021). The members of a group are shared out over the devices of this
process; the group is padded until they divide evenly. (On accelerators members are batched, so that group
and number of devices are part of the procedure there.)

`capacity` is a number of the procedure, chosen once, never the size of the largest part: else a part
that an adversary fills would change the shape of all, and with it their last bits.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax import parallel
from certjax.poisoning._learner import Learner

_MULTIPLE = 8  # Capacities are multiples of it.
_SPREAD = 4  # Standard deviations of a part's size that the default capacity leaves room for.


class Ensemble(NamedTuple):
  """Trained members.

  Attributes:
    learner: what they were trained by.
    states: tree of arrays [G, g, ...]: G groups of g members.
    numbers: int64[m], the number i of each member in its partition; groups are filled in this order.
    sizes: int64[m], samples of each member's part; a member of an empty part abstains.
  """

  learner: Learner
  states: dict
  numbers: np.ndarray
  sizes: np.ndarray


def default_capacity(num_samples: int, num_members: int, *, spread: int = 1) -> int:
  """Room for nearly all parts of an even hash: mean + 4 sqrt(mean), up to a multiple of 8.

  Args:
    num_samples: N.
    num_members: of the partition, kd.
    spread: d, parts of each sample.

  Returns:
    The capacity, for `train_ensemble`.

  Example:
    >>> default_capacity(60_000, 1200), default_capacity(60_000, 3000)
    (80, 40)
  """
  mean = num_samples * spread / num_members
  return _MULTIPLE * math.ceil((mean + _SPREAD * math.sqrt(mean)) / _MULTIPLE)


def train_ensemble(
  key, learner: Learner, x, y, partition, *, capacity: int, group: int = 40, members=None
) -> Ensemble:
  """Trains the members of a partition, each on its own part, with `jax.random.fold_in(key, i)`.

  A part of more than `capacity` samples is thinned to that many, evenly spaced in its order: a rule
  that looks at this part alone, so that the certificates hold whatever an adversary adds.

  Args:
    key: of the ensemble.
    learner: a `Learner`.
    x: uint8[N, ...] or float32[N, ...] in [0, 1], training images.
    y: int[N], labels in [0, K).
    partition: a `Partition` of them.
    capacity: samples that a member sees at most, as `default_capacity`; to be kept when the
      training set changes.
    group: members that are trained in one program, over all devices of this process.
    members: int[m], the numbers of the members to train, default all. Members may be trained in
      portions, or one of them anew.

  Returns:
    An `Ensemble`.

  Raises:
    ValueError: if labels are missing or out of range, there are more members than samples, a number
      is out of range, or `capacity` or `group` is below 1.

  Example:
    >>> from certjax.poisoning import nearest_neighbour, partition, pixel_sum
    >>> x, y = np.array([[0], [9], [4], [5]], np.uint8), np.array([0, 1, 0, 1])
    >>> parts = partition(x, y, pixel_sum(x, 2), 2)
    >>> learner, key = nearest_neighbour(2), jax.random.key(0)
    >>> ensemble = train_ensemble(key, learner, x, y, parts, capacity=4, group=2)
    >>> votes(ensemble, np.array([[1], [8]], np.uint8))
    array([[0, 1],
           [0, 1]], dtype=int32)

  References:
    Levine & Feizi 2021 (arXiv:2006.14768).
  """
  x, y = _check_samples(x, y, learner.num_classes, partition)
  numbers = _check_numbers(members, len(partition.members))
  capacity, group = _at_least_one('capacity', capacity), _at_least_one('group', group)
  states, mesh = [], parallel.local_mesh()
  room = _over(mesh, group)
  for start in range(0, len(numbers), group):
    batch = numbers[start : start + group]
    parts = [_thinned(partition.members[i], capacity) for i in batch]
    padded = np.concatenate([batch, np.zeros(room - len(batch), np.int64)])
    states.append(
      _fit(learner, mesh, key, padded.astype(np.uint32), *_padded(x, y, parts, room, capacity))
    )
  states = jax.tree.map(lambda *each: np.stack([np.asarray(one)[:group] for one in each]), *states)
  return Ensemble(learner, states, numbers, partition.sizes[numbers])


def preferences(ensemble: Ensemble, x, *, chunk: int = 500):
  """How many classes each member puts below each class: all that votes and run-offs read of scores.

  Args:
    ensemble: an `Ensemble` of m members.
    x: images as in training, [N, ...].
    chunk: images that are evaluated at once. Results may differ in the last bits of a score for
      another chunk, not for another N or order.

  Returns:
    int8[N, m, K] (int16 for more than 127 classes), equal scores have equal numbers; -1 where the
    member abstains: its part is empty, or a score is NaN.

  Raises:
    ValueError: if images have another size than those of training, or `chunk` is below 1.

  Example:
    >>> from certjax.poisoning import Partition, nearest_neighbour
    >>> x, parts = np.array([[0], [9]], np.uint8), Partition((np.arange(2), np.arange(0)))
    >>> learner, y = nearest_neighbour(3), np.array([2, 0])
    >>> ensemble = train_ensemble(jax.random.key(0), learner, x, y, parts, capacity=2, group=2)
    >>> preferences(ensemble, x[:1]).tolist()
    [[[1, 0, 2], [-1, -1, -1]]]
  """
  rows, chunk = _images('x', x), _at_least_one('chunk', chunk)
  num_rows, num_classes = len(rows), ensemble.learner.num_classes
  small = np.int8 if num_classes <= np.iinfo(np.int8).max else np.int16
  found = np.empty((num_rows, len(ensemble.numbers), num_classes), small)
  group, mesh = len(jax.tree.leaves(ensemble.states)[0][0]), parallel.local_mesh()
  places = np.minimum(np.arange(_over(mesh, group)), group - 1)  # What fills up is left out below.
  for start in range(0, num_rows, chunk):
    part = rows[start : start + chunk]
    padded = np.concatenate([part, np.zeros((chunk - len(part), *rows.shape[1:]), rows.dtype)])
    for place, number in enumerate(range(0, len(ensemble.numbers), group)):
      state = jax.tree.map(lambda leaf, place=place: leaf[place, places], ensemble.states)
      ranks = np.asarray(_ranks(ensemble.learner, mesh, state, padded))[:group, : len(part)]
      there = found[start : start + chunk, number : number + group]
      there[...] = ranks.swapaxes(0, 1)[:, : there.shape[1]]
  found[:, ensemble.sizes == 0] = -1
  return found


def votes(ensemble: Ensemble, x, *, chunk: int = 500):
  """The class that each member votes for, the lowest of equals.

  Args:
    ensemble: an `Ensemble` of m members.
    x: images as in training, [N, ...].
    chunk: as `preferences`.

  Returns:
    int32[N, m], as `certify.aggregate` and, of all members, `certify.finite_aggregation` take them;
    -1 where a member abstains.

  Raises:
    ValueError: as `preferences`.

  Example:
    >>> from certjax.poisoning import Partition, nearest_neighbour
    >>> x, parts = np.array([[0], [9]], np.uint8), Partition((np.arange(2), np.arange(0)))
    >>> learner, y = nearest_neighbour(3), np.array([2, 0])
    >>> ensemble = train_ensemble(jax.random.key(0), learner, x, y, parts, capacity=2, group=2)
    >>> votes(ensemble, x).tolist()
    [[2, -1], [0, -1]]
  """
  return first_choices(preferences(ensemble, x, chunk=chunk))


def first_choices(preferences):
  """Votes of `preferences`.

  Args:
    preferences: int[..., K].

  Returns:
    int32[...], the class that is put above most, the lowest of equals; -1 where the member abstains.

  Example:
    >>> first_choices(np.array([[0, 1, 1], [-1, -1, -1]]))
    array([ 1, -1], dtype=int32)
  """
  top = np.argmax(preferences, axis=-1).astype(np.int32)
  return np.where(preferences[..., 0] < 0, np.int32(-1), top)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fit(learner, mesh, key, numbers, x, y, mask):
  def members(key, numbers, x, y, mask):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    each = lambda key, x, y, mask: learner.fit(key, _as_pixels(x), y, mask)
    return _over_members(each, keys, x, y, mask)

  specs = (parallel.REPLICATED, *4 * (parallel.SHARDED,))
  return parallel.pmap(members, mesh, specs, parallel.SHARDED)(key, numbers, x, y, mask)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _ranks(learner, mesh, states, x):
  """int32[g, N, K], classes below each class; -1 where a score is NaN."""

  def members(states, x):
    x = _as_pixels(x)

    def each(state):
      scores = jax.vmap(learner.scores, (None, 0))(state, x)
      below = jnp.sum(scores[:, :, None] > scores[:, None, :], axis=-1, dtype=jnp.int32)
      return jnp.where(jnp.isnan(scores).any(axis=-1, keepdims=True), -1, below)

    return _over_members(each, states)

  specs = (parallel.SHARDED, parallel.REPLICATED)
  return parallel.pmap(members, mesh, specs, parallel.SHARDED)(states, x)


def _over(mesh, group):
  """The smallest number of members, `group` among them, that divides evenly over the devices."""
  return -(-group // mesh.devices.size) * mesh.devices.size


def _over_members(function, *arrays):
  """A function of one member, for all.

  On CPU a loop: twice as fast as batched products here, since a member's weights stay in cache.
  """
  if jax.default_backend() == 'cpu':
    return lax.map(lambda each: function(*each), arrays)
  return jax.vmap(function)(*arrays)


def _as_pixels(x):
  return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def _thinned(part, capacity):
  """At most `capacity` of the samples, evenly spaced in the part's own order."""
  if len(part) <= capacity:
    return part
  return part[np.arange(capacity) * len(part) // capacity]


def _padded(x, y, parts, group, capacity):
  """The group's images, labels and mask, zero where there is no sample."""
  images = np.zeros((group, capacity, x.shape[1]), x.dtype)
  labels = np.zeros((group, capacity), np.int32)
  mask = np.zeros((group, capacity), bool)
  for place, part in enumerate(parts):
    images[place, : len(part)], labels[place, : len(part)] = x[part], y[part]
    mask[place, : len(part)] = True
  return images, labels, mask


def _images(name, x):
  x = np.asarray(x)
  if x.dtype not in (np.uint8, np.float32) or x.ndim < 2:
    raise ValueError(
      f'`{name}` must be images [N, ...], uint8 or float32 in [0, 1], got {x.dtype}{list(x.shape)}.'
    )
  return np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:]))


def _check_samples(x, y, num_classes, partition):
  rows, y = _images('x', x), np.asarray(y)
  if y.shape != (len(rows),) or not np.issubdtype(y.dtype, np.integer):
    raise ValueError(
      f'`y` must be integers, a label for each of the {len(rows)} images, got {y.dtype}'
      f'{list(y.shape)}: members learn from labelled samples.'
    )
  if y.size and not 0 <= y.min() <= y.max() < num_classes:
    raise ValueError(
      f'`y` must lie in [0, {num_classes}), the classes of the learner, got {y.min()} to {y.max()}.'
    )
  if len(partition.members) > (total := int(partition.sizes.sum())):
    raise ValueError(
      f'the partition has {len(partition.members)} members for {total} samples: most would be empty '
      f'and abstain; choose fewer.'
    )
  return rows, y


def _check_numbers(members, number):
  chosen = np.arange(number) if members is None else np.asarray(members)
  integers = np.issubdtype(chosen.dtype, np.integer) and chosen.ndim == 1 and chosen.size
  if not integers or not 0 <= chosen.min() <= chosen.max() < number:
    raise ValueError(
      f'`members` must be numbers of the {number} members, 0 .. {number - 1}, got {chosen}.'
    )
  return chosen.astype(np.int64)


def _at_least_one(name, number):
  if number != int(number) or number < 1:
    raise ValueError(f'`{name}` must be an integer of at least 1, got {number}.')
  return int(number)
