"""What do exact random subsets cost, and all views of an image?

    python benchmarks/ablation.py

1. Masks a second at d = 784, k = 45: Floyd's algorithm (what `smoothing.ablation` draws by) against the
   first k of d random numbers, found by a sort or by `lax.top_k`, and, where PyTorch is
   installed, against `rand().argsort()`. All draw exactly k of d, every subset alike.
2. Derandomized images a second with bands of 2 columns (28 views an image), the votes summed or kept,
   against their floor, the bare jitted forward pass over as many views in the same batch, and, where
   PyTorch is installed, against the same loop there (channels-last, the best of five batches).
3. Ablated images a second against the bare forward pass over as many images.

All in turn, one process; the median of the ratios of neighbouring runs with its 95% interval. Weights are
random: they cost the same.
"""

import argparse
import os

import common
import jax
import jax.numpy as jnp
import numpy as np

from certjax import certify, models, parallel, smoothing

NUM_PIXELS, KEEP, MASKS = 784, 45, 1000
SHAPE, WIDTH, NUM_IMAGES, CHUNK, THETA = (28, 28, 1), 2, 100, 280, 0.2
BATCHES = (28, 140, 280, 700, 1400)  # Views a forward pass of PyTorch's loop.


def masks(torch):
  """name -> function that draws `MASKS` subsets."""

  def by_order(kth):
    def draw(key):
      values = jax.random.bits(key, (NUM_PIXELS,), jnp.uint32)
      # Equal numbers go by their index: a bias of 2^-32 that Floyd's algorithm does not have.
      return jnp.zeros(NUM_PIXELS, bool).at[kth(values)].set(True)

    return draw

  draws = {
    'Floyd': lambda key: smoothing.subset(key, NUM_PIXELS, KEEP),
    'sort': by_order(lambda values: jnp.argsort(values)[:KEEP]),
    'top_k': by_order(lambda values: jax.lax.top_k(values.view(jnp.int32), KEEP)[1]),
  }
  keys = jax.random.split(jax.random.key(0), MASKS)

  def timed(draw):
    run = jax.jit(jax.vmap(draw))
    assert (np.asarray(run(keys)).sum(axis=1) == KEEP).all()
    return lambda: run(keys).block_until_ready()

  made = {name: timed(draw) for name, draw in draws.items()}
  if torch:

    def theirs():
      order = torch.rand(MASKS, NUM_PIXELS).argsort(dim=1)[:, :KEEP]
      torch.zeros(MASKS, NUM_PIXELS, dtype=torch.bool).scatter_(1, order, True)

    made['torch argsort'] = theirs
  return made


def network():
  module = models.build('ablation-cnn', num_classes=10)
  variables = module.init(jax.random.key(0), jnp.zeros((1, *SHAPE[:2], 2)))
  return models.bind(module, variables)


def torch_network(torch):
  """The same layers."""
  nn = torch.nn
  net = nn.Sequential(
    nn.Conv2d(2, 64, 4, 2, 1), nn.ReLU(), nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU(), nn.Flatten(),
    nn.Linear(6272, 500), nn.ReLU(), nn.Linear(500, 100), nn.ReLU(), nn.Linear(100, 10),
  )  # fmt: skip
  return net.eval().to(memory_format=torch.channels_last)


def derandomized(torch):
  """name -> function that evaluates all bands of `NUM_IMAGES` images."""
  model_fn, mesh = network(), parallel.local_mesh()
  x = np.random.default_rng(0).uniform(0, 1, (NUM_IMAGES, *SHAPE)).astype(np.float32)
  forward = jax.jit(lambda model_fn, x: model_fn(x))
  rows = jnp.asarray(np.random.default_rng(1).random((CHUNK, *SHAPE[:2], 2)), jnp.float32)
  passes = NUM_IMAGES * SHAPE[1] / CHUNK

  def bare():
    for _ in range(round(passes)):
      logits = forward(model_fn, rows)
    logits.block_until_ready()

  assert passes == round(passes), 'the floor is of as many rows'

  def all_views(per_location):
    views = smoothing.bands(width=WIDTH, shape=SHAPE, theta=THETA, per_location=per_location)
    return lambda: certify.enumerated(model_fn, views, x, chunk=CHUNK, mesh=mesh)

  made = {'bare': bare, 'counts': all_views(False), 'places': all_views(True)}
  if torch:
    made |= {f'torch {batch}': torch_loop(torch, x, batch) for batch in BATCHES}
  return made


