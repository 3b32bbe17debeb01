"""Accuracy is exact, whatever the batch size leaves over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, data, evaluate, threats


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


def shift(amount):
  """An attack that adds `amount` to every pixel."""
  return lambda key, model_fn, x, y: x + amount


@pytest.mark.parametrize('batch_size', [1, 4, 22, 24])
def test_robust_accuracy_of_a_threshold(images, batch_size):
  """An image is lost exactly where its bright pixel lies within eps of the threshold."""
  eps, first = 0.1, images.images[:, 0, 0, 0] / 255
  right = (first > 0.5) == images.labels
  expected = (right & (np.abs(first - 0.5) > eps)).mean()
  attack = attacks.pgd(threats.linf(eps), step_size=0.05, num_steps=5)
  key = jax.random.key(0)
  found = evaluate.robust_accuracy(key, model_fn, attack, images, batch_size=batch_size)
  assert 0 < found == expected < right.mean()


def test_an_attack_that_helps_earns_nothing(images):
  """An image that is misclassified as it stands counts, wherever the attack may move it."""
  dark = images._replace(images=np.zeros_like(images.images), labels=np.ones(23, np.int32))
  robust = evaluate.robust_accuracy
  assert robust(jax.random.key(0), model_fn, shift(0.9), dark) == 0.0
  bright = dark._replace(images=dark.images + np.uint8(255))
  assert robust(jax.random.key(0), model_fn, shift(0.0), bright) == 1.0
  assert robust(jax.random.key(0), model_fn, shift(-0.9), bright) == 0.0


def test_the_attack_draws_by_dataset_index(images):
  """Any batch size and any order of the images: the same draws."""

  def coin(keys, model_fn, x, y):
    return jax.vmap(lambda key, x: x * jax.random.bernoulli(key).astype(x.dtype))(keys, x)

  bright = images._replace(images=images.images | np.uint8(255), labels=np.ones(23, np.int32))
  turned = data.Images(*(part[::-1] for part in bright))
  found = {
    evaluate.robust_accuracy(jax.random.key(3), model_fn, coin, some, batch_size=batch_size)
    for some in (bright, turned)
    for batch_size in (5, 23)
  }
  assert len(found) == 1 and 0 < found.pop() < 1
  renumbered = bright._replace(index=bright.index + 100)
  key = jax.random.key(3)
  each = [
    [
      evaluate.robust_accuracy(key, model_fn, coin, data.take(some, slice(i, i + 1)), batch_size=1)
      for i in range(8)
    ]
    for some in (bright, renumbered)
  ]
  assert each[0] != each[1]


def test_one_trace_of_the_attack(images):
  traces = []

  def traced(key, model_fn, x, y):
    traces.append(x.shape)
    return x

  for _ in range(2):
    evaluate.robust_accuracy(jax.random.key(0), model_fn, traced, images, batch_size=10)
  assert traces == [(10, 2, 2, 1)]
