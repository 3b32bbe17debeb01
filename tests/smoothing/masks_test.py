"""Masks: published geometry, every place of a patch, every pixel of a view, and whole images under attack."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, smoothing, testing
from certjax.smoothing import _masks

SHAPE = (5, 5, 1)


@pytest.mark.parametrize(
  'length, patch, size, starts',
  [
    (224, 32, 64, [0, 33, 66, 99, 132, 160]),
    (224, 23, 56, [0, 34, 68, 102, 136, 168]),
    (224, 39, 69, [0, 31, 62, 93, 124, 155]),
    (224, 35, 66, [0, 32, 64, 96, 128, 158]),
    (28, 5, 8, [0, 4, 8, 12, 16, 20]),
    (28, 2, 6, [0, 5, 10, 15, 20, 22]),
  ],
)
def test_masks_of_the_paper(length, patch, size, starts):
  assert _masks.axis_masks(length, patch, 6) == (size, starts)


def test_every_place_of_a_patch_lies_in_a_mask():
  """All axes of up to 40 pixels, all patches, up to 8 masks; and no more masks than asked for."""
  for length, k in itertools.product(range(2, 41), range(2, 9)):
    for patch in range(1, length):
      size, starts = _masks.axis_masks(length, patch, k)
      assert 1 <= len(starts) == len(set(starts)) <= k
      assert min(starts) == 0 and max(starts) + size == length
      for first in range(length - patch + 1):
        assert any(start <= first and first + patch <= start + size for start in starts)


def test_number_of_views():
  assert smoothing.masks(patch=32, shape=(224, 224, 3)).num_views == 36 + 630
  assert smoothing.masks(patch=1, shape=SHAPE, num_masks=2).num_views == 4 + 6


def test_a_view_hides_its_two_masks_and_shows_the_rest():
  """Every pixel of every view, by loops; other numbers of masks along the two axes."""
  x = np.random.default_rng(0).uniform(size=(3, 7, 2)).astype(np.float32)
  views = smoothing.masks(patch=2, shape=x.shape, num_masks=3, fill=(0.5, 2.0))
  boxes = list(itertools.product((0, 1), (0, 2, 4)))  # 2 x 3 masks of 2 rows and 3 columns.
  pairs = list(itertools.combinations_with_replacement(boxes, 2))
  assert views.num_views == len(pairs) == 21
  seen = np.asarray(jax.jit(jax.vmap(views.view, (None, 0)))(x, jnp.arange(21)))
  for view, pair in zip(seen, pairs, strict=True):
    expected = x.copy()
    for (row, column), i, j in itertools.product(pair, range(2), range(3)):
      expected[row + i, column + j] = 0.5, 2.0
    np.testing.assert_array_equal(view, expected)


def test_one_trace_serves_all_fillings():
  traces = []

  @jax.jit
  def see(view, x):
    traces.append(1)
    return view(x, 3)

  for fill in (0.0, 0.5, (0.25,)):
    shown = see(smoothing.masks(patch=1, shape=SHAPE, num_masks=2, fill=fill).view, jnp.ones(SHAPE))
    assert np.isclose(shown, np.ravel(fill)[0]).any()
  assert len(traces) == 1


def network(weights, x):
  """A random function of a picture, more or less sure of class 0; it is no number for a few."""
  first, second, bias = weights
  hidden = jnp.sin(jnp.einsum('bi,ih->bh', x.reshape(len(x), -1), first, precision='highest'))
  logits = jnp.einsum('bh,hk->bk', hidden, second, precision='highest') + bias
  return jnp.where(logits[:, 1:2] > 6, jnp.nan, logits)


def model(seed):
  rng = np.random.default_rng(seed)
  bias = np.array([[1.5 * (seed % 4), 0, 0]])
  weights = rng.normal(size=(25, 8)), rng.normal(size=(8, 3)), bias
  return jax.tree_util.Partial(network, jax.tree.map(np.float32, weights))


@functools.cache
def patched(side):
  """float32[N, 5, 5, 1]: four binary images with every square of that side, anywhere, filled in every way."""
  starts = np.random.default_rng(3).integers(0, 2, (4, *SHAPE)).astype(np.float32)
  found = [starts[:, None]]
  fillings = np.array(list(itertools.product((0, 1), repeat=side * side)), np.float32)
  for row, column in itertools.product(range(6 - side), repeat=2):
    images = np.repeat(starts[:, None], len(fillings), axis=1)
    images[:, :, row : row + side, column : column + side, 0] = fillings.reshape(-1, side, side)
    found.append(images)
  return np.concatenate(found, axis=1)


@jax.jit
def predictions(model_fn, view, numbers, x):
  """int[N, V] without the library's engine; -1 where a logit is NaN."""
  seen = jax.vmap(jax.vmap(view, (None, 0)), (0, None))(x, numbers)
  logits = model_fn(seen.reshape(-1, *seen.shape[2:]))
  number = jnp.where(jnp.isnan(logits).any(axis=1), -1, jnp.argmax(logits, axis=1))
  return number.reshape(len(x), -1)


