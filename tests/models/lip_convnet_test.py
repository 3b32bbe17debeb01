"""LipConvnets: the published size, the guards that a Lipschitz network must pass, no broken proof."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, certify, layers, models, threats

KEY = jax.random.key(0)
STD = (0.25,)
X = np.random.default_rng(0).uniform(0, 1, (24, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope='module', params=['soc', 'bcop', 'cayley'])
def network(request):
  """(module, variables, logits function) of an untrained network whose logits spread."""
  module = models.build(f'lipconvnet5-small-{request.param}', num_classes=4, mean=(0.5,), std=STD)
  variables = jax.jit(module.init)(KEY, X[:1])
  return module, variables, jax.jit(lambda x: module.apply(variables, x))


def test_published_number_of_weights():
  module = models.build('lipconvnet5-soc', num_classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)
  shapes = jax.eval_shape(module.init, KEY, jnp.zeros((1, 32, 32, 3)))['params']
  kernels = [leaf.size for path, leaf in jax.tree.leaves_with_path(shapes) if leaf.ndim > 1]
  assert sum(kernels) == 17_666_048


def test_stages_follow_the_image():
  for side, stages in ((8, 3), (28, 5), (32, 5)):
    module = models.LipConvNet(10, width=2)
    names = jax.eval_shape(module.init, KEY, jnp.zeros((1, side, side, 1)))['params']
    assert sorted(name for name in names if name.startswith('conv')) == [
      f'conv{stage + 1}_0' for stage in range(stages)
    ]


def test_pairs_never_move_farther_apart_than_the_constant(network):
  module, variables, logits = network
  bound = layers.lipschitz_upper(module, variables)
  assert 1 / STD[0] <= bound < 1.01 / STD[0]
  rng = np.random.default_rng(1)
  others = np.concatenate(
    [X[::-1], X + 1e-2 * rng.normal(size=X.shape).astype(np.float32), np.zeros_like(X)]
  )
  apart = np.linalg.norm((np.tile(X, (3, 1, 1, 1)) - others).reshape(72, -1), axis=1)
  moved = np.linalg.norm(np.tile(logits(X), (3, 1)) - logits(others), axis=1)
  assert (moved <= bound * apart * (1 + 1e-5) + 1e-5).all()
  assert moved.max() > 0.1 * bound * apart.min()


def test_activation_variance_never_grows(network):
  """Total variance over a batch can only shrink through maps that expand nothing."""
  module, variables, _ = network
  y, variances = module.frame(X), []
  for name, layer in module.known(variables):
    y = layer.apply(layers.subtree(variables, name), y)
    variances.append(float(np.var(np.asarray(y).reshape(len(X), -1), axis=0).sum()))
  entering = np.var((X - 0.5).reshape(len(X), -1) / STD[0], axis=0).sum()
  assert all(
    after <= before * (1 + 1e-4)
    for before, after in zip([entering, *variances], variances, strict=False)
  )
  assert variances[-1] > 0


@pytest.mark.usefixtures('optimized')  # Its attack runs longer than it compiles.
def test_attacks_break_no_certificate(network):
  module, variables, logits = network
  bound = layers.lipschitz_upper(module, variables)
  proof = certify.margin(np.asarray(logits(X), np.float64), lipschitz=bound, slack=1e-5)
  assert (proof.radius > 0).sum() > 12

  @jax.jit
  def attacked(variables, x, y, eps):
    model_fn = lambda x: module.apply(variables, x)
    attack = attacks.pgd(threats.l2(eps), step_size=eps / 3, num_steps=8, loss=attacks.margin)
    return attack(jax.random.key(2), model_fn, x, y)

  def labels_at(eps):
    moved = [
      attacked(variables, X[i : i + 1], proof.label[i : i + 1].astype(np.int32), np.float32(eps[i]))
      for i in range(len(X))
    ]
    return np.argmax(logits(np.concatenate(moved)), axis=1)

  np.testing.assert_array_equal(labels_at(0.999 * proof.radius), proof.label)
  assert (labels_at(np.full(len(X), 8.0)) != proof.label).any(), 'the attack works beyond'


def test_batch_order_and_cached_filters_change_nothing(network):
  module, variables, logits = network
  order = np.random.default_rng(3).permutation(len(X))
  full = np.asarray(logits(X))
  np.testing.assert_allclose(logits(X[order]), full[order], atol=1e-5)
  np.testing.assert_allclose(layers.materialize(module, variables)(X), full, atol=1e-4)


def test_normalised_last_layer_has_its_own_rows():
  module = models.LipConvNet(4, width=4, last='normalized', std=STD, mean=(0.5,))
  variables = jax.jit(module.init)(KEY, X[:1])
  rows = module.last_layer(variables)
  norms = np.linalg.norm(rows, axis=1)
  np.testing.assert_allclose(norms, 1 / STD[0], rtol=1e-3)
  logits = module.apply(variables, X)
  alone = certify.margin(logits, lipschitz=layers.lipschitz_upper(module, variables))
  by_rows = certify.margin(logits, last_layer=rows)
  assert (by_rows.radius >= alone.radius * (1 - 1e-6)).all() and by_rows.radius.max() > 0
  assert models.LipConvNet(4).last_layer(variables) is None


@pytest.mark.parametrize(
  'fields, shape, said',
  [
    (dict(conv='plain'), (1, 8, 8, 1), '`conv` must be one of soc'),
    (dict(activation='relu'), (1, 8, 8, 1), '`activation` must be one of maxmin'),
    (dict(last='dense'), (1, 8, 8, 1), '`last` must be one of orthogonal'),
    (dict(width=3), (1, 8, 8, 1), '`width` even and positive'),
    (dict(blocks=0), (1, 8, 8, 1), '`blocks` must be at least 1'),
    (dict(width=2), (1, 1, 1, 1), 'of 2 x 2 pixels or more'),
  ],
)
def test_errors(fields, shape, said):
  with pytest.raises(ValueError, match=said):
    jax.eval_shape(models.LipConvNet(4, **fields).init, KEY, jnp.zeros(shape))


def test_module_of():
  module, variables = models.LipConvNet(4), {}
  assert models.module_of(models.bind(module, variables)) == module
  assert models.module_of(models.as_model_fn((module, variables))) == module
  assert models.module_of(lambda x: x) is None
