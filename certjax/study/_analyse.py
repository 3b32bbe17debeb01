"""From answers to perceptibility, and to how well each distance predicts it.

The perceptibility of an attack at a bound is the share of its pairs that participants call different, with
Wilson's interval. Workers who fail at the sentinels are left out before anything is counted.
"""

import numpy as np
from scipy import stats

from certjax.report import just_noticeable, two_alternatives

_FEWEST = 3  # Points: through two of them every correlation is 1.


def wilson(successes, trials, *, level=0.95):
  """Wilson's score interval of a share.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   p = successes / n

  Args:
    successes: int.
    trials: int, n, at least 1.
    level: confidence.

  Returns:
    (lower, upper), floats in [0, 1].

  Raises:
    ValueError: unless 0 <= successes <= trials, 1 <= trials and 0 < level < 1.

  Example:
    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]

  References:
    Wilson 1927, Journal of the American Statistical Association 22.
  """
  if not 0 <= successes <= trials or trials < 1 or not 0 < level < 1:
    raise ValueError(
      f'`successes` must lie in 0 .. `trials`, `trials` be 1 or more and `level` in (0, 1), got {successes}, '
      f'{trials}, {level}.'
    )
  p, z = successes / trials, stats.norm.isf((1 - level) / 2)
  middle = p + z * z / (2 * trials)
  half = z * np.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
  scale = 1 + z * z / trials
  lower = 0.0 if successes == 0 else (middle - half) / scale  # Exact ends, whatever is rounded.
  upper = 1.0 if successes == trials else (middle + half) / scale
  return float(lower), float(upper)


def answer_rows(answers, key) -> list:
  """Answers beside the truth, one row each.

  Args:
    answers: of `read_answers`.
    key: of `read_key`.

  Returns:
    A list of dicts: attack, bound (None but for adversarial pairs), pair, worker, batch, is_sentinel, truth_same,
    answer_same, milliseconds.

  Example:
    >>> truth = {'truth_same': False, 'is_sentinel': False, 'attack': 'pgd', 'bound': 0.1}
    >>> answer = {'pair': 'b1-p1', 'answer': 'same', 'milliseconds': 700}
    >>> (row,) = answer_rows([{'worker': 'W', 'batch': 1, 'answers': [answer]}], {'pairs': {'b1-p1': truth}})
    >>> row['attack'], row['truth_same'], row['answer_same']
    ('pgd', False, True)
  """
  rows = []
  for one in answers:
    for answer in one['answers']:
      truth = key['pairs'][answer['pair']]
      rows.append({
        'attack': truth.get('attack'), 'bound': truth.get('bound'), 'pair': answer['pair'],
        'worker': one['worker'], 'batch': one['batch'], 'is_sentinel': truth['is_sentinel'],
        'truth_same': truth['truth_same'], 'answer_same': answer['answer'] == 'same',
        'milliseconds': answer['milliseconds'],
      })  # fmt: skip
  return rows


def analyse(answers, key, *, threshold=0.75, level=0.95) -> dict:
  """What participants saw.

  Intervals take answers as independent, though answers of one worker, or to one pair, are not quite. Beyond the
  `max_batches` first batches of a worker, by number, nothing counts.

  Args:
    answers: of `read_answers`.
    key: of `read_key`.
    threshold: share of sentinels that a worker must get right, at least.
    level: confidence of the intervals.

  Returns:
    A dict: threshold, level, workers, dropped (a list: worker, sentinels, the share right), beyond (batches too
    many), false_alarms (identical pairs called different, no sentinels: answers, share, lower, upper; None
    without any), conditions (a list: attack, bound, unit, pairs, answers, perceptibility, lower, upper, unchanged,
    distances: their means over pairs), distances (name -> pearson and spearman of the mean distance and
    perceptibility over conditions, just_noticeable, two_alternatives over pairs; None where undefined).

  Raises:
    ValueError: for a `threshold` outside [0, 1], or where no worker or no adversarial pair is left.

  Example:
    >>> analyse([], {}, threshold=75)
    Traceback (most recent call last):
    ...
    ValueError: `threshold` must be a share in [0, 1], got 75.
  """
  if not 0 <= threshold <= 1:
    raise ValueError(f'`threshold` must be a share in [0, 1], got {threshold}.')
  counted = _within_limit(answers, key['settings']['max_batches'])
  rows = answer_rows(counted, key)
  scores = _sentinel_scores(rows)
  dropped = [worker for worker, score in scores.items() if score < threshold]
  rows = [row for row in rows if not row['is_sentinel'] and row['worker'] not in dropped]
  if not any(row['attack'] for row in rows):
    raise ValueError(
      f'`threshold`={threshold}: no worker with answers to adversarial pairs gets so many sentinels right; the '
      f'best has {max(scores.values()):.2f}.'
    )
  shares = _shares(rows)
  conditions = _conditions(rows, key['pairs'], level)
  return {
    'threshold': threshold, 'level': level, 'workers': len(scores) - len(dropped),
    'dropped': [{'worker': worker, 'sentinels': scores[worker]} for worker in dropped],
    'beyond': len(answers) - len(counted),
    'false_alarms': _share([row for row in rows if row['truth_same']], level),
    'conditions': conditions,
    'distances': {
      name: _scores(name, conditions, shares, key['pairs']) for name in conditions[0]['distances']
    },
  }  # fmt: skip


