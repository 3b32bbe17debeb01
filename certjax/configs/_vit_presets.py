"""Presets of smoothed vision transformers (Salman et al. 2022) and of masks (PatchCleanser)."""

import dataclasses
import pathlib

from certjax.configs._schema import Train

_SMOOTHED_CIFAR10 = Train(
  out=pathlib.Path('runs/smoothed-vit-cifar10'),
  dataset='cifar10',
  model='vit-tiny-cifar-band4',
  method='bands',
  sigma=0.0,
  parameters={'width': 4.0, 'null': 'mask', 'top_one': 1.0},
  batch_size=128,
  num_epochs=30,
  augment='crop_flip',
  optimizer='sgd',
  learning_rate=0.01,
  schedule='step',
  warmup_epochs=0.0,
  decay_every_epochs=10,
  weight_decay=5e-4,
  save_every_epochs=1,
)
"""SGD .01, a tenth of it every 10 epochs.

Deviation: images of 32 pixels in tokens of 4, from random weights; theirs are resized to 224, in tokens of
16, and start from ImageNet's weights.
"""

_SMOOTHED_MNIST = dataclasses.replace(
  _SMOOTHED_CIFAR10,
  out=pathlib.Path('runs/smoothed-vit-mnist-quick'),
  dataset='mnist',
  model='vit-mnist-band4',
  num_epochs=8,
  augment=None,
  optimizer='adam',
  learning_rate=2e-3,
  schedule='cosine',
  warmup_epochs=1.0,
  decay_every_epochs=None,
  weight_decay=0.0,
)

_MASKS_MNIST = dataclasses.replace(
  _SMOOTHED_MNIST,
  out=pathlib.Path('runs/masks-mnist-quick'),
  model='mnist-cnn',
  method='masks',
  parameters={'patch': 5.0},
  num_epochs=5,
  learning_rate=1e-3,
  warmup_epochs=0.0,
)

VIT_PRESETS = {
  'smoothed-vit-cifar10': (
    'Smoothed vision transformer (Salman et al. 2022) on CIFAR-10: ViT-Tiny on bands of 4 columns, hidden '
    'tokens dropped, 30 epochs: an accelerator.',
    _SMOOTHED_CIFAR10,
  ),
  'smoothed-vit-mnist-quick': (
    'Smoothed vision transformer of width 64 on MNIST, 8 epochs, with Adam and a cosine: 5 minutes on 2 CPU '
    'cores.',
    _SMOOTHED_MNIST,
  ),
  'masks-mnist-quick': (
    'PatchCleanser (Xiang et al. 2022) against 5x5 patches on MNIST: random pairs of its masks in training, '
    '5 epochs: 2 minutes on 2 CPU cores.',
    _MASKS_MNIST,
  ),
}
"""Name -> (title, config)."""
