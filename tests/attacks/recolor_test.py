"""ReColorAdv: the paper's grid, colours that stay, the bound in CIELUV, the authors' cube."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from certjax import attacks, parallel
from certjax.attacks import functional
from certjax.attacks.functional._colour import rgb_to_unit_luv

pytestmark = pytest.mark.usefixtures('many_programs')

LEVELS = np.linspace(0, 1, 17, dtype=np.float32)
LATTICE = jnp.stack(jnp.meshgrid(LEVELS, LEVELS, LEVELS, indexing='ij'), -1).reshape(17, 289, 3)


def test_grid_and_smoothness_to_the_digit():
  colours = jnp.array([[0.3, 0.7, 0.9], [0.5, 0.5, 1.0]], jnp.float32)
  grid = jnp.zeros((3, 3, 3, 3)).at[1, 1, 2].set(jnp.array([0.06, -0.06, 0.03]))
  moved = colours + jax.jit(functional.interpolate)(grid, 2 * colours)
  expected = [[0.31728, 0.68272, 0.90864], [0.56, 0.44, 1.03]]
  np.testing.assert_allclose(moved, expected, atol=1e-7)
  for field, value in ((0 * grid, 0.00162), (grid, 0.9015200055555561)):
    np.testing.assert_allclose(jax.jit(functional.variation)(field), value, rtol=2e-6)
  with parallel.x64():  # A running sum of 98,304 equal numbers.
    zero = jax.jit(functional.recolor().penalty)(jnp.zeros((16, 32, 32, 3)))
    np.testing.assert_allclose(zero, 0.98304, rtol=1e-9)
  decode = jax.jit(functional.recolor(space='rgb', resolution=(3, 3, 3)).decode)
  np.testing.assert_allclose(decode(colours[None], grid)[0], np.minimum(expected, 1), atol=1e-7)


def test_the_identity_keeps_every_colour_but_in_the_authors_cube():
  threat, compat = functional.recolor(), functional.recolor(compat=True)
  zeros = jnp.zeros((16, 32, 32, 3))
  assert np.array_equal(jax.jit(threat.decode)(LATTICE, zeros), LATTICE)
  saturated = jnp.array([[[1, 0, 0], [0, 0, 1], [1, 1, 0]]], jnp.float32)
  authors = jax.jit(compat.decode)
  moved = [[0.833, 0.345, 0.188], [0.159, 0.214, 0.775], [1, 0.998, 0.249]]
  np.testing.assert_allclose(authors(saturated, zeros)[0], moved, atol=6e-4)
  # What the authors' first constraint does to points out of gamut reaches colours inside.
  first = authors(LATTICE, jax.jit(compat.project)(LATTICE, zeros))
  unit = jax.jit(rgb_to_unit_luv)(LATTICE)
  inside = np.asarray(((unit >= 0) & (unit <= 1)).all(-1))
  change = np.abs(first - LATTICE).max(-1)[inside]
  np.testing.assert_allclose(1 - inside.mean(), 0.171, atol=1e-3)
  np.testing.assert_allclose((change > 1 / 255).mean(), 0.44, atol=0.01)
  np.testing.assert_allclose([change.mean(), change.max()], [0.016, 0.175], atol=1e-3)


def test_a_field_of_one_vector_moves_all_colours_by_it_in_luv():
  x = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (2, 4, 3)), jnp.float32)
  vector = jnp.array([0.04, -0.05, 0.06], jnp.float32)
  latent = jnp.broadcast_to(vector, (3, 4, 5, 3))
  x_adv = jax.jit(functional.recolor(resolution=(3, 4, 5)).decode)(x, latent)
  luv = jax.jit(rgb_to_unit_luv)
  change = luv(x_adv) - luv(x)
  np.testing.assert_allclose(change, np.broadcast_to(vector, change.shape), atol=1e-3)


def test_attack_stays_in_the_bound_and_moves_equal_colours_alike():
  x = np.random.default_rng(1).uniform(0.35, 0.65, (8, 2, 2, 3)).astype(np.float32)
  x[:, 1, 1] = x[:, 0, 0]
  x, w = jnp.asarray(x), jnp.asarray(np.random.default_rng(2).normal(size=(12, 3)), jnp.float32)
  model_fn = lambda x: (x.reshape(len(x), -1) - 0.5) @ w
  y = jnp.argmax(model_fn(x), axis=1).astype(jnp.int32)
  attack = attacks.functional.latent_attack(
    functional.recolor(0.06, resolution=(4, 4, 4)), num_steps=20, step_size=0.01
  )
  x_adv = jax.jit(lambda key, x, y: attack(key, model_fn, x, y))(jax.random.key(0), x, y)
  luv = jax.jit(rgb_to_unit_luv)
  change = np.abs(luv(x_adv) - luv(x))
  assert change.max() <= 0.06 + 1e-3 and change.max() > 0.05
  np.testing.assert_allclose(x_adv[:, 1, 1], x_adv[:, 0, 0], atol=1e-6)
  assert (jax.vmap(attacks.margin)(model_fn(x_adv), y) > 0).any()


@pytest.mark.parametrize('space, channels', [('luv', 3), ('grey', 1)])
def test_gradients(space, channels):
  rng = np.random.default_rng(3)
  threat = functional.recolor(0.1, space=space, resolution=(3,) * channels)
  with parallel.x64():
    x = jnp.asarray(rng.uniform(0.3, 0.7, (1, 2, channels)))
    latent = jnp.asarray(rng.uniform(-0.05, 0.05, (*(3,) * channels, channels)))
    check_grads(jax.jit(lambda latent: threat.decode(x, latent)), (latent,), order=1, modes=['rev'])
    check_grads(jax.jit(threat.penalty), (latent,), order=1, modes=['rev'])


def test_a_gradient_leaves_the_identity():
  """Where nothing moves yet, and where the image is black or red."""
  x = jnp.array([[[0, 0, 0], [1, 0, 0], [0.5, 0.5, 0.5]]], jnp.float32)
  threat = functional.recolor(resolution=(2, 2, 2))
  jacobian = jax.jit(jax.jacrev(threat.decode, 1))(x, jnp.zeros((2, 2, 2, 3)))[0]
  assert np.isfinite(jacobian).all()
  assert (np.abs(jacobian).reshape(3, -1).max(1) > 0.05).all()


def test_errors():
  with pytest.raises(ValueError, match="`space`='luv' needs images with 3 channels.*'grey'"):
    functional.recolor().init(jax.random.key(0), jnp.zeros((2, 2, 1)))
  with pytest.raises(ValueError, match='`eps` must be at most 1, got eps=6'):
    functional.recolor(6)
  with pytest.raises(ValueError, match="`resolution` of 'grey' takes 1 numbers"):
    functional.recolor(space='grey', resolution=(3, 3))
  with pytest.raises(ValueError, match="`space` must be one of 'luv', 'rgb', 'grey'"):
    functional.recolor(space='hsv')
