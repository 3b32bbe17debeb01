"""AOL, SLL, CPL, LOT, RKO, the linear layers and LipNeXt's block: worked numbers and theorems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from certjax import layers, parallel
from certjax.layers import _aol, _filter_bounds, _images

W = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]])
B = np.array([0.1, -0.2, 0.3])


def as_filter(w):
  """HWIO 1 x 1 filter of the matrix y = w x."""
  return jnp.asarray(w.T[None, None])


def residual(inverse):
  x = jnp.array([1.0, -2.0]).reshape(1, 1, 1, 2)
  return layers.residual_step(x, as_filter(W), inverse, jnp.asarray(B), padding='zero').ravel()


def test_aol_numbers():
  with parallel.x64():
    scale = np.asarray(layers.aol_scale(as_filter(W)))
  np.testing.assert_allclose(scale, [0.301511, 0.408248], atol=1e-6)
  values = np.linalg.svd(W * scale, compute_uv=False)
  np.testing.assert_allclose(values, [1, 0.898231], atol=1e-6)


def test_a_skew_filter_stays_skew_under_the_symmetric_scale_only():
  """AOL's scale on one side of a skew map: its exponential is not orthogonal any more."""
  rng = np.random.default_rng(0)
  for size, lowest, highest, norm in ((8, 0.9157, 1.1012, 0.8660), (32, 0.9435, 1.0635, 0.7745)):
    a = rng.standard_normal((size, size))
    skew = a - a.T
    with parallel.x64():
      scale = np.asarray(layers.aol_scale(as_filter(skew)))
      root = np.sqrt(scale)
      symmetric = np.outer(root, root) * skew
      kernel = layers.skew_filter(as_filter(symmetric))
      np.testing.assert_array_equal(kernel, as_filter(symmetric))
      basis = jnp.eye(size).reshape(size, 1, 1, size)
      exponential = np.asarray(layers.conv_exponential(basis, kernel, degree=20)).reshape(size, -1)
    np.testing.assert_allclose(np.linalg.svd(exponential, compute_uv=False), 1, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(symmetric, 2), norm, atol=5e-5)
    rows = np.linalg.svd(scipy.linalg.expm(scale[:, None] * skew), compute_uv=False)
    np.testing.assert_allclose(rows[[-1, 0]], [lowest, highest], atol=5e-5)


def test_sll_numbers():
  with parallel.x64():
    inverse = layers.sll_inverse(as_filter(W), jnp.ones(3))
    np.testing.assert_allclose(1 / inverse, [7.5, 12, 3], rtol=1e-12)
    np.testing.assert_allclose(residual(inverse), [-1.4, -1.2], atol=1e-12)


def test_cpl_numbers():
  with parallel.x64():
    inverse = layers.cpl_inverse(as_filter(W), gram_steps=30)
    np.testing.assert_allclose(2 * inverse, 0.1930487652, atol=1e-10)
    got = residual(jnp.broadcast_to(inverse, (3,)))
    np.testing.assert_allclose(got, [-1.779902, -1.073366], atol=1e-6)


def test_cpl_divides_by_a_bound_for_every_size():
  with parallel.x64():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))
    bound = float(layers.cpl_inverse(kernel)) ** -0.5
  exact = max(layers.circular_norm(kernel, (n, n)) for n in (*range(3, 20), 64))
  assert exact <= bound <= 1.2 * exact


def test_channels_without_weights_stay_silent():
  kernel = jnp.zeros((3, 3, 2, 3)).at[1, 1, 0, 0].set(2.0)
  assert layers.aol_scale(kernel).tolist() == [0.5, 0]
  assert layers.sll_inverse(kernel, jnp.ones(3)).tolist() == [0.25, 0, 0]
  assert layers.cpl_inverse(jnp.zeros((3, 3, 2, 3))) == 0
  total = lambda k: layers.aol_scale(k).sum() + layers.cpl_inverse(k, gram_steps=1)
  assert np.isfinite(jax.jit(jax.grad(total))(0 * kernel)).all()


def test_the_correlation_on_device_and_host_agree():
  kernel = np.random.default_rng(0).standard_normal((3, 5, 2, 4))
  with parallel.x64():
    on_device = np.asarray(_aol.self_correlation(jnp.asarray(kernel)))
  np.testing.assert_allclose(on_device, _filter_bounds.absolute_gram(kernel), rtol=1e-12)


@pytest.mark.parametrize('padding', ['circular', 'zero'])
def test_the_transposed_filter_is_the_transposed_map(padding):
  kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))
  x, y = jax.random.normal(jax.random.key(1), (2, 1, 4, 4, 4))
  x = x[..., :2]
  left = np.vdot(y, _images.convolve(x, kernel, padding))
  right = np.vdot(_images.convolve(y, _images.transposed(kernel), padding), x)
  np.testing.assert_allclose(left, right, rtol=1e-5)


def test_a_residual_layer_with_a_diagonal_too_large_says_so():
  """Norm^2 = 1.5 of B: the constant is 2 x 1.5 - 1 = 2, and the map attains it."""

  class TooLarge(layers.SLL):
    def diagonal(self, params):
      return 1.5 * super().diagonal(params)

  layer, x = TooLarge(1, kernel_size=1), jnp.ones((1, 1, 1, 1))
  variables = layer.init(jax.random.key(0), x)
  bound = layers.lipschitz_upper(layer, variables)
  sign = jnp.sign(variables['params']['kernel'].ravel()[0])
  slope = layer.apply(variables, 2 * sign * x) - layer.apply(variables, sign * x)
  assert bound == pytest.approx(2, abs=1e-5)
  assert abs(slope.item()) == pytest.approx(2, abs=1e-5) and abs(slope.item()) <= bound + 1e-6


