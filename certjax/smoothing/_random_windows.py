"""Random bands and blocks: the votes over windows of (de)randomized smoothing, sampled instead of enumerated.

A patch of m pixels meets a(m) of the V windows, so no class's probability changes by more than a / V, and
p_a - p_b > 2 a / V proves the label. It pays where the windows are too many to evaluate: an image of
224 x 224 has 50,176 blocks. Enumerated, the same windows prove more, and for certain.
"""

import functools
import math
from fractions import Fraction

from certjax.certify import windows_met
from certjax.smoothing._ablation import largest_change
from certjax.smoothing._bands import bands
from certjax.smoothing._blocks import blocks
from certjax.smoothing._protocol import Smoothing
from certjax.smoothing._windows import check_side


def random_bands(*, width, shape, patch=None, axis='column', null='multichannel') -> Smoothing:
  r"""Shows a random band of columns, or rows, and lets the largest logit vote.

    radius = max {m : p_a - p_b > 2 min(m + width - 1, W) / W}

  A radius of 0 is a certificate too, of the image itself; where nothing is proved the label abstains.

  Args:
    width, shape, patch, axis, null: as in `bands`.

  Returns:
    A `Smoothing` in norm 'patch', unit 'patch side'; p_a and p_b as floats are taken exactly (p_a - p_b
    is rounded down).

  Raises:
    ValueError: as `bands`; or if one pixel meets half of the bands, and nothing can be certified.

  Example:
    >>> random_bands(width=2, shape=(28, 28, 1)).radius([0.5, 0.6, 0.75, 1.0]).tolist()
    [0.0, 1.0, 5.0, 12.0]

  References:
    Levine & Feizi 2020 (arXiv:2002.10733), whose threshold for p_a is 1/2 + (m + width - 1) / W.
  """
  views = bands(width=width, shape=shape, patch=patch, axis=axis, null=null, per_location=False)
  length = views.shape[axis == 'column']
  return _sampled(views, patch, lambda side: windows_met(side, int(width), length))


def random_blocks(*, size, shape, patch=None, null='multichannel') -> Smoothing:
  r"""Shows a random block, and lets the largest logit vote.

    radius = max {m : p_a - p_b > 2 min(m + size - 1, H) min(m + size - 1, W) / (H W)}

  A radius of 0 is a certificate too, of the image itself; where nothing is proved the label abstains.

  Args:
    size, shape, patch, null: as in `blocks`.

  Returns:
    A `Smoothing` as `random_bands`.

  Raises:
    ValueError: as `blocks`.

  Example:
    >>> random_blocks(size=16, shape=(224, 224, 3)).radius(0.6).tolist()
    55.0

  References:
    Levine & Feizi 2020 (arXiv:2002.10733).
  """
  views = blocks(size=size, shape=shape, patch=patch, null=null, per_location=False)
  met = lambda side: math.prod(windows_met(side, int(size), length) for length in views.shape[:2])
  return _sampled(views, patch, met)


def _sampled(views, patch, met):
  """The law that draws one of the views; `met(side)` of them are touched by a patch."""
  sides = range(1, check_side(patch, views.shape) + 1)
  changes = tuple(Fraction(met(side), views.num_views) for side in sides)
  if 2 * changes[0] >= 1:
    raise ValueError(
      f'a patch of one pixel meets {met(1)} of these {views.num_views} windows: nothing can be certified '
      f'unless it meets fewer than half; take smaller ones.'
    )
  radius = functools.partial(largest_change, (Fraction(0), *changes))
  return Smoothing(
    views.sample,
    lambda p_a, p_b=None, *, x=None: radius(p_a, p_b),
    views.norm,
    views.unit,
    views.shape,
  )
