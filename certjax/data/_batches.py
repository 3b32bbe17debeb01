"""Training batches in plain numpy: deterministic, resumable, independent of the batch size.

Everything random is a pure function of (seed, epoch, dataset index): the raw 64-bit words of
Philox, a counter-based generator, keyed by (seed, epoch). Raw words stay the same in every numpy
version, which `Generator`'s distributions do not promise. So step t can be made without the steps
before it, and a resumed run sees what an uninterrupted one would have seen, bit for bit.
"""

import operator
from collections.abc import Iterator

import numpy as np

from certjax.data._augment import AUGMENT, DECODED
from certjax.data._load import Images
from certjax.data._prefetch import prefetch as run_ahead
from certjax.data._source import Source
from certjax.data._table import choose

_PERMUTATION, _AUGMENTATION = 0, 1  # Disjoint streams of one key.


def batches(
  images: Images | Source,
  batch_size: int,
  *,
  seed: int,
  start: int = 0,
  num_steps: int | None = None,
  augment: str | None = None,
  prefetch: int = 0,
  rows=None,
) -> Iterator[dict[str, np.ndarray]]:
  """Batches of training steps start, start + 1, ...

  Step t lies in epoch t // (N // batch_size). An epoch is a permutation of the images; the last
  N % batch_size of it are dropped (others in each epoch). Augmentation depends on seed, epoch and
  dataset index, so it is the same for every batch size, and for a subset of the images.

  Args:
    images: what `load` returned, or a `source`, whose images are decoded batch by batch (use
      `prefetch` then).
    batch_size: images a batch, at most N.
    seed: int in [0, 2^64).
    start: first step; resuming at t continues as if never interrupted.
    num_steps: how many batches; default without end.
    augment: a key of `AUGMENT`: 'crop_flip' (CIFAR's recipe: 4 pixels of zero padding, random
      crop, horizontal flip), 'crop' (2 pixels, for MNIST-like sets); for photographs, ImageNet's
      recipe 'random_resized_crop' (8% to 100% of the area, aspect 3/4 to 4/3, horizontal flip); or
      None.
    prefetch: batches that a background thread makes ahead; 0 means no thread.
    rows: int[R], which rows of every batch to make; default all. Nothing else is decoded.

  Returns:
    An iterator of dicts: x uint8[B, H, W, C], y int32[B], index int32[B] (or R rows of them).

  Raises:
    ValueError: for a batch size, seed, start, number of steps or augmentation out of range.

  Example:
    >>> images = Images(np.zeros((5, 8, 8, 1), np.uint8), np.zeros(5, np.int32), np.arange(5))
    >>> first, second, third = batches(images, 2, seed=0, num_steps=3)
    >>> len({*first['index'].tolist(), *second['index'].tolist()})
    4
    >>> resumed = next(batches(images, 2, seed=0, start=2))
    >>> bool((resumed['index'] == third['index']).all())
    True
  """
  _check(images, batch_size, seed, start, num_steps, prefetch)
  if augment is not None:
    _check_augment(images, augment)
  rows = slice(None) if rows is None else np.asarray(rows)
  made = _batches(images, batch_size, seed, start, num_steps, augment, rows)
  return run_ahead(made, prefetch) if prefetch else made


def steps_per_epoch(num_images: int, batch_size: int) -> int:
  """Full batches in one pass over the images.

  Args:
    num_images: int, how many there are.
    batch_size: int, images a batch.

  Returns:
    int, the rest of the images dropped.

  Raises:
    ValueError: where not even one batch fills.

  Example:
    >>> steps_per_epoch(50_000, 128)
    390
  """
  if not 1 <= batch_size <= num_images:
    raise ValueError(f'`batch_size` must lie in 1 .. {num_images} (the images), got {batch_size}.')
  return num_images // batch_size


def _batches(images, batch_size, seed, start, num_steps, augment, rows):
  count = num_images(images)
  per_epoch = steps_per_epoch(count, batch_size)
  all_indices = np.arange(count) if isinstance(images, Source) else images.index
  epoch, step, order, words = None, start, np.arange(count), None
  while num_steps is None or step < start + num_steps:
    if step // per_epoch != epoch:
      epoch = step // per_epoch
      order = np.argsort(_words(seed, epoch, _PERMUTATION, count), kind='stable')
      words = _words(seed, epoch, _AUGMENTATION, int(all_indices.max()) + 1) if augment else None
    chosen = order[step % per_epoch * batch_size :][:batch_size][rows]
    index = all_indices[chosen]
    drawn = None if words is None else words[index]
    x, y = _take(images, chosen, drawn if augment in DECODED else None)
    x = AUGMENT[augment](x, drawn) if augment in AUGMENT else x
    yield {'x': x, 'y': y.astype(np.int32), 'index': index.astype(np.int32)}
    step += 1


def num_images(images) -> int:
  """How many images an `Images` or a `Source` holds.

  Args:
    images: an `Images` or a `Source`.

  Example:
    >>> num_images(Images(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, np.int32), np.arange(3)))
    3
  """
  return len(images) if isinstance(images, Source) else len(images.labels)


def _take(images, rows, words):
  """uint8[B, H, W, C] and int[B] of some rows; `words` cut photographs at random."""
  if not isinstance(images, Source):
    return images.images[rows], images.labels[rows]
  x, y = zip(*images.examples(rows, words), strict=True)
  return np.stack(x), np.array(y)


def _words(seed, epoch, stream, count) -> np.ndarray:
  """uint64[count]; word i depends on (seed, epoch, stream, i) alone, not on `count`."""
  key = np.array([seed, epoch], np.uint64)
  return np.random.Philox(key=key, counter=[0, 0, 0, stream]).random_raw(count)


def _check_augment(images, augment):
  choose('augment', augment, (*AUGMENT, *DECODED))
  if augment in DECODED and not (isinstance(images, Source) and images.spec.is_photographs):
    raise ValueError(
      f'`augment`={augment!r} is for photographs that are decoded batch by batch (imagenet2012, '
      f'imagenet100, imagefolder): for images of one size choose {", ".join(AUGMENT)}.'
    )


def _check(images, batch_size, seed, start, num_steps, prefetch):
  steps_per_epoch(num_images(images), batch_size)
  if not 0 <= operator.index(seed) < 2**64:
    raise ValueError(f'`seed` must lie in [0, 2^64), got {seed}.')
  for argument, value in {'start': start, 'num_steps': num_steps, 'prefetch': prefetch}.items():
    if value is not None and operator.index(value) < 0:
      raise ValueError(f'`{argument}` must not be negative, got {value}.')
