"""Presets of training without labels, whose features SS-DPA learns from (Levine & Feizi 2021)."""

import pathlib

from certjax.configs._schema import Train

_ROTNET_MNIST = Train(
  out=pathlib.Path('runs/rotnet-mnist'),
  dataset='mnist',
  model='mnist-cnn',
  method='none',
  sigma=0.0,
  objective='rotnet',
  batch_size=128,
  num_epochs=4,
  augment='crop',
  learning_rate=1e-3,
  warmup_epochs=0.0,
  save_every_epochs=1,
)
"""Deviation: a network of two convolutions, Adam and a cosine over 4 epochs, for 2 CPU cores; the paper's is a
Network in Network of four blocks (`--model nin4`), 200 epochs, SGD .1 that falls to a fifth three times.

Shifted images: MNIST's lie around their centre of mass, half a pixel beside the centre of the image, which
gives the turn away: 99% of all turns are right within an epoch, and linear members of 50 training images then
65% of other ones, after shifts 68%."""

_SIMCLR_CIFAR10 = Train(
  out=pathlib.Path('runs/simclr-cifar10'),
  dataset='cifar10',
  model='resnet18-simclr',
  method='none',
  sigma=0.0,
  objective='simclr',
  objective_parameters={'temperature': 0.5},
  batch_size=512,
  num_epochs=1000,
  optimizer='sgd',
  learning_rate=0.5,
  warmup_epochs=0.0,
  weight_decay=1e-4,
  save_every_epochs=10,
)
"""SGD .5 along a cosine, batch 512, 1000 epochs, temperature .5."""

SELF_SUPERVISED_PRESETS = {
  'rotnet-mnist': (
    'RotNet (Gidaris et al. 2018) on MNIST, without labels, for `poison ss-dpa --features`: 4 epochs, minutes '
    'on 2 CPU cores.',
    _ROTNET_MNIST,
  ),
  'simclr-cifar10': (
    'SimCLR (Chen et al. 2020) on CIFAR-10, without labels, ResNet-18, as Levine & Feizi 2021: 1000 epochs: '
    'an accelerator.',
    _SIMCLR_CIFAR10,
  ),
}
"""Name -> (title, config)."""