@pytest.mark.parametrize('side', [1, 2])
def test_no_patch_changes_a_certified_label(side):
  """All places, all binary fillings, 4 images, 12 networks: no exception at all."""
  views = smoothing.masks(patch=side, shape=SHAPE, num_masks=2)
  x, kept, broken, unnumbered = patched(side), 0, 0, 0
  numbers = np.arange(views.num_views)
  for seed in range(12):
    proof = certify.enumerated(model(seed), views, x[:, 0], chunk=40)
    testing.check_certificate(proof, 3)
    found = np.asarray(predictions(model(seed), views.view, numbers, x.reshape(-1, *SHAPE)))
    label = views.decide(found[..., None] == np.arange(3)).label.reshape(x.shape[:2])
    np.testing.assert_array_equal(label[:, 0], proof.label)
    changed = (label != label[:, :1]).any(axis=1)
    assert not (changed & (proof.radius >= side)).any()
    kept, broken = kept + np.sum(proof.radius == side), broken + np.sum(changed)
    unnumbered += np.sum(found < 0)
  assert kept > 5 and broken > 5 and unnumbered > 0


def test_slack_takes_votes_in_doubt_away():
  views = smoothing.masks(patch=1, shape=SHAPE, num_masks=2)
  total = plain_total = 0
  for seed in range(12):
    plain = certify.enumerated(model(seed), views, patched(1)[:, 0], chunk=40)
    proof = certify.enumerated(model(seed), views, patched(1)[:, 0], chunk=40, slack=1.0)
    assert (proof.radius <= plain.radius).all()
    assert (proof.label == plain.label)[proof.label >= 0].all()
    total, plain_total = total + proof.radius.sum(), plain_total + plain.radius.sum()
  assert 0 < total < plain_total


def test_no_view_without_a_number_no_certificate():
  """One view of ten is enough: the label stays, the certificate goes. All views: no label."""
  views = smoothing.masks(patch=1, shape=SHAPE, num_masks=2)
  votes = np.tile([False, True], (3, 10, 1))
  votes[1, 5] = votes[2] = False
  proof = views.decide(votes)
  assert proof.label.tolist() == [1, 1, certify.ABSTAIN] and proof.radius.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
  'options, said',
  [
    ({'patch': 5}, r'`patch` is the side of a square .* 1 \.\. 4, got 5'),
    ({'patch': 0}, '`patch` is the side of a square'),
    ({'patch': 1.5}, 'whole pixels, .* got 1.5'),
    ({'patch': 'all'}, 'got all'),
    ({'patch': 2, 'num_masks': 1}, r'`num_masks` must be a whole number, 2 or more \(one mask'),
    ({'patch': 2, 'num_masks': float('inf')}, '`num_masks` must be a whole number'),
    ({'patch': 2, 'fill': (0.1, 0.2)}, r'`fill` must be a pixel value, .* 1 channels, got \(0.1'),
    ({'patch': 2, 'fill': float('nan')}, '`fill` must be a pixel value'),
    ({'patch': 2, 'shape': (5, 5)}, r'\(H, W, C\), got shape=\(5, 5\)'),
  ],
)
def test_bad_arguments(options, said):
  with pytest.raises(ValueError, match=said) as error:
    smoothing.masks(**{'shape': SHAPE, **options})
  assert '\n' not in str(error.value)
