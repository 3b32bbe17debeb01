"""Fog, snow, Gabor noise: NumPy's versions, what only brightens, places that stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax.attacks import functional

pytestmark = pytest.mark.usefixtures('many_programs')

X = jnp.asarray(np.random.default_rng(0).uniform(size=(5, 7, 3)), jnp.float32)


def numpy_diamond_square(wibbles, size, decay):
  """Point by point on the full map, the wibbles read in the order of the docstring."""
  points, numbers, step, scale = np.zeros((size, size)), iter(wibbles), size, 1.0
  near = lambda i, j: points[i % size, j % size]
  square = lambda i, j, s: [near(i, j), near(i + s, j), near(i, j + s), near(i + s, j + s)]
  cross = lambda i, j, h: [near(i - h, j), near(i + h, j), near(i, j - h), near(i, j + h)]
  while step > 1:
    half = step // 2
    corners = [(i, j) for i in range(0, size, step) for j in range(0, size, step)]
    for i, j in corners:
      points[i + half, j + half] = np.mean(square(i, j, step)) + scale * next(numbers)
    for i, j in corners:
      points[i, j + half] = np.mean(cross(i, j + half, half)) + scale * next(numbers)
    for i, j in corners:
      points[i + half, j] = np.mean(cross(i + half, j, half)) + scale * next(numbers)
    step, scale = half, scale / decay
  return points


def test_diamond_square_is_numpys():
  wibbles = np.random.default_rng(1).normal(size=63).astype(np.float32)
  expected = numpy_diamond_square(wibbles, 8, 1.75)
  cloud = jax.jit(functional.diamond_square, static_argnums=1)(wibbles, 1.75)
  np.testing.assert_allclose(cloud, expected, atol=1e-6)


def test_fog_only_brightens_and_swallows_all():
  threat = functional.fog(0.5)
  latent = threat.sample(jax.random.key(0), X)
  assert latent.shape == (63,)  # 8 x 8 points cover 5 x 7.
  decode = jax.jit(threat.decode)
  x_adv = decode(X, latent)
  assert (x_adv >= X - 1e-6).all() and (x_adv > X + 0.1).any() and x_adv.max() <= 1
  thickness = (x_adv - X) / (1 - x_adv)  # One of all channels.
  np.testing.assert_allclose(thickness, np.broadcast_to(thickness[..., :1], X.shape), atol=1e-4)
  cloud = numpy_diamond_square(np.asarray(latent), 8, 2.0)[:5, :7]
  np.testing.assert_allclose(thickness[..., 0], cloud - cloud.min(), atol=1e-4)
  assert (decode(X, 1e4 * latent) > 0.99).mean() > 0.9


def stroke_formula(latent, kernel):
  rows, columns = np.meshgrid(np.arange(5) + 0.5, np.arange(7) + 0.5, indexing='ij')
  total = np.zeros((5, 7))
  for strength, (i, j), angle in zip(*map(np.float64, latent), strict=True):
    down, right = rows - 5 * i, columns - 7 * j
    along = np.cos(angle) * right + np.sin(angle) * down
    total += strength * kernel(along, down**2 + right**2 - along**2)
  return total[..., None]


def test_gabor_and_snow_are_numpys():
  gabor, snow = functional.gabor(0.3, number=3, sigma=2.0), functional.snow(2.0, number=3)
  latent = gabor.sample(jax.random.key(1), X)
  wave = lambda a, bb: np.exp(-(a**2 + bb) / 8) * np.cos(np.pi / 2 * a)
  expected = np.clip(X + stroke_formula(latent, wave), 0, 1)
  np.testing.assert_allclose(jax.jit(gabor.decode)(X, latent), expected, atol=1e-5)
  latent = snow.sample(jax.random.key(1), X)
  assert (latent.strength >= 0).all() and latent.strength.max() > 0.1
  streak = lambda a, bb: np.exp(-(a**2) / 8 - bb / 0.98)
  expected = 1 - (1 - X) * np.exp(-stroke_formula(latent, streak))
  np.testing.assert_allclose(jax.jit(snow.decode)(X, latent), expected, atol=1e-5)


def test_the_search_keeps_places_and_moves_strengths():
  """Of a model that wants white, snow is at its bound wherever it was drawn."""
  threat = functional.snow(0.5, number=4)
  key = jax.random.key(2)
  init, sample = threat.init(key, X), threat.sample(key, X)
  assert np.array_equal(init.place, sample.place) and not init.strength.any()
  gradient = jax.jit(jax.grad(lambda latent: threat.decode(X, latent).sum()))(sample)
  assert not gradient.place.any() and not gradient.angle.any() and (gradient.strength > 0).all()
  new = threat.project(X, jax.tree.map(lambda l, g: l + 100 * g, sample, gradient))
  assert (new.strength == 0.5).all() and np.array_equal(new.angle, init.angle)
  assert threat.distance(new) == 0.5


def test_errors():
  with pytest.raises(ValueError, match='`number` must be positive, got number=0'):
    functional.snow(1.0, number=0)
  with pytest.raises(ValueError, match='for grey levels write 8 / 255'):
    functional.gabor(8)
  with pytest.raises(ValueError, match='`decay` must be at least 1, got decay=0.5'):
    functional.fog(1.0, decay=0.5)
