"""A search for few poisoned samples that turn the vote of an ensemble for one test image.

Of the members that a sample reaches it looks for one sample that moves their votes from the winner
to its rival, by really training them again. What it finds is an upper bound of the samples that an
adversary needs, where a certificate is a lower bound; the two may meet.
"""

import itertools
from typing import NamedTuple

import numpy as np

from certjax.certify import aggregate
from certjax.poisoning._attacks import checked_samples, generator
from certjax.poisoning._ensemble import votes

_STRENGTHS = (0, 1, 2, 4, 8, 16, 32)  # Grey levels by which copies of the image may differ from it.
_COPIES = 4  # Of each strength, for each member.


class Poisoned(NamedTuple):
  """What a search for few poisoned samples found.

  Attributes:
    x: uint8[N', ...], images of the poisoned training set.
    y: int32[N'], its labels.
    num_samples: int, samples added, removed or wrongly labelled: one each.
    label: int, what the members, trained on it, answer for the test image.
  """

  x: np.ndarray
  y: np.ndarray
  num_samples: int
  label: int


class _Move(NamedTuple):
  """One poisoned sample, and the members that see it."""

  kind: str
  touched: tuple
  index: int
  image: np.ndarray | None = None


class _Tried(NamedTuple):
  """What a move gains for the rival, and the votes of the touched members after it."""

  gain: int
  move: _Move | None
  votes: np.ndarray | None


_NOTHING = _Tried(0, None, None)


def greedy_attack(
  key, train, deal, x, y, image, *, num_classes: int, moves=('insert', 'flip', 'remove'),
  rival=None, budget=None, num_candidates: int = 8, chunk: int = 500,
) -> Poisoned:  # fmt: skip
  """Looks for few poisoned samples that turn a vote of members, for one test image.

  A sample moves the votes of the members that it reaches by at most

    sum_i (1 + 1{vote_i = A} - 1{vote_i = c}),   A the winner, c the rival,

  and those where this is largest come first. For each of them candidates are tried until one moves
  all of that: a copy of the test image with the rival's label, its pixels changed by few grey
  levels until it falls to these members; the label of the nearest sample set to the rival's; the
  nearest sample removed. Candidates are judged by training the members again, those of many members
  at once. Of the moves that were found, the best are taken until the label turns. No two of them
  share a member, so that what each does alone they do together.

  Args:
    key: of the adversary's choices. It knows the ensemble's own key, which is in `train`.
    train: `(x, y, partition, members=) -> Ensemble`, as `functools.partial(train_ensemble, key,
      learner, capacity=, group=)`.
    deal: `(x, y) -> Partition`, where a sample's members depend on that sample alone, as `lambda x,
      y: partition(x, y, pixel_sum(x, k), k)`. With `moves=('flip',)` on its labels it need not
      depend: `sorted_unlabelled`.
    x: uint8[N, ...], training images.
    y: int[N], labels in [0, K).
    image: uint8[...], the test image.
    num_classes: K.
    moves: of 'insert', 'flip', 'remove'.
    rival: class that is to win, default the one with the second most votes.
    budget: most samples to take, default as many as it needs.
    num_candidates: of each kind, for each member.
    chunk: as `votes`.

  Returns:
    A `Poisoned`. Its label is the old one where the search was in vain; within a `budget` it is the
    set that comes closest to turning it.

  Raises:
    ValueError: for unknown `moves`, a `rival` that is the winner or no class, an image of another
      shape, and samples as `flip_labels`.

  Example:
    >>> import functools, jax
    >>> from certjax.poisoning import nearest_neighbour, partition, pixel_sum, train_ensemble
    >>> x, y = np.arange(60, dtype=np.uint8).reshape(20, 3), np.arange(20) // 18
    >>> deal = lambda x, y: partition(x, y, pixel_sum(x, 5), 5)
    >>> learner = nearest_neighbour(2)
    >>> train = functools.partial(train_ensemble, jax.random.key(0), learner, capacity=8, group=5)
    >>> found = greedy_attack(jax.random.key(1), train, deal, x, y, x[10], num_classes=2)
    >>> found.num_samples, found.label
    (3, 1)
  """
  x, y = checked_samples(x, y, num_classes, rival)
  image, moves = _check_image(image, x), _check_moves(moves)
  partition = deal(x, y)
  answer = lambda ensemble: votes(ensemble, image[None], chunk=chunk)[0]
  before = answer(train(x, y, partition))
  winner, rival = _sides(before, num_classes, rival)
  made = {
    'insert': lambda: _copies(generator(key), deal, image, rival, len(partition.members)),
    'flip': lambda: _nearest('flip', partition, x, y, image, rival),
    'remove': lambda: _nearest('remove', partition, x, y, image, rival),
  }
  pool = _pool([made[kind]() for kind in moves], num_candidates)
  best = _search(
    pool, before, winner, rival, lambda tried: _answers(tried, train, deal, x, y, rival, answer)
  )
  now, chosen = _taken(best, before, num_classes, winner, budget)
  return Poisoned(*_applied(x, y, chosen, rival), len(chosen), _label(now, num_classes))


