"""Curvature certificates over a data set, of smooth networks and of curvature heads: no broken proof."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import (
  attacks,
  bounds,
  certify,
  data,
  evaluate,
  layers,
  models,
  parallel,
  prove,
  threats,
)

SHAPE = (2, 2, 1)
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (8, *SHAPE)).astype(np.uint8)
IMAGES = data.Images(X, np.arange(8, dtype=np.int32) % 3, np.arange(8) * 3)
PIXELS = data.to_float(X)


def scaled(variables, factor):
  return jax.tree.map(lambda leaf: np.float32(factor) * np.asarray(leaf), variables)


@pytest.fixture(scope='module')
def smooth():
  """(model_fn, network) of a sigmoid network with a normalisation, which bends visibly."""
  module = models.MLP(3, hidden=(12,), mean=(0.5,), std=(0.25,))
  variables = scaled(module.init(jax.random.key(0), PIXELS[:1]), 2.5)
  model_fn = models.bind(module, variables)
  return model_fn, evaluate.curved_network(model_fn, certify.crc(), shape=SHAPE)


@pytest.fixture(scope='module')
def headed():
  """(module, variables, network): two orthogonal layers, then a curvature head whose logits bend."""
  module = models.LipConvNet(3, width=2, last='curvature', hidden=12, beta=2.0, std=(0.5,))
  variables = jax.tree.map(np.asarray, jax.jit(module.init)(jax.random.key(1), PIXELS[:1]))
  params = {**variables['params'], 'last': scaled(variables['params']['last'], 2.0)}
  variables = {**variables, 'params': params}
  return module, variables, evaluate.exact_network(models.bind(module, variables), shape=SHAPE)


def lines(make, network, images, **options):
  return [record for record, _ in make(network, images, **options)]


def test_of_a_smooth_network(smooth):
  """Equal to `bounds.crc` of its matrices, made anew here; constants are kept to 24 bits, upwards."""
  model_fn, network = smooth
  params = model_fn.args[0]['params']
  weights = [np.float64(params[name]['kernel']).T for name in ('dense0', 'dense1')]
  biases = [np.float64(params[name]['bias']) for name in ('dense0', 'dense1')]
  weights[0], biases[0] = weights[0] / 0.25, biases[0] - weights[0].sum(axis=1) * 0.5 / 0.25
  exact = bounds.crc(PIXELS, weights, biases, activation='sigmoid')
  proof = evaluate.curved_certificate(network, PIXELS)
  assert proof.label.tolist() == exact.label.tolist() == np.argmax(model_fn(PIXELS), 1).tolist()
  np.testing.assert_allclose(proof.radius, exact.radius, rtol=1e-5)
  assert (proof.radius <= exact.radius * (1 + 1e-8)).all() and (proof.radius > 0.01).all()
  m = bounds.curvature(*weights, activation='sigmoid')
  off = ~np.eye(3, dtype=bool)
  assert (network.smooth.curvature[off] > m[off]).all()
  assert network.constants['curvature'] == np.float32(network.constants['curvature'])


def test_the_strongest_attack_breaks_no_certificate(smooth):
  """CRA at the very edge of each ball, beyond [0, 1]; half as far again it wins against some."""
  model_fn, network = smooth
  proof = evaluate.curved_certificate(network, PIXELS)
  with parallel.x64():
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), model_fn)
    x, y = jnp.asarray(PIXELS, jnp.float64), jnp.asarray(proof.label, jnp.int32)
    worst = jax.jit(lambda rival, eps: attacks.worst_in_ball(
      wide, x, y, rival, eps, curvature=network.smooth.curvature
    ).value)  # fmt: skip
    value = lambda factor: np.array([
      worst((y + step) % 3, factor * radius)[i]
      for step in (1, 2)
      for i, radius in enumerate(proof.radius)
    ])  # fmt: skip
    assert (value(1.0) > 0).all() and (value(1.5) < 0).sum() >= 3


def test_records_are_certificates_whatever_the_shard(smooth):
  _, network = smooth
  proof = evaluate.curved_certificate(network, PIXELS)
  whole = lines(evaluate.curved_records, network, IMAGES)
  assert [list(record) for record in whole] == [['index', 'label', 'predict', 'radius']] * 8
  assert [record['index'] for record in whole] == IMAGES.index.tolist()
  assert [record['predict'] for record in whole] == proof.label.tolist()
  assert [record['radius'] for record in whole] == proof.radius.tolist()
  for shard in range(3):
    part = data.Images(*(array[shard::3] for array in IMAGES))
    assert lines(evaluate.curved_records, network, part) == whole[shard::3]
  asked = iter([False] * 5 + [True])
  stopped = lines(evaluate.curved_records, network, IMAGES, stop=lambda: next(asked))
  assert stopped == whole[:5]
  slack = lines(evaluate.curved_records, network, IMAGES, slack=0.05)
  again = evaluate.curved_certificate(network, PIXELS, slack=0.05)
  assert [record['slack_radius'] for record in slack] == again.radius.tolist()
  assert (again.radius < proof.radius).all() and (again.radius > 0).any()


def test_proved_in_one_line(smooth):
  model_fn, network = smooth
  run = prove(model_fn, PIXELS, IMAGES.labels, method='crc')
  proof = evaluate.curved_certificate(network, PIXELS)
  assert run.certificate.radius.tolist() == proof.radius.tolist()
  assert run.header == {'norm': 'l2', 'unit': 'pixel value', 'quantifier': 'exact'}


def test_nan_proves_nothing(smooth, headed):
  x = PIXELS[:2].copy()
  x[0, 0, 0, 0] = np.nan
  for proof in (
    evaluate.curved_certificate(smooth[1], x),
    evaluate.margin_certificate(headed[2], x),
  ):
    assert proof.label[0] == certify.ABSTAIN and proof.radius[0] == 0 and proof.label[1] >= 0


def features_of(headed, x):
  """float64 features below the head, and its matrices."""
  module, variables, _ = headed
  with parallel.x64():
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
    z = np.asarray(module.clone(last=None).apply(wide, jnp.asarray(x, jnp.float64)))
  params = variables['params']['last']
  read = lambda name: (np.float64(params[name]['kernel']).T, np.float64(params[name]['bias']))
  return z, dict(zip(('first', 'first_bias', 'last', 'last_bias'), (*read('first'), *read('last')),
    strict=True))  # fmt: skip


def test_of_a_curvature_head(headed):
  """The larger of two radii in its features, over L = 1 / std; both win somewhere."""
  module, variables, network = headed
  z, head = features_of(headed, PIXELS)
  logits = np.logaddexp(0, 2 * (z @ head['first'].T + head['first_bias'])) / 2
  logits = logits @ head['last'].T + head['last_bias']
  np.testing.assert_allclose(logits, module.apply(variables, PIXELS), atol=1e-5)
  m = bounds.curvature(head['first'], head['last'], beta=2.0)
  curved = certify.curvature_margin(*bounds.expansion(z, **head, curvature=m, beta=2.0)).radius / 2
  rows = head['last'] * np.linalg.norm(head['first'], 2)
  straight = certify.margin(logits, last_layer=rows, lipschitz=2.0).radius
  proof = evaluate.margin_certificate(network, PIXELS)
  best = np.maximum(curved, straight)
  assert proof.label.tolist() == np.argmax(logits, axis=1).tolist()
  np.testing.assert_allclose(proof.radius, best, rtol=1e-6)
  assert (proof.radius < best).all() and (curved > 1.1 * straight).any()
  assert network.num_classes == 3 and network.constants['curvature'] >= m.max()
  np.testing.assert_allclose(module.last_layer(variables), 2 * rows, rtol=1e-6)
  assert layers.lipschitz_upper(module, variables) == pytest.approx(
    2 * np.linalg.norm(head['first'], 2) * np.linalg.norm(head['last'], 2), rel=1e-6
  )


def test_the_lipschitz_constant_of_a_head_counts_where_it_proves_more(headed):
  """Far out every softplus is straight: curvature loses there, as on a paraboloid."""
  z, head = features_of(headed, PIXELS)
  far = {**head, 'first_bias': head['first_bias'] + 40.0}
  m = 50 * bounds.curvature(head['first'], head['last'], beta=2.0)
  apart = np.linalg.norm(head['last'][:, None] - head['last'], axis=2)
  steepest = apart * np.linalg.norm(head['first'], 2)
  network = headed[2]._replace(head=evaluate.SmoothHead(far, 2.0, m, steepest))
  around = bounds.expansion(z, **far, curvature=m, beta=2.0)
  curved = certify.curvature_margin(*around).radius / 2
  gap = np.where(np.arange(3) == around.label[:, None], np.inf, around.gap)
  straight = np.min(gap / np.where(np.isinf(gap), 1, steepest[around.label]), axis=1) / 2
  assert (straight > 1.1 * curved).any()
  proof = evaluate.margin_certificate(network, PIXELS)
  np.testing.assert_allclose(proof.radius, np.maximum(curved, straight), rtol=1e-6)


def test_an_attack_breaks_no_certificate_of_a_curvature_head(headed):
  module, variables, network = headed
  model_fn = models.bind(module, variables)
  proof = evaluate.margin_certificate(network, PIXELS)
  assert (proof.radius > 0.01).sum() >= 6

  def attacked(key, x, y, eps):
    attack = attacks.pgd(threats.l2(eps), step_size=eps / 6, num_steps=30, loss=attacks.margin)
    return attack(key[None], model_fn, x[None], y[None])[0]

  keys, y = jax.random.split(jax.random.key(3), 8), np.int32(proof.label)
  labels = jax.jit(lambda eps: jnp.argmax(model_fn(jax.vmap(attacked)(keys, PIXELS, y, eps)), 1))
  np.testing.assert_array_equal(labels(np.float32(0.999 * proof.radius)), proof.label)
  assert (np.asarray(labels(np.float32(4 * proof.radius))) != proof.label).any()


def test_slack_of_a_curvature_head(headed):
  """The gaps must exceed the slack all over the ball: the closed form, by hand."""
  network = headed[2]
  z, head = features_of(headed, PIXELS)
  m = bounds.curvature(head['first'], head['last'], beta=2.0)
  around = bounds.expansion(z, **head, curvature=m, beta=2.0)
  rows = head['last'] * np.linalg.norm(head['first'], 2)
  steepest = np.linalg.norm(rows[:, None] - rows, axis=2)[around.label]
  less = around._replace(gap=around.gap - 0.1)
  radii = [
    certify.curvature_margin(*part).radius / 2
    for part in (less, less._replace(slope=steepest, curvature=0 * steepest))
  ]
  found = lines(evaluate.margin_records, network, IMAGES, slack=0.1)
  np.testing.assert_allclose(
    [record['slack_radius'] for record in found], np.maximum(*radii), rtol=1e-6, atol=1e-9
  )
  assert all(record['slack_radius'] < record['radius'] for record in found)


@pytest.mark.parametrize(
  'make, shape, said',
  [
    (lambda: lambda x: x, SHAPE, "`method`='crc' needs a fully connected network .* this function"),
    (lambda: models.bind(models.LipConvNet(3), {}), SHAPE, 'LipConvNet is none: certify it under'),
    (None, (4, 4, 1), r'does not take images of shape \(4, 4, 1\): it was made for 4 pixel values'),
  ],
)
def test_errors(smooth, make, shape, said):
  with pytest.raises(ValueError, match=said):
    evaluate.curved_network(make() if make else smooth[0], certify.crc(), shape=shape)


def test_what_a_head_belongs_to():
  with pytest.raises(ValueError, match='`last` must be one of orthogonal, normalized; got'):
    module = models.build('kwlarge-small-soc', num_classes=3).clone(last='curvature')
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  for name in ('lipconvnet5-soc-crc', 'lipconvnet40-soc-crc', 'lipconvnet5-small-soc-crc'):
    module = models.build(name, num_classes=10)
    assert (module.last, module.pool) == ('curvature', 'lip')
  with pytest.raises(ValueError, match="`norm` of the crc method is 'l2'.*got 'linf'"):
    certify.crc(norm='linf')
