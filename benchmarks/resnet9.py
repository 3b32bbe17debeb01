"""Orthogonal convolutions in a residual network: accuracy after standard and adversarial training.

    python benchmarks/resnet9.py --data-dir DIR [--out runs/resnet9] [--quick]

The layout of the table of Singla & Feizi 2021 (ResNet-18 there, 200 epochs): vanilla, BCOP and SOC
convolutions, here in a ResNet-9 of width 8 and for a fixed number of steps on CIFAR-10, so that all of it
fits into minutes on two CPU cores. The figures compare the three with each other, not with the paper.
Adversarial training (L_inf, 8/255) takes one step of 10/255 from a random start (Wong, Rice & Kolter
2020, arXiv:2001.03994); PGD-10 from a random start decides what is robust.
Resumes: finished runs are read, not trained again.
"""

import argparse
import pathlib

import common
import jax

from certjax import attacks, configs, data, evaluate, threats, train

MODELS = {'vanilla': 'resnet9-small', 'BCOP': 'resnet9-small-bcop', 'SOC': 'resnet9-small-soc'}
EPS = 8 / 255
OBJECTIVES = {
  'standard': ('clean', {}),
  'adversarial': ('adversarial', {'eps': EPS, 'step_size': 1.25 * EPS, 'num_steps': 1}),
}
NUM_STEPS, NUM_TEST, BATCH = 200, 300, 32
RECIPE = {  # An epoch has 1562 steps; the learning rate falls by 10 at step 31 + 125.
  'dataset': 'cifar10', 'method': 'none', 'batch_size': BATCH, 'num_epochs': 1, 'augment': 'crop_flip',
  'optimizer': 'nesterov', 'learning_rate': 0.05, 'weight_decay': 5e-4, 'schedule': 'step',
  'warmup_epochs': 0.02, 'decay_every_epochs': 0.08, 'log_every': 20,
}  # fmt: skip
KEY = jax.random.key(0)


def train_one(network, training, arguments, num_steps):
  """The directory of one finished run."""
  objective, parameters = OBJECTIVES[training]
  config = configs.Train(
    out=arguments.out / f'{training}-{MODELS[network]}', data_dir=arguments.data_dir,
    model=MODELS[network], objective=objective, objective_parameters=parameters,
    max_steps=num_steps, **RECIPE,
  )  # fmt: skip
  say = lambda step, metrics: print(f'  {step:4d}  loss {metrics["loss"]:.3f}', flush=True)
  print(config.out, flush=True)
  train.run(config, None, on_log=say)
  return config.out


def judge(directory, training, images):
  """Accuracies in percent: of the images, and, after adversarial training, under PGD-10."""
  run = train.load_run(directory)
  found = {'standard': evaluate.accuracy(run.model_fn, images, batch_size=BATCH)}
  if training == 'adversarial':
    attack = attacks.pgd(threats.linf(EPS), step_size=EPS / 4, num_steps=10)
    found['robust'] = evaluate.robust_accuracy(KEY, run.model_fn, attack, images, batch_size=BATCH)
  return {name: round(100 * value, 1) for name, value in found.items()}


def layout(rows):
  """Rows of the paper's table: one training and accuracy each, one column a convolution."""
  return [
    {
      'training': training,
      'accuracy': accuracy,
      **{row['network']: f'{row[accuracy]:.1f}%' for row in rows if row['training'] == training},
    }
    for training, accuracy in (
      ('standard', 'standard'),
      ('adversarial', 'standard'),
      ('adversarial', 'robust'),
    )
  ]


def markdown(rows):
  """The table as text, for the card and the page of results."""
  columns = list(rows[0])
  lines = [columns, ['---'] * len(columns), *([row[column] for column in columns] for row in rows)]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir', required=True)
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/resnet9'))
  parser.add_argument('--quick', action='store_true', help='a smoke run of a few steps; no card')
  arguments = parser.parse_args()
  num_steps, num_test = (2, 10) if arguments.quick else (NUM_STEPS, NUM_TEST)
  indices = data.subset(10_000, evenly=num_test)
  images = data.load('cifar10', 'test', data_dir=arguments.data_dir, indices=indices)
  rows = []
  for training in OBJECTIVES:
    for network, model in MODELS.items():
      directory = train_one(network, training, arguments, num_steps)
      found = judge(directory, training, images)
      rows.append({'network': network, 'model': model, 'training': training, **found})
      print(f'  {found}', flush=True)
  table = markdown(layout(rows))
  print(table)
  if not arguments.quick:
    question = (
      f'ResNet-9 of width 8 with plain, BCOP and SOC convolutions after {NUM_STEPS} steps of {BATCH} '
      f'CIFAR-10 images: accuracy on {NUM_TEST} evenly spaced test images, in percent'
    )
    objectives = {name: list(objective) for name, objective in OBJECTIVES.items()}
    settings = {'recipe': RECIPE, 'objectives': objectives, 'num_steps': NUM_STEPS}
    common.write_card('resnet9', question, rows, **settings, table=table)


if __name__ == '__main__':
  main()
