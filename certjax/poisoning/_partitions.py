"""Which training samples each member of an ensemble sees, so that one poisoned sample reaches few.

The proof of partition aggregation needs three things of a partition, and nothing of the data. A
sample's place depends on that sample alone (a hash of its pixels): one that is added or removed
changes one part. A part's order depends on the part's contents alone: else training, which sees the
order, could change elsewhere. And the member that is trained on part i is a function of that
ordered part and of i: its key is `jax.random.fold_in(key, i)`. Labels play no part in the place, so
a wrong label moves nothing (Levine & Feizi 2021; d overlapping parts: Wang, Levine & Feizi 2022).

No JAX here.
"""

import hashlib
import math
import numbers
from typing import NamedTuple

import numpy as np

_DIGEST = 8  # Bytes of a hash: its remainder by 10^6 is uniform up to 1e-13.


class Partition(NamedTuple):
  """The training samples of each member of an ensemble.

  Attributes:
    members: tuple of int64[...], for each member the samples' positions in the training set, in the
      order in which it sees them. Train member i with `jax.random.fold_in(key, i)`,
      deterministically, and normalise with statistics of its own part alone.
  """

  members: tuple

  @property
  def sizes(self):
    """int64[M], samples of each member."""
    return np.array([len(member) for member in self.members], np.int64)

  def silence_empty(self, votes):
    """Votes in which the members without samples abstain.

    A member that has nothing to learn from is a function of its (empty) part like any other,
    whatever it answers; -1 takes no side.

    Args:
      votes: int[..., M], a class for each member.

    Returns:
      int[..., M], with -1 where the member is empty.

    Raises:
      ValueError: if `votes` has another number of members.

    Example:
      >>> Partition((np.array([0]), np.array([], int))).silence_empty([[3, 4]])
      array([[ 3, -1]])
    """
    votes = np.asarray(votes)
    if votes.shape[-1:] != (len(self.members),):
      raise ValueError(
        f'`votes` must have the {len(self.members)} members in their last axis, got shape '
        f'{votes.shape}.'
      )
    return np.where(self.sizes == 0, np.int8(-1), votes)


def pixel_sum(x, num_buckets: int):
  """A bucket of each image: the sum of its integer pixels modulo the number of buckets.

  Args:
    x: uint8[N, ...], images as decoded (before resizing or normalising). Sums of floats depend on
      the order and, in [0, 1], hardly differ: no hash.
    num_buckets: k, or kd for finite aggregation.

  Returns:
    int64[N], buckets in [0, num_buckets).

  Raises:
    ValueError: if `x` is not uint8, or `num_buckets` below 1.

  Example:
    >>> pixel_sum(np.array([[[250, 251]], [[0, 3]]], np.uint8), 100)
    array([1, 3])

  References:
    Levine & Feizi 2021 (arXiv:2006.14768).
  """
  rows = _rows(x)
  return rows.sum(axis=1, dtype=np.int64) % _check_number('num_buckets', num_buckets)


def blake2(x, num_buckets: int):
  """A bucket of each image: BLAKE2b of its bytes modulo the number of buckets.

  Images that look alike, or are of one class, fall anywhere. With `pixel_sum` some parts may see
  more of one class.

  Args:
    x: uint8[N, ...], images as decoded.
    num_buckets: k, or kd for finite aggregation.

  Returns:
    int64[N], buckets in [0, num_buckets); the same everywhere and in all versions.

  Raises:
    ValueError: as `pixel_sum`.

  Example:
    >>> blake2(np.arange(4, dtype=np.uint8)[:, None], 10)
    array([6, 6, 5, 2])

  References:
    Saarinen & Aumasson 2015, RFC 7693.
  """
  number = _check_number('num_buckets', num_buckets)
  return np.array([_digest(row.tobytes()) % number for row in _rows(x)], np.int64)


def partition(x, y, buckets, num_members: int, *, shifts=(0,)) -> Partition:
  """Deals training samples to members by their buckets, each member in the order of its contents.

    member i holds the samples of bucket h with i = (h + s) mod num_members, s in shifts,

  sorted by label, then pixels; equal samples are alike, so that their order shows nothing.

  Args:
    x: uint8[N, ...], images.
    y: int[N], labels.
    buckets: int[N], as `pixel_sum` or `blake2` with `num_members` buckets.
    num_members: k; or kd for finite aggregation.
    shifts: (0,), each sample to one member; for finite aggregation those of `draw_shifts`.

  Returns:
    A `Partition`. Members may be empty: see `Partition.silence_empty`.

  Raises:
    ValueError: if `x` is not uint8, `y` no integers, shapes differ, `buckets` lie outside
      [0, num_members), or `shifts` repeat or lie outside.

  Example:
    >>> x, y = np.array([[7], [2], [5]], np.uint8), np.array([1, 1, 0])
    >>> partition(x, y, pixel_sum(x, 2), 2).members
    (array([1]), array([2, 0]))
  """
  rows, number = _rows(x), _check_number('num_members', num_members)
  y, buckets = _check_integers(len(rows), y=y, buckets=buckets)
  shifts = [int(shift) for shift in shifts]
  _check_inside(number, buckets, shifts)
  order = np.array(sorted(range(len(rows)), key=lambda i: (y[i], rows[i].tobytes())), np.int64)
  # Deviation: pixels are compared from the first on; the authors' code begins at the last.
  # One sort of all samples: a member's share of it is in the order of the member's own contents.
  places = (buckets[order][:, None] + np.array(shifts, np.int64)) % number
  return Partition(_deal(np.repeat(order, len(shifts)), places.ravel(), number))


