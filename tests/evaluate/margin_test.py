"""Margins of Lipschitz networks: closed forms, attacks, 80-bit logits, and nothing that a batch changes."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax import lax

from certjax import (
  attacks,
  certify,
  data,
  evaluate,
  layers,
  models,
  parallel,
  testing,
  threats,
  train,
)

SHAPE = (8, 8, 1)


class Linear(nn.Module):
  """x W + b, with its exact constant and rows; one stage, as a network of a user's own."""

  num_classes: int
  dtype: type | None = None

  @nn.compact
  def __call__(self, x, train=False):
    return nn.Dense(self.num_classes, dtype=self.dtype, precision='highest')(x.reshape(len(x), -1))

  def lipschitz(self, variables):
    return float(np.linalg.norm(self._kernel(variables), 2) * (1 + 1e-14))

  def last_layer(self, variables):
    return self._kernel(variables).T

  def _kernel(self, variables):
    return np.asarray(variables['params']['Dense_0']['kernel'], np.float64)


class Looping(Linear):
  """With a loop of unknown length."""

  def __call__(self, x, train=False):
    return lax.while_loop(lambda y: y.sum() > 9, lambda y: y / 2, super().__call__(x))


class Unbounded(Linear):
  """With a constant that proves nothing."""

  def lipschitz(self, variables):
    return float('inf')


def bound_linear(make=Linear, kernel=None, bias=0.0):
  kernel = np.random.default_rng(0).normal(size=(16, 5)) if kernel is None else kernel
  params = {'kernel': np.float32(kernel), 'bias': np.full(kernel.shape[1], bias, np.float32)}
  return models.bind(make(kernel.shape[1]), {'params': {'Dense_0': params}})


def exact(model_fn, shape=(4, 4, 1)):
  return evaluate.exact_network(model_fn, shape=shape)


def test_a_linear_classifier_is_certified_to_its_boundary():
  """Brute force over the rivals: the nearest boundary is (f_y - f_j) / ||w_y - w_j|| away."""
  model_fn = bound_linear()
  kernel = np.float64(model_fn.args[0]['params']['Dense_0']['kernel'])
  x = np.random.default_rng(1).uniform(0, 1, (50, 4, 4, 1)).astype(np.float32)
  proof = evaluate.margin_certificate(exact(model_fn), x)
  testing.check_certificate(proof, 5)
  for image, label, radius in zip(
    np.float64(x.reshape(50, 16)), proof.label, proof.radius, strict=True
  ):
    apart = kernel[:, [label]] - np.delete(kernel, label, axis=1)
    nearest = (image @ apart / np.linalg.norm(apart, axis=0)).min()
    assert nearest * (1 - 1e-9) - 1e-9 < radius < nearest


def test_an_orthogonal_classifier():
  """K orthonormal rows are sqrt(2) apart: the constant alone is tight, to the last layer's radius."""
  kernel = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 3)))[0]
  network = exact(bound_linear(kernel=kernel))
  x = np.random.default_rng(1).uniform(0, 1, (20, 4, 4, 1)).astype(np.float32)
  rows = evaluate.margin_certificate(network, x).radius
  assert abs(network._replace(last_layer=None).lipschitz - 1) < 1e-9
  np.testing.assert_allclose(
    evaluate.margin_certificate(network._replace(last_layer=None), x).radius, rows, rtol=1e-6
  )


class Row(nn.Module):
  """All of an image in one row."""

  def __call__(self, x, train=False):
    return x.reshape(len(x), -1)

  def lipschitz(self, variables):
    return 1.0

  def materialize(self, variables):
    return jax.tree_util.Partial(self)


