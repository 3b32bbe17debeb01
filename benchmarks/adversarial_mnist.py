"""What do PGD and AutoAttack leave of a standard and of an adversarially trained CNN on MNIST?

    python benchmarks/adversarial_mnist.py --data-dir DIR

Trains the presets mnist (without noise, 5 epochs) and madry-mnist-quick (L_inf 0.3, 8 epochs) with seed 0, and
runs `certjax attack` on 500 evenly spaced test images at eps = 0.3: PGD with 40 steps of 0.01 (one start),
and AutoAttack, standard, as published. Every adversarial image is stored and judged from there. Resumes. The
settings stood before the run.
"""

import argparse
import json
import pathlib

import common

EPS, IMAGES = 0.3, 500
PGD = ('pgd.num_steps', 40, 'pgd.step_size', 0.01)
MODELS = {  # name: (preset, its options).
  'standard': ('mnist', ('--method', 'none', '--objective', 'clean', '--num-epochs', 5)),
  'adversarial': ('madry-mnist-quick', ()),
}
PUBLISHED = (
  'TRADES, four convolutions, 100 epochs: 99.48 clean, 96.07 PGD-40, 92.58 Square, 92.46 best'
)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/adversarial-mnist'))
  arguments = parser.parse_args()
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  rows = []
  for name, (preset, options) in MODELS.items():
    run = arguments.out / name
    common.command('train', preset, '--out', run, *options, *where)
    common.command(
      'attack', run, '--attacks', 'pgd', 'autoattack', '--norm', 'linf', '--eps', EPS,
      '--options', *PGD, '--evenly', IMAGES, *where,
    )  # fmt: skip
    rows.append({'model': name, 'preset': preset, **outcome(run / 'attack')})
  table = common.markdown([{key: row[key] for key in list(row)[:-1]} for row in rows])
  question = f'PGD and AutoAttack at L_inf {EPS} on {IMAGES} MNIST test images'
  common.write_card('adversarial_mnist', question, rows, table=table, published=PUBLISHED)
  print(table)


def outcome(directory):
  """Of a finished `certjax attack`: its summary, as columns."""
  summary = json.loads((directory / 'attacks.json').read_text())
  pgd, autoattack = (row['accuracy'] for row in summary['attacks'])
  return {
    'images': summary['num_images'],
    'clean': summary['clean']['accuracy'],
    'PGD-40': pgd,
    'AutoAttack': autoattack,
    'both': summary['worst_case']['accuracy'],
    'flags': ', '.join(flag['name'] for flag in summary['flags']) or 'none',
    'summary': summary,
  }


if __name__ == '__main__':
  main()
