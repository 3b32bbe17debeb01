"""One training step for every method; methods differ in `perturb` and `loss`."""

from certjax.train._checkpoint import latest_step, restore, save
from certjax.train._loop import fit
from certjax.train._losses import cross_entropy
from certjax.train._metrics import open_metrics
from certjax.train._optimizer import optimizer, schedule
from certjax.train._perturb import adversarial
from certjax.train._run import TrainedRun, load_run, read_config, run
from certjax.train._step import TrainState, init_state, make_step

__all__ = [
  'TrainState',
  'TrainedRun',
  'adversarial',
  'cross_entropy',
  'fit',
  'init_state',
  'latest_step',
  'load_run',
  'make_step',
  'open_metrics',
  'optimizer',
  'read_config',
  'restore',
  'run',
  'save',
  'schedule',
]
