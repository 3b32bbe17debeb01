"""Elastic: the filter of SciPy, translations, the bound in pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from certjax.attacks import functional
from certjax.attacks.functional._elastic import gaussian_filter

pytestmark = pytest.mark.usefixtures('many_programs')


def test_filter_is_scipys_and_sums_to_one():
  latent = np.random.default_rng(0).normal(size=(12, 9))
  smooth = lambda field: scipy.ndimage.gaussian_filter(field, 1.0, truncate=4.0, mode='constant')
  expected = smooth(latent) / smooth(np.ones_like(latent))
  ours = gaussian_filter(12, 1.0) @ latent @ gaussian_filter(9, 1.0).T
  np.testing.assert_allclose(ours, expected, rtol=1e-12)
  for size, taps in ((32, 5), (224, 25)):  # Kang et al.'s kernels.
    assert (gaussian_filter(size, size * 3 / 224)[size // 2] > 0).sum() == taps


def test_a_constant_latent_translates_and_a_rough_one_hardly_moves():
  x = jnp.asarray(np.random.default_rng(1).uniform(size=(4, 6, 2)), jnp.float32)
  down = jnp.zeros((4, 6, 2)).at[..., 0].set(1.0)
  decode = jax.jit(functional.elastic(1.0, sigma=2.0).decode)
  np.testing.assert_allclose(decode(x, down), x[jnp.array([1, 2, 3, 3])], atol=1e-6)
  checks = jnp.asarray((-1.0) ** np.add.outer(np.arange(4), np.arange(6)), jnp.float32)
  rough = jnp.stack([checks, checks], axis=-1)
  assert jnp.abs(decode(x, rough) - x).max() < 0.2 < jnp.abs(decode(x, down) - x).max()


def test_errors():
  with pytest.raises(ValueError, match='`sigma` must be positive, got sigma=0'):
    functional.elastic(1.0, sigma=0)
  with pytest.raises(ValueError, match='`eps` must be at least 0, got eps=-1'):
    functional.elastic(-1)
