"""Certificates against poisoned training sets on which all members are really trained again.

Every single change of a small training set, many pairs, and an adversary who may insert what it
likes; what a member may depend on, bit by bit; and the partition by position, which proves nothing.
"""

import functools

import jax
import numpy as np
import pytest

from certjax import certify, poisoning

CLASSES, MEMBERS, CAPACITY = 3, 7, 16
KEY = jax.random.key(0)
LEARNERS = {
  'mlp': poisoning.mlp(CLASSES, hidden=8, num_steps=20),
  'nearest-neighbour': poisoning.nearest_neighbour(CLASSES),
}
PLAIN, SPREAD = (0,), (0, 3)
EACH = pytest.mark.parametrize('name', LEARNERS)
SHIFTS = pytest.mark.parametrize('shifts', [PLAIN, SPREAD], ids=['one member', 'two members'])


@pytest.fixture
def queries(samples):
  """Images that are classified."""
  return samples(16, seed=1)[0]


def dealt(shifts, x, y):
  return poisoning.partition(x, y, poisoning.pixel_sum(x, MEMBERS), MEMBERS, shifts=shifts)


def trained(name, x, y, partition):
  return poisoning.train_ensemble(
    KEY, LEARNERS[name], x, y, partition, capacity=CAPACITY, group=MEMBERS
  )


def proofs(name, shifts, x, y, queries):
  """Method -> certificate of all queries, by members trained on this set."""
  ensemble = trained(name, x, y, dealt(shifts, x, y))
  preferences = poisoning.preferences(ensemble, queries, chunk=len(queries))
  votes = poisoning.first_choices(preferences)
  if len(shifts) > 1:
    return {'finite aggregation': certify.finite_aggregation(votes, CLASSES, shifts=shifts)}
  scores = np.where(preferences < 0, np.nan, preferences.astype(np.float32))
  return {
    'dpa': certify.aggregate(votes, CLASSES),
    'run-off': certify.run_off_election(scores),
  }


def bits(ensemble):
  """The bytes of each member's state."""
  leaves = [leaf.reshape(-1, *leaf.shape[2:]) for leaf in jax.tree.leaves(ensemble.states)]
  return [b''.join(leaf[i].tobytes() for leaf in leaves) for i in range(MEMBERS)]


def changes(x, y, queries):
  """All removals, all flips, and for each bucket and label three of the queries bent to fall there."""
  for i in range(len(x)):
    yield ('remove', i)
    yield from (('flip', i, label) for label in range(CLASSES) if label != y[i])
  for number, image in enumerate(queries[:3]):
    for step in range(MEMBERS):
      bent = image.copy()
      bent[number, 0, 0] = (int(bent[number, 0, 0]) + step) % 256
      yield from (('insert', bent, label) for label in range(CLASSES))


def after(x, y, chosen):
  """The training set with some changes, which may meet the same sample."""
  y = y.copy()
  removed = sorted({change[1] for change in chosen if change[0] == 'remove'})
  for _, i, label in (change for change in chosen if change[0] == 'flip'):
    y[i] = label
  x, y = np.delete(x, removed, axis=0), np.delete(y, removed)
  for _, image, label in (change for change in chosen if change[0] == 'insert'):
    x, y = np.concatenate([x, image[None]]), np.append(y, np.int32(label))
  return x, y


@SHIFTS
@EACH
def test_no_change_within_the_certified_number_turns_a_label(samples, queries, name, shifts):
  """Each change alone, and 250 pairs: of certified labels none turns, of the others some do."""
  x, y = samples(40)
  before = proofs(name, shifts, x, y, queries)
  each = list(changes(x, y, queries))
  rng = np.random.default_rng(2)
  pairs = [[each[i] for i in rng.choice(len(each), 2, replace=False)] for _ in range(250)]
  turned = {method: np.zeros((3, len(queries)), bool) for method in before}
  for chosen in [[change] for change in each] + pairs:
    for method, proof in proofs(name, shifts, *after(x, y, chosen), queries).items():
      turned[method][len(chosen)] |= proof.label != before[method].label
  for method, proof in before.items():
    for number in (1, 2):
      assert not (turned[method][number] & (proof.radius >= number)).any()
    assert turned[method].any() and (proof.radius >= 1).sum() >= 4
  assert shifts != PLAIN or (before['dpa'].radius >= 2).sum() >= 2


