"""Heuristic defences: wrappers `model_fn -> model_fn`, and transforms that go before a model.

None of them proves anything, and all were broken; each file says how.
"""

from certjax.defenses._backward import bpda
from certjax.defenses._binarize import binarize
from certjax.defenses._input_transforms import bit_depth, jpeg, total_variation
from certjax.defenses._pruning import prune_activations, pruned
from certjax.defenses._resize_pad import resize_pad
from certjax.defenses._thermometer import soft_thermometer, thermometer
from certjax.defenses._transformed import randomized, transformed

__all__ = [
  'binarize',
  'bit_depth',
  'bpda',
  'jpeg',
  'prune_activations',
  'pruned',
  'randomized',
  'resize_pad',
  'soft_thermometer',
  'thermometer',
  'total_variation',
  'transformed',
]
