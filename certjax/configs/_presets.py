"""Named presets of `certjax train`: settings are committed before a run, not after."""

import dataclasses
import math
import pathlib

from certjax.configs._adversarial_presets import ADVERSARIAL_PRESETS
from certjax.configs._levine_presets import LEVINE_PRESETS
from certjax.configs._patchguard_presets import PATCHGUARD_PRESETS
from certjax.configs._perceptual_presets import PERCEPTUAL_PRESETS
from certjax.configs._schema import Train
from certjax.configs._self_supervised_presets import SELF_SUPERVISED_PRESETS
from certjax.configs._vit_presets import VIT_PRESETS

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

_COHEN_IMAGENET = dataclasses.replace(
  _COHEN_CIFAR10,
  out=pathlib.Path('runs/cohen-imagenet'),
  dataset='imagenet2012',
  model='resnet50',
  augment='random_resized_crop',
)

_YANG = {
  'optimizer': 'nesterov', 'schedule': 'cosine', 'num_epochs': 120, 'batch_size': 64,
}  # fmt: skip
"""What Yang et al. 2020 change of Cohen's recipe, and Levine & Feizi 2021 after them."""


_LIPSCHITZ_CIFAR10 = dataclasses.replace(
  _COHEN_CIFAR10,
  method='none',
  sigma=0.0,
  objective='lipschitz',
  batch_size=128,
  num_epochs=200,
  schedule='multistep',
  decay_every_epochs=None,
  weight_decay=5e-4,
)
"""Singla & Feizi 2021: plain cross-entropy, SGD 0.1 decayed at half and three quarters."""

_LIPSCHITZ = dataclasses.replace(
  _LIPSCHITZ_CIFAR10,
  objective_parameters={'margin': math.sqrt(2), 'temperature': 0.25},
  augment=None,
  weight_decay=0.0,
)
"""Their schedule, cut short, with the margin of AOL: digits and strokes allow larger radii."""

_LIPSCHITZ_SIZES = {
  'digits': ('small', _LIPSCHITZ, {'batch_size': 64, 'num_epochs': 60, 'save_every_epochs': 10}),
  'mnist': ('tiny', _LIPSCHITZ, {'num_epochs': 5}),
  'cifar10': (None, _LIPSCHITZ_CIFAR10, {}),
}
_LIPSCHITZ_TITLES = {
  'digits': 'LipConvnet-5 of width 8 with {} on digits: two minutes on 2 CPU cores.',
  'mnist': 'LipConvnet-5 of width 4 with {} on MNIST, 5 epochs: minutes on 2 CPU cores.',
  'cifar10': 'LipConvnet-5 with {} on CIFAR-10 (Singla & Feizi 2021), 200 epochs: an accelerator.',
}


def _lipschitz(conv, dataset):
  """(title, config) of LipConvnet-5 with a convolution of `models.CONVOLUTIONS`."""
  size, base, changes = _LIPSCHITZ_SIZES[dataset]
  config = dataclasses.replace(
    base,
    out=pathlib.Path(f'runs/lipconvnet5-{conv}-{dataset}'),
    dataset=dataset,
    model='-'.join(filter(None, ('lipconvnet5', size, conv))),
    **({} if conv == 'soc' else {'weight_decay': 0.0}),  # The others have none.
    **changes,
  )
  return _LIPSCHITZ_TITLES[dataset].format(conv.upper() if conv != 'cayley' else 'Cayley'), config


def _bounds_mnist(name, objective, parameters, **changes):
  """Gowal et al.'s small network and schedule (Adam; the radius ramped up, then decays), cut short."""
  return dataclasses.replace(
    _MNIST,
    **{
      'out': pathlib.Path(f'runs/{name}'), 'model': 'ibp-small', 'method': 'none', 'sigma': 0.0,
      'objective': objective, 'objective_parameters': {'clean_share': 0.1, **parameters},
      'objective_warmup_epochs': 5.0, 'batch_size': 104, 'num_epochs': 10, 'warmup_epochs': 0.0,
      'schedule': 'multistep', **changes,
    },
  )  # fmt: skip


