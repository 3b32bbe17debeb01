"""Presets of PatchGuard (Xiang et al. 2021): networks of small receptive field, trained for robust masking."""

import dataclasses
import pathlib

from certjax.configs._schema import Train

_IMAGENET = Train(
  out=pathlib.Path('runs/bagnet17-imagenet'),
  dataset='imagenet2012',
  model='bagnet17',
  method='none',
  sigma=0.0,
  objective='masked-features',
  objective_parameters={'window': 6},
  augment='random_resized_crop',
  batch_size=64,
  num_epochs=20,
  optimizer='sgd',
  learning_rate=1e-3,
  schedule='step',
  warmup_epochs=0.0,
  decay_every_epochs=7,
  save_every_epochs=1,
)
"""SGD .001, a tenth of it every 7 epochs; windows of 6 cells are a patch of 32 pixels.

Deviation: from random weights, where the paper goes on from those of Brendel & Bethge.
"""

_MNIST = dataclasses.replace(
  _IMAGENET,
  out=pathlib.Path('runs/patchguard-mnist-quick'),
  dataset='mnist',
  model='bagnet-small',
  objective_parameters={'window': 7},
  objective_warmup_epochs=2.0,
  augment=None,
  batch_size=128,
  num_epochs=6,
  optimizer='adam',
  learning_rate=5e-3,
  schedule='cosine',
  decay_every_epochs=None,
)
"""Windows of 7 cells are a patch of 5 pixels."""

PATCHGUARD_PRESETS = {
  'bagnet17-imagenet': (
    'PatchGuard (Xiang et al. 2021) on ImageNet: BagNet-17, without the best window of 6 x 6 cells (a '
    'patch of 32 pixels): accelerators.',
    _IMAGENET,
  ),
  'patchguard-mnist-quick': (
    'The same on MNIST for patches of 5 pixels: a small BagNet of receptive field 9, 6 epochs: 10 minutes on '
    '2 CPU cores.',
    _MNIST,
  ),
}
"""Name -> (title, config)."""
