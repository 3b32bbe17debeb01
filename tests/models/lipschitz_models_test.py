"""Every kind of network with a proved constant, in one table: the Jacobian, pairs of images, the
layers one by one, the cached filters, training, sizes.

The weights are moved away from where they start, so that no layer is at a special point.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import layers, models

KEY = jax.random.key(0)
STD = 0.5
NUM_CLASSES = 4
PIXELS = dict(mean=(0.5,), std=(STD,))
TABLE = {
  'lipconvnet soc pool': models.LipConvNet(
    NUM_CLASSES, width=2, activation='hh1', last='normalized', pool='lip', **PIXELS
  ),
  'kwlarge cayley': models.KWLarge(NUM_CLASSES, 'cayley', 2, 8, **PIXELS),
  'lipnext': models.LipNeXt(NUM_CLASSES, (1, 1), 8, 2, **PIXELS),
}
EACH = pytest.mark.parametrize('name', TABLE)


def images(seed, count=12):
  return np.random.default_rng(seed).uniform(0, 1, (count, 4, 4, 1)).astype(np.float32)


X = images(0)
OTHERS = np.stack([X[::-1], X + np.float32(1e-2) * (images(1) - 0.5), np.zeros_like(X)])


class Case(NamedTuple):
  """A network of the table, evaluated.

  Attributes:
    values: of each layer of the chain, with what enters it first; float[4, 12, ...], for X and OTHERS.
    logits: float[4, 12, K] of the network itself.
    jacobian: float[K, 12, pixels] at X.
    spectral: the collection after evaluation with leave to change it.
  """

  module: models.LipConvNet
  variables: dict
  bound: float
  values: list
  logits: jax.Array
  jacobian: jax.Array
  spectral: dict

  @property
  def names(self):
    return [name for name, _ in self.module.known(self.variables)]


@functools.cache
def case(name):
  module = TABLE[name]
  shapes = jax.eval_shape(module.init, KEY, X[:1])
  estimates = 'norm' in str(shapes['spectral'])  # Else nothing is estimated: no need to run `init`.
  variables = jax.jit(module.init)(KEY, X[:1]) if estimates else shapes
  rng = np.random.default_rng(1)

  def away(path, leaf):
    start = jnp.zeros(leaf.shape) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
    size = leaf.shape[-1] ** -0.5 if path[-1].key == 'kernel' and not estimates else 0.05
    return start + np.float32(size) * rng.standard_normal(leaf.shape).astype(np.float32)

  params = jax.tree.map_with_path(away, variables['params'])
  spectral = jax.tree.map(lambda a: jnp.zeros(a.shape), variables['spectral'])
  variables = {'params': params, 'spectral': variables['spectral'] if estimates else spectral}

  @jax.jit
  def evaluate(variables, x):
    values = [module.frame(x)]
    for layer_name, layer in module.known(variables):
      values.append(layer.apply(layers.subtree(variables, layer_name), values[-1]))
    apply = lambda x: module.apply(variables, x, mutable=['spectral'])
    logits, pull, state = jax.vjp(apply, x, has_aux=True)
    basis = jnp.broadcast_to(jnp.eye(NUM_CLASSES)[:, None], (NUM_CLASSES, *logits.shape))
    return values, logits, jax.vmap(pull)(basis)[0], state['spectral']

  together = np.concatenate([X, *OTHERS])
  values, logits, jacobian, spectral = evaluate(variables, together)
  split = lambda a: np.asarray(a, np.float64).reshape(4, len(X), -1)
  jacobian = np.asarray(jacobian, np.float64)[:, : len(X)].reshape(NUM_CLASSES, len(X), -1)
  bound = layers.lipschitz_upper(module, variables)
  return Case(
    module, variables, bound, list(map(split, values)), split(logits), jacobian, spectral
  )  # fmt: skip


@EACH
def test_the_constant_is_above_every_jacobian(name):
  made = case(name)
  assert 1 / STD <= made.bound < (2.0 if made.module.last == 'normalized' else 1.001) / STD
  largest = max(np.linalg.norm(made.jacobian[:, i], 2) for i in range(len(X)))
  assert 0.3 * made.bound < largest <= made.bound * (1 + 1e-5)  # A loose one would prove little.


@EACH
def test_no_layer_moves_two_images_apart(name):
  made = case(name)
  apart = np.linalg.norm((OTHERS - X).reshape(3, len(X), -1).astype(np.float64), axis=-1)
  gaps = [np.linalg.norm(value[1:] - value[0], axis=-1) for value in made.values]
  assert (gaps[0] <= apart / STD * (1 + 1e-5) + 1e-6).all()
  for layer, before, after in zip(made.names, gaps, gaps[1:], strict=False):
    # Rows of norm 1 may expand by sqrt(4), all other layers by nothing.
    limit = 2.0 if (layer, made.module.last) == ('last', 'normalized') else 1.0
    assert (after <= limit * before * (1 + 1e-5) + 1e-6).all(), layer
  assert (gaps[-1] <= made.bound * apart * (1 + 1e-5)).all()
  spread = [float(np.var(value[0], axis=0).sum()) for value in made.values]
  upto = made.names.index('last') + 1
  assert all(b <= a * (1 + 1e-5) for a, b in zip(spread[:upto], spread[1:upto], strict=False))
  assert spread[-1] > 1e-3


@EACH
def test_cached_filters_and_the_rows_of_the_last_layer(name):
  made = case(name)
  np.testing.assert_allclose(made.values[-1], made.logits, atol=1e-5)
  cached = layers.materialize(made.module, made.variables)
  np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(cached, X), made.logits[0], atol=1e-5)
  rows = made.module.last_layer(made.variables)
  assert (rows is None) == (made.module.last == 'orthogonal')
  if rows is not None:
    kernel = np.asarray(made.variables['params']['last']['kernel'], np.float64)
    np.testing.assert_allclose(rows, (kernel / np.linalg.norm(kernel, axis=0)).T / STD, rtol=1e-3)


@EACH
def test_training_moves_estimates_only_and_has_a_finite_gradient(name):
  module, variables, *_, evaluated = case(name)
  before = variables['spectral']
  jax.tree.map(np.testing.assert_array_equal, evaluated, before)

  @jax.jit
  def step(params):
    def loss(params):
      given = {'params': params, 'spectral': before}
      logits, updated = module.apply(given, X, train=True, mutable=True)
      return -jnp.mean(jax.nn.log_softmax(logits)[:, 1]), updated

    return jax.grad(loss, has_aux=True)(params)

  gradient, updated = step(variables['params'])
  jax.tree.map(np.testing.assert_array_equal, updated.pop('params'), variables['params'])
  assert set(updated) == {'spectral'}
  for path, leaf in jax.tree.leaves_with_path(gradient):
    assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
    assert path[-1].key != 'kernel' or np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
  for path, leaf in jax.tree.leaves_with_path(before):
    after = functools.reduce(lambda tree, part: tree[part.key], path, updated['spectral'])
    moved = path[-1].key in ('norm', 'r', 't')  # The rest is the size of the image.
    assert (after != leaf).any() == moved, jax.tree_util.keystr(path)


def shapes(name, side, channels):
  module = models.build(name, num_classes=10, mean=(0.5,) * channels, std=(0.25,) * channels)
  x = jnp.zeros((2, side, side, channels))
  logits, variables = jax.eval_shape(lambda x: module.init_with_output(KEY, x), x)
  return logits.shape, variables['params']


@pytest.mark.parametrize('name', ['lipconvnet5-soc-pool', 'kwlarge-small-soc', 'lipnext-small'])
@pytest.mark.parametrize('side, channels', [(32, 3), (28, 1), (8, 1)])
def test_sizes_of_images(name, side, channels):
  assert shapes(name, side, channels)[0] == (2, 10)


def matrices(params):
  return sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1)


def test_published_numbers_of_weights():
  _, pooled = shapes('lipconvnet15-soc-pool', 32, 3)
  last = pooled['last']['kernel'].size
  # Stem 9 w^2; four stages of 2 convolutions of c and one of 4 c channels; 2048 and 1024 channels.
  by_hand = 9 * 32**2 + 9 * 18 * sum((32 << s) ** 2 for s in range(4)) + 2048**2 + 2 * 1024**2
  assert matrices(pooled) - last == by_hand and round(matrices(pooled) / 1e6) == 21  # "21 M"
  _, deep = shapes('lipnext-l32w1024', 32, 3)
  assert sum(leaf.size for leaf in jax.tree.leaves(deep) if leaf.shape == (1024, 1024)) == 64 << 20
  _, cayley = shapes('kwlarge-cayley', 32, 3)
  # 3 x 3 taps on 4 C channels where the convolution is strided.
  taps = 9 * (3 * 32 + 4 * 32 * 32 + 32 * 64 + 4 * 64 * 64)
  assert matrices(cayley) == taps + 4096 * 512 + 512 * 512 + 512 * 10


def test_pooled_stages():
  """4 c channels before each pooling, no pixel dropped; the last stage begins with its stride."""
  module = models.LipConvNet(10, blocks=2, width=4, pool='max')
  chain = dict(module._layers(8))
  seen = {
    name: (c.features, c.kernel_size, c.strides) for name, c in chain.items() if 'conv' in name
  }
  assert seen == {
    'conv1_0': (4, 3, 1), 'conv1_1': (16, 3, 2), 'conv2_0': (8, 3, 1), 'conv2_1': (32, 3, 2),
    'conv3_0': (64, 1, 2), 'conv3_1': (32, 1, 1),
  }  # fmt: skip
  pools = {name: layer for name, layer in chain.items() if type(layer).__name__ == 'MaxPool'}
  assert list(pools) == ['act1_1', 'act2_1', 'act3_0']
  assert pools['act1_1'](jnp.array([1.0, -2.0, 3.0, -4.0])).tolist() == [3.0, -2.0]


def test_linear_layers_follow_the_convolutions():
  for conv, linear in (('cayley', 'CayleyLinear'), ('bcop', 'OrthogonalLinear')):
    chain = dict(models.KWLarge(10, conv)._layers(None))
    names = [type(chain[name]).__name__ for name in ('linear1', 'linear2', 'last')]
    assert names == [linear] * 3
  for make in (models.KWLarge, models.LipNeXt):
    for last in ('normalized', 'orthogonal'):
      layer = dict(make(10, last=last)._layers(None))['last']
      assert isinstance(layer, layers.NormalizedLinear) == (last == 'normalized')


def test_lipnext_against_plain_operations():
  """Two layers and the pooling, written out in numpy with matrices that are orthogonal already."""
  module = models.LipNeXt(3, (2,), 6, 2)  # After the second shift, the pooling sees no order.
  rng = np.random.default_rng(5)
  x = rng.uniform(size=(2, 4, 6, 1)).astype(np.float32)
  square = lambda: np.linalg.qr(rng.normal(size=(6, 6)))[0]
  params = {
    'stem': {'kernel': square()[:4], 'bias': np.zeros(6)},
    **{f'shift1_{index}': {'kernel': square()} for index in (0, 1)},
    **{f'mix1_{index}': {'kernel': square(), 'bias': rng.normal(size=6)} for index in (0, 1)},
    'last': {'kernel': rng.normal(size=(6, 3)), 'bias': np.zeros(3)},
  }
  y = x.reshape(2, 2, 2, 3, 2).transpose(0, 1, 3, 2, 4).reshape(2, 2, 3, 4)
  y = y @ params['stem']['kernel']
  offsets = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
  for index in (0, 1):
    runs = np.array_split(y @ params[f'shift1_{index}']['kernel'], 5, axis=-1)
    y = np.concatenate([np.roll(r, o, (1, 2)) for r, o in zip(runs, offsets, strict=True)], -1)
    y = y @ params[f'mix1_{index}']['kernel'] + params[f'mix1_{index}']['bias']
    y[..., :3] = np.abs(y[..., :3])
  head = params['last']['kernel']
  logits = np.sqrt((y**2).sum(axis=(1, 2))) @ (head / np.linalg.norm(head, axis=0))
  params = jax.tree.map(jnp.float32, params)
  np.testing.assert_allclose(jax.jit(module.apply)({'params': params}, x), logits, atol=1e-5)


@pytest.mark.parametrize(
  'module, said',
  [
    (models.LipConvNet(4, pool='mean'), '`pool` must be one of None, lip, max'),
    (models.KWLarge(4, conv='plain'), '`conv` must be one of soc'),
    (models.KWLarge(4, activation='relu'), '`activation` must be one of maxmin'),
    (models.KWLarge(4, hidden=5), '`width` and `hidden` must be even and positive.*hidden=5'),
    (models.LipNeXt(4, last='dense'), '`last` must be one of orthogonal'),
    (models.LipNeXt(4, depths=()), '`depths`, `width` and `patch` must be positive'),
    (models.LipNeXt(4, patch=0), '`depths`, `width` and `patch` must be positive.*patch=0'),
    (models.LipNeXt(4, beta=2.0, width=4, depths=(1,)), '`beta` is a share'),
  ],
)
def test_errors(module, said):
  with pytest.raises(ValueError, match=said) as error:
    jax.eval_shape(module.init, KEY, jnp.zeros((1, 8, 8, 1)))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('module', [models.KWLarge(4), models.LipNeXt(4)])
def test_what_is_no_image_is_refused(module):
  with pytest.raises(ValueError, match='2 x 2 pixels or more, got shape'):
    jax.eval_shape(module.init, KEY, jnp.zeros((1, 64)))
