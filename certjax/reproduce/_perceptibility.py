"""Perceptibility of attacks against distances: the study's own analysis, with a SIMULATED observer.

The answers of the published study were never released, and nobody was asked here: the human column is empty.
The observer stands for how such a study is made, not for people. Shown two images, it blurs both by a mean over
3 x 3 pixels, takes the largest difference c of a value, and says "different" with probability

  lapse / 2 + (1 - lapse) [1 - (1 - alarm) exp(-(c / threshold)^2)]

LPIPS plays no part in that, nor do L2 and L_inf of the images themselves.
"""

import numpy as np
from scipy import ndimage

from certjax import data, distances, evaluate, study
from certjax.report import Curves, Line
from certjax.reproduce._attacked import armed, attacked, place
from certjax.reproduce._certified import images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Row, Scale
from certjax.reproduce._perceptual_training import PLANS, measuring, slug

ATTACKS = {'linf': 'pgd', 'l2': 'pgd', 'stadv': 'latent', 'lpips': 'fast-lpa'}
"""Norm -> attack of `certjax attack`."""
STRENGTHS = (0.5, 1.0, 2.0)
"""Times the bounds of the perceptual comparison."""
LAPSE, ALARM, THRESHOLD = 0.02, 0.05, 0.1
_OBSERVERS, _PAIRS = 10, 20
_CLASSIFIER = 'Normal'
_NOTE = (
  'SIMULATED observer: nobody looked at these images. The human column is empty: the answers of the published '
  'study were never released. `certjax study` asks people.'
)


def different(first, second) -> float:
  """Probability that the observer calls two images different.

  Args:
    first, second: uint8[H, W, C].

  Example:
    >>> black = np.zeros((4, 4, 1), np.uint8)
    >>> round(different(black, black), 4), round(different(black, black + np.uint8(51)), 4)
    (0.059, 0.9729)
  """
  blurred = [
    ndimage.uniform_filter(image / 255, 3, mode='nearest', axes=(0, 1)) for image in (first, second)
  ]
  contrast = float(np.abs(blurred[0] - blurred[1]).max())
  seen = 1 - (1 - ALARM) * np.exp(-((contrast / THRESHOLD) ** 2))
  return float(LAPSE / 2 + (1 - LAPSE) * seen)


def run(request, *, plan=None, parameters=None) -> Result:
  """Perceptibility of each attack at each strength, and its correlation with each distance.

  Args:
    request: a `Request` with presets and attacks.
    plan: a `Plan` of the perceptual comparison, whose undefended classifier is attacked; default that of
      the scale.
    parameters: norm -> parameters of its attack, where they are not the defaults.
  """
  plan = plan or PLANS[request.scale]
  conditions = conditions_of(request, plan, parameters or {})
  request.say(f'{sum(len(one.index) for one in conditions)} pairs')
  summary = simulated(conditions, seed=request.seed)
  shared = {'dataset': plan.dataset, 'seed': request.seed}
  rows = [
    Row(
      f'perceptibility of {one["attack"]} at {one["bound"]:g} ({one["unit"]})', one['perceptibility'],
      'share of answers', f'SIMULATED, {one["pairs"]} pairs, {one["answers"]} answers',
      interval=(one['lower'], one['upper']), **shared,
    )
    for one in summary['conditions']
  ]  # fmt: skip
  rows += [
    Row(
      f'{measure} correlation of perceptibility and mean {name}', summary['distances'][name][measure],
      'correlation', f'SIMULATED, over {len(summary["conditions"])} attacks and strengths', **shared,
    )
    for name in summary['distances']
    for measure in ('pearson', 'spearman')
  ]  # fmt: skip
  return Result(tuple(rows), _figure(summary), (_NOTE,))


