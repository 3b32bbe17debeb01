"""What do bounds prove about published networks?

    python benchmarks/published_networks.py --weights DIR --data-dir DIR

Weights as their authors published them, on real MNIST. For Wong & Kolter's robust network the dual over
the ball that is not cut at [0, 1], as in their paper, on the whole test set; for all three networks, on
the first 1,000 test images, each bound over the ball cut at [0, 1], and PGD with 40 steps from 5 starts. All bounds in
float64, rounded outwards. An image counts as verified where its own label is proved. Resumes: finished
counts stay in `--out`.
"""

import argparse
import functools
import json
import pathlib
import time

import common
import jax
import numpy as np

from certjax import attacks, bounds, data, models, threats

NETWORKS = {  # file, model, eps (linf), what is published.
  'kw_mnist': ('kw-mnist', 0.1, 'clean error 1.80%, verified error 5.82% (the dual)'),
  'mnist_cnn_a_adv': ('kw-mnist', 0.3, 'clean 96.33%; no figure for these bounds'),
  'eran_mnist_6_100_nat': ('mlp-5x100', 0.026, 'no figure for these bounds'),
}
BOUNDS = {
  'interval': bounds.interval,
  'crown-ibp': functools.partial(bounds.crown, intermediate='interval', upper=False),
  'crown same': functools.partial(bounds.crown, slope='same', upper=False),
  'crown zero': functools.partial(bounds.crown, slope='zero', upper=False),
  'crown adaptive': functools.partial(bounds.crown, upper=False),
}
NUM_IMAGES, BATCH = 1000, 10
STEPS, STARTS = 40, 5


def verified(model_fn, x, y, eps, bound, clip, done):
  """How many images are proved, batch by batch; `done` keeps the counts of an earlier run."""
  for start in range(len(done), len(x), 100):
    begun = time.perf_counter()
    part = slice(start, start + 100)
    proof = bounds.verify(model_fn, x[part], eps, clip=clip, bound=bound, batch=BATCH)
    right = (proof.label == y[part]).tolist()
    yield right, (time.perf_counter() - begun) / len(right)


def attacked(model_fn, x, y, eps):
  """bool[B]: right, and still right after PGD from every start."""
  right = np.ones(len(x), bool)
  attack = attacks.pgd(threats.linf(eps), step_size=eps / 10, num_steps=STEPS)
  run = jax.jit(lambda key, x, y: model_fn(attack(key, model_fn, x, y)).argmax(-1) == y)
  for start in range(STARTS):
    keys = jax.random.key(start)
    for at in range(0, len(x), 500):
      right[at : at + 500] &= np.asarray(run(keys, x[at : at + 500], y[at : at + 500]))
  return right


class Counts:
  """Verdicts so far, in a file."""

  def __init__(self, path):
    self.path = path
    self.known = json.loads(path.read_text()) if path.exists() else {}

  def collect(self, name, run, total):
    """(verdicts of `total` images, mean seconds an image); `run(done)` yields what is missing."""
    entry = self.known.setdefault(name, {'right': [], 'seconds': []})
    for right, seconds in run(entry['right']):
      entry['right'] += right
      entry['seconds'].append(seconds)
      self.path.write_text(json.dumps(self.known))
      count = len(entry['right'])
      print(f'{name}: {count} of {total}, {sum(entry["right"]) / count:.4f}', flush=True)
    return np.array(entry['right']), float(np.median(entry['seconds']))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--weights', type=pathlib.Path, required=True)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/published_networks'))
  arguments = parser.parse_args()
  arguments.out.mkdir(parents=True, exist_ok=True)
  counts = Counts(arguments.out / 'counts.json')
  images = data.load('mnist', 'test', data_dir=arguments.data_dir)
  x, y = data.to_float(images.images), np.asarray(images.labels)
  rows = []
  for file, (name, eps, published) in NETWORKS.items():
    variables = models.load_weights(arguments.weights / f'{file}.npz', name, shape=(28, 28, 1))
    model_fn = models.bind(models.build(name, num_classes=10), variables)
    clean = np.concatenate([np.asarray(model_fn(part)).argmax(-1) for part in np.split(x, 20)]) == y
    row = {'network': file, 'eps': eps, 'published': published, 'images': NUM_IMAGES}
    row |= {'clean error': 1 - clean[:NUM_IMAGES].mean(), 'clean error, all': 1 - clean.mean()}
    few = slice(NUM_IMAGES)
    robust = attacked(model_fn, x[few], y[few], eps)
    row['PGD error'] = 1 - robust.mean()
    for kind, bound in BOUNDS.items():
      run = functools.partial(verified, model_fn, x[few], y[few], eps, bound, (0.0, 1.0))
      right, seconds = counts.collect(f'{file} {kind}', run, NUM_IMAGES)
      row |= {f'{kind} error': 1 - right.mean(), f'{kind} s': seconds}
      row[f'{kind} broken by PGD'] = int((right & ~robust).sum())
    if file == 'kw_mnist':
      dual = functools.partial(bounds.dual, upper=False)
      run = functools.partial(verified, model_fn, x, y, eps, dual, None)
      right, seconds = counts.collect(f'{file} dual', run, len(x))
      row |= {'dual error, all': 1 - right.mean(), 'dual s': seconds}
      row['dual errors of the first 1000'] = int((~right[few]).sum())
    rows.append(row)
  common.write_card('published_networks', 'what bounds prove about published networks', rows)
  common.print_table([
    {key: row[key] for key in ('network', 'eps', 'clean error', 'PGD error')}
    | {kind: row[f'{kind} error'] for kind in BOUNDS}
    | {'dual, all': row.get('dual error, all', float('nan'))}
    for row in rows
  ])  # fmt: skip


if __name__ == '__main__':
  main()
