"""Every threat of `certjax attack` that a small grey image allows, on one page: original, adversarial, difference.

One classifier of digits, trained without any defence; one attack a threat, at a size that a person may
judge. The picture shows images that the attack broke, so it says nothing of those that it did not: the table does.
"""

import numpy as np

from certjax import data, evaluate, report, train
from certjax.reproduce._attacked import armed, attacked, place
from certjax.reproduce._certified import images_of, trained
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, Scale
from certjax.reproduce._perceptual_training import CLEAN
from certjax.reproduce._shares import share

_DATASET, _FOLDER = 'digits', 'classifier'
_SHOWN = 6  # Columns of the picture.
ATTACKS = {
  'linf': ('pgd', None), 'l2': ('pgd', None), 'l1': ('apgd-ce', 3.0), 'l0': ('pgd0', 5),
  'patch': ('patch-pgd', 3), 'lpips': ('lpa', None), 'stadv': ('latent', None),
  'recolor': ('latent', 0.2), 'elastic': ('latent', 1.0), 'fog': ('latent', 0.5),
  'gabor': ('latent', 0.2), 'snow': ('latent', 0.5), 'composed': ('latent', 2.0),
}  # fmt: skip
"""Norm of `certjax attack` -> (attack, eps); None: the bound of the perceptual comparison."""
_NOTES = (
  'recolor, of images without colour, is one curve over their levels of grey. LPIPS is measured in the '
  'activations of the attacked network itself. JPEG is left out: its blocks need sides that are multiples of 16.',
)


def run(request, *, norms=tuple(ATTACKS), num_images=24, parameters=None, changed=None) -> Result:
  """Accuracy under each threat, and images that each broke.

  Args:
    request: a `Request` with presets and attacks.
    norms: of `ATTACKS`.
    num_images: test images, evenly spaced.
    parameters: norm -> parameters of its attack, where they are not the defaults.
    changed: fields of the preset that are other here, beside those of clean training.
  """
  classifier = trained(request, _DATASET, _FOLDER, **CLEAN, **(changed or {}))
  measure = train.load_features(request.out / _FOLDER, data.dataset(_DATASET).shape)
  images = images_of(request, _DATASET, num_images)
  rows, shown = [], []
  for norm in norms:
    name, eps = ATTACKS[norm]
    eps = request.attacks.bounds[_DATASET][norm] if eps is None else eps
    attack = armed(request, name, norm, eps, _DATASET, **(parameters or {}).get(norm, {}))
    column = attacked(
      request, _FOLDER, classifier, attack, images, measure=measure, batch_size=num_images
    )
    if not rows:
      rows.append(_row(request, 'clean accuracy', column.clean, ''))
    size = f'{norm} {eps:g} ({attack.unit})'
    rows.append(_row(request, f'accuracy under {size}', column.correct, f', {name}'))
    if picture := _shown(place(request, _FOLDER, attack) / name, f'{name}, {size}', images):
      shown.append(picture)
  return Result(tuple(rows), (), _NOTES, tuple(shown))


def _row(request, number, right, how):
  value, interval = share(int(right.sum()), len(right))
  setting = f'digits-cnn without defence, {len(right)} test images{how}'
  return Row(
    number, value, 'fraction of images', setting, _DATASET, interval=interval, seed=request.seed
  )


def _shown(directory, title, images):
  """The `report.Shown` of what an attack broke, None of no image."""
  found = evaluate.broken(directory, _SHOWN)
  if not len(found.index):
    return None
  rows = np.searchsorted(images.index, found.index)
  return report.Shown(
    title, found.index, found.labels, found.predict, data.to_float(images.images[rows]),
    found.x_adv,
  )  # fmt: skip


RECIPE = Recipe(
  name='attack-gallery',
  source='the papers of each attack (each function of certjax.attacks names its own)',
  dataset=ARITHMETIC,
  shows='every threat on one page: original, adversarial image, difference',
  scales={
    'quick': Scale(
      'a minute or two on 2 cores: one network on digits, 13 attacks on 24 images', (_DATASET,)
    )
  },
  run=run,
  left_out={'full': "a page of this library's own, beside which nothing is published"},
)
