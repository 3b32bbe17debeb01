"""Sums of local features against everything that an adversary can write into a window of cells."""

import itertools

import numpy as np
import pytest

from certjax import certify, testing

CASES = {  # Cells, mask, windows of side 1 and 2, K, threshold, maps.
  'squares': ((3, 4), (2, 2), ((1, 1), (2, 2)), 3, 0.0, 5000),
  'of one size': ((3, 3), (2, 2), ((2, 2), (2, 2)), 4, 0.0, 2000),
  'a row': ((1, 6), (1, 3), ((1, 1), (1, 2)), 2, 0.0, 2000),
  'suspicious row': ((1, 6), (1, 2), ((1, 1), (1, 2)), 3, 0.25, 2000),
  'more than half': ((2, 4), (2, 2), ((1, 2), (2, 1)), 2, 0.5, 1500),
}
WRITTEN = (0, 1, 2, 4, 9, 1000)  # By an adversary, into each cell of a window.


def random_maps(rng, number, cells, num_classes):
  """Whole numbers below 0 and above, whose leaders are of all strengths; many ties."""
  strength = rng.choice([0.0, 1.0, 3.0], (number, 1, 1, num_classes), p=[0.5, 0.3, 0.2])
  return np.rint(rng.normal(strength, 1.5, (number, *cells, num_classes)))


def boxes(cells, size):
  return itertools.product(*(range(n - side + 1) for n, side in zip(cells, size, strict=True)))


def scores(features, mask, threshold):
  """The rule, one class at a time: [..., h, w] -> [...]; exact, of whole numbers."""
  u = np.maximum(features, 0)
  total = u.sum(axis=(-2, -1))
  inside = [
    u[..., i : i + mask[0], j : j + mask[1]].sum(axis=(-2, -1))
    for i, j in boxes(u.shape[-2:], mask)
  ]
  largest = np.max(inside, axis=0)
  return total - np.where(largest > threshold * total, largest, 0)


def extremes(maps, mask, threshold, window):
  """(least, largest) score of every class of every map, and place of a window, over its contents.

  Without a threshold a score is the least of sums over cells outside a mask: it never falls where a
  feature grows, so nothing in all cells, or more than all else in all cells, are its extremes.
  """
  channels = maps.transpose(0, 3, 1, 2)
  least, largest = [], []
  written = (0, 1000) if threshold == 0 else WRITTEN
  for i, j in boxes(channels.shape[-2:], window):
    found = []
    contents = itertools.product(written, repeat=window[0] * window[1])
    for content in (
      [(v,) * (window[0] * window[1]) for v in written] if threshold == 0 else contents
    ):
      after = channels.copy()
      after[..., i : i + window[0], j : j + window[1]] = np.reshape(content, window)
      found.append(scores(after, mask, threshold))
    least.append(np.min(found, axis=0))
    largest.append(np.max(found, axis=0))
  return np.stack(least, axis=1), np.stack(largest, axis=1)  # [N, places, K]


def turned(label, least, largest):
  """bool[N]: another class wins at some place; each class's cells are written by themselves."""
  classes = np.arange(largest.shape[-1])
  own = np.take_along_axis(least, label[:, None, None], axis=-1)
  beats = (largest > own) | ((largest == own) & (classes < label[:, None, None]))
  return (beats & (classes != label[:, None, None])).any(axis=(1, 2))


@pytest.mark.parametrize('name', CASES)
def test_no_writing_into_a_window_turns_a_certified_label(name):
  """12,500 maps in all; without a threshold, what is not certified can be turned."""
  cells, mask, windows, num_classes, threshold, number = CASES[name]
  maps = random_maps(np.random.default_rng(0), number, cells, num_classes)
  proof = certify.patch_from_masking(maps, mask=mask, windows=windows, threshold=threshold)
  testing.check_certificate(proof, num_classes)
  clean = scores(maps.transpose(0, 3, 1, 2), mask, threshold)
  np.testing.assert_array_equal(proof.label, clean.argmax(axis=-1))
  safe = np.ones(number, bool)
  for side, window in enumerate(windows, 1):
    safe &= ~turned(proof.label, *extremes(maps, mask, threshold, window))
    certified = proof.radius >= side
    assert not (certified & ~safe).any() and number / 50 < certified.sum() < number
    if threshold == 0:
      np.testing.assert_array_equal(certified, safe)


def test_a_threshold_is_no_hiding_place():
  """What nothing masks at first may be masked after the attack: the correction of December 2021.

  The label's cells hold 3 each, and its rival's 10 in all; no window has two thirds of a sum. An adversary
  who writes 60 into a cell of the label has the cells beside it left out too.
  """
  label, rival = np.full((1, 6), 3.0), np.array([[2.0, 2.0, 1.0, 1.0, 2.0, 2.0]])
  maps = np.stack([rival, label], axis=-1)
  options = {'mask': (1, 3), 'windows': ((1, 1),), 'threshold': 0.65}
  assert certify.patch_from_masking(maps, **options).label == 1
  after = maps.copy()
  after[0, 1, 1] = 60.0
  assert certify.patch_from_masking(after, **options).label == 0
  assert certify.patch_from_masking(maps, **options).radius == 0


