"""How many poisoned training samples do ensembles of small networks withstand on MNIST?

    python benchmarks/poisoning_mnist.py --data-dir DIR

1. Deep partition aggregation with k = 1200 and k = 3000 parts, hashed by the sum of pixels as published; base
   learners of one hidden layer (128 units, 100 full-batch steps) in place of the paper's networks in networks.
2. Run-off election on the same members.
3. Finite aggregation with k = 1200 and each sample in d = 2 parts: 2,400 members, each with as many samples
   as one of DPA's 1,200; its own certificate beside the naive one, of the same votes.
4. SS-DPA, against flipped labels alone: softmax regression (`linear`) on features that RotNet learned from all
   training images without labels (`certjax train rotnet-mnist`). A flipped label costs DPA two samples.
5. Partition aggregation and run-off with base learners of two convolutions and shifted images (`cnn`), k = 1200:
   they take many times as long as the others.

All 10,000 test images. Base accuracy is the members' mean, clean accuracy that of the vote. Published: Levine
& Feizi 2021, whose base learners are a million weights each.

Everything from the command line; each row resumes. The settings stood before the run: step size, shift and
number of steps of `cnn`, and the penalty of `linear`, were chosen by 24 and 60 members of random parts of the
first 58,000 training images, on the other 2,000. `--smoke` runs all rows at a tiny size and writes no card.
"""

import argparse
import json
import pathlib

import common
import numpy as np

BUDGETS = (100, 200, 300, 400, 500)
PUBLISHED = {1200: '448, 95.81%, 77.00%', 3000: '509, 93.35%, 49.59%'}  # Median, clean, base.
PUBLISHED_FLIPS = {1200: '485, 95.63%, 80.77%', 3000: '647, 93.91%, 57.78%'}
SMOKE = {
  'partitions': [20], 'convolutions': [20], 'images': 50, 'out': pathlib.Path('runs/poisoning-mnist-smoke'),
}  # fmt: skip
CNN, LINEAR = ('--learner', 'cnn'), ('--learner', 'linear')


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir')
  parser.add_argument('--dataset', default='mnist')
  parser.add_argument('--partitions', type=int, nargs='+', default=[1200, 3000])
  parser.add_argument('--convolutions', type=int, nargs='*', default=[1200])
  parser.add_argument('--spread', type=int, default=2)
  parser.add_argument('--images', type=int, help='evenly spaced test images (default: all)')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/poisoning-mnist'))
  parser.add_argument('--smoke', action='store_true', help='tiny, without a card')
  arguments = parser.parse_args()
  if arguments.smoke:
    vars(arguments).update(SMOKE)
  rows = []
  question = 'Certified poisoning on MNIST: partition aggregation, run-off, finite aggregation'
  for row in settings(arguments):
    rows.append(row)
    print(json.dumps(row), flush=True)
    table = common.markdown([{name: row[name] for name in list(rows[0])[:-1]} for row in rows])
    if not arguments.smoke:  # Row by row: what is done stays, whatever comes after.
      common.write_card(f'poisoning_{arguments.dataset}', question, rows, table=table)
  print(table)


def settings(arguments):
  """Each row when it is there."""
  for k in arguments.partitions:
    members = arguments.out / f'dpa-{k}'
    run(arguments, 'dpa', k, members)
    yield figures(members, f'DPA, k = {k}', PUBLISHED.get(k, '-'))
    elected = arguments.out / f'run-off-{k}'
    run(arguments, 'run-off', k, elected, '--members', members)
    yield figures(elected, f'run-off, k = {k}')
  k, spread = arguments.partitions[0], arguments.spread
  out = arguments.out / f'finite-{k}-{spread}'
  run(arguments, 'finite-aggregation', k, out, '--spread', spread)
  yield figures(out, f'finite aggregation, k = {k}, d = {spread}')
  yield figures(out, f'the same votes, naive, k = {k}, d = {spread}', proof=naive(out))
  yield from features(arguments)
  yield from convolutions(arguments)


def convolutions(arguments):
  """The first two rules with members of convolutions."""
  small = ('--learner-parameters', 'num_steps', 20) if arguments.smoke else ()
  for k in arguments.convolutions:
    members = arguments.out / f'cnn-dpa-{k}'
    run(arguments, 'dpa', k, members, *CNN, *small)
    yield figures(members, f'DPA, cnn, k = {k}', PUBLISHED.get(k, '-'))
    elected = arguments.out / f'cnn-run-off-{k}'
    run(arguments, 'run-off', k, elected, *CNN, *small, '--members', members)
    yield figures(elected, f'run-off, cnn, k = {k}')


def features(arguments):
  """SS-DPA on the features of a run without labels; r counts flipped labels."""
  learned = arguments.out / 'rotnet'
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  short = ('--max-steps', 20) if arguments.smoke else ()
  common.command(
    'train', 'rotnet-mnist', '--dataset', arguments.dataset, '--out', learned, *where, *short
  )
  for k in arguments.partitions:
    out = arguments.out / f'ss-dpa-{k}'
    run(arguments, 'ss-dpa', k, out, *LINEAR, '--features', learned)
    yield figures(
      out, f'SS-DPA (flips), RotNet features, linear, k = {k}', PUBLISHED_FLIPS.get(k, '-')
    )


def run(arguments, method, k, out, *more):
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  images = ('--evenly', arguments.images) if arguments.images else ()
  small = ('--capacity', 40) if arguments.smoke else ()
  common.command(
    'poison', method, '--dataset', arguments.dataset, '--partitions', k, '--out', out, *more, *images,
    *small, *where,
  )  # fmt: skip


def naive(out):
  """floor(lead / (2 d)), of the votes that a finished run kept."""
  from certjax import certify, poisoning, records

  config = records.read(out)[0]['config']
  files = sorted(pathlib.Path(out).glob('members-*.npz'))
  votes = [poisoning.first_choices(np.load(file)['preferences']).astype(np.int16) for file in files]
  classes = np.load(files[0])['preferences'].shape[-1]
  return certify.finite_aggregation(
    np.concatenate(votes, axis=1), classes, shifts=config['shifts'], bound='naive'
  )


def figures(out, name, published='-', proof=None):
  """A row of the table, of a finished run."""
  from certjax import records, report

  of, (header, lines) = report.load(out), records.read(out)
  proof = of.certificate if proof is None else proof
  median = report.median_radius(proof, of.labels)
  members = header['config']['num_members']
  at = report.certified_accuracy(proof, of.labels, BUDGETS)
  return {
    'ensemble': name,
    'members': members,
    'median': 'N/A' if median is None else median,
    'clean': report.clean_accuracy(proof, of.labels),
    'base': sum(line['members_right'] for line in lines) / members / len(lines),
    **{f'r = {budget}': accuracy for budget, accuracy in zip(BUDGETS, at.tolist(), strict=True)},
    'published: median, clean, base': published,
    'config': header['config'],
  }


if __name__ == '__main__':
  main()