def test_two_orthogonal_layers_have_a_closed_form():
  """maxmin(x Q), a Sequential of layers: its classes meet where u_0 = u_1, u = x Q."""
  module = nn.Sequential((Row(), layers.CayleyLinear(2), layers.MaxMin(), layers.CayleyLinear(2)))
  turn, stay = np.float32([[0, 0.2], [-0.2, 0]]), np.float32(np.eye(2))
  layer = lambda w: {'kernel': w, 'bias': np.zeros(2, np.float32), 'scale': np.linalg.norm(w)}
  scale = layer(turn)['scale']
  params = {'layers_1': layer(turn), 'layers_3': layer(stay)}
  x = np.float32([[0.9, 0.1], [0.2, 0.7], [0.6, 0.5], [0.0, 1.0]])
  network = exact(models.bind(module, {'params': params}), shape=(1, 1, 2))
  proof = evaluate.margin_certificate(network, x[:, None, None])
  # The layer exchanges the kernel's norm for its scale, a float32.
  skew = np.float64(turn - turn.T) * (np.float64(scale) / np.linalg.norm(np.float64(turn)))
  u = np.float64(x) @ np.linalg.solve(np.eye(2) + skew, np.eye(2) - skew)
  np.testing.assert_allclose(proof.radius, np.abs(u[:, 0] - u[:, 1]) / np.sqrt(2), rtol=1e-9)
  assert (proof.label == 0).all() and proof.radius.min() > 0.01


@pytest.fixture(scope='module')
def trained():
  """(model_fn, images) of a small SOC network after 30 steps on two kinds of images."""
  module = models.LipConvNet(3, width=2)
  tx = optax.sgd(0.05, momentum=0.9)
  objective = train.objective('lipschitz', None, sigma=0.0, margin=0.3, temperature=0.25)
  mesh = parallel.data_mesh(jax.devices()[:1])
  step = parallel.pmap(
    train.make_step(module, tx, **objective), mesh,
    (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED), parallel.REPLICATED,
  )  # fmt: skip
  rng = np.random.default_rng(1)
  y = rng.integers(0, 3, 48).astype(np.int32)
  bright = np.where(np.arange(8) < 4, 1.0, 0.2)[None, :, None, None] * (y == 1)[:, None, None, None]
  x = np.clip(0.2 + 0.4 * (y == 2)[:, None, None, None] + 0.5 * bright, 0, 1)
  x = np.clip(np.round(255 * (x + 0.1 * rng.normal(size=(48, *SHAPE)))), 0, 255).astype(np.uint8)
  batch = {'x': data.to_float(x), 'y': y, 'index': np.arange(48, dtype=np.int32)}
  state = train.init_state(jax.random.key(0), module, tx, SHAPE)
  for _ in range(30):
    state, _ = step(state, jax.random.key(1), batch)
  variables = jax.tree.map(np.asarray, state.variables)
  return models.bind(module, variables), data.Images(x, y, np.arange(48) * 2)


@pytest.fixture(scope='module')
def network(trained):
  return exact(trained[0], SHAPE)


def labels_of(network, x):
  with parallel.x64():
    return np.argmax(np.asarray(jax.jit(network.operator)(np.float64(x))), axis=1)


def test_a_thousand_pairs_break_no_certificate(trained, network):
  """Uniform directions, to the very edge of the certified ball, without clipping."""
  x = data.to_float(trained[1].images)
  proof = evaluate.margin_certificate(network, x)
  assert (proof.radius > 0.05).sum() > 40 and (proof.label == trained[1].labels).mean() > 0.9
  rng = np.random.default_rng(2)
  row = rng.integers(0, len(x), 1000)
  away = rng.normal(size=(1000, *SHAPE))
  away *= (proof.radius[row] / np.linalg.norm(away.reshape(1000, -1), axis=1))[:, None, None, None]
  np.testing.assert_array_equal(labels_of(network, x[row] + away), proof.label[row])


def test_a_strong_attack_breaks_no_certificate(trained, network):
  model_fn, images = trained
  x = data.to_float(images.images)
  proof = evaluate.margin_certificate(network, x)

  @jax.jit
  def attacked(model_fn, x, y, eps):
    def one(key, x, y, eps):
      attack = attacks.pgd(threats.l2(eps), step_size=eps / 4, num_steps=20, loss=attacks.margin)
      return attack(key[None], model_fn, x[None], y[None])[0]

    return jax.vmap(one)(jax.random.split(jax.random.key(3), len(x)), x, y, eps)

  def labels_at(eps):
    moved = attacked(model_fn, x, proof.label.astype(np.int32), np.float32(eps))
    return labels_of(network, np.asarray(moved))

  np.testing.assert_array_equal(labels_at(0.999 * proof.radius), proof.label)
  assert (labels_at(3 * proof.radius + 0.1) != proof.label).mean() > 0.5, 'the attack works beyond'


