"""Training augmentation of uint8 batches: random crops and flips. (Photographs are augmented as
they are decoded: `_photograph.py`.)

Vectorised over the batch. One random 64-bit word an image decides everything, in mixed radix:
row offset, column offset, flip. (The bias, of order 81 / 2^64, is out of reach.)
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np


def crop_flip(x, words, *, pad: int, flip: bool) -> np.ndarray:
  """Zero padding, random crop back to size, horizontal flip of every other image.

  Args:
    x: uint8[B, H, W, C].
    words: uint64[B], one random word an image.
    pad: pixels added on each side.
    flip: whether to mirror half of the images.

  Returns:
    uint8[B, H, W, C], a new array.

  Example:
    >>> x = np.arange(1, 5, dtype=np.uint8).reshape(1, 1, 4, 1)
    >>> crop_flip(x, np.array([1 + 3 * 2], np.uint64), pad=1, flip=False).ravel().tolist()
    [2, 3, 4, 0]
  """
  offsets = np.uint64(2 * pad + 1)
  row, column = words % offsets, words // offsets % offsets
  x = _crop(x, pad, row.astype(np.intp), column.astype(np.intp))
  if flip:
    mirrored = words // offsets**2 % np.uint64(2) == 1
    x[mirrored] = x[mirrored, :, ::-1]
  return x


def _crop(x, pad, row, column):
  """The H x W window at (row, column) of each padded image, as one gather of whole pixel rows."""
  b, h, w, c = x.shape
  padded = np.zeros((b, h + 2 * pad, w + 2 * pad, c), x.dtype)
  padded[:, pad : pad + h, pad : pad + w] = x
  image, line, pixel, value = padded.strides
  windows = np.lib.stride_tricks.as_strided(
    padded,
    shape=(b, 2 * pad + 1, 2 * pad + 1, h, w * c),
    strides=(image, line, pixel, line, value),
    writeable=False,
  )
  return windows[np.arange(b), row, column].reshape(b, h, w, c)


AUGMENT: Mapping[str, Callable] = MappingProxyType(
  {
    'crop_flip': functools.partial(crop_flip, pad=4, flip=True),
    'crop': functools.partial(crop_flip, pad=2, flip=False),
  }
)
"""Name -> function of (uint8[B, H, W, C], uint64[B])."""

DECODED = ('random_resized_crop',)
"""Names of what is done to a photograph as it is decoded, before it has a fixed size."""
