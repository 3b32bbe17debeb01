"""Views that show one window of the image and hide the rest: what bands and blocks share.

A pixel v of the window is shown as the channels (v, 1 - v), every other one as (0, 0), which no
grey level is: black and hidden stay apart. Or as (v, 1) and (0, 0): the last channel says what is seen.
Windows start at every place of an axis, or every few, and wrap around
its end, so that each pixel lies in as many windows as any other (if the stride divides the axis). A view
votes for each class whose softmax reaches `theta`: for several, or for none.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from certjax.certify import (
  patch_from_counts,
  patch_from_places,
  patch_from_votes,
  windows_at_places,
  windows_met,
)
from certjax.smoothing._protocol import Views, image_shape

_THETA = 0.2  # Of the authors' scripts.
# A float32 softmax errs by half a unit, 2^-24, for each of its K terms, and by |z| <= 100 of them for
# an exponential exp(z) that can reach theta; here sixteen times as much, for two programs and the logarithms.
_ROUNDING, _TERMS = 2.0**-20, 100


def window_views(sizes, shape, patch, theta, top_one, per_location, null, stride) -> Views:
  """`Views` of all windows of one size.

  Args:
    sizes: (name of the argument, height, width) of a window; None spans the axis.
    shape: (H, W, C) of the images.
    patch, theta, top_one, per_location, null, stride: as in `bands`.

  Raises:
    ValueError: for a size that is no whole number of pixels, or too large for the image; for a
      `theta` outside (0, 1), or one beside `top_one`; for an unknown `null`, or a bad `stride`.
  """
  shape = check_shape(shape)
  windows = tuple(_window(sizes[0], *each) for each in zip(sizes[1:], shape, strict=False))
  spans = [size == length for size, length in zip(windows, shape, strict=False)]
  stride = _check_stride(stride, [n for n, span in zip(shape, spans, strict=False) if not span])
  positions = tuple(1 if span else -(-n // stride) for n, span in zip(shape, spans, strict=False))
  if null not in _NULLS:
    raise ValueError(f'`null` must be one of {", ".join(_NULLS)}, got {null!r}.')
  num_views, encode = math.prod(positions), jax.tree_util.Partial(_NULLS[null])
  numbers = [np.int32(number) for number in (*windows, positions[1], stride)]
  return Views(
    num_views=num_views,
    norm='patch',
    unit='patch side',
    shape=shape,
    view=jax.tree_util.Partial(_view, encode, *numbers),
    sample=jax.tree_util.Partial(_sample, np.int32(num_views), encode, *numbers),
    decide=_rule(positions, windows, stride, check_side(patch, shape), shape, per_location),
    needs='votes' if per_location else 'counts',
    **votes_of(theta, top_one),
  )


def _rule(positions, windows, stride, patch, shape, per_location):
  """`decide`: by the votes at each place of the patch, or by their counts."""
  sides = range(1, patch + 1)
  if stride == 1:
    affected = [math.prod(map(windows_met, (side, side), windows, positions)) for side in sides]
    where = {'positions': positions, 'windows': windows, 'patch': patch}
    by_votes = functools.partial(patch_from_votes, **where)
  else:
    axes = list(zip(windows, shape, strict=False))
    met = [[windows_at_places(side, *axis, stride) for axis in axes] for side in sides]
    # The most over both axes at once, since a place of the patch is any pair of places.
    affected = [math.prod(int(axis.sum(axis=1).max()) for axis in both) for both in met]
    by_votes = functools.partial(patch_from_places, met=met)
  return by_votes if per_location else functools.partial(patch_from_counts, affected=affected)


def check_shape(shape) -> tuple:
  """(H, W, C), or a ValueError."""
  shape = image_shape(shape)
  if len(shape) != 3:
    raise ValueError(f'`shape` must be the shape of an image, (H, W, C), got shape={shape}.')
  return shape


def _window(name, size, length):
  """Pixels of a window along an axis."""
  if size is None:
    return length
  if not 1 <= size < math.inf or size != int(size):
    raise ValueError(f'`{name}` must be a whole number of pixels, 1 or more, got {size}.')
  if size >= length:
    raise ValueError(
      f'`{name}` must be smaller than the image, which has {length} pixels there, got {size:g}: a '
      f'window that shows everything certifies nothing.'
    )
  return int(size)


def _check_stride(stride, lengths):
  """Pixels between the starts of windows that lie side by side."""
  most = min(lengths) - 1
  if isinstance(stride, str) or not 1 <= stride <= most or stride != int(stride):
    raise ValueError(
      f'`stride` must be a whole number of pixels, so that two windows start in the image: 1 .. {most}, '
      f'got {stride}.'
    )
  return int(stride)


def check_side(patch, shape):
  """The largest side of a patch to try: by default that of the image."""
  most = min(shape[:2])
  if patch is None:
    return most
  if isinstance(patch, str) or not 1 <= patch <= most or patch != int(patch):
    raise ValueError(
      f'`patch` is the side of a square in whole pixels, and must lie in the image: 1 .. {most}, got '
      f'{patch}.'
    )
  return int(patch)


def votes_of(theta, top_one) -> dict[str, Any]:
  """The fields `vote` and `doubt`."""
  if top_one:
    if theta is not None:
      raise ValueError(f'`theta`={theta} has no meaning with `top_one`: give one of them.')
    return {'vote': jax.tree_util.Partial(_top_one), 'doubt': jax.tree_util.Partial(_top_one_doubt)}
  theta = _THETA if theta is None else theta
  if isinstance(theta, str) or not 0 < theta < 1:
    raise ValueError(f'`theta` is the softmax that a vote needs, between 0 and 1, got {theta}.')
  theta = np.float32(theta)
  return {
    'vote': jax.tree_util.Partial(_above, theta),
    'doubt': jax.tree_util.Partial(_above_doubt, theta),
  }


def _view(encode, height, width, columns, stride, x, index):
  """The view of the window whose first pixel is (index // columns, index % columns) strides away."""
  seen = _inside(index // columns * stride, height, x.shape[0])[:, None, None]
  seen = seen & _inside(index % columns * stride, width, x.shape[1])[None, :, None]
  return encode(seen, x)


def encoded(seen, x):
  """(x, 1 - x) where a pixel is seen, bool[H, W, 1] or less, and zeros in all channels elsewhere."""
  return jnp.where(seen, jnp.concatenate([x, 1 - x], axis=-1), jnp.zeros((), x.dtype))


def _with_mask(seen, x):
  """(x, 1) where a pixel is seen, bool[H, W, 1] or less, and zeros in all channels elsewhere."""
  shown = jnp.concatenate([x, jnp.ones((*x.shape[:2], 1), x.dtype)], axis=-1)
  return jnp.where(seen, shown, jnp.zeros((), x.dtype))


_NULLS = {'multichannel': encoded, 'mask': _with_mask}


def _inside(first, size, length):
  """bool[length], which pixels of an axis a window shows, around its end."""
  return (jnp.arange(length, dtype=jnp.int32) - first) % length < size


def _sample(num_views, encode, height, width, columns, stride, key, x):
  index = jax.random.randint(key, (), 0, num_views, jnp.int32)
  return _view(encode, height, width, columns, stride, x, index)


def _above(theta, logits):
  return jax.nn.softmax(logits, axis=-1) >= theta.astype(logits.dtype)


def _above_doubt(theta, logits, slack):
  """Log odds move by less than slack where logits move by less than slack / 2."""
  p, theta = jax.nn.softmax(logits, axis=-1), theta.astype(logits.dtype)
  odds = lambda p: jnp.log(p) - jnp.log1p(-p)
  rounding = _ROUNDING * (logits.shape[-1] + _TERMS) / (1 - theta)
  return ~(jnp.abs(odds(p) - odds(theta)) > slack + rounding)


def _top_one(logits):
  """One vote, for the largest logit; the lowest class of equals, nobody where one is NaN."""
  whole = ~jnp.any(jnp.isnan(logits), axis=-1, keepdims=True)
  return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool) & whole


def _top_one_doubt(logits, slack):
  """Each logit against the largest of the others."""
  if logits.shape[-1] == 1:
    return jnp.zeros(logits.shape, bool)
  two = jax.lax.top_k(logits, 2)[0]
  rival = jnp.where(_top_one(logits), two[..., 1:], two[..., :1])
  return ~(jnp.abs(logits - rival) > slack)
