"""L1 certificates at equal sigma: uniform, Laplace, splitting, derandomized splitting.

    python benchmarks/l1.py --dataset digits
    python benchmarks/l1.py --dataset mnist --data-dir DIR

Trains one model a method with its own noise (the preset of the data set, sigma 0.5), certifies 500 evenly
spaced test images (N = 10,000, alpha = 0.001; derandomized: all 441 views, exactly) and writes a card and a
plot. Then the seconds an image of each method, measured in turn on 20 images. Resumes.
"""

import argparse
import pathlib

import common
import jax
import numpy as np

from certjax import certify, configs, data, evaluate, train

METHODS = ('uniform', 'laplace', 'splitting', 'deterministic-splitting')
SIGMA, NUM_SAMPLES, NUM_IMAGES = 0.5, 10_000, 500
RADII = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)


def certification(method, directory, x):
  """A function that certifies the images `x` once, and the forward passes an image."""
  model_fn = train.load_run(directory).model_fn
  noise = configs.build_smoothing(method, sigma=SIGMA, shape=x.shape[1:])
  if evaluate.is_exact(noise):
    return lambda: certify.enumerated(model_fn, noise, x), noise.num_views
  key = jax.random.key(0)
  return lambda: certify.sampled(
    key, model_fn, noise, x, num_samples=NUM_SAMPLES
  ), 100 + NUM_SAMPLES


def seconds_an_image(directories, dataset, data_dir):
  """Median seconds an image and forward passes an image, methods in turn."""
  images = data.load(dataset, 'test', data_dir=data_dir, indices=np.arange(20))
  x = data.to_float(images.images)
  made = {m: certification(m, d, x) for m, d in zip(METHODS, directories, strict=True)}
  times = common.interleaved({method: run for method, (run, _) in made.items()}, pairs=5)
  return {m: (float(np.median(t)) / len(x), made[m][1]) for m, t in times.items()}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--dataset', choices=('digits', 'mnist'), default='digits')
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/l1'))
  arguments = parser.parse_args()
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  out = arguments.out / arguments.dataset
  directories = [out / method for method in METHODS]
  for method, run in zip(METHODS, directories, strict=True):
    common.command(
      'train', arguments.dataset, '--method', method, '--sigma', SIGMA, '--out', run, *where
    )
    common.command('certify', run, '--num-samples', NUM_SAMPLES, '--evenly', NUM_IMAGES)
  table, rows = common.certified_rows(directories, RADII, out)
  costs = seconds_an_image(directories, arguments.dataset, arguments.data_dir)
  for row in rows:
    row['seconds_an_image'], row['forward_passes'] = costs[row['run']]
  question = f'L1 certified accuracy at sigma = {SIGMA} on 500 {arguments.dataset} test images'
  common.write_card(f'l1_{arguments.dataset}', question, rows, table=table)
  print(table)
  common.print_table(
    [{'method': m, 'forward passes': n, 's / image': s} for m, (s, n) in costs.items()]
  )


if __name__ == '__main__':
  main()
