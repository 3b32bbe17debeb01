"""Training batches: what a step sees depends on seed, epoch and dataset index, on nothing else."""

import itertools
import threading

import numpy as np
import pytest

from certjax import data
from certjax.data import _batches

N, BATCH = 23, 5


def make_images(n=N, shape=(8, 8, 3)):
  rng = np.random.default_rng(0)
  pixels = rng.integers(1, 256, (n, *shape), dtype=np.uint8)  # No zeros: padding stands out.
  return data.Images(pixels, rng.integers(0, 10, n).astype(np.int32), np.arange(n))


def by_image(made):
  return {(int(i)): x for b in made for i, x in zip(b['index'], b['x'], strict=True)}


def assert_equal(first, second):
  first, second = list(first), list(second)
  assert len(first) == len(second)
  for a, b in zip(first, second, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_an_epoch_is_a_permutation_without_its_remainder():
  images = make_images()
  steps = data.steps_per_epoch(N, BATCH)
  epochs = [
    list(data.batches(images, BATCH, seed=1, start=e * steps, num_steps=steps)) for e in range(30)
  ]
  seen = [np.concatenate([b['index'] for b in epoch]) for epoch in epochs]
  for index in seen:
    assert len(set(index.tolist())) == steps * BATCH == 20
  assert len({tuple(index) for index in seen}) == 30
  assert set(np.concatenate(seen).tolist()) == set(range(N))  # Dropped images come back.
  whole = np.concatenate([b['index'] for b in data.batches(images, 1, seed=1, num_steps=N)])
  np.testing.assert_array_equal(np.sort(whole), np.arange(N))


def test_batches_hold_the_images_they_name():
  images = make_images()
  for batch in data.batches(images, BATCH, seed=2, num_steps=10):
    assert [batch[k].dtype for k in ('x', 'y', 'index')] == [np.uint8, np.int32, np.int32]
    np.testing.assert_array_equal(batch['x'], images.images[batch['index']])
    np.testing.assert_array_equal(batch['y'], images.labels[batch['index']])


@pytest.mark.parametrize('augment', [None, 'crop', 'crop_flip'])
@pytest.mark.parametrize('start', [0, 1, 4, 6, 11])
def test_resume_equals_running_through(start, augment):
  images = make_images()
  through = data.batches(images, BATCH, seed=3, num_steps=13, augment=augment)
  resumed = data.batches(images, BATCH, seed=3, start=start, num_steps=13 - start, augment=augment)
  assert_equal(itertools.islice(through, start, None), resumed)


def test_seeds_and_epochs_differ():
  images = make_images()
  orders = {
    tuple(
      np.concatenate(
        [b['index'] for b in data.batches(images, 23, seed=seed, start=epoch, num_steps=1)]
      )
    )
    for seed in range(4)
    for epoch in range(4)
  }
  assert len(orders) == 16


def test_first_permutation_is_pinned():
  """Raw Philox words are the same in every numpy: a run can be repeated years later."""
  batch = next(data.batches(make_images(), 23, seed=0))
  words = np.random.Philox(key=np.zeros(2, np.uint64)).random_raw(N)
  np.testing.assert_array_equal(batch['index'], np.argsort(words))
  assert batch['index'][:5].tolist() == [0, 21, 2, 11, 20]


def test_augmentation_does_not_depend_on_the_batch_size_or_the_subset():
  images = make_images(24)
  sizes = [
    by_image(data.batches(images, b, seed=5, num_steps=24 // b, augment='crop_flip'))
    for b in (1, 4, 24)
  ]
  rows = np.array([17, 2, 5])
  part = data.Images(images.images[rows], images.labels[rows], images.index[rows])
  few = by_image(data.batches(part, 3, seed=5, num_steps=1, augment='crop_flip'))
  for i in range(24):
    np.testing.assert_array_equal(sizes[0][i], sizes[1][i])
    np.testing.assert_array_equal(sizes[0][i], sizes[2][i])
  for i in rows.tolist():
    np.testing.assert_array_equal(few[i], sizes[0][i])


def test_augmentation_differs_between_epochs_and_images():
  images = make_images(1)
  seen = {
    b['x'].tobytes() for b in data.batches(images, 1, seed=0, num_steps=60, augment='crop_flip')
  }
  assert len(seen) > 20  # Of 162 views; fewer than 21 distinct among 60 draws is < 1e-20.


@pytest.mark.parametrize('augment, pad, flips', [('crop', 2, 1), ('crop_flip', 4, 2)])
@pytest.mark.parametrize('shape', [(8, 8, 3), (7, 5, 1)])
def test_crop_and_flip_against_one_image_at_a_time(augment, pad, flips, shape):
  k = 2 * pad + 1
  total = k * k * flips
  rng = np.random.default_rng(1)
  x = rng.integers(1, 256, (total, *shape), dtype=np.uint8)
  words = np.arange(total, dtype=np.uint64) + np.uint64(total * 1000)  # Every view once.
  out = data.AUGMENT[augment](x, words)
  for i in range(total):
    row, column, mirrored = i % k, i // k % k, i // k**2
    h, w, _ = shape
    view = np.pad(x[i], ((pad, pad), (pad, pad), (0, 0)))[row : row + h, column : column + w]
    np.testing.assert_array_equal(out[i], view[:, ::-1] if mirrored else view)


def test_offsets_and_flips_are_uniform():
  words = _batches._words(7, 3, 1, 50_000)
  counts = np.bincount((words % np.uint64(162)).astype(int), minlength=162)
  chi2 = ((counts - 50_000 / 162) ** 2 / (50_000 / 162)).sum()
  assert chi2 < 161 + 5 * np.sqrt(2 * 161)  # False alarm below 1e-5; the key is fixed.


@pytest.mark.parametrize('ahead', [1, 4])
def test_prefetch_gives_the_same_batches(ahead):
  images = make_images()
  plain = data.batches(images, BATCH, seed=6, num_steps=9, augment='crop')
  assert_equal(
    plain, data.batches(images, BATCH, seed=6, num_steps=9, augment='crop', prefetch=ahead)
  )


def test_prefetch_raises_what_the_thread_raised_in_its_place():
  def items():
    yield 1
    raise KeyError('disk')

  ahead = data.prefetch(items())
  assert next(ahead) == 1
  with pytest.raises(KeyError, match='disk'):
    next(ahead)
  with pytest.raises(StopIteration):
    next(ahead)


def test_prefetch_ends_its_thread_when_dropped_and_stays_bounded():
  before, made = threading.active_count(), []

  def endless():
    for i in itertools.count():
      made.append(i)
      yield i

  ahead = data.prefetch(endless(), size=2)
  assert [next(ahead), next(ahead)] == [0, 1]
  assert threading.active_count() == before + 1
  closing = threading.Thread(target=ahead.close, daemon=True)
  closing.start()
  closing.join(timeout=10)
  assert not closing.is_alive(), 'closing waits for a thread that was never told to stop'
  assert threading.active_count() == before
  assert len(made) <= 2 + 2 + 2  # Taken, waiting, one in each hand.


@pytest.mark.parametrize(
  'kwargs, words',
  [
    ({'batch_size': 24}, '1 .. 23'),
    ({'batch_size': 0}, '1 .. 23'),
    ({'seed': -1}, '`seed`'),
    ({'start': -1}, '`start`'),
    ({'augment': 'crop_flp'}, "Did you mean 'crop_flip'"),
    ({'num_steps': -2}, '`num_steps`'),
    ({'prefetch': -1}, '`prefetch`'),
  ],
)
def test_wrong_arguments_are_refused_at_once(kwargs, words):
  arguments = {'batch_size': 4, 'seed': 0, **kwargs}
  with pytest.raises(ValueError, match=words):
    data.batches(make_images(), **arguments)  # Before the first `next`.


@pytest.mark.parametrize('n, size', [(10, 4), (8, 4), (3, 4), (1, 1)])
def test_padding_and_mask_give_the_exact_accuracy(n, size):
  images = make_images(n)
  correct = total = 0
  guess = (images.images[:, 0, 0, 0] % 10).astype(np.int32)
  shapes, seen = set(), []
  for batch, mask in data.eval_batches(images, size):
    shapes.add(batch['x'].shape)
    hit = batch['x'][:, 0, 0, 0] % 10 == batch['y']
    correct, total = correct + int((hit & mask).sum()), total + int(mask.sum())
    np.testing.assert_array_equal(batch['x'], images.images[batch['index']])
    seen += batch['index'][mask].tolist()
  assert seen == list(range(n))
  assert shapes == {(size, 8, 8, 3)}
  assert (correct, total) == (int((guess == images.labels).sum()), n)


@pytest.mark.parametrize(
  'batch, words',
  [
    ({'x': np.zeros(3), 'y': np.zeros(2)}, 'as many rows'),
    ({'x': np.zeros(5)}, '1 .. 4 rows, got 5'),
    ({'x': np.zeros(0)}, 'got 0'),
  ],
)
def test_batches_that_cannot_be_padded(batch, words):
  with pytest.raises(ValueError, match=words):
    data.pad_batch(batch, 4)
