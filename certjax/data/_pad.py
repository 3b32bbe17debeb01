"""Ragged last batches, padded to the one shape that is compiled, with a mask for exact sums."""

from collections.abc import Iterator

import numpy as np

from certjax.data._load import Images


def pad_batch(batch: dict[str, np.ndarray], size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Fills a batch up to `size` rows with copies of row 0.

  A real row keeps every value in range (no zero image, no label -1); the mask keeps it out of
  sums and means.

  Args:
    batch: arrays of n rows each, 1 <= n <= size.
    size: rows of the result.

  Returns:
    The padded batch, and mask bool[size], True for the real rows.

  Raises:
    ValueError: if the arrays differ in length or n is outside 1 .. size.

  Example:
    >>> batch, mask = pad_batch({'y': np.array([7, 8])}, 4)
    >>> batch['y'].tolist(), mask.tolist()
    ([7, 8, 7, 7], [True, True, False, False])
  """
  lengths = {name: len(array) for name, array in batch.items()}
  n = next(iter(lengths.values()), 0)
  if set(lengths.values()) - {n}:
    raise ValueError(f'all arrays of a batch must have as many rows, got {lengths}.')
  if not 1 <= n <= size:
    raise ValueError(f'a batch to be padded must have 1 .. {size} rows, got {n}.')
  rows = np.where(np.arange(size) < n, np.arange(size), 0)
  return {name: np.asarray(array)[rows] for name, array in batch.items()}, np.arange(size) < n


def eval_batches(
  images: Images, batch_size: int
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
  """All images once, in order, in batches of one fixed shape.

  Args:
    images: what `load` returned.
    batch_size: rows of every batch.

  Returns:
    An iterator of (batch, mask): dict(x uint8[B, H, W, C], y int32[B], index int32[B]) and
    bool[B]; only the last mask has False entries.

  Raises:
    ValueError: if `batch_size` is below 1.

  Example:
    >>> images = Images(np.zeros((5, 8, 8, 1), np.uint8), np.zeros(5, np.int32), np.arange(5))
    >>> [int(mask.sum()) for _, mask in eval_batches(images, 2)]
    [2, 2, 1]
  """
  if batch_size < 1:
    raise ValueError(f'`batch_size` must be at least 1, got {batch_size}.')
  return _eval_batches(images, batch_size)


def _eval_batches(images, batch_size):
  for start in range(0, len(images.labels), batch_size):
    rows = slice(start, start + batch_size)
    batch = {
      'x': images.images[rows],
      'y': images.labels[rows].astype(np.int32),
      'index': images.index[rows].astype(np.int32),
    }
    yield pad_batch(batch, batch_size)
