"""Presets of adversarial training: the recipes of the papers' own code, where the numbers come from.

Madry et al. 2018 (their challenges), TRADES (Zhang et al. 2019), MART (Wang et al. 2020), Free (Shafahi et al.
2019), Fast (Wong et al. 2020), Rice et al. 2020, AWP (Wu et al. 2020). What all of them do otherwise:

Deviation: images are normalised by the model, where TRADES, MART and Free take them as they are (Madry's
CIFAR-10 standardises each), and weight decay is on every parameter, where Madry and Free spare BatchNorm's.
"""

import dataclasses
import pathlib

from certjax.configs._schema import Train

_EPS = 8 / 255

_MADRY_CIFAR10 = Train(
  out=pathlib.Path('runs/madry-cifar10'),
  dataset='cifar10',
  model='wrn34-10',
  method='none',
  sigma=0.0,
  objective='adversarial',
  objective_parameters={'eps': _EPS, 'step_size': 2 / 255, 'num_steps': 10},
  augment='crop_flip',
  batch_size=128,
  num_epochs=205,
  optimizer='sgd',
  learning_rate=0.1,
  schedule='multistep',
  warmup_epochs=0.0,
  weight_decay=2e-4,
  save_every_epochs=1,
)
"""80,000 steps of 128 images, SGD .1 decayed at 40,000 and 60,000; their w32-10 is this WRN-34-10.

Deviation: ReLU, where theirs leaks by .1.
"""

_MADRY_MNIST = dataclasses.replace(
  _MADRY_CIFAR10,
  out=pathlib.Path('runs/madry-mnist'),
  dataset='mnist',
  model='mnist-cnn',
  objective_parameters={'eps': 0.3, 'step_size': 0.01, 'num_steps': 40},
  augment=None,
  batch_size=48,
  num_epochs=80,
  optimizer='adam',
  learning_rate=1e-4,
  schedule='constant',
  weight_decay=0.0,
)
"""100,000 steps of Adam at 1e-4.

Deviation: the network of Wong & Kolter, two strided convolutions of width 16 and 32 and a layer of 100, where
theirs pools, with widths 32 and 64 and a layer of 1024; batches of 48, where theirs are 50.
"""

_MADRY_MNIST_QUICK = dataclasses.replace(
  _MADRY_MNIST,
  out=pathlib.Path('runs/madry-mnist-quick'),
  objective_parameters={'eps': 0.3, 'step_size': 0.075, 'num_steps': 10},
  objective_warmup_epochs=4.0,
  batch_size=128,
  num_epochs=12,
  learning_rate=2e-3,
  schedule='cosine',
)
"""Longer steps, fewer of them, a larger rate, and a ball that grows in the first epochs."""

_RICE_CIFAR10 = dataclasses.replace(
  _MADRY_CIFAR10,
  out=pathlib.Path('runs/madry-resnet18-cifar10'),
  model='resnet18',
  num_epochs=200,
  weight_decay=5e-4,
)
"""Rice et al. 2020, and AT-AWP after them: decayed at half and three quarters of 200 epochs.

Deviation: ResNet-18, where theirs is the pre-activation one.
"""

_TRADES_CIFAR10 = dataclasses.replace(
  _MADRY_CIFAR10,
  out=pathlib.Path('runs/trades-cifar10'),
  objective='trades',
  objective_parameters={'eps': 0.031, 'step_size': 0.007, 'num_steps': 10, 'beta': 6.0},
  num_epochs=76,
  schedule='step',
  decay_every_epochs=74,  # "From epoch 75 on", counted from 1.
)

_TRADES_MNIST = dataclasses.replace(
  _MADRY_MNIST,
  out=pathlib.Path('runs/trades-mnist'),
  objective='trades',
  objective_parameters={'eps': 0.3, 'step_size': 0.01, 'num_steps': 40, 'beta': 1.0},
  batch_size=128,
  num_epochs=100,
  optimizer='sgd',
  learning_rate=0.01,
  schedule='multistep',
)
"""Deviation: decayed after 50 and 75 epochs, theirs after 54, 74 and 89; Wong & Kolter's network."""

_MART_CIFAR10 = dataclasses.replace(
  _MADRY_CIFAR10,
  out=pathlib.Path('runs/mart-cifar10'),
  model='resnet18',
  objective='mart',
  objective_parameters={'eps': 0.031, 'step_size': 0.007, 'num_steps': 10, 'lam': 5.0},
  num_epochs=120,
  learning_rate=0.01,
  weight_decay=3.5e-3,
)
"""Deviation: decayed after 60 and 90 of 120 epochs, theirs after 74, 89 and 99."""

