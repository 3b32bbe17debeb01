"""CIELUV: published colours to the digit, there and back, gradients also where roots end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from certjax import parallel
from certjax.attacks.functional import luv_to_rgb, rgb_to_luv
from certjax.attacks.functional._colour import rgb_to_unit_luv, unit_luv_to_rgb

pytestmark = pytest.mark.usefixtures('many_programs')

COLOURS = {  # RGB -> (L, u, v)
  (1, 1, 1): (100, 0.056678, 0.039590),
  (0, 0, 0): (0, 0, 0),
  (1, 0, 0): (53.232882, 175.080596, 37.775628),
  (0, 1, 0): (87.737033, -83.034328, 107.442771),
  (0, 0, 1): (32.302587, -9.377772, -130.338328),
  (0.5, 0.5, 0.5): (53.388965, 0.030260, 0.021137),
  (0.2, 0.4, 0.6): (42.009986, -20.220706, -47.537739),
  (0.02, 0.03, 0.01): (1.847842, -0.388181, 1.236839),
}
RGB, LUV = np.array([*COLOURS]), np.array([*COLOURS.values()])


def test_published_colours_to_the_digit():
  with parallel.x64():
    np.testing.assert_allclose(jax.jit(rgb_to_luv)(RGB), LUV, atol=6e-7)
  np.testing.assert_allclose(jax.jit(rgb_to_luv)(jnp.float32(RGB)), LUV, atol=5e-4)


def test_there_and_back():
  levels = np.linspace(0, 1, 6, dtype=np.float32)
  lattice = jnp.stack(jnp.meshgrid(levels, levels, levels), axis=-1)
  unit = jax.jit(rgb_to_unit_luv)(lattice)
  np.testing.assert_allclose(jax.jit(unit_luv_to_rgb)(unit), lattice, atol=1e-3)
  assert unit[..., 1].max() > 1.37 and unit[..., 2].min() < -0.15  # Out of the unit cube.


def test_steps_from_grey():
  """A step in L stays grey; one in u and v of equal size is magenta."""
  steps = jnp.array([[0.06, 0, 0], [0, 0.06, -0.06]], jnp.float32)
  grey = jax.jit(rgb_to_unit_luv)(jnp.full((2, 3), 0.5))
  expected = [[0.56062, 0.56064, 0.56061], [0.56324, 0.47361, 0.54857]]
  np.testing.assert_allclose(jax.jit(unit_luv_to_rgb)(grey + steps), expected, atol=1e-5)


def test_gradients():
  """Right in float64, and finite at black, white and off the gamut."""
  with parallel.x64():
    inner = jnp.asarray(RGB[[4, 5, 6, 7]] * 0.9 + 0.02)
    check_grads(jax.jit(rgb_to_luv), (inner,), order=1, modes=['rev'])
    check_grads(
      jax.jit(luv_to_rgb), (jax.jit(rgb_to_luv)(inner[1:]),), order=1, modes=['rev'], eps=1e-4
    )
  gradient = lambda fn: jax.jit(jax.grad(lambda colour: fn(colour).sum()))
  assert np.isfinite(gradient(rgb_to_luv)(jnp.float32(RGB))).all()
  corners = np.stack(np.meshgrid([-20, 0, 8, 100], [-200, 0, 200], [-200, 0, 200]), -1)
  luv = jnp.float32(np.concatenate([LUV, *(scale * corners.reshape(-1, 3) for scale in (1, 1e-5))]))
  assert (
    np.isfinite(jax.jit(luv_to_rgb)(luv)).all() and np.isfinite(gradient(luv_to_rgb)(luv)).all()
  )
