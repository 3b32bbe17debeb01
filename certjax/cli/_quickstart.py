"""`certjax quickstart`: the main job on real digits, start to finish."""

import dataclasses
import time

from certjax import configs
from certjax.cli import _certify, _parse, _records, _train


def quickstart(arguments):
  """`certjax quickstart [options]`."""
  config = _parse.parse(configs.Quickstart, 'quickstart', arguments)
  begun = time.perf_counter()
  training, certification = _plan(config)
  _train.run(training)
  out = _certify.run(certification)
  print(f'done in {time.perf_counter() - begun:.0f} s; everything is in {out}:')
  print('  config.json, checkpoints/   the trained model')
  print('  records.jsonl               one line an image: label, radius, votes')
  print('  table.md, table.csv, curve.png')
  print('what to run next:')
  print(f'  certjax predict {out}                          # classify with the smoothed model')
  print(f'  certjax certify {out} --sigma 0.12 --out {out}-0.12 --num-samples 10000')
  print(f'  certjax report {out} {out}-0.12 --compare      # which noise certifies more?')
  print('  certjax train --help                           # MNIST and CIFAR-10 presets')


def _plan(config):
  """The configs of both halves, checked before the first begins."""
  from certjax import data

  _, preset = configs.PRESETS['digits']
  training = dataclasses.replace(
    preset, out=config.out, sigma=config.sigma, data_dir=config.data_dir
  )
  certification = configs.Certify(
    run=config.out, method='gaussian', sigma=config.sigma, num_samples=config.num_samples, evenly=config.num_images,
    data_dir=config.data_dir,
  )  # fmt: skip
  _records.check('certify', certification, data.dataset(training.dataset).shape)
  most = data.dataset(training.dataset).sizes['test']
  if not 1 <= config.num_images <= most:
    raise ValueError(f'`num_images` must lie in 1 .. {most}, got {config.num_images}.')
  return training, certification