def conditions_of(request, plan, parameters) -> list:
  """A `study.Condition` for each attack and strength that broke an image."""
  measure = measuring(request, plan)
  preset, changed = plan.classifiers[_CLASSIFIER]
  classifier = trained(request, preset, slug(_CLASSIFIER), **changed)
  images = images_of(request, plan.dataset, plan.num_images)
  lpips = distances.lpips(measure.feature_fn)
  found = []
  for norm, name in ATTACKS.items():
    for strength in STRENGTHS:
      eps = strength * request.attacks.bounds[plan.dataset][norm]
      attack = armed(request, name, norm, eps, plan.dataset, **parameters.get(norm, {}))
      attacked(request, slug(_CLASSIFIER), classifier, attack, images, measure=measure)
      broken = evaluate.broken(place(request, slug(_CLASSIFIER), attack) / name, _PAIRS)
      if len(broken.index):
        found.append(_condition(f'{name}-{norm}', attack, broken, images, lpips))
  return found


def _condition(name, attack, broken, images, lpips):
  originals = images.images[np.searchsorted(images.index, broken.index)]
  shown = np.rint(255 * broken.x_adv).astype(np.uint8)  # Distances are those of what is seen.
  pairs = list(zip(data.to_float(originals), data.to_float(shown), strict=True))
  measured = {
    norm: np.array([evaluate.host_distance(norm, *pair) for pair in pairs]) for norm in ('l2', 'linf')
  }  # fmt: skip
  measured['lpips'] = np.asarray(distances.between(lpips, originals, shown), np.float64)
  return study.Condition(
    name, attack.eps, attack.unit, broken.index, broken.labels, originals, shown, measured
  )


def simulated(conditions, *, seed, num_observers=_OBSERVERS) -> dict:
  """`study.analyse` of what simulated observers say to all batches.

  Args:
    conditions: a list of `study.Condition`.
    seed: of the batches and of the answers.
    num_observers: each answers every batch.
  """
  batches = study.compose(conditions, seed=seed)
  names = [[f'{b}-{p}' for p in range(len(batch))] for b, batch in enumerate(batches)]
  pairs = {name: pair for row, batch in zip(names, batches, strict=True) for name, pair in zip(row, batch, strict=True)}  # fmt: skip
  chances = {name: different(pair.first, pair.second) for name, pair in pairs.items()}
  rng, answers = np.random.default_rng(seed), []
  for observer in range(num_observers):
    for batch, row in enumerate(names):
      said = [
        {
          'pair': name, 'milliseconds': 0,
          'answer': 'different' if rng.random() < chances[name] else 'same',
        }
        for name in row
      ]  # fmt: skip
      answers.append({'worker': f'simulated-{observer}', 'batch': batch + 1, 'answers': said})
  key = {
    'settings': {'max_batches': len(batches), 'batches': names},
    'pairs': {name: pair.truth for name, pair in pairs.items()},
  }
  return study.analyse(answers, key)


def _figure(summary):
  """A panel a distance, a line an attack, a point a strength."""
  attacks = dict.fromkeys(one['attack'] for one in summary['conditions'])
  panels = []
  for name in summary['distances']:
    lines = []
    for attack in attacks:
      mine = [one for one in summary['conditions'] if one['attack'] == attack]
      mine.sort(key=lambda one: one['bound'])
      x = [one['distances'][name] for one in mine]
      lines.append(Line(attack, x, [one['perceptibility'] for one in mine], 'o-'))
    panels.append(Curves(name, f'mean {name}', 'called different (simulated)', tuple(lines)))
  return tuple(panels)


RECIPE = Recipe(
  name='perceptibility-vs-lpips',
  source='Laidlaw, Singla & Feizi 2021',
  dataset='imagenet100',
  shows='which distance predicts what is seen: the analysis, by a simulated observer',
  scales={
    'quick': Scale(
      'a minute on 2 cores: two small networks on digits, 12 attacks on 100 images', ('digits',)
    ),
  },
  run=run,
  left_out={'full': 'people answered (`certjax study` asks them), about networks of ImageNet-100 that no preset trains'},
)  # fmt: skip
