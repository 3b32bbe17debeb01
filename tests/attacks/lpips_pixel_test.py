"""The farthest pixels inside a perceptual set: optimum of a linear one, what phi does not see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax.attacks._lpips_pixel import lpips_pixel

SCALES = np.array(
  [4, 4, 4, 1, 0, 4], np.float32
)  # The fourth is seen little, the fifth not at all.
X = np.random.default_rng(0).uniform(0.4, 0.6, (3, 6)).astype(np.float32)


@functools.partial(jax.jit, static_argnames=('projection',))
def run(x, eps, projection='newton'):
  embed = lambda x: x * SCALES[None]
  attack = lpips_pixel(embed, eps=eps, num_steps=20, step_size=0.1, projection=projection)
  x_adv = attack(jax.random.key(0), lambda x: x, x, None)
  return x_adv, jnp.linalg.norm(embed(x_adv - x), axis=1)


def test_the_farthest_point_of_an_ellipsoid():
  """Free in the fifth pixel, up to the border of [0, 1]; the rest of eps goes to the fourth."""
  x_adv, distance = run(X, 0.2)
  moved = np.abs(x_adv - X)
  assert (distance <= 0.2 + 1e-6).all() and (x_adv >= 0).all() and (x_adv <= 1).all()
  assert (np.minimum(x_adv[:, 4], 1 - x_adv[:, 4]) < 1e-6).all()
  assert (moved[:, 3] > 0.15).all() and (moved[:, [0, 1, 2, 5]] < 0.03).all()


def test_bisection_gives_up_what_newton_keeps():
  far = lambda projection: np.linalg.norm(run(X, 0.2, projection)[0] - X, axis=1)
  assert (far('newton') >= far('bisection') - 1e-6).all()


def test_eps_0_and_other_rows():
  assert np.array_equal(run(X, 0.0)[0], X)
  others = np.concatenate([X[:1], 1 - X[1:]])
  np.testing.assert_allclose(run(others, 0.2)[0][0], run(X, 0.2)[0][0], atol=1e-6)


def test_bad_arguments():
  with pytest.raises(ValueError, match='`eps` must be at least 0'):
    lpips_pixel(lambda x: x, eps=-1)
