"""What do standard, L_inf, L2 and perceptual training leave of each other's threats, and of one that none was trained for?

    python benchmarks/perceptual_comparison.py --dataset digits
    python benchmarks/perceptual_comparison.py --dataset mnist --data-dir DIR

Four classifiers, each with seeds 0, 1 and 2, by `certjax train`: the preset `digits` or `mnist` without noise, and the
presets of adversarial training in L_inf, in L2, and of perceptual adversarial training, self-bounded. Five attacks
on held-out images (all 500 digits, 200 evenly spaced of MNIST), by `certjax attack`: AutoAttack in L_inf and in
L2, StAdv (Adam, 100 steps), PPGD and LPA (40 steps), at the bounds of `configs.PERCEPTUAL_BOUNDS`. ReColorAdv is left
out: it changes colours, and these images are grey. The LPIPS distance of PPGD and LPA is an external bound, as in the paper: it is
measured by a separate network, trained clean with seed 1000, the same for all classifiers; PAT trains by its own.

"union": right under every narrow attack (L_inf, L2, StAdv), image by image. "unseen mean": over the threats that a
classifier was not trained against, where the perceptual one counts once, by LPA. Means over the seeds with their
95% interval (Student's t). What is finished lies under --out, and the same command goes on there. The settings
stood before the run; with fewer --epochs, --seeds or --images no card is written.

Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), table 2, is the same comparison on CIFAR-10.
"""

import argparse
import pathlib

import common
import jax
import numpy as np
from scipy import stats

SEEDS, MEASURING_SEED = 3, 1000
IMAGES = {'digits': 500, 'mnist': 200}
CLEAN = ('--method', 'none', '--objective', 'clean')
STANDARD = {'digits': ('digits', CLEAN), 'mnist': ('mnist', (*CLEAN, '--num-epochs', 5))}
MODELS = {  # dataset: {name: (preset, its options)}.
  'digits': {
    'standard': STANDARD['digits'],
    'AT L_inf': ('at-linf-digits', ()),
    'AT L2': ('at-l2-digits', ()),
    'PAT self': ('pat-self-digits', ()),
  },
  'mnist': {
    'standard': STANDARD['mnist'],
    'AT L_inf': ('madry-mnist-quick', ()),
    'AT L2': ('at-l2-mnist-quick', ()),
    'PAT self': ('pat-self-mnist-quick', ()),
  },
}
TRAINED = {'standard': (), 'AT L_inf': ('linf',), 'AT L2': ('l2',), 'PAT self': ('lpips',)}
ATTACKS = {  # name: (norm, attack of `certjax attack`).
  'L_inf': ('linf', 'autoattack'),
  'L2': ('l2', 'autoattack'),
  'StAdv': ('stadv', 'latent'),
  'PPGD': ('lpips', 'ppgd'),
  'LPA': ('lpips', 'lpa'),
}
THREATS = ('L_inf', 'L2', 'StAdv', 'LPA')  # One attack a threat; LPA stands for the perceptual one.
PUBLISHED = (
  'CIFAR-10, ResNet-50, union / unseen mean / clean: standard 0.0 / 0.1 / 94.8, AT L_inf 1.0 / 19.6 / 86.8, '
  'AT L2 4.0 / 25.3 / 85.0, PAT-self 21.9 / 45.6 / 82.4'
)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--dataset', choices=MODELS, required=True)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path)
  parser.add_argument('--epochs', type=int)
  parser.add_argument('--seeds', type=int, default=SEEDS)
  parser.add_argument('--images', type=int)
  arguments = parser.parse_args()
  dataset = arguments.dataset
  out = arguments.out or pathlib.Path(f'runs/perceptual-comparison-{dataset}')
  share_programs(out)
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  epochs = ('--num-epochs', arguments.epochs) if arguments.epochs else ()
  images = arguments.images or IMAGES[dataset]

  def train(run, preset, options, seed):
    common.command('train', preset, *options, *epochs, '--seed', seed, '--out', run, *where)

  measuring = out / f'measuring-{MEASURING_SEED}'
  train(measuring, *STANDARD[dataset], MEASURING_SEED)
  rows = []
  for seed in range(arguments.seeds):
    for name, (preset, options) in MODELS[dataset].items():
      run = out / f'{slug(name)}-{seed}'
      train(run, preset, options, seed)
      for attack in ATTACKS:
        common.command(*attack_line(run, dataset, attack, measuring), '--evenly', images, *where)
      rows.append({'model': name, 'seed': seed, **outcome(run, TRAINED[name])})
      print(common.markdown([numbers(row) for row in rows]), flush=True)
      jax.clear_caches()  # Each command makes programs of its own; what they compile to lies in `out`.
  table = common.markdown(summary(rows))
  if not (arguments.epochs or arguments.images or arguments.seeds != SEEDS):
    write_card(dataset, images, rows, table)
  print(table)


