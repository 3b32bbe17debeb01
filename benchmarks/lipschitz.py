"""Lipschitz networks side by side: LipConvnet-5 with SOC, BCOP and Cayley convolutions.

    python benchmarks/lipschitz.py --dataset digits
    python benchmarks/lipschitz.py --dataset mnist --data-dir DIR

Trains the preset lipconvnet5-CONV-DATASET of each (seed 0; the networks are narrow, for 2 CPU cores),
certifies 500 evenly spaced test images by the margin over the proved constant, exactly, attacks all of
them by L2 PGD at 0.999 of their radius, and writes a card and a plot. Resumes.
"""

import argparse
import pathlib

import common
import jax
import numpy as np

from certjax import attacks, data, records, threats, train

CONVOLUTIONS = ('soc', 'bcop', 'cayley')
NUM_IMAGES = 500
RADII = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)
ATTACK_STEPS = 50


def broken(directory, data_dir):
  """How many certified images PGD moves to another class within 0.999 of their own radius."""
  run = train.load_run(directory)
  _, rows = records.read(directory)
  images = data.load(
    run.config['dataset'], 'test', data_dir=data_dir, indices=[row['index'] for row in rows]
  )
  x = data.to_float(images.images)
  predicted = np.array([row['predict'] for row in rows])
  radius = np.array([row['radius'] for row in rows], np.float32) * 0.999

  @jax.jit
  def attacked(key, x, y, eps):
    attack = attacks.pgd(threats.l2(eps), step_size=eps / 5, num_steps=ATTACK_STEPS)
    return run.model_fn(attack(key, run.model_fn, x[None], y[None]))[0].argmax()

  keys = jax.random.split(jax.random.key(0), len(x))
  after = np.array([attacked(*each) for each in zip(keys, x, predicted, radius, strict=True)])
  return int((after[radius > 0] != predicted[radius > 0]).sum()), int((radius > 0).sum())


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--dataset', choices=('digits', 'mnist'), default='digits')
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/lipschitz'))
  arguments = parser.parse_args()
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  directories = []
  for conv in CONVOLUTIONS:
    preset = f'lipconvnet5-{conv}-{arguments.dataset}'
    directories.append(arguments.out / preset)
    common.command('train', preset, '--out', directories[-1], *where)
    common.command('certify', directories[-1], '--evenly', NUM_IMAGES, *where)
  table, rows = common.certified_rows(directories, RADII, arguments.out / arguments.dataset)
  for directory, row in zip(directories, rows, strict=True):
    row['broken_by_pgd'], row['attacked'] = broken(directory, arguments.data_dir)
    row['constants'] = records.read(directory)[0].get('constants')
  question = f'Certified accuracy of LipConvnet-5 on 500 {arguments.dataset} test images, exact'
  common.write_card(f'lipschitz_{arguments.dataset}', question, rows, table=table)
  print(table)
  common.print_table([
    {'network': row['run'], 'attacked': row['attacked'], 'broken': row['broken_by_pgd']}
    for row in rows
  ])  # fmt: skip


if __name__ == '__main__':
  main()
