"""Masks (PatchCleanser): every view hides one square of the image, or two, and shows the rest.

The squares are laid such that each square patch of side p lies inside one of them, wherever it is.
Along an axis of n pixels with k masks,

  s = ceil((n - p + 1) / k),   m = p + s - 1,   starts 0, s, 2 s, ..., and n - m.

A patch that starts at a, 0 <= a <= n - p, lies in the mask of the largest start t <= a: neighbouring
starts are no more than s apart and the last is n - p - s + 1, so that a <= t + s - 1 and
a + p <= t + m. What the views then prove is in `certify.double_masking_from_votes`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from certjax.certify import double_masking_from_votes
from certjax.smoothing._protocol import Views
from certjax.smoothing._windows import check_shape, votes_of


def masks(*, patch, shape, num_masks=6, fill=0.0) -> Views:
  r"""All pairs of masks over an image, and the certificate of double masking.

    view_ij(x) = `fill` inside mask i and mask j, x elsewhere;   i <= j, and i = j hides one mask alone

  k masks an axis make k^2 masks and k^2 (k^2 + 1) / 2 views: 666 for k = 6. Each view votes for its largest
  logit. The classifier is the whole inference of double masking over these votes
  (`certify.double_masking_from_votes`), and its label is proved against every patch of side p, or a
  smaller one, if all views vote for it.

  Args:
    patch: p, side of the patches, smaller than the image.
    shape: (H, W, C) of the images.
    num_masks: k, masks an axis, 2 or more. (Where p leaves few places, fewer do.)
    fill: what a hidden pixel shows, one number or one a channel. The paper shows the data set's mean, which
      normalisation maps to 0: give the mean for that.

  Returns:
    `Views` in norm 'patch', unit 'patch side': the radius is p, or 0 for the label alone. `sample` hides a
    random pair of masks.

  Raises:
    ValueError: unless 1 <= `patch` < min(H, W) and `num_masks` >= 2, whole numbers; for a `fill` that is not
      finite, or of another number of channels.

  Example:
    >>> views = masks(patch=5, shape=(28, 28, 1))
    >>> views.num_views, views.decide(np.ones((666, 1), bool))
    (666, Certificate(label=array(0), radius=array(5.)))

  References:
    Xiang, Mahloujifar & Mittal 2022 (arXiv:2108.09135).
  """
  shape = check_shape(shape)
  _check(patch, num_masks, shape)
  boxes = _boxes(int(patch), int(num_masks), shape)
  pairs = np.stack(np.triu_indices(len(boxes)), axis=1)
  tables = _fill(fill, shape[2]), boxes[pairs].astype(np.int32)
  return Views(
    num_views=len(pairs),
    norm='patch',
    unit='patch side',
    shape=shape,
    view=jax.tree_util.Partial(_view, *tables),
    sample=jax.tree_util.Partial(_sample, *tables),
    decide=functools.partial(double_masking_from_votes, patch=int(patch)),
    needs='votes',
    **votes_of(None, True),
  )


def axis_masks(length, patch, num_masks):
  """(size, starts) of the masks along an axis.

  Args:
    length: n, pixels of the axis.
    patch: p, pixels of the patch along it.
    num_masks: k, the most masks.

  Example:
    >>> axis_masks(28, 2, 6)
    (6, [0, 5, 10, 15, 20, 22])

  References:
    Xiang, Mahloujifar & Mittal 2022 (arXiv:2108.09135).
  """
  stride = -(-(length - patch + 1) // num_masks)
  size = patch + stride - 1
  return size, [*range(0, length - size, stride), length - size]


def _boxes(patch, num_masks, shape):
  """int[R, 2, 2]: (first, size) along both axes of each mask."""
  axes = []
  for length in shape[:2]:
    size, starts = axis_masks(length, patch, num_masks)
    axes.append([(start, size) for start in starts])
  return np.array([(row, column) for row in axes[0] for column in axes[1]])


def _view(fill, boxes, x, index):
  """The view that hides the two masks boxes[index]: int[2, 2, 2] of (mask, axis, (first, size))."""
  hidden = jnp.zeros(x.shape[:2], bool)
  for mask in jnp.asarray(boxes)[index]:
    rows, columns = (
      _inside(first, size, length) for (first, size), length in zip(mask, x.shape[:2], strict=True)
    )
    hidden = hidden | (rows[:, None] & columns[None])
  return jnp.where(hidden[..., None], fill.astype(x.dtype)[None, None], x)


def _inside(first, size, length):
  places = jnp.arange(length, dtype=jnp.int32)
  return (first <= places) & (places < first + size)


# Deviation: training hides a random pair of the masks that certify; the paper cuts out two squares of one
# fixed size anywhere.
def _sample(fill, boxes, key, x):
  return _view(fill, boxes, x, jax.random.randint(key, (), 0, len(boxes), jnp.int32))


def _check(patch, num_masks, shape):
  most = min(shape[:2]) - 1
  if isinstance(patch, str) or not 1 <= patch <= most or patch != int(patch):
    raise ValueError(
      f'`patch` is the side of a square in whole pixels, smaller than the image: 1 .. {most}, got {patch}.'
    )
  if isinstance(num_masks, str) or not 2 <= num_masks < np.inf or num_masks != int(num_masks):
    raise ValueError(
      f'`num_masks` must be a whole number, 2 or more (one mask an axis hides everything), got {num_masks}.'
    )


def _fill(fill, channels):
  """float32[C]."""
  colour = np.asarray(fill, np.float32)
  if colour.shape not in ((), (1,), (channels,)) or not np.isfinite(colour).all():
    raise ValueError(
      f'`fill` must be a pixel value, one number or one for each of {channels} channels, got {fill}.'
    )
  return np.broadcast_to(colour, (channels,))
