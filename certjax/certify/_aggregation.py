"""How many poisoned training samples a vote of many members withstands.

The training set is dealt to M members by a rule that looks at one sample at a time (a hash of its
pixels), each member is trained on its part alone, deterministically, and all vote. A sample that is
added or removed changes one part, hence one vote: the proof is a matter of integers, whatever the
members are (deep partition aggregation, Levine & Feizi 2021).

No JAX here: votes are made on the device, proved on the host.
"""

import numpy as np

from certjax.certify._certificate import ABSTAIN, Certificate
from certjax.certify._patch_votes import _lead, _proved, _winner

_BLOCK = 2**22  # Votes looked at in one go, so that memory does not grow with the images.


def aggregate(votes, num_classes: int) -> Certificate:
  r"""The largest number of poisoned samples that cannot turn a vote of members trained apart.

    radius = floor( (n_A - max_{c != A} (n_c + 1{c < A})) / 2 ),   A the class of most votes,

  the lowest of equals. One sample rewrites one vote, which moves n_A - n_c by at most 2. It is the
  best possible rule: floor(lead / 2) + 1 members that vote for A and are made to vote for c turn
  the label.

  A vote of -1 is nobody's: of an empty part, or a member that failed. The rule stays sound and best
  possible, whatever an adversary can make abstain: a vote that is lost by A, or won by c from an
  abstaining member, moves n_A - n_c by 1 only, less than a vote for A that becomes one for c; and
  there are always enough of these, since lead <= n_A. So an abstaining member costs half of what a
  wrong one does.

  The unit is 'samples' of the symmetric difference of the training sets: an image replaced by
  another counts 2. Where parts do not depend on labels (`poisoning.pixel_sum`, `poisoning.blake2`),
  a sample that gets a wrong label stays where it is and counts 1. With parts from
  `poisoning.sorted_unlabelled` (SS-DPA) the unit is label flips alone: nothing is proved about
  samples added or removed.

  The largest certified number is returned. The authors' evaluation prints one more: it counts the
  numbers 0, 1, ..., radius.

  Args:
    votes: int[..., M], the class of each member, or -1.
    num_classes: K, at least 2.

  Returns:
    A `Certificate` of the most voted class; `ABSTAIN` where all members do.

  Raises:
    ValueError: if `votes` are no integers in [-1, K), or `num_classes` is below 2.

  Example:
    >>> aggregate([[0, 0, 0, 0, 1], [1, 1, 1, 1, 0], [-1, -1, 1, 1, 0]], 2)
    Certificate(label=array([0, 1, 1]), radius=array([1., 1., 0.]))

  References:
    Levine & Feizi 2021 (arXiv:2006.14768), theorems 1 and 2.
  """
  votes = check_votes(votes, num_classes)
  return aggregate_counts(count_votes(votes, num_classes))


def aggregate_counts(counts) -> Certificate:
  """`aggregate`, from the votes of each class.

  Args:
    counts: int[..., K], members that vote for each class; those that abstain are in none.

  Returns:
    A `Certificate`, as `aggregate`.

  Raises:
    ValueError: if `counts` are no integers at least 0, or of fewer than 2 classes.

  Example:
    >>> aggregate_counts([[6, 4, 0], [4, 6, 0], [600, 300, 300], [0, 0, 0]])
    Certificate(label=array([ 0,  1,  0, -1]), radius=array([  1.,   0., 150.,   0.]))
  """
  counts = np.asarray(counts)
  integers = np.issubdtype(counts.dtype, np.integer)
  if not integers or counts.ndim < 1 or counts.shape[-1] < 2 or (counts < 0).any():
    raise ValueError(
      f'`counts` must be integers >= 0, the votes of at least 2 classes in the last axis, got '
      f'{counts.dtype}{list(counts.shape)}; from the members use `aggregate`.'
    )
  counts = counts.astype(np.int64)
  label = _winner(counts)
  return _proved(counts, label, _lead(counts, label) // 2)


def check_votes(votes, num_classes):
  """Votes as an array of integers in [-1, num_classes).

  Raises:
    ValueError: as `aggregate`.

  Example:
    >>> check_votes([0, 2, -1], 3)
    array([ 0,  2, -1])
  """
  votes = np.asarray(votes)
  if num_classes < 2:
    raise ValueError(
      f'`num_classes` must be at least 2, got {num_classes}: one class has no rival.'
    )
  if not np.issubdtype(votes.dtype, np.integer) or votes.ndim < 1 or votes.shape[-1] < 1:
    raise ValueError(
      f'`votes` must be integers, the members in the last axis, got {votes.dtype}'
      f'{list(votes.shape)}: take the argmax of logits, and -1 where a member abstains.'
    )
  if votes.size and not (ABSTAIN <= votes.min() and votes.max() < num_classes):
    raise ValueError(
      f'`votes` must lie in [-1, {num_classes}), got values from {votes.min()} to {votes.max()}; '
      f'`num_classes`={num_classes}.'
    )
  return votes


def count_votes(votes, num_classes):
  """int64[..., K], the members that vote for each class.

  Example:
    >>> count_votes(np.array([[0, 2, 2, -1]]), 3)
    array([[1, 0, 2]])
  """
  flat = votes.reshape(-1, votes.shape[-1])
  counts = np.zeros((len(flat), num_classes), np.int64)
  for rows in blocks(len(flat), votes.shape[-1]):
    for label in range(num_classes):
      counts[rows, label] = np.count_nonzero(flat[rows] == label, axis=-1)
  return counts.reshape(*votes.shape[:-1], num_classes)


def blocks(rows, width):
  """Slices over rows, each of about 2^22 entries.

  Example:
    >>> [(rows.start, rows.stop) for rows in blocks(5, 2**21)]
    [(0, 2), (2, 4), (4, 6)]
  """
  step = max(1, _BLOCK // max(1, width))
  return [slice(start, start + step) for start in range(0, rows, step)]
