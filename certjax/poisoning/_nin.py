"""The papers' base learner: Network in Network with BatchNorm, a million weights, for an accelerator."""

import functools
import math

import jax
import jax.numpy as jnp
import optax
from jax import lax

from certjax import models, train
from certjax.poisoning._learner import (
  Learner,
  check_positive,
  check_shape,
  check_size,
  log_losses,
  moments,
  shown_number,
)

_DECAYS, _DECAY = (0.3, 0.6, 0.8), 0.2  # Epochs 60, 120 and 160 of 200.


def nin(
  num_classes: int, *, shape, width: int = 192, num_epochs: int = 200, batch: int = 128, step_size: float = 0.1,
  weight_decay: float = 5e-4, crop: int = 4, mirror: int = 0,
) -> Learner:  # fmt: skip
  """`models.NetworkInNetwork` by stochastic descent with Nesterov's momentum 0.9, as published.

  An epoch meets the part's samples once in an order of its own, in batches; each image is shifted by up to
  `crop` pixels and, if asked for, mirrored or not, then normalised by the mean and standard deviation of all
  pixels of the part. The step size falls to a fifth at 30, 60 and 80% of the steps. Padded rows are in no
  batch's statistics, and a batch of nothing else changes nothing.

  Args:
    num_classes: K.
    shape: (H, W, C) of the images.
    width: channels of a convolution.
    num_epochs: passes over the part.
    batch: samples a step; of a smaller part, all.
    step_size: the first one.
    weight_decay: of the gradient, as many times each weight.
    crop: pixels of the largest shift along each axis.
    mirror: 1 mirrors every image with probability 1/2 (CIFAR-10), 0 none (digits, signs).

  Returns:
    A `Learner`.

  Raises:
    ValueError: if a size is no integer of at least 1 (`crop`, `mirror`: 0), or the descent's numbers are not
      positive and finite.

  Example:
    >>> learner = nin(2, shape=(28, 28, 1))  # 996,042 weights for 10 classes.

  References:
    Levine & Feizi 2021 (arXiv:2006.14768), after Gidaris et al. 2018 (arXiv:1803.07728).
  """
  shape = check_shape(shape)
  num_classes, width, num_epochs, batch, crop, mirror = (
    check_size(name, size, least)
    for name, size, least in (
      ('num_classes', num_classes, 2), ('width', width, 2), ('num_epochs', num_epochs, 1),
      ('batch', batch, 1), ('crop', crop, 0), ('mirror', mirror, 0),
    )
  )  # fmt: skip
  check_positive('step_size', step_size, 0.1)
  check_positive('weight_decay', weight_decay, 5e-4)
  module = models.NetworkInNetwork(num_classes, width, axis=None)

  def fit(key, x, y, mask):
    key_weights, key_order, key_images = jax.random.split(key, 3)
    mean, std = moments(x, mask)
    images = jnp.where(mask[:, None], x, 0).reshape(-1, *shape)
    capacity = images.shape[0]
    size = min(batch, capacity)
    per_epoch = math.ceil(capacity / size)
    num_steps = num_epochs * per_epoch
    falls = jnp.array([round(at * num_steps) for at in _DECAYS], jnp.int32)
    tx = train.optimizer('nesterov', 1.0, weight_decay=weight_decay)

    def loss(params, statistics, images, y, shown):
      variables = {'params': params, 'batch_stats': statistics}
      logits, updated = module.apply(
        variables, (images - mean) / std, train=True, mask=shown, mutable=['batch_stats']
      )
      weight = shown.astype(jnp.float32) / shown_number(shown)
      return jnp.sum(weight * log_losses(logits, y)), updated['batch_stats']

    def step(t, carry):
      params, statistics, moved = carry
      order = _order(jax.random.fold_in(key_order, t // per_epoch), mask, per_epoch * size)
      rows = lax.dynamic_slice(order, (t % per_epoch * size,), (size,))
      shown = (rows < capacity) & mask[jnp.minimum(rows, capacity - 1)]
      rows = jnp.minimum(rows, capacity - 1)
      keys = jax.random.split(jax.random.fold_in(key_images, t), size)
      seen = jax.vmap(functools.partial(_changed, crop, mirror))(keys, images[rows])
      slopes, counted = jax.grad(loss, has_aux=True)(params, statistics, seen, y[rows], shown)
      with jax.numpy_dtype_promotion('standard'):  # optax raises floats to int32 powers.
        updates, advanced = tx.update(slopes, moved, params)
      rate = step_size * _DECAY ** jnp.sum(t >= falls, dtype=jnp.float32)
      updates = jax.tree.map(lambda update: rate * update, updates)
      after = (optax.apply_updates(params, updates), counted, advanced)
      return jax.tree.map(lambda new, old: jnp.where(shown.any(), new, old), after, carry)

    variables = module.init(key_weights, images[:1])
    params, statistics = variables['params'], variables['batch_stats']
    params, statistics, _ = lax.fori_loop(0, num_steps, step, (params, statistics, tx.init(params)))
    return {'mean': mean, 'std': std, 'params': params, 'batch_stats': statistics}

  def scores(state, x):
    variables = {name: state[name] for name in ('params', 'batch_stats')}
    return module.apply(variables, (x.reshape(1, *shape) - state['mean']) / state['std'])[0]

  return Learner(fit, scores, num_classes)


def _order(key, mask, length):
  """int32[length]: the shown rows in an order of the key, then the others, then none (one past the last)."""
  places = jnp.where(mask, jax.random.uniform(key, mask.shape), jnp.inf)
  order = jnp.argsort(places).astype(jnp.int32)
  return jnp.pad(order, (0, length - len(mask)), constant_values=len(mask))


def _changed(crop, mirror, key, image):
  key_crop, key_flip = jax.random.split(key)
  image = train.random_crop(key_crop, image, pad=crop)
  return train.random_flip(key_flip, image) if mirror else image
