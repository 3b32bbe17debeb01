"""Whole splits, decoded into memory: at 10,000 small images a second no cache is needed."""

import operator
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from certjax.data._source import BLOCK, source
from certjax.data._table import dataset


class Images(NamedTuple):
  """Decoded images in memory.

  Attributes:
    images: uint8[N, H, W, C].
    labels: int32[N].
    index: int64[N], position in the split: the identity that noise, augmentation and records
      are keyed by.
  """

  images: np.ndarray
  labels: np.ndarray
  index: np.ndarray


def load(
  name: str,
  split: str,
  *,
  data_dir=None,
  indices=None,
  progress: Callable[[int, int], None] | None = None,
) -> Images:
  """Decodes a split, or some of its images, into memory. The digits are prepared on first use.

  Args:
    name: a key of `DATASETS`, or 'imagefolder'.
    split: 'train' or 'test'.
    data_dir: as in `source`.
    indices: int[N], the images to load, in this order; default all. See `subset`.
    progress: called as `progress(done, total)` after every block of images.

  Returns:
    `Images`: uint8[N, H, W, C], int32[N] labels and int64[N] indices. ImageNet's are resized and
    cropped as `source` says, and imagenet100 has its own numbering.

  Raises:
    ValueError: for an unknown name or split, indices out of range, a data set that is not
      prepared or does not fit in memory as a whole, a corrupt file.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   images = load('digits', 'test', data_dir=folder, indices=[0, 499])
    >>> images.images.shape, images.labels.tolist()
    ((2, 8, 8, 1), [0, 8])
  """
  spec = dataset(name)
  if indices is None and not spec.fits_in_memory:
    raise ValueError(
      f'{name} does not fit in memory: pass `indices` (see `data.subset`) or use `data.source`.'
    )
  examples = source(name, split, data_dir)
  index = _check_indices(indices, len(examples), f'{name} {split}')
  images = np.empty((len(index), *spec.shape), np.uint8)
  labels = np.empty(len(index), np.int32)
  done = 0
  for start in range(0, len(index), BLOCK):
    for image, label in examples.examples(index[start : start + BLOCK]):
      images[done], labels[done] = image, label
      done += 1
    if progress is not None:
      progress(done, len(index))
  return Images(images, labels, index)


def subset(
  num_total: int, *, skip: int = 1, max_images: int | None = None, evenly: int | None = None
) -> np.ndarray:
  """Indices of part of a data set: every `skip`-th image, or `evenly` many with equal gaps.

  Args:
    num_total: size of the split.
    skip: keep images 0, skip, 2 skip, ... (Cohen et al. certify every 20th of CIFAR-10).
    max_images: keep at most this many of them, from the front.
    evenly: floor(i num_total / evenly) for i = 0 .. evenly - 1 instead; excludes the other two.

  Returns:
    int64[N], ascending and distinct.

  Raises:
    ValueError: where an argument is below 1, `evenly` exceeds `num_total`, or both ways are asked
      for.

  Example:
    >>> subset(10, skip=4), subset(10, skip=2, max_images=3), subset(10, evenly=4)
    (array([0, 4, 8]), array([0, 2, 4]), array([0, 2, 5, 7]))
  """
  given = {'num_total': num_total, 'skip': skip, 'max_images': max_images, 'evenly': evenly}
  for argument, value in given.items():
    if value is not None and operator.index(value) < 1:
      raise ValueError(f'`{argument}` must be at least 1, got {value}.')
  if evenly is None:
    return np.arange(0, num_total, skip, dtype=np.int64)[:max_images]
  if skip != 1 or max_images is not None:
    raise ValueError('`evenly` chooses the images by itself: leave `skip` and `max_images` out.')
  if evenly > num_total:
    raise ValueError(f'`evenly`={evenly} exceeds the {num_total} images there are.')
  return np.arange(evenly, dtype=np.int64) * num_total // evenly


def _check_indices(indices, num_total, where) -> np.ndarray:
  if indices is None:
    return np.arange(num_total, dtype=np.int64)
  index = np.asarray(indices)
  if index.ndim != 1 or not index.size or index.dtype.kind not in 'iu':
    raise ValueError(
      f'`indices` must be a non-empty list of integers, got {index.dtype} of shape {index.shape}.'
    )
  bad = index[(index < 0) | (index >= num_total)]
  if bad.size:
    raise ValueError(f'`indices` must lie in 0 .. {num_total - 1} ({where}), got {bad[0]}.')
  return index.astype(np.int64)
