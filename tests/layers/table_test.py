"""Every layer with a known constant, in one table: Jacobian, norms, gradients, cache, errors.

The Jacobian is unrolled at a random point, so that its singular values are those of the map
the layer applies there; the stated constant must not be below the largest.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from certjax import layers, parallel

TOLERANCE = 1e-5  # float32 products of a few dozen terms


class Row(NamedTuple):
  """A layer of the table; `paddings` are those with which it keeps the norm."""

  make: type
  paddings: tuple = ()
  options: dict = {}


TABLE = {
  'SOC': Row(layers.SOC, ('zero', 'circular'), dict(eval_degree=12)),
  'SOC chebyshev': Row(layers.SOC, ('zero', 'circular'), dict(series='chebyshev', eval_degree=8)),
  'BCOP': Row(layers.BCOP, ('circular',), dict(num_steps=30)),
  'Cayley': Row(layers.Cayley, ('circular',)),
  'LOT': Row(layers.LOT, ('circular',), dict(num_steps=30)),
  'BRO': Row(layers.BRO, ('circular',)),
  'RKO': Row(layers.RKO),
  'AOL': Row(layers.AOL),
  'SLL': Row(layers.SLL),
  'CPL': Row(layers.CPL),
}
CONVOLUTIONS = list(TABLE)

# size, channels, features, strides, padding
SHAPES = {
  'square': (4, 4, 4, 1, 'circular'),
  'strided and wider': (4, 1, 6, 2, 'zero'),
  'narrower': (3, 4, 2, 1, 'circular'),
}


def build(name, features, strides=1, padding='circular', kernel_size=3):
  row = TABLE[name]
  return row.make(
    features, kernel_size=kernel_size, strides=strides, padding=padding, **row.options
  )


@functools.cache
def case(name, shape):
  """(layer, variables, image, output, Jacobian)."""
  size, channels, features, strides, padding = SHAPES[shape]
  layer = build(name, features, strides, padding)
  keys = jax.random.split(jax.random.key(0))
  x = jax.random.normal(keys[0], (1, size, size, channels))
  variables = at_random(layer, keys[1], x)

  @jax.jit
  def unrolled(variables, x):
    y, pull = jax.vjp(functools.partial(layer.apply, variables), x)
    basis = jnp.eye(y.size).reshape(y.size, *y.shape)
    return y, jax.vmap(pull)(basis)[0].reshape(y.size, x.size)

  y, jacobian = unrolled(variables, x)
  return layer, variables, x, np.asarray(y), np.asarray(jacobian, np.float64)


def at_random(layer, key, x):
  """Variables with random parameters: a trained layer is not at the special point it starts at."""
  shapes = jax.eval_shape(layer.init, key, x)
  if set(shapes['spectral']) == {'input'}:  # Nothing is estimated: no need to run the layer.
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  else:
    variables = jax.jit(layer.init)(key, x)
  leaves, tree = jax.tree.flatten(variables['params'])
  keys = jax.random.split(key, len(leaves))
  draw = lambda k, leaf: leaf + 0.3 * jax.random.normal(k, leaf.shape, leaf.dtype)
  leaves = [draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)]
  return {**variables, 'params': jax.tree.unflatten(tree, leaves)}


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_norms(name, shape):
  layer, variables, x, y, jacobian = case(name, shape)
  size, channels, features, strides, padding = SHAPES[shape]
  assert y.shape == (1, size // strides, size // strides, features)
  values = np.linalg.svd(jacobian, compute_uv=False)
  v = np.random.default_rng(0).standard_normal((x.size, 20))
  ratios = np.linalg.norm(jacobian @ v, axis=0) / np.linalg.norm(v, axis=0)
  assert values.max() <= 1 + TOLERANCE and ratios.max() <= 1 + TOLERANCE
  if padding not in TABLE[name].paddings:
    assert values.min() < 1 - 1e-3  # A layer that keeps the norm belongs in the other list.
    return
  np.testing.assert_allclose(values, 1, atol=TOLERANCE)
  if features >= channels * strides**2:
    np.testing.assert_allclose(ratios, 1, atol=TOLERANCE)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_the_stated_constant_and_the_cached_operator(name, shape):
  layer, variables, x, y, jacobian = case(name, shape)
  bound = layers.lipschitz_upper(layer, variables)
  assert np.linalg.norm(jacobian, 2) <= bound * (1 + 1e-6)  # of the float32 Jacobian itself
  assert 1 <= bound < 1 + TOLERANCE
  np.testing.assert_allclose(layers.materialize(layer, variables)(x), y, atol=TOLERANCE)


@pytest.mark.parametrize('name', ['SLL', 'CPL'])
def test_pairs_never_move_farther_apart_than_the_constant(name):
  """Far pairs and near ones of the layers that are not affine: one Jacobian is not all of them."""
  layer, variables, image, *_ = case(name, 'square')
  keys = jax.random.split(jax.random.key(3))
  a = 3 * jax.random.normal(keys[0], (100, *image.shape[1:]))
  b = a + jnp.geomspace(1e-2, 10, 100).reshape(-1, 1, 1, 1) * jax.random.normal(keys[1], a.shape)
  y = np.asarray(jax.jit(layer.apply)(variables, jnp.concatenate([a, b])), np.float64)
  norm = lambda z: np.linalg.norm(np.asarray(z, np.float64).reshape(100, -1), axis=1)
  moved, apart = norm(y[:100] - y[100:]), norm(a - b)
  assert np.all(moved <= layers.lipschitz_upper(layer, variables) * apart * (1 + TOLERANCE) + 1e-5)
  assert np.var(y, axis=0).sum() <= np.var(np.concatenate([a, b]), axis=0).sum() * (1 + TOLERANCE)


@pytest.mark.parametrize('name', ['BCOP', 'Cayley', 'RKO', 'AOL'])
def test_the_constant_is_measured_not_assumed(name):
  """An operator twice too large gives 2: the theorem's 1 alone would not notice."""
  base = TABLE[name].make

  class Doubled(base):
    def operator(self, params, size):
      return 2 * super().operator(params, size)

  _, variables, *_ = case(name, 'square')
  bound = layers.lipschitz_upper(Doubled(4, **TABLE[name].options), variables)
  assert 1.9 <= bound <= 2 * (1 + TOLERANCE)  # A reshape of RKO may know better than the theorem.


