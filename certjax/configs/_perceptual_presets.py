"""Presets of adversarial training beyond L_p: PAT, flows, recolourings, several threats at once.

Laidlaw, Singla & Feizi 2021, CIFAR-10: ResNet-50 and SGD with 5 epochs of warm-up, 100 epochs in all. And
what a comparison on digits and on MNIST needs, on 2 CPU cores.

Deviation: the rate is divided by 10 at epoch 75 alone, theirs again at 90; gradients are not cut to [-1, 1]
value by value; crops and mirror images alone, where theirs change colours and turn by 2 degrees; batches of
48, where theirs are 50.
"""

import dataclasses
import pathlib

from certjax.configs._adversarial_presets import ADVERSARIAL_PRESETS
from certjax.configs._schema import Train

_PAT_CIFAR10 = Train(
  out=pathlib.Path('runs/pat-self-cifar10'),
  dataset='cifar10',
  model='resnet50-cifar',
  method='none',
  sigma=0.0,
  objective='pat',
  objective_parameters={'eps': 0.5, 'num_steps': 10},
  augment='crop_flip',
  batch_size=48,
  num_epochs=100,
  optimizer='sgd',
  learning_rate=0.1,
  schedule='step',
  warmup_epochs=5.0,
  decay_every_epochs=70.0,  # Counted from the end of the warm-up.
  weight_decay=2e-4,
  save_every_epochs=1,
)

_BOUNDS_CIFAR10 = {
  'eps_linf': 8 / 255, 'eps_l2': 1.0, 'eps_stadv': 0.05, 'eps_recolor': 0.06, 'num_steps': 10,
}  # fmt: skip
"""Of their evaluation."""

# MNIST: L_inf as Madry et al., L2 2, PAT's flow and LPIPS of CIFAR-10. Digits: L_inf and L2 are as large a share of the
# median distance to the nearest training image of another class (.69 and 1.9; on MNIST .99 and 6.5); a flow is as
# large a share of a digit's box, which fills 20 of MNIST's 28 pixels and all 8 here; LPIPS has no scale of pixels.
PERCEPTUAL_BOUNDS = {
  'digits': {'linf': 0.2, 'l2': 0.6, 'stadv': 0.07, 'lpips': 0.5},
  'mnist': {'linf': 0.3, 'l2': 2.0, 'stadv': 0.05, 'lpips': 0.5},
}
"""Data set -> norm of `certjax attack` -> bound of the comparison, in training and attack. Chosen before any run."""

_EPOCHS_MNIST = {'l2': (10, 3), 'stadv': (5, 2), 'lpips': (6, 2)}
"""Epochs, and those of them over which the bound grows: the dearer an attack, the fewer."""


def _cifar10(name, objective, parameters):
  return dataclasses.replace(
    _PAT_CIFAR10,
    out=pathlib.Path(f'runs/{name}'),
    objective=objective,
    objective_parameters=parameters,
  )


def _mnist(name, objective, threat):
  """`madry-mnist-quick` against another threat."""
  _, madry = ADVERSARIAL_PRESETS['madry-mnist-quick']
  epochs, growing = _EPOCHS_MNIST[threat]
  return dataclasses.replace(
    madry,
    out=pathlib.Path(f'runs/{name}'),
    objective=objective,
    objective_parameters={'eps': PERCEPTUAL_BOUNDS['mnist'][threat], 'num_steps': 10},
    objective_warmup_epochs=float(growing),
    num_epochs=epochs,
  )


def _digits(name, objective, threat):
  """The 60 epochs of the preset `digits`, the bound growing over the first 10."""
  return Train(
    out=pathlib.Path(f'runs/{name}'),
    method='none',
    sigma=0.0,
    objective=objective,
    objective_parameters={'eps': PERCEPTUAL_BOUNDS['digits'][threat], 'num_steps': 10},
    objective_warmup_epochs=10.0,
  )


_ALEXNET_CIFAR10 = dataclasses.replace(
  _cifar10('alexnet-cifar10', 'clean', {}), model='alexnet-cifar', learning_rate=0.01
)
"""The network whose activations measure the distance of attacks. Deviation: its recipe is not published; the
rate is a tenth of the others', as it has no BatchNorm."""

_ALL = {
  'random': 'one of them a step',
  'average': 'the mean over four copies of each image',
  'maximum': 'the worst of four copies of each image',
}

PERCEPTUAL_PRESETS = {
  'pat-self-cifar10': (
    'Perceptual adversarial training (Laidlaw et al. 2021) on CIFAR-10, self-bounded, LPIPS 0.5: Fast-LPA of 10 '
    'steps, ResNet-50, 100 epochs: an accelerator.',
    _PAT_CIFAR10,
  ),
  'at-stadv-cifar10': (
    'Adversarial training against flows (StAdv) of 0.05 on CIFAR-10, ResNet-50, 100 epochs: an accelerator.',
    _cifar10('at-stadv-cifar10', 'adversarial-stadv', {'eps': 0.05, 'num_steps': 10}),
  ),
  'at-recolor-cifar10': (
    'Adversarial training against recolourings (ReColorAdv) of 0.06 on CIFAR-10, ResNet-50, 100 epochs: an '
    'accelerator.',
    _cifar10('at-recolor-cifar10', 'adversarial-recolor', {'eps': 0.06, 'num_steps': 10}),
  ),
  **{
    f'at-all-{variant}-cifar10': (
      f'Adversarial training on CIFAR-10 against linf 8/255, l2 1, StAdv and ReColorAdv, {what}: ResNet-50, 100 '
      f'epochs: an accelerator.',
      _cifar10(f'at-all-{variant}-cifar10', f'adversarial-{variant}', _BOUNDS_CIFAR10),
    )
    for variant, what in _ALL.items()
  },
  'alexnet-cifar10': (
    'AlexNet for 32 x 32 pixels on CIFAR-10, whose activations a perceptual distance reads: an accelerator.',
    _ALEXNET_CIFAR10,
  ),
  'pat-self-mnist-quick': (
    'Perceptual adversarial training on MNIST, self-bounded, LPIPS 0.5, 6 epochs: 10 minutes on 2 CPU '
    'cores.',
    _mnist('pat-self-mnist-quick', 'pat', 'lpips'),
  ),
  'at-l2-mnist-quick': (
    'Adversarial training on MNIST for l2 2 with PGD of 10 steps, 10 epochs: 10 minutes on 2 CPU cores.',
    _mnist('at-l2-mnist-quick', 'adversarial-l2', 'l2'),
  ),
  'at-stadv-mnist-quick': (
    'Adversarial training on MNIST against flows (StAdv) of 0.05, 0.7 pixels, 5 epochs: 10 minutes on 2 CPU '
    'cores.',
    _mnist('at-stadv-mnist-quick', 'adversarial-stadv', 'stadv'),
  ),
  'at-linf-digits': (
    'Adversarial training on digits for linf 0.2 with PGD of 10 steps, 60 epochs: a minute on 2 CPU cores.',
    _digits('at-linf-digits', 'adversarial', 'linf'),
  ),
  'at-l2-digits': (
    'Adversarial training on digits for l2 0.6 with PGD of 10 steps, 60 epochs: a minute on 2 CPU cores.',
    _digits('at-l2-digits', 'adversarial-l2', 'l2'),
  ),
  'pat-self-digits': (
    'Perceptual adversarial training on digits, self-bounded, LPIPS 0.5, 60 epochs: two minutes on 2 CPU cores; '
    '--features RUN measures by another run.',
    _digits('pat-self-digits', 'pat', 'lpips'),
  ),
}
"""Name -> (title, config)."""