def test_float64_logits_are_within_their_bound_of_80_bits(trained, network):
  """The whole SOC network anew, in `longdouble`: off by less than the bound, which is tiny."""
  module, variables = models.module_of(trained[0]), trained[0].args[0]
  x = data.to_float(trained[1].images[:3])
  y = np.longdouble(x)
  for name, layer in module.known(variables):
    own = layers.subtree(variables, name)
    if isinstance(layer, layers.SOC):
      y = soc80(layer, own, y)
    elif isinstance(layer, layers.MaxMin):
      a, b = np.split(y, 2, axis=-1)
      y = np.concatenate([np.maximum(a, b), np.minimum(a, b)], axis=-1)
  with parallel.x64():
    error = np.abs(np.asarray(network.operator(np.float64(x))) - y.reshape(3, -1)).max()
  assert 1e-18 < error <= network.rounding < 1e-9
  assert 1 < network.lipschitz < 1 + 1e-9


def soc80(layer, variables, x):
  """SOC in evaluation: Taylor's series of the normalised skew filter, zeros around the image."""
  n = layer.strides
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // n, n, width // n, n, channels).transpose(0, 1, 3, 5, 2, 4)
  x = x.reshape(batch, height // n, width // n, channels * n * n)
  kernel = np.longdouble(variables['params']['kernel'])
  kernel = (kernel - kernel[::-1, ::-1].swapaxes(2, 3)) / 2
  kernel *= np.longdouble(layer.bound) / np.longdouble(variables['spectral']['norm'])
  x = np.pad(x, ((0, 0),) * 3 + ((0, kernel.shape[2] - x.shape[-1]),))
  total = term = x
  for degree in range(1, 13):
    pad = kernel.shape[0] // 2
    framed = np.pad(term, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, kernel.shape[:2], axis=(1, 2))
    term = np.einsum('bhwcij,ijcd->bhwd', windows, kernel) / degree
    total = total + term
  return total[..., : layer.features] + np.longdouble(variables['params']['bias'])


def lines(network, images, **options):
  return [json.dumps(record) for record, _ in evaluate.margin_records(network, images, **options)]


def test_records_are_certificates_whatever_the_shard(trained, network):
  images = trained[1]
  whole = lines(network, images)
  proof = evaluate.margin_certificate(network, data.to_float(images.images))
  assert [list(json.loads(line)) for line in whole] == [
    ['index', 'label', 'predict', 'radius']
  ] * 48
  assert [json.loads(line)['index'] for line in whole] == images.index.tolist()
  assert [json.loads(line)['predict'] for line in whole] == proof.label.tolist()
  assert [json.loads(line)['radius'] for line in whole] == proof.radius.tolist()
  for shard in range(5):
    part = data.Images(*(array[shard::5] for array in images))
    assert lines(network, part) == whole[shard::5]
  asked = iter([False] * 7 + [True])
  assert lines(network, images, stop=lambda: next(asked)) == whole[:7]


def test_slack_pays_for_other_programs(trained, network):
  """A program whose logits are slack / 2 away, in the worst direction, keeps its label at the edge."""
  images, slack = data.Images(*(array[:8] for array in trained[1])), 0.02
  for line, plain in zip(lines(network, images, slack=slack), lines(network, images), strict=True):
    record, alone = json.loads(line), json.loads(plain)
    assert {name: record[name] for name in alone} == alone
    assert record['slack_predict'] == alone['predict']
    lost = alone['radius'] - record['slack_radius']
    expected = min(slack / np.sqrt(2), alone['radius'])
    assert 0 <= lost - expected < 1e-8
  with pytest.raises(ValueError, match='`slack` must be a difference of logits'):
    evaluate.margin_certificate(network, data.to_float(images.images), slack=-1.0)


def test_rounding_is_never_free(trained, network):
  """A gap below twice the bound certifies nothing; and logits that are not finite abstain."""
  x = data.to_float(trained[1].images[:1])

  def returning(*logits):
    made = jax.tree_util.Partial(lambda x: 0 * x.sum() + jnp.asarray([logits], x.dtype))
    return evaluate.margin_certificate(network._replace(operator=made), x)

  assert returning(1.0, 1.0 - 1.9 * network.rounding, 0.0).radius == 0
  assert returning(1.0, 1.0 - 4.0 * network.rounding, 0.0).radius > 0
  for bad in (np.nan, np.inf, -np.inf):
    proof = returning(1.0, bad, 0.0)
    assert proof.label.tolist() == [-1] and proof.radius.tolist() == [0.0]


def test_float32_inside_a_model_is_seen():
  """The bound follows the coarsest width of the program, not what the caller hoped for."""
  kernel = np.random.default_rng(0).normal(size=(16, 5))
  single = functools.partial(Linear, dtype=jnp.float32)
  fine, coarse = (exact(bound_linear(make, kernel)) for make in (Linear, single))
  assert coarse.rounding == pytest.approx(fine.rounding * 2.0**29)
  assert fine.rounding < 1e-11 and coarse.rounding > 1e-6


@pytest.mark.parametrize(
  'layer', [layers.BCOP(2), layers.SLL(2), layers.SOC(2, padding='circular')]
)
def test_the_constant_is_that_of_the_float64_filters(layer):
  """Filters made in float32 are 1e-8 off orthogonal, and so is their constant."""
  module = nn.Sequential((layer, Row()))
  variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))
  network = exact(models.bind(module, variables), (4, 4, 2))
  float32 = isinstance(layer, layers.SOC)  # It caches matrices of complex64: the constant pays.
  assert (5e-8 if float32 else 0) < network.lipschitz - 1 < (1e-6 if float32 else 1e-8)
  assert 0 < network.rounding < 1e-10