def _replaced_mnist(name, objective, parameters):
  """Chiang et al.'s network and optimiser, cut short.

  Deviation: the rate follows a cosine to 0; theirs halves every 10 epochs after the ramp.
  """
  return dataclasses.replace(
    _MNIST,
    out=pathlib.Path(f'runs/{name}'),
    model='mlp-255',
    method='none',
    sigma=0.0,
    objective=objective,
    objective_parameters=parameters,
    objective_warmup_epochs=3.0,
    batch_size=256,
    num_epochs=5,
    learning_rate=5e-4,
    warmup_epochs=0.0,
  )


def _kw_large(conv):
  """KWLarge as BCOP's authors trained it, and Cayley's."""
  config = dataclasses.replace(
    _LIPSCHITZ_CIFAR10,
    out=pathlib.Path(f'runs/kwlarge-{conv}-cifar10'),
    model=f'kwlarge-{conv}',
    objective='multi-margin',
    optimizer='adam',
    weight_decay=0.0,
    **{
      'bcop': {
        # Deviation: a smooth decay, where theirs steps once an epoch, by .96235.
        'learning_rate': 1e-3, 'schedule': 'exponential', 'decay_every_epochs': 60.0,
        'objective_parameters': {'margin': math.sqrt(2) * 0.5},
      },
      'cayley': {
        'learning_rate': 1e-2, 'schedule': 'triangular', 'batch_size': 256,
        'objective_parameters': {'margin': 0.5},
      },
    }[conv],
  )  # fmt: skip
  return f"KWLarge with {conv}, its authors' recipe: multi-margin loss, Adam, 200 epochs.", config


def _residual(depth, conv):
  """A ResNet with every convolution of one kind, trained as Singla & Feizi 2021 do."""
  model = {9: 'resnet9', 18: 'resnet18', 34: 'resnet34', 50: 'resnet50-cifar'}[depth]
  name = f'resnet{depth}-{conv}-cifar10'
  config = dataclasses.replace(
    _LIPSCHITZ_CIFAR10,
    out=pathlib.Path(f'runs/{name}'),
    model=model if conv == 'plain' else f'{model}-{conv}',
    objective='clean',
  )
  return f'ResNet-{depth} with {conv} convolutions; --objective adversarial for L_inf.', config


def _cifar10(name, objective, parameters, **changes):
  """SmoothAdv's schedule (150 epochs, decayed every 50), sigma 0.25, ResNet-110.

  The papers split a batch of 256 into one step for each of its m noises: 256 / m images a step, m
  copies of each.
  """
  return dataclasses.replace(
    _COHEN_CIFAR10,
    **{
      'out': pathlib.Path(f'runs/{name}'), 'batch_size': 256, 'num_epochs': 150,
      'decay_every_epochs': 50, 'objective': objective, 'objective_parameters': parameters,
      **changes,
    },
  )  # fmt: skip


