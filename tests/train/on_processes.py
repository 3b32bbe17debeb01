"""Run by distributed_test.py: trains the digits CNN and a small BatchNorm network for ten steps on all
devices of all processes, and prints as JSON what must not depend on how these are grouped.

Arguments: the directory of the run, the data directory, and for several processes the coordinator,
their number, and which one this is."""

import json
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from certjax import configs, data, parallel, smoothing, train

_STEPS, _BATCH = 10, 16


def digits_config(out, data_dir, **options):
  """What process groups train, to the letter."""
  return configs.Train(
    out=pathlib.Path(out), data_dir=pathlib.Path(data_dir), log_every=1, **options
  )


class Normalised(nn.Module):
  """A convolution and BatchNorm over all devices of all processes."""

  @nn.compact
  def __call__(self, x, train=False):
    axis = parallel.AXIS if train else None
    x = nn.Conv(8, (3, 3), strides=2)(x)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=axis)(x)
    return nn.Dense(10)(jnp.mean(nn.relu(x), axis=(1, 2)))


def batch_norm_losses():
  """The loss of each step, and the BatchNorm statistics after the last."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (64, 16, 16, 3), np.uint8)
  images = data.Images(pixels, rng.integers(0, 10, 64).astype(np.int32), np.arange(64))
  module, tx = Normalised(), optax.sgd(0.1)
  mesh, seen = parallel.data_mesh(), []
  state = train.fit(
    train.make_step(module, tx, train.cross_entropy, smoothing=smoothing.gaussian(sigma=0.25)),
    train.init_state(jax.random.key(0), module, tx, (16, 16, 3)),
    data.batches(
      images, _BATCH, seed=0, num_steps=_STEPS, augment='crop_flip',
      rows=parallel.local_rows(mesh, _BATCH),
    ),
    key=jax.random.key(1), mesh=mesh, log_every=1,
    on_log=lambda step, metrics: seen.append(float(metrics['loss'])),
  )  # fmt: skip
  return seen, [leaf.tolist() for leaf in jax.tree.leaves(jax.device_get(state.batch_stats))]


def main(out, data_dir, *processes):
  if processes:
    coordinator, num_processes, process_id = processes
    parallel.initialize(coordinator, int(num_processes), int(process_id))
  train.run(digits_config(out, data_dir, max_steps=_STEPS), smoothing.gaussian(sigma=0.25))
  losses, batch_stats = batch_norm_losses()
  sizes = {'devices': jax.device_count(), 'local': jax.local_device_count()}
  print(json.dumps({**sizes, 'batch_norm': losses, 'batch_stats': batch_stats}))


if __name__ == '__main__':
  main(*sys.argv[1:])
