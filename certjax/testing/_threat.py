"""Properties of a `Threat`: what it returns lies in the set, and eps = 0 is the identity."""

import jax
import numpy as np

WHOLE = ('l0', 'patch')
"""Norms in whole pixels: any budget bounds where an image changes, none bounds by how much."""


def check_threat(make, eps, x, *, num_keys=20):
  """Checks a threat set around one image.

  Args:
    make: `eps -> Threat`, such as `threats.l2`.
    eps: a positive budget, a whole number for a norm of `WHOLE`.
    x: float[...], ONE image in [0, 1].
    num_keys: random points tried.

  Raises:
    AssertionError: if a sampled or projected point leaves the ball or [0, 1] by more than float
      rounding, a point of the set is moved, the steepest direction is not of length 1 (in whole pixels:
      not of at most eps pixels and 1 in each) or is beaten by a random one, or eps = 0 changes x.

  Example:
    >>> import jax.numpy as jnp
    >>> from certjax import threats
    >>> check_threat(threats.linf, 8 / 255, jnp.full((4, 4, 3), 0.5))
  """
  threat, none = make(eps), make(0.0)
  whole = threat.norm in WHOLE
  for key in jax.random.split(jax.random.key(0), num_keys):
    far = x + (1 if whole else 3 * eps) * jax.random.normal(key, x.shape, x.dtype)
    for point in (threat.sample(key, x), threat.project(x, far)):
      _check_inside(threat, eps, x, point)
      moved = np.abs(np.asarray(threat.project(x, point)) - np.asarray(point)).max()
      assert moved <= 1e-6, f'projecting a point of the set moved it by {moved}'
    for point in (none.sample(key, x), none.project(x, far)):
      assert np.array_equal(point, x), 'eps = 0 must give back the image bit for bit'
    (_check_steepest_pixels if whole else _check_steepest)(threat, far - x, key)


def _check_inside(threat, eps, x, point):
  distance = float(threat.distance(x, point))
  assert distance <= eps * (1 + 1e-5) + 1e-7, f'a point at distance {distance} leaves eps={eps}'
  assert float(np.min(point)) >= 0 and float(np.max(point)) <= 1, 'a point leaves [0, 1]'


def _check_steepest(threat, gradient, key):
  zero = gradient * 0
  best = threat.steepest(gradient)
  assert abs(float(threat.distance(zero, best)) - 1) <= 1e-4, 'the direction must have norm 1'
  rival = jax.random.normal(jax.random.fold_in(key, 1), gradient.shape, gradient.dtype)
  rival = rival / threat.distance(zero, rival)
  gain, other = float((gradient * best).sum()), float((gradient * rival).sum())
  assert gain >= other - 1e-4 * abs(gain), f'a random direction gains {other} > {gain}'


def _check_steepest_pixels(threat, gradient, key):
  best = threat.steepest(gradient)
  size = float(threat.distance(gradient * 0, best))
  assert size <= threat.eps and float(np.abs(best).max()) <= 1, 'the direction must be allowed'
  somewhere = threat.sample(jax.random.fold_in(key, 1), gradient * 0) != 0
  gain = float((gradient * best).sum())
  other = float(np.abs(gradient)[np.asarray(somewhere)].sum())
  assert gain >= other - 1e-4 * abs(gain), f'a random place offers {other} > {gain}'
