"""Named presets of `certjax train`: settings are committed before a run, not after."""

import dataclasses
import pathlib

from certjax.configs._schema import Train

_DIGITS = Train(out=pathlib.Path('runs/digits'), dataset='digits')

_MNIST = Train(
  out=pathlib.Path('runs/mnist'),
  dataset='mnist',
  model='mnist-cnn',
  batch_size=128,
  num_epochs=15,
  learning_rate=1e-3,
  save_every_epochs=5,
)

_COHEN_CIFAR10 = Train(
  out=pathlib.Path('runs/cohen-cifar10'),
  dataset='cifar10',
  model='resnet110',
  batch_size=400,
  num_epochs=90,
  augment='crop_flip',
  optimizer='sgd',
  learning_rate=0.1,
  schedule='step',
  warmup_epochs=0.0,
  decay_every_epochs=30,
  weight_decay=1e-4,
  save_every_epochs=1,
)

PRESETS = {
  'digits': ('Digits CNN on scikit-learn digits, sigma 0.25: seconds on 2 CPU cores.', _DIGITS),
  'mnist': ('MNIST CNN with Gaussian noise: minutes on 2 CPU cores.', _MNIST),
  'cohen-cifar10': (
    'Cohen et al. 2019 on CIFAR-10: ResNet-110, SGD 0.1 decayed by 0.1 every 30 of 90 epochs, '
    'batch 400, crop and flip. Needs an accelerator; set --sigma to 0.12, 0.25, 0.5 or 1.',
    _COHEN_CIFAR10,
  ),
  'resnet20-cifar10': (
    "Cohen's recipe with ResNet-20, which loses almost nothing and costs a fifth.",
    dataclasses.replace(
      _COHEN_CIFAR10, out=pathlib.Path('runs/resnet20-cifar10'), model='resnet20'
    ),
  ),
}
