"""Is plain numpy enough for CIFAR-sized training batches, or is grain the better pipeline?

Images/s of shuffled uint8 batches with 4-pixel crops and flips out of 50,000 synthetic 32 x 32 x 3
images: `certjax.data.batches`; grain as its guide writes it (shuffle, per-image random map,
batch); and grain that only orders while certjax's vectorised augmentation works on whole batches.
All in one process, repeats interleaved, so that a busy machine hurts all of them alike.

  python benchmarks/input_pipeline.py
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path

import common
import numpy as np

from certjax import data

RESULT = common.RESULTS / 'input_pipeline.json'
NUM_IMAGES, SHAPE, BATCH, PAD = 50_000, (32, 32, 3), 128, 4
PACKAGES = ('numpy', 'grain')
OURS, OURS_AHEAD = 'certjax.data.batches', 'certjax.data.batches(prefetch=2)'
GRAIN, GRAIN_AHEAD = 'grain per image', 'grain per image, read threads'
GRAIN_BATCH = 'grain order, augmentation per batch'
GRAIN_BATCH_AHEAD = 'grain order, per batch, read threads'


def synthetic_images() -> data.Images:
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (NUM_IMAGES, *SHAPE), dtype=np.uint8)
  labels = rng.integers(0, 10, NUM_IMAGES).astype(np.int32)
  return data.Images(pixels, labels, np.arange(NUM_IMAGES))


def ours(images, seed, steps, prefetch=0):
  return data.batches(
    images, BATCH, seed=seed, num_steps=steps, augment='crop_flip', prefetch=prefetch
  )


def grain_order(seed):
  import grain

  return grain.MapDataset.range(NUM_IMAGES).seed(seed).shuffle().repeat()


def grain_per_image(images, seed):
  def augment(i, rng):
    padded = np.pad(images.images[i], ((PAD, PAD), (PAD, PAD), (0, 0)))
    row, column = rng.integers(0, 2 * PAD + 1, 2)
    x = padded[row : row + SHAPE[0], column : column + SHAPE[1]]
    x = x[:, ::-1] if rng.integers(2) else x
    return {'x': x, 'y': images.labels[i], 'index': np.int32(i)}

  return grain_order(seed).random_map(augment).batch(BATCH, drop_remainder=True)


def grain_per_batch(images, seed):
  def augment(rows, rng):
    words = rng.integers(0, 2**63, len(rows), np.uint64)
    x = data.AUGMENT['crop_flip'](images.images[rows], words)
    return {'x': x, 'y': images.labels[rows], 'index': rows.astype(np.int32)}

  return grain_order(seed).batch(BATCH, drop_remainder=True).random_map(augment)


def one_by_one(dataset, steps):
  return (dataset[i] for i in range(steps))


def threaded(dataset, steps):
  # Sliced: grain's threads run up to 500 batches ahead, into the next pipeline's time.
  return iter(dataset.slice(slice(0, steps)).to_iter_dataset())


def pipelines(images) -> dict:
  """Name -> function of (seed, steps) that opens an iterator over so many batches."""
  made = {
    OURS: lambda seed, steps: ours(images, seed, steps),
    OURS_AHEAD: lambda seed, steps: ours(images, seed, steps, prefetch=2),
  }
  if importlib.util.find_spec('grain') is None:
    print('grain is not installed (`pip install "certjax[bench]"`): its rows are left out.')
    return made
  return made | {
    GRAIN: lambda seed, steps: one_by_one(grain_per_image(images, seed), steps),
    GRAIN_AHEAD: lambda seed, steps: threaded(grain_per_image(images, seed), steps),
    GRAIN_BATCH: lambda seed, steps: one_by_one(grain_per_batch(images, seed), steps),
    GRAIN_BATCH_AHEAD: lambda seed, steps: threaded(grain_per_batch(images, seed), steps),
  }


def rate(make, seed, steps) -> float:
  """Images a second over `steps` batches, opening included."""
  start, count = time.perf_counter(), 0
  for batch in make(seed, steps):
    assert batch['x'].shape == (BATCH, *SHAPE)
    count += 1
  assert count == steps
  return steps * BATCH / (time.perf_counter() - start)


def measure(makers, repeats, steps) -> dict[str, np.ndarray]:
  """float[repeats] rates of each pipeline, one after the other within each repeat."""
  rates = {name: [] for name in makers}
  for repeat in range(repeats):
    for name, make in makers.items():
      rates[name].append(rate(make, repeat, steps))
  return {name: np.array(values) for name, values in rates.items()}


def ratio(first, second) -> tuple[float, float, float]:
  """Median of the paired ratios first / second, and its 95% bootstrap interval."""
  paired = first / second
  draws = np.random.default_rng(0).integers(0, len(paired), (10_000, len(paired)))
  low, high = np.quantile(np.median(paired[draws], axis=1), [0.025, 0.975])
  return float(np.median(paired)), float(low), float(high)


def rows_of(rates) -> list[dict]:
  rows = []
  for name, values in rates.items():
    median, low, high = ratio(rates[OURS], values)
    rows.append(
      {
        'pipeline': name,
        'images_per_second_median': round(float(np.median(values))),
        'images_per_second_min': round(float(values.min())),
        'images_per_second_max': round(float(values.max())),
        'numpy_over_this': round(median, 2),
        'numpy_over_this_95': [round(low, 2), round(high, 2)],
      }
    )
  return rows


def cpu_model() -> str:
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    return next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
  except (OSError, StopIteration):
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
  found = {'python': platform.python_version()}
  for package in PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found[package] = 'not installed'
  return found


def card(rows, arguments, load) -> dict:
  return {
    'question': 'Images/s of CIFAR-sized crop-and-flip batches: plain numpy against grain?',
    'command': ' '.join(['python benchmarks/input_pipeline.py', *arguments]),
    'date': datetime.date.today().isoformat(),
    'hardware': {'cpu': cpu_model(), 'cores': os.cpu_count(), 'load': round(load, 1)},
    'versions': versions(),
    'images': NUM_IMAGES,
    'shape': list(SHAPE),
    'batch': BATCH,
    'rows': rows,
  }


def main(arguments):
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--repeats', type=int, default=11)
  parser.add_argument('--steps', type=int, default=390, help='batches a repeat; 390 = one epoch')
  parser.add_argument('--output', type=Path, default=RESULT)
  options = parser.parse_args(arguments)
  load = os.getloadavg()[0]  # Of the minute before: what else ran on this machine.
  rows = rows_of(measure(pipelines(synthetic_images()), options.repeats, options.steps))
  for row in rows:
    low, high = row['numpy_over_this_95']
    print(
      f'{row["pipeline"]:38} {row["images_per_second_median"]:>9,} images/s   numpy is '
      f'{row["numpy_over_this"]:.2f} times as fast (95%: {low:.2f} .. {high:.2f})'
    )
  options.output.parent.mkdir(parents=True, exist_ok=True)
  options.output.write_text(json.dumps(card(rows, arguments, load), indent=2) + '\n')


if __name__ == '__main__':
  main(sys.argv[1:])
