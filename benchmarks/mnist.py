"""Certified accuracy on MNIST: the README's table.

    python benchmarks/mnist.py --data-dir DIR [--out runs/mnist]

Trains the preset `mnist` at sigma 0.25 and 0.5, certifies 500 evenly spaced test images with N = 10,000
and alpha = 0.001, and writes a card. Resumes: finished parts are read, not run again.
"""

import argparse
import json
import pathlib

import common

from certjax import records, report
from certjax.cli import main as certjax

SIGMAS = (0.25, 0.5)
RADII = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)


def run(*arguments):
  """One command; a failure ends the benchmark."""
  if code := certjax([str(argument) for argument in arguments]):
    raise SystemExit(code)


def last_metrics(directory):
  """The last logged training metrics of a run."""
  return json.loads((directory / 'metrics.jsonl').read_text().splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir', required=True)
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/mnist'))
  arguments = parser.parse_args()
  directories = [arguments.out / f'sigma-{sigma}' for sigma in SIGMAS]
  for sigma, directory in zip(SIGMAS, directories, strict=True):
    run('train', 'mnist', '--sigma', sigma, '--out', directory, '--data-dir', arguments.data_dir)
    run('certify', directory, '--num-samples', 10_000, '--evenly', 500)
  # Without the seconds: they tell what else the machine did in those minutes.
  runs = [run._replace(seconds=None) for run in report.load_all(directories)]
  text = report.write(runs, arguments.out, RADII)
  headers = [records.read(directory)[0] for directory in directories]
  rows = [
    {
      'run': run.name,
      'certified_accuracy': dict(
        zip(
          map(str, RADII),
          report.certified_accuracy(run.certificate, run.labels, RADII).tolist(),
          strict=True,
        )
      ),
      'average_certified_radius': float(
        report.average_certified_radius(run.certificate, run.labels)
      ),
      'abstention_rate': float(report.abstention_rate(run.certificate)),
      'training': last_metrics(directory),
      'weights_sha256': header['weights_sha256'],
      'config': header['config'],
    }
    for run, directory, header in zip(runs, directories, headers, strict=True)
  ]
  question = 'certified accuracy of Gaussian smoothing on 500 evenly spaced MNIST test images'
  common.write_card('mnist', question, rows, table=text.split('\n\n')[0])
  print(text)


if __name__ == '__main__':
  main()
