"""How many base learners of an ensemble are trained in a second, beside loops over them and beside their floor?

    python benchmarks/poisoning.py

40 members, each with 50 samples of 784 pixels (MNIST's shape; random pixels, since no figure depends on them), networks of
128 hidden units, 100 full-batch steps with momentum. Sides, in turn, in one process:

ensemble        poisoning.train_ensemble, all members in one program, from images on the host to weights on the host
loop            one compiled fit, called for each member
floor           as many products and sums as the ensemble needs, in one matrix product [m, 784] x [784, 128]
torch           a loop over members in PyTorch as one writes it: a network, its loss, SGD
torch, span     a loop in PyTorch that descends in the span of the part, as ours does

Counted, for S samples, D pixels, H units, K classes, T steps and an operation for each product and each sum: the first layer of a
plain descent needs 4 S D H a step (forward, and backward to the weights), the second 6 S H K (forward, backward to both).
In the span of the part the first needs 4 S^2 H, and once 4 S D H + 2 S^2 D (start, end, products of the images). What works on
single numbers is not counted. PyTorch has one thread or all cores, whichever is faster, and starts from our weights; the
largest difference of its final weights from ours is shown, relative to the largest weight.
"""

import argparse
import functools
import importlib.util
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
import poisoning_peers

from certjax import poisoning


class Size(NamedTuple):
  """What is trained."""

  members: int
  samples: int = 50
  pixels: int = 784
  hidden: int = 128
  classes: int = 10
  steps: int = 100
  step_size: float = 0.03


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  parser.add_argument('--members', type=int, default=40)
  arguments = parser.parse_args()
  size = Size(members=arguments.members)
  x, y = training_set(size)
  runs = ours(size, x, y)
  differences, threads = {}, None
  if importlib.util.find_spec('torch'):
    peers = poisoning_peers.runs(initial(size), x, y, size)
    threads = poisoning_peers.fastest_threads(peers['torch'])
    trained = runs['ensemble']()
    differences = {name: difference(trained, run()) for name, run in peers.items()}
    runs |= peers
  times = common.interleaved(runs, pairs=arguments.pairs)
  rows = [row(name, times, size, differences) for name in times]
  table = common.markdown([{key: each[key] for key in list(each)[:4]} for each in rows])
  flops = {'in the span': span_flops(size), 'plain': plain_flops(size)}
  question = (
    'Base learners trained in a second, beside loops over them and the floor of their products'
  )
  common.write_card(
    'poisoning',
    question,
    rows,
    size=size._asdict(),
    flops=flops,
    table=table,
    torch_threads=threads,
  )
  print(table)


def training_set(size):
  """uint8[members, samples, pixels] and their labels."""
  rng = np.random.default_rng(0)
  shape = (size.members, size.samples)
  x = rng.integers(0, 256, (*shape, size.pixels), dtype=np.uint8)
  return x, rng.integers(0, size.classes, shape, dtype=np.int32)


def learner(size, **changed):
  chosen = {'hidden': size.hidden, 'num_steps': size.steps, 'step_size': size.step_size}
  return poisoning.mlp(size.classes, **(chosen | changed))


def ours(size, x, y):
  """name -> function that blocks."""
  positions = np.arange(size.members * size.samples).reshape(x.shape[:2])
  train = functools.partial(
    poisoning.train_ensemble, jax.random.key(0), learner(size), x.reshape(-1, size.pixels), y.ravel(),
    poisoning.Partition(tuple(positions)), capacity=size.samples, group=size.members,
  )  # fmt: skip
  return {
    'ensemble': lambda: jax.tree.map(lambda leaf: leaf[0], train().states),
    'loop': looped(size, x, y),
    'floor': product(size),
  }


def looped(size, x, y):
  """One compiled fit, called for each member."""

  @jax.jit
  def fit(key, number, x, y, mask):
    pixels = x.astype(jnp.float32) / 255
    return learner(size).fit(jax.random.fold_in(key, number), pixels, y, mask)

  key, mask = jax.random.key(0), np.ones(size.samples, bool)

  def run():
    numbers = np.arange(size.members, dtype=np.uint32)
    return [jax.device_get(fit(key, *each, mask)) for each in zip(numbers, x, y, strict=True)]

  return run


def product(size):
  """One matrix product of as many operations as the ensemble needs."""
  rows = round(span_flops(size) / (2 * size.pixels * size.hidden))
  a = jax.random.normal(jax.random.key(0), (rows, size.pixels))
  b = jax.random.normal(jax.random.key(1), (size.pixels, size.hidden))
  multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision='highest'))
  return lambda: jax.block_until_ready(multiply(a, b))


def span_flops(size):
  """Products and sums of all members, descending in the span of their parts."""
  s, d, h, k = size.samples, size.pixels, size.hidden, size.classes
  once, step = 4 * s * d * h + 2 * s * s * d, 4 * s * s * h + 6 * s * h * k
  return size.members * (once + size.steps * step)


def plain_flops(size):
  """Products and sums of all members, descending on the weights themselves."""
  s, d, h, k = size.samples, size.pixels, size.hidden, size.classes
  return size.members * size.steps * (4 * s * d * h + 6 * s * h * k)


def initial(size):
  """The members' weights before the first step, stacked."""
  x = jnp.zeros((size.samples, size.pixels), jnp.float32)
  fit = jax.jit(learner(size, num_steps=1, step_size=1e-30).fit)
  y, mask = jnp.zeros(size.samples, jnp.int32), jnp.ones(size.samples, bool)
  keys = [jax.random.fold_in(jax.random.key(0), number) for number in range(size.members)]
  states = [fit(key, x, y, mask) for key in keys]
  return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *states)


def difference(state, peer):
  """The largest difference of weights, relative to the largest weight."""
  return max(
    float(np.abs(state[name] - weights).max() / np.abs(state[name]).max())
    for name, weights in peer.items()
  )


def row(name, times, size, differences):
  middle, low, high = common.median_interval(times[name] / times['ensemble'])
  return {
    'side': name,
    'members / s': float(size.members / np.median(times[name])),
    'seconds / ensemble': f'{middle:.2f} ({low:.2f} to {high:.2f})',
    'difference of weights': differences.get(name, '-'),
    'ratio': [middle, low, high],
    'seconds': times[name].tolist(),
  }


if __name__ == '__main__':
  main()
