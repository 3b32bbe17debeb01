"""The threshold: what passes it, its gradient, its range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import defenses


def test_only_sides_of_the_threshold_matter():
  weights = jnp.array([[1.0, -2.0], [0.5, 3.0]])
  model_fn = lambda x: jnp.matmul(x, weights, precision='highest')
  wrapped = jax.jit(defenses.binarize(model_fn, threshold=0.25))
  x = jnp.array([[0.2, 0.3], [0.25, 1.0], [0.26, 0.0]])
  np.testing.assert_array_equal(wrapped(x), model_fn(jnp.array([[0.0, 1], [0, 1], [1, 0]])))
  assert not jax.grad(lambda x: wrapped(x).sum())(x).any()


@pytest.mark.parametrize('threshold', [-0.1, 1.5, float('nan')])
def test_thresholds_are_pixel_values(threshold):
  with pytest.raises(ValueError, match='`threshold` is a pixel value'):
    defenses.binarize(lambda x: x, threshold=threshold)
