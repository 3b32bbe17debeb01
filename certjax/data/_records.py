"""Encoded examples out of TFDS' ArrayRecord files, and pixels out of their bytes.

No TensorFlow. Pillow decodes, here and not in TFDS: TFDS takes OpenCV where it happens to be
installed, whose JPEGs differ in the last bit, while certificates are tied to the exact pixels.
Every way a file can be broken ends in a ValueError of one line.
"""

import io
from pathlib import Path

import numpy as np

from certjax.data._photograph import random_resized_crop, resize_and_crop
from certjax.data._store import one_line
from certjax.data._table import Dataset

_RESIZE = 256


class Records:
  """One split of a prepared data set: `read(rows)` gives encoded images and labels.

  Attributes:
    folder: where it lies, `<data_dir>/<name>/<version>`.
  """

  def __init__(self, folder: Path, tfds_split: str):
    import tensorflow_datasets as tfds

    self.folder = folder
    encoded = {'image': tfds.decode.SkipDecoding()}
    try:
      builder = tfds.builder_from_directory(str(folder))
      # The decorator that TFDS logs by hides the arguments from checkers.
      self._source = builder.as_data_source(tfds_split, decoders=encoded)  # pyright: ignore[reportCallIssue]
    except Exception as error:  # Protobuf's, TFDS' and ArrayRecord's own types: no common base.
      raise self.corrupt(error) from error

  def __len__(self) -> int:
    return len(self._source)

  def read(self, rows) -> list[tuple[bytes, int]]:
    """Encoded image and label of each row, read in one call (twice as fast as one by one)."""
    try:
      records = self._source.__getitems__([int(row) for row in rows])
      return [(record['image'], int(record['label'])) for record in records]
    except Exception as error:  # ArrayRecord raises RuntimeError, protobuf its own types.
      raise self.corrupt(error) from error

  def decode(self, encoded: bytes, spec: Dataset, word=None) -> np.ndarray:
    """uint8[H, W, C] from the bytes of an image; see `decode_image`."""
    try:
      return decode_image(encoded, spec, word)
    except (OSError, SyntaxError, ValueError) as error:  # What Pillow raises on broken bytes.
      raise self.corrupt(error) from error

  def corrupt(self, error) -> ValueError:
    """The one line for a data set that cannot be read."""
    return ValueError(
      f'cannot read {self.folder}: {one_line(error)}. Delete the folder and prepare it again.'
    )


def decode_image(encoded: bytes, spec: Dataset, word=None) -> np.ndarray:
  """uint8[H, W, C] from the bytes of a PNG or JPEG; Pillow's exceptions for broken ones.

  Args:
    encoded: the bytes.
    spec: of the data set.
    word: uint64 that chooses a window of a photograph, for training; None takes the centre.
  """
  from PIL import Image

  mode = 'L' if spec.shape[-1] == 1 else 'RGB'
  with Image.open(io.BytesIO(encoded)) as image:
    if image.mode != mode:  # A few ImageNet files are CMYK or grey.
      image = image.convert(mode)
    if word is not None:
      image = random_resized_crop(image, spec.shape[:2], word)
    elif spec.is_photographs:
      image = resize_and_crop(image, _RESIZE, spec.shape[:2])
    pixels = np.asarray(image)
  pixels = pixels[..., None] if mode == 'L' else pixels
  if pixels.shape != spec.shape:
    raise ValueError(f'an image has shape {pixels.shape}, {spec.name} has {spec.shape}')
  return pixels
