"""SSIM: two conventions to the digit, against plain sums; norms; images in a wrong range."""

import jax
import numpy as np
import pytest

from certjax import distances, parallel

I, J = np.meshgrid(np.arange(16), np.arange(16), indexing='ij')
X = (0.5 + 0.4 * np.sin(0.7 * I + 0.3 * J))[..., None]
Y = (0.5 + 0.4 * np.sin(0.7 * I + 0.3 * J + 0.5))[..., None]


@pytest.mark.parametrize(
  'padding, waves, constants', [('same', 0.8843503, 0.9712043), ('valid', 0.8684323, 0.9836092)]
)
def test_published_conventions(padding, waves, constants):
  """'valid' is scikit-image's number, 'same' that of pytorch-ssim."""
  similarity = jax.jit(distances.ssim(padding=padding, dissimilarity=False))
  flat = np.full((16, 16, 1), 0.5)
  with parallel.x64():
    assert abs(similarity(X, Y) - waves) < 1e-6
    assert abs(similarity(flat, flat + 0.1) - constants) < 1e-6
    assert abs(similarity(X, X) - 1) < 1e-12


def test_channels_and_windows_one_by_one():
  """A window of 3, images that are no squares, three channels: sums written out."""
  rng = np.random.default_rng(0)
  x, y = rng.uniform(0, 1, (2, 5, 4, 3))
  weights = np.exp(-(np.array([-1, 0, 1]) ** 2) / (2 * 0.8**2))
  weights = np.outer(weights, weights) / np.sum(weights) ** 2
  values = []
  for i, j, c in np.ndindex(3, 2, 3):
    a, b = x[i : i + 3, j : j + 3, c], y[i : i + 3, j : j + 3, c]
    m, n = np.sum(weights * a), np.sum(weights * b)
    s, t = np.sum(weights * (a - m) ** 2), np.sum(weights * (b - n) ** 2)
    both = np.sum(weights * (a - m) * (b - n))
    values.append(
      (2 * m * n + 1e-4) * (2 * both + 9e-4) / ((m * m + n * n + 1e-4) * (s + t + 9e-4))
    )
  distance = distances.ssim(padding='valid', size=3, sigma=0.8)
  found = distances.between(distance, np.float32(x)[None], np.float32(y)[None])
  np.testing.assert_allclose(found, [1 - np.mean(values)], atol=1e-5)


def test_gradient_is_that_of_differences():
  value_and_slope = jax.jit(jax.value_and_grad(distances.ssim(size=3)))
  x, y = X[:4, :4], Y[:4, :4]
  direction = np.random.default_rng(1).normal(size=x.shape)
  with parallel.x64():
    ahead, behind = (value_and_slope(x + t * direction, y)[0] for t in (1e-6, -1e-6))
    slope = float(ahead - behind) / 2e-6
    np.testing.assert_allclose(np.vdot(value_and_slope(x, y)[1], direction), slope, rtol=1e-6)
    np.testing.assert_allclose(value_and_slope(x, x)[1], 0, atol=1e-10)


def test_norms_of_differences():
  x, y = np.random.default_rng(0).uniform(0, 1, (2, 3, 4, 4, 2)).astype(np.float32)
  for p in (1, 2, np.inf):
    expected = [np.linalg.norm((a - b).ravel(), p) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(distances.between(distances.lp(p), x, y), expected, rtol=1e-6)
  assert not np.any(jax.jit(jax.grad(distances.lp(2)))(x[0], x[0]))


def test_between_takes_grey_levels():
  x = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 2)).astype(np.uint8)
  same = distances.between(distances.lp(np.inf), x, (x / 255).astype(np.float32))
  np.testing.assert_allclose(same, 0, atol=1e-6)


@pytest.mark.parametrize(
  'call, match',
  [
    (lambda: distances.ssim(padding='full'), '`padding` must be one of same, valid'),
    (lambda: distances.ssim(size=4), '`size` must be odd'),
    (lambda: distances.ssim()(X[:8], X[:8]), 'as large as the window'),
    (lambda: distances.ssim()(X[None], X[None]), 'ONE image'),
    (lambda: distances.lp(3), '`p` must be 1, 2 or infinity'),
    (lambda: distances.between(None, 2 * X[None] - 1, X[None]), r'`x1` .* look like \[-1, 1\]'),
    (lambda: distances.between(None, X[None], 255 * X[None]), '`x2` .* divide by 255'),
    (lambda: distances.between(None, X[None], X[None, :8]), 'must be of one shape'),
  ],
)
def test_bad_arguments(call, match):
  with pytest.raises(ValueError, match=match):
    call()
