"""The method "sums of local features" as the method table and the records see it: no noise, no samples."""

from typing import NamedTuple

AGGREGATIONS = ('masking', 'clipping')
_SIDE = 5  # Of the patch, unless another is given.


class Masked(NamedTuple):
  """A certificate of a network of small receptive field against patches (PatchGuard).

  It has neither `sample` nor `radius`: nothing perturbs the image.

  Attributes:
    norm: 'patch'.
    unit: of the radius.
    shape: (H, W, C) of the images, or None for images of every shape.
    patch: side that the masks are made for, and the largest that is certified.
    aggregation: 'masking' (`patch_from_masking`) or 'clipping' (`patch_from_clipping`).
    threshold: of masking.
  """

  norm: str
  unit: str
  shape: tuple | None
  patch: int
  aggregation: str
  threshold: float


def masked(*, patch=_SIDE, aggregation='masking', threshold=0.0, shape=None) -> Masked:
  r"""Sums of local features that a patch cannot turn, as a method.

    label = argmax over c of S_c - max over windows of the sum in the window     ('masking')
    label = argmax over c of the sum of tanh(features / 20 - 1)                  ('clipping')

  A window is as large as the most cells that a patch of side `patch` meets (`cells_met`). The rule of
  masking depends on that side, and so do its labels; the radius is the largest side up to it that is
  certified.

  Args:
    patch: side of the patch in pixels.
    aggregation: 'masking' (robust masking) or 'clipping' (clipped BagNet).
    threshold: T of masking in [0, 1), in whole thousandths: a window is left out if it holds more than
      this share of a class's sum.
    shape: (H, W, C) of the images.

  Returns:
    A `Masked`; `evaluate.masked_network` and `evaluate.masked_certificate` prove it.

  Raises:
    ValueError: for an unknown name or a number out of range.

  Example:
    >>> masked(patch=5).unit
    'patch side'

  References:
    Xiang et al. 2021 (arXiv:2005.10884), PatchGuard.
  """
  if aggregation not in AGGREGATIONS:
    raise ValueError(
      f'`aggregation` must be one of {", ".join(AGGREGATIONS)}; got {aggregation!r}.'
    )
  most = float('inf') if shape is None else min(shape[:2])
  if not 1 <= patch < float('inf') or patch != int(patch) or patch > most:
    sides = '1 or more' if shape is None else f'1 .. {most}'
    raise ValueError(f'`patch` must be a whole number of pixels, {sides}, got {patch}.')
  if not 0 <= threshold < 1:
    raise ValueError(f'`threshold` must lie in [0, 1), got {threshold}: 0 masks every class.')
  if aggregation == 'clipping' and threshold:
    raise ValueError('`threshold` is of masking: leave it out, or choose `aggregation` masking.')
  shape = None if shape is None else tuple(shape)
  return Masked('patch', 'patch side', shape, int(patch), aggregation, float(threshold))
