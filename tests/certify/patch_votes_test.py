"""The rules against patches: published numbers, and every rewriting of the votes that a patch allows."""

import itertools

import numpy as np
import pytest

from certjax import certify, testing

CASES = {  # (H, W), height and width of a window (None: all of the axis), classes, tables.
  'columns': ((2, 7), (None, 1), 3, 6000),
  'wide columns': ((4, 9), (None, 2), 3, 2000),
  'rows': ((6, 3), (2, None), 2, 2000),
  'blocks': ((4, 5), (1, 2), 2, 2000),
  'square blocks': ((3, 3), (1, 1), 3, 2000),
}


def geometry(image, window):
  """What the rules are told, and bool[V, H, W], which pixels each view shows."""
  (height, width), sizes = image, [w or n for w, n in zip(window, image, strict=True)]
  positions = [1 if w is None else n for w, n in zip(window, image, strict=True)]
  shows = np.zeros((*positions, height, width), bool)
  for row, column in itertools.product(*map(range, positions)):
    for i, j in itertools.product(*map(range, sizes)):
      shows[row, column, (row + i) % height, (column + j) % width] = True
  rule = {'positions': tuple(positions), 'windows': tuple(sizes)}
  return rule, shows.reshape(-1, height, width)


def places(image, side):
  for row, column in itertools.product(*(range(n - side + 1) for n in image)):
    patch = np.zeros(image, bool)
    patch[row : row + side, column : column + side] = True
    yield patch


def random_votes(rng, number, num_views, num_classes):
  """Tables with leaders of all strengths, several votes a view and none, and many ties."""
  rates = rng.dirichlet(np.full(num_classes, 0.4), number) * rng.choice([0.5, 1, 1.3], (number, 1))
  return rng.random((number, num_views, num_classes)) < rates[:, None]


def winners(counts):
  return np.argmax(counts, axis=-1)


def turned(votes, shows, image, side):
  """bool[N]: some patch, with some votes of the views that show a pixel of it, changes the winner."""
  found = np.zeros(len(votes), bool)
  for patch in places(image, side):
    met = (shows & patch).any(axis=(1, 2))
    # A view may vote for any set of classes: all sums between none and all of them.
    sums = np.array(list(itertools.product(range(met.sum() + 1), repeat=votes.shape[-1])))
    after = votes[:, ~met].sum(axis=1)[:, None] + sums
    found |= (winners(after) != winners(votes.sum(axis=1))[:, None]).any(axis=1)
  return found


@pytest.mark.parametrize('name', CASES)
def test_no_rewriting_of_votes_turns_a_certified_label(name):
  """14,000 tables in all; and where a larger patch is not certified, some rewriting does turn it."""
  image, window, num_classes, number = CASES[name]
  rule, shows = geometry(image, window)
  votes = random_votes(np.random.default_rng(0), number, len(shows), num_classes)
  most = min(image)
  places_proof = certify.patch_from_votes(votes, **rule, patch=most)
  affected = [met(rule, side) for side in range(1, most + 1)]
  counts_proof = certify.patch_from_counts(votes.sum(axis=1), affected)
  voted = votes.any(axis=(1, 2))
  for proof in (places_proof, counts_proof):
    testing.check_certificate(proof, num_classes)
    np.testing.assert_array_equal(
      proof.label, np.where(voted, winners(votes.sum(axis=1)), certify.ABSTAIN)
    )
  for side in range(1, most + 1):
    unsafe = turned(votes, shows, image, side)
    np.testing.assert_array_equal(places_proof.radius[voted] >= side, ~unsafe[voted])
    assert not (unsafe & (counts_proof.radius >= side)).any()
  assert (counts_proof.radius <= places_proof.radius).all()
  assert (counts_proof.radius < places_proof.radius).any() and (counts_proof.radius > 0).any()


def met(rule, side):
  """Windows that a patch meets, by the product of both axes."""
  axes = zip(rule['windows'], rule['positions'], strict=True)
  return np.prod([certify.windows_met(side, window, positions) for window, positions in axes])


@pytest.mark.parametrize('name', CASES)
def test_windows_met_are_those_that_show_a_pixel_of_the_patch(name):
  image, window, _, _ = CASES[name]
  rule, shows = geometry(image, window)
  for side in range(1, min(image) + 1):
    for patch in places(image, side):
      assert (shows & patch).any(axis=(1, 2)).sum() == met(rule, side)


def test_published_numbers_of_windows_met():
  met = certify.windows_met
  assert met(5, 2, 28) == 6 and met(5, 4, 28) ** 2 == 64 and met(5, 4, 32) == 8
  assert met(42, 25, 299) == 66 and met(32, 19, 224) == 50
  assert met(20, 20, 28) == 28  # No more than there are.


@pytest.mark.parametrize(
  'counts, label, certified',
  [
    ((20, 8, 0), 0, True),  # The tie is the label's.
    ((8, 20, 0), 1, False),  # The tie is the rival's.
    ((8, 21, 0), 1, True),
    ((0, 20, 8, 8), 1, True),
    ((8, 20, 0, 8), 1, False),
    ((28, 0, 0), 0, True),
    ((5, 5, 5), 0, False),
  ],
)
def test_ties_of_the_rule_of_counts(counts, label, certified):
  """Bands of 2 columns and a patch of 5: 6 bands, so a lead of 12."""
  proof = certify.patch_from_counts(counts, [6])
  assert proof.label == label and proof.radius == certified


def test_radii_are_the_largest_sides():
  affected = [certify.windows_met(side, 2, 28) for side in range(1, 29)]
  proof = certify.patch_from_counts(
    [[28, 0], [0, 28], [16, 12], [15, 12], [0, 0], [28, 28]], affected
  )
  assert proof.label.tolist() == [0, 1, 0, 0, -1, 0]
  assert proof.radius.tolist() == [13, 12, 1, 0, 0, 0]  # 2 (m + 1) <= 28, 27, 4, 3; nobody; a tie.


def test_one_class_always_wins():
  assert certify.patch_from_counts([[3]], [1, 2, 3]).radius == 3


def test_every_place_matters():
  """Five votes to two in ten bands of one column: a patch of two finds two of the five side by side, or not."""
  together, apart = np.zeros((2, 10, 2), bool)
  together[:5, 0] = together[8:, 1] = True
  apart[:9:2, 0] = apart[1:4:2, 1] = True
  votes = np.stack([together, apart])
  proof = certify.patch_from_votes(votes, positions=(1, 10), windows=(10, 1), patch=10)
  assert proof.radius.tolist() == [1, 2]
  assert certify.patch_from_counts(votes.sum(axis=1), [1, 2, 3]).radius.tolist() == [1, 1]
