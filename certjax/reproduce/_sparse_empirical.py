"""How many pixels an adversary must change: the lecture's medians of Pointwise, beside certificates.

Pointwise asks for decisions alone, so that randomized ablation and networks answer alike. What it finds is an
upper bound of the smallest number of pixels, the certificate of ablation a lower bound.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from certjax import attacks, data, defenses, evaluate, models, smoothing, train
from certjax.report import Curves, Line
from certjax.reproduce._ablation import BEST, BEST_PLANS, certified_under
from certjax.reproduce._ablation import Plan as _AblationPlan
from certjax.reproduce._certified import images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Row, Scale
from certjax.reproduce._published import published
from certjax.reproduce._shares import median_row

_EPS = 0.3  # Of the training against L_inf.
_NOTE = (
  'Pointwise gives an upper bound of the smallest number of pixels, on few images and below the full scale with fewer noises '
  'than published (10 repeats of 1,000). Of ablation, new votes judge the points of the search, and only those that they confirm count. Not '
  'run: the two models of Schott et al. that classify by synthesis (published: 22, binarized 16.5).'
)


class Plan(NamedTuple):
  """What a scale trains and attacks.

  Attributes:
    dataset: name of the data set.
    num_epochs: of the networks without noise.
    warmup_epochs: over which the radius of the adversarial training grows.
    num_images: test images that are attacked, evenly spaced.
    search: of `attacks.pointwise_search`.
    num_votes, num_judges: of `evaluate.pointwise_of_votes`.
    ablation: an `_ablation.Plan` of one k.
    linf: preset of the adversarial training, or None: the other network's, with a radius that grows.
    is_published: whether this is the published search.
  """

  dataset: str
  num_epochs: int
  warmup_epochs: int
  num_images: int
  search: dict
  num_votes: int
  num_judges: int
  ablation: _AblationPlan
  linf: str | None = None
  is_published: bool = False


_SEARCH = {'num_repeats': 3, 'num_noises': 20}
PLANS = {
  'quick': Plan('digits', 60, 20, 20, _SEARCH, 200, 2_000, BEST_PLANS['quick']),
  'reduced': Plan('mnist', 5, 2, 20, _SEARCH, 500, 10_000, BEST_PLANS['reduced']),
  'full': Plan(
    'mnist', 15, 0, 100, {'num_repeats': 10, 'num_noises': 1_000}, 10_000, 10_000, BEST_PLANS['full'],
    'madry-mnist', is_published=True,
  ),
}  # fmt: skip
_SAME_CLASSIFIERS = ('nearest neighbour',)
"""Those of the published table: networks here are others than theirs, and new votes judge what ablation answers."""


def run(request, *, plan=None) -> Result:
  """Medians of every classifier; of ablation, the certificates too.

  Args:
    request: a `Request`, whose presets hold 'mnist' and that of ablation.
    plan: default that of the scale.
  """
  plan = plan or PLANS[request.scale]
  images = images_of(request, plan.dataset, plan.num_images)
  x, y, rows, lines = data.to_float(images.images), images.labels, [], []
  how = f'{len(y)} test images, {plan.search["num_repeats"]} repeats of {plan.search["num_noises"]}'
  for name, make in _classifiers(request, plan).items():
    found = searched(make(), x, y, plan.search, request.seed)
    request.say(f'attacked: {name}')
    rows += _rows(
      request, plan, name, found, f'{how} noises', plan.is_published and name in _SAME_CLASSIFIERS
    )
    lines.append(_line(name, found))
  shape = x.shape[1:]
  (keep,) = plan.ablation.shown.values()
  law = smoothing.ablation(keep=keep, shape=shape)
  every = images_of(request, plan.dataset, plan.ablation.num_images)
  proved = certified_under(
    request, plan.ablation, every, 'ablation', law, 'ablation', {'keep': keep}
  )
  model_fn = train.load_run(request.out / 'ablation').model_fn
  found = evaluate.pointwise_of_votes(
    model_fn, law, x, y, num_votes=plan.num_votes, num_judges=plan.num_judges,
    alpha=plan.ablation.sampling.alpha, seed=request.seed, **plan.search,
  )  # fmt: skip
  votes = f'{how} noises, k = {keep}, {plan.num_votes:,} votes, judged by {plan.num_judges:,}'
  rows += _rows(request, plan, 'randomized ablation', found.confirmed, votes)
  shared = {'dataset': plan.dataset, 'seed': request.seed}
  rows.append(Row(
    'median changed pixels, randomized ablation, before new votes judge', _finite(found.search),
    'pixels', votes, **shared,
  ))  # fmt: skip
  rows.append(median_row(
    proved, 'pixels', number='median certified pixels, randomized ablation',
    setting=f'k = {keep}, {len(proved.index)} test images, {plan.ablation.sampling}',
    published=published('ablation-median', f'k = {BEST}'), comparable=plan.ablation.is_published, **shared,
  ))  # fmt: skip
  lines.append(_line('randomized ablation', found.confirmed))
  figure = Curves(plan.dataset, 'changed pixels', 'share of images turned', tuple(lines))
  return Result(tuple(rows), (figure,), (_NOTE,))


def searched(model_fn, x, y, search, seed):
  """The `attacks.Sparse` of a function of the image."""
  predict = jax.jit(lambda model_fn, x: model_fn(x).argmax(axis=1))
  model_fn = jax.tree_util.Partial(model_fn)
  wrong = lambda x: np.asarray(predict(model_fn, x)) != y
  return attacks.pointwise_search(jax.random.key(seed), wrong, x, **search)


def _classifiers(request, plan):
  """name -> what makes the model_fn, of those that are functions of the image."""
  network = functools.partial(
    trained, request, 'mnist', dataset=plan.dataset, method='none', sigma=0.0,
    num_epochs=plan.num_epochs, save_every_epochs=plan.num_epochs,
  )  # fmt: skip
  cnn = functools.cache(lambda: network(where='cnn', objective='clean').model_fn)

  def neighbours():
    known = data.load(plan.dataset, 'train', data_dir=request.data_dir)
    classes = data.dataset(plan.dataset).num_classes
    return models.nearest_neighbour(known.images, known.labels, num_classes=classes)

  def linf():
    if plan.linf is not None:
      return trained(request, plan.linf, 'linf').model_fn
    return network(
      where='linf', objective='adversarial', objective_parameters={'eps': _EPS},
      objective_warmup_epochs=float(plan.warmup_epochs),
    ).model_fn  # fmt: skip

  return {
    'CNN': cnn,
    'binarized CNN': lambda: defenses.binarize(cnn()),
    'nearest neighbour': neighbours,
    'L_inf trained CNN': linf,
  }


def _rows(request, plan, name, found, setting, comparable=False):
  """The median of one classifier, and how many images were not turned or wrong at once."""
  shared = {'setting': setting, 'dataset': plan.dataset, 'seed': request.seed}
  wrong = found.success & (found.num_changed == 0)
  return [
    Row(
      f'median changed pixels, {name}', _finite(found), 'pixels',
      published=published('pointwise-mnist', name), comparable=comparable, **shared,
    ),
    Row(f'misclassified as they are, {name}', float(wrong.sum()), 'images', **shared),
    Row(f'not turned, {name}', float((~found.success).sum()), 'images', **shared),
  ]  # fmt: skip


def _finite(found):
  median = evaluate.median_changed(found)
  return median if np.isfinite(median) else None


def _line(name, found):
  """Share of images that a number of changed pixels turns."""
  sizes = np.sort(np.asarray(found.num_changed)[np.asarray(found.success)])
  share = np.arange(1, len(sizes) + 1) / len(found.success)
  return Line(name, np.append(0, sizes), np.append(0.0, share), 'steps')


RECIPE = Recipe(
  name='sparse-empirical-mnist',
  source='Levine & Feizi 2020 (randomized ablation); Schott et al. 2019 (Pointwise)',
  dataset='mnist',
  shows='how many pixels Pointwise changes to turn each classifier, beside what ablation certifies',
  scales={
    'quick': Scale('two minutes on 2 cores: 3 networks on digits', ('digits',)),
    'reduced': Scale('an hour on 2 cores: 3 networks on MNIST', ('mnist',)),
    'full': Scale('an accelerator, days (not timed): 3 networks on MNIST, 100 images, 10,000 votes a question', ('mnist',)),
  },
  run=run,
)  # fmt: skip