def test_numbers_of_the_paper():
  """A window of 2 x 2 of 4 x 4 cells of 1 leaves 8 to the label, and 12 v to a rival of v."""
  ones = np.ones((4, 4))
  for v, radius in ((0.6, 1), (0.7, 0)):
    maps = np.stack([ones, v * ones], axis=-1)
    proof = certify.patch_from_masking(maps, mask=(2, 2), windows=[(2, 2)])
    assert (proof.label, proof.radius) == (0, radius)
  pairs = {(32, 17): 6, (32, 33): 8, (32, 9): 5, (30, 17): 6, (23, 17): 5, (39, 17): 7}
  for (patch, field), met in pairs.items():
    assert certify.cells_met(patch, receptive_field=field, stride=8, cells=26) == met


@pytest.mark.parametrize('stride', [1, 2, 3, 4])
@pytest.mark.parametrize('field', [1, 4, 5, 9])
def test_cells_met_are_the_most_over_all_places(stride, field):
  for image in range(field, 30):
    cells = (image - field) // stride + 1
    first = stride * np.arange(cells)
    for patch in range(1, image + 1):
      places = np.arange(image - patch + 1)[:, None]
      met = ((first < places + patch) & (first + field > places)).sum(axis=1)
      options = {'receptive_field': field, 'stride': stride, 'cells': cells}
      assert met.max() == certify.cells_met(patch, **options)


def clipped_attack(maps, label, window):
  """bool[N]: the label's cells at -1 and all others at 1 turn the label at some place."""
  found = np.zeros(len(maps), bool)
  for i, j in boxes(maps.shape[1:3], window):
    after = maps.copy()
    is_label = (np.arange(maps.shape[-1]) == label[:, None])[:, None, None]
    after[:, i : i + window[0], j : j + window[1]] = np.where(is_label, -np.inf, np.inf)
    found |= certify.patch_from_clipping(after, windows=[(1, 1)]).label != label
  return found


def test_clipping_against_its_worst_window():
  """3,000 maps: certified where no window turns the label, and only there. One attack, since the worst
  of every class can be written at once."""
  rng = np.random.default_rng(1)
  levels = np.array([-30.0, 0.0, 20.0, 30.0, 60.0])
  share = rng.dirichlet(np.full(5, 0.2), (3000, 1, 1, 3))
  drawn = (rng.random((3000, 3, 3, 3, 1)) > share.cumsum(axis=-1)).sum(axis=-1)
  maps = levels[np.minimum(drawn, 4)]
  proof = certify.patch_from_clipping(maps, windows=[(1, 1), (1, 2)])
  testing.check_certificate(proof, 3)
  values = np.tanh(0.05 * maps - 1).sum(axis=(1, 2))
  assert (values.max(axis=-1) - values[np.arange(3000), proof.label] < 1e-7).all()
  safe = np.ones(3000, bool)
  for side, window in enumerate([(1, 1), (1, 2)], 1):
    safe &= ~clipped_attack(maps, proof.label, window)
    np.testing.assert_array_equal(proof.radius >= side, safe)
    assert 60 < safe.sum() < 2900


def test_clipping_looks_at_every_class():
  """A class behind the runner-up, with more to gain, wins: 1 + 8 x .62 against 5.4 and 2.2."""
  values = np.array([[1.0, 1.0, -1.0]] + [[0.8, 0.4, 0.62]] * 8)[:, None]
  with np.errstate(divide='ignore'):
    maps = 20 * (np.arctanh(values) + 1)
  assert certify.patch_from_clipping(maps, windows=[(1, 1)]).radius == 0
  after = maps.copy()
  after[0, 0] = [-np.inf, -np.inf, np.inf]
  assert certify.patch_from_clipping(after, windows=[(1, 1)]).label == 2
  assert certify.patch_from_clipping(maps[..., :2], windows=[(1, 1)]).radius == 1


RULES = {
  'masking': lambda maps, **options: certify.patch_from_masking(
    maps, mask=(2, 2), windows=[(1, 1), (2, 2)], **options
  ),
  'suspicious': lambda maps, **options: certify.patch_from_masking(
    maps, mask=(2, 2), windows=[(1, 1), (2, 2)], threshold=0.4, **options
  ),
  'clipping': lambda maps, **options: certify.patch_from_clipping(
    maps, windows=[(1, 1), (2, 2)], **options
  ),
}
SLACK = 0.5


