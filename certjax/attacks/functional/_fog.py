"""Fog (Kang et al. 2019): a plasma fractal whose random numbers an attacker chooses.

The diamond-square algorithm makes a map of n x n points into one of 2n x 2n: a new point is the mean of the four
next to it, plus a wibble, a random number that shrinks from level to level. The map wraps around. It
is linear in the wibbles.
"""

import jax.numpy as jnp

from certjax.attacks.functional._functional import Functional, in_box


def fog(eps, *, decay=2.0) -> Functional:
  """Blends the image with white, by a fractal cloud whose wibbles are the latent.

    t = m - min m,  m = diamond-square(latent);  x_adv = (x + t) / (1 + t)

  as light does in fog of thickness log(1 + t).

  Args:
    eps: largest |wibble| of the first level; on level l it counts as decay^-l of itself. May be traced.
    decay: how much smaller the wibbles are from one level to the next.

  Returns:
    A `Functional` with latents float[S^2 - 1], S the power of 2 that covers the image.

  Raises:
    ValueError: if `eps` is negative or `decay` below 1.

  Example:
    >>> fog(1.0).decode(jnp.zeros((2, 2, 1)), jnp.array([1.0, 0.0, 0.0])).shape
    (2, 2, 1)

  References:
    Kang et al. 2019 (arXiv:1908.08016), section 3; Hendrycks & Dietterich 2019 (arXiv:1903.12261).
  """
  # Deviation: the authors stretch each map to [0, 1] and divide by the image's maximum + eps, which
  # changes an image without fog too; `eps` is no multiple of theirs.
  if not decay >= 1:
    raise ValueError(f'`decay` must be at least 1, got decay={decay}: the default is 2.')

  def decode(x, latent):
    cloud = diamond_square(latent, decay)[: x.shape[0], : x.shape[1], None]
    thickness = cloud - jnp.min(cloud)
    return jnp.clip((x + thickness) / (1 + thickness), 0, 1)

  shape = lambda shape: (4 ** (max(shape[:2]) - 1).bit_length() - 1,)
  return in_box('fog', eps, 'wibbles', shape, decode)


def diamond_square(wibbles, decay):
  """The map of given wibbles.

  Args:
    wibbles: float[S^2 - 1], S a power of 2: on each level of n x n points the middles of the
      squares, then those between a point and its right neighbour, then those between it and the one below.
    decay: divides the wibbles once more on each level.

  Returns:
    float[S, S], 0 at its first point.

  Example:
    >>> diamond_square(jnp.array([1.0, 0.0, 0.0]), 2.0).tolist()
    [[0.0, 0.5], [0.5, 1.0]]
  """
  points, used, scale = jnp.zeros((1, 1), wibbles.dtype), 0, 1.0
  while used < wibbles.size:
    n = len(points)
    wibble = wibbles[used : used + 3 * n * n].reshape(3, n, n) * scale
    right, below = jnp.roll(points, -1, 1), jnp.roll(points, -1, 0)
    middle = (points + right + below + jnp.roll(below, -1, 1)) / 4 + wibble[0]
    beside = (points + right + middle + jnp.roll(middle, 1, 0)) / 4 + wibble[1]
    under = (points + below + middle + jnp.roll(middle, 1, 1)) / 4 + wibble[2]
    rows = jnp.stack([points, beside], axis=-1), jnp.stack([under, middle], axis=-1)
    points = jnp.stack(rows, axis=1).reshape(2 * n, 2 * n)
    used, scale = used + 3 * n * n, scale / decay
  return points
