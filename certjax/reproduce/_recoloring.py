"""Recolouring, flow and additive changes, alone and together (Laidlaw & Feizi 2019).

C recolours, S moves pixels, D adds; a combination is searched jointly. The quick scale attacks a network of
digits, whose images have no colour: there C is one curve over their levels of grey. The others attack the
authors' published ResNet-32 on CIFAR-10, as published: their grid of absolute colours, and the last image of
each search.
"""

from typing import NamedTuple

import jax
import numpy as np

from certjax import attacks, data, evaluate, models, records
from certjax.attacks import functional
from certjax.reproduce._certified import images_of, trained
from certjax.reproduce._nouns import Recipe, Result, Row, Scale
from certjax.reproduce._perceptual_training import CLEAN
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import share

_TABLE = 'recoloradv-combinations'
NETWORK_MEAN, NETWORK_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the published networks: ImageNet's, as in the authors' code."""
STEPS, STEP_SIZE, PENALTY = 100, 1e-3, 0.05
"""As published."""
_OTHER = 'that network is not at hand'
_IMAGES = {'quick': 100, 'reduced': 200, 'full': 10_000}
_BATCH = 50


class Sizes(NamedTuple):
  """Budgets: of C a share of each channel, of S a normalised flow, of D in pixel values."""

  colour: float
  flow: float
  added: float


PUBLISHED_SIZES = Sizes(0.06, 0.05, 8 / 255)
"""As published."""


class Search(NamedTuple):
  """What one combination is searched by.

  Attributes:
    threat: a `Functional`.
    step_size: of Adam, one number, or one a part.
    keep: which image is returned, 'last' or 'best'.
  """

  threat: attacks.Functional
  step_size: float | tuple = STEP_SIZE
  keep: str = 'last'


def combinations(colour, flow, added) -> dict:
  """Name -> `Functional` of the five columns; the penalty of D counts nothing.

  Args:
    colour, flow, added: `Functional`s, C, S and D.

  Example:
    >>> parts = functional.recolor(0.06), functional.stadv(0.05), functional.additive(8 / 255)
    >>> list(combinations(*parts))
    ['C', 'C + D', 'C + S', 'S + D', 'C + S + D']
  """
  compose = functional.compose
  return {
    'C': colour,
    'C + D': compose(colour, added, weights=(1, 0)),
    'C + S': compose(colour, flow),
    'S + D': compose(flow, added, weights=(1, 0)),
    'C + S + D': compose(colour, flow, added, weights=(1, 1, 0)),
  }


def published_searches() -> dict:
  """Name -> `Search` of the five columns on CIFAR-10, as published.

  Example:
    >>> list(published_searches())
    ['C', 'C + D', 'C + S', 'S + D', 'C + S + D']
  """
  parts = (
    functional.recolor(PUBLISHED_SIZES.colour, compat=True), functional.stadv(PUBLISHED_SIZES.flow), functional.additive(PUBLISHED_SIZES.added)
  )  # fmt: skip
  return {name: Search(threat) for name, threat in combinations(*parts).items()}


def scaled_searches(sizes) -> dict:
  """Name -> `Search` of the five columns at other sizes, each step a fixed share of its size."""
  parts = (
    functional.recolor_of_image(sizes.colour), functional.stadv(sizes.flow), functional.additive(sizes.added)
  )  # fmt: skip
  steps = dict(zip('CSD', (STEP_SIZE * ours / theirs for ours, theirs in zip(sizes, PUBLISHED_SIZES, strict=True)), strict=True))  # fmt: skip
  of = lambda name: tuple(steps[part] for part in name.split(' + '))
  return {
    name: Search(threat, of(name) if '+' in name else of(name)[0])
    for name, threat in combinations(*parts).items()
  }


def after_search(key, model_fn, search, x, y, index, *, num_steps=STEPS, batch_size=_BATCH):
  """Attacks images batch by batch; image i draws with fold_in(key, i).

  Args:
    key: root key.
    model_fn: `x[B, H, W, C] -> logits[B, K]`, a `jax.tree_util.Partial`.
    search: a `Search`.
    x: float32[N, H, W, C].
    y: int[N].
    index: int[N], in the data set.
    num_steps: of the search.
    batch_size: images at once.

  Yields:
    (rows, predict, moved) of each batch: a slice of N, int64[B], and float64[B], the largest change of a value.

  Example:
    >>> identity = jax.tree_util.Partial(lambda x: x.reshape(len(x), -1))
    >>> search, x = Search(functional.additive(0.5)), np.array([0.4, 0.5], np.float32).reshape(1, 1, 2, 1)
    >>> ((rows, predict, moved),) = after_search(
    ...   jax.random.key(0), identity, search, x, np.ones(1), np.zeros(1), num_steps=80, batch_size=1
    ... )
    >>> predict.tolist(), bool(moved[0] <= 0.5)
    ([0], True)
  """
  attack = attacks.latent_attack(
    search.threat, num_steps=num_steps, step_size=search.step_size, penalty_weight=PENALTY,
    keep=search.keep,
  )  # fmt: skip

  def one(key, model_fn, x, y, index):
    x_adv = attack(jax.vmap(jax.random.fold_in, (None, 0))(key, index), model_fn, x, y)
    return x_adv, model_fn(x_adv).argmax(axis=1)

  one = jax.jit(one)
  for start in range(0, len(x), batch_size):
    rows = slice(start, min(start + batch_size, len(x)))
    columns = {'x': x[rows], 'y': np.int32(y[rows]), 'index': np.uint32(index[rows])}
    full, mask = data.pad_batch(columns, batch_size)
    x_adv, predict = (np.asarray(a)[mask] for a in one(key, model_fn, *full.values()))
    moved = np.abs(np.float64(x_adv) - x[rows]).max(axis=(1, 2, 3))
    yield rows, predict.astype(np.int64), moved


def published_network(directory, name):
  """(model_fn, weights) of the authors' ResNet-32 in a folder.

  Args:
    directory: of the networks.
    name: 'normal', without defence, or 'recoloradv', trained against recolourings: *resnet32_NAME.*.

  Raises:
    ValueError: unless there is exactly one such file.
  """
  found = sorted(directory.glob(f'*resnet32_{name}.*')) if directory.is_dir() else []
  if len(found) != 1:
    raise ValueError(
      f'`weights`={directory} must hold one file *resnet32_{name}.*, the network of ReColorAdv, got '
      f'{len(found)}.'
    )
  module = models.ResNet(num_classes=10, depth=32, mean=NETWORK_MEAN, std=NETWORK_STD)
  variables = models.load_weights(found[0], module)
  return models.bind(module, variables), variables


def run(request, *, num_images=None, num_steps=STEPS, changed=None) -> Result:
  """Accuracy under each combination beside the published one.

  Args:
    request: a `Request`: for digits with presets and attacks, else with weights.
    num_images: test images, evenly spaced; default those of the scale.
    num_steps: of every search.
    changed: fields of the digits preset that are other here, beside those of clean training.
  """
  quick, num_images = request.scale == 'quick', num_images or _IMAGES[request.scale]
  dataset = 'digits' if quick else 'cifar10'
  if quick:
    bounds = request.attacks.bounds[dataset]
    searches = scaled_searches(Sizes(bounds['linf'], bounds['stadv'], bounds['linf']))
    classifier = trained(request, dataset, 'classifier', **CLEAN, **(changed or {}))
    cells = {('None', name): (search, (classifier.model_fn, classifier.variables)) for name, search in searches.items()}  # fmt: skip
  else:
    searches = published_searches()
    normal, robust = (published_network(request.weights, name) for name in ('normal', 'recoloradv'))
    cells = {('None', name): (search, normal) for name, search in searches.items()}
    cells['Adv. training', 'C'] = searches['C'], robust
  images = images_of(request, dataset, num_images)
  found = {
    cell: _right(request, cell, search, network, images, num_steps)
    for cell, (search, network) in cells.items()
  }
  rows = [_row(request, dataset, number, found, num_steps, quick) for number in numbers(_TABLE)]
  return Result(tuple(rows), (), (_GREY if quick else _AS_PUBLISHED,))


def _right(request, cell, search, network, images, num_steps):
  """bool[N], right as it is and under attack, by records below the request's folder."""
  model_fn, variables = network
  name = ' '.join(cell).lower().replace(' + ', '').replace('.', '').replace(' ', '-')
  settings = {
    'combination': cell[1], 'num_steps': num_steps, 'step_size': search.step_size, 'keep': search.keep,
    'penalty': PENALTY, 'seed': request.seed,
  }  # fmt: skip
  law = _Law(search.threat.name, 'share of the budget')
  header = evaluate.header('attack', settings, law, 'attack, no proof', variables, images)
  with records.writer(request.out / name, header) as written:
    done = len(written.finished)  # Whole batches, in order.
    rest = data.take(images, slice(done, None))
    x, y = data.to_float(rest.images), np.asarray(rest.labels)
    clean = (
      evaluate.plain_target(model_fn, batch_size=_BATCH).judge(x, rest.index) if len(x) else []
    )
    made = after_search(
      jax.random.key(request.seed), model_fn, search, x, y, rest.index, num_steps=num_steps
    )
    for rows, predict, moved in made:
      columns = zip(rest.index[rows], y[rows], predict, clean[rows], moved, strict=True)
      for index, label, after, before, change in columns:
        row = {
          'index': int(index), 'label': int(label), 'predict': int(after), 'radius': 0.0,
          'before': int(before), 'largest_change': float(change),
        }  # fmt: skip
        written.append(row, {})
  request.say(f'attacked: {request.out / name}')
  lines = records.read(request.out / name)[1]
  return np.array([line['label'] == line['predict'] == line['before'] for line in lines])