def test_the_last_layer_with_rows_of_its_own():
  module = models.LipConvNet(3, width=2, last='normalized', std=(0.5,))
  variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))
  network = exact(models.bind(module, variables), (2, 2, 1))
  rows = np.asarray(variables['params']['last']['kernel'], np.float64).T
  rows *= 2 / np.linalg.norm(rows, axis=1, keepdims=True)
  for i, j in ((0, 1), (0, 2), (1, 2)):
    ours = np.linalg.norm(network.last_layer[i] - network.last_layer[j]) * network.lipschitz
    exactly = np.linalg.norm(rows[i] - rows[j])
    assert exactly < ours < exactly * (1 + 1e-8)


def test_nearly_equal_rows_are_farther_apart_than_their_rounding():
  same = np.ones((16, 2))
  same[0, 1] += 1e-7
  network = exact(bound_linear(kernel=same))
  for rows in (network.last_layer, exact(bound_linear(kernel=np.ones((16, 2)))).last_layer):
    assert np.linalg.norm(rows[0] - rows[1]) > 1e-7


@pytest.mark.parametrize(
  'model_fn, shape, said',
  [
    (lambda x: x, (4, 4, 1), 'this function does not: certify it under noise'),
    (functools.partial(bound_linear, Unbounded), (4, 4, 1), 'no finite Lipschitz constant'),
    (functools.partial(bound_linear, Looping), (4, 4, 1), 'loop of unknown length'),
    (bound_linear, (5, 4, 1), r'`model_fn` does not take float64 images of shape \(5, 4, 1\)'),
    (functools.partial(bound_linear, bias=np.nan), (4, 4, 1), '`variables` must be finite'),
  ],
)
def test_errors(model_fn, shape, said):
  made = (
    model_fn()
    if not isinstance(model_fn, type(lambda: 0)) or model_fn is bound_linear
    else model_fn
  )
  with pytest.raises(ValueError, match=said) as caught:
    exact(made, shape)
  assert '\n' not in str(caught.value).split(': ')[0]


def test_a_module_without_a_constant():
  module = models.build('digits-cnn', num_classes=10)
  variables = module.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
  with pytest.raises(ValueError, match='states its constant.*DigitsCNN does not.*--sigma 0.25'):
    exact(models.bind(module, variables), SHAPE)


def test_the_method_has_one_norm():
  assert certify.lipschitz() == certify.Margin('l2', 'pixel value')
  with pytest.raises(ValueError, match="`norm` of the lipschitz method is 'l2'.*got 'l1'"):
    certify.lipschitz(norm='l1')
