"""How much stronger are Frank-Wolfe and dual projection than projected Sinkhorn?

    python benchmarks/wasserstein_attack.py --data-dir DIR

Trains Wasserstein smoothing's network on MNIST without noise (seed 0), attacks 100 evenly spaced test
images with each method at each budget (mass times pixels, l2 ground, a 5 by 5 stencil), and writes a
card. The distances of the first images are checked by the exact linear program. Settings are fixed
here, before the run.
"""

import argparse
import pathlib
import time

import common
import jax
import jax.numpy as jnp
import numpy as np

from certjax import attacks, data, train

NUM_EPOCHS, NUM_IMAGES, BATCH, NUM_CHECKED = 5, 100, 25, 5
SIZE, NUM_STEPS, BUDGETS = 5, 50, (0.1, 0.25, 0.5, 1.0)
METHODS = {  # What differs between the methods; Sinkhorn needs more rounds than a bisection.
  'frank-wolfe': {},
  'dual-projection': {},
  'sinkhorn': {'num_iterations': 50},
}


def attacked(model_fn, x, y, eps, method, num_steps):
  """(x_adv, seconds an image), without compilation."""

  @jax.jit
  def run(x, y, eps):
    attack = attacks.wasserstein(
      eps=eps, method=method, num_steps=num_steps, size=SIZE, **METHODS[method]
    )
    return attack(jax.random.key(0), model_fn, x, y)

  batch = min(BATCH, len(x))
  parts = [slice(start, start + batch) for start in range(0, len(x), batch)]
  jax.block_until_ready(run(x[parts[0]], y[parts[0]], eps))
  begun = time.perf_counter()
  found = [np.asarray(run(x[part], y[part], eps)) for part in parts]
  return np.concatenate(found), (time.perf_counter() - begun) / len(x)


def row(model_fn, x, y, eps, method, num_steps):
  """One line of the table; ends where an image lies outside the ball or [0, 1]."""
  x_adv, seconds = attacked(model_fn, x, y, jnp.float32(eps), method, num_steps)
  few = range(min(NUM_CHECKED, len(x)))
  distances = [attacks.wasserstein_distance(np.asarray(x[i]), x_adv[i]) for i in few]
  if max(distances) > eps or x_adv.min() < 0 or x_adv.max() > 1:
    raise SystemExit(f'{method} leaves its set: distances {distances}, eps {eps}')
  right = np.asarray(model_fn(x_adv)).argmax(-1) == np.asarray(y)
  result = {
    'method': method, 'eps': eps, 'accuracy under attack': float(right.mean()),
    'seconds an image': seconds, 'largest exact distance': max(distances),
  }  # fmt: skip
  print(result, flush=True)
  return result


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/wasserstein_attack'))
  parser.add_argument('--num-images', type=int, default=NUM_IMAGES, help='fewer: a trial, no card')
  parser.add_argument('--num-steps', type=int, default=NUM_STEPS, help='fewer: a trial, no card')
  arguments = parser.parse_args()
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  common.command(
    'train', 'mnist', '--method', 'none', '--sigma', 0, '--objective', 'clean', '--model',
    'wasserstein-cnn', '--num-epochs', NUM_EPOCHS, '--out', arguments.out, *where,
  )  # fmt: skip
  model_fn = train.load_run(arguments.out).model_fn
  indices = data.subset(10_000, evenly=arguments.num_images)
  images = data.load('mnist', 'test', data_dir=arguments.data_dir, indices=indices)
  x, y = jnp.asarray(data.to_float(images.images)), jnp.asarray(images.labels, jnp.int32)
  clean = float((np.asarray(model_fn(x)).argmax(-1) == np.asarray(y)).mean())
  rows = [
    row(model_fn, x, y, eps, method, arguments.num_steps) for eps in BUDGETS for method in METHODS
  ]
  table = common.markdown(rows)
  print(f'clean accuracy {clean:.4g}\n{table}')
  if (arguments.num_images, arguments.num_steps) == (NUM_IMAGES, NUM_STEPS):
    question = f'Accuracy on {NUM_IMAGES} MNIST test images under Wasserstein attacks'
    settings = {
      'epochs': NUM_EPOCHS, 'size': SIZE, 'num_steps': NUM_STEPS, 'ground': 'l2', 'p': 1,
      'of methods': METHODS,
    }  # fmt: skip
    common.write_card(
      'wasserstein_attack', question, rows, table=table, clean_accuracy=clean, settings=settings
    )


if __name__ == '__main__':
  main()
