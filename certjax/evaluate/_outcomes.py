"""What PREDICT answers on the samples of a certificate."""

from certjax import certify


def outcome_of(record, *, alpha: float) -> str:
  """PREDICT's outcome on the N samples of a record, instead of as many new ones.

  The class that was selected answers where the two-sided binomial test of the two largest counts
  rejects a tie. A class that was not selected and wins counts as wrong, whatever it is.

  Args:
    record: of `certified_records`.
    alpha: failure probability of the answer.

  Returns:
    'correct', 'wrong' or 'abstained'.

  Example:
    >>> record = {'label': 3, 'candidate': 3, 'count': 80, 'runner_up_count': 20}
    >>> outcome_of(record, alpha=0.05), outcome_of({**record, 'label': 1}, alpha=0.05)
    ('correct', 'wrong')

  References:
    PREDICT of Cohen et al. 2019 (arXiv:1902.02918).
  """
  winner = int(certify.label_from_votes([record['count'], record['runner_up_count']], alpha=alpha))
  if winner == certify.ABSTAIN:
    return 'abstained'
  return 'correct' if winner == 0 and record['candidate'] == record['label'] else 'wrong'
