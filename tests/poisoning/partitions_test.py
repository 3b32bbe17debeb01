"""Partitions of a training set: what one more sample, another order or a wrong label changes."""

import functools

import numpy as np
import pytest

from certjax import certify, poisoning

HASHES = [poisoning.pixel_sum, poisoning.blake2]
SHIFTS = poisoning.draw_shifts(20, 4, seed=3)


def training_set(number=200, seed=0):
  """Few grey levels and classes: many equal sums, and some equal images with different labels."""
  rng = np.random.default_rng(seed)
  x = rng.integers(0, 3, (number, 2, 3, 1), dtype=np.uint8) * 40
  return x, rng.integers(0, 3, number, dtype=np.int32)


def dealt(hashed, shifts, x, y):
  return poisoning.partition(x, y, hashed(x, 20), 20, shifts=shifts)


def contents(partition, x, y):
  """What each member sees, in order, as bytes."""
  return [(x[member].tobytes(), y[member].tobytes()) for member in partition.members]


def changed(before, after):
  return sum(a != b for a, b in zip(before, after, strict=True))


def each(hashed, shifts):
  return functools.partial(dealt, hashed, shifts)


DEALS = [each(hashed, shifts) for hashed in HASHES for shifts in ((0,), SHIFTS)]
CASES = list(zip(DEALS, [1, 4, 1, 4], strict=True))  # With the members that a sample reaches.


@pytest.mark.parametrize('deal, spread', CASES)
def test_every_sample_is_with_the_members_of_its_bucket(deal, spread):
  x, y = training_set()
  hashed, shifts = deal.args
  partition = deal(x, y)
  assert partition.sizes.sum() == spread * len(x) and partition.sizes.shape == (20,)
  for i, bucket in enumerate(hashed(x, 20)):
    holders = {m for m, member in enumerate(partition.members) if i in member}
    assert holders == {(bucket + shift) % 20 for shift in shifts}


@pytest.mark.parametrize('deal', DEALS)
def test_the_order_of_the_training_set_changes_nothing(deal):
  x, y = training_set()
  before = contents(deal(x, y), x, y)
  for seed in range(3):
    order = np.random.default_rng(seed).permutation(len(x))
    assert contents(deal(x[order], y[order]), x[order], y[order]) == before


@pytest.mark.parametrize('deal, spread', CASES)
def test_one_sample_more_or_less_reaches_its_members_alone(deal, spread):
  x, y = training_set()
  before = contents(deal(x, y), x, y)
  new, wrong = training_set(15, seed=1)
  for i in range(len(new)):
    place = 13 * i
    x_more, y_more = np.insert(x, place, new[i], axis=0), np.insert(y, place, wrong[i])
    assert changed(before, contents(deal(x_more, y_more), x_more, y_more)) == spread
    x_less, y_less = np.delete(x, place, axis=0), np.delete(y, place)
    assert changed(before, contents(deal(x_less, y_less), x_less, y_less)) == spread


@pytest.mark.parametrize('deal, spread', CASES)
def test_a_wrong_label_stays_with_the_members_of_its_image(deal, spread):
  x, y = training_set()
  before = contents(deal(x, y), x, y)
  for i in range(0, len(x), 20):
    flipped = np.where(np.arange(len(y)) == i, (y + 1) % 3, y)
    assert changed(before, contents(deal(x, flipped), x, flipped)) == spread