def test_lot_is_the_polar_factor():
  """Ten steps near orthogonality; far from it the values stay below 1, and the bound holds."""
  x = jax.random.normal(jax.random.key(0), (1, 4, 4, 3))
  layer = layers.LOT(3, use_bias=False)
  variables = jax.jit(layer.init)(jax.random.key(1), x)
  kernel = variables['params']['kernel'] + 0.05 * jax.random.normal(jax.random.key(2), (3, 3, 3, 3))
  variables['params']['kernel'] = kernel
  q = np.asarray(layers.materialize(layer, variables).args[0])
  u, _, vh = np.linalg.svd(np.asarray(layers.fourier_operator(kernel, (4, 4))))
  np.testing.assert_allclose(q, u @ vh, atol=1e-5)
  variables['params']['kernel'] = kernel.at[..., 0].mul(1e-3)
  far = np.asarray(layers.materialize(layer, variables).args[0])
  values = np.linalg.svd(far, compute_uv=False)
  assert values.min() < 0.5 and values.max() <= layers.lipschitz_upper(layer, variables)


def test_rko_reads_every_pixel_k_squared_times():
  kernel = layers.rko_filter(jax.random.normal(jax.random.key(0), (3, 3, 2, 4)))
  values = np.linalg.svd(3 * np.asarray(kernel).reshape(18, 4), compute_uv=False)
  np.testing.assert_allclose(values, 1, atol=1e-5)


@pytest.mark.parametrize('make', [layers.OrthogonalLinear, layers.CayleyLinear])
@pytest.mark.parametrize('features', [3, 8])
def test_orthogonal_linear_layers(make, features):
  x = jax.random.normal(jax.random.key(0), (6, 5))
  layer = make(features)
  variables = jax.jit(layer.init)(jax.random.key(1), x)
  variables['params']['kernel'] = jax.random.normal(jax.random.key(2), (5, features))
  cached = layers.materialize(layer, variables)
  values = np.linalg.svd(np.asarray(cached.args[0], np.float64), compute_uv=False)
  np.testing.assert_allclose(values, 1, atol=1e-5)
  assert values.max() <= layers.lipschitz_upper(layer, variables)
  np.testing.assert_allclose(cached(x), jax.jit(layer.apply)(variables, x), atol=1e-5)
  with pytest.raises(ValueError, match='5 channels.*got 4'):
    layer.apply(variables, x[:, :4])


def test_normalised_rows_and_their_distances():
  rows = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, -0.6, 0.8]])
  lengths = np.array([[2.0], [0.5], [7.0]])
  layer, x = layers.NormalizedLinear(3), jnp.ones((1, 3))
  variables = layer.init(jax.random.key(0), x)
  variables['params']['kernel'] = jnp.asarray((rows * lengths).T, jnp.float32)
  kernel = np.asarray(layers.materialize(layer, variables).args[0])
  np.testing.assert_allclose(kernel.T, rows, atol=1e-6)
  distances = np.linalg.norm(kernel[:, :1] - kernel[:, 1:], axis=0)
  np.testing.assert_allclose(distances, [0.894427191, 1.414213562], atol=1e-6)
  stored = np.asarray(variables['params']['kernel'], np.float64)
  exact = np.linalg.svd(stored / np.linalg.norm(stored, axis=0), compute_uv=False)[0]
  assert exact > 1.2 and exact <= layers.lipschitz_upper(layer, variables) <= exact * (1 + 1e-6)


def test_lipnext_block_keeps_norms_and_distances_bounded():
  block = layers.LipNeXtBlock(beta=0.5)
  a, b = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 7))
  variables = jax.jit(block.init)(jax.random.key(1), a)
  kernel = variables['params']['kernel']
  variables['params']['kernel'] = kernel + 0.05 * jax.random.normal(jax.random.key(2), (7, 7))
  apply = jax.jit(block.apply)
  norm = lambda z: np.linalg.norm(np.asarray(z).reshape(3, -1), axis=1)
  np.testing.assert_allclose(norm(apply(variables, a)), norm(a), rtol=1e-5)
  assert np.all(norm(apply(variables, a) - apply(variables, b)) <= norm(a - b) * (1 + 1e-5))
  np.testing.assert_allclose(
    layers.materialize(block, variables)(a), apply(variables, a), atol=1e-5
  )
  assert layers.lipschitz_upper(block, variables) == pytest.approx(1, abs=1e-5)
  with pytest.raises(ValueError, match='7 channels.*got 6'):
    block.apply(variables, a[..., :6])


def test_the_shift_moves_every_run_of_channels_its_own_way():
  x = jnp.zeros((1, 3, 3, 5)).at[0, 1, 1].set(1.0)
  y = layers.spatial_shift(x)
  places = [tuple(int(i) for i in np.argwhere(np.asarray(y[0, :, :, c]))[0]) for c in range(5)]
  assert places == [(1, 1), (1, 2), (1, 0), (2, 1), (0, 1)]
