"""The nearest neighbour against scikit-learn's, and what it refuses."""

import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from certjax import models


def test_against_scikit_learn():
  random = np.random.default_rng(0)
  x, y = random.random((300, 4, 4, 1), np.float32), random.integers(0, 5, 300)
  queries = random.random((100, 4, 4, 1), np.float32)
  peer = KNeighborsClassifier(1, algorithm='brute').fit(x.reshape(300, -1), y)
  logits = np.asarray(jax.jit(models.nearest_neighbour(x, y, num_classes=6))(queries))
  np.testing.assert_array_equal(logits.argmax(axis=1), peer.predict(queries.reshape(100, -1)))
  nearest = peer.kneighbors(queries.reshape(100, -1))[0][:, 0] ** 2
  np.testing.assert_allclose(-logits.max(axis=1), nearest, atol=1e-5)
  assert (logits[:, 5] == -np.inf).all()


def test_bytes_are_scaled_and_leaves_travel():
  x = np.array([[0, 255], [255, 0]], np.uint8)
  model_fn = models.nearest_neighbour(x, [0, 1], num_classes=2)
  np.testing.assert_allclose(model_fn(np.array([[0, 1.0]], np.float32)), [[0, -2]], atol=1e-6)
  assert len(jax.tree.leaves(model_fn)) == 4


@pytest.mark.parametrize(
  'x, y, said',
  [
    (np.zeros((0, 2), np.float32), [], '`x` must hold at least one image'),
    (np.zeros((2, 2), np.float32), [0], 'a label for each'),
    (np.zeros((2, 2), np.float32), [0, 2], '`y` must hold labels in 0 .. 1'),
    (np.zeros((2, 2), np.float32), [0.0, 1.0], '`y` must hold labels'),
  ],
)
def test_bad_sets(x, y, said):
  with pytest.raises(ValueError, match=said):
    models.nearest_neighbour(x, y, num_classes=2)
