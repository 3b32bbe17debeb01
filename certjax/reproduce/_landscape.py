"""The landscape of certificates: everything that one small network can be proved, side by side.

The same weights throughout; certificates of noise speak of the network's vote under that noise, all
others of the network itself. Radii of different norms are not comparable: each row names its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from certjax import (
  attacks,
  bounds,
  certify,
  data,
  evaluate,
  models,
  parallel,
  report,
  smoothing,
  threats,
  train,
)
from certjax.report import Curves, Run
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, Scale
from certjax.reproduce._shares import accuracy_line, accuracy_row, share

_DATASET, _SIGMA = 'digits', 0.25
_HIDDEN, _ACTIVATION = (64,), 'softplus'
_STEPS, _BATCH, _LEARNING_RATE = 2000, 64, 0.01
_ALPHA, _CHUNK = 1e-3, 1000
_SLACK = 1e-9  # Far above the rounding of float64 logits of this size.
_INSIDE = 0.999  # Attacked points are float32: at the radius itself they may lie outside.
_ATTACK_STEPS = 20
_FIGURE = (('l2', 'L2'), ('l1', 'L1'), ('linf', 'L_inf'))


class Network(NamedTuple):
  """What all certificates read.

  Attributes:
    module: a `models.MLP`.
    variables: its weights.
    model_fn: the same, bound.
  """

  module: models.MLP
  variables: dict
  model_fn: Callable


class Proof(NamedTuple):
  """One certificate of the landscape.

  Attributes:
    norm, unit: of its radii.
    exact: whether nothing is sampled.
    network: whether it speaks of the network itself, without noise or masks.
    certificate: of all test images.
  """

  norm: str
  unit: str
  exact: bool
  network: bool
  certificate: certify.Certificate


def run(request, *, num_steps=_STEPS, num_images=100, num_samples=5000, names=None) -> Result:
  """Clean accuracy and median radius of every certificate, and an attack inside the exact radii.

  Args:
    request: a `Request`.
    num_steps: of the training.
    num_images: test images, evenly spaced.
    num_samples: N of the sampled methods.
    names: the methods to take, default all.
  """
  every = data.subset(data.dataset(_DATASET).size('test'), evenly=num_images)
  test = data.load(_DATASET, 'test', data_dir=request.data_dir, indices=every)
  network = trained(request, num_steps)
  request.say(f'trained: {num_steps} steps')
  x, proofs = data.to_float(test.images), {}
  for name in names or NAMES:
    proofs[name] = prove(name, request.seed, network, x, num_samples)
    request.say(f'proved: {name}')
  setting = (
    f'{_HIDDEN[0]} hidden units, {_ACTIVATION}, trained under noise of sigma {_SIGMA}, '
    f'{len(x)} test images'
  )
  shared = {'dataset': _DATASET, 'seed': request.seed}
  rows = [
    row
    for name, proof in proofs.items()
    for row in _rows(name, proof, test, f'{setting}, {_how(proof, num_samples)}', shared)
  ]  # fmt: skip
  rows += _attacked(network, proofs, x, request.seed, setting, shared)
  return Result(tuple(rows), _figure(proofs, test))


def trained(request, num_steps) -> Network:
  """The network, trained under Gaussian noise."""
  images = data.load(_DATASET, 'train', data_dir=request.data_dir)
  spec = data.dataset(_DATASET)
  module = models.MLP(spec.num_classes, hidden=_HIDDEN, activation=_ACTIVATION)
  tx = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, num_steps))
  key_init, key_steps = jax.random.split(jax.random.key(request.seed))
  method = train.objective('noise', smoothing.gaussian(sigma=_SIGMA), sigma=_SIGMA)
  state = train.fit(
    train.make_step(module, tx, **method), train.init_state(key_init, module, tx, spec.shape),
    data.batches(images, _BATCH, seed=request.seed, num_steps=num_steps), key=key_steps,
    mesh=parallel.data_mesh(jax.devices()[:1]), log_every=num_steps,
  )  # fmt: skip
  variables = jax.tree.map(np.asarray, state.variables)
  return Network(module, variables, models.bind(module, variables))


def prove(name, seed, network, x, num_samples) -> Proof:
  """One certificate of images float32[B, H, W, C], by its name in `NAMES`."""
  if name == _LIPSCHITZ:
    return Proof('l2', 'pixel value', True, True, _lipschitz(network, x))
  method = _methods(x.shape[1:])[name]()
  describe = lambda network_itself, proof: Proof(
    method.norm, method.unit, evaluate.is_exact(method), network_itself, proof
  )
  if evaluate.is_clean(method):
    read = evaluate.clean_network(network.model_fn, method, shape=x.shape[1:])
    return describe(True, evaluate.clean_certificate(read, x))
  if evaluate.is_exact(method):
    return describe(False, certify.enumerated(network.model_fn, method, x, chunk=_CHUNK))
  proof = certify.sampled(
    jax.random.key(seed), network.model_fn, method, x, num_samples=num_samples, alpha=_ALPHA,
    chunk=_CHUNK,
  )  # fmt: skip
  return describe(False, proof)


_LIPSCHITZ = 'Lipschitz margin'


def _methods(shape):
  """name -> function that makes the method for images of a shape."""
  linear = lambda norm, eps, bound: certify.bounded(eps=eps, norm=norm, bound=bound, largest=True)
  return {
    'Gaussian smoothing': lambda: smoothing.gaussian(sigma=_SIGMA),
    'curvature': certify.crc,
    'linear bounds (CROWN), L2': lambda: linear('l2', 2.0, 'crown'),
    'uniform smoothing': lambda: smoothing.uniform(sigma=_SIGMA),
    'Laplace smoothing': lambda: smoothing.laplace(sigma=_SIGMA),
    'splitting noise': lambda: smoothing.splitting(sigma=_SIGMA),
    'derandomized splitting': lambda: smoothing.deterministic_splitting(sigma=_SIGMA, shape=shape),
    'linear bounds (CROWN), L1': lambda: linear('l1', 8.0, 'crown'),
    'Gaussian smoothing, L_inf': lambda: smoothing.gaussian(sigma=_SIGMA, norm='linf', shape=shape),
    'interval bounds': lambda: linear('linf', 0.5, 'ibp'),
    'linear bounds (CROWN), L_inf': lambda: linear('linf', 0.5, 'crown'),
    'discrete smoothing, keep 0.8 of black and white': lambda: smoothing.discrete(
      keep=0.8, levels=1, shape=shape
    ),
    'double masking, patch of side 1': lambda: smoothing.masks(patch=1, shape=shape, num_masks=4),
  }


NAMES = (_LIPSCHITZ, *_methods(data.dataset(_DATASET).shape))
"""The certificates, in the order of the table."""


def _lipschitz(network, x):
  """The margin of the last layer over the constant of the hidden one, in float64."""
  weights, biases = network.module.matrices(network.variables, x.shape[1:])
  flat = np.float64(x.reshape(len(x), -1))
  hidden = np.logaddexp(0, flat @ weights[0].T + biases[0])
  return certify.margin(
    hidden @ weights[1].T + biases[1], last_layer=weights[1], slack=_SLACK,
    lipschitz=bounds.hidden_lipschitz(weights, activation=_ACTIVATION),
  )  # fmt: skip


def _how(proof, num_samples):
  if proof.exact:
    return 'exact'
  return f'N = {num_samples:,}, alpha = {_ALPHA}'


def _rows(name, proof, test, setting, shared):
  found = _run(name, proof, test)
  median = report.median_radius(found.certificate, found.labels)
  return [
    accuracy_row(found, 0.0, number=f'{name}: clean accuracy', setting=setting, **shared),
    Row(f'{name}: median certified radius', median, f'{proof.norm}, {proof.unit}', setting, **shared),
  ]  # fmt: skip


def _run(name, proof, test):
  return Run(name, test.index, test.labels.astype(np.int64), proof.certificate)


def _attacked(network, proofs, x, seed, setting, shared):
  """Of each norm: images that PGD moves inside the largest exact radius of the network itself."""
  rows = []
  for norm, make in {'l2': threats.l2, 'linf': threats.linf}.items():
    own = [proof.certificate for proof in proofs.values() if proof.network and proof.norm == norm]
    if not own:
      continue
    radius = np.max([np.where(each.label >= 0, each.radius, 0) for each in own], axis=0)
    label = np.max([each.label for each in own], axis=0)
    after = _after_attack(network, make, x, label, _INSIDE * radius, seed)
    moved = int(((after != label) & (radius > 0)).sum())
    value, interval = share(moved, len(x))
    rows.append(
      Row(
        f'images that PGD moves inside the largest exact {norm} radius', value, 'fraction of images',
        f'{setting}, {_ATTACK_STEPS} steps at {_INSIDE} of each radius', interval=interval, **shared,
      )
    )  # fmt: skip
  return rows


def _after_attack(network, make, x, label, radius, seed):
  """int[B], the classes at the points that PGD finds, each image with its own radius."""

  def attacked(item):
    key, x, y, eps = item
    attack = attacks.pgd(make(eps), step_size=eps / 4, num_steps=_ATTACK_STEPS, loss=attacks.margin)
    return attack(key, network.model_fn, x[None], y[None])[0]

  keys = jax.random.split(jax.random.key(seed), len(x))
  items = (keys, jnp.asarray(x), jnp.asarray(label, jnp.int32), jnp.asarray(radius, jnp.float32))
  moved = jax.jit(lambda items: jax.lax.map(attacked, items))(items)
  return np.asarray(jnp.argmax(network.model_fn(moved), axis=1))


def _figure(proofs, test):
  panels = []
  for norm, title in _FIGURE:
    lines = tuple(
      accuracy_line(name, _run(name, proof, test))
      for name, proof in proofs.items()
      if proof.norm == norm
    )
    if lines:
      panels.append(Curves(title, f'{norm} radius', 'certified accuracy', lines))
  return tuple(panels)


RECIPE = Recipe(
  name='landscape',
  source='the theorems of each method (docs/pages/index.md leads to them)',
  dataset=ARITHMETIC,
  shows='all certificates of one small network side by side, each in its norm',
  scales={'quick': Scale('a minute or two', (_DATASET,))},
  run=run,
  left_out={'full': "a page of this library's own, beside which nothing is published"},
)
