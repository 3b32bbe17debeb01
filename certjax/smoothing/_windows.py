"""Views that show one window of the image and hide the rest: what bands and blocks share.

A pixel v of the window is shown as the channels (v, 1 - v), every other one as (0, 0), which no
grey level is: black and hidden stay apart. Windows start at every place of an axis and wrap around
its end, so that each pixel lies in as many windows as any other. A view votes for
each class whose softmax reaches `theta`: for several, or for none.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from certjax.certify import patch_from_counts, patch_from_votes, windows_met
from certjax.smoothing._protocol import Views, image_shape

_THETA = 0.2  # Of the authors' scripts.
# A float32 softmax errs by half a unit, 2^-24, for each of its K terms, and by |z| <= 100 of them for
# an exponential exp(z) that can reach theta; here sixteen times as much, for two programs and the logarithms.
_ROUNDING, _TERMS = 2.0**-20, 100


def window_views(sizes, shape, patch, theta, top_one, per_location) -> Views:
  """`Views` of all windows of one size.

  Args:
    sizes: (name of the argument, height, width) of a window; None spans the axis.
    shape: (H, W, C) of the images.
    patch, theta, top_one, per_location: as in `bands`.

  Raises:
    ValueError: for a size that is no whole number of pixels, or too large for the image; for a
      `theta` outside (0, 1), or one beside `top_one`.
  """
  shape = check_shape(shape)
  windows = tuple(_window(sizes[0], *each) for each in zip(sizes[1:], shape, strict=False))
  positions = tuple(
    1 if size == length else length for size, length in zip(windows, shape, strict=False)
  )
  patch = check_side(patch, shape)
  affected = [
    math.prod(map(windows_met, (side, side), windows, positions)) for side in range(1, patch + 1)
  ]
  num_views = math.prod(positions)
  numbers = [np.int32(number) for number in (*windows, positions[1])]
  if per_location:
    decide = functools.partial(patch_from_votes, positions=positions, windows=windows, patch=patch)
  else:
    decide = functools.partial(patch_from_counts, affected=affected)
  return Views(
    num_views=num_views,
    norm='patch',
    unit='patch side',
    shape=shape,
    view=jax.tree_util.Partial(_view, *numbers),
    sample=jax.tree_util.Partial(_sample, np.int32(num_views), *numbers),
    decide=decide,
    needs='votes' if per_location else 'counts',
    **votes_of(theta, top_one),
  )


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


def votes_of(theta, top_one):
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


def _view(height, width, columns, x, index):
  """The view of the window whose first pixel is (index // columns, index % columns)."""
  seen = _inside(index // columns, height, x.shape[0])[:, None, None]
  seen = seen & _inside(index % columns, width, x.shape[1])[None, :, None]
  return encoded(seen, x)


def encoded(seen, x):
  """(x, 1 - x) where a pixel is seen, bool[H, W, 1] or less, and zeros in all channels elsewhere."""
  return jnp.where(seen, jnp.concatenate([x, 1 - x], axis=-1), jnp.zeros((), x.dtype))


def _inside(first, size, length):
  """bool[length], which pixels of an axis a window shows, around its end."""
  return (jnp.arange(length, dtype=jnp.int32) - first) % length < size


def _sample(num_views, height, width, columns, key, x):
  index = jax.random.randint(key, (), 0, num_views, jnp.int32)
  return _view(height, width, columns, x, index)


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