def test_sorted_partition_ignores_labels_and_order():
  x = np.unique(training_set()[0], axis=0)
  x = x[np.random.default_rng(0).permutation(len(x))]
  partition = poisoning.sorted_unlabelled(x, 7)
  assert np.ptp(partition.sizes) == 1 and partition.sizes.sum() == len(x)
  seen = [[x[i].tobytes() for i in member] for member in partition.members]
  joined = [seen[i % 7][i // 7] for i in range(len(x))]
  assert joined == sorted(joined)
  order = np.random.default_rng(1).permutation(len(x))
  again = poisoning.sorted_unlabelled(x[order], 7)
  assert [[x[order][i].tobytes() for i in member] for member in again.members] == seen


def test_a_partition_by_position_moves_every_sample():
  """One image in front of 200: all 20 parts change; with a hash, one."""
  x, y = training_set()
  x_more, y_more = np.insert(x, 0, np.uint8(7), axis=0), np.insert(y, 0, 0)
  before = contents(poisoning.by_position(len(x), 20), x, y)
  after = contents(poisoning.by_position(len(x_more), 20), x_more, y_more)
  assert changed(before, after) == 20
  deal = each(poisoning.pixel_sum, (0,))
  assert changed(contents(deal(x, y), x, y), contents(deal(x_more, y_more), x_more, y_more)) == 1


def test_pixel_sums_do_not_overflow():
  x = np.full((2, 300, 300, 3), 255, np.uint8)
  assert poisoning.pixel_sum(x, 2**40).tolist() == [255 * 270_000] * 2


def test_blake2_spreads_images_of_equal_sums():
  """100 images of sum 3 in 10 buckets; by chance none empty, and none above 30, but for 1e-4."""
  x = np.zeros((100, 100), np.uint8)
  np.fill_diagonal(x, 3)
  assert (poisoning.pixel_sum(x, 10) == 3).all()
  sizes = np.bincount(poisoning.blake2(x, 10), minlength=10)
  assert 0 < sizes.min() and sizes.max() < 30


def test_shifts():
  assert poisoning.draw_shifts(50, 1, seed=9) == (0,)
  shifts = poisoning.draw_shifts(50, 50, seed=9)
  assert sorted(shifts) == list(range(50)) and shifts[:5] == poisoning.draw_shifts(50, 5, seed=9)
  assert shifts[:5] != poisoning.draw_shifts(50, 5, seed=8)


def test_empty_members_abstain():
  x, y = training_set(5)
  partition = dealt(poisoning.blake2, (0,), x, y)
  empty = partition.sizes == 0
  assert empty.sum() >= 15
  votes = partition.silence_empty(np.ones((2, 20), np.int32))
  assert votes.dtype == np.int32
  assert partition.silence_empty(np.ones(20, np.uint8)).min() == -1
  np.testing.assert_array_equal(votes, np.where(empty, -1, 1)[None].repeat(2, axis=0))
  assert certify.aggregate(votes, 2).label.tolist() == [1, 1]


def neighbour_votes(partition, x, y):
  """Each member's class for a grey of 100: its nearest sample's, of equals the first."""
  members = [member if len(member) else [0] for member in partition.members]
  nearest = [member[np.argmin(np.abs(x[member, 0].astype(int) - 100))] for member in members]
  return partition.silence_empty(y[nearest])


@pytest.mark.parametrize('shifts', [(0,), (0, 1)])
def test_no_poisoned_training_set_within_the_radius_turns_the_label(shifts):
  """All removals, 60 insertions of a wrong label, 150 pairs of these; ten insertions turn it."""
  rng = np.random.default_rng(4)
  greys = np.concatenate([rng.integers(60, 130, 18), rng.integers(150, 255, 18)])
  x, y = greys.astype(np.uint8)[:, None], np.repeat([0, 1], 18)

  def proof(removed=(), added=()):
    x_new = np.concatenate(
      [np.delete(x, removed, axis=0), np.array(added, np.uint8).reshape(-1, 1)]
    )
    y_new = np.append(np.delete(y, removed), np.ones(len(added), int))
    partition = poisoning.partition(x_new, y_new, poisoning.pixel_sum(x_new, 9), 9, shifts=shifts)
    votes = neighbour_votes(partition, x_new, y_new)
    return certify.finite_aggregation(votes, 2, shifts=shifts)

  assert proof().label == 0 and proof().radius >= 2
  once = [((i,), ()) for i in range(len(x))] + [((), (grey,)) for grey in range(70, 130)]
  pairs = [[once[i] for i in rng.choice(len(once), 2, replace=False)] for _ in range(150)]
  twice = [tuple(a + b for a, b in zip(*pair, strict=True)) for pair in pairs]
  proofs = [proof(*poison) for poison in once + twice]
  assert {int(found.label) for found in proofs} == {0}
  assert min(found.radius for found in proofs) < proof().radius
  assert proof((), tuple(range(95, 105))).label == 1


@pytest.mark.parametrize(
  'call, word',
  [
    (lambda x, y: poisoning.pixel_sum(x / 255, 3), r'np\.rint'),
    (lambda x, y: poisoning.blake2(x.astype(np.int32), 3), 'uint8'),
    (lambda x, y: poisoning.pixel_sum(x, 0), 'num_buckets'),
    (lambda x, y: poisoning.partition(x, y, poisoning.pixel_sum(x, 9), 3), 'num_buckets=3'),
    (lambda x, y: poisoning.partition(x, y[:-1], poisoning.pixel_sum(x, 3), 3), '`y`'),
    (lambda x, y: poisoning.partition(x, y, y, 3, shifts=(1, 1)), 'different'),
    (lambda x, y: poisoning.partition(x, y, y, 3, shifts=()), 'different'),
    (lambda x, y: poisoning.draw_shifts(3, 4), 'spread'),
    (lambda x, y: poisoning.by_position(3, 1.5), 'integer'),
    (lambda x, y: dealt(poisoning.blake2, (0,), x, y).silence_empty([1, 2]), '20 members'),
  ],
)
def test_bad_arguments(call, word):
  x, y = training_set(30)
  with pytest.raises(ValueError, match=word):
    call(x, y)


def test_duplicates_are_named():
  x = np.unique(training_set()[0], axis=0)
  x = np.concatenate([x, x[[4, 2]]])
  with pytest.raises(ValueError, match=rf'2 pairs.*\(2, {len(x) - 1}\), \(4, {len(x) - 2}\)'):
    poisoning.sorted_unlabelled(x, 3)
