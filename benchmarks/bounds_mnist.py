"""What do interval bounds, CROWN-IBP and curvature certify on MNIST after a few minutes of training?

    python benchmarks/bounds_mnist.py --data-dir DIR

Trains each preset below (seed 0; narrow networks and short schedules, for 2 CPU cores), certifies test images
from the command line and attacks every one of them: PGD within eps, 40 steps from 5 starts. Writes a card.
Settings were fixed before the first run. Resumes.
"""

import argparse
import json
import pathlib

import common
import jax
import numpy as np

from certjax import attacks, data, records, threats, train

RUNS = {  # preset: (options of certify, norm, radius, clean and certified accuracy as published and where).
  'ibp-mnist-0.1': (
    ('--method', 'ibp', '--eps', 0.1), 'linf', 0.1, '98.94 / 97.08 (IBP, large; Gowal et al.)'
  ),
  'ibp-mnist-0.3': (
    ('--method', 'ibp', '--eps', 0.3), 'linf', 0.3, '98.34 / 91.79 (IBP, large; Gowal et al.)'
  ),
  'crown-ibp-mnist-0.1': (
    ('--method', 'crown-ibp', '--eps', 0.1), 'linf', 0.1,
    '99.03 / 97.75 (CROWN-IBP, large; Zhang et al.)',
  ),
  'crown-ibp-mnist-0.3': (
    ('--method', 'crown-ibp', '--eps', 0.3), 'linf', 0.3,
    '98.38 / 93.32 (CROWN-IBP, large; Zhang et al.)',
  ),
  'crt-mnist': (
    ('--method', 'crc'), 'l2', 1.58, '- / 69.79 (against the runner-up class alone; Singla & Feizi)'
  ),
}  # fmt: skip
NUM_IMAGES = 1000
STEPS, STARTS = 40, 5
_SETS = {'linf': threats.linf, 'l2': threats.l2}


def robust(run, x, y, norm, eps):
  """bool[B]: class `y` still after PGD from every start."""
  attack = attacks.pgd(_SETS[norm](eps), step_size=eps / 10, num_steps=STEPS)
  attacked = jax.jit(
    lambda key, x, y: run.model_fn(attack(key, run.model_fn, x, y)).argmax(-1) == y
  )
  found = np.ones(len(x), bool)
  for start in range(STARTS):
    found &= np.asarray(attacked(jax.random.key(start), x, y))
  return found


def row(directory, data_dir, norm, radius, published):
  """Accuracies of one finished run, at its radius."""
  run = train.load_run(directory)
  _, lines = records.read(directory)
  images = data.load(
    run.config['dataset'], 'test', data_dir=data_dir, indices=[line['index'] for line in lines]
  )
  column = lambda name: np.array([line[name] for line in lines])
  right = column('predict') == column('label')
  proved = (column('radius') >= radius) & (column('predict') >= 0)
  x, y = data.to_float(images.images), column('label').astype(np.int32)
  stands = robust(run, x, y, norm, radius)
  return {
    'run': directory.name,
    'model': run.config['model'],
    'epochs': run.config['num_epochs'],
    'norm': norm,
    'radius': radius,
    'images': len(lines),
    'clean': float(np.mean(right)),
    'certified': float(np.mean(right & proved)),
    'PGD': float(np.mean(stands)),
    'certified and broken': int(np.sum(right & proved & ~stands)),
    'published': published,
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/bounds_mnist'))
  parser.add_argument('--only', nargs='*', choices=RUNS, default=tuple(RUNS))
  arguments = parser.parse_args()
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  rows, directories = [], []
  for preset in arguments.only:
    options, norm, radius, published = RUNS[preset]
    directory = arguments.out / preset
    common.command('train', preset, '--out', directory, *where)
    common.command('certify', directory, *options, '--evenly', NUM_IMAGES, *where)
    rows.append(row(directory, arguments.data_dir, norm, radius, published))
    directories.append(directory)
    common.print_table(rows[-1:])
  if set(arguments.only) != set(RUNS):
    return
  table = common.markdown(rows)
  for each, directory in zip(rows, directories, strict=True):
    header, _ = records.read(directory)
    metrics = (directory / 'metrics.jsonl').read_text().splitlines()
    each |= {key: header[key] for key in ('weights_sha256', 'config')}
    each['training'] = json.loads(metrics[-1])
  question = f'What certified training proves on {NUM_IMAGES} MNIST test images'
  common.write_card('bounds_mnist', question, rows, table=table)
  print(table)


if __name__ == '__main__':
  main()
