"""One hash that tells the images of a run from all others, without reading most of them."""

import numpy as np

from certjax import records
from certjax.data._load import Images
from certjax.data._stream import Stream, take

_EDGE = 100  # First and last images that are hashed.


def fingerprint(images: Images | Stream) -> str:
  """SHA-256 of the first and last 100 decoded images, their labels and indices.

  Args:
    images: all images of a run.

  Example:
    >>> images = Images(np.zeros((3, 2, 2, 1), np.uint8), np.zeros(3, np.int32), np.arange(3))
    >>> fingerprint(images) == fingerprint(images._replace(index=np.arange(1, 4)))
    False
  """
  edge = np.unique(np.r_[: len(images.index)][np.r_[:_EDGE, -_EDGE:0] % len(images.index)])
  ends = take(images, edge)
  return records.fingerprint({'images': ends.images, 'labels': ends.labels, 'index': ends.index})