class _Law(NamedTuple):
  """What a header says of the attacked set."""

  norm: str
  unit: str


def _row(request, dataset, number, found, num_steps, quick):
  cell = tuple(number.split(', '))
  there = published(_TABLE, number)
  if cell not in found:
    return Row(number, None, there.unit, _OTHER, dataset, there)
  right = found[cell]
  value, interval = share(int(right.sum()), len(right))
  network = 'digits-cnn without defence' if quick else f"the authors' ResNet-32 ({cell[0]})"
  return Row(
    number, value, there.unit, f'{network}, {len(right)} test images, {num_steps} steps', dataset,
    there, interval, request.seed, comparable=not quick,
  )  # fmt: skip


_GREY = (
  'Ours on digits: C is one curve over levels of grey, which moves each by at most as much as D adds; D and S '
  'have the bounds of the perceptual comparison, and steps grow with the sizes.'
)
_AS_PUBLISHED = (
  "Ours on the authors' networks, their colours and the last image of each search; which images they "
  'took is not known.'
)

RECIPE = Recipe(
  name=_TABLE,
  source='Laidlaw & Feizi 2019',
  dataset='cifar10',
  shows='recolouring, flow and additive changes together break more than each alone',
  scales={
    'quick': Scale('a minute on 2 cores: one small network on digits, five searches', ('digits',)),
    'reduced': Scale(
      "about an hour (not timed): the authors' networks (--weights DIR), 200 images", ('cifar10',)
    ),
    'full': Scale(
      'an accelerator (not timed): the same on all 10,000 images', ('cifar10',)
    ),
  },
  run=run,
  weights_at=('reduced', 'full'),
)  # fmt: skip
