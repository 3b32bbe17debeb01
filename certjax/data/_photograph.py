"""Photographs of any size cut to a network's: the centre to evaluate, anywhere to train.

Both follow torchvision on Pillow images, with which the published ImageNet models were trained and
certified.
"""

import math

import numpy as np

_AREA = (0.08, 1.0)  # Of the photograph.
_ASPECT = (3 / 4, 4 / 3)  # Width by height.
_TRIES = 10


def resize_and_crop(image, resize: int, shape: tuple[int, int]):
  """Shorter side to `resize` (bilinear, antialiased), then the central (height, width) cut out.

  The sizes are rounded as in torchvision's `Resize` and `CenterCrop`.
  """
  width, height = image.size
  short = min(width, height)
  width, height = int(resize * width / short), int(resize * height / short)
  if image.size != (width, height):
    image = _resized(image, (width, height))
  top, left = round((height - shape[0]) / 2), round((width - shape[1]) / 2)
  return image.crop((left, top, left + shape[1], top + shape[0]))


def random_resized_crop(image, shape: tuple[int, int], word):
  """A window at a random place and of a random size, resized to `shape`; half of them mirrored.

  Args:
    image: a Pillow image.
    shape: (height, width) of the result.
    word: uint64 that decides everything.

  Returns:
    A Pillow image.
  """
  from PIL import Image

  *numbers, mirrored = _uniform(word, 4 * _TRIES + 1)
  image = _resized(image.crop(window(*image.size, numbers)), shape[::-1])
  return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored < 0.5 else image


def window(width, height, numbers):
  """The window of `random_resized_crop`, as Pillow's (left, top, right, bottom).

  Its area is uniform in 8% to 100% of the photograph's, the logarithm of its aspect uniform between
  those of 3/4 and 4/3; the first of ten draws that fits counts. If none does, it is the centre, as
  large as an aspect in that range allows.

  Args:
    width, height: of the photograph.
    numbers: uniform in [0, 1), four for each draw: area, aspect, left, top.

  Example:
    >>> window(400, 300, [0.5, 0.5, 0.0, 1 - 1e-9] * 10)
    (0, 45, 255, 300)
  """
  low, high = map(math.log, _ASPECT)
  for area, aspect, left, top in zip(*[iter(numbers)] * 4, strict=True):
    area = width * height * (_AREA[0] + area * (_AREA[1] - _AREA[0]))
    aspect = math.exp(low + aspect * (high - low))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      left, top = int(left * (width - w + 1)), int(top * (height - h + 1))
      return left, top, left + w, top + h
  w = min(width, round(height * _ASPECT[1]))
  h = min(height, round(width / _ASPECT[0]))
  left, top = (width - w) // 2, (height - h) // 2
  return left, top, left + w, top + h


def _uniform(word, count) -> list[float]:
  """`count` numbers in [0, 1) of 53 bits, the same in every version of numpy."""
  raw = np.random.Philox(key=np.array([word, 0], np.uint64)).random_raw(count)
  return ((raw >> np.uint64(11)) * 2.0**-53).tolist()


def _resized(image, size):
  from PIL import Image

  return image.resize(size, Image.Resampling.BILINEAR)
