"""What a base learner is, and what all of them share: masks, a part's own mean, exact products.

The proof of partition aggregation asks one thing of a learner: that what it answers is a function of
its key and its own ordered samples, and of nothing else. So a part is normalised by its own mean and
standard deviation, a padded row weighs exactly nothing, and the number of steps is fixed.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_SMALLEST_STD = 1e-3  # Of a part without contrast: a constant image must not become NaN.


class Learner(NamedTuple):
  """How one member of an ensemble learns and answers; padding and members are the ensemble's.

  Attributes:
    fit: `(key, x[S, D], y[S], mask[S]) -> state`, a tree of arrays of fixed shapes; x float32 in
      [0, 1] or given features, y int32, mask bool. Where the mask is False nothing may be learned.
    scores: `(state, x[D]) -> float32[K]` of one image.
    num_classes: K.
  """

  fit: Callable
  scores: Callable
  num_classes: int


def product(a, b):
  """a b, with float32 products."""
  return jnp.matmul(a, b, precision='highest')


def moments(x, mask):
  """Mean and standard deviation of all entries of the samples that the mask shows."""
  number = shown_number(mask) * x.shape[1]
  shown = mask[:, None]
  mean = jnp.sum(jnp.where(shown, x, 0)) / number
  variance = jnp.sum(jnp.where(shown, (x - mean) ** 2, 0)) / number
  return mean, jnp.maximum(jnp.sqrt(variance), jnp.float32(_SMALLEST_STD))


def shown_number(mask):
  """float32: samples that count, 1 where there is none."""
  return jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1)


def log_losses(logits, y):
  """float32[B], cross-entropies of logits[B, K]."""
  return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]


def check_size(name, size, least):
  """An integer of at least `least`, which may come as a float.

  Raises:
    ValueError: for anything else.
  """
  number: Any = size  # As a `numbers.Real` it would have no `int`.
  whole = isinstance(size, numbers.Real) and math.isfinite(size) and size == int(number)
  if not whole or size < least:
    raise ValueError(f'`{name}` must be an integer of at least {least}, got {size}.')
  return int(number)


def check_positive(name, value, remedy):
  """Raises `ValueError` unless a number is positive and finite."""
  if not 0 < value < math.inf:
    raise ValueError(f'`{name}` must be positive and finite, got {value}; try {remedy}.')


def check_shape(shape):
  """(H, W, C), integers of at least 1.

  Raises:
    ValueError: for anything else.
  """
  shape = tuple(shape)
  if len(shape) != 3 or not all(size == int(size) and size >= 1 for size in shape):
    raise ValueError(f'`shape` must be (height, width, channels) of the images, got {shape}.')
  return tuple(int(size) for size in shape)
