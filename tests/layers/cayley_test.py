"""Cayley's transform, block reflectors and the operators a frequency: worked numbers, oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import layers, parallel
from certjax.layers._images import convolve


@pytest.mark.parametrize(
  'w, expected',
  [
    (
      [[0, 1, 2], [0.5, -1, 0.3], [1.2, 0.7, -0.4]],
      [[0.131707, -0.175610, -0.975610], [0.8, 0.6, 0], [0.585366, -0.780488, 0.219512]],
    ),
    (
      [[0, 1], [0.5, -1], [1.2, 0.7], [0.3, 0.2]],
      [[-0.07578, -0.845692], [-0.241626, 0.528285], [-0.939926, -0.05497], [-0.228941, -0.05195]],
    ),
  ],
)
def test_cayley(w, expected):
  with parallel.x64():
    w = jnp.array(w, float)
    np.testing.assert_allclose(layers.cayley(w), expected, atol=1e-6)
    np.testing.assert_allclose(layers.cayley(w.T), np.transpose(expected), atol=1e-6)


@pytest.mark.parametrize('shape', [(3, 3), (5, 3), (3, 5), (1, 4)])
def test_cayley_of_complex_matrices_is_orthonormal(shape):
  rng = np.random.default_rng(0)
  with parallel.x64():
    w = jnp.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    values = np.linalg.svd(layers.cayley(w), compute_uv=False)
  np.testing.assert_allclose(values, 1, atol=1e-13)


def test_block_reflector():
  v = [[1.0, 0], [2, 1], [0, -1], [1, 1]]
  expected = [
    [1 / 3, -2 / 3, -2 / 3, 0],
    [-2 / 3, -1 / 3, 0, -2 / 3],
    [-2 / 3, 0, -1 / 3, 2 / 3],
    [0, -2 / 3, 2 / 3, 1 / 3],
  ]
  with parallel.x64():
    q = np.asarray(layers.block_reflector(jnp.array(v)))
    jittered = np.asarray(layers.block_reflector(jnp.array(v), jitter=0.1))
  np.testing.assert_allclose(q, expected, atol=1e-12)
  np.testing.assert_allclose(np.linalg.eigvalsh(q), [-1, -1, 1, 1], atol=1e-12)
  assert -1 < np.linalg.eigvalsh(jittered).min() < -0.5
  np.testing.assert_allclose(np.linalg.eigvalsh(jittered).max(), 1, atol=1e-12)


@pytest.mark.parametrize('size', [(5, 4), (4, 5), (2, 1)])
def test_the_operator_is_the_circular_convolution(size):
  """Also for a kernel larger than the image, which wraps around."""
  keys = jax.random.split(jax.random.key(0))
  kernel, x = jax.random.normal(keys[0], (3, 3, 2, 3)), jax.random.normal(keys[1], (2, *size, 2))
  y = layers.apply_fourier(layers.fourier_operator(kernel, size), x)
  np.testing.assert_allclose(y, convolve(x, kernel, 'circular'), atol=1e-5)


def test_one_by_one_cayley_is_the_linear_layer():
  """On one pixel the convolution is y = Q x with the transform of the transposed kernel."""
  x = jax.random.normal(jax.random.key(0), (3, 1, 1, 5))
  layer = layers.Cayley(4, kernel_size=1)
  variables = layer.init(jax.random.key(1), x)
  params = variables['params']
  scaled = params['kernel'][0, 0] * (params['scale'] / jnp.linalg.norm(params['kernel'][0, 0]))
  expected = x[:, 0, 0] @ layers.cayley(scaled.T).T
  np.testing.assert_allclose(layer.apply(variables, x)[:, 0, 0], expected, atol=1e-5)


def test_reflectors_of_every_rank_and_the_error_for_others():
  x = jnp.ones((1, 3, 3, 4))
  for rank in (1, 4):
    layer = layers.BRO(4, rank=rank)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    assert layers.lipschitz_upper(layer, variables) == pytest.approx(1, abs=1e-5)
  with pytest.raises(ValueError, match=r'`rank` must lie in \[1, 4\].*got 5'):
    layers.BRO(4, rank=5).init(jax.random.key(0), x)
