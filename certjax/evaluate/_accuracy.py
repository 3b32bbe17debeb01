"""Accuracy over a data set in one fixed batch shape."""

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
