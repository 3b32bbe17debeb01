"""Network in Network as a base learner: its published size, and what its members are a function of."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import models, poisoning
from certjax.poisoning import _nin

CLASSES = 3
KEY = jax.random.key(0)


@pytest.mark.parametrize('shape, number', [((28, 28, 1), 996_042), ((32, 32, 3), 1_005_642)])
def test_network_in_network_has_the_published_size(shape, number):
  module = models.build('nin', num_classes=10, mean=(0.0,) * shape[2], std=(1.0,) * shape[2])
  variables = jax.eval_shape(module.init, KEY, jnp.zeros((1, *shape)))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == number
  learner = poisoning.nin(10, shape=shape)
  row = jax.ShapeDtypeStruct((8, int(np.prod(shape))), jnp.float32)
  state = jax.eval_shape(learner.fit, KEY, row, jnp.zeros(8, jnp.int32), jnp.ones(8, bool))
  assert sum(leaf.size for leaf in jax.tree.leaves(state['params'])) == number


def test_members():
  """The same bits in another place of a group; samples are fit; padded batches of four count for nothing."""
  num_epochs = 60
  learner = poisoning.nin(CLASSES, shape=(3, 3, 1), width=6, num_epochs=num_epochs, batch=4, crop=0)
  rng = np.random.default_rng(0)
  y = np.append(rng.integers(0, CLASSES, 14), np.zeros(8)).astype(np.int32)
  x = rng.integers(0, 200, (CLASSES, 3, 3, 1))[y] + rng.integers(0, 20, (22, 3, 3, 1))
  x = np.where(np.arange(22)[:, None, None, None] < 14, x, 0).astype(np.uint8)
  edges = [0, 7, 14, 17, 22]  # Of the black images three, in one batch, and five, in two.
  parts = poisoning.Partition(tuple(np.arange(*pair) for pair in itertools.pairwise(edges)))
  train = functools.partial(
    poisoning.train_ensemble, KEY, learner, x, y, parts, capacity=8, group=2
  )
  first, second = train(), train(members=[2, 0])
  for a, b in zip(jax.tree.leaves(first.states), jax.tree.leaves(second.states), strict=True):
    np.testing.assert_array_equal(a[0, 0], b[0, 1])
    assert np.isfinite(a).all()
  weights = first.states['params']['fc']['kernel']
  assert not np.array_equal(weights[0, 0], weights[0, 1])
  votes = poisoning.votes(first, x, chunk=len(x))
  for member, own in ((0, y[:7]), (1, y[7:14])):  # Better than saying the commonest class.
    right = np.mean(votes[7 * member :][:7, member] == own)
    assert right > np.bincount(own).max() / len(own)
  # Without any contrast a layer's variance is 0, and the running one a power of .9.
  variance = first.states['batch_stats']['block1']['bn1']['var'][1]
  np.testing.assert_allclose(variance[0], 0.9**num_epochs, rtol=1e-4)
  np.testing.assert_allclose(variance[1], 0.9 ** (2 * num_epochs), rtol=1e-4)


def test_an_epoch_meets_each_sample_once():
  """Two batches of four for five samples of seven rows, the shown first; an order of the key's own."""
  mask = np.array([True, False, True, True, False, True, True])
  orders = [np.asarray(_nin._order(jax.random.key(i), mask, 8)) for i in range(5)]
  for order in orders:
    assert sorted(order[:5]) == [0, 2, 3, 5, 6] and sorted(order[5:]) == [1, 4, 7]
  assert len({tuple(order) for order in orders}) > 1
