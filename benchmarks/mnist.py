"""Certified accuracy on MNIST: the first table of the results.

    python benchmarks/mnist.py --data-dir DIR [--out runs/mnist]

Trains the preset `mnist` at sigma 0.25 and 0.5, certifies 500 evenly spaced test images with N = 10,000
and alpha = 0.001, and writes a card. Resumes: finished parts are read, not run again.
"""

import argparse
import pathlib

import common

SIGMAS = (0.25, 0.5)
RADII = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir', required=True)
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/mnist'))
  arguments = parser.parse_args()
  directories = [arguments.out / f'sigma-{sigma}' for sigma in SIGMAS]
  for sigma, run in zip(SIGMAS, directories, strict=True):
    common.command(
      'train', 'mnist', '--sigma', sigma, '--out', run, '--data-dir', arguments.data_dir
    )
    common.command('certify', run, '--num-samples', 10_000, '--evenly', 500)
  table, rows = common.certified_rows(directories, RADII, arguments.out)
  question = 'certified accuracy of Gaussian smoothing on 500 evenly spaced MNIST test images'
  common.write_card('mnist', question, rows, table=table)
  print(table)


if __name__ == '__main__':
  main()
