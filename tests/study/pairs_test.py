"""Which pairs are in a batch, and that the truth about them is the truth."""

import collections

import numpy as np
import pytest

from certjax import study


def kinds(batch):
  return collections.Counter(
    ('sentinel ' if pair.truth['is_sentinel'] else '')
    + ('same' if pair.truth['truth_same'] else 'different')
    for pair in batch
  )


def test_every_batch_has_its_mixture(batches):
  assert len(batches) == 2
  for batch in batches:
    expected = {'different': 6, 'same': 1, 'sentinel same': 1, 'sentinel different': 1}
    assert kinds(batch) == expected


def test_the_paper_mixture(make_condition):
  """33 pairs at 16 a batch: three batches of 25, as even as can be, filled with identical pairs."""
  batches = study.compose([make_condition(count=33)])
  assert [len(batch) for batch in batches] == [25] * 3
  assert [kinds(batch)['different'] for batch in batches] == [11, 11, 11]
  assert [kinds(batch)['same'] for batch in batches] == [10, 10, 10]
  assert all(kinds(batch)['sentinel same'] == 2 for batch in batches)
  assert all(kinds(batch)['sentinel different'] == 2 for batch in batches)


def test_each_adversarial_pair_comes_once_with_its_own_numbers(make_condition, batches):
  made = {'pgd': make_condition(), 'fgsm': make_condition('fgsm', 0.2, shift=50, distance=2.0)}
  seen = []
  for pair in (pair for batch in batches for pair in batch if 'attack' in pair.truth):
    source = made[pair.truth['attack']]
    row = pair.truth['index']
    images = source.originals[row], source.adversarials[row]
    swapped = pair.truth['first'] == 'adversarial'
    for shown, expected in zip(
      (pair.first, pair.second), images[:: -1 if swapped else 1], strict=True
    ):
      np.testing.assert_array_equal(shown, expected)
    assert pair.truth['distances'] == {'l2': source.distances['l2'][row]}
    assert not pair.truth['unchanged'] and pair.truth['bound'] == source.bound
    seen.append((pair.truth['attack'], row))
  assert sorted(seen) == sorted((attack, row) for attack in made for row in range(6))
  assert {pair.truth.get('first') for batch in batches for pair in batch} >= {
    'original',
    'adversarial',
  }


def test_sentinels_are_what_they_are_called(make_condition):
  """Obviously different: of another class, and far apart; identical: to the byte."""
  originals = np.repeat(np.array([40, 90, 140], np.uint8), 64).reshape(3, 8, 8, 1)
  flat = make_condition(count=3)._replace(originals=originals, adversarials=originals + np.uint8(5))
  for seed in range(4):
    (batch,) = study.compose([flat], batch_size=23, num_identical=10, num_sentinels=10, seed=seed)
    for pair in batch:
      if pair.truth['truth_same']:
        np.testing.assert_array_equal(pair.first, pair.second)
      elif pair.truth['is_sentinel']:
        # The mean of 64 values under noise of 64 grey levels: another class is 50 away, its own 8 at most.
        assert abs(pair.first.mean() - pair.second.mean()) > 20
        assert np.std(pair.second) > 30


def test_no_kind_has_a_place_of_its_own(make_condition):
  """Over 60 seeds each kind is at each of the first and last places (0.84^60 < 1e-4 for the rarest)."""
  made = make_condition()
  ends = [set(), set()]
  for seed in range(60):
    (batch,) = study.compose([made], batch_size=12, num_identical=4, num_sentinels=2, seed=seed)
    for end, pair in zip(ends, (batch[0], batch[-1]), strict=True):
      end.add((pair.truth['is_sentinel'], pair.truth['truth_same']))
  assert all(len(end) == 4 for end in ends)


def test_the_seed_decides(make_condition):
  made = make_condition()
  truths = lambda seed: [[p.truth for p in batch] for batch in study.compose([made], seed=seed)]
  assert truths(1) == truths(1) != truths(2)


def test_pairs_that_eight_bits_make_equal_are_marked(make_condition):
  (batch,) = study.compose([make_condition(shift=0)])
  assert all(pair.truth['unchanged'] for pair in batch if 'attack' in pair.truth)


@pytest.mark.parametrize(
  ('options', 'part'),
  [
    ({'num_sentinels': 1}, '`num_sentinels`=1'),
    ({'num_identical': -1}, '`num_identical`=-1'),
    ({'num_identical': 21}, '`batch_size`=25'),
    ({'noise': 0.0}, '`noise`'),
  ],
)
def test_counts_without_room(make_condition, options, part):
  with pytest.raises(ValueError, match=part):
    study.compose([make_condition()], **options)


def test_images_that_cannot_be_shown(make_condition):
  made = make_condition()
  with pytest.raises(ValueError, match='no pair'):
    study.compose([])
  with pytest.raises(ValueError, match='one shape'):
    study.compose(
      [made, made._replace(originals=made.originals[:, :4], adversarials=made.adversarials[:, :4])]
    )
  with pytest.raises(ValueError, match='uint8'):
    study.compose([made._replace(adversarials=made.adversarials / 255)])
  with pytest.raises(ValueError, match='1 or 3'):
    study.compose(
      [
        made._replace(
          originals=made.originals.repeat(2, -1), adversarials=made.adversarials.repeat(2, -1)
        )
      ]
    )
