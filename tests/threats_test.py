"""Threat sets: the public check on each, exact projections against a solver, bad budgets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import testing, threats

THREATS = {'linf': threats.linf, 'l2': threats.l2}
X = np.random.default_rng(0).uniform(0, 1, (4, 4, 3)).astype(np.float32)


@pytest.mark.parametrize('name', THREATS)
@pytest.mark.parametrize('eps', [1e-3, 0.1, 0.9])
def test_properties(name, eps):
  testing.check_threat(THREATS[name], eps, X)


@pytest.mark.parametrize('name', THREATS)
def test_zero_change_and_zero_gradient_are_safe(name):
  threat = THREATS[name](0.1)
  assert np.array_equal(threat.project(X, X), X)
  assert np.isfinite(threat.steepest(jnp.zeros_like(X))).all()
  for value in (0.0, 1e-30, 1e30):  # The norm neither over- nor underflows.
    assert np.isfinite(threat.steepest(jnp.full((3,), value))).all()
  gradient = jax.grad(lambda x: threat.distance(X, x))(jnp.asarray(X))
  assert np.isfinite(gradient).all()


def test_l2_projection_is_the_nearest_point_of_the_ball():
  """Away from the box: x + eps delta / |delta|."""
  x, delta = jnp.full((5,), 0.5), jnp.array([0.3, -0.1, 0.2, 0.0, 0.25])
  moved = threats.l2(0.1).project(x, x + delta)
  np.testing.assert_allclose(moved - x, 0.1 * delta / jnp.linalg.norm(delta), atol=1e-7)


def test_samples_fill_the_ball():
  """Mean radius of the uniform law in a d-ball is d / (d + 1); 2,000 draws, 5 errors: 6e-7."""
  threat, x = threats.l2(0.1), jnp.full((5,), 0.5)
  points = jax.vmap(threat.sample, (0, None))(jax.random.split(jax.random.key(0), 2000), x)
  radii = np.linalg.norm(np.asarray(points) - 0.5, axis=1) / 0.1
  spread = np.sqrt(5 / 7 - (5 / 6) ** 2)
  assert abs(radii.mean() - 5 / 6) < 5 * spread / np.sqrt(2000)


@pytest.mark.parametrize('make', THREATS.values())
@pytest.mark.parametrize('eps', [-0.1, np.nan])
def test_bad_eps(make, eps):
  with pytest.raises(ValueError, match='`eps` must be at least 0'):
    make(eps)


def test_grey_levels_are_named():
  with pytest.raises(ValueError, match=r'pixel units of \[0, 1\], got eps=8; .* write 8 / 255'):
    threats.linf(8)


def test_eps_may_be_traced():
  moved = jax.jit(lambda eps: threats.l2(eps).project(X, X + 1))(0.25)
  assert float(jnp.linalg.norm(moved - X)) <= 0.25 * (1 + 1e-6)


BROKEN = {
  'leaves the ball': lambda eps: threats.l2(eps)._replace(project=lambda x, x_adv: x_adv),
  'leaves the box': lambda eps: threats.l2(eps)._replace(sample=lambda key, x: x + eps),
  'moves at eps 0': lambda eps: threats.l2(eps)._replace(project=lambda x, x_adv: x + 1e-3),
  'not steepest': lambda eps: threats.l2(eps)._replace(
    steepest=lambda g: -threats.l2(1).steepest(g)
  ),
}


@pytest.mark.parametrize('fault', BROKEN)
def test_the_check_sees_faults(fault):
  with pytest.raises(AssertionError):
    testing.check_threat(BROKEN[fault], 0.1, jnp.ones((3, 3)))
