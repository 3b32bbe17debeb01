"""Double masking on tables of predictions: a plain reading of the paper, and every table a patch can make."""

import itertools

import numpy as np
import pytest

from certjax import certify, testing


def pairs(masks):
  return list(itertools.combinations_with_replacement(range(masks), 2))


def tables(predictions, num_classes):
  """bool[..., V, K] of predicted classes, none for -1."""
  return np.asarray(predictions)[..., None] == np.arange(num_classes)


def plain(prediction, masks):
  """(label, certified) by the paper's three cases, mask by mask; prediction[i, j] is -1 for nobody."""
  one = [prediction[i, i] for i in range(masks)]
  voters = [label for label in one if label >= 0]
  if not voters:
    return -1, False
  certified = len(set(prediction.values())) == 1
  if len(set(one)) == 1:
    return one[0], certified  # Case I.
  majority = max(sorted(set(voters)), key=voters.count)
  for i in range(masks):
    second = {prediction[min(i, j), max(i, j)] for j in range(masks)}
    if one[i] not in (-1, majority) and second == {one[i]}:
      return one[i], certified  # Case II.
  return majority, certified  # Case III.


def test_against_the_paper_read_line_by_line():
  """12,000 tables: noise of all strengths, views without a vote, and masks that their second masks support."""
  rng, cases = np.random.default_rng(0), {-1: 0, 'I': 0, 'II': 0, 'III': 0}
  for masks, num_classes in itertools.product((2, 3, 5), (2, 4)):
    order = pairs(masks)
    found = rng.integers(-1, num_classes, (2000, len(order)))
    label = rng.integers(0, num_classes, (2000, 1))
    found = np.where(rng.random(found.shape) < rng.choice([0, 0.2, 0.6], (2000, 1)), found, label)
    loyal = rng.integers(0, 2 * masks, 2000)
    for row, mask in enumerate(loyal):  # Case II is rare by chance.
      found[row, [mask in pair for pair in order]] = rng.integers(0, num_classes)
    found[:20] = -1
    proof = certify.double_masking_from_votes(tables(found, num_classes), patch=3)
    testing.check_certificate(proof, num_classes)
    for row, expected in enumerate(proof.label):
      prediction = dict(zip(order, found[row].tolist(), strict=True))
      assert plain(prediction, masks) == (expected, proof.radius[row] == 3)
      one = {prediction[i, i] for i in range(masks)} - {-1}
      counts = [sum(prediction[i, i] == c for i in range(masks)) for c in range(num_classes)]
      second = expected != np.argmax(counts)
      cases[-1 if expected < 0 else 'I' if len(one) == 1 else 'II' if second else 'III'] += 1
    assert set(proof.radius) == {0, 3}
  assert min(cases.values()) >= 100


@pytest.mark.parametrize('masks, num_classes', [(2, 3), (3, 2), (3, 3), (4, 2)])
def test_no_patch_changes_a_proved_label(masks, num_classes):
  """The views without mask r may predict anything, or nothing: all of it, for all r and all labels."""
  order = pairs(masks)
  for r, label in itertools.product(range(masks), range(num_classes)):
    free = [index for index, pair in enumerate(order) if r not in pair]
    anything = np.array(list(itertools.product(range(-1, num_classes), repeat=len(free))))
    found = np.full((len(anything), len(order)), label)
    found[:, free] = anything
    proof = certify.double_masking_from_votes(tables(found, num_classes), patch=2)
    assert (proof.label == label).all()
    assert (proof.radius > 0).sum() == 1  # The table that says the label everywhere.


def test_votes_in_doubt_hold_for_all_ways_they_may_fall():
  """As `slack` gives them: a view in doubt may predict any of its doubtful classes, or be NaN."""
  rng, masks, num_classes = np.random.default_rng(1), 3, 3
  views = pairs(masks)
  kept = proved = 0
  for _ in range(400):
    label = rng.integers(num_classes)
    votes = np.where(rng.random(len(views)) < 0.15, rng.integers(0, 3, len(views)), label)
    ways = [[vote] for vote in votes]
    for view in np.flatnonzero(rng.random(len(views)) < 0.25):
      others = [c for c in range(-1, num_classes) if c != votes[view] and rng.random() < 0.7]
      ways[view] += others or [(votes[view] + 1) % num_classes]
    worst = np.zeros((len(views), num_classes), bool)
    ours = int(certify.double_masking_from_votes(tables(votes, 3), patch=2).label)
    for view, way in enumerate(ways):
      # What `certify.from_counts` asks: the label only where nothing else may be, others where they may.
      doubtful = np.arange(3) if -1 in way else way
      worst[view, doubtful] = True
      worst[view, ours] = way == [ours]
    proof = certify.double_masking_from_votes(worst, patch=2)
    if proof.label != ours:
      continue
    all_ways = np.array(list(itertools.product(*ways)))
    every = certify.double_masking_from_votes(tables(all_ways, num_classes), patch=2)
    assert (every.label == ours).all()
    assert (every.radius >= proof.radius).all()
    kept, proved = kept + (len(all_ways) > 1), proved + int(proof.radius > 0)
  assert kept > 50 and proved > 10


def test_a_view_of_two_votes_proves_nothing():
  votes = tables(np.zeros((2, 3), int), 2)
  votes[1, 1, 1] = True
  assert certify.double_masking_from_votes(votes, patch=4).radius.tolist() == [4, 0]


def test_votes_must_be_of_pairs():
  with pytest.raises(ValueError, match='`votes` must hold one view for each pair .* got 4'):
    certify.double_masking_from_votes(np.ones((4, 2), bool), patch=1)
