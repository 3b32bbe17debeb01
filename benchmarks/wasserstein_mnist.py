"""How far may mass move? Wasserstein smoothing on MNIST at sigma = 0.005, where the paper's median is the ceiling.

    python benchmarks/wasserstein_mnist.py --data-dir DIR

Trains the preset wasserstein-mnist-quick (seed 0, 15 of the paper's 200 epochs) and certifies 500 evenly spaced
test images with the paper's N0 = 1,000, N = 10,000 and alpha = 0.05, from the command line; resumes. The same
votes give all rows: the paper's bound and the tight one, over both ground distances. (Its baseline, noise on
the pixels, would have half of the paper's bound at equal votes; its votes are others, and it is not run.)
The ceiling is the radius of an image for which all samples vote alike. The settings stood before the run.
"""

import argparse
import pathlib

import common

PRESET, SIGMA = 'wasserstein-mnist-quick', 0.005
IMAGES, SELECTION, SAMPLES, ALPHA = 500, 1_000, 10_000, 0.05
LAWS = (('l2', 'levine'), ('l2', 'tight'), ('l1', 'levine'), ('l1', 'tight'))
PUBLISHED = {('l2', 'levine'): 0.0101}  # Levine & Feizi 2020, median at sigma = 0.005.


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/wasserstein'))
  arguments = parser.parse_args()
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  run = arguments.out / PRESET
  common.command('train', PRESET, '--out', run, *where)
  common.command(
    'certify', run, '--evenly', IMAGES, '--num-selection', SELECTION, '--num-samples', SAMPLES,
    '--alpha', ALPHA, '--parameters', 'bound', 'levine',
  )  # fmt: skip
  rows = [row(run, ground, bound) for ground, bound in LAWS]
  table = common.markdown([{name: each[name] for name in list(each)[:7]} for each in rows])
  question = f'Wasserstein smoothing at sigma = {SIGMA} on {IMAGES} MNIST test images'
  common.write_card('wasserstein_mnist', question, rows, table=table)
  print(table)


def row(run, ground, bound):
  """The certificates that one bound makes of the votes."""
  from certjax import certify, evaluate, records, report, smoothing

  header, lines = records.read(run)
  law = smoothing.wasserstein(sigma=SIGMA, shape=(28, 28, 1), ground=ground, bound=bound)
  proof, of = evaluate.recertified(lines, law, num_samples=SAMPLES, alpha=ALPHA), report.load(run)
  labels = of.labels
  if (ground, bound) == ('l2', 'levine'):
    assert (proof.radius == of.certificate.radius).all()
    assert (proof.label == of.certificate.label).all()
  median = report.median_radius(proof, labels)
  return {
    'ground distance': ground,
    'bound': bound,
    'accuracy': float(report.clean_accuracy(proof, labels)),
    'abstained': float(report.abstention_rate(proof)),
    'median radius': 'N/A' if median is None else median,
    'ceiling': float(law.radius(certify.clopper_pearson(SAMPLES, SAMPLES, alpha=ALPHA))),
    'published median': PUBLISHED.get((ground, bound), '-'),
    'average_certified_radius': float(report.average_certified_radius(proof, labels)),
    'weights_sha256': header['weights_sha256'],
    'config': header['config'],
  }


if __name__ == '__main__':
  main()
