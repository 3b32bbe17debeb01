"""Union, unseen mean and UAR against the published tables; 2AFC and JND by hand."""

import json

import numpy as np
import pytest

from certjax.report import _human_scores, _threats

CORRECT = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]])
# Trained against; mean over the others as printed; L_inf, L2, StAdv, ReColorAdv, LPA.
CIFAR = [
  ((), 0.1, (0.0, 0.0, 0.0, 0.4, 0.0)),
  ('linf', 19.6, (49.0, 19.2, 4.8, 54.5, 0.0)),
  ('linf', 23.3, (52.5, 23.3, 9.2, 60.6, 0.0)),
  ('l2', 25.3, (39.5, 47.8, 7.8, 53.5, 0.3)),
  ('stadv', 1.4, (0.1, 0.2, 53.9, 5.1, 0.0)),
  ('recolor', 3.1, (8.5, 3.9, 0.0, 65.0, 0.0)),
  (('perceptual',), 45.6, (30.2, 34.9, 46.4, 71.0, 2.1)),
  (('perceptual',), 48.5, (28.7, 33.3, 64.5, 67.5, 9.8)),
]


def test_union():
  np.testing.assert_allclose(CORRECT.mean(axis=0), 0.8)
  assert _threats.union_accuracy(CORRECT) == 0.4
  assert _threats.union_accuracy(CORRECT[:, :1].astype(bool)) == 0.8


@pytest.mark.parametrize('trained_on, printed, values', CIFAR)
def test_unseen_mean_of_the_published_tables(trained_on, printed, values):
  names = ('linf', 'l2', 'stadv', 'recolor', 'perceptual')
  mean = _threats.unseen_mean(dict(zip(names, values, strict=True)), trained_on)
  assert abs(mean - printed) <= 0.05 + 1e-9


def test_unseen_mean_of_images():
  columns = dict(zip('abcd', CORRECT.T, strict=True))
  assert abs(_threats.unseen_mean(columns, 'a') - 0.8) < 1e-12


def test_uar():
  accuracies = (0.85, 0.8, 0.7, 0.5, 0.2, 0.05)
  assert abs(_threats.uar(accuracies, 'linf', 'cifar10') - 0.7725086595728774) < 1e-12
  for table in _threats.CALIBRATIONS.values():
    for attack, (sizes, best) in table.items():
      assert list(sizes) == sorted(sizes) and list(best) == sorted(best, reverse=True), attack
      assert len(sizes) == len(best) == 6


@pytest.mark.parametrize('name, file', [('cifar10', 'cifar10'), ('imagenet100', 'imagenet100')])
def test_constants_are_the_published_ones(shared, name, file):
  published = json.loads((shared / 'golden' / 'uar' / f'{file}_calibs.json').read_text())
  names = {'pgd_linf': 'linf', 'pgd_l2': 'l2', 'fw_l1': 'l1', 'jpeg_linf': 'jpeg-linf',
           'jpeg_l2': 'jpeg-l2', 'jpeg_l1': 'jpeg-l1'}  # fmt: skip
  found = {}
  for (attack, size, *_), accuracy, _ in published:
    found.setdefault(names.get(attack, attack), []).append((size, accuracy))
  values = 3 * {'cifar10': 32, 'imagenet100': 224}[name] ** 2
  for attack, (sizes, best) in _threats.CALIBRATIONS[name].items():
    unit = values if attack == 'l1' else 1  # Published as a mean over values.
    np.testing.assert_allclose([size * unit for size, _ in found[attack]], sizes, rtol=1e-4)
    np.testing.assert_allclose([accuracy for _, accuracy in found[attack]], best, atol=5e-5)


def test_two_alternatives():
  d0, d1, judges = [0.1, 0.5, 0.3], [0.2, 0.4, 0.3], [0.2, 0.6, 0.9]
  each = [
    _human_scores.two_alternatives(*([v] for v in row)) for row in zip(d0, d1, judges, strict=True)
  ]
  np.testing.assert_allclose(each, [0.8, 0.6, 0.5])
  np.testing.assert_allclose(_human_scores.two_alternatives(d0, d1, judges), 0.6333333, atol=1e-7)


def test_just_noticeable():
  distance, same = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([1, 2 / 3, 1 / 3, 2 / 3, 0])
  for order in (range(5), [3, 0, 4, 2, 1]):
    found = _human_scores.just_noticeable(distance[order], same[order])
    np.testing.assert_allclose(found, 0.8333333, atol=1e-7)
  assert _human_scores.just_noticeable([0.1, 0.2, 0.3], [1, 1, 0]) == 1
  # Equal distances tell nothing apart, in whatever order they come.
  for labels in ([1, 0, 0], [0, 0, 1]):
    np.testing.assert_allclose(_human_scores.just_noticeable([0.2, 0.2, 0.2], labels), 1 / 3)


@pytest.mark.parametrize(
  'call, match',
  [
    (lambda: _threats.union_accuracy([0.5, 0.25]), r'`correct` must be \[images, attacks\]'),
    (lambda: _threats.union_accuracy([[0.5, 0.25]]), '`correct` must hold 0 or 1'),
    (lambda: _threats.unseen_mean({'l2': 1.0}, 'linf'), '`trained_on` must name .* got linf'),
    (lambda: _threats.unseen_mean({'l2': 1.0}, 'l2'), 'none is unseen'),
    (
      lambda: _threats.uar([0.5] * 6, 'jpeg', 'cifar10'),
      "`attack` must be one of .*Did you mean 'jpeg-l1'",
    ),
    (
      lambda: _threats.uar([0.5] * 6, 'l2', 'mnist'),
      '`dataset` must be one of cifar10, imagenet100',
    ),
    (lambda: _threats.uar([50.0] * 6, 'l2', 'cifar10'), r'six numbers in \[0, 1\]'),
    (lambda: _human_scores.just_noticeable([0.1], [0.0]), '`same` must not be 0'),
    (lambda: _human_scores.just_noticeable([0.1], [3.0]), r'`same` must be shares in \[0, 1\]'),
    (lambda: _human_scores.two_alternatives([0.1], [np.nan], [1.0]), '`second` must hold no NaN'),
    (
      lambda: _human_scores.two_alternatives([0.1, 0.2], [0.1, 0.2], [1.0]),
      '`first` must hold one',
    ),
  ],
)
def test_bad_arguments(call, match):
  with pytest.raises(ValueError, match=match):
    call()
