"""Distances of two batches of images, checked before anything is traced."""

import jax
import jax.numpy as jnp
import numpy as np

from certjax import data


def between(distance, x1, x2):
  """The distance of each pair of images.

  Attacks call a `Distance` on traced arrays, which hold no numbers to check. This is for images that a
  user hands in: values in [-1, 1] are the usual mistake with LPIPS, and give a wrong number
  without any error.

  Args:
    distance: a `Distance`.
    x1: uint8 or float[B, H, W, C] in [0, 1].
    x2: the same.

  Returns:
    float32[B].

  Raises:
    ValueError: for images outside [0, 1], in another layout, with NaN, or of two shapes.

  Example:
    >>> from certjax import distances
    >>> x = np.zeros((2, 4, 4, 1), np.float32)
    >>> between(distances.lp(2), x, x - 1)
    Traceback (most recent call last):
      ...
    ValueError: `x2` must lie in [0, 1], got -1.0 at [0, 0, 0, 0] (range -1.0 .. -1.0): these look \
like [-1, 1], use `(x + 1) / 2`.
  """
  x1, x2 = (data.check_images(x, name=name) for x, name in ((x1, 'x1'), (x2, 'x2')))
  if x1.shape != x2.shape:
    raise ValueError(
      f'`x1` and `x2` must be of one shape, got {x1.shape} and {x2.shape}: pair the images.'
    )
  x1, x2 = (data.to_float(x) if x.dtype == np.uint8 else x for x in (x1, x2))
  return np.asarray(jax.vmap(distance)(jnp.asarray(x1), jnp.asarray(x2)))
