"""Images one after the other, decoded as they are asked for: a certification needs no more."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from certjax.data._check import check_images, check_labels
from certjax.data._load import Images, _check_indices
from certjax.data._prefetch import prefetch
from certjax.data._source import Source

_BLOCK = 64  # Images decoded together; two blocks wait in memory.


class Stream(NamedTuple):
  """Some images of a split that stay on the disk.

  Attributes:
    source: the split.
    index: int64[N], positions in the split.
  """

  source: Source
  index: np.ndarray


def stream(source: Source, indices=None) -> Stream:
  """Images of a split, to be decoded as `rows` asks for them.

  Args:
    source: from `data.source`.
    indices: int[N], the images, in this order; default all.

  Raises:
    ValueError: for indices out of range.

  Example:
    >>> import tempfile
    >>> from certjax import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   images = stream(data.source('digits', 'test', folder), [0, 499])
    ...   [(image.shape, label, index) for image, label, index in rows(images)]
    [((8, 8, 1), 0, 0), ((8, 8, 1), 8, 499)]
  """
  where = f'{source.spec.name} {source.split}'
  return Stream(source, _check_indices(indices, len(source), where))


def rows(images: Images | Stream) -> Iterator[tuple[np.ndarray, int, int]]:
  """Yields (uint8[H, W, C], label, index in the split) of each image, in order.

  Args:
    images: an `Images` or a `Stream`.

  Raises:
    ValueError: on pixels or labels that are none of the data set's, a corrupt file.

  Example:
    >>> images = Images(np.zeros((2, 8, 8, 1), np.uint8), np.array([3, 1]), np.array([0, 20]))
    >>> [(image.shape, label, index) for image, label, index in rows(images)]
    [((8, 8, 1), 3, 0), ((8, 8, 1), 1, 20)]
  """
  if isinstance(images, Images):
    yield from zip(images.images, images.labels.tolist(), images.index.tolist(), strict=True)
    return
  starts = range(0, len(images.index), _BLOCK)
  for block in prefetch(take(images, slice(start, start + _BLOCK)) for start in starts):
    yield from rows(block)


def take(images: Images | Stream, positions) -> Images:
  """Some of the images, in memory.

  Args:
    images: an `Images` or a `Stream`.
    positions: int[M] or a slice, of 0 .. N - 1.

  Returns:
    An `Images`.

  Raises:
    ValueError: as `rows`.

  Example:
    >>> images = Images(np.zeros((3, 8, 8, 1), np.uint8), np.array([3, 1, 7]), np.array([0, 20, 40]))
    >>> take(images, [0, 2]).index
    array([ 0, 40])
  """
  if isinstance(images, Images):
    return Images(*(array[positions] for array in images))
  spec, split = images.source.spec, images.source.split
  index = images.index[positions]
  pixels, labels = zip(*images.source.examples(index), strict=True)
  check_images(np.stack(pixels), name=f'{spec.name} {split}', shape=spec.shape)
  labels = np.array(labels, np.int32)
  check_labels(labels, spec.num_classes, name=f'{spec.name} {split} labels')
  return Images(np.stack(pixels), labels, index)
