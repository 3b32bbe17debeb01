"""What attacks did to images, as one picture: original, adversarial image, difference."""

from typing import Any, NamedTuple

import numpy as np

_SIDE = 112  # Pixels that an image is magnified to, about: by whole numbers, so that its pixels stay what they are.
_GAP, _TITLE, _CAPTION, _MARGIN = 4, 24, 16, 130  # Pixels.
_DPI = 100
_ROWS = ('original', 'adversarial', 'difference')


class Shown(NamedTuple):
  """Images that one attack broke.

  Attributes:
    title: of the attack and its size.
    index: int[M], in the data set.
    labels, predict: int[M], before and after; -1 is an abstention.
    originals, adversarials: float[M, H, W, C] in [0, 1], C = 1 or 3.
  """

  title: str
  index: Any
  labels: Any
  predict: Any
  originals: Any
  adversarials: Any


def plot_attacked(attacks, path, *, num_images=8):
  """Draws three rows an attack: originals, adversarial images, and scaled differences.

    difference shown = 1/2 + scale (x_adv - x),   scale = 1 / (2 max |x_adv - x|) over the row

  so that grey is no change; the scale stands beside the row, and above each image its index, its label and
  what the classifier says after the attack.

  Args:
    attacks: a list of `Shown`, of images of one shape.
    path: of the PNG; see `grid_pixels` for its size.
    num_images: columns; places without an image stay white.

  Raises:
    ValueError: without an attack, without an image, for more images than columns, other shapes, or values
      outside [0, 1].
    OSError: if it cannot be written.

  Example:
    >>> import os, tempfile
    >>> x, one = np.full((1, 4, 4, 1), 0.5), np.arange(1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   plot_attacked([Shown('pgd', one, one, one + 1, x, x + 0.1)], os.path.join(folder, 'a.png'), num_images=1)
    ...   os.listdir(folder)
    ['a.png']
  """
  from matplotlib.figure import Figure  # No pyplot: no global state, no display.

  if not attacks:
    raise ValueError('`attacks` is empty: a picture needs at least one.')
  shape = attacks[0].originals.shape[1:]
  for shown in attacks:
    _check(shown, shape, num_images)
  width, height = grid_pixels(len(attacks), num_images, shape)
  figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
  for number, shown in enumerate(attacks):
    top = number * _block(shape)
    _write(figure, _GAP, top + _TITLE / 2, shown.title, 9)
    for column, texts in enumerate(zip(shown.index, shown.labels, shown.predict, strict=True)):
      left = _MARGIN + column * (_cell(shape)[1] + _GAP)
      _write(figure, left, top + _TITLE + _CAPTION / 2, _caption(*texts), 7)
    scale = _scale(shown)
    changed = np.clip(0.5 + scale * (_wide(shown.adversarials) - _wide(shown.originals)), 0, 1)
    rows = (shown.originals, shown.adversarials, changed)
    for row, (name, images) in enumerate(zip(_ROWS, rows, strict=True)):
      y = top + _TITLE + _CAPTION + row * (_cell(shape)[0] + _GAP)
      said = f'{name}\ntimes {scale:.3g}' if name == 'difference' else name
      _write(figure, _GAP, y + _cell(shape)[0] / 2, said, 8)
      for column, image in enumerate(images):
        _draw(figure, image, _MARGIN + column * (_cell(shape)[1] + _GAP), y)
  figure.savefig(path, format='png')


def grid_pixels(num_attacks, num_images, shape):
  """(width, height) in pixels of the picture of `plot_attacked`.

  Args:
    num_attacks, num_images: blocks of three rows, and columns.
    shape: (H, W, C) of an image.

  Returns:
    (int, int).

  Example:
    >>> grid_pixels(1, 8, (28, 28, 1))
    (1058, 388)
  """
  return _MARGIN + num_images * (_cell(shape)[1] + _GAP), num_attacks * _block(shape)


def _check(shown, shape, num_images):
  if not len(shown.originals):
    raise ValueError(f'{shown.title}: the attack broke no image, and there is nothing to draw.')
  if len(shown.originals) > num_images:
    raise ValueError(
      f'{shown.title}: `num_images` must be at least its {len(shown.originals)} images, got {num_images}.'
    )
  for name in ('originals', 'adversarials'):
    images = getattr(shown, name)
    if images.shape != (len(shown.originals), *shape) or shape[-1] not in (1, 3):
      raise ValueError(
        f'{shown.title}: `{name}` must have shape {(len(shown.originals), *shape)} with 1 or 3 channels, '
        f'got {images.shape}: draw other images apart.'
      )
    if not ((images >= 0) & (images <= 1)).all():  # NaN is not inside.
      raise ValueError(
        f'{shown.title}: `{name}` must lie in [0, 1], got {images.min()} to {images.max()}.'
      )


def _cell(shape):
  """(height, width) in pixels of an image, magnified by a whole number."""
  times = max(1, _SIDE // max(shape[:2]))
  return times * shape[0], times * shape[1]


def _block(shape):
  """Height in pixels of an attack."""
  return _TITLE + _CAPTION + len(_ROWS) * (_cell(shape)[0] + _GAP)


def _wide(images):
  return np.asarray(images, np.float64)


def _scale(shown):
  largest = np.abs(_wide(shown.adversarials) - _wide(shown.originals)).max()
  return 0.5 / largest if largest > 0 else 1.0


def _caption(index, label, predict):
  return f'{index}: {label} \N{RIGHTWARDS ARROW} {"-" if predict < 0 else predict}'


def _write(figure, x, y, text, size):
  """Text that begins at x and has its middle at y, in pixels from the upper left corner."""
  width, height = figure.bbox.size
  figure.text(x / width, 1 - y / height, text, fontsize=size, va='center')


def _draw(figure, image, x, y):
  """An image with its upper left corner at (x, y), every pixel a square of one colour."""
  height = _cell(image.shape)[0]
  levels = np.rint(255 * _wide(image)).astype(
    np.uint8
  )  # Not by a colour map, which would round once more.
  times, colours = height // len(image), 3 // image.shape[-1]
  large = levels.repeat(times, axis=0).repeat(times, axis=1).repeat(colours, axis=2)
  figure.figimage(large, x, figure.bbox.height - y - height, origin='upper')