def _within_limit(answers, most):
  counts, kept = {}, []
  for one in answers:
    counts[one['worker']] = counts.get(one['worker'], 0) + 1
    if counts[one['worker']] <= most:
      kept.append(one)
  return kept


def _sentinel_scores(rows):
  """Worker -> share of sentinels that were answered right."""
  right = {}
  for row in rows:
    if row['is_sentinel']:
      right.setdefault(row['worker'], []).append(row['truth_same'] == row['answer_same'])
  return {worker: float(np.mean(values)) for worker, values in right.items()}


def _share(rows, level):
  """How many of these answers are "different"."""
  if not rows:
    return None
  different = sum(not row['answer_same'] for row in rows)
  lower, upper = wilson(different, len(rows), level=level)
  return {'answers': len(rows), 'share': different / len(rows), 'lower': lower, 'upper': upper}


def _conditions(rows, pairs, level):
  groups = {}
  for row in rows:
    if row['attack']:
      groups.setdefault((row['attack'], row['bound']), []).append(row)
  return [
    _condition(attack, bound, groups[attack, bound], pairs, level)
    for attack, bound in sorted(groups)
  ]


def _condition(attack, bound, rows, pairs, level):
  seen = [pairs[name] for name in sorted({row['pair'] for row in rows})]
  share = _share(rows, level) or {}  # Of no answers; a condition has some.
  means = {
    name: float(np.mean([pair['distances'][name] for pair in seen]))
    for name in seen[0]['distances']
  }
  return {
    'attack': attack, 'bound': bound, 'unit': seen[0]['unit'], 'pairs': len(seen),
    'answers': share['answers'], 'perceptibility': share['share'], 'lower': share['lower'],
    'upper': share['upper'], 'unchanged': sum(pair['unchanged'] for pair in seen),
    'distances': means,
  }  # fmt: skip


def _shares(rows):
  """Adversarial pair -> share of participants who called it different."""
  found = {}
  for row in rows:
    if row['attack']:
      found.setdefault(row['pair'], []).append(not row['answer_same'])
  return {name: float(np.mean(values)) for name, values in found.items()}


def _scores(name, conditions, shares, pairs):
  means = [condition['distances'][name] for condition in conditions]
  perceived = [condition['perceptibility'] for condition in conditions]
  distance = [pairs[pair]['distances'][name] for pair in shares]
  same = [1 - share for share in shares.values()]
  return {
    'pearson': _correlation(stats.pearsonr, means, perceived),
    'spearman': _correlation(stats.spearmanr, means, perceived),
    'just_noticeable': just_noticeable(distance, same) if any(same) else None,
    'two_alternatives': _two_alternatives(name, shares, pairs),
  }


def _correlation(measure, x, y):
  """None where it is undefined, or says nothing."""
  if len(x) < _FEWEST or len(set(x)) == 1 or len(set(y)) == 1:
    return None
  return float(measure(x, y).statistic)


def _two_alternatives(name, shares, pairs):
  """2AFC over each two adversarial images of one original.

  Nobody was asked which one is nearer. A judge who calls just one of the two different found the other
  one nearer, and else tosses a coin: with shares s0 and s1 the second one is preferred by (1 + s0 - s1) / 2.
  """
  groups = {}
  for pair in shares:
    groups.setdefault(pairs[pair]['index'], []).append(pair)
  duels = [(a, b) for group in groups.values() for i, a in enumerate(group) for b in group[i + 1 :]]
  if not duels:
    return None
  first, second = (
    [pairs[pair]['distances'][name] for pair in side] for side in zip(*duels, strict=True)
  )
  # Deviation: Zhang et al. ask people which of two distortions is nearer; this derives it from two answers.
  preferred = [(1 + shares[a] - shares[b]) / 2 for a, b in duels]
  return two_alternatives(first, second, preferred)
