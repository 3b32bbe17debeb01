"""Robustness against several threat models at once, and against those not trained for.

An accuracy under attack is a mean over images; which images fall to which attack is in the matrix
`correct[N, A]`, one column an attack, from which the union is computed.
"""

import difflib
from typing import NamedTuple

import numpy as np


class Calibration(NamedTuple):
  """Six sizes of an attack, and how well a model can do against each.

  Attributes:
    sizes: in the unit of the published attack: grey levels of 0 .. 255 for norms of pixels (summed for
      L1), its own for the others.
    accuracies: the best accuracy under attack of models adversarially trained against the same attack, over
      all sizes trained for.
  """

  sizes: tuple[float, ...]
  accuracies: tuple[float, ...]


CALIBRATIONS = {
  'cifar10': {  # ResNet-56.
    'linf': Calibration((1, 2, 4, 8, 16, 32), (0.9095, 0.878, 0.8159, 0.7134, 0.465, 0.2311)),
    'l2': Calibration((40, 80, 160, 320, 640, 2560), (0.9006, 0.864, 0.796, 0.6726, 0.4989, 0.1727)),
    'l1': Calibration((195, 390, 780, 1560, 6240, 24960), (0.9223, 0.9002, 0.8324, 0.7383, 0.4736, 0.3533)),
    'jpeg-linf': Calibration(
      (0.03125, 0.0625, 0.125, 0.25, 0.5, 1), (0.8975, 0.8703, 0.8312, 0.7856, 0.6971, 0.3542)
    ),
    'jpeg-l1': Calibration((2, 8, 64, 256, 512, 1024), (0.9142, 0.8806, 0.8021, 0.6886, 0.5633, 0.3768)),
    'elastic': Calibration((0.125, 0.25, 0.5, 1, 2, 8), (0.8738, 0.8126, 0.7209, 0.5822, 0.4545, 0.2785)),
  },
  'imagenet100': {  # ResNet-50, 224 x 224.
    'linf': Calibration((1, 2, 4, 8, 16, 32), (0.8464, 0.8212, 0.7624, 0.669, 0.4006, 0.1288)),
    'l2': Calibration((150, 300, 600, 1200, 2400, 4800), (0.8502, 0.835, 0.796, 0.7256, 0.5914, 0.199)),
    'l1': Calibration(
      (9562.5, 19125, 76500, 153000, 306000, 612000), (0.8438, 0.8274, 0.7626, 0.689, 0.5644, 0.3614)
    ),
    'jpeg-linf': Calibration((0.0625, 0.125, 0.25, 0.5, 1, 2), (0.8504, 0.8324, 0.7932, 0.7276, 0.348, 0.011)),
    'jpeg-l2': Calibration((8, 16, 32, 64, 128, 256), (0.8478, 0.8246, 0.7894, 0.7232, 0.4746, 0.0344)),
    'jpeg-l1': Calibration(
      (256, 1024, 4096, 16384, 65536, 131072), (0.8476, 0.8176, 0.7622, 0.671, 0.4638, 0.4184)
    ),
    'elastic': Calibration((0.25, 0.5, 2, 4, 8, 16), (0.8588, 0.8318, 0.7806, 0.7564, 0.5704, 0.2254)),
    'fog': Calibration(
      (128, 256, 512, 2048, 4096, 8192), (0.8582, 0.8384, 0.7898, 0.684, 0.6788, 0.6466)
    ),
    'gabor': Calibration((6.25, 12.5, 25, 400, 800, 1600), (0.8402, 0.7984, 0.7984, 0.6622, 0.4468, 0.146)),
    'snow': Calibration((0.0625, 0.125, 0.25, 2, 4, 8), (0.8402, 0.8114, 0.777, 0.6562, 0.5954, 0.412)),
  },
}  # fmt: skip
"""Published constants of the UAR: data set -> attack -> `Calibration` (Kang et al. 2019, tables of the code)."""


