"""What do attacks cost, beside the passes that they need and beside foolbox and torchattacks?

    python benchmarks/attacks.py

On the CNN of MNIST (100 images) and the ResNet-18 of CIFAR-10 (8), with random weights and labels as predicted:
the ball is so small that nothing in it is misclassified, so that no side stops early. The floor of an
attack is as many forward, and forward and backward, passes as it needs, each one compiled call. All sides
run in turn in one process; ratios are medians over the rounds with their 95% interval. Peers are foolbox on
JAX (its model compiled) and torchattacks on PyTorch, where they are installed (`pip install -e ".[bench]"`).

"its passes" is what the bare passes that a peer makes, counted in a run of it, take in its framework, to our floor. They are not
always ours: PGD here keeps the best point, the start included, and so looks at the first and at the last one.
We are ahead by more than the frameworks differ where a peer's ratio is above that of its passes.
"""

import argparse
import importlib.util
import os
from typing import NamedTuple

import attack_peers
import common
import jax
import jax.numpy as jnp
import numpy as np

from certjax import attacks, models, threats

EPS = 1e-5
COLUMNS = 9


class Size(NamedTuple):
  """How much is done: few steps for a network whose pass is long."""

  shape: tuple
  batch: int
  steps: int
  queries: int
  searches: int
  cw_steps: int


SIZES = {
  'mnist-cnn': Size((28, 28, 1), batch=100, steps=40, queries=100, searches=3, cw_steps=20),
  'resnet18': Size((32, 32, 3), batch=8, steps=4, queries=8, searches=2, cw_steps=2),
}
ATTACKS = {  # name: (attack of a size, (forward, forward and backward) passes of a size).
  'PGD, L_inf': (
    lambda size: attacks.pgd(threats.linf(EPS), step_size=EPS / 4, num_steps=size.steps),
    lambda size: (2, size.steps),
  ),
  'PGD, L2': (
    lambda size: attacks.pgd(threats.l2(EPS), step_size=EPS / 4, num_steps=size.steps),
    lambda size: (2, size.steps),
  ),
  'APGD, L_inf': (
    lambda size: attacks.apgd(threats.linf(EPS), num_steps=size.steps),
    lambda size: (1, size.steps + 1),
  ),
  'Square, L_inf': (
    lambda size: attacks.square(threats.linf(EPS), num_queries=size.queries),
    lambda size: (size.queries + 1, 0),
  ),
  'C&W, L2': (
    lambda size: attacks.carlini_wagner(
      threats.l2(EPS), num_steps=size.cw_steps, binary_search_steps=size.searches
    ),
    lambda size: (2, size.searches * (size.cw_steps + 1)),
  ),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  parser.add_argument('--models', nargs='*', choices=SIZES, default=tuple(SIZES))
  arguments = parser.parse_args()
  rows = []
  for name in arguments.models:
    rows += measured(name, SIZES[name], arguments.pairs)
  table = common.markdown([{key: row[key] for key in list(row)[:COLUMNS]} for row in rows])
  common.write_card('attacks', 'Attacks beside their passes and their peers', rows, table=table)
  print(table)


def measured(name, size, pairs):
  """A row for each attack on one network."""
  module = models.build(name, num_classes=10)
  x = jax.random.uniform(jax.random.key(0), (size.batch, *size.shape))
  model_fn = models.bind(module, jax.jit(module.init)(jax.random.key(1), x))
  y = jax.jit(lambda model_fn, x: model_fn(x).argmax(1))(model_fn, x)
  forward, gradient = passes(model_fn, x, y)
  peers = {}  # name: (runs, count of one of them, its forward pass, its gradient).
  if importlib.util.find_spec('foolbox'):
    known, count_passes = attack_peers.foolbox_runs(model_fn, x, y, EPS, size)
    peers['foolbox'] = known, count_passes, forward, gradient
  if importlib.util.find_spec('torchattacks'):
    import torch

    torch.set_num_threads(os.cpu_count())
    net, images = attack_peers.torch_network(torch, name), attack_peers.torch_images(torch, x)
    bare = attack_peers.torch_passes(torch, net, images)
    known = attack_peers.torchattacks_runs(torch, net, images, EPS, size)
    count_passes = lambda run: attack_peers.torch_count(net, run)
    peers['torchattacks'] = known, count_passes, bare['forward'], bare['gradient']
  rows = []
  for attack, (make, needed) in ATTACKS.items():
    runs = {
      'ours': compiled(make(size), model_fn, x, y),
      'floor': repeated(forward, gradient, needed(size)),
    }
    counts = {'ours': needed(size)}
    for peer, (known, count_passes, *bare) in peers.items():
      if attack in known:
        counts[peer] = count_passes(known[attack])
        runs |= {peer: known[attack], f'{peer} passes': repeated(*bare, counts[peer])}
    rows.append(row(name, size, attack, counts, common.interleaved(runs, pairs=pairs)))
    common.print_table([{key: rows[-1][key] for key in list(rows[-1])[:COLUMNS]}])
  return rows


def compiled(attack, model_fn, x, y):
  run = jax.jit(lambda key, model_fn, x, y: attack(key, model_fn, x, y))
  return lambda: jax.block_until_ready(run(jax.random.key(2), model_fn, x, y))


def passes(model_fn, x, y):
  """One compiled forward pass; one with the gradient in the image."""
  forward = jax.jit(lambda model_fn, x: model_fn(x))
  loss = lambda model_fn, x: jnp.sum(jax.vmap(attacks.cross_entropy)(model_fn(x), y))
  gradient = jax.jit(jax.grad(loss, argnums=1))
  block = jax.block_until_ready
  return lambda: block(forward(model_fn, x)), lambda: block(gradient(model_fn, x))


def repeated(forward, gradient, count):
  def run():
    for _ in range(count[0]):
      forward()
    for _ in range(count[1]):
      gradient()

  return run


def row(name, size, attack, counts, times):
  """Seconds of ours, and ratios of the other sides to it."""

  def ratio(of, to):
    if of not in times:
      return '-', None
    middle, low, high = common.median_interval(times[of] / times[to])
    return f'{middle:.2f} ({low:.2f} to {high:.2f})', [middle, low, high]

  pairs = {
    'ours / floor': ratio('ours', 'floor'),
    'foolbox / ours': ratio('foolbox', 'ours'),
    'its passes': ratio('foolbox passes', 'floor'),
    'torchattacks / ours': ratio('torchattacks', 'ours'),
    'its passes, torch': ratio('torchattacks passes', 'floor'),
  }
  return {
    'model': name,
    'attack': attack,
    'images': size.batch,
    'ours, s': float(np.median(times['ours'])),
    **{key: text for key, (text, _) in pairs.items()},
    'size': size._asdict(),
    'forward and gradient passes': counts,
    'ratios': {key: values for key, (_, values) in pairs.items()},
    'seconds': {side: values.tolist() for side, values in times.items()},
  }


if __name__ == '__main__':
  main()