def test_one_insertion_more_than_certified_turns_any_label(samples, queries):
  """Nearest neighbours learn each inserted copy of an image at once: the certificate is attained."""
  x, y = samples(40)
  train = functools.partial(
    poisoning.train_ensemble, KEY, LEARNERS['nearest-neighbour'], capacity=CAPACITY, group=MEMBERS
  )
  deal = functools.partial(dealt, PLAIN)
  before = proofs('nearest-neighbour', PLAIN, x, y, queries)['dpa']
  assert dealt(PLAIN, x, y).sizes.max() < CAPACITY and len(set(before.radius)) >= 3
  for i, image in enumerate(queries):
    found = poisoning.greedy_attack(
      KEY, train, deal, x, y, image, num_classes=CLASSES, moves=('insert',), num_candidates=1,
      chunk=len(queries),
    )  # fmt: skip
    assert found.num_samples == before.radius[i] + 1
    again = proofs('nearest-neighbour', PLAIN, found.x, found.y, queries)['dpa']
    assert again.label[i] == found.label != before.label[i]


@EACH
def test_one_sample_reaches_the_members_of_its_bucket_bit_by_bit(samples, queries, name):
  """Overlapping parts: of seven members trained again, exactly two differ, and no other's vote."""
  x, y = samples(40)
  first = trained(name, x, y, dealt(SPREAD, x, y))
  state, votes = bits(first), poisoning.votes(first, queries, chunk=len(queries))
  for change in list(changes(x, y, queries))[::9]:
    poisoned = after(x, y, [change])
    second = trained(name, *poisoned, dealt(SPREAD, *poisoned))
    image = change[1] if change[0] == 'insert' else x[change[1]]
    bucket = int(poisoning.pixel_sum(image[None], MEMBERS)[0])
    reached = {(bucket + shift) % MEMBERS for shift in SPREAD}
    differ = {i for i, (a, b) in enumerate(zip(state, bits(second), strict=True)) if a != b}
    assert differ == reached
    moved = poisoning.votes(second, queries, chunk=len(queries)) != votes
    assert set(np.flatnonzero(moved.any(axis=0)).tolist()) <= reached


@SHIFTS
@EACH
def test_another_order_of_the_training_set_is_the_same_ensemble(samples, name, shifts):
  x, y = samples(40)
  x[7], y[7] = x[3], (y[3] + 1) % CLASSES  # An image that is there twice, with two labels.
  state = bits(trained(name, x, y, dealt(shifts, x, y)))
  for seed in range(3):
    order = np.random.default_rng(seed).permutation(len(x))
    again = trained(name, x[order], y[order], dealt(shifts, x[order], y[order]))
    assert bits(again) == state


def test_a_partition_by_position_proves_nothing(samples, queries):
  """One image in front of all others retrains every member, and turns labels that the rule for
  hashed parts would call certain; the same images, hashed: one member, and no such label."""
  x, y = samples(40)
  by_position = lambda x, y: trained('mlp', x, y, poisoning.by_position(len(x), MEMBERS))
  vote = lambda ensemble: poisoning.votes(ensemble, queries, chunk=len(queries))
  first, hashed = by_position(x, y), proofs('mlp', PLAIN, x, y, queries)['dpa']
  state, proof = bits(first), certify.aggregate(vote(first), CLASSES)
  turned = np.zeros(len(queries), bool)
  for image in samples(20, seed=3)[0]:
    poisoned = np.insert(x, 0, image, axis=0), np.insert(y, 0, np.int32(0))
    second = by_position(*poisoned)
    assert all(a != b for a, b in zip(state, bits(second), strict=True))
    turned |= certify.aggregate(vote(second), CLASSES).label != proof.label
    held = proofs('mlp', PLAIN, *poisoned, queries)['dpa'].label == hashed.label
    assert held[hashed.radius >= 1].all()
  assert (turned & (proof.radius >= 1)).any()
