"""Bjorck's iteration and BCOP: worked numbers, the 3 x 3 filter of given projectors, truncation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import layers, parallel
from certjax.layers import _bcop, _filter_bounds
from certjax.layers._bjorck import gram_scale


def values(w):
  return np.linalg.svd(np.asarray(w), compute_uv=False)


def test_bjorck_step_by_step():
  w = np.random.default_rng(0).standard_normal((6, 4))
  w /= values(w)[0]
  np.testing.assert_allclose(values(w), [1, 0.66979277, 0.61142353, 0.29491102], atol=1e-8)
  steps = {0: 0.70509, 1: 0.5705, 3: 0.2035, 5: 4.934e-3}
  with parallel.x64():
    for count, expected in steps.items():  # 40 Gram steps: the scale is the norm itself.
      got = layers.bjorck(jnp.asarray(w), num_steps=count, gram_steps=40)
      np.testing.assert_allclose(abs(values(got) - 1).max(), expected, rtol=5e-4)
    got = layers.bjorck(jnp.asarray(w), num_steps=8, gram_steps=40)
    assert abs(values(got) - 1).max() < 1e-15 * 4


def test_zero_singular_values_stay():
  w = jnp.asarray(np.outer([1.0, 2, 2], [3.0, 4]), jnp.float32)
  np.testing.assert_allclose(values(layers.bjorck(w)), [1, 0], atol=1e-6)
  assert not np.asarray(layers.bjorck(jnp.zeros((3, 2)))).any()


@pytest.mark.parametrize('scale', [1e-12, 1.0, 1e12])
def test_the_scale_is_an_upper_bound_at_every_step(scale):
  w = scale * jax.random.normal(jax.random.key(0), (3, 5, 8))
  exact = values(w).max(-1)
  bounds = np.array([gram_scale(w, num_steps=steps) for steps in range(6)])
  assert np.all(bounds >= exact * (1 - 1e-6)) and np.all(np.diff(bounds, axis=0) <= 1e-6 * scale)
  np.testing.assert_allclose(bounds[-1], exact, rtol=0.02)


def worked_filter():
  """Projectors on the lines of four angles, and a rotation by 0.5 on their left."""
  lines = [np.array([np.cos(t), np.sin(t)]) for t in (0.3, 1.1, 2.0, -0.4)]
  rotation = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
  with parallel.x64():
    projectors = [jnp.asarray(np.outer(line, line)) for line in lines]
    return np.asarray(_bcop.compose(projectors, jnp.asarray(rotation)))


def jacobian(kernel, size, padding):
  """The matrix of the convolution, by the definition of correlation."""
  k, _, channels, features = kernel.shape
  out = np.zeros((size, size, features, size, size, channels))
  for row, column, s, t in np.ndindex(size, size, k, k):
    a, b = row + s - k // 2, column + t - k // 2
    if padding == 'circular' or (0 <= a < size and 0 <= b < size):
      out[row, column, :, a % size, b % size] += kernel[s, t].T
  return out.reshape(size * size * features, -1)


def test_the_worked_filter():
  kernel = worked_filter()
  first = [-0.20493011, 0.34526464, -0.10297835]
  np.testing.assert_allclose(kernel[0, :, 0, 0], first, atol=1e-8)
  np.testing.assert_allclose(values(jacobian(kernel, 5, 'circular')), 1, atol=1e-14)
  zero = values(jacobian(kernel, 5, 'zero'))
  np.testing.assert_allclose([zero.max(), zero.min()], [1, 0.13762], atol=5e-6)
  assert (zero < 0.999).sum() == 18
  assert _filter_bounds.nearly_orthogonal_norm(kernel) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize('shape', [(3, 3, 2, 3), (3, 3, 4, 2), (1, 1, 3, 3), (5, 5, 1, 1)])
@pytest.mark.parametrize('padding', ['circular', 'zero'])
def test_filter_bounds_hold(shape, padding):
  """Against the unrolled matrix, for filters that are nowhere near orthogonal."""
  for seed in range(5):
    kernel = np.random.default_rng(seed).standard_normal(shape)
    exact = max(values(jacobian(kernel, size, padding))[0] for size in (2, 5))
    weights = np.random.default_rng(seed).uniform(0.5, 2, shape[2])
    assert _filter_bounds.nearly_orthogonal_norm(kernel) >= exact
    assert _filter_bounds.gershgorin_norm(kernel, weights) >= exact


def test_truncated_iterations_are_in_the_constant():
  """One step leaves singular values far below 1: still no expansion, and a bound that holds."""
  layer = layers.BCOP(4, num_steps=1)
  x = jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
  variables = jax.jit(layer.init)(jax.random.key(1), x)
  kernel = 0.5 * jax.random.normal(jax.random.key(2), variables['params']['kernel'].shape)
  variables = {**variables, 'params': {**variables['params'], 'kernel': kernel}}
  filter_ = np.asarray(layers.bcop_filter(kernel, num_steps=1), np.float64)
  exact = values(jacobian(filter_, 4, 'circular'))
  assert exact.min() < 0.9
  assert exact.max() <= 1 + 1e-6 and layers.lipschitz_upper(layer, variables) >= exact.max()


def test_the_number_of_matrices_is_odd():
  with pytest.raises(ValueError, match='an odd number, got 4'):
    layers.bcop_filter(jnp.zeros((4, 2, 2)))
