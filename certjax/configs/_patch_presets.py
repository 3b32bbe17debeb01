"""Presets against patches by derandomized smoothing."""

import dataclasses
import pathlib

from certjax.configs._schema import Train

_BANDS_MNIST = Train(
  out=pathlib.Path('runs/bands-mnist'),
  dataset='mnist',
  model='ablation-cnn',
  method='bands',
  sigma=0.0,
  parameters={'width': 2.0},
  batch_size=128,
  num_epochs=400,
  optimizer='sgd',
  learning_rate=0.01,
  schedule='step',
  warmup_epochs=0.0,
  decay_every_epochs=200,
  weight_decay=5e-4,
  save_every_epochs=5,
)
"""Levine & Feizi's recipe: SGD .01, then .001 from half of the epochs on.

Deviation: each image of a batch is shown through a band of its own; theirs share one.
"""

PATCH_PRESETS = {
  'bands-mnist': (
    'Derandomized smoothing against patches (Levine & Feizi 2020) on MNIST: bands of 2 columns '
    '(another width: --parameters width 4), their network and 400 epochs: a night on 2 CPU cores.',
    _BANDS_MNIST,
  ),
  'bands-mnist-quick': (
    'The same in 8 epochs, with Adam and a cosine: 10 minutes on 2 CPU cores.',
    dataclasses.replace(
      _BANDS_MNIST,
      out=pathlib.Path('runs/bands-mnist-quick'),
      num_epochs=8,
      optimizer='adam',
      learning_rate=1e-3,
      schedule='cosine',
      decay_every_epochs=None,
      weight_decay=0.0,
      save_every_epochs=1,
    ),
  ),
}