def union_accuracy(correct):
  """Fraction of images that are classified correctly under every attack.

  Of narrow threat models, as published (L_inf, L2, JPEG, StAdv, ReColorAdv): leave out the column of a
  threat model that contains the others.

  Args:
    correct: bool[N, A], whether image i is classified correctly under attack a.

  Returns:
    float; at most the smallest accuracy of a single attack.

  Raises:
    ValueError: for another shape, or entries that are not 0 or 1.

  Example:
    >>> union_accuracy([[1, 1], [1, 0], [0, 1], [1, 1]])
    0.5
  """
  correct = np.asarray(correct)
  if correct.ndim != 2 or not correct.size:
    raise ValueError(
      f'`correct` must be [images, attacks] with at least one of each, got shape {correct.shape}: '
      f'accuracies alone do not say which images fall to which attack.'
    )
  if not np.isin(correct, (0, 1)).all():
    raise ValueError(
      '`correct` must hold 0 or 1: write labels == predictions, one column an attack.'
    )
  return float(np.mean(np.all(correct, axis=1)))


def unseen_mean(accuracies, trained_on=()):
  """Mean accuracy over the threat models that a model was not trained against.

  As published, the perceptual threat model counts as one more, with the accuracy under LPA; for a model
  trained against it (PAT) it is left out.

  Args:
    accuracies: threat model -> accuracy under attack, or bool[N] of its images.
    trained_on: names of `accuracies`, one or several.

  Returns:
    float, in the unit of the accuracies.

  Raises:
    ValueError: for a name that is not there, or when nothing is left.

  Example:
    >>> unseen_mean({'linf': 49.0, 'l2': 19.2, 'perceptual': 0.0}, 'linf')
    9.6

  References:
    Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), tables 2 and 3.
  """
  trained_on = {trained_on} if isinstance(trained_on, str) else set(trained_on)
  if unknown := trained_on - set(accuracies):
    raise ValueError(
      f'`trained_on` must name threat models among {", ".join(accuracies)}; got '
      f'{", ".join(sorted(unknown))}.'
    )
  unseen = [np.mean(value) for name, value in accuracies.items() if name not in trained_on]
  if not unseen:
    raise ValueError('`trained_on` names every threat model: none is unseen.')
  return float(np.mean(unseen))


def uar(accuracies, attack, dataset):
  """Unforeseen attack robustness: accuracies relative to those of models trained against the attack.

    UAR = sum_k accuracy(eps_k) / sum_k best(eps_k),  k = 1 .. 6

  with the sizes eps_k and the best accuracies of `CALIBRATIONS`.

  Args:
    accuracies: float[6], under the attack at its six sizes, in [0, 1].
    attack: 'linf', 'l2', 'l1', 'jpeg-linf', 'jpeg-l1', 'elastic', ...
    dataset: 'cifar10' or 'imagenet100'.

  Returns:
    float; 1 is as good as training against the attack.

  Raises:
    ValueError: for an unknown name, or anything but six accuracies in [0, 1].

  Example:
    >>> round(uar([0.85, 0.8, 0.7, 0.5, 0.2, 0.05], 'linf', 'cifar10'), 4)
    0.7725

  References:
    Kang, Sun, Hendrycks, Brown & Steinhardt 2019 (arXiv:1908.08016).
  """
  attacks = _known('dataset', dataset, CALIBRATIONS)
  calibration = _known('attack', attack, attacks)
  accuracies = np.asarray(accuracies, np.float64)
  if accuracies.shape != (6,) or not ((accuracies >= 0) & (accuracies <= 1)).all():
    raise ValueError(
      f'`accuracies` must be six numbers in [0, 1], at the sizes {calibration.sizes}; got '
      f'{accuracies.tolist()}.'
    )
  return float(accuracies.sum() / np.sum(calibration.accuracies))


def _known(name, value, table):
  if value in table:
    return table[value]
  near = difflib.get_close_matches(str(value), table, n=1)
  hint = f' Did you mean {near[0]!r}?' if near else ''
  raise ValueError(f'`{name}` must be one of {", ".join(table)}; got {value!r}.{hint}')
