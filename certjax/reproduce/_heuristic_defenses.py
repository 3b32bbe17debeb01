"""Defences that only hide the gradient: what PGD through them leaves, and what an adaptive attack does.

A defence without a useful gradient gets another one going backward (BPDA); a random one is climbed by the mean
over draws (EOT), and judged with fresh draws. The networks behind the defences are the same one, without any
robustness of its own, but for the thermometer, whose network reads its code.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from certjax import attacks, data, defenses, models, parallel, threats, train
from certjax.reproduce._certified import images_of
from certjax.reproduce._nouns import Recipe, Result, Row, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import share

_DATASET = 'digits'
_HIDDEN, _ACTIVATION = (128,), 'softplus'
_TRAINING_STEPS, _BATCH, _LEARNING_RATE = 2000, 64, 0.003
_LEVELS, _BITS, _QUALITY, _SMALLEST = 10, 2, 50, 7
_JUDGE_DRAWS, _EOT_DRAWS = 10, 10
_NOTE = (
  'The accuracies that the papers of the defences claimed are not held here. Ours: one small network on digits, '
  'each defence as `certjax.defenses` has it; a random one is right on an image in the share of 10 fresh draws.'
)
_NOT_BUILT = 'not built here'
_ELSEWHERE = {'Madry et al.': 'adversarial training: in the recipe pat-cifar10'}


class Defence(NamedTuple):
  """A defended classifier, as it stands and as an attacker sees it.

  Attributes:
    paper: who proposed it, a name of the published table.
    table: of the published number.
    stands: the classifier itself: a `ModelFn`, or random, `(keys[B], x) -> logits`.
    seen: what the adaptive attack climbs, of the same kind.
    random: whether both are random.
  """

  paper: str
  table: str
  stands: Callable
  seen: Callable
  random: bool = False


def run(request, *, num_images=100, num_steps=40, training_steps=_TRAINING_STEPS, names=None) -> Result:  # fmt: skip
  """Clean accuracy, and accuracy under PGD through each defence and under the adaptive attack.

  Args:
    request: a `Request` with attacks, for the size of the threat.
    num_images: test images, evenly spaced.
    num_steps: of every attack.
    training_steps: of the two networks.
    names: defences of `made`, default all.
  """
  eps = request.attacks.bounds[_DATASET]['linf']
  images = images_of(request, _DATASET, num_images)
  x, y = jnp.asarray(data.to_float(images.images)), jnp.asarray(images.labels)
  plain, coded = (network(request, training_steps, levels) for levels in (None, _LEVELS))
  setting = f'{_HIDDEN[0]} hidden units, L_inf {eps:g}, {len(y)} test images, {num_steps} steps'
  shared = {'unit': 'fraction of images', 'dataset': _DATASET, 'seed': request.seed}
  key, attack = jax.random.key(request.seed), functools.partial(points, eps, num_steps)
  bare = attack(key, plain, False, x, y, 1)
  rows = [
    _row('no defence, clean accuracy', plain, False, x, y, key, setting, shared),
    _row('no defence, accuracy under PGD', plain, False, bare, y, key, setting, shared),
  ]
  every = made(plain, coded)
  for name in names or every:
    one = every[name]
    blind = attack(key, one.stands, one.random, x, y, 1)
    adaptive = attack(key, one.seen, one.random, x, y, _EOT_DRAWS)
    judged = functools.partial(_row, fn=one.stands, random=one.random, y=y, key=key, shared=shared)
    rows += [
      judged(f'{name}, clean accuracy', points=x, setting=setting),
      judged(f'{name}, accuracy under PGD through it', points=blind, setting=setting),
      judged(
        f'{name} ({one.paper}), accuracy under an adaptive attack', points=adaptive,
        setting=f'{setting}, {"EOT" if one.random else "BPDA"}', there=published(one.table, one.paper),
      ),
    ]  # fmt: skip
    request.say(f'attacked: {name}')
  return Result((*rows, *_others(every, shared)), (), (_NOTE,))


def made(plain, coded) -> dict:
  """Name -> `Defence`, before the plain network or the one that reads a thermometer."""

  def before(network, transform, seen) -> dict[str, Any]:
    return {
      'stands': defenses.transformed(network, transform),
      'seen': defenses.transformed(network, defenses.bpda(transform, seen)),
    }

  rounding, jpeg = defenses.bit_depth(bits=_BITS), defenses.jpeg(quality=_QUALITY)
  smooth = defenses.total_variation()
  past = lambda key, x: defenses.bpda(lambda x: smooth(key, x))(x)
  resize = defenses.resize_pad(size=data.dataset(_DATASET).shape[0], smallest=_SMALLEST)
  resized, pruned = defenses.randomized(plain, resize), defenses.pruned(stages(plain))
  soft = defenses.soft_thermometer(levels=_LEVELS)
  cifar, imagenet = 'athalye-cifar10', 'athalye-imagenet'
  return {
    'thermometer': Defence(
      'Buckman et al.', cifar, **before(coded, defenses.thermometer(levels=_LEVELS), soft)
    ),
    'bit depth': Defence('Guo et al.', imagenet, **before(plain, rounding, None)),
    'JPEG': Defence('Guo et al.', imagenet, **before(plain, jpeg, None)),
    'total variation': Defence(
      'Guo et al.', imagenet, defenses.randomized(plain, smooth), defenses.randomized(plain, past), True
    ),
    'activation pruning': Defence('Dhillon et al.', cifar, pruned, pruned, True),
    'resize and pad': Defence('Xie et al.', imagenet, resized, resized, True),
  }  # fmt: skip


def stages(network):
  """A network of one hidden layer as a chain: activations, then logits."""
  params = network.args[0]['params']
  dense = lambda name, h: h @ params[name]['kernel'] + params[name]['bias'][None]
  hidden = lambda x: jax.nn.softplus(dense('dense0', x.reshape(len(x), -1)))
  return [hidden, lambda h: dense('dense1', h)]


def points(eps, num_steps, key, fn, random, x, y, num_draws):
  """x_adv float[B, H, W, C]: PGD on a classifier, or on the mean loss over draws of a random one."""
  step = {'step_size': eps / 4, 'num_steps': num_steps}
  if random:
    attack = attacks.eot_pgd(threats.linf(eps), num_draws=num_draws, **step)
  else:
    attack = attacks.pgd(threats.linf(eps), **step)
  return jax.jit(lambda key, x, y: attack(key, fn, x, y))(key, x, y)


def right(key, fn, random, x, y):
  """float64[B], whether each image is right; of a random classifier the share of fresh draws."""
  if not random:
    return np.float64(jax.jit(fn)(x).argmax(axis=1) == y)
  keys = jax.random.split(jax.random.fold_in(key, 1), (_JUDGE_DRAWS, len(x)))  # Not the attack's.
  each = jax.jit(lambda keys, x: fn(keys, x).argmax(axis=1) == y)
  return np.mean([np.asarray(each(row, x)) for row in keys], axis=0, dtype=np.float64)


def network(request, num_steps, levels) -> Any:
  """The network of clean images, or of their thermometer code of so many levels."""
  images, spec = data.load(_DATASET, 'train', data_dir=request.data_dir), data.dataset(_DATASET)
  if levels is not None:
    code = defenses.thermometer(levels=levels)(data.to_float(images.images))
    images = images._replace(images=np.asarray(255 * code).astype(np.uint8))
  shape = images.images.shape[1:]
  module = models.MLP(
    spec.num_classes, hidden=_HIDDEN, activation=_ACTIVATION, mean=(0.0,) * shape[-1], std=(1.0,) * shape[-1]
  )  # fmt: skip
  tx = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, num_steps))
  key_init, key_steps = jax.random.split(jax.random.key(request.seed))
  state = train.fit(
    train.make_step(module, tx, **train.objective('clean', None, sigma=None)),
    train.init_state(key_init, module, tx, shape),
    data.batches(images, _BATCH, seed=request.seed, num_steps=num_steps), key=key_steps,
    mesh=parallel.data_mesh(jax.devices()[:1]), log_every=num_steps,
  )  # fmt: skip
  return models.bind(module, jax.tree.map(np.asarray, state.variables))


def _row(number, fn, random, points, y, key, setting, shared, there=None):
  each = right(key, fn, random, points, y)
  value, interval = float(each.mean()), None  # Shares of draws are no counts of images.
  if not random:
    value, interval = share(int(each.sum()), len(y))
  return Row(number, value, setting=setting, published=there, interval=interval, **shared)


def _others(every, shared):
  """What the paper broke, or did not break, and this library has no copy of."""
  built = {one.paper for one in every.values()}
  return [
    Row(
      f'{paper}, accuracy under an adaptive attack', None, shared['unit'],
      _ELSEWHERE.get(paper, _NOT_BUILT), _DATASET, published(table, paper),
    )
    for table in ('athalye-cifar10', 'athalye-imagenet', 'athalye-mnist')
    for paper in numbers(table)
    if paper not in built
  ]  # fmt: skip


RECIPE = Recipe(
  name='heuristic-defenses',
  source='Athalye, Carlini & Wagner 2018',
  dataset='cifar10',
  shows='defences without useful gradients: what PGD through them, and an adaptive attack, leave',
  scales={
    'quick': Scale('a minute or two on 2 cores: two small networks on digits, six defences', (_DATASET,))
  },
  run=run,
  left_out={'full': "the defended networks of CIFAR-10 and ImageNet that were attacked are not held here"},
)  # fmt: skip
