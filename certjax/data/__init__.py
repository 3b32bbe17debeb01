"""Data sets: a table, TFDS' files without TensorFlow, deterministic batches, checks on pixels.

Importing this package loads numpy only; TFDS, Pillow and scikit-learn are imported where used.
"""

from certjax.data._augment import AUGMENT, DECODED
from certjax.data._batches import batches, num_images, steps_per_epoch
from certjax.data._check import check_images, check_labels, check_pixels, to_float
from certjax.data._fingerprint import fingerprint
from certjax.data._load import Images, load, subset
from certjax.data._pad import eval_batches, pad_batch
from certjax.data._prefetch import prefetch
from certjax.data._source import Source, source
from certjax.data._store import Status, default_data_dir, is_prepared, prepare, status
from certjax.data._stream import Stream, rows, stream, take
from certjax.data._table import DATASETS, Dataset, dataset

__all__ = [
  'AUGMENT',
  'DATASETS',
  'DECODED',
  'Dataset',
  'Images',
  'Source',
  'Status',
  'Stream',
  'batches',
  'check_images',
  'check_labels',
  'check_pixels',
  'dataset',
  'default_data_dir',
  'eval_batches',
  'fingerprint',
  'is_prepared',
  'load',
  'num_images',
  'pad_batch',
  'prefetch',
  'prepare',
  'rows',
  'source',
  'status',
  'steps_per_epoch',
  'stream',
  'subset',
  'take',
  'to_float',
]
