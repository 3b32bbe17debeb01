"""The nearest neighbour as a `model_fn`: a classifier without training, and without gradients worth a step."""

import jax
import jax.numpy as jnp
import numpy as np


def nearest_neighbour(x, y, *, num_classes):
  """Classifies by the closest of some labelled images.

    logits_c = -min_{i: y_i = c} ||x - x_i||_2^2,

  from |x|^2 - 2 <x, x_i> + |x_i|^2 in float32, so that distances closer than about 1e-6 of the squared norms
  may change places.

  Args:
    x: float[N, ...] in [0, 1], or uint8: the images, N >= 1.
    y: int[N], their labels.
    num_classes: K; a class without an image has the logit -inf.

  Returns:
    A `ModelFn` (a `jax.tree_util.Partial` whose leaves are the images, class by class). Each row costs N
    products of images.

  Raises:
    ValueError: for an empty set, or labels outside 0 .. K - 1.

  Example:
    >>> model_fn = nearest_neighbour(np.eye(3, dtype=np.float32), [0, 1, 1], num_classes=2)
    >>> model_fn(jnp.array([[0.0, 0.0, 0.5]])).tolist()
    [[-1.25, -0.25]]
  """
  x, y = np.asarray(x), np.asarray(y)
  if not len(x) or y.shape != (len(x),):
    raise ValueError(
      f'`x` must hold at least one image and `y` a label for each, got {len(x)} images and labels of '
      f'shape {y.shape}.'
    )
  if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= num_classes:
    raise ValueError(f'`y` must hold labels in 0 .. {num_classes - 1}, got {y.min()} .. {y.max()}.')
  x = x.reshape(len(x), -1)
  x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)
  classes = tuple(jnp.asarray(x[y == label].T) for label in range(num_classes))
  norms = tuple(jnp.sum(each**2, axis=0) for each in classes)
  return jax.tree_util.Partial(_logits, classes, norms)


def _logits(classes, norms, x):
  x = x.reshape(len(x), -1)
  own = jnp.sum(x**2, axis=1)

  def closest(images, norms):
    if not len(norms):
      return jnp.full(len(x), jnp.inf, x.dtype)
    return jnp.min(norms[None] - 2 * jnp.matmul(x, images, precision='highest'), axis=1) + own

  return -jnp.stack([closest(*each) for each in zip(classes, norms, strict=True)], axis=1)
