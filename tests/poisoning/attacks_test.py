"""Poisoned training sets by hand, and a search that retrains members, held against certificates."""

import functools

import jax
import numpy as np
import pytest

from certjax import certify, poisoning

CLASSES, MEMBERS = 3, 7
KEY = jax.random.key(0)
LEARNERS = {
  'nearest-neighbour': poisoning.nearest_neighbour(CLASSES),
  'mlp': poisoning.mlp(CLASSES, hidden=8, num_steps=20),
}


def counted(first, second):
  """Samples of each that the other lacks, as multisets."""
  contents = [
    sorted((image.tobytes(), int(label)) for image, label in zip(*each, strict=True))
    for each in (first, second)
  ]
  lacks = lambda a, b: sum(max(a.count(one) - b.count(one), 0) for one in set(a))
  return lacks(*contents), lacks(*contents[::-1])


@pytest.mark.parametrize(
  'attack, options, removed, added',
  [
    (poisoning.flip_labels, {'number': 5}, 5, 5),
    (poisoning.flip_labels, {'indices': [3, 59]}, 2, 2),
    (poisoning.remove, {'number': 6}, 6, 0),
    (poisoning.remove, {'indices': [0]}, 1, 0),
    (poisoning.insert, {'number': 4}, 0, 4),
    (poisoning.insert, {'indices': [1, 2], 'label': 0}, 0, 2),
    (poisoning.insert, {'images': np.zeros((3, 3, 3, 1), np.uint8)}, 0, 3),
    (poisoning.insert, {'number': 0}, 0, 0),
  ],
)
def test_symmetric_difference(samples, attack, options, removed, added):
  """As many samples as asked for, the same ones for the same key, none touched in place."""
  x, y = samples()
  before = x.copy(), y.copy()
  poisoned = attack(KEY, x, y, num_classes=CLASSES, **options)
  assert counted((x, y), poisoned) == (removed, added)
  again = attack(KEY, x, y, num_classes=CLASSES, **options)
  assert all(np.array_equal(a, b) for a, b in zip(poisoned, again, strict=True))
  assert np.array_equal(x, before[0]) and np.array_equal(y, before[1])
  assert poisoned[0].dtype == np.uint8 and poisoned[1].dtype == np.int32
  if options.get('number', 0) > 1:
    other = attack(jax.random.key(1), x, y, num_classes=CLASSES, **options)
    assert not all(np.array_equal(a, b) for a, b in zip(poisoned, other, strict=True))


def test_labels_of_the_adversary(samples):
  """Chosen among other classes only; random ones are wrong."""
  x, y = samples()
  flipped = poisoning.flip_labels(KEY, x, y, num_classes=CLASSES, number=60)[1]
  assert (flipped != y).all() and set(flipped) == {0, 1, 2}
  other = int(np.sum(y != 1))
  assert (poisoning.flip_labels(KEY, x, y, num_classes=3, number=other, label=1)[1] == 1).all()
  left = poisoning.remove(KEY, x, y, num_classes=3, number=other, label=1)
  assert (left[1] == 1).all() and np.array_equal(left[0], x[y == 1])
  added = poisoning.insert(KEY, x, y, num_classes=3, number=60)[1]
  sources = [int(y[(x == image).all((1, 2, 3))][0]) for image in poisoning.insert(
    KEY, x, y, num_classes=3, number=60
  )[0][60:]]  # fmt: skip
  assert (added[60:] != sources).all()


def test_a_backdoor_opens(samples):
  """A corner of 255 makes the nearest neighbour answer 2, whatever it shows; without it, it is right."""
  x, y = samples()
  trigger = np.full((1, 2, 1), 255, np.uint8)
  more = {'trigger': trigger, 'label': 2, 'number': 30, 'corner': (2, 1)}
  poisoned = poisoning.insert_backdoor(KEY, x, y, num_classes=CLASSES, **more)
  assert counted((x, y), poisoned) == (0, 30)
  assert (poisoned[0][60:, 2, 1:] == 255).all() and (poisoned[1][60:] == 2).all()
  stamped = poisoning.add_trigger(x, trigger, corner=(2, 1))
  assert np.array_equal(stamped[:, :2], x[:, :2]) and np.array_equal(stamped[:, 2, 0], x[:, 2, 0])
  parts = poisoning.Partition((np.arange(90),))
  learner = LEARNERS['nearest-neighbour']
  ensemble = poisoning.train_ensemble(KEY, learner, *poisoned, parts, capacity=96, group=1)
  assert np.mean(poisoning.votes(ensemble, stamped)[:, 0] == 2) > 0.9
  assert (poisoning.votes(ensemble, x)[:, 0] == y).all()


def dealt(shifts, x, y):
  return poisoning.partition(x, y, poisoning.pixel_sum(x, MEMBERS), MEMBERS, shifts=shifts)