def sorted_unlabelled(x, num_members: int) -> Partition:
  """Parts against label flips alone: of the images sorted by pixels, member i gets i, i + k, ...

  Labels change nothing, not even the order: a flipped label reaches one member. Unlike with
  `partition`, an added image moves the others, so that nothing is proved about it; and as images
  are trusted, members may learn from all of them without labels (SS-DPA).

  Args:
    x: uint8[N, ...], images, no two alike.
    num_members: k.

  Returns:
    A `Partition`.

  Raises:
    ValueError: if `x` is not uint8, or holds an image twice (their labels could be swapped unseen).

  Example:
    >>> sorted_unlabelled(np.array([[7], [2], [5]], np.uint8), 2).members
    (array([1, 0]), array([2]))

  References:
    Levine & Feizi 2021 (arXiv:2006.14768), section SS-DPA.
  """
  rows, number = _rows(x), _check_number('num_members', num_members)
  pixels = [row.tobytes() for row in rows]
  order = sorted(range(len(rows)), key=pixels.__getitem__)
  twins = [(i, j) for i, j in zip(order, order[1:], strict=False) if pixels[i] == pixels[j]]
  if twins:
    raise ValueError(
      f'`x` must hold each image once, but {len(twins)} pairs are equal, first those at positions '
      f'{", ".join(map(str, twins[:5]))}: drop one of each.'
    )
  order = np.array(order, np.int64)
  return Partition(tuple(order[i::number] for i in range(number)))


def by_position(num_samples: int, num_members: int) -> Partition:
  """The partition that proves nothing: by the position in the training set, i modulo k.

  One sample inserted at the front moves all others to another member: `certify.aggregate` does not
  hold. It is here to be compared with.

  Args:
    num_samples: N.
    num_members: k.

  Returns:
    A `Partition`.

  Example:
    >>> by_position(5, 2).members
    (array([0, 2, 4]), array([1, 3]))
  """
  number = _check_number('num_members', num_members)
  return Partition(tuple(np.arange(i, num_samples, number) for i in range(number)))


def draw_shifts(num_members: int, spread: int, *, seed: int = 0) -> tuple:
  """Which members a bucket feeds in finite aggregation: `spread` shifts of a seeded permutation.

  The first is 0: turning all shifts only renames members, and a spread of 1 is plain partition
  aggregation. Training and `certify.finite_aggregation` must use the same ones: keep them with the
  models.

  Args:
    num_members: kd.
    spread: d, members of each sample.
    seed: of the permutation, the same everywhere and in all versions.

  Returns:
    Tuple of d different integers in [0, num_members).

  Raises:
    ValueError: if `spread` is outside [1, num_members].

  Example:
    >>> draw_shifts(100, 4)
    (0, 2, 36, 59)

  References:
    Wang, Levine & Feizi 2022 (arXiv:2202.02628).
  """
  number = _check_number('num_members', num_members)
  if not 1 <= spread <= number:
    raise ValueError(f'`spread` must lie in [1, num_members={number}], got spread={spread}.')
  # Deviation: no generator of a library, whose stream may change between training and proof.
  ranks = sorted(range(number), key=lambda i: (_digest(f'shift {seed} {i}'.encode()), i))
  return tuple((shift - ranks[0]) % number for shift in ranks[:spread])


def _digest(data):
  return int.from_bytes(hashlib.blake2b(data, digest_size=_DIGEST).digest(), 'little')


def _deal(samples, places, number):
  """The samples of each place, in the order in which they come."""
  order = np.argsort(places, kind='stable')
  edges = np.searchsorted(places[order], np.arange(1, number))
  return tuple(np.split(samples[order], edges))


def _rows(x):
  x = np.asarray(x)
  if x.dtype != np.uint8 or x.ndim < 2:
    raise ValueError(
      f'`x` must be uint8 images [N, ...] as decoded, got {x.dtype}{list(x.shape)}: for '
      f'images in [0, 1], `np.rint(255 * x).astype(np.uint8)`.'
    )
  return np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:]))


def _check_number(name, number):
  if not isinstance(number, numbers.Integral) or number < 1:
    raise ValueError(f'`{name}` must be an integer of at least 1, got {name}={number}.')
  return int(number)


def _check_integers(length, **arrays):
  arrays = {name: np.asarray(array) for name, array in arrays.items()}
  for name, array in arrays.items():
    if not np.issubdtype(array.dtype, np.integer) or array.shape != (length,):
      raise ValueError(
        f'`{name}` must be integers, one of each of the {length} images, got {array.dtype}'
        f'{list(array.shape)}.'
      )
  return arrays.values()


def _check_inside(number, buckets, shifts):
  if len(buckets) and not 0 <= buckets.min() <= buckets.max() < number:
    raise ValueError(
      f'`buckets` must lie in [0, num_members={number}), got {buckets.min()} to {buckets.max()}: '
      f'make them with num_buckets={number}.'
    )
  if not shifts or len(set(shifts)) < len(shifts) or not all(0 <= s < number for s in shifts):
    raise ValueError(
      f'`shifts` must be different integers in [0, num_members={number}), got {shifts}; '
      f'see `draw_shifts`.'
    )
