"""Training sets that an adversary has touched: who sees which sample, and flipped labels."""

from certjax.poisoning._label_flips import (
  flip_radius,
  ridge_smoothed_certificate,
  ridge_weights,
  score_tail,
)
from certjax.poisoning._partitions import (
  Partition,
  blake2,
  by_position,
  draw_shifts,
  partition,
  pixel_sum,
  sorted_unlabelled,
)

__all__ = [
  'Partition',
  'blake2',
  'by_position',
  'draw_shifts',
  'flip_radius',
  'partition',
  'pixel_sum',
  'ridge_smoothed_certificate',
  'ridge_weights',
  'score_tail',
  'sorted_unlabelled',
]