def _search(pool, before, winner, rival, answers):
  """touched members -> the best of their moves; each turn tries the next of each."""
  worth = lambda now: np.sum(1 * (now == rival) - (now == winner))
  start = {touched: worth(before[list(touched)]) for touched in pool}
  best = dict.fromkeys(pool, _NOTHING)
  for turn in range(max(map(len, pool.values()), default=0)):
    going = [
      touched
      for touched, moves in pool.items()
      if turn < len(moves) and best[touched].gain < len(touched) - start[touched]
    ]
    for batch in _apart(going):
      tried = [pool[touched][turn] for touched in batch]
      for move, after in zip(tried, answers(tried), strict=True):
        gain = int(worth(after) - start[move.touched])
        if gain > best[move.touched].gain:
          best[move.touched] = _Tried(gain, move, after)
  return best


def _answers(moves, train, deal, x, y, rival, answer):
  """The votes of the members that each move touches, after all moves; they share no member."""
  poisoned = _applied(x, y, moves, rival)
  members = [member for move in moves for member in move.touched]
  after = answer(train(*poisoned, deal(*poisoned), members=np.array(members)))
  edges = np.cumsum([len(move.touched) for move in moves])[:-1]
  return np.split(after, edges)


def _taken(best, before, num_classes, winner, budget):
  """Votes after the best moves that share no member, as few as turn the label, and these moves."""
  now, chosen = before.copy(), []
  found = sorted(best.values(), key=lambda tried: -tried.gain)
  for gain, move, after in found:
    full = budget is not None and len(chosen) >= budget
    if full or gain <= 0 or _label(now, num_classes) != winner:
      break
    if all(set(move.touched).isdisjoint(other.touched) for other in chosen):
      chosen.append(move)
      now[list(move.touched)] = after
  return now, chosen


def _pool(kinds, num_candidates):
  """touched members -> their moves, the most promising of each kind first."""
  pool = {}
  for touched in dict.fromkeys(itertools.chain(*kinds)):
    lists = [moves.get(touched, [])[:num_candidates] for moves in kinds]
    pool[touched] = [move for turn in itertools.zip_longest(*lists) for move in turn if move]
  return pool


def _copies(rng, deal, image, rival, num_members):
  """touched members -> images like the test image that fall to them, the most alike first."""
  found = {}
  for strength in _STRENGTHS:
    number = _COPIES * num_members if strength else 1
    noise = rng.integers(-strength, strength + 1, (number, *image.shape), dtype=np.int16)
    images = np.clip(image + noise, 0, 255).astype(np.uint8)
    dealt = deal(images, np.full(number, rival, np.int32))
    for each, touched in zip(images, _holders(dealt, number), strict=True):
      found.setdefault(touched, []).append(_Move('insert', touched, -1, each))
  return found


def _nearest(kind, partition, x, y, image, rival):
  """touched members -> their samples with other labels than the rival's, nearest first."""
  away = np.square(x.astype(np.float32) - image.astype(np.float32))
  found, holders = {}, _holders(partition, len(x))
  for i in np.argsort(away.reshape(len(x), -1).sum(axis=1), kind='stable'):
    if y[i] != rival:
      found.setdefault(holders[i], []).append(_Move(kind, holders[i], int(i)))
  return found


def _holders(partition, number):
  """The members that see each sample."""
  holders = [() for _ in range(number)]
  for member, part in enumerate(partition.members):
    for i in part:
      holders[i] += (member,)
  return holders


def _apart(groups):
  """Groups of members, split so that within a batch no two share a member."""
  batches = []
  for group in groups:
    for _, used in batches:
      if used.isdisjoint(group):
        break
    else:
      batch, used = [], set()
      batches.append((batch, used))
    batch.append(group)
    used.update(group)
  return [batch for batch, _ in batches]


def _applied(x, y, moves, rival):
  """The training set after some moves."""
  y = y.copy()
  y[[move.index for move in moves if move.kind == 'flip']] = rival
  removed = [move.index for move in moves if move.kind == 'remove']
  added = [move.image for move in moves if move.kind == 'insert']
  x, y = np.delete(x, removed, axis=0), np.delete(y, removed)
  if not added:
    return x, y
  return np.concatenate([x, np.stack(added)]), np.append(y, np.full(len(added), rival, np.int32))


def _label(votes, num_classes):
  return int(aggregate(votes, num_classes).label)


def _sides(before, num_classes, rival):
  """The winner of a vote, and its rival."""
  winner = _label(before, num_classes)
  if winner < 0:
    raise ValueError('all members abstain: there is no label to turn; choose fewer members.')
  counts = np.bincount(before[before >= 0], minlength=num_classes)
  counts[winner] = -1
  rival = int(np.argmax(counts)) if rival is None else int(rival)
  if rival == winner:
    raise ValueError(f'`rival` must be another class than the winner {winner}, got {rival}.')
  return winner, rival


def _check_image(image, x):
  image = np.asarray(image)
  if image.dtype != np.uint8 or image.shape != x.shape[1:]:
    raise ValueError(
      f'`image` must be one uint8 image {list(x.shape[1:])} as those of training, got '
      f'{image.dtype}{list(image.shape)}.'
    )
  return image


def _check_moves(moves):
  known = ('insert', 'flip', 'remove')
  if isinstance(moves, str) or not moves or not set(moves) <= set(known):
    raise ValueError(f'`moves` must be some of {", ".join(known)}, got {moves!r}.')
  return tuple(dict.fromkeys(moves))
