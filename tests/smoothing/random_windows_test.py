"""Sampled bands and blocks: thresholds, an exhaustive adversary on the windows, the law of the draws."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from certjax import certify, smoothing

LAWS = {  # name: (law of an image of 6 x 7 pixels, its windows along each axis)
  'bands': (lambda **more: smoothing.random_bands(width=2, shape=(6, 7, 1), **more), (6, 2)),
  'rows': (
    lambda **more: smoothing.random_bands(width=2, shape=(6, 7, 1), axis='row', **more), (2, 7),
  ),
  'blocks': (lambda **more: smoothing.random_blocks(size=2, shape=(6, 7, 1), **more), (2, 2)),
}  # fmt: skip
SHAPE = (6, 7)
EACH = pytest.mark.parametrize('name', LAWS)


def windows(sizes):
  """bool[V, 6, 7]: the pixels of each window, by going around the image."""
  starts = [
    range(1 if size == length else length) for size, length in zip(sizes, SHAPE, strict=True)
  ]
  shown = np.zeros((len(starts[0]) * len(starts[1]), *SHAPE), bool)
  for view, (row, column) in zip(shown, itertools.product(*starts), strict=True):
    for i, j in itertools.product(range(sizes[0]), range(sizes[1])):
      view[(row + i) % SHAPE[0], (column + j) % SHAPE[1]] = True
  return shown


def most_met(shown, side):
  """The windows that hold a pixel of a patch, at the place where they are most."""
  places = itertools.product(range(SHAPE[0] - side + 1), range(SHAPE[1] - side + 1))
  return max(shown[:, i : i + side, j : j + side].any(axis=(1, 2)).sum() for i, j in places)


@EACH
def test_no_rewritten_windows_beat_the_radius(name):
  """All totals (n_a, n_b): with the windows of the certified side rewritten A still leads; with one side more
  A need not."""
  make, sizes = LAWS[name]
  shown = windows(sizes)
  met = [0, *(most_met(shown, side) for side in range(1, 7))]
  law, count = make(), len(shown)
  for n_a in range(count + 1):
    for n_b in range(count - n_a + 1):
      p_a, p_b = Fraction(n_a, count), Fraction(n_b, count)
      low, high = (np.nextafter(float(p), to) for p, to in ((p_a, 0), (p_b, 1)))
      radius = int(law.radius(max(low, 0), min(high, 1)))
      kept = [side for side in range(7) if n_a - met[side] > n_b + met[side]]
      # One ulp given away on each side costs a radius only where the lead is as long as it has to be.
      assert radius == max(kept, default=0)


@EACH
def test_the_threshold_is_the_papers(name):
  """p_a > 1/2 + a / V, the smallest float above it and not the one below."""
  make, sizes = LAWS[name]
  shown, law = windows(sizes), make()
  for side in range(1, 7):
    threshold = Fraction(1, 2) + Fraction(int(most_met(shown, side)), len(shown))
    if threshold >= 1:
      continue
    near = float(threshold)
    below = near if Fraction(near) <= threshold else np.nextafter(near, 0)
    assert law.radius(below) < side <= law.radius(np.nextafter(below, 1))


@EACH
def test_windows_are_uniform(name):
  """Chi-square at 1e-4 over all windows of 4,000 draws."""
  make, sizes = LAWS[name]
  shown = windows(sizes)
  keys = jax.random.split(jax.random.key(0), 4000)
  seen = np.asarray(jax.vmap(make().sample, (0, None))(keys, jnp.ones((*SHAPE, 1))))[..., 0] > 0
  which = (seen[:, None] == shown[None]).all(axis=(2, 3))
  assert (which.sum(axis=1) == 1).all()
  assert stats.chisquare(which.sum(axis=0)).pvalue > 1e-4


def test_a_label_alone_is_a_certificate():
  """Side 0 says something: CERTIFY keeps the label where no patch is certified."""
  law = smoothing.random_bands(width=2, shape=(6, 7, 1))
  proof = certify.from_votes(law, 1, np.array([40, 60]), num_samples=100, alpha=0.05)
  assert (int(proof.label), float(proof.radius)) == (1, 0.0)
  proof = certify.from_votes(law, 1, np.array([50, 50]), num_samples=100, alpha=0.05)
  assert int(proof.label) == certify.ABSTAIN


@EACH
def test_a_smaller_patch_is_the_largest_to_look_for(name):
  assert LAWS[name][0](patch=1).radius(1.0) <= 1
  with pytest.raises(ValueError, match='`patch` is the side of a square'):
    LAWS[name][0](patch=7)


def test_windows_of_which_one_pixel_meets_half():
  with pytest.raises(ValueError, match='a patch of one pixel meets 3 of these 6 windows'):
    smoothing.random_bands(width=3, shape=(6, 7, 1), axis='row')
