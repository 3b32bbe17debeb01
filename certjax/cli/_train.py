"""`certjax train`."""

import atexit
import contextlib

from certjax import configs, data
from certjax.cli import _parse, _progress, _signals


def train(arguments):
  """`certjax train PRESET [options]`."""
  config = _parse.parse_preset(
    configs.PRESETS, 'train', arguments, description=configs.Train.__doc__
  )
  with _joined(config) as is_main:
    run(config, quiet=not is_main)
  if is_main:
    print(f'next: certjax {_next(config)}')


def _next(config):
  from certjax.train import SELF_SUPERVISED

  if config.objective in SELF_SUPERVISED:
    return f'poison ss-dpa --dataset {config.dataset} --learner linear --features {config.out}'
  return f'certify {config.out}'


@contextlib.contextmanager
def _joined(config):
  """Among the processes of one training; yields whether this is the one that talks.

  Whoever fails alone must not wait for the others at exit: they wait for it.
  """
  from certjax import parallel

  parallel.initialize(config.coordinator, config.num_processes, config.process_id)
  try:
    yield parallel.is_main()
  except BaseException as error:
    atexit.register(parallel.leave, _exit_code(error))
    raise


def _exit_code(error):
  """What the command will exit with."""
  from certjax.cli import _main

  if isinstance(error, KeyboardInterrupt):
    return _main._INTERRUPTED
  if isinstance(error, _signals.Terminated):
    return _main._STOPPED
  return 1 if _main._one_line(error) is None else _main._USAGE


def run(config, *, quiet=False):
  """Trains what a `configs.Train` says, with a bar unless `quiet`."""
  _parse.check_seed(config.seed)
  smoothing = None
  if config.method != 'none':
    shape = data.dataset(config.dataset).shape
    smoothing = configs.smoothing_of(config.method, config.sigma, config.parameters, shape=shape)
  from certjax import parallel, train

  with contextlib.nullcontext() if quiet else _progress.bar('training', 'steps') as bar:
    state = train.run(
      config,
      smoothing,
      on_start=bar and bar.start,
      on_log=bar and (lambda step, metrics: bar.at(step, f'loss {metrics["loss"]:.4f}')),
    )
  if parallel.preempted(int(state.step)):
    raise _signals.Terminated
