"""StAdv: warps and their smoothness to the digit, units, values that only move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from certjax import attacks, parallel
from certjax.attacks import functional

pytestmark = pytest.mark.usefixtures('many_programs')

IMAGE = jnp.arange(16, dtype=jnp.float32).reshape(4, 4, 1)
warp = lambda padding: jax.jit(lambda x, flow: functional.warp(x, flow, padding=padding))
EDGE = [[1.5, 2.5, 3.5, 4], [5.5, 6.5, 7.5, 8], [9.5, 10.5, 11.5, 12], [12.5, 13.5, 14.5, 15]]
ZEROS = [
  [1.5, 2.5, 3.5, 2],
  [5.5, 6.5, 7.5, 4],
  [9.5, 10.5, 11.5, 6],
  [9.375, 10.125, 10.875, 5.625],
]


def test_warp_to_the_digit():
  flow = jnp.broadcast_to(jnp.array([0.25, 0.5]), (4, 4, 2))
  for padding, expected in (('edge', EDGE), ('zeros', ZEROS)):
    assert warp(padding)(IMAGE, flow)[..., 0].tolist() == expected
    units = functional.stadv(1.0, units='px', padding=padding), functional.stadv(padding=padding)
    for threat, scale in zip(units, (1, 0.5), strict=True):  # A unit is half of 4 pixels.
      x_adv = 15 * jax.jit(threat.decode)(IMAGE / 15, scale * flow)
      np.testing.assert_allclose(x_adv[..., 0], expected, rtol=1e-6)


def test_variation_to_the_digit():
  flow = jnp.zeros((4, 4, 2)).at[1, 2].set(jnp.array([0.03, -0.04]))
  for neighbours, value in (('axis', 0.40056001), ('diagonal', 0.4056008)):
    penalty = jax.jit(functional.stadv(neighbours=neighbours).penalty)
    np.testing.assert_allclose(penalty(flow), value, rtol=2e-7)
    assert np.isfinite(jax.grad(penalty)(flow)).all()


def test_gradients():
  rng = np.random.default_rng(0)
  with parallel.x64():
    x, flow = (
      jnp.asarray(rng.uniform(size=(4, 3, 2))),
      jnp.asarray(rng.uniform(0.1, 0.4, (4, 3, 2))),
    )
    check_grads(warp('edge'), (x, flow), order=1, modes=['rev'], eps=1e-6)
    check_grads(warp('zeros'), (x, flow), order=1, modes=['rev'], eps=1e-6)


def test_far_places_are_the_border():
  far = jnp.full((4, 4, 2), 1e4)
  assert (warp('edge')(IMAGE, far) == 15).all()
  assert (warp('edge')(IMAGE, -far) == 0).all()
  # Half a pixel outside, where far places are moved back to, the border is half black, in a corner 3/4.
  assert (warp('zeros')(IMAGE, far) == 15 / 4).all()


def test_attack_moves_an_edge():
  """A model that reads one pixel beside an edge: .8 of a pixel brings .8 of the edge there."""
  x = jnp.zeros((1, 4, 4, 1)).at[:, :, 2:].set(1.0)
  model_fn = lambda x: jnp.stack([jnp.full(len(x), 0.5), x[:, 1, 1, 0]], axis=1)
  attack = lambda eps: functional.latent_attack(
    functional.stadv(eps, units='px', padding='edge'), num_steps=8, step_size=0.1, optimizer='sign'
  )
  run = jax.jit(lambda eps: attack(eps)(jax.random.key(0), model_fn, x, jnp.array([0])))
  np.testing.assert_allclose(run(0.8)[0, 1, 1, 0], 0.8, atol=1e-5)
  np.testing.assert_allclose(run(0.3)[0, 1, 1, 0], 0.3, atol=1e-5)
  assert attacks.margin(model_fn(run(0.8))[0], 0) > 0 > attacks.margin(model_fn(run(0.3))[0], 0)
  assert np.array_equal(run(0.0), x)


def test_errors():
  with pytest.raises(ValueError, match="for pixels write units='px', eps=4"):
    functional.stadv(4)
  with pytest.raises(ValueError, match="`padding` must be one of 'zeros', 'edge'"):
    functional.stadv(padding='wrap')
  with pytest.raises(ValueError, match='`neighbours` must be one of'):
    functional.stadv(neighbours='all')
  with pytest.raises(ValueError, match='use x'):
    functional.stadv().init(jax.random.key(0), jnp.zeros((4, 4)))
