"""How far pixels may move inside a perceptual set: an attack on the distance instead of on a classifier.

A small LPIPS distance is taken for "looks the same". A point that is near in phi and far in pixels is
where that may fail, and measures how much phi overlooks.
"""

import functools

import jax.numpy as jnp
from jax import lax

from certjax.attacks._perceptual import (
  check,
  keep,
  lengths,
  phi_and_logits,
  scale,
  start,
  within,
)
from certjax.attacks._perceptual_projection import PROJECTIONS
from certjax.distances import check_pixels


def lpips_pixel(embed=None, *, eps=0.5, num_steps=40, step_size=0.5, projection='newton'):
  """Walks away from x in pixels, and back into the set along the gradient of d, in turns.

    x_{t+1} = project(clip(x_t + step_size (x_t - x) / |x_t - x|_2))

  With 'newton' the way back is the shortest, not the way out: pixels that phi does not see stay moved.

  Args:
    embed, eps, projection: as in `attacks.ppgd`; d(x', x) <= eps.
    num_steps: static number of steps.
    step_size: Euclidean length of a step, in pixel values; it falls to 0 linearly.

  Returns:
    An `Attack`, which labels and logits play no part in: of all points visited inside the set the
    farthest from x in Euclidean distance.

  Raises:
    ValueError: as in `attacks.ppgd`.

  Example:
    >>> import jax
    >>> embed = lambda x: x[:, :1]  # The second pixel is not seen.
    >>> attack = lpips_pixel(embed, eps=0.25, num_steps=10)
    >>> x = jnp.full((1, 2), 0.5)
    >>> x_adv = attack(jax.random.key(0), lambda x: x, x, jnp.array([0]))
    >>> round(float(jnp.abs(x_adv - x)[0, 1]), 3)
    0.5
  """
  check(projection, PROJECTIONS, eps, num_steps=(num_steps, 0), step_size=(step_size, 0))

  def attack(key, model_fn, x, y):
    del y
    check_pixels(x=x)
    see = phi_and_logits(embed, model_fn)
    look = lambda x: see(x)[0]
    origin = look(x)
    project = functools.partial(PROJECTIONS[projection], look, x, origin, eps=eps)

    def step(carry, size):
      point, best = carry
      moved = lengths(point - x)
      best = keep(best, point, moved, lengths(look(point) - origin), eps)
      away = scale(size / jnp.where(moved > 0, moved, 1), point - x)
      return (project(jnp.clip(point + away, 0, 1)), best), None

    sizes = step_size * jnp.linspace(1, 0, num_steps, endpoint=False, dtype=x.dtype)
    begin = (start(key, x), (x, jnp.zeros(len(x), x.dtype)))
    (point, best), _ = lax.scan(step, begin, sizes)
    best = keep(best, point, lengths(point - x), lengths(look(point) - origin), eps)
    return within(eps, x, best[0])

  return attack
