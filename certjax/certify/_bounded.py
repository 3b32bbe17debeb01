"""The method "bounds on the network" as the method table and the records see it: no noise, no samples."""

import math
from typing import NamedTuple

BOUNDS = ('ibp', 'crown-ibp', 'crown')
_NORMS = ('linf', 'l2', 'l1')
_SLOPES = ('adaptive', 'same', 'zero', 'one')


class Bounded(NamedTuple):
  """A certificate by bounds on the network's margins over a ball (`bounds.verify`).

  It has neither `sample` nor `radius`: nothing perturbs the image.

  Attributes:
    norm: of the ball.
    unit: of the radius.
    shape: None: images of every shape.
    eps: the radius that is tried.
    bound: one of `BOUNDS`, or that of `patch_ibp` or `sparse_ibp`, which use no further attribute.
    largest: whether to look for the largest radius up to `eps`, by bisection.
    slope: of the lower line of an unstable ReLU, for linear bounds.
    num_steps: ascent steps on the slopes, for linear bounds.
    chunk: rows of one backward pass.
  """

  norm: str
  unit: str
  shape: tuple | None
  eps: float
  bound: str
  largest: bool
  slope: str
  num_steps: int
  chunk: int


def bounded(
  *, eps=None, norm='linf', bound='crown', largest=False, slope='adaptive', num_steps=0, chunk=1024
) -> Bounded:
  """Bounds on the network over the ball of radius eps, cut to [0, 1], as a method.

    certified   if   min over the ball of f_y - f_j > 0   for all j != y, by a lower bound

  Args:
    eps: radius in pixel values; of `largest` the most that is tried.
    norm: 'linf', 'l2' or 'l1'.
    bound: 'ibp' (intervals), 'crown-ibp' (linear bounds through intermediate intervals) or 'crown'.
    largest: whether to look for the largest radius of each image.
    slope: 'adaptive', 'same' (that of Wong & Kolter's dual), 'zero' or 'one'; not of 'ibp'.
    num_steps: ascent steps on the slopes (alpha-CROWN); not of 'ibp'.
    chunk: rows of one backward pass, to bound memory.

  Returns:
    A `Bounded`; `evaluate.bounded_network` and `evaluate.bounded_certificate` prove it.

  Raises:
    ValueError: for an unknown name or a number out of range.

  Example:
    >>> bounded(eps=0.1, bound='ibp').norm
    'linf'

  References:
    Gowal et al. 2018 (arXiv:1810.12715); Zhang et al. 2018 (arXiv:1811.00866).
  """
  for name, value, known in (
    ('bound', bound, BOUNDS),
    ('norm', norm, _NORMS),
    ('slope', slope, _SLOPES),
  ):
    if value not in known:
      raise ValueError(f'`{name}` must be one of {", ".join(known)}; got {value!r}.')
  if eps is None:
    raise ValueError('say the radius to verify, in pixel values: `--eps 0.1`, or `eps=0.1`.')
  if not 0 < eps < math.inf:
    raise ValueError(f'`eps` must be positive and finite, got {eps}.')
  if norm == 'linf' and eps > 1:
    raise ValueError(
      f'`eps` is in pixel values of [0, 1], got {eps}: for grey levels divide by 255.'
    )
  for name, value, least in (('num_steps', num_steps, 0), ('chunk', chunk, 1)):
    if value < least or value != int(value):
      raise ValueError(f'`{name}` must be a whole number, {least} or more, got {value}.')
  if bound == 'ibp' and (slope != 'adaptive' or num_steps):
    raise ValueError('`slope` and `num_steps` are of linear bounds: choose `method` crown.')
  return Bounded(
    norm, 'pixel value', None, float(eps), bound, bool(largest), slope, int(num_steps), int(chunk)
  )
