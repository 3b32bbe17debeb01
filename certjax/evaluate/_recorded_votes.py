"""What the votes that records hold prove under another bound, and what PREDICT answers on them."""

import numpy as np

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


def recertified(lines, law, *, num_samples: int, alpha: float) -> certify.Certificate:
  """The certificates that another bound makes of the same votes.

  The bound must be of the noise that the votes were drawn under: only what is proved of them changes.

  Args:
    lines: records of `certified_records`, by the class that was selected alone (no `runner_up`).
    law: a `Smoothing`.
    num_samples, alpha: of the records.

  Returns:
    A `certify.Certificate` of arrays [N]; it abstains where nothing is proved.

  Example:
    >>> from certjax import smoothing
    >>> line = {'candidate': 3, 'count': 90}
    >>> proof = recertified([line], smoothing.gaussian(sigma=1.0), num_samples=100, alpha=0.05)
    >>> int(proof.label[0]), round(float(proof.radius[0]), 2)
    (3, 0.98)
  """
  candidate, count = (np.array([line[name] for line in lines]) for name in ('candidate', 'count'))
  first = np.zeros(len(lines), int)
  proof = certify.from_votes(law, first, count[:, None], num_samples=num_samples, alpha=alpha)
  return certify.certificate(
    np.where(proof.label == certify.ABSTAIN, certify.ABSTAIN, candidate), proof.radius
  )
