"""Bounds on the norm of a convolution: published values, unrolled operators, no violation."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from certjax import layers


def _filter(start, step, shape):
  """sin(start + step i) in the order (out, in, h, w), as HWIO."""
  flat = np.sin(start + step * np.arange(math.prod(shape)))
  return flat.reshape(shape).transpose(2, 3, 1, 0)


def _skew():
  kernel = _filter(1, 0.7, (2, 2, 3, 3))
  return kernel - kernel[::-1, ::-1].swapaxes(2, 3)


def _random(seed, shape=(2, 2, 3, 3)):
  return np.random.default_rng(seed).standard_normal(shape).transpose(2, 3, 1, 0)


def _unrolled(kernel, size, padding):
  """The matrix of the convolution on size x size images, by its definition."""
  height, width, inputs, outputs = kernel.shape
  matrix = np.zeros((size, size, outputs, size, size, inputs))
  for y in range(size):
    for x in range(size):
      for a in range(height):
        for b in range(width):
          i, j = y + a - height // 2, x + b - width // 2
          if padding == 'circular':
            matrix[y, x, :, i % size, j % size] += kernel[a, b].T
          elif 0 <= i < size and 0 <= j < size:
            matrix[y, x, :, i, j] += kernel[a, b].T
  return matrix.reshape(size * size * outputs, size * size * inputs)


def _norm(kernel, size, padding):
  return np.linalg.norm(_unrolled(kernel, size, padding), 2)


@pytest.mark.parametrize('size', [2, 5])
@pytest.mark.parametrize('shape', [(2, 3, 3, 3), (3, 2, 3, 1), (2, 2, 5, 5)])
def test_singular_values_are_those_of_the_unrolled_operator(shape, size):
  kernel = _random(0, shape)
  exact = np.linalg.svd(_unrolled(kernel, size, 'circular'), compute_uv=False)
  np.testing.assert_allclose(layers.singular_values(kernel, (size, size)), exact, atol=1e-12)


def test_published_spectrum():
  kernel = _filter(0.5, 0.37, (3, 2, 3, 3))
  values = layers.singular_values(kernel, (6, 6))
  top = [10.57481, 10.57481, 9.416176, 9.416176, 8.636077]
  np.testing.assert_allclose(values[:5], top, atol=1e-6)
  np.testing.assert_allclose(values[-1], 0.00591536, atol=1e-8)
  assert len(values) == 72
  np.testing.assert_allclose((values**2).sum(), 980.48836667, rtol=1e-10)
  np.testing.assert_allclose((values**2).sum(), 36 * (kernel**2).sum(), rtol=1e-12)
  four = [14.916086, 14.371891, 14.949780, 15.588320]
  np.testing.assert_allclose(layers.fantastic_four(kernel), four, atol=1e-6)
  zero = np.linalg.svd(_unrolled(kernel, 6, 'zero'), compute_uv=False)
  np.testing.assert_allclose(zero[:3], [9.883887, 9.824399, 8.585752], atol=2e-6)


def test_published_bounds_of_the_skew_filter():
  skew = _skew()
  four = [16.729195427, 16.729195427, 19.705681558, 19.705681558]
  np.testing.assert_allclose(layers.fantastic_four(skew), four, atol=1e-8)
  for size, norm in ((4, 13.542716), (8, 13.969382), (16, 14.448349), (32, 14.585924)):
    np.testing.assert_allclose(layers.circular_norm(skew, (size, size)), norm, atol=1e-6)
  for size, norm, bound in ((4, 10.801111, 12.8799), (8, 13.347580, 13.9340)):
    np.testing.assert_allclose(_norm(skew, size, 'zero'), norm, atol=1e-6)
    np.testing.assert_allclose(layers.zero_padded_norm(skew, (size, size)), bound, atol=1e-4)


def test_published_gram_iteration():
  kernel = _random(0, (4, 3, 3, 3))
  values = layers.singular_values(kernel, (8, 8))
  np.testing.assert_allclose(values[[0, 2, -1]], [9.3241, 9.318751, 0.563447882], atol=1e-5)
  bounds = [layers.circular_norm(kernel, (8, 8), steps=n) for n in (1, 2, 3, 4)]
  np.testing.assert_allclose(bounds, [10.035390, 9.450603, 9.326939, 9.324100], atol=1e-6)
  assert min(bounds) >= values[0]
  four = [16.290216, 15.876088, 17.752582, 19.839709]
  np.testing.assert_allclose(layers.fantastic_four(kernel), four, atol=1e-6)
  np.testing.assert_allclose(_norm(kernel, 8, 'zero'), 9.065459, atol=1e-6)


def test_zero_padding_is_bounded_at_the_larger_size_only():
  """300 filters: never above the bound at n + 1; at n itself three of them violate it for n = 4."""
  violations = 0
  for seed in range(300):
    kernel = _random(seed)
    zero = {n: _norm(kernel, n, 'zero') for n in ((4,) if seed % 10 else (3, 4, 5))}
    for n, norm in zero.items():
      assert norm <= layers.zero_padded_norm(kernel, (n, n))
    violations += zero[4] > layers.circular_norm(kernel, (4, 4)) + 1e-9
  assert violations == 3


@pytest.mark.parametrize('seed', range(8))
def test_bounds_for_every_size(seed):
  kernel = _random(seed, [(2, 2, 3, 3), (3, 1, 3, 1), (1, 2, 5, 3), (2, 2, 1, 1)][seed % 4])
  exact = max(layers.circular_norm(kernel, (n, n)) for n in (2, 3, 5, 7, 64))
  zero = max(_norm(kernel, n, 'zero') for n in (3, 5, 6))
  for bound in (
    layers.supremum_norm(kernel), layers.supremum_norm(kernel, grid=7, steps=8),
    layers.norm_upper(kernel), layers.norm_upper(kernel, steps=3),
  ):  # fmt: skip
    assert bound >= exact * (1 - 1e-12) and bound >= zero * (1 - 1e-12)
  assert layers.supremum_norm(kernel) <= 1.03 * exact
  assert layers.norm_upper(kernel) <= layers.fantastic_four(kernel).max()


def test_supremum_needs_the_cosine():
  # 2 + 2 cos(w - pi / 3) sampled at 3 frequencies: its maximum 4 lies between grid points.
  phase = np.exp(1j * np.pi / 3)
  kernel = np.zeros((3, 1, 2, 2))
  rotation = lambda z: np.array([[z.real, -z.imag], [z.imag, z.real]])
  kernel[0, 0], kernel[1, 0], kernel[2, 0] = rotation(phase), 2 * np.eye(2), rotation(1 / phase)
  assert layers.circular_norm(kernel, (3, 1)) < 3.01
  assert 4 <= layers.supremum_norm(kernel, grid=3)


def test_gram_bounds_decrease_to_the_norm_and_keep_zero():
  matrices = np.random.default_rng(1).standard_normal((3, 5, 7))
  matrices = matrices * np.array([1e-9, 1, 1e9])[:, None, None]
  bounds = [layers.gram_norm(matrices, steps=n) for n in range(1, 12)]
  exact = np.linalg.norm(matrices, 2, axis=(1, 2)).max()
  assert np.all(np.diff(bounds) <= 0) and exact <= bounds[-1] <= exact * 1.001
  assert layers.gram_norm(np.zeros((2, 2)), steps=3) == 0


def test_power_iteration_underestimates_and_increases_to_the_norm():
  kernel = np.random.default_rng(0).standard_normal((3, 3, 8, 8))
  matrix = layers.skew_filter(kernel).transpose(2, 1, 3, 0).reshape(24, 24)
  start = jnp.asarray(np.random.default_rng(1).standard_normal(24), jnp.float32)
  ratios = []
  for steps in (1, 2, 5, 10, 50):
    u, v = layers.power_iteration(jnp.asarray(matrix, jnp.float32), start, steps=steps)
    ratios.append(float(np.float64(u) @ matrix @ np.float64(v)) / np.linalg.norm(matrix, 2))
  assert np.all(np.diff(ratios) >= 0)
  assert ratios[0] < 0.97 and 0.999 < ratios[-1] <= 1 + 1e-6


@pytest.mark.parametrize(
  'call,message',
  [
    (lambda: layers.norm_upper(np.full((3, 3, 1, 1), np.nan)), '`kernel` must be finite'),
    (lambda: layers.singular_values(np.ones((3, 3)), (4, 4)), '`kernel` must be finite, of shape'),
    (lambda: layers.supremum_norm(np.ones((5, 5, 1, 1)), grid=4), '`grid` must exceed'),
    (lambda: layers.gram_norm(np.eye(2), steps=0), '`steps` of the Gram iteration'),
  ],
)
def test_errors(call, message):
  with pytest.raises(ValueError, match=message):
    call()