def share_programs(out):
  """One attack is one program for all classifiers of a data set: it is compiled once, and kept in `out`."""
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', str((out / 'programs').resolve()))


def attack_line(run, dataset, attack, measuring):
  """The command of one attack on one classifier."""
  from certjax import configs

  norm, name = ATTACKS[attack]
  measured = ('--features', measuring) if norm == 'lpips' else ()
  return (
    'attack', run, '--norm', norm, '--eps', configs.PERCEPTUAL_BOUNDS[dataset][norm], '--attacks', name,
    *measured, '--out', place(run, attack),
  )  # fmt: skip


def outcome(run, trained):
  """Accuracies of one classifier from its records, and where they come from."""
  from certjax import report

  columns = {attack: report.load_attacked(place(run, attack)) for attack in ATTACKS}
  report.threats_summary(
    [columns['PPGD'], columns['L_inf']]
  )  # Refuses another model, or other images.
  threats = report.threats_summary([columns[attack] for attack in THREATS], trained)
  accuracies = {row['name']: row['accuracy'] for row in threats['threats']}
  return {
    'clean': threats['clean'],
    **{attack: float(column.correct.mean()) for attack, column in columns.items()},
    'union': threats['union'],
    'unseen mean': report.unseen_mean(accuracies, trained),
    'images': threats['num_images'],
    'weights_sha256': columns['L_inf'].header['weights_sha256'],
    'measured_by_sha256': columns['LPA'].header['features'],
    'subsets': threats['subsets'],
  }


def numbers(row):
  """The columns of the table."""
  return {name: row[name] for name in ('model', 'seed', 'clean', *ATTACKS, 'union', 'unseen mean')}


def summary(rows):
  """A row a classifier: the mean over its seeds, and half the length of its interval."""
  lines = []
  for name in dict.fromkeys(row['model'] for row in rows):
    mine = [numbers(row) for row in rows if row['model'] == name]
    columns = [column for column in mine[0] if column not in ('model', 'seed')]
    lines.append({'model': name, **{c: mean_interval([row[c] for row in mine]) for c in columns}})
  return lines


def mean_interval(values, *, level=0.95):
  """The mean and half the length of Student's interval, as text; of one value no interval.

  Example:
    >>> mean_interval([0.5, 0.6, 0.7])
    '0.600 ± 0.248'
  """
  mean, count = float(np.mean(values)), len(values)
  if count == 1:
    return f'{mean:.3f}'
  half = stats.t.ppf((1 + level) / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
  return f'{mean:.3f} ± {half:.3f}'


def write_card(dataset, images, rows, table):
  from certjax import configs

  question = (
    f'Standard, L_inf, L2 and perceptual training under narrow and perceptual attacks, {images} '
    f'held-out images of {dataset}'
  )
  common.write_card(
    f'perceptual_{dataset}', question, rows, table=table, bounds=configs.PERCEPTUAL_BOUNDS[dataset],
    attacks={name: {'norm': norm, 'attack': attack} for name, (norm, attack) in ATTACKS.items()},
    measured_by=f'LPIPS of PPGD and LPA: a clean network of seed {MEASURING_SEED}, an external bound',
    left_out='ReColorAdv: the images have no colour', published=PUBLISHED,
  )  # fmt: skip


def place(run, attack):
  return run / f'attack-{slug(attack)}'


def slug(name):
  return name.lower().replace(' ', '-').replace('_', '')


if __name__ == '__main__':
  main()
