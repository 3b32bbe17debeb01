"""Random access to decoded examples, for data sets that do not fit in memory.

imagenet100 is a view of imagenet2012: the examples whose label is 0, 10, ..., 990, relabelled
0 .. 99 and numbered from 0. Finding them means reading every label once.
"""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from certjax.data._folder import FolderRecords
from certjax.data._records import Records
from certjax.data._store import is_prepared, locate, prepare
from certjax.data._table import IMAGE_FOLDER, Dataset, choose, dataset

BLOCK = 1_000
"""Examples read from disk in one call."""


class Source:
  """The decoded examples of one split: `len(source)`, `source[i] -> (image, label)`.

  Attributes:
    spec: the row of the data set in `DATASETS`.
    split: 'train' or 'test'.

  Example:
    >>> import tempfile
    >>> from certjax import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   digits = data.source('digits', 'test', folder)
    ...   len(digits), digits[499][1]
    (500, 8)
  """

  def __init__(self, spec: Dataset, split: str, data_dir=None):
    self.spec, self.split = spec, split
    if spec.name == IMAGE_FOLDER.name:
      self._records = FolderRecords(data_dir, split)
    else:
      self._records = Records(locate(spec.name, data_dir), spec.splits[split])
    self._rows = None if spec.class_stride == 1 else _rows_of_classes(self._records, spec, split)

  def __len__(self) -> int:
    return len(self._records if self._rows is None else self._rows)

  def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
    if not 0 <= i < len(self):
      raise IndexError(f'{self.spec.name} {self.split} has {len(self)} images, got index {i}')
    return next(self.examples([i]))

  def examples(self, index, words=None):
    """Yields the (image, label) of each entry of `index`, in order; faster than one by one.

    With `words`, uint64 for each, photographs are cut at a random place and size for training.

    Small PNGs are decoded in this thread: threads only contend for the interpreter lock (measured
    15,000 images/s with one, 9,000 with two). Photographs go to a pool.
    """
    rows = index if self._rows is None else self._rows[np.asarray(index)]
    encoded, labels = zip(*self._records.read(rows), strict=True)
    with contextlib.ExitStack() as stack:
      parallel = map
      if not self.spec.fits_in_memory and len(encoded) > 1:
        parallel = stack.enter_context(ThreadPoolExecutor(os.cpu_count())).map
      decode = lambda data, word: self._records.decode(data, self.spec, word)
      images = parallel(decode, encoded, [None] * len(encoded) if words is None else words)
      for image, label in zip(images, labels, strict=True):
        yield image, label // self.spec.class_stride


def source(name: str, split: str, data_dir=None) -> Source:
  """Opens a split for random access.

  ImageNet's photographs come out as 224 x 224: shorter side resized to 256 (Pillow's bilinear,
  antialiased), central 224 x 224 cut out, as torchvision's `Resize(256)` and `CenterCrop(224)` do
  to a Pillow image. Opening imagenet100 reads every label of imagenet2012 once (long for the
  training split) and keeps them in a small file in the data folder, if that can be written.

  Args:
    name: a key of `DATASETS`, or 'imagefolder'. The digits are prepared on first use.
    split: 'train' or 'test' (for ImageNet, the 50,000 validation images).
    data_dir: folder of TFDS data sets; default `default_data_dir()`. For 'imagefolder' the directory
      that holds train/CLASS/*.jpeg and validation/CLASS/*.jpeg, or class folders alone (test).

  Returns:
    A `Source`: `len(source)`, and `source[i] -> (uint8[H, W, C], int label)`, which raises
    IndexError outside 0 .. len - 1.

  Raises:
    ValueError: for an unknown name or split, a data set that is not prepared, a corrupt file.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   digits = source('digits', 'test', folder)
    ...   image, label = digits[0]
    >>> len(digits), image.shape, label
    (500, (8, 8, 1), 0)
  """
  spec = dataset(name, data_dir)
  choose('split', split, spec.splits)
  if spec.prepared_by == 'certjax' and not is_prepared(name, data_dir):
    prepare(name, data_dir)
  return Source(spec, split, data_dir)


def _rows_of_classes(records, spec, split) -> np.ndarray:
  """The rows on disk whose label is a multiple of the class stride."""
  version = records.folder
  cache = version.parents[1] / f'.certjax-{version.parent.name}-{version.name}-{split}-labels.npy'
  labels = _read_cache(cache, len(records))
  if labels is None:
    blocks = range(0, len(records), BLOCK)
    ends = [(start, min(start + BLOCK, len(records))) for start in blocks]
    labels = np.array([y for a, b in ends for _, y in records.read(range(a, b))], np.int16)
    _write_cache(cache, labels)
  return np.flatnonzero(labels % spec.class_stride == 0)


def _read_cache(path: Path, length: int):
  with contextlib.suppress(OSError, ValueError, EOFError):
    labels = np.load(path)
    return labels if labels.shape == (length,) else None
  return None


def _write_cache(path: Path, labels):
  temporary = path.with_suffix(f'.{os.getpid()}.npy')
  with contextlib.suppress(OSError):
    np.save(temporary, labels)
    os.replace(temporary, path)
