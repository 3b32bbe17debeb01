"""A small convolutional network for parts of a few dozen images, shifted anew in every step.

Convolutions go through `layers.conv_general_dilated`, whose gradient is fast inside a loop and which sums
few channels fast on CPU; their precision is not pinned, as that asks for one primitive: members only vote.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from certjax import layers, train
from certjax.poisoning._learner import (
  Learner,
  check_positive,
  check_shape,
  check_size,
  log_losses,
  moments,
)

_KERNEL, _STRIDE, _MOMENTUM = 4, 2, 0.9
_conv = functools.partial(
  layers.conv_general_dilated, window_strides=(_STRIDE, _STRIDE), padding='SAME'
)


def cnn(
  num_classes: int, *, shape, width: int = 16, num_steps: int = 200, batch: int = 16, step_size: float = 0.03,
  crop: int = 3,
) -> Learner:  # fmt: skip
  """conv 4x4 stride 2 (w) - conv 4x4 stride 2 (2w) - dense K, ReLU between, trained with momentum 0.9.

  Each step draws `batch` of the part's samples, with replacement, and shifts each by up to `crop` pixels
  (zeros come in), then normalises by the mean and standard deviation of all pixels of the part. What is
  drawn is a function of the key, the step and the number of samples.

  Args:
    num_classes: K.
    shape: (H, W, C) of the images.
    width: w.
    num_steps: steps of the descent.
    batch: samples a step.
    step_size: the first one, which falls to 0 along a cosine.
    crop: pixels of the largest shift along each axis; 0 shifts nothing.

  Returns:
    A `Learner`.

  Raises:
    ValueError: if a size is no integer of at least 1 (`crop`: 0), or `step_size` is not positive and
      finite.

  Example:
    >>> learner = cnn(2, shape=(4, 4, 1), width=4, num_steps=30, crop=0)
    >>> x = jnp.concatenate([jnp.zeros((2, 16)), jnp.ones((2, 16))]) * jnp.linspace(0.5, 1, 16)[None]
    >>> y, mask = jnp.array([0, 0, 1, 1]), jnp.ones(4, bool)
    >>> state = jax.jit(learner.fit)(jax.random.key(0), x, y, mask)
    >>> jnp.argmax(jax.vmap(learner.scores, (None, 0))(state, x), axis=1).tolist()
    [0, 0, 1, 1]
  """
  shape = check_shape(shape)
  num_classes, width, num_steps, batch, crop = (
    check_size(name, size, least)
    for name, size, least in (
      ('num_classes', num_classes, 2), ('width', width, 1), ('num_steps', num_steps, 1),
      ('batch', batch, 1), ('crop', crop, 0),
    )
  )  # fmt: skip
  check_positive('step_size', step_size, 0.03)

  def fit(key, x, y, mask):
    key_weights, key_steps = jax.random.split(key)
    mean, std = moments(x, mask)
    images = x.reshape(-1, *shape)
    number = jnp.maximum(jnp.sum(mask.astype(jnp.int32)), 1)

    def loss(weights, images, y):
      return jnp.mean(log_losses(_logits(weights, (images - mean) / std), y))

    def step(t, carry):
      weights, velocity = carry
      key_rows, key_shifts = jax.random.split(jax.random.fold_in(key_steps, t))
      rows = jax.random.randint(key_rows, (batch,), 0, number)
      keys = jax.random.split(key_shifts, batch)
      shown = jax.vmap(functools.partial(train.random_crop, pad=crop))(keys, images[rows])
      slope = jax.grad(loss)(weights, shown, y[rows])
      rate = step_size / 2 * (1 + jnp.cos(jnp.pi * t.astype(jnp.float32) / num_steps))
      velocity = jax.tree.map(lambda v, g: _MOMENTUM * v + g, velocity, slope)
      return jax.tree.map(lambda w, v: w - rate * v, weights, velocity), velocity

    weights = _initial(key_weights, shape, width, num_classes)
    weights, _ = lax.fori_loop(0, num_steps, step, (weights, jax.tree.map(jnp.zeros_like, weights)))
    return {'mean': mean, 'std': std, **weights}

  def scores(state, x):
    x = (x.reshape(1, *shape) - state['mean']) / state['std']
    return _logits(state, x)[0]

  return Learner(fit, scores, num_classes)


def _initial(key, shape, width, num_classes):
  """He's initialisation of the convolutions, a tenth of it for the last layer; biases 0."""
  height, columns, channels = shape
  cells = -(-height // _STRIDE**2) * -(-columns // _STRIDE**2)
  sizes = {
    'first': (_KERNEL, _KERNEL, channels, width),
    'second': (_KERNEL, _KERNEL, width, 2 * width),
    'last': (cells * 2 * width, num_classes),
  }
  drawn, weights = jax.random.normal(key, (sum(map(math.prod, sizes.values())),), jnp.float32), {}
  for name, size in sizes.items():
    scale = jnp.float32((2 / math.prod(size[:-1])) ** 0.5 * (0.1 if name == 'last' else 1))
    weights[name] = scale * drawn[: math.prod(size)].reshape(size)
    weights[f'{name}_bias'] = jnp.zeros(size[-1], jnp.float32)
    drawn = drawn[math.prod(size) :]
  return weights


def _logits(weights, x):
  """float32[B, K] of normalised images."""
  for name in ('first', 'second'):
    x = jax.nn.relu(_conv(x, weights[name]) + weights[f'{name}_bias'][None, None, None])
  x = jnp.matmul(x.reshape(x.shape[0], -1), weights['last'], precision='highest')
  return x + weights['last_bias'][None]
