"""What do bands certify against patches on MNIST?

    python benchmarks/patches.py --data-dir DIR

Trains the preset bands-mnist-quick (seed 0: 8 of the paper's 400 epochs), certifies 500 evenly spaced test
images from the command line with bands of 2 columns at both thresholds that the authors' scripts use,
0.2 (certification) and 0.3 (attacks; ART's network), and writes a card. Resumes.
"""

import argparse
import pathlib

import common

PRESET, WIDTH, NUM_IMAGES = 'bands-mnist-quick', 2, 500
THRESHOLDS = (0.2, 0.3)
SIDES = (0, 1, 2, 3, 4, 5, 6)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/patches'))
  arguments = parser.parse_args()
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  run, directories = arguments.out / PRESET, []
  common.command('train', PRESET, '--out', run, *where)
  for theta in THRESHOLDS:
    directories.append(arguments.out / f'theta-{theta}')
    common.command(
      'certify', run, '--method', 'bands', '--parameters', 'width', WIDTH, 'theta', theta,
      '--evenly', NUM_IMAGES, '--out', directories[-1], *where,
    )  # fmt: skip
  table, rows = common.certified_rows(directories, SIDES, arguments.out, trained=run)
  question = f'Certified accuracy against square patches on {NUM_IMAGES} MNIST test images, exact'
  common.write_card('patches_mnist', question, rows, table=table)
  print(table)


if __name__ == '__main__':
  main()
