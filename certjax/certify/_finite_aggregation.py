"""Poisoned samples against members whose training sets overlap (finite aggregation).

Samples fall into kd buckets, and each bucket feeds d of the kd members, those at fixed shifts from
it: each member sees as much data as one of k would, and there are d times as many. One sample
rewrites d votes, but which d they are is known, and votes that are the rival's already cost the
adversary nothing to lose: the certificate counts them bucket by bucket (Wang, Levine & Feizi 2022).
With d = 1 it is `aggregate`.

No JAX here: votes are made on the device, proved on the host.
"""

import numpy as np

from certjax.certify._aggregation import blocks, check_votes, count_votes
from certjax.certify._certificate import Certificate
from certjax.certify._patch_votes import _lead, _proved, _winner


def finite_aggregation(votes, num_classes: int, *, shifts, bound: str = 'exact') -> Certificate:
  r"""The largest number of poisoned samples that cannot turn a vote of overlapping members.

  A sample of bucket h can turn each of the members S_h = {(h + s) mod M : s in shifts} into a vote
  for c:

    delta_h(c) = sum_{i in S_h} (1 + 1{vote_i = A} - 1{vote_i = c})
    radius     = min_{c != A} max {r : the r largest delta_h(c) sum to at most n_A - n_c - 1{c < A}}

  It is best possible where the buckets that it counts share no member, and always for r <= 1. Where
  they do, it counts the member twice and may give less than could be proved: that needs votes in
  rare patterns (a test has one; among thousands of random tables of up to 10 members there is
  none). The naive rule, floor(lead / (2 d)), is never above it.

  Votes of -1 are nobody's; such a member gives c one vote and takes none from A. The proof is the
  same. Votes must be in the order of the members, and `shifts` those that they were trained with.

  Args:
    votes: int[..., M], the class of each of the M = kd members, or -1.
    num_classes: K, at least 2.
    shifts: d different integers in [0, M), as `poisoning.draw_shifts`.
    bound: 'exact', the rule above; or 'naive'.

  Returns:
    A `Certificate` of the most voted class, the lowest of equals, and the largest certified number
    of samples (added or removed; see `aggregate`); `ABSTAIN` where all members do.

  Raises:
    ValueError: as `aggregate`; for `shifts` that repeat or lie outside [0, M); for another `bound`.

  Example:
    >>> finite_aggregation([0, 0, 0, 1, 0, 2, 0, 0, 1, 0], 3, shifts=(0, 3))
    Certificate(label=array(0), radius=array(1.))

  References:
    Wang, Levine & Feizi 2022 (arXiv:2202.02628).
  """
  if bound not in _BOUNDS:
    raise ValueError(f'`bound` must be one of {", ".join(_BOUNDS)}; got {bound!r}.')
  votes = check_votes(votes, num_classes)
  shifts = _check_shifts(shifts, votes.shape[-1])
  counts = count_votes(votes, num_classes)
  label = _winner(counts)
  return _proved(counts, label, _BOUNDS[bound](votes, counts, label, shifts))


def _naive(votes, counts, label, shifts):
  return _lead(counts, label) // (2 * len(shifts))


def _exact(votes, counts, label, shifts):
  members, num_classes = votes.shape[-1], counts.shape[-1]
  votes, counts = votes.reshape(-1, members), counts.reshape(-1, num_classes)
  own, radius = label.reshape(-1, 1), np.full(label.size, members, np.int64)
  for rows in blocks(len(votes), members):
    mine = votes[rows] == own[rows]
    for rival in range(num_classes):
      gains = _gains(mine, votes[rows] == rival, shifts)
      lead = np.take_along_axis(counts[rows], own[rows], 1)[:, 0] - counts[rows, rival]
      lead = lead - (rival < own[rows, 0])
      safe = _affordable(gains, lead, 2 * len(shifts))
      radius[rows] = np.where(rival == own[rows, 0], radius[rows], np.minimum(radius[rows], safe))
  return radius.reshape(label.shape)


def _gains(mine, theirs, shifts):
  """int32[N, M], how much a sample of each bucket can move the rival towards the label: delta_h."""
  # A vote's worth fits 8 bits, and the sum over a bucket too unless d is large: less to move.
  small = np.int8 if 2 * len(shifts) <= np.iinfo(np.int8).max else np.int32
  worth = 1 + mine.astype(small) - theirs.astype(small)
  return sum(np.roll(worth, -shift, axis=-1) for shift in shifts)


def _affordable(gains, lead, most):
  """int64[N], how many of the largest gains, all in [0, most], add up to at most the lead."""
  rows, width = np.arange(len(gains))[:, None], most + 1
  table = np.bincount((rows * width + gains).ravel(), minlength=len(gains) * width)
  table = table.reshape(len(gains), width)
  taken, going = np.zeros(len(gains), np.int64), np.ones(len(gains), bool)
  for gain in range(most, 0, -1):
    number = np.where(going, np.minimum(table[:, gain], lead // gain), 0)
    going &= number == table[:, gain]
    taken, lead = taken + number, lead - gain * number
  return np.where(going, gains.shape[-1], taken)


def _check_shifts(shifts, members):
  shifts = [int(shift) for shift in shifts]
  inside = all(0 <= shift < members for shift in shifts)
  if not shifts or not inside or len(set(shifts)) < len(shifts):
    raise ValueError(
      f'`shifts` must be different integers in [0, {members}), for {members} members, got '
      f'{shifts}; `poisoning.draw_shifts` makes them.'
    )
  return shifts


_BOUNDS = {'exact': _exact, 'naive': _naive}
