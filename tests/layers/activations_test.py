"""Activations: worked numbers, 1-Lipschitz over random pairs, norms kept, safe gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import layers

HH2_THETA = (0.4, 1.1, 2.0)


def pair(activation, x, *theta):
  theta = [jnp.array(t)[..., None] for t in theta]
  return np.asarray(activation(jnp.array(x), *theta))


def test_max_min_and_group_sort():
  x = jnp.array([1.0, -2.0, 3.0, 0.5])
  assert layers.max_min(x).tolist() == [3.0, 0.5, 1.0, -2.0]
  assert layers.group_sort(x, group_size=2).tolist() == layers.max_min(x).tolist()
  assert layers.group_sort(x, group_size=4).tolist() == [3.0, 1.0, 0.5, -2.0]


@pytest.mark.parametrize(
  'x, expected', [((1, -0.5), (0.442733344, 1.026638781)), ((-0.5, 1), (-0.5, 1))]
)
def test_householder(x, expected):
  x = np.float32(x)
  np.testing.assert_allclose(pair(layers.householder, x, 0.7), expected, atol=1e-6)
  np.testing.assert_allclose(pair(layers.householder, x, np.pi / 2), [x.min(), x.max()], atol=1e-6)


@pytest.mark.parametrize(
  'x, expected',
  [
    ((1, 0.5), (1, 0.5)),
    ((-0.3, 1), (1.034141478, -0.143357608)),
    ((-1, -0.4), (0.052427866, 1.075756161)),
    ((0.5, -1), (0.071112155, 1.115770165)),
    ((1, 0.1), (0.960002828, 0.297312243)),
  ],
)
def test_householder_of_order_two(x, expected):
  y = pair(layers.householder2, np.float32(x), HH2_THETA)
  np.testing.assert_allclose(y, expected, atol=1e-6)


def test_an_angle_that_rounds_to_two_pi_has_a_sector():
  """Just below the first ray, mod(-tiny, 2 pi) is 2 pi itself: the last sector must hold it."""
  half = HH2_THETA[0] / 2
  below = np.sin(half) - np.arange(20) * 2.0**-27
  x = jnp.asarray(np.stack([np.full(20, np.cos(half)), below], 1), jnp.float32)
  z = jnp.mod(jnp.arctan2(x[:, 1], x[:, 0]) - jnp.float32(half), 2 * jnp.pi)
  assert np.any(z == np.float32(2 * np.pi))
  y = layers.householder2(x, jnp.array(HH2_THETA)[:, None])
  np.testing.assert_allclose(y, x, atol=1e-6)  # The ray and its neighbours stay where they are.


@pytest.mark.parametrize(
  'x, expected',
  [
    ((1, 2), 1.275739585),
    ((-1, 0.2), 1.019803903),
    ((1, -2), 1.275739585),
    ((1, 0.1), -0.391667282),
  ],
)
def test_lip_pool(x, expected):
  np.testing.assert_allclose(pair(layers.lip_pool, np.float32(x), 1.0), [expected], atol=1e-6)


def test_lip_pool_at_its_widest_angle_is_minus_the_first():
  x = np.float32([[0.3, 0], [-0.3, 0], [2, 1], [2, -1]])
  got = [pair(layers.lip_pool, row, np.pi)[0] for row in x]
  np.testing.assert_allclose(got, -x[:, 0], atol=1e-6)


def angles(shape, high):
  return jnp.asarray(np.random.default_rng(1).uniform(0, high, shape), jnp.float32)


ISOMETRIES = {
  'max_min': layers.max_min,
  'group_sort': lambda x: layers.group_sort(x, group_size=4),
  'householder': lambda x: layers.householder(x, angles(32, 2 * np.pi)),
  'householder2': lambda x: layers.householder2(x, angles((3, 32), 2 * np.pi)),
  'beta_abs': lambda x: layers.beta_abs(x, beta=0.5),
}
ALL = {**ISOMETRIES, 'lip_pool': lambda x: layers.lip_pool(x, angles(32, np.pi))}


@pytest.mark.parametrize('name', ALL)
def test_no_pair_of_points_is_driven_apart(name):
  """Near and far pairs: a jump between two sectors would show in the near ones."""
  rng = np.random.default_rng(0)
  x = rng.standard_normal((4000, 64))
  step = rng.standard_normal(x.shape) * 10.0 ** rng.uniform(-3, 1, (4000, 1))
  a, b = jnp.asarray(x, jnp.float32), jnp.asarray(x + step, jnp.float32)
  activation = jax.jit(ALL[name])
  distance = lambda u, v: np.linalg.norm(np.float64(u) - np.float64(v), axis=-1)
  assert np.all(distance(activation(a), activation(b)) <= distance(a, b) + 1e-5)


@pytest.mark.parametrize('name', ISOMETRIES)
def test_norms_are_kept(name):
  x = jax.random.normal(jax.random.key(0), (500, 64))
  y = jax.jit(ISOMETRIES[name])(x)
  np.testing.assert_allclose(jnp.linalg.norm(y, axis=1), jnp.linalg.norm(x, axis=1), rtol=1e-6)


def test_l2_pool_keeps_the_norm_of_an_image():
  x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
  y = layers.l2_pool(x, window=(2, 3))
  assert y.shape == (2, 2, 2, 3)
  np.testing.assert_allclose(jnp.linalg.norm(y), jnp.linalg.norm(x), rtol=1e-6)
  with pytest.raises(ValueError, match='`window` must divide the image'):
    layers.l2_pool(x, window=(3, 3))


def test_gradients_at_zero_are_finite():
  zero = jnp.zeros((1, 2, 2, 4))
  pool = lambda x: jnp.sum(layers.l2_pool(x, window=(2, 2)))
  assert np.isfinite(jax.grad(pool)(zero)).all()
  for layer in (layers.Householder(), layers.Householder(order=2), layers.LipPool()):
    variables = layer.init(jax.random.key(0), zero)
    loss = lambda variables, x, layer=layer: jnp.sum(layer.apply(variables, x))
    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1)))(variables, zero)):
      assert np.isfinite(leaf).all()


@pytest.mark.parametrize(
  'layer',
  [layers.MaxMin(), layers.GroupSort(4), layers.Householder(), layers.Householder(order=2),
   layers.LipPool()],
  ids=repr,
)  # fmt: skip
def test_layers_state_one_and_refuse_odd_channels(layer):
  x = jax.random.normal(jax.random.key(0), (2, 3, 3, 8))
  variables = layer.init(jax.random.key(1), x)
  assert layers.lipschitz_upper(layer, variables) == 1
  cached = layers.materialize(layer, variables)
  np.testing.assert_array_equal(cached(x), layer.apply(variables, x))
  with pytest.raises(ValueError, match='equal parts, got 7 channels'):
    layer.init(jax.random.key(1), x[..., :7])