PRESETS = {
  'digits': ('Digits CNN on scikit-learn digits, sigma 0.25: seconds on 2 CPU cores.', _DIGITS),
  'mnist': ('MNIST CNN with Gaussian noise: minutes on 2 CPU cores.', _MNIST),
  'cohen-cifar10': (
    'Cohen et al. 2019 on CIFAR-10: ResNet-110, SGD 0.1 decayed by 0.1 every 30 of 90 epochs, '
    'batch 400, crop and flip. Needs an accelerator; set --sigma to 0.12, 0.25, 0.5 or 1.',
    _COHEN_CIFAR10,
  ),
  'cohen-imagenet': (
    'Cohen et al. 2019 on ImageNet: ResNet-50, 90 epochs, batch 400 over all devices. Set --sigma '
    'to 0.25, 0.5 or 1; --dataset imagefolder reads a directory of class folders.',
    _COHEN_IMAGENET,
  ),
  'stability-imagenet': (
    'Stability training on ImageNet (Yang et al. 2020): ResNet-50, 30 epochs.',
    dataclasses.replace(
      _COHEN_IMAGENET,
      out=pathlib.Path('runs/stability-imagenet'),
      objective='stability',
      objective_parameters={'weight': 6.0},
      **{**_YANG, 'num_epochs': 30},
    ),
  ),
  'resnet20-cifar10': (
    "Cohen's recipe with ResNet-20, which loses almost nothing and costs a fifth.",
    dataclasses.replace(
      _COHEN_CIFAR10, out=pathlib.Path('runs/resnet20-cifar10'), model='resnet20'
    ),
  ),
  'smoothadv-cifar10': (
    'SmoothAdv (Salman et al. 2019): PGD-10, eps 1, 8 noises, warm-up over 10 epochs.',
    _cifar10(
      'smoothadv-cifar10',
      'smooth-adv-pgd',
      {'eps': 1.0, 'num_steps': 10, 'num_noises': 8},
      objective_warmup_epochs=10.0,
      batch_size=256 // 8,
    ),
  ),
  'stability-cifar10': (
    'Stability training (Yang et al. 2020): WRN-40-2, weight 6, Nesterov, cosine, 120 epochs, '
    'batch 64.',
    _cifar10('stability-cifar10', 'stability', {'weight': 6.0}, model='wrn40-2', **_YANG),
  ),
  'uniform-cifar10': (
    'Yang et al. 2020 for L1: WRN-40-2 under uniform noise; stability training by --objective.',
    _cifar10('uniform-cifar10', 'noise', {}, model='wrn40-2', method='uniform', **_YANG),
  ),
  'splitting-cifar10': (
    "Levine & Feizi 2021, exact for L1: WRN-40-2 under derandomized splitting noise, Yang's recipe.",
    _cifar10(
      'splitting-cifar10',
      'noise',
      {},
      model='wrn40-2',
      method='deterministic-splitting',
      **_YANG,
    ),
  ),
  'macer-cifar10': (
    'MACER (Zhai et al. 2020): 16 noises, beta 16, gamma 8, lambda 12; 440 epochs, batch 64.',
    _cifar10(
      'macer-cifar10',
      'macer',
      {'num_noises': 16, 'beta': 16.0, 'gamma': 8.0, 'lam': 12.0},
      learning_rate=0.01,
      decay_every_epochs=200,
      num_epochs=440,
      batch_size=64,
      weight_decay=5e-4,
    ),
  ),
  'consistency-cifar10': (
    'Consistency (Jeong & Shin 2020): 2 noises, weight 20 (sigma 0.25), eta 0.5.',
    _cifar10(
      'consistency-cifar10',
      'consistency',
      {'num_noises': 2, 'weight': 20.0, 'eta': 0.5},
      batch_size=256 // 2,
    ),
  ),
  'smoothmix-cifar10': (
    'SmoothMix (Jeong et al. 2021): 2 noises, 4 steps of 2 sigma (set step_size with sigma), eta 5.',
    _cifar10(
      'smoothmix-cifar10',
      'smooth-mix',
      {'step_size': 0.5, 'num_steps': 4, 'num_noises': 2, 'eta': 5.0},
      objective_warmup_epochs=10.0,
      batch_size=256 // 2,
    ),
  ),
  'ibp-mnist-0.1': (
    'IBP (Gowal et al. 2018) on MNIST for linf 0.1, trained at 0.2 (then certify --eps 0.1): minutes on '
    '2 CPU cores.',
    _bounds_mnist('ibp-mnist-0.1', 'ibp', {'eps': 0.2}),
  ),
  'ibp-mnist-0.3': (
    'IBP on MNIST for linf 0.3, trained at 0.33 (then certify --eps 0.3): minutes on 2 CPU cores.',
    _bounds_mnist('ibp-mnist-0.3', 'ibp', {'eps': 0.33}),
  ),
  'crown-ibp-mnist-0.1': (
    'CROWN-IBP (Zhang et al. 2020) on MNIST for linf 0.1, trained at 0.2 (then certify --eps 0.1): '
    'minutes on 2 CPU cores.',
    _bounds_mnist(
      'crown-ibp-mnist-0.1',
      'crown-ibp',
      {'eps': 0.2},
      model='kw-mnist',
      batch_size=40,
      num_epochs=2,
      objective_warmup_epochs=1.0,
    ),
  ),
  'crown-ibp-mnist-0.3': (
    'CROWN-IBP (Zhang et al. 2020) on MNIST for linf 0.3, trained at 0.33 (then certify --eps 0.3): '
    'minutes on 2 CPU cores.',
    _bounds_mnist(
      'crown-ibp-mnist-0.3',
      'crown-ibp',
      {'eps': 0.33},
      model='kw-mnist',
      batch_size=40,
      num_epochs=2,
      objective_warmup_epochs=1.0,
    ),  # fmt: skip
  ),
  'patch-ibp-mnist': (
    'IBP against 5x5 patches (Chiang et al. 2020) on MNIST, all places, one layer of 255: 5 epochs of '
    'their 100, the ramp over 3 of their 61: 5 minutes on 2 CPU cores.',
    _replaced_mnist('patch-ibp-mnist', 'patch-ibp', {'side': 5}),
  ),
  'sparse-ibp-mnist': (
    'IBP against any 4 pixels (Chiang et al. 2020) on MNIST, one layer of 255: 5 epochs of their 100, '
    'the ramp over 3 of their 61: minutes on 2 CPU cores.',
    _replaced_mnist('sparse-ibp-mnist', 'sparse-ibp', {'pixels': 4}),
  ),
  **ADVERSARIAL_PRESETS,
  **LEVINE_PRESETS,
  **PATCHGUARD_PRESETS,
  **PERCEPTUAL_PRESETS,
  **SELF_SUPERVISED_PRESETS,
  **VIT_PRESETS,
  **{
    f'{objective}-mnist-{eps}': (
      f'{title} on MNIST for linf {eps}, 70 epochs, the radius ramped up over 20: an accelerator.',
      _bounds_mnist(
        f'{objective}-mnist-{eps}',
        objective,
        {'eps': trained, 'clean_share': 0.0, **parameters},
        model=model,
        batch_size=batch,
        num_epochs=70,
        objective_warmup_epochs=20.0,
        learning_rate=5e-4,
      ),
    )
    for objective, title, eps, trained, model, batch, parameters in (
      (
        'wong-kolter',
        'Convex outer polytope (Wong & Kolter 2018)',
        0.1,
        0.1,
        'kw-mnist',
        48,
        {'num_projections': 50},
      ),
      ('diffai', 'DiffAI (Mirman et al. 2018)', 0.1, 0.1, 'mlp-5x100', 48, {}),
      ('sabr', 'SABR (Mueller et al. 2023)', 0.1, 0.2, 'ibp-medium', 256, {'lam': 0.4}),
      ('mtl-ibp', 'MTL-IBP (De Palma et al. 2024)', 0.1, 0.2, 'ibp-medium', 256, {'alpha': 0.02}),
      ('mtl-ibp', 'MTL-IBP (De Palma et al. 2024)', 0.3, 0.3, 'ibp-medium', 256, {'alpha': 0.5}),
    )
  },
  'crt-mnist': (
    'Curvature-regularised training (Singla & Feizi 2020) on MNIST for l2 1.58: 2-layer sigmoid '
    'network of width 1024; 18 of its 30 epochs: 6 minutes on 2 CPU cores.',
    dataclasses.replace(
      _MNIST,
      out=pathlib.Path('runs/crt-mnist'),
      model='mlp2-sigmoid',
      method='none',
      sigma=0.0,
      objective='crt',
      objective_parameters={'gamma': 0.01, 'eps': 1.58},
      batch_size=64,
      num_epochs=18,
      warmup_epochs=0.0,
    ),
  ),
  **{
    f'lipconvnet5-{conv}-{dataset}': _lipschitz(conv, dataset)
    for dataset in _LIPSCHITZ_SIZES
    for conv in ('soc', 'bcop', 'cayley')
  },
  **{f'kwlarge-{conv}-cifar10': _kw_large(conv) for conv in ('bcop', 'cayley')},
  **{
    f'resnet{depth}-{conv}-cifar10': _residual(depth, conv)
    for depth in (9, 18, 34, 50)
    for conv in ('plain', 'soc', 'bcop')
  },
}
