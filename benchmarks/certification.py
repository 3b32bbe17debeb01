"""How close is certification to its floor, the bare jitted forward pass over as many images?

    python benchmarks/certification.py

For each model: the same number of noisy images through `certify.votes`; as clean images of the same
batch shape, through the jitted model alone; and through one jitted draw of the noise followed by the
model. All in turn, the median of the ratios of neighbouring runs with its 95% interval. Then the peak
memory of a process at two numbers of samples, and of images. Compile time is the first call less a
later one. On an accelerator `--models resnet50` times ResNet-50 at 224 pixels in bfloat16 too.
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
  'resnet50': ((224, 224, 3), 256, 8),
}
_ON_CPU = ('digits-cnn', 'mnist-cnn', 'resnet20')
_BFLOAT16 = ('resnet50',)


def bound_model(name):
  """A randomly initialised model: its time does not depend on its weights."""
  shape = CASES[name][0]
  module = models.build(name, num_classes=10, mean=(0.0,) * shape[-1], std=(1.0,) * shape[-1])
  model_fn = models.bind(module, module.init(jax.random.key(0), jnp.zeros((1, *shape))))
  return models.in_bfloat16(model_fn) if name in _BFLOAT16 else model_fn


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

  @jax.jit
  def draw_and_forward(model_fn, key, x):
    keys = jax.random.split(key, len(x))
    return model_fn(jax.lax.optimization_barrier(jax.vmap(noise.sample)(keys, x)))

  def noisy():
    for i in range(chunks):
      logits = draw_and_forward(model_fn, jax.random.key(i), batch)
    logits.block_until_ready()

  def votes():
    certify.votes(
      jax.random.key(0), model_fn, noise, x, num_samples=chunks * chunk // 2, chunk=chunk, mesh=mesh
    )

  first = common.seconds(votes)
  times = common.interleaved({'bare': bare, 'noisy': noisy, 'votes': votes}, pairs=pairs)
  ratio, low, high = common.median_interval(times['votes'] / times['bare'])
  over_noisy = common.median_interval(times['votes'] / times['noisy'])
  images = chunks * chunk
  return {
    'model': name,
    'images': images,
    'bare us/image': float(np.median(times['bare'])) / images * 1e6,
    'votes us/image': float(np.median(times['votes'])) / images * 1e6,
    'ratio': ratio,
    'low': low,
    'high': high,
    'over noise + forward': over_noisy[0],
    'its low': over_noisy[1],
    'its high': over_noisy[2],
    'compile s': first - float(np.median(times['votes'])),
  }


def peak_memory(name, num_samples, num_images=1) -> int:
  """Peak resident KiB of a process that certifies images, streamed, with `num_samples` each."""
  script = (
    'import resource, sys; sys.path.insert(0, "benchmarks")\n'
    'import certification as c, jax, numpy as np\n'
    'from certjax import certify, smoothing\n'
    f'shape, chunk, _ = c.CASES[{name!r}]\n'
    'noise = smoothing.gaussian(sigma=0.25)\n'
    f'program = certify.smoothing_program(jax.random.key(0), c.bound_model({name!r}), noise, shape, chunk)\n'
    'plan = lambda: certify.once((certify.ESTIMATION, %d))\n'
    % num_samples
    + 'image = lambda i: certify.Work(np.full(shape, i % 256 / 255, np.float32), i, plan())\n'
    f'for _ in certify.run(program, map(image, range({num_images})), chunk=chunk): pass\n'
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
  parser.add_argument('--models', nargs='+', default=_ON_CPU, choices=CASES)
  arguments = parser.parse_args()
  rows = [measure(name, arguments.pairs) for name in arguments.models]
  common.print_table(rows)
  sizes = ((10_000, 1), (1_000_000, 1), (1000, 100), (1000, 10_000))
  memory = {
    f'{n} samples x {b} images': round(peak_memory('digits-cnn', n, b) / 1024) for n, b in sizes
  }
  print(f'peak memory, MiB (digits-cnn): {memory}')
  question = 'certification against the bare jitted forward pass over as many images'
  common.write_card('certification', question, rows, pairs=arguments.pairs, peak_memory_mib=memory)


if __name__ == '__main__':
  main()