@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_gradients_equal_finite_differences(name):
  layer = build(name, 2, padding='circular')
  with parallel.x64():
    x = jax.random.normal(jax.random.key(1), (1, 3, 3, 2))
    variables = jax.tree.map(lambda a: a.astype(float), at_random(layer, jax.random.key(0), x))
    rest = {kind: tree for kind, tree in variables.items() if kind != 'params'}
    loss = jax.jit(lambda params, x: jnp.sum(jnp.sin(layer.apply({**rest, 'params': params}, x))))
    check_grads(loss, (variables['params'], x), order=1, modes=('rev',), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_errors_are_one_clear_line(name):
  key, x = jax.random.key(0), jnp.ones((1, 4, 4, 2))
  refused(r'`kernel_size` must be odd.* 4', lambda: build(name, 2, kernel_size=4).init(key, x))
  refused(r'`strides` must divide the image.*3.*4 x 4', lambda: build(name, 2, 3).init(key, x))
  layer, variables, image, *_ = case(name, 'square')
  refused(r'4 channels.*got 3', lambda: layer.apply(variables, image[..., :3]))
  broken = jax.tree.map(lambda a: a.at[(0,) * a.ndim].set(jnp.nan), variables)
  refused('finite', lambda: layers.lipschitz_upper(layer, broken))
  refused('finite', lambda: layers.materialize(layer, broken))


@pytest.mark.parametrize(
  'make', [layers.OrthogonalLinear, layers.CayleyLinear, layers.NormalizedLinear, None]
)
def test_errors_of_matrices_are_one_clear_line(make):
  layer, x = make(3) if make else layers.LipNeXtBlock(), jnp.ones((1, 2, 2, 3))
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  refused(r'3 channels.*got 2', lambda: layer.apply(variables, x[..., :2]))
  kernel = variables['params']['kernel'].at[0, 0].set(jnp.inf)
  broken = {**variables, 'params': {**variables['params'], 'kernel': kernel}}
  refused('finite', lambda: layers.lipschitz_upper(layer, broken))
  refused('finite', lambda: layers.materialize(layer, broken))
  if make:
    refused('`features` must be a positive integer', lambda: make(0).init(jax.random.key(0), x))


def refused(pattern, call):
  with pytest.raises(ValueError, match=pattern) as error:
    call()
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['Cayley', 'LOT', 'BRO'])
def test_an_operator_of_one_size_refuses_another(name):
  layer, variables, image, *_ = case(name, 'square')
  refused('4 x 4 pixels', lambda: layer.apply(variables, image[:, :3]))
  lonely = {'params': variables['params']}
  refused('spectral', lambda: layers.lipschitz_upper(layer, lonely))
