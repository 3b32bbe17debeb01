"""The pixels and labels a user hands in, checked before anything is traced.

Every certificate is a statement about pixel values in [0, 1]; an image in 0 .. 255 or normalised by
mean and std would get a radius in the wrong unit without any error. The classic mistakes are named.
"""

import numpy as np

_MAX_GREY = 255


def check_images(x, *, name: str = 'x', shape: tuple[int, int, int] | None = None) -> np.ndarray:
  r"""Checks a batch of images: uint8, or float in [0, 1], NHWC.

  Args:
    x: uint8 or float[N, H, W, C], the images.
    name: what to call them in errors.
    shape: (H, W, C) expected, if known.

  Returns:
    `x` as a numpy array, unchanged.

  Raises:
    ValueError: names the argument, the rule, the value (and the first bad position) and the remedy.

  Example:
    >>> check_images(np.full((1, 8, 8, 1), 17.0))
    Traceback (most recent call last):
      ...
    ValueError: `x` must lie in [0, 1], got 17.0 at [0, 0, 0, 0] (range 17.0 .. 17.0): these look
    like grey levels, divide by 255.
  """
  x = np.asarray(x)
  if x.dtype != np.uint8 and x.dtype.kind != 'f' and x.dtype.name != 'bfloat16':
    raise ValueError(
      f'`{name}` must be uint8 (0 .. 255) or float (in [0, 1]), got {x.dtype}: convert with '
      '`.astype(np.uint8)` if the values are grey levels.'
    )
  _check_shape(x, name, shape)
  if x.dtype != np.uint8:
    check_pixels(x, name=name)
  return x


def check_labels(y, num_classes: int, *, name: str = 'y') -> np.ndarray:
  """Checks labels: integers in 0 .. num_classes - 1, one an image.

  Args:
    y: int[N], the labels.
    num_classes: number of classes.
    name: what to call them in errors.

  Returns:
    int32[N].

  Raises:
    ValueError: names the argument, the rule, the value, its position and the remedy.

  Example:
    >>> check_labels([3, 9], 10)
    array([3, 9], dtype=int32)
  """
  y = np.asarray(y)
  if y.ndim != 1:
    raise ValueError(
      f'`{name}` must be one label an image, got shape {y.shape}: take the argmax of one-hot rows.'
    )
  if y.dtype.kind not in 'iu':
    raise ValueError(f'`{name}` must be integers, got {y.dtype}: convert with `.astype(np.int32)`.')
  bad = np.flatnonzero((y < 0) | (y >= num_classes))
  if bad.size:
    one_based = y.min() == 1 and y.max() == num_classes
    remedy = 'they seem to count from 1, subtract 1' if one_based else 'drop or relabel such images'
    raise ValueError(
      f'`{name}` must lie in 0 .. {num_classes - 1}, got {y[bad[0]]} at [{bad[0]}]: {remedy}.'
    )
  return y.astype(np.int32)


def to_float(images) -> np.ndarray:
  """uint8 grey levels as float32 in [0, 1]: x / 255, correctly rounded.

  Args:
    images: uint8[...].

  Returns:
    float32[...].

  Raises:
    ValueError: for any other dtype, because dividing twice goes unnoticed.

  Example:
    >>> to_float(np.array([0, 51, 255], np.uint8))
    array([0. , 0.2, 1. ], dtype=float32)
  """
  images = np.asarray(images)
  if images.dtype != np.uint8:
    raise ValueError(f'`images` must be uint8, got {images.dtype}: floats need no conversion.')
  return images.astype(np.float32) / np.float32(_MAX_GREY)


def _check_shape(x, name, shape):
  expected = 'NHWC' if shape is None else f'NHWC with (H, W, C) = {tuple(shape)}'
  if x.ndim == 3:
    raise ValueError(
      f'`{name}` must be {expected}, got shape {x.shape}: add a batch axis `x[None]` to one image, '
      'or a channel axis `x[..., None]` to a batch of grey ones.'
    )
  if x.ndim != 4:
    raise ValueError(f'`{name}` must be {expected}, got shape {x.shape}: reshape to four axes.')
  if not x.size:
    raise ValueError(f'`{name}` must hold at least one image, got shape {x.shape}.')
  channels_first = x.shape[1] in (1, 3) and x.shape[3] not in (1, 3)
  if channels_first and (shape is None or x.shape[1:] != tuple(shape)):
    raise ValueError(
      f'`{name}` must be {expected}, got shape {x.shape}, which looks like NCHW: use '
      '`x.transpose(0, 2, 3, 1)`.'
    )
  if shape is not None and x.shape[1:] != tuple(shape):
    raise ValueError(f'`{name}` must be {expected}, got shape {x.shape}: resize or choose others.')


def check_pixels(x, *, name: str = 'x') -> None:
  """Checks values of pixels, in an array of any shape: in [0, 1], without NaN.

  Args:
    x: uint8 or float[...].
    name: what to call it in errors.

  Raises:
    ValueError: names the value, its position, and the usual mistake that it looks like.

  Example:
    >>> check_pixels(np.array([[0.0, 1.0]]))
    >>> check_pixels(np.array([[-1.0, 1.0]]))
    Traceback (most recent call last):
      ...
    ValueError: `x` must lie in [0, 1], got -1.0 at [0, 0] (range -1.0 .. 1.0): these look like [-1, 1], \
use `(x + 1) / 2`.
  """
  x = np.asarray(x)
  values = x.astype(np.float32) if x.dtype.itemsize < 4 else x  # float16 and bfloat16.
  if np.isnan(values).any():
    raise ValueError(
      f'`{name}` must hold no NaN, found one at {_first(np.isnan(values))}: drop or repair image '
      f'{_first(np.isnan(values))[0]}.'
    )
  outside = (values < 0) | (values > 1)
  if outside.any():
    where, low, high = _first(outside), values.min(), values.max()
    raise ValueError(
      f'`{name}` must lie in [0, 1], got {values[tuple(where)]} at {where} '
      f'(range {low} .. {high}): {_range_remedy(low, high)}.'
    )


def _range_remedy(low, high) -> str:
  if low >= 0 and 2 < high <= _MAX_GREY:
    return 'these look like grey levels, divide by 255'
  if -0.01 < low and high < 1.01:
    return 'just outside, clip with `np.clip(x, 0, 1)`'
  if -1 <= low and high <= 1:
    return 'these look like [-1, 1], use `(x + 1) / 2`'
  return 'undo any normalisation by mean and std, which is the first layer of the model here'


def _first(mask) -> list[int]:
  return [int(i) for i in np.unravel_index(int(mask.argmax()), mask.shape)]