@pytest.mark.parametrize('name', RULES)
def test_slack_holds_for_other_programs(name):
  """Features moved by less than slack / 2, at random and against the label, then each window written."""
  rng = np.random.default_rng(2)
  scale = 20 if name == 'clipping' else 1
  maps = np.float32(rng.normal([2.0 * scale, 0, 0], scale, (200, 4, 4, 3)))
  own, other = RULES[name](maps), RULES[name](maps, slack=SLACK)
  assert ((other.label == own.label) | (other.label < 0)).all()
  assert (other.radius <= own.radius).all() and (other.radius < own.radius).any()
  kept = other.label >= 0
  assert 0 < (other.radius == 2).sum()
  is_label = np.arange(3) == own.label[:, None, None, None]
  against = np.where(is_label, -1.0, 1.0)
  for move in (against, rng.uniform(-1, 1, maps.shape), np.sign(rng.normal(size=maps.shape))):
    moved = maps + 0.4999 * SLACK * move
    assert (RULES[name](moved).label == own.label)[kept].all()
    for side in (1, 2):
      for i, j in boxes((4, 4), (side, side)):
        after = moved.copy()
        after[:, i : i + side, j : j + side] = np.where(is_label, -1e4, 1e4)
        held = other.radius >= side
        assert (RULES[name](after).label == own.label)[held].all()


def test_slack_doubts_a_label_that_hardly_leads():
  maps = np.stack([np.full((3, 3), 2.0), np.full((3, 3), 1.99)], axis=-1)
  for make in (RULES['masking'], RULES['clipping']):
    assert (make(maps).label, make(maps, slack=0.001).label) == (0, 0)
    assert make(maps, slack=0.1).label == certify.ABSTAIN


def test_sums_are_exact():
  """Whatever the order of the cells, and however far apart their sizes: a tie stays one."""
  rng = np.random.default_rng(3)
  one = np.float32(rng.normal(size=(4, 4)) * 10.0 ** rng.integers(-4, 5, (4, 4)))
  maps = np.stack([one[::-1], one], axis=-1)  # Of equal sums, added in another order.
  for make in RULES.values():
    assert make(maps).label == 0 and make(maps[..., ::-1]).label == 0
    assert make(maps).radius == 0


def test_what_is_no_number():
  maps = np.stack([np.full((4, 4), 100.0), np.zeros((4, 4))], axis=-1)
  far = maps.copy()
  far[0, 0, 0], far[1, 1, 1] = np.inf, -np.inf
  maps = np.stack([maps, far, maps])
  maps[2, 0, 0, 1] = np.nan
  for make in RULES.values():
    for proof in (make(maps), make(maps, slack=0.1)):
      assert proof.label.tolist() == [0, 0, certify.ABSTAIN] and proof.radius[:2].min() > 0


def test_leading_axes_are_images():
  maps = random_maps(np.random.default_rng(4), 6, (4, 4), 3)
  for make in RULES.values():
    whole = make(maps.reshape(2, 3, 4, 4, 3))
    each = [make(image) for image in maps]
    assert whole.label.shape == (2, 3) and each[0].radius.shape == ()
    assert whole.label.ravel().tolist() == [int(proof.label) for proof in each]
    assert whole.radius.ravel().tolist() == [float(proof.radius) for proof in each]


def test_one_class_always_wins():
  assert certify.patch_from_masking(np.ones((3, 3, 1)), mask=(2, 2), windows=[(2, 2)]).radius == 1


@pytest.mark.parametrize(
  'change, said',
  [
    ({'features': np.ones((4, 4))}, r'`features` must be \[..., h, w, K\] of 1 .. 4096 cells, got'),
    ({'features': np.ones((65, 65, 1))}, '`features` must be'),
    ({'windows': [(5, 1)]}, r'`windows` must lie inside the \(4, 4\) cells, got'),
    ({'windows': [(0, 1)]}, '`windows` must lie inside'),
    ({'windows': [(2, 3)]}, r'`windows` must be no larger than `mask`=\(2, 2\)'),
    ({'mask': (5, 2)}, r'`mask` must lie inside the \(4, 4\) cells'),
    ({'threshold': 1.0}, r'`threshold` must lie in \[0, 1\), in whole thousandths, got 1.0'),
    ({'threshold': 0.0001}, '`threshold` must lie in'),
    ({'threshold': float('nan')}, '`threshold` must lie in'),
    ({'slack': -1.0}, '`slack` must be a difference of features, 0 or more, got -1.0'),
    ({'slack': float('inf')}, '`slack` must be'),
  ],
)
def test_bad_arguments(change, said):
  options = {'features': np.ones((4, 4, 2)), 'mask': (2, 2), 'windows': [(1, 1)], **change}
  with pytest.raises(ValueError, match=said):
    certify.patch_from_masking(options.pop('features'), **options)
