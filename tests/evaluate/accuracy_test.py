"""Accuracy is exact, whatever the batch size leaves over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import data, evaluate


def model_fn(x):
  """Class 1 where the first pixel is bright; it sees floats in [0, 1]."""
  return jnp.stack([jnp.full(len(x), 0.5), x[:, 0, 0, 0]], axis=1)


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (23, 2, 2, 1), np.uint8)
  return data.Images(pixels, rng.integers(0, 2, 23).astype(np.int32), np.arange(23))


@pytest.mark.parametrize('batch_size', [1, 4, 22, 23, 24, 100])
def test_ragged_batches(images, batch_size):
  right = (images.images[:, 0, 0, 0] > 127) == images.labels
  assert evaluate.accuracy(model_fn, images, batch_size=batch_size) == right.mean()


def test_padding_rows_do_not_count(images):
  """All right, or all wrong: a padded row counted in would show."""
  right = images._replace(labels=(images.images[:, 0, 0, 0] > 127).astype(np.int32))
  assert evaluate.accuracy(model_fn, right, batch_size=10) == 1.0
  assert evaluate.accuracy(model_fn, right._replace(labels=1 - right.labels), batch_size=10) == 0.0


def test_one_trace_for_all_batches(images):
  traces = []

  def traced(x):
    traces.append(x.shape)
    return model_fn(x)

  evaluate.accuracy(jax.tree_util.Partial(traced), images, batch_size=10)
  assert traces == [(10, 2, 2, 1)]
