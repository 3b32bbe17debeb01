"""Poisoned samples against an election in two rounds (run-off election).

Members vote with their first choice; then all of them choose between the two leaders, so that no
vote for a hopeless class is lost. A poisoned sample rewrites all scores of one member. To turn the
label an adversary must push it out of the first round, or make a rival reach the second round and
win there; each has a price in members, and the cheapest bounds the certificate (Rezaei, Banihashem,
Chegini & Feizi 2023).

No JAX here: scores are made on the device, proved on the host.
"""

import numpy as np

from certjax.certify._aggregation import blocks
from certjax.certify._certificate import Certificate
from certjax.certify._patch_votes import _proved

_FREE = np.iinfo(np.int64).max // 4  # More than any price.


def run_off_election(scores) -> Certificate:
  r"""The label of a run-off election between members, and the poisoned samples that it withstands.

    round 1: the two classes with most first choices
    round 2: of these, the one that more members prefer

  Of equals the lower class is chosen, in each round and by each member. With n the first choices, A
  the elected, B the other of the second round, and n(A > c) the members that prefer A to c, the
  prices are

    out of round 1:   dp(g, g'), g and g' the two smallest of   n_A - n_c + 1{A < c},   c != A
    won by c:         max( ceil((n_B - n_c + 1{B < c}) / 2),
                           ceil((n(A > c) - n(c > A) + 1{A < c}) / 2) )
    dp(g, g')       = max( ceil(g / 2), ceil(g' / 2), ceil((g + g') / 3) ),   g, g' >= 0,

  and radius = min(prices) - 1, the largest certified number (the authors' evaluation prints one
  more, see `aggregate`). Sound, and nearly best possible: both rounds are priced apart, as if the
  same members could always serve in both. A test compares it with all rewritings of all small
  electorates.

  A member with a NaN score abstains from both rounds. It only makes an adversary's moves weaker.

  Args:
    scores: float[..., M, K], logits of each member, K at least 2; -inf and inf may occur. Votes
      alone do not suffice: use `aggregate`.

  Returns:
    A `Certificate`, radius in samples (as `aggregate`); `ABSTAIN` where all members abstain.

  Raises:
    ValueError: if `scores` are no floats of at least one member and two classes.

  Example:
    >>> first, second, third = [3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0]
    >>> run_off_election([[first] * 4 + [second] * 3 + [third] * 2, [first] * 7 + [third] * 2])
    Certificate(label=array([1, 0]), radius=array([0., 2.]))

  References:
    Rezaei, Banihashem, Chegini & Feizi 2023 (arXiv:2302.02300).
  """
  scores = np.asarray(scores)
  if not np.issubdtype(scores.dtype, np.floating) or scores.ndim < 2 or 0 in scores.shape[-2:]:
    raise ValueError(
      f'`scores` must be floats [..., members, classes], got {scores.dtype}{list(scores.shape)}; '
      f'a vote without scores is proved by `aggregate`.'
    )
  members, num_classes = scores.shape[-2:]
  if num_classes < 2:
    raise ValueError(
      f'`scores` must have at least 2 classes, got {num_classes}: no rival, no election.'
    )
  flat = scores.reshape(-1, members, num_classes)
  parts = [_election(flat[rows]) for rows in blocks(len(flat), members * num_classes)]
  empty = [np.zeros(0, np.int64)] * 3
  label, price, voters = (
    np.concatenate(part).reshape(scores.shape[:-2]) for part in zip(*parts or [empty], strict=True)
  )
  return _proved(voters[..., None], label, price - 1)


def run_off_budget(first, second):
  """dp(g, g'): votes that must change for two rivals to overtake a class in the first round.

  A vote that moves from the class to one of them gains 2 on the class for that one and 1 for the
  other.

  Args:
    first: int[...], gap g to one rival; a negative one counts 0.
    second: int[...], gap g' to the other.

  Returns:
    int64[...], the least number of changed votes, with votes enough to change.

  Example:
    >>> run_off_budget([0, 1, 3, 0, 10, 20], [1, 1, 3, 10, 10, 5])
    array([ 1,  1,  2,  5,  7, 10])
  """
  first, second = (np.maximum(np.asarray(gap, np.int64), 0) for gap in (first, second))
  return np.maximum.reduce([-(-first // 2), -(-second // 2), -(-(first + second) // 3)])


def _election(scores):
  """Label, price of turning it, and number of voters, each int64[N]."""
  speaks = ~np.isnan(scores).any(axis=-1)
  choice = np.where(speaks, np.argmax(scores, axis=-1), -1)
  classes = np.arange(scores.shape[-1])
  counts = np.stack([np.count_nonzero(choice == c, axis=-1) for c in classes], axis=-1)
  leaders = np.argsort(-counts, axis=-1, kind='stable')[:, :2]
  ahead = _preference(scores, speaks, leaders[:, 0])
  margin = np.take_along_axis(ahead, leaders[:, 1:], 1)[:, 0]
  wins = margin >= (leaders[:, 0] > leaders[:, 1])
  label, other = np.where(wins[:, None], leaders, leaders[:, ::-1]).T
  label, other = label[:, None], other[:, None]
  lead = np.where(wins[:, None], ahead, _preference(scores, speaks, label[:, 0]))
  price = np.minimum(_out(counts, classes, label), _beaten(counts, classes, label, other, lead))
  return label[:, 0], price, speaks.sum(axis=-1)


def _preference(scores, speaks, label):
  """int64[N, K], members that prefer the label to each class, less those that prefer the class."""
  own = np.take_along_axis(scores, label[:, None, None], axis=-1)
  # Deviation: a member with equal scores prefers the lower class; theirs the one that comes second.
  lower = label[:, None, None] < np.arange(scores.shape[-1])
  prefers = ((own > scores) | ((own == scores) & lower)) & speaks[..., None]
  return 2 * np.count_nonzero(prefers, axis=1) - np.count_nonzero(speaks, axis=-1)[:, None]


def _out(counts, classes, label):
  """The price of pushing the label out of the first round; free of two classes, none."""
  if len(classes) < 3:
    return np.full(len(counts), _FREE)
  gaps = np.take_along_axis(counts, label, 1) - counts + (label < classes)
  # The price grows with both gaps, so that the two nearest rivals are the cheapest pair.
  gaps = np.sort(np.where(classes == label, _FREE, gaps), axis=-1)
  return run_off_budget(gaps[:, 0], gaps[:, 1])


def _beaten(counts, classes, label, other, lead):
  """The price of the cheapest rival that reaches the second round and wins it."""
  reach = np.take_along_axis(counts, other, 1) - counts + (other < classes)
  price = np.maximum(-(-reach // 2), -(-(lead + (label < classes)) // 2))
  return np.where(classes == label, _FREE, price).min(axis=-1)
