"""Accuracy over a data set in one fixed batch shape: of the images, and under an attack."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from certjax import data


def accuracy(model_fn, images, *, batch_size=500) -> float:
  """Share of images whose largest logit is the label's; exact, ragged batches are masked.

  Args:
    model_fn: a `jax.tree_util.Partial` (`models.bind`) or any `ModelFn`.
    images: `data.Images`.
    batch_size: images a forward pass.

  Returns:
    In [0, 1].

  Example:
    >>> pixels = np.array([[51, 204], [204, 51]], np.uint8).reshape(2, 1, 2, 1)
    >>> images = data.Images(pixels, np.array([1, 1]), np.arange(2))
    >>> accuracy(lambda x: x.reshape(len(x), -1), images, batch_size=4)
    0.5
  """
  model_fn = jax.tree_util.Partial(model_fn)
  correct = 0
  for batch, mask in data.eval_batches(images, batch_size):
    right = _correct(model_fn, data.to_float(batch['x']), batch['y'])
    correct += int(np.sum(np.asarray(right)[mask]))
  return correct / len(images.labels)


@jax.jit
def _correct(model_fn, x, y):
  return jnp.argmax(model_fn(x), axis=-1) == y


def robust_accuracy(key, model_fn, attack, images, *, batch_size=500) -> float:
  """Share of images that are classified as their label, and still are where an attack moves them.

  An upper bound of the accuracy on the attack's threat set: a stronger attack may find more. Image
  i is attacked under fold_in(key, index_i), whatever its batch.

  Args:
    key: root key of the attack.
    model_fn: a `jax.tree_util.Partial` (`models.bind`) or any `ModelFn`.
    attack: an `Attack`; one trace serves all batches.
    images: `data.Images`.
    batch_size: images a batch.

  Returns:
    In [0, 1].

  Example:
    >>> from certjax import attacks, threats
    >>> model_fn = lambda x: jnp.stack([x[:, 0, 0, 0], jnp.full(len(x), 0.5)], axis=1)
    >>> pixels = np.array([[[[130]]], [[[200]]]], np.uint8)
    >>> images = data.Images(pixels, np.zeros(2, np.int32), np.arange(2))
    >>> attack = attacks.pgd(threats.linf(0.1), step_size=0.05, num_steps=4)
    >>> robust_accuracy(jax.random.key(0), model_fn, attack, images, batch_size=2)
    0.5

  References:
    Madry et al. 2018 (arXiv:1706.06083).
  """
  found = survivors(key, model_fn, attack, images, batch_size=batch_size)
  return int(found.sum()) / len(images.labels)


def survivors(key, model_fn, attack, images, *, batch_size=500) -> np.ndarray:
  """Which images are classified as their label, and still are where an attack moves them.

  Args:
    key, model_fn, attack, images, batch_size: as in `robust_accuracy`.

  Returns:
    bool[N].

  Example:
    >>> from certjax import attacks, threats
    >>> model_fn = lambda x: jnp.stack([x[:, 0, 0, 0], jnp.full(len(x), 0.5)], axis=1)
    >>> pixels = np.array([[[[130]]], [[[200]]]], np.uint8)
    >>> images = data.Images(pixels, np.zeros(2, np.int32), np.arange(2))
    >>> attack = attacks.pgd(threats.linf(0.1), step_size=0.05, num_steps=4)
    >>> survivors(jax.random.key(0), model_fn, attack, images, batch_size=2).tolist()
    [False, True]
  """
  model_fn, found = jax.tree_util.Partial(model_fn), []
  for batch, mask in data.eval_batches(images, batch_size):
    x = data.to_float(batch['x'])
    right = _survives(attack, key, model_fn, x, batch['y'], batch['index'])
    found.append(np.asarray(right)[mask])
  return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _survives(attack, key, model_fn, x, y, index):
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
  return _correct(model_fn, x, y) & _correct(model_fn, attack(keys, model_fn, x, y), y)