def torch_loop(torch, x, batch):
  """Every band of every image: hide, run, threshold, sum; `batch` views a pass."""
  net = torch_network(torch)
  images = torch.from_numpy(x).permute(0, 3, 1, 2)
  columns = torch.arange(SHAPE[1])
  seen = (columns[None] - columns[:, None]) % SHAPE[1] < WIDTH  # [view, column]

  def run():
    counts = torch.zeros(len(images), 10, dtype=torch.int64)
    pairs = torch.cartesian_prod(torch.arange(len(images)), columns)
    with torch.inference_mode():
      for some in pairs.split(batch):
        image = images[some[:, 0]]
        both = torch.cat([image, 1 - image], dim=1) * seen[some[:, 1]][:, None, None, :]
        logits = net(both.contiguous(memory_format=torch.channels_last))
        counts.index_add_(0, some[:, 0], (logits.softmax(1) >= THETA).long())
    affected = [min(side + WIDTH - 1, SHAPE[1]) for side in range(1, SHAPE[0] + 1)]
    certify.patch_from_counts(counts.numpy(), affected)

  return run


def ablated():
  """name -> function that evaluates as many ablated images."""
  model_fn, mesh = network(), parallel.local_mesh()
  noise = smoothing.ablation(keep=KEEP, shape=SHAPE)
  x = np.random.default_rng(0).uniform(0, 1, (2, *SHAPE)).astype(np.float32)
  forward = jax.jit(lambda model_fn, x: model_fn(x))
  rows = jnp.asarray(np.random.default_rng(1).random((CHUNK, *SHAPE[:2], 2)), jnp.float32)

  def bare():
    for _ in range(4):
      logits = forward(model_fn, rows)
    logits.block_until_ready()

  number = 4 * CHUNK // len(x)
  votes = lambda: certify.votes(
    jax.random.key(0), model_fn, noise, x, num_samples=number, chunk=CHUNK, mesh=mesh
  )
  return {'bare': bare, 'ablation': votes}


def against(times, floor, name, number):
  """One row: how many a second, and the ratio of the times with its interval."""
  ratio, low, high = common.median_interval(times[name] / times[floor])
  return {
    'what': name,
    'a second': round(number / float(np.median(times[name]))),
    'time over': floor,
    'ratio': ratio,
    'low': low,
    'high': high,
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  arguments = parser.parse_args()
  try:
    import torch

    torch.set_num_threads(os.cpu_count())
  except ImportError:
    torch = None
  times = common.interleaved(masks(torch), pairs=arguments.pairs)
  rows = [{**against(times, 'Floyd', name, MASKS), 'what': f'masks: {name}'} for name in times]
  times = common.interleaved(derandomized(torch), pairs=arguments.pairs)
  if torch:
    best = min((name for name in times if name.startswith('torch')), key=lambda n: times[n].min())
    times = {name: times[name] for name in ('bare', 'counts', 'places', best)}
  rows += [{**against(times, 'bare', name, NUM_IMAGES), 'what': f'bands: {name}'} for name in times]
  times = common.interleaved(ablated(), pairs=arguments.pairs)
  rows += [
    {**against(times, 'bare', name, 4 * CHUNK), 'what': f'ablation: {name}'} for name in times
  ]
  table = common.markdown(rows)
  question = 'Exact subsets, all views of an image, and ablated images, against their floors'
  more = {'torch': torch.__version__} if torch else {}
  common.write_card('ablation', question, rows, pairs=arguments.pairs, table=table, **more)
  print(table)


if __name__ == '__main__':
  main()