_FAST_CIFAR10 = dataclasses.replace(
  _RICE_CIFAR10,
  out=pathlib.Path('runs/fast-cifar10'),
  objective='fast-adversarial',
  objective_parameters={'eps': _EPS, 'step_size': 10 / 255},
  num_epochs=15,
  learning_rate=0.2,
  schedule='cyclic',
)

_FREE_CIFAR10 = dataclasses.replace(
  _MADRY_CIFAR10,
  out=pathlib.Path('runs/free-cifar10'),
  objective='free-adversarial',
  objective_parameters={'eps': _EPS, 'num_replays': 8},
  num_epochs=26,
)
"""Madry's 80,000 updates, 8 on each minibatch."""

_AWP_CIFAR10 = dataclasses.replace(
  _RICE_CIFAR10,
  out=pathlib.Path('runs/awp-cifar10'),
  objective='adversarial-awp',
  objective_parameters={**_MADRY_CIFAR10.objective_parameters, 'gamma': 0.01},
)

_TRADES_AWP_CIFAR10 = dataclasses.replace(
  _AWP_CIFAR10,
  out=pathlib.Path('runs/trades-awp-cifar10'),
  model='wrn34-10',
  objective='trades-awp',
  objective_parameters={**_MADRY_CIFAR10.objective_parameters, 'beta': 6.0, 'gamma': 5e-3},
)
"""Deviation: weights are perturbed from the first epoch on, theirs from the tenth."""

ADVERSARIAL_PRESETS = {
  'madry-mnist': (
    'Adversarial training (Madry et al. 2018) on MNIST for linf 0.3: PGD of 40 steps of 0.01, Adam 1e-4, 80 '
    'epochs: an accelerator.',
    _MADRY_MNIST,
  ),
  'madry-mnist-quick': (
    'Adversarial training on MNIST for linf 0.3 with PGD of 10 steps, 12 epochs, the ball growing over 4: 10 '
    'minutes on 2 CPU cores.',
    _MADRY_MNIST_QUICK,
  ),
  'madry-cifar10': (
    'Adversarial training (Madry et al. 2018) on CIFAR-10 for linf 8/255: PGD of 10 steps, WRN-34-10, SGD 0.1, '
    '205 epochs: an accelerator.',
    _MADRY_CIFAR10,
  ),
  'madry-resnet18-cifar10': (
    'Adversarial training on CIFAR-10 for linf 8/255 with ResNet-18, 200 epochs, weight decay 5e-4 (Rice et al. '
    '2020): an accelerator.',
    _RICE_CIFAR10,
  ),
  'trades-mnist': (
    'TRADES (Zhang et al. 2019) on MNIST for linf 0.3: beta 1, PGD of 40 steps, SGD 0.01, 100 epochs: an '
    'accelerator.',
    _TRADES_MNIST,
  ),
  'trades-cifar10': (
    'TRADES (Zhang et al. 2019) on CIFAR-10 for linf 0.031: beta 6, WRN-34-10, 76 epochs, decayed at 75: an '
    'accelerator.',
    _TRADES_CIFAR10,
  ),
  'mart-cifar10': (
    'MART (Wang et al. 2020) on CIFAR-10 for linf 0.031: lambda 5, ResNet-18, 120 epochs: an accelerator.',
    _MART_CIFAR10,
  ),
  'fast-cifar10': (
    'Fast adversarial training (Wong et al. 2020) on CIFAR-10 for linf 8/255: one step of 10/255 from a random '
    'start, ResNet-18, 15 epochs, one cycle to 0.2: an accelerator.',
    _FAST_CIFAR10,
  ),
  'free-cifar10': (
    'Adversarial training for free (Shafahi et al. 2019) on CIFAR-10 for linf 8/255: WRN-34-10, 26 epochs of 8 '
    'updates a minibatch: an accelerator.',
    _FREE_CIFAR10,
  ),
  'awp-cifar10': (
    'Adversarial weight perturbation (Wu et al. 2020) on CIFAR-10: gamma 0.01, ResNet-18, 200 epochs: an '
    'accelerator.',
    _AWP_CIFAR10,
  ),
  'trades-awp-cifar10': (
    'TRADES with adversarial weight perturbation (Wu et al. 2020) on CIFAR-10: gamma 0.005, WRN-34-10, 200 '
    'epochs: an accelerator.',
    _TRADES_AWP_CIFAR10,
  ),
}
"""Name -> (title, config)."""
