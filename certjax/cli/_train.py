"""`certjax train`."""

from certjax import configs, data
from certjax.cli import _parse, _progress


def train(arguments):
  """`certjax train PRESET [options]`."""
  config = _parse.parse_preset(
    configs.PRESETS, 'train', arguments, description=configs.Train.__doc__
  )
  run(config)
  print(f'next: certjax certify {config.out}')


def run(config):
  """Trains what a `configs.Train` says, with a bar."""
  _parse.check_seed(config.seed)
  smoothing = None
  if config.method != 'none':
    shape = data.dataset(config.dataset).shape
    smoothing = configs.smoothing_of(config.method, config.sigma, config.parameters, shape=shape)
  from certjax import train

  with _progress.bar('training', 'steps') as bar:
    train.run(
      config,
      smoothing,
      on_start=bar.start,
      on_log=lambda step, metrics: bar.at(step, f'loss {metrics["loss"]:.4f}'),
    )
