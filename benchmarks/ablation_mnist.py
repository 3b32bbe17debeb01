"""How many pixels does randomized ablation certify on MNIST, and how many of them should it show?

    python benchmarks/ablation_mnist.py --data-dir DIR

1. The preset ablation-mnist-quick (k = 45, seed 0, 6 of the paper's 400 epochs), certified with the paper's
   N0 = 1,000, N = 10,000 and alpha = 0.05 on 500 evenly spaced test images.
2. At a reduced setting (2 epochs, 200 images, N0 = 100, N = 1,000): a model for each number of shown pixels,
   and one that hides pixels under the mean grey level instead of in a second channel.
3. Lee et al. 2019 in between: each pixel of the binary image kept with probability 0.8, the preset mnist
   (15 epochs), N = 10,000 on the same 200 images.

Accuracy and abstention are PREDICT's, two-sided binomial test on the top two classes, on the N samples of the
certificate (whose two largest counts are in the records); the paper draws as many anew. A class that was not
selected and wins counts as wrong, whatever it is.

Everything from the command line; resumes. The settings stood before the run.
"""

import argparse
import json
import pathlib

import common

KEEP, SHOWN = 45, (20, 30, 40, 45, 50, 60, 80)
FULL = {'epochs': 6, 'images': 500, 'selection': 1_000, 'samples': 10_000}
REDUCED = {'epochs': 2, 'images': 200, 'selection': 100, 'samples': 1_000}
LEE = {**REDUCED, 'epochs': 15, 'samples': 10_000}
ALPHA = 0.05
MEAN = 0.1307  # Of MNIST, in the authors' scripts.
LEE_KEEP, LEE_LEVELS = 0.8, 1
PUBLISHED = {  # Levine & Feizi 2020: accuracy (abstained), median of certified pixels.
  20: '90.29% (1.81%), 3', 30: '94.68% (0.77%), 7', 40: '96.27% (0.52%), 8', 45: '96.72% (0.45%), 8',
  50: '97.16% (0.32%), 7', 60: '97.78% (0.18%), 7', 80: '98.37% (0.12%), 5',
}  # fmt: skip
PUBLISHED_MEAN, PUBLISHED_LEE = '96.27% (0.43%), 7', '-, 4'


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/ablation-mnist'))
  arguments = parser.parse_args()
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  rows = []
  for row in (full, *(reduced(keep) for keep in SHOWN), hidden_under_the_mean, lee):
    rows.append(row(arguments.out, where))
    print(json.dumps(rows[-1]), flush=True)
  table = common.markdown([{name: row[name] for name in list(rows[0])[:9]} for row in rows])
  question = 'Randomized ablation on MNIST: accuracy, abstention, median of certified pixels'
  common.write_card('ablation_mnist', question, rows, table=table, alpha=ALPHA)
  print(table)


def full(out, where):
  """The paper's k at the paper's number of samples."""
  run = out / 'ablation-mnist-quick'
  common.command('train', 'ablation-mnist-quick', '--out', run, *where)
  return certified(run, FULL, f'ablation, k = {KEEP}', bits(KEEP), PUBLISHED[KEEP])


def reduced(keep):
  """A model of its own for each number of shown pixels."""

  def row(out, where):
    run = out / f'keep-{keep}'
    law = ('--parameters', 'keep', keep)
    train(run, law, where)
    return certified(run, REDUCED, f'ablation, k = {keep}', bits(keep), PUBLISHED[keep])

  return row


def hidden_under_the_mean(out, where):
  """The other encoding of a hidden pixel."""
  run = out / 'mean'
  train(run, ('--parameters', 'keep', KEEP, 'null', 'mean', 'mean', MEAN), where)
  return certified(run, REDUCED, f'ablation, k = {KEEP}, mean', bits(KEEP), PUBLISHED_MEAN)


def train(run, law, where):
  options = ('--num-epochs', REDUCED['epochs'], '--save-every-epochs', REDUCED['epochs'])
  common.command('train', 'ablation-mnist-quick', '--out', run, *law, *options, *where)


def lee(out, where):
  """Lee et al.'s random replacement, on binary images."""
  from certjax import smoothing

  run = out / 'lee'
  law = ('--method', 'discrete', '--parameters', 'keep', LEE_KEEP, 'levels', LEE_LEVELS)
  common.command('train', 'mnist', '--out', run, *law, *where)
  information = smoothing.discrete_information(784, keep=LEE_KEEP, values=LEE_LEVELS + 1)
  return certified(run, LEE, f'Lee et al., {LEE_KEEP} kept', information, PUBLISHED_LEE)


def bits(keep):
  from certjax import smoothing

  return smoothing.ablation_information(keep=keep)


def certified(run, setting, name, information, published):
  """The certificates of a trained run, and the predictions on their samples, as a row."""
  from certjax import evaluate, records, report

  common.command(
    'certify', run, '--evenly', setting['images'], '--num-samples', setting['samples'],
    '--num-selection', setting['selection'], '--alpha', ALPHA,
  )  # fmt: skip
  of = report.load(run)
  header, lines = records.read(run)
  answers = [evaluate.outcome_of(line, alpha=ALPHA) for line in lines]
  median = report.median_radius(of.certificate, of.labels)
  return {
    'law': name,
    'bits seen': information,
    'epochs': setting['epochs'],
    'images': setting['images'],
    'samples': setting['samples'],
    'accuracy': answers.count('correct') / len(lines),
    'abstained': answers.count('abstained') / len(lines),
    'median': 'N/A' if median is None else median,
    'published': published,
    'average_certified_radius': report.average_certified_radius(of.certificate, of.labels),
    'certified_accuracy': report.certified_accuracy(of.certificate, of.labels, range(12)).tolist(),
    'weights_sha256': header['weights_sha256'],
    'config': header['config'],
  }


if __name__ == '__main__':
  main()
