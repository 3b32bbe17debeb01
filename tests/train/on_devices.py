"""Run with JAX_NUM_CPU_DEVICES=8 by train_devices_test.py: trains on sub-meshes of 1, 2, 4 and 8
devices and prints as JSON what must not depend on them."""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from certjax import data, models, parallel, smoothing, train

_STEPS, _BATCH = 10, 16


def synthetic(shape, num_images=64):
  """Images whose label is where they are bright."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 10, num_images).astype(np.int32)
  images = rng.integers(0, 128, (num_images, *shape), np.uint8)
  images[np.arange(num_images), labels % shape[0]] += 100
  return data.Images(images, labels, np.arange(num_images))


def losses(module, images, num_devices, learning_rate):
  """The loss of each of the first steps, and the last state."""
  seen = []
  tx = optax.sgd(learning_rate)
  state = train.init_state(jax.random.key(0), module, tx, images.images.shape[1:])
  noise = smoothing.gaussian(sigma=0.25)
  state = train.fit(
    train.make_step(module, tx, train.cross_entropy, smoothing=noise),
    state,
    data.batches(images, _BATCH, seed=0, num_steps=_STEPS),
    key=jax.random.key(1),
    mesh=parallel.data_mesh(jax.devices()[:num_devices]),
    log_every=1,
    on_log=lambda step, metrics: seen.append(float(metrics['loss'])),
  )
  return seen, jax.device_get(state)


def one_step(gradient_factor, num_devices):
  """Parameters after one plain SGD step; a factor stands for a gradient summed over devices."""
  module = models.build('digits-cnn', num_classes=10)
  state = train.init_state(jax.random.key(0), module, tx := optax.sgd(0.1), (8, 8, 1))

  def scaled(keys, apply, x, y, step):
    value, rest = train.cross_entropy(keys, apply, x, y, step)
    return value * gradient_factor, rest

  batch = next(data.batches(synthetic((8, 8, 1)), _BATCH, seed=0))
  state = train.fit(
    train.make_step(module, tx, scaled),
    state, [batch], key=jax.random.key(1),
    mesh=parallel.data_mesh(jax.devices()[:num_devices]),
  )  # fmt: skip
  return jax.device_get(state.params)


def difference(a, b):
  """The largest difference between two trees."""
  return max(float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def main():
  cnn = models.build('digits-cnn', num_classes=10)
  resnet = models.ResNet(num_classes=10, depth=8)
  runs = {
    'cnn': functools.partial(losses, cnn, synthetic((8, 8, 1)), learning_rate=0.1),
    'resnet': functools.partial(losses, resnet, synthetic((16, 16, 3)), learning_rate=0.001),
  }
  result = {'devices': jax.local_device_count()}
  for name, run in runs.items():
    on = {number: run(num_devices=number) for number in (1, 2, 8)}
    result[name] = {number: seen for number, (seen, _) in on.items()}
    stats = [state.batch_stats for _, state in on.values()]
    if jax.tree.leaves(stats[0]):
      result[f'{name}_batch_stats'] = [difference(stats[0], other) for other in stats[1:]]
  one = one_step(1.0, 1)
  result['sgd'] = difference(one, one_step(1.0, 4))
  result['sgd_times_4'] = difference(one, one_step(4.0, 1))
  # A checkpoint of one device, continued on four.
  state = train.restore(sys.argv[1])
  mesh = parallel.data_mesh(jax.devices()[:4])
  placed = parallel.replicate(mesh, state['params'])
  result['restored_on'] = sorted({len(leaf.devices()) for leaf in jax.tree.leaves(placed)})
  result['restored_difference'] = difference(state['params'], jax.device_get(placed))
  result['sum'] = float(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(placed)))
  print(json.dumps(result))


if __name__ == '__main__':
  main()
