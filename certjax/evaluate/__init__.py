"""A method run over a data set, and the checks that distrust it."""

from certjax.evaluate._accuracy import accuracy, robust_accuracy, survivors
from certjax.evaluate._adversarials import (
  check_adversarials,
  host_distance,
  read_adversarials,
  write_adversarials,
)
from certjax.evaluate._attack import Attacked, Outcome, attacked
from certjax.evaluate._attack_report import attack_markdown, attack_summary, write_attack_report
from certjax.evaluate._bounded import (
  BoundedNetwork,
  bounded_certificate,
  bounded_network,
  bounded_records,
)
from certjax.evaluate._broken import Broken, broken
from certjax.evaluate._certification import (
  certified_records,
  check_arguments,
  clean_certificate,
  clean_network,
  clean_records,
  enumerated_records,
  is_clean,
  is_exact,
  predicted_records,
  sequential_records,
)
from certjax.evaluate._curvature import (
  CurvedNetwork,
  curved_certificate,
  curved_network,
  curved_records,
)
from certjax.evaluate._distrust import Flag, distrust_flags, square_flag
from certjax.evaluate._frozen_features import FrozenFeatures, frozen_features
from certjax.evaluate._header import header, program
from certjax.evaluate._margin import (
  ExactNetwork,
  SmoothHead,
  exact_network,
  margin_certificate,
  margin_records,
)
from certjax.evaluate._masked import (
  MaskedNetwork,
  masked_certificate,
  masked_network,
  masked_records,
)
from certjax.evaluate._pointwise_votes import (
  Confirmed,
  median_changed,
  pointwise_of_votes,
  sparsest_confirmed,
)
from certjax.evaluate._poisoning import PoisonPlan, poison_plan, poison_records, train_members
from certjax.evaluate._recorded_votes import outcome_of, recertified
from certjax.evaluate._rounding import Rounding, rounding_bounds
from certjax.evaluate._sanity import sanity_warnings
from certjax.evaluate._stored_sets import (
  StoredSet,
  latent_search,
  latent_set,
  perceptual_set,
  perceptual_target,
  stored_set,
)
from certjax.evaluate._targets import Target, plain_target, smoothed_target, views_target

__all__ = [
  'Attacked',
  'BoundedNetwork',
  'Broken',
  'Confirmed',
  'CurvedNetwork',
  'ExactNetwork',
  'Flag',
  'FrozenFeatures',
  'MaskedNetwork',
  'Outcome',
  'PoisonPlan',
  'Rounding',
  'SmoothHead',
  'StoredSet',
  'Target',
  'accuracy',
  'attack_markdown',
  'attack_summary',
  'attacked',
  'bounded_certificate',
  'bounded_network',
  'bounded_records',
  'broken',
  'certified_records',
  'check_adversarials',
  'check_arguments',
  'clean_certificate',
  'clean_network',
  'clean_records',
  'curved_certificate',
  'curved_network',
  'curved_records',
  'distrust_flags',
  'enumerated_records',
  'exact_network',
  'frozen_features',
  'header',
  'host_distance',
  'is_clean',
  'is_exact',
  'latent_search',
  'latent_set',
  'margin_certificate',
  'margin_records',
  'masked_certificate',
  'masked_network',
  'masked_records',
  'median_changed',
  'outcome_of',
  'perceptual_set',
  'perceptual_target',
  'plain_target',
  'pointwise_of_votes',
  'poison_plan',
  'poison_records',
  'predicted_records',
  'program',
  'read_adversarials',
  'recertified',
  'robust_accuracy',
  'rounding_bounds',
  'sanity_warnings',
  'sequential_records',
  'smoothed_target',
  'sparsest_confirmed',
  'square_flag',
  'stored_set',
  'survivors',
  'train_members',
  'views_target',
  'write_adversarials',
  'write_attack_report',
]
