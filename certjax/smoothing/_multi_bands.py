"""Several bands at once (derandomized smoothing against patches): every choice of a few is a view."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from certjax.certify import patch_from_counts
from certjax.smoothing._protocol import Views
from certjax.smoothing._windows import check_shape, check_side, encoded, votes_of

_MOST_VIEWS = 2**20


def multi_bands(*, width, keep, shape, patch=None, theta=None, top_one=False) -> Views:
  r"""All choices of `keep` from the image's bands, and an exact certificate against patches.

  The columns fall into n = W / s bands that do not overlap; a view shows k of them, as (x, 1 - x), and
  (0, 0) elsewhere. A patch of side m touches at most B = ceil((m - 1) / s) + 1 bands, so that

    a = C(n, k) - C(n - B, k)

  views change, and the vote is certified by the rule of counts (`certify.patch_from_counts`). Votes are
  those of `bands`.

  Args:
    width: s, columns of a band; it divides W.
    keep: k, bands that a view shows, fewer than there are.
    shape: (H, W, C) of the images.
    patch, theta, top_one: as in `bands`.

  Returns:
    `Views` in norm 'patch', unit 'patch side'. The model sees 2 C channels.

  Raises:
    ValueError: unless `width` divides W, 1 <= `keep` < n, and there are at most 2^20 views; and as `bands`.

  Example:
    >>> views = multi_bands(width=2, keep=2, shape=(28, 28, 1), patch=5)
    >>> views.num_views, views.decide([82, 10])  # a = 91 - C(11, 2) = 36 views.
    (91, Certificate(label=array(0), radius=array(5.)))

  References:
    Levine & Feizi 2020 (arXiv:2002.10733).
  """
  shape = check_shape(shape)
  if not 1 <= width <= shape[1] or shape[1] % width:
    raise ValueError(f'`width` must divide the {shape[1]} columns of the image, got {width}.')
  number = shape[1] // int(width)
  if not 1 <= keep < number or keep != int(keep):
    raise ValueError(
      f'`keep` must be fewer than the {number} bands of the image, a whole number, got {keep}.'
    )
  num_views = math.comb(number, int(keep))
  if num_views > _MOST_VIEWS:
    raise ValueError(
      f'`keep`={int(keep)} of {number} bands makes {num_views} views, more than {_MOST_VIEWS}: take wider bands.'
    )
  choices = itertools.combinations(range(number), int(keep))
  shown = np.zeros((num_views, number), bool)
  for row, choice in zip(shown, choices, strict=True):
    row[list(choice)] = True
  touched = [
    min(-(-(side - 1) // int(width)) + 1, number) for side in range(1, check_side(patch, shape) + 1)
  ]
  return Views(
    num_views=num_views,
    norm='patch',
    unit='patch side',
    shape=shape,
    view=jax.tree_util.Partial(_view, shown),
    sample=jax.tree_util.Partial(_sample, shown),
    decide=functools.partial(
      patch_from_counts,
      affected=[num_views - math.comb(number - bands, int(keep)) for bands in touched],
    ),
    needs='counts',
    **votes_of(theta, top_one),
  )


def _view(shown, x, index):
  columns = jnp.repeat(jnp.asarray(shown)[index], x.shape[1] // shown.shape[1])
  return encoded(columns[None, :, None], x)


def _sample(shown, key, x):
  return _view(shown, x, jax.random.randint(key, (), 0, len(shown), jnp.int32))
