"""Perceptibility, intervals and correlations, against scipy and by hand."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from certjax import report, study

# attack, bound -> mean distance; what each of two honest workers calls different (shares .25, .5, 1).
CONDITIONS = {('a', 1.0): 0.1, ('a', 2.0): 0.2, ('b', 1.0): 0.4}


@pytest.mark.parametrize(('successes', 'trials'), [(0, 5), (5, 5), (1, 3), (27, 50), (999, 1000)])
@pytest.mark.parametrize('level', [0.9, 0.95])
def test_wilson_is_scipy(successes, trials, level):
  expected = stats.binomtest(successes, trials).proportion_ci(level, method='wilson')
  assert study.wilson(successes, trials, level=level) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('arguments', [(-1, 2, 0.9), (3, 2, 0.9), (0, 0, 0.9), (1, 2, 1.0)])
def test_wilson_refuses(arguments):
  with pytest.raises(ValueError):
    study.wilson(*arguments[:2], level=arguments[2])


@pytest.fixture
def key():
  """One batch: two images under each of three conditions, two identical pairs, two sentinels."""
  pairs = {}
  for number, ((attack, bound), distance) in enumerate(CONDITIONS.items()):
    for image in range(2):
      pairs[f'001-{2 * number + image:02}'] = {
        'truth_same': False, 'is_sentinel': False, 'attack': attack, 'bound': bound, 'unit': 'u', 'index': image,
        'first': 'original', 'unchanged': False, 'distances': {'d': distance + 0.01 * image, 'flat': 1.0},
      }  # fmt: skip
  for place, truth in enumerate([(True, False), (True, False), (True, True), (False, True)]):
    pairs[f'001-{6 + place:02}'] = {'truth_same': truth[0], 'is_sentinel': truth[1]}
  return {'settings': {'batches': [list(pairs)], 'max_batches': 20}, 'pairs': pairs}


def answers(key, worker, seen):
  """A worker who calls these places different."""
  return {
    'worker': worker, 'batch': 1,
    'answers': [
      {'pair': name, 'answer': 'different' if place in seen else 'same', 'milliseconds': 1}
      for place, name in enumerate(key['pairs'])
    ],
  }  # fmt: skip


@pytest.fixture
def told(key):
  """Two honest workers, one who says "different" to all, one "same" to all."""
  return [
    answers(key, 'first', {1, 2, 4, 5, 9}), answers(key, 'second', {2, 4, 5, 6, 9}),
    answers(key, 'always', set(range(10))), answers(key, 'never', set()),
  ]  # fmt: skip


def test_perceptibility_by_hand(key, told):
  summary = study.analyse(told, key)
  assert summary['workers'] == 2
  assert summary['dropped'] == [
    {'worker': 'always', 'sentinels': 0.5},
    {'worker': 'never', 'sentinels': 0.5},
  ]
  found = {(row['attack'], row['bound']): row for row in summary['conditions']}
  assert [found[name]['perceptibility'] for name in CONDITIONS] == [0.25, 0.5, 1.0]
  for name, distance in CONDITIONS.items():
    row = found[name]
    assert (row['pairs'], row['answers'], row['unchanged']) == (2, 4, 0)
    assert (row['lower'], row['upper']) == study.wilson(round(4 * row['perceptibility']), 4)
    assert row['distances'] == pytest.approx({'d': distance + 0.005, 'flat': 1.0})
  assert summary['false_alarms']['share'] == 0.25 and summary['false_alarms']['answers'] == 4


def test_scores_of_distances(key, told):
  scores = study.analyse(told, key)['distances']
  x, y = [0.105, 0.205, 0.405], [0.25, 0.5, 1.0]
  assert scores['d']['pearson'] == pytest.approx(np.corrcoef(x, y)[0, 1])
  assert scores['d']['spearman'] == pytest.approx(1.0)
  shares = np.array([0, 0.5, 1, 0, 1, 1])
  distance = [0.1, 0.11, 0.2, 0.21, 0.4, 0.41]
  assert scores['d']['just_noticeable'] == report.just_noticeable(distance, 1 - shares)
  # Image 0: shares 0, 1, 1; image 1: .5, 0, 1. The larger distance wins with (1 + difference) / 2.
  duels = [1, 1, 0.5, 0.25, 0.75, 1]
  assert scores['d']['two_alternatives'] == pytest.approx(np.mean(duels))
  assert scores['flat']['pearson'] is None and scores['flat']['spearman'] is None
  assert scores['flat']['two_alternatives'] == 0.5


def test_two_points_have_no_correlation(key, told):
  for name in list(key['pairs'])[4:6]:
    key['pairs'][name] = {'truth_same': True, 'is_sentinel': False}
  scores = study.analyse(told, key)['distances']['d']
  assert scores['pearson'] is None and scores['two_alternatives'] is not None


def test_nobody_is_left(key, told):
  with pytest.raises(ValueError, match=r'`threshold`=0.75: no worker.*0.50'):
    study.analyse(told[2:], key)
  with pytest.raises(ValueError, match='`threshold` must be a share'):
    study.analyse(told, key, threshold=75)
  assert study.analyse(told, key, threshold=0.5)['workers'] == 4


def test_batches_beyond_the_last_do_not_count(key, told):
  key['settings']['max_batches'] = 1
  again = told[0] | {'batch': 2}
  summary = study.analyse([*told, again], key)
  assert summary['beyond'] == 1
  assert summary['conditions'] == study.analyse(told, key)['conditions']


def test_files(key, told, tmp_path):
  summary = study.analyse(told, key)
  text = study.write_study(summary, study.answer_rows(told, key), tmp_path)
  assert '| a | 1 (u) | 2 | 4 | 0.250 | 0.046 to 0.699 | 0.105 | 1 |' in text
  assert '| flat | - | - | ' in text and (tmp_path / 'study.md').read_text() == f'{text}\n'
  assert json.loads((tmp_path / 'study.json').read_text()) == summary
  with open(tmp_path / 'study.csv') as file:
    rows = list(csv.DictReader(file))
  assert [float(row['perceptibility']) for row in rows] == [0.25, 0.5, 1.0]
  assert [float(row['mean_d']) for row in rows] == pytest.approx([0.105, 0.205, 0.405])
  with open(tmp_path / 'answers.csv') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 40 and {
    'attack',
    'bound',
    'pair',
    'worker',
    'is_sentinel',
    'truth_same',
    'answer_same',
  } <= set(rows[0])
  assert (tmp_path / 'study.png').read_bytes().startswith(b'\x89PNG')