def proofs(shifts, ensemble, image):
  """(label, certified samples) of each method that applies."""
  preferences = poisoning.preferences(ensemble, image[None])
  votes = poisoning.first_choices(preferences)
  if len(shifts) > 1:
    return [certify.finite_aggregation(votes, CLASSES, shifts=shifts)]
  scores = np.where(preferences < 0, np.nan, preferences.astype(np.float32))
  return [certify.aggregate(votes, CLASSES), certify.run_off_election(scores)]


@pytest.mark.parametrize('shifts', [(0,), (0, 3)], ids=['dpa and run-off', 'finite aggregation'])
@pytest.mark.parametrize('name', LEARNERS)
def test_no_certificate_is_contradicted(samples, name, shifts):
  """Of sets poisoned by the search, trained from nothing: no certified label turns; often one more
  sample than is certified does turn it."""
  x, y = samples()
  train = functools.partial(
    poisoning.train_ensemble, KEY, LEARNERS[name], capacity=16 * len(shifts), group=MEMBERS
  )
  deal = functools.partial(dealt, shifts)
  turned, tight, certified = 0, 0, 0
  for image in samples(6, seed=1)[0]:
    clean = proofs(shifts, train(x, y, deal(x, y)), image)
    for budget in (None, *{int(proof.radius[0]) for proof in clean}):
      found = poisoning.greedy_attack(
        KEY, train, deal, x, y, image, num_classes=CLASSES, budget=budget, num_candidates=3
      )
      touched = counted((x, y), (found.x, found.y))
      assert max(touched) <= found.num_samples <= sum(touched)
      after = proofs(shifts, train(found.x, found.y, deal(found.x, found.y)), image)
      if len(shifts) == 1:  # The search plays against plain votes.
        assert after[0].label[0] == found.label
      for proof, other in zip(clean, after, strict=True):
        if found.num_samples <= proof.radius[0]:
          assert other.label[0] == proof.label[0]
          certified += found.num_samples > 0
      if budget is None:
        turned += after[0].label[0] != clean[0].label[0]
        tight += found.num_samples == clean[0].radius[0] + 1
  assert certified > 0 and turned >= 4
  if len(shifts) == 1:
    assert tight >= 3


def test_flips_against_sorted_parts(samples):
  """SS-DPA: labels alone, parts of sorted images."""
  x, y = samples()
  deal = lambda x, y: poisoning.sorted_unlabelled(x, MEMBERS)
  learner = LEARNERS['nearest-neighbour']
  train = functools.partial(poisoning.train_ensemble, KEY, learner, capacity=16, group=MEMBERS)
  turned = 0
  for image in samples(6, seed=1)[0]:
    votes = poisoning.votes(train(x, y, deal(x, y)), image[None])
    proof = certify.aggregate(votes, CLASSES)
    found = poisoning.greedy_attack(
      KEY, train, deal, x, y, image, num_classes=CLASSES, moves=('flip',)
    )
    assert np.array_equal(found.x, x) and np.sum(found.y != y) == found.num_samples
    assert found.label == proof.label[0] or found.num_samples > proof.radius[0]
    turned += found.label != proof.label[0]
  assert turned >= 4


@pytest.mark.parametrize(
  'call, word',
  [
    (lambda x, y, n: poisoning.remove(KEY, x, y, num_classes=n), 'one of `number` and `indices`'),
    (lambda x, y, n: poisoning.remove(KEY, x, y, num_classes=n, number=61), r'in \[0, 60\]'),
    (lambda x, y, n: poisoning.remove(KEY, x, y, num_classes=n, indices=[1, 1]), 'different'),
    (lambda x, y, n: poisoning.remove(KEY, x, y, num_classes=n, indices=[60]), r'in \[0, 60\)'),
    (lambda x, y, n: poisoning.remove(KEY, x / 255, y, num_classes=n, number=1), 'uint8 images'),
    (lambda x, y, n: poisoning.remove(KEY, x, y[1:], num_classes=n, number=1), 'a label for each'),
    (lambda x, y, n: poisoning.remove(KEY, x, y, num_classes=2, number=1), '`y` must lie in'),
    (lambda x, y, n: poisoning.insert(KEY, x, y, num_classes=n, number=1, label=3), '`label` must'),
    (lambda x, y, n: poisoning.insert(KEY, x, y, num_classes=n, number=1, images=x), 'got more'),
    (lambda x, y, n: poisoning.insert(KEY, x, y, num_classes=n, images=x[:, 1:]), 'as those of'),
    (lambda x, y, n: poisoning.add_trigger(x, np.zeros((4, 1, 1), np.uint8)), 'lie at `corner`'),
    (lambda x, y, n: poisoning.greedy_attack(
      KEY, None, None, x, y, x[0], num_classes=n, moves=('swap',)), '`moves` must be some of'),
    (lambda x, y, n: poisoning.greedy_attack(
      KEY, None, None, x, y, x[0, 1:], num_classes=n), '`image` must be one uint8 image'),
  ],
)  # fmt: skip
def test_bad_arguments(samples, call, word):
  with pytest.raises(ValueError, match=word):
    call(*samples(), CLASSES)
