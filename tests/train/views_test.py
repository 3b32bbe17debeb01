"""Random views against plain arithmetic: windows, mirror images, ramps, grey axes, turns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import train

RNG = np.random.default_rng(0)
KEYS = jax.random.split(jax.random.key(0), 200)


def many(view, image):
  return np.asarray(jax.jit(jax.vmap(view, (0, None)))(KEYS, jnp.asarray(image, jnp.float32)))


@pytest.mark.parametrize('channels', [1, 3])
def test_rotations_are_numpy_s(channels):
  image = RNG.integers(0, 256, (5, 5, channels), dtype=np.uint8)
  found = np.asarray(train.rotations(jnp.asarray(image)))
  assert found.dtype == np.uint8
  for turns in range(4):
    np.testing.assert_array_equal(found[turns], np.rot90(image, turns))


def test_random_crops_are_the_windows_of_the_padded_image():
  """All nine of them come up in 200 draws, but for a chance of 9 (8/9)^200 < 1e-9."""
  image = np.arange(1, 13, dtype=np.float32).reshape(3, 4, 1)
  padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
  windows = {padded[i : i + 3, j : j + 4].tobytes() for i in range(3) for j in range(3)}
  found = {view.tobytes() for view in many(lambda k, x: train.random_crop(k, x, pad=1), image)}
  assert found == windows


def test_random_flips():
  """Both come up, but for a chance of 2^-199."""
  image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
  found = {view.tobytes() for view in many(train.random_flip, image)}
  assert found == {image.tobytes(), image[:, ::-1].tobytes()}


def test_a_resized_crop_of_a_ramp_is_a_ramp():
  """Bilinear interpolation is exact for linear functions, but for half a pixel at the image's edge: slope
  and offset say which window was shown, and it lies inside."""
  size = 16
  rows, columns = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing='ij')
  image = np.stack([rows, columns], axis=2) / size
  views = many(lambda k, x: train.random_resized_crop(k, x, scale=(0.2, 0.6)), image)
  sides = []
  for axis, view in ((0, views[..., 0].mean(axis=2)), (1, views[..., 1].mean(axis=1))):
    inside = view[:, 4:-4]
    slopes = np.diff(inside, axis=1)
    np.testing.assert_allclose(slopes, slopes[:, :1].repeat(slopes.shape[1], axis=1), atol=1e-5)
    sides.append(slopes[:, 0] * size)
    low = inside[:, 0] - 4.5 * slopes[:, 0]
    assert (low > -1e-4).all() and (low + sides[axis] < 1 + 1e-4).all()
    assert low.std() > 0.1  # Windows lie anywhere.
  height, width = sides
  area, ratio = height * width, width / height
  assert (area > 0.2 - 1e-3).all() and (area < 0.6 + 1e-3).all() and np.ptp(area) > 0.3
  assert (ratio > 3 / 4 - 1e-3).all() and (ratio < 4 / 3 + 1e-3).all() and np.ptp(ratio) > 0.4


def test_colours_keep_grey_grey_and_stay_pixels():
  """Saturation and hue turn about the grey axis; luma of a grey image in each channel."""
  grey = RNG.uniform(size=(4, 4, 1)).repeat(3, axis=2)
  views = many(lambda k, x: train.random_colours(k, x, strength=1.0, share=1.0), grey)
  assert np.ptp(views, axis=3).max() < 1e-5 and views.std(axis=0).min() > 0.01
  colour = RNG.uniform(size=(4, 4, 3)).astype(np.float32)
  views = many(lambda k, x: train.random_colours(k, x, strength=1.0), colour)
  assert views.min() >= 0 and views.max() <= 1
  same = (np.abs(views - colour).max(axis=(1, 2, 3)) == 0).mean()
  assert 0.05 < same < 0.3  # 0.2 * 0.8, five standard deviations either way.
  luma = (colour @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, axis=2)
  views = many(lambda k, x: train.random_colours(k, x, share=0.0, grey_share=1.0), colour)
  np.testing.assert_allclose(views, luma[None].repeat(len(KEYS), axis=0), atol=1e-6)


def test_the_hue_turns_by_the_angle():
  """A third of the circle takes red to green to blue; lengths along the grey axis stay."""
  from certjax.train import _views

  turn = np.asarray(_views._turned(2 * jnp.pi / 3))
  np.testing.assert_allclose(turn, np.eye(3)[[2, 0, 1]], atol=1e-6)
  angle = np.asarray(_views._turned(jnp.float32(0.4)), np.float64)
  np.testing.assert_allclose(angle @ angle.T, np.eye(3), atol=1e-6)
  np.testing.assert_allclose(angle.sum(axis=1), np.ones(3), atol=1e-6)
  assert np.trace(angle) == pytest.approx(1 + 2 * np.cos(0.4), abs=1e-6)
