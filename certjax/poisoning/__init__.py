"""Training sets that an adversary has touched: who sees which sample, ensembles, flipped labels."""

from certjax.poisoning._attacks import add_trigger, flip_labels, insert, insert_backdoor, remove
from certjax.poisoning._clusters import two_clusters
from certjax.poisoning._cnn import cnn
from certjax.poisoning._ensemble import (
  Ensemble,
  default_capacity,
  first_choices,
  preferences,
  train_ensemble,
  votes,
)
from certjax.poisoning._greedy_attack import Poisoned, greedy_attack
from certjax.poisoning._label_flips import (
  flip_radius,
  ridge_smoothed_certificate,
  ridge_weights,
  score_tail,
)
from certjax.poisoning._learner import Learner
from certjax.poisoning._learners import mlp, nearest_neighbour
from certjax.poisoning._linear import linear
from certjax.poisoning._nin import nin
from certjax.poisoning._partitions import (
  Partition,
  blake2,
  by_position,
  draw_shifts,
  partition,
  pixel_sum,
  sorted_unlabelled,
)
from certjax.poisoning._registry import LEARNERS, build_learner, learner_parameters

__all__ = [
  'LEARNERS',
  'Ensemble',
  'Learner',
  'Partition',
  'Poisoned',
  'add_trigger',
  'blake2',
  'build_learner',
  'by_position',
  'cnn',
  'default_capacity',
  'draw_shifts',
  'first_choices',
  'flip_labels',
  'flip_radius',
  'greedy_attack',
  'insert',
  'insert_backdoor',
  'learner_parameters',
  'linear',
  'mlp',
  'nearest_neighbour',
  'nin',
  'partition',
  'pixel_sum',
  'preferences',
  'remove',
  'ridge_smoothed_certificate',
  'ridge_weights',
  'score_tail',
  'sorted_unlabelled',
  'train_ensemble',
  'two_clusters',
  'votes',
]
