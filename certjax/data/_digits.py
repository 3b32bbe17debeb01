"""scikit-learn's digits as a TFDS data set: real images that need no download.

1,797 handwritten digits of 8 x 8 pixels with grey values 0 .. 16, written once as PNG bytes into
ArrayRecord files in the TFDS layout, without TensorFlow. Train is the first 1,297 images and test
the last 500, in scikit-learn's order: the images come writer by writer, so a split by position
puts other writers into the test set, while a random one would leak near-duplicates of the same
hand into training (and report a test accuracy that is too good).
"""

import contextlib
import io
import logging
import os
from pathlib import Path

import numpy as np

NUM_TRAIN = 1_297
_VERSION = '1.0.0'


def digits_arrays() -> tuple[np.ndarray, np.ndarray]:
  """uint8[1797, 8, 8, 1] images, grey level v of 0 .. 16 as round(v * 255 / 16), and labels."""
  from sklearn.datasets import load_digits

  x, y = load_digits(return_X_y=True)
  images = np.round(np.reshape(x, (-1, 8, 8, 1)) * 255 / 16).astype(np.uint8)
  return images, np.asarray(y, np.int32)


def write_digits(data_dir) -> None:
  """Writes the data set below `data_dir` unless another process has done so meanwhile.

  Safe against processes that prepare at once: one holds a file lock while it writes, and TFDS
  renames a finished temporary folder, so a reader sees all of it or nothing.
  """
  data_dir = Path(data_dir)
  data_dir.mkdir(parents=True, exist_ok=True)
  finished = data_dir / 'digits' / _VERSION
  with _lock(data_dir / '.certjax-digits.lock'):
    if finished.exists():
      return
    try:
      with _quiet():
        _builder(data_dir).download_and_prepare()
    except OSError:
      if not finished.exists():  # Else: lost a race on a file system without locks.
        raise


def _builder(data_dir):
  import tensorflow_datasets as tfds

  # `skip_registration`: importing certjax adds no name to TFDS' registry.
  class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """scikit-learn's 8 x 8 digits."""

    VERSION = tfds.core.Version(_VERSION)
    url_infos = None  # Nothing to download; TFDS would look for checksums beside this file.

    def _info(self):
      features = tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(8, 8, 1)),
          'label': tfds.features.ClassLabel(num_classes=10),
        }
      )
      return tfds.core.DatasetInfo(
        builder=self,
        description=self.__doc__,
        features=features,
        supervised_keys=('image', 'label'),
        disable_shuffling=True,  # Index i on disk is index i in scikit-learn.
      )

    def _split_generators(self, dl_manager):
      return {
        'train': self._generate_examples(0, NUM_TRAIN),
        'test': self._generate_examples(NUM_TRAIN, None),
      }

    def _generate_examples(self, start, stop):
      images, labels = digits_arrays()
      for i, (image, label) in enumerate(zip(images[start:stop], labels[start:stop], strict=True)):
        yield i, {'image': io.BytesIO(_png(image)), 'label': int(label)}

  return Digits(data_dir=str(data_dir), file_format='array_record')


def _png(image) -> bytes:
  from PIL import Image

  buffer = io.BytesIO()
  Image.fromarray(image[..., 0]).save(buffer, 'PNG')
  return buffer.getvalue()


@contextlib.contextmanager
def _quiet():
  """No progress bars, prints or log lines of TFDS: errors still come as exceptions."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      yield
  finally:
    logger.setLevel(level)


@contextlib.contextmanager
def _lock(path):
  """An exclusive lock between processes, where the platform and file system have one."""
  with open(path, 'w') as file:
    with contextlib.suppress(ImportError, OSError):
      import fcntl

      fcntl.flock(file, fcntl.LOCK_EX)
    yield
    # Closing releases the lock. The file stays: deleting it would let two holders in.
    os.utime(path)
