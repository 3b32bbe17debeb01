"""How close is certification to its floor, the bare jitted forward pass over as many images?

    python benchmarks/certification.py

For each model: the same number of noisy images through `certify.votes` and, as clean images of the
same batch shape, through the jitted model alone; both in turn, the median of the ratios of
neighbouring runs with its 95% interval. Then the peak memory of a process at two numbers of samples.
Compile time is the first call less a later one.
"""

import argparse
import os
import subprocess
import sys

import common
import jax
import jax.numpy as jnp
import numpy as np

from certjax import certify, models, parallel, smoothing

CASES = {  # name: (image shape, chunk, chunks a timing)
  'digits-cnn': ((8, 8, 1), 1000, 100),
  'mnist-cnn': ((28, 28, 1), 1000, 30),
  'resnet20': ((32, 32, 3), 250, 4),
}


def bound_model(name):
  """A randomly initialised model: its time does not depend on its weights."""
  shape = CASES[name][0]
  module = models.build(name, num_classes=10, mean=(0.0,) * shape[-1], std=(1.0,) * shape[-1])
  return models.bind(module, module.init(jax.random.key(0), jnp.zeros((1, *shape))))


def measure(name, pairs):
  """One row: seconds of both sides, their ratio, compile time."""
  shape, chunk, chunks = CASES[name]
  model_fn, noise = bound_model(name), smoothing.gaussian(sigma=0.25)
  x = np.random.default_rng(0).uniform(0, 1, (2, *shape)).astype(np.float32)
  batch = jnp.asarray(np.tile(x, (chunk // 2, 1, 1, 1)))
  forward = jax.jit(lambda model_fn, x: model_fn(x))
  mesh = parallel.local_mesh()

  def bare():
    for _ in range(chunks):
      logits = forward(model_fn, batch)
    logits.block_until_ready()

  def votes():
    certify.votes(
      jax.random.key(0), model_fn, noise, x, num_samples=chunks * chunk // 2, chunk=chunk, mesh=mesh
    )

  first = common.seconds(votes)
  times = common.interleaved({'bare': bare, 'votes': votes}, pairs=pairs)
  ratio, low, high = common.median_interval(times['votes'] / times['bare'])
  images = chunks * chunk
  return {
    'model': name,
    'images': images,
    'bare us/image': float(np.median(times['bare'])) / images * 1e6,
    'votes us/image': float(np.median(times['votes'])) / images * 1e6,
    'ratio': ratio,
    'low': low,
    'high': high,
    'compile s': first - float(np.median(times['votes'])),
  }


def peak_memory(name, num_samples) -> int:
  """Peak resident KiB of a process that certifies one image with `num_samples` samples."""
  script = (
    'import resource, sys; sys.path.insert(0, "benchmarks")\n'
    'import certification as c, jax, numpy as np\n'
    'from certjax import certify, smoothing\n'
    f'shape, chunk, _ = c.CASES[{name!r}]\n'
    f'certify.votes(jax.random.key(0), c.bound_model({name!r}), smoothing.gaussian(sigma=0.25),\n'
    f'  np.zeros((1, *shape), np.float32), num_samples={num_samples}, chunk=chunk)\n'
    'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n'
  )
  environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': ''}
  done = subprocess.run(
    [sys.executable, '-c', script], check=True, capture_output=True, text=True, env=environment
  )
  return int(done.stdout)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  parser.add_argument('--models', nargs='+', default=list(CASES))
  arguments = parser.parse_args()
  rows = [measure(name, arguments.pairs) for name in arguments.models]
  common.print_table(rows)
  numbers = (10_000, 1_000_000)
  memory = {str(n): round(peak_memory('digits-cnn', n) / 1024) for n in numbers}
  print(f'peak memory, MiB by num_samples (digits-cnn): {memory}')
  question = 'certification against the bare jitted forward pass over as many images'
  common.write_card('certification', question, rows, pairs=arguments.pairs, peak_memory_mib=memory)


if __name__ == '__main__':
  main()
