"""Random resizing and padding (Xie et al. 2018): the model sees each image at a random size and place.

Broken: the draws average out. EOT leaves 0% accuracy at L_inf 0.031 on ImageNet (Athalye et al. 2018, Table 1).
"""

import jax
import jax.numpy as jnp


def resize_pad(*, size, smallest=None):
  """An image of random side s, anywhere on a black square.

    s ~ U{smallest .. size},  top, left ~ U{0 .. size - s}

  Random: attack it by `attacks.eot_pgd`. Its gradient is exact.

  Args:
    size: side of the result, in pixels; the authors take 331 for images of side 299.
    smallest: the least side; default that of the image.

  Returns:
    `(key, x[H, W, C]) -> x'[size, size, C]`, a transform for `randomized`.

  Raises:
    ValueError: unless 1 <= smallest <= size; for an image larger than `size` without `smallest`, or of another
      rank.

  Example:
    >>> draw = resize_pad(size=6, smallest=3)
    >>> draw(jax.random.key(0), jnp.ones((4, 4, 1))).shape
    (6, 6, 1)

  References:
    Xie et al. 2018 (arXiv:1711.01991); Athalye et al. 2018 (arXiv:1802.00420).
  """
  if smallest is not None:
    _check(smallest, size)

  # Deviation: bilinear (theirs: nearest), and a rectangle becomes a square.
  def transform(key, x):
    if x.ndim != 3:
      raise ValueError(f'`x` must be ONE image [H, W, C], got shape {x.shape}: use jax.vmap.')
    least = max(x.shape[:2]) if smallest is None else smallest
    _check(least, size)
    key_side, key_place = jax.random.split(key)
    side = jax.random.randint(key_side, (), least, size + 1, jnp.int32)
    corner = jax.random.randint(key_place, (2,), 0, size - side + 1, jnp.int32).astype(x.dtype)
    scale = side.astype(x.dtype) / jnp.asarray(x.shape[:2], x.dtype)
    shape = (size, size, x.shape[2])
    moved = jax.image.scale_and_translate(
      x, shape, (0, 1), scale, corner, 'linear', antialias=False
    )
    inside = [(jnp.arange(size, dtype=x.dtype) - start) for start in corner]
    rows, columns = ((place >= 0) & (place < side.astype(x.dtype)) for place in inside)
    return jnp.where((rows[:, None] & columns[None, :])[..., None], moved, 0)

  return transform


def _check(smallest, size):
  if not 1 <= smallest <= size:
    raise ValueError(
      f'`smallest` (default: the side of the image) lies in [1, size], got smallest={smallest}, '
      f'size={size}.'
    )
