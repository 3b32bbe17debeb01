"""JPEG's coefficients: a block to the digit, a codec without loss, balls of coefficients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from certjax import parallel
from certjax.attacks import functional
from certjax.attacks.functional import LUMA, decode_jpeg, encode_jpeg, jpeg

pytestmark = pytest.mark.usefixtures('many_programs')

BLOCK = 60.0 + 8 * np.arange(8)[:, None] + 4 * np.arange(8)


def test_block_to_the_digit():
  with parallel.x64():
    x = jnp.asarray(BLOCK)[..., None] / 255
    decode = jax.jit(lambda coefficients: decode_jpeg(coefficients, x.shape))
    coefficients = jax.jit(encode_jpeg)(x)
    dct = np.asarray(coefficients).reshape(8, 8) * LUMA
    expected = {(0, 0): -208, (0, 1): -72.8866, (1, 0): -145.7731, (3, 0): -15.2385}
    for place, value in {**expected, (0, 3): -7.6193}.items():
      np.testing.assert_allclose(dct[place], value, atol=5e-5)
    np.testing.assert_allclose(decode(coefficients), x, atol=1e-13)
    rounded = jnp.round(coefficients)
    quantised = {divmod(int(i), 8): int(rounded[i]) for i in np.flatnonzero(rounded)}
    assert quantised == {(0, 0): -13, (0, 1): -7, (1, 0): -12, (3, 0): -1}
    decoded = 255 * np.asarray(decode(rounded))[..., 0]
  row = [61.6252, 63.6577, 67.4132, 72.3200, 77.6310, 82.5378, 86.2933, 88.3258]
  np.testing.assert_allclose(decoded[0], row, atol=5e-5)
  np.testing.assert_allclose(np.sqrt(((decoded - BLOCK) ** 2).mean()), 1.2937865, atol=5e-8)
  np.testing.assert_allclose(np.abs(decoded - BLOCK).max(), 2.5378, atol=5e-5)


def test_a_mean_of_eps_is_eps_grey_levels():
  x = jnp.asarray(BLOCK, jnp.float32)[..., None] / 255
  x_adv = jax.jit(jpeg(0.25).decode)(x, jnp.zeros(64).at[0].set(0.25))
  np.testing.assert_allclose(255 * (x_adv - x), np.full((8, 8, 1), 0.25), atol=1e-4)


def test_colours():
  rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]], np.float32)
  ycbcr = [[76.245, 84.97232, 255.5], [149.685, 43.52768, 21.23456]]
  ycbcr += [[29.07, 255.5, 107.26544], [128, 128, 128]]
  np.testing.assert_allclose(functional.rgb_to_ycbcr(rgb), ycbcr, atol=5e-5)
  np.testing.assert_allclose(functional.ycbcr_to_rgb(jnp.float32(ycbcr)), rgb, atol=2e-4)


def test_coefficients_are_a_change_of_the_image():
  """The codec without rounding is affine, so the way of UAR's code differs by 2 x 2 colours alone."""
  x = np.random.default_rng(0).uniform(0.3, 0.7, (16, 32, 3)).astype(np.float32)
  x[:, :, :] = np.repeat(np.repeat(x[::2, ::2], 2, 0), 2, 1)  # Colours that 4:2:0 keeps.
  x = jnp.asarray(x)
  latent = jpeg(0.5).sample(jax.random.key(0), x)
  assert latent.shape == (16 * 32 * 3 // 2,) and jnp.abs(latent).max() <= 0.5
  through = jax.jit(jpeg(0.5, compat=True).decode)(x, latent)
  np.testing.assert_allclose(jax.jit(jpeg(0.5).decode)(x, latent), through, atol=1e-5)
  assert jnp.abs(through - x).max() > 5 / 255
  assert np.array_equal(jpeg(0, compat=True).decode(x, 0 * latent), x)


def test_gradients():
  with parallel.x64():
    x = jnp.asarray(np.random.default_rng(1).uniform(0.3, 0.7, (16, 16, 3)))
    latent = jpeg(0.1).sample(jax.random.key(0), x)
    check_grads(
      jax.jit(lambda latent: jpeg(0.1).decode(x, latent)), (latent,), order=1, modes=['rev']
    )


def brute_force_l1(v, radius, cap):
  """The nearest point of the l1 ball and the box, by bisection on the threshold."""
  shrink = lambda theta: np.clip(np.abs(v) - theta, 0, cap)
  low, high = 0.0, np.abs(v).max()
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (middle, high) if shrink(middle).sum() > radius else (low, middle)
  return np.sign(v) * (np.minimum(np.abs(v), cap) if shrink(0).sum() <= radius else shrink(high))


def test_balls_with_a_cap():
  x, v = jnp.zeros((8, 8, 1)), np.random.default_rng(2).normal(0, 3, 64).astype(np.float32)
  project = lambda norm: jax.jit(lambda v, eps: jpeg(eps, norm=norm).project(x, v))
  l1, l2 = project('l1'), project('l2')
  for eps in (0.5, 20.0, 1e3):
    expected = brute_force_l1(np.float64(v), eps, 2.0)
    np.testing.assert_allclose(l1(v, eps), expected, atol=2e-5)
    np.testing.assert_allclose(
      jpeg(eps, norm='l1').distance(l1(v, eps)), np.abs(expected).sum(), rtol=1e-4
    )
  short = l2(v, 1.0)
  np.testing.assert_allclose(short, v / np.linalg.norm(v), atol=1e-5)
  np.testing.assert_allclose(jpeg(1.0, norm='l2').distance(short), 1, rtol=1e-5)
  assert jnp.abs(l2(v, 1e3)).max() == 2 and not l1(v, 0.0).any()


def test_errors():
  with pytest.raises(ValueError, match=r'sides that 16 divides.*\(28, 28, 3\)'):
    jpeg(0.1).init(jax.random.key(0), jnp.zeros((28, 28, 3)))
  with pytest.raises(ValueError, match='1 channel and sides that 8 divides'):
    encode_jpeg(jnp.zeros((28, 28, 1)))
  with pytest.raises(ValueError, match="`norm` must be one of 'linf', 'l2', 'l1'"):
    jpeg(0.1, norm='l0')
  with pytest.raises(ValueError, match='`cap` must be positive'):
    jpeg(0.1, norm='l1', cap=0)
