"""One training step for every method; methods differ in `perturb` and `loss`."""

from certjax.train._adversarial import adversarial_training, clean, fast_adversarial
from certjax.train._attack_and_bound import mtl_ibp, sabr
from certjax.train._awp import PerturbedWeights, awp
from certjax.train._certified import crown_ibp, diffai, ibp, wong_kolter
from certjax.train._checkpoint import latest_step, restore, save
from certjax.train._consistency import consistency
from certjax.train._copies import Objective, augmented
from certjax.train._curvature import crt
from certjax.train._free import Replayed, Replays, free_adversarial
from certjax.train._lipschitz import lipschitz, multi_margin
from certjax.train._load import Measure, TrainedRun, load_features, load_run, read_config
from certjax.train._loop import fit
from certjax.train._losses import cross_entropy
from certjax.train._macer import macer
from certjax.train._mart import mart
from certjax.train._masked_features import masked_features
from certjax.train._metrics import open_metrics
from certjax.train._objectives import ATTACKED, CERTIFIED, OBJECTIVES, REPLACED, objective
from certjax.train._optimizer import optimizer, schedule
from certjax.train._pat import pat
from certjax.train._patch import patch_ibp, sparse_ibp
from certjax.train._perturb import adversarial
from certjax.train._radius import DEFAULT_EPS, smooth_ramp
from certjax.train._run import run
from certjax.train._self_supervised import SELF_SUPERVISED, nt_xent, num_outputs, rotnet, simclr
from certjax.train._smoothadv import smooth_adv
from certjax.train._smoothmix import Mixed, smooth_mix
from certjax.train._stability import stability
from certjax.train._step import TrainState, init_state, make_step
from certjax.train._threat_models import (
  THREAT_MODELS,
  adversarial_all,
  adversarial_composed,
  trades_composed,
)
from certjax.train._trades import trades
from certjax.train._views import (
  random_colours,
  random_crop,
  random_flip,
  random_resized_crop,
  rotations,
)

__all__ = [
  'ATTACKED',
  'CERTIFIED',
  'DEFAULT_EPS',
  'OBJECTIVES',
  'Measure',
  'Mixed',
  'REPLACED',
  'Objective',
  'PerturbedWeights',
  'Replayed',
  'Replays',
  'SELF_SUPERVISED',
  'THREAT_MODELS',
  'TrainState',
  'TrainedRun',
  'adversarial',
  'adversarial_all',
  'adversarial_composed',
  'adversarial_training',
  'augmented',
  'awp',
  'clean',
  'consistency',
  'crown_ibp',
  'cross_entropy',
  'crt',
  'diffai',
  'fast_adversarial',
  'fit',
  'free_adversarial',
  'ibp',
  'init_state',
  'latest_step',
  'lipschitz',
  'load_features',
  'load_run',
  'macer',
  'make_step',
  'mart',
  'masked_features',
  'mtl_ibp',
  'multi_margin',
  'nt_xent',
  'num_outputs',
  'objective',
  'open_metrics',
  'optimizer',
  'pat',
  'patch_ibp',
  'random_colours',
  'random_crop',
  'random_flip',
  'random_resized_crop',
  'read_config',
  'restore',
  'rotations',
  'rotnet',
  'run',
  'sabr',
  'save',
  'schedule',
  'simclr',
  'smooth_adv',
  'smooth_mix',
  'smooth_ramp',
  'sparse_ibp',
  'stability',
  'trades',
  'trades_composed',
  'wong_kolter',
]
