"""SOC: published numbers, exact gradients, constants that hold, state, cached operators, errors."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from flax import linen as nn
from jax import lax
from jax.test_util import check_grads

from certjax import layers, parallel

SERIES = (('taylor', 5, 'zero'), ('taylor', 12, 'circular'), ('chebyshev', 5, 'circular'),
          ('chebyshev', 8, 'zero'))  # fmt: skip
PADDINGS = ('zero', 'circular')


def _published_filter():
  """The skew filter M - transpose(M) of test case 1, HWIO."""
  m = np.sin(1 + 0.7 * np.arange(36)).reshape(2, 2, 3, 3).transpose(2, 3, 1, 0)
  return m - m[::-1, ::-1].swapaxes(2, 3)


def _bounded(bound=1.8):
  skew = _published_filter()
  return skew * (bound / layers.norm_upper(skew))


def _jacobian(f, shape):
  """The matrix of a linear map of one image of `shape`, column by column."""
  basis = jnp.eye(math.prod(shape)).reshape(-1, *shape)
  return np.asarray(f(basis) - f(jnp.zeros_like(basis)), np.float64).reshape(len(basis), -1).T


def _convolve(x, kernel, padding):
  """Convolution by JAX itself."""
  reach = kernel.shape[0] // 2
  if padding == 'circular':
    x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode='wrap')
  pads = 'VALID' if padding == 'circular' else 'SAME'
  return lax.conv_general_dilated(
    x, kernel, (1, 1), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision='highest'
  )


def _horner(x, kernel, series, degree, padding):
  """The same polynomial in Horner's form, differentiated by JAX."""
  power = [float(a) for a in layers.polynomial(series, degree, 1.8)]
  value = power[-1] * x
  for a in power[-2::-1]:
    value = a * x + _convolve(value, kernel, padding)
  return value


@functools.cache
def _initialised(layer, shape=(8, 8, 4), seed=0):
  x = jax.random.normal(jax.random.key(seed + 1), (3, *shape))
  return jax.jit(layer.init)(jax.random.key(seed), x), x


def _apply(layer, variables, x):
  return jax.jit(layer.apply)(variables, x)


@pytest.mark.parametrize(
  'padding,norm,frobenius',
  [('zero', 10.801111382, 21.336793), ('circular', 13.542716167, 26.274476)],
)
def test_published_skew_filter(padding, norm, frobenius):
  skew = _published_filter()
  first = [[0.52992962, 1.36554148, 1.55891784], [1.01911078, 0, -1.01911078],
           [-1.55891784, -1.36554148, -0.52992962]]  # fmt: skip
  second = [[0.50712169, 1.33183887, 1.53017141], [1.00884043, 0.01303603, -0.98889941],
            [-1.52574001, -1.34500125, -0.53168738]]  # fmt: skip
  np.testing.assert_allclose(skew[:, :, 0, 0], first, atol=1e-8)
  np.testing.assert_allclose(skew[:, :, 1, 0], second, atol=1e-8)  # Output 0, input 1.
  np.testing.assert_allclose(layers.skew_filter(skew), skew, atol=1e-15)
  with parallel.x64():
    matrix = _jacobian(lambda x: _convolve(x, jnp.asarray(skew), padding), (4, 4, 2))
  np.testing.assert_array_equal(matrix, -matrix.T)
  np.testing.assert_allclose(np.linalg.norm(matrix, 2), norm, atol=1e-8)
  np.testing.assert_allclose(np.linalg.norm(matrix), frobenius, atol=1e-6)
  exponential = scipy.linalg.expm(matrix)
  np.testing.assert_allclose(exponential.T @ exponential, np.eye(32), atol=2e-13)
  np.testing.assert_allclose(np.linalg.det(exponential), 1, atol=1e-12)


@pytest.mark.parametrize(
  'degree,error,bound', [(5, 3.386776e-3, 3.421865e-3), (11, 1.262900e-8, 1.267225e-8)]
)
def test_published_truncation(degree, error, bound):
  kernel = _bounded()
  with parallel.x64():
    kernel = jnp.asarray(kernel)
    matrix = _jacobian(lambda x: _convolve(x, kernel, 'zero'), (4, 4, 2))
    value = _jacobian(lambda x: layers.conv_exponential(x, kernel, degree=degree), (4, 4, 2))
  norm = np.linalg.norm(matrix, 2)
  np.testing.assert_allclose(norm, 1.162159924, atol=1e-8)
  np.testing.assert_allclose(np.linalg.norm(value - scipy.linalg.expm(matrix), 2), error, rtol=1e-5)
  np.testing.assert_allclose(norm ** (degree + 1) / math.factorial(degree + 1), bound, rtol=1e-5)
  singular = np.linalg.svd(value, compute_uv=False)
  if degree == 5:
    np.testing.assert_allclose(singular.max(), 1.001843108, atol=1e-8)
  assert singular.max() <= layers.series_lipschitz('taylor', degree, 1.8, norm + 1e-12) + 1e-14


@pytest.mark.parametrize('series,degree,padding', SERIES)
def test_singular_values_are_the_polynomial_on_the_spectrum(series, degree, padding):
  with parallel.x64():
    kernel = jnp.asarray(_bounded())
    matrix = _jacobian(lambda x: _convolve(x, kernel, padding), (5, 4, 2))
    value = _jacobian(
      lambda x: layers.conv_exponential(x, kernel, degree=degree, series=series, padding=padding),
      (5, 4, 2),
    )
  power = [float(a) for a in layers.polynomial(series, degree, 1.8)]
  expected = np.abs(np.polyval(power[::-1], np.linalg.eigvals(matrix)))
  np.testing.assert_allclose(
    np.linalg.svd(value, compute_uv=False), np.sort(expected)[::-1], atol=1e-13
  )


def _pulled(f, x, kernel, g):
  """The value of f and the pull-back of g, compiled."""

  @jax.jit
  def both(x, kernel, g):
    value, pull = jax.vjp(f, x, kernel)
    return value, pull(g)

  return both(x, kernel, g)


@pytest.mark.parametrize(
  'series,degree,padding', [*SERIES, ('taylor', 1, 'zero'), ('chebyshev', 2, 'circular')]
)
def test_gradients_equal_automatic_differentiation(series, degree, padding):
  rng = np.random.default_rng(0)
  with parallel.x64():
    kernel = jnp.asarray(_bounded())
    x, g = (jnp.asarray(rng.standard_normal((2, 5, 6, 2))) for _ in range(2))
    ours = lambda x, kernel, grad='exact': layers.conv_exponential(
      x, kernel, degree=degree, series=series, padding=padding, grad=grad
    )
    horner = lambda x, k: _horner(x, k, series, degree, padding)
    oracle, (dx, dl) = _pulled(horner, x, kernel, g)
    for grad in ('exact', 'approx'):
      value, (ours_dx, ours_dl) = _pulled(lambda x, k, grad=grad: ours(x, k, grad), x, kernel, g)
      np.testing.assert_allclose(value, oracle, atol=1e-13)
      np.testing.assert_allclose(ours_dx, dx, atol=1e-12)
      # The transpose of p(L) is p(-L), truncated or not.
      np.testing.assert_allclose(ours_dx, ours(g, -kernel), atol=1e-13)
      error = float(jnp.linalg.norm(ours_dl - dl) / jnp.linalg.norm(dl))
      if grad == 'exact' or degree == 1:
        assert error < 1e-12
      elif degree >= 5:
        assert 0.002 < error < 0.1  # Not the gradient: nobody may swap it in silently.


def test_second_derivatives():
  rng = np.random.default_rng(0)
  with parallel.x64():
    x = jnp.asarray(rng.standard_normal((1, 3, 3, 2)))
    m = jnp.asarray(0.3 * rng.standard_normal((3, 3, 2, 2)))

    @jax.jit
    def f(x, m):
      kernel = layers.skew_filter(m)
      return jnp.sin(layers.conv_exponential(x, kernel, degree=3, series='chebyshev'))

    check_grads(f, (x, m), order=2, modes=('rev',), atol=1e-5, rtol=1e-5)


def test_published_explicit_kernel():
  """The 11 x 11 filter of degree 5 equals the iteration for circular padding only."""
  kernel = _bounded()
  pixel = np.zeros((2, 23, 23, 2))
  pixel[[0, 1], 11, 11, [0, 1]] = 1
  image = np.sin(0.3 + 0.7 * np.arange(288)).reshape(2, 12, 12).transpose(1, 2, 0)[None]
  with parallel.x64():
    kernel, image = jnp.asarray(kernel), jnp.asarray(image)
    response = layers.conv_exponential(jnp.asarray(pixel), kernel, degree=5)
    explicit = jnp.transpose(response, (1, 2, 0, 3))[::-1, ::-1][6:17, 6:17]
    assert float(jnp.sum(jnp.abs(response))) == pytest.approx(float(jnp.sum(jnp.abs(explicit))))
    difference = {
      padding: np.abs(
        _convolve(image, explicit, padding)
        - layers.conv_exponential(image, kernel, degree=5, padding=padding)
      )[0]
      for padding in PADDINGS
    }
  assert difference['circular'].max() < 1e-14
  np.testing.assert_allclose(difference['zero'].max(), 0.204946, atol=1e-6)
  assert difference['zero'][5:7, 5:7].max() < 2e-15


def test_memory_does_not_grow_with_the_degree():
  x, kernel = jnp.ones((8, 16, 16, 8)), jnp.zeros((3, 3, 8, 8))

  def temporary(degree, f):
    loss = jax.jit(jax.grad(lambda x, k: jnp.sum(f(x, k, degree) ** 2), (0, 1)))
    return loss.lower(x, kernel).compile().memory_analysis().temp_size_in_bytes

  ours = lambda x, k, degree: layers.conv_exponential(x, k, degree=degree)
  horner = lambda x, k, degree: _horner(x, k, 'taylor', degree, 'zero')
  for degree in (20, 40):  # Beyond the few terms that are kept.
    assert temporary(degree, ours) <= 1.05 * temporary(10, ours)
  # In between, steps that the unrolled loops leave over hold two images more.
  assert temporary(14, ours) <= temporary(10, ours) + 3 * x.nbytes
  assert temporary(14, horner) > 1.5 * temporary(4, horner)  # What storing all terms costs.


CASES = [  # features, kernel, strides, image: the last two say whether norms are preserved.
  (7, 3, 1, (6, 5, 3), True), (8, 3, 2, (8, 6, 2), True),
  (5, 3, 2, (6, 6, 2), False), (2, 1, 1, (4, 4, 5), False), (4, 5, 1, (5, 6, 4), True),
  (9, 1, 3, (6, 6, 1), True),
]  # fmt: skip


@pytest.mark.parametrize('features,size,strides,shape,preserves', CASES)
def test_layer_keeps_norms_states_its_constant_and_materializes(
  features, size, strides, shape, preserves
):
  padding, series = ('zero', 'taylor') if features % 2 else ('circular', 'chebyshev')
  layer = layers.SOC(features, size, strides, padding=padding, series=series)
  variables, x = _initialised(layer, shape)
  y = _apply(layer, variables, x)
  assert y.shape == (3, shape[0] // strides, shape[1] // strides, features)
  matrix = _jacobian(lambda x: _apply(layer, variables, x), shape)
  singular = np.linalg.svd(matrix, compute_uv=False)
  constant = layers.lipschitz_upper(layer, variables)
  assert singular.max() <= constant + 1e-6 and constant <= 1 + 3e-6
  if preserves:
    assert singular.min() >= 1 - 1e-5
    centred = y - _apply(layer, variables, jnp.zeros_like(x))
    norms = [np.linalg.norm(np.asarray(a).reshape(3, -1), axis=1) for a in (centred, x)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
  operator = layers.materialize(layer, variables)
  np.testing.assert_allclose(jax.jit(operator)(x), y, atol=1e-5)
  leaf = jax.tree.leaves(operator)[0]
  assert leaf.ndim == (2 if size == 1 else 4)
  assert jnp.iscomplexobj(leaf) == (size > 1 and padding == 'circular')


@pytest.mark.parametrize('series,eval_degree', [('taylor', 6), ('chebyshev', 3)])
@pytest.mark.parametrize('factor', [1.0, 0.5])
def test_constant_holds_for_short_series_and_stale_norms(series, eval_degree, factor):
  """`factor` shrinks the stored norm: an estimate far too low makes a larger, but true, constant."""
  layer = layers.SOC(4, series=series, eval_degree=eval_degree, use_bias=False, kernel_size=1)
  variables, _ = _initialised(layers.SOC(4, use_bias=False, kernel_size=1), (1, 1, 4))
  norm = variables['spectral']['norm']
  variables = {**variables, 'spectral': {**variables['spectral'], 'norm': factor * norm}}
  matrix = _jacobian(lambda x: _apply(layer, variables, x), (1, 1, 4))
  constant = layers.lipschitz_upper(layer, variables)
  top = np.linalg.norm(matrix, 2)
  assert top - 1e-6 <= constant
  assert factor == 1 or constant > layers.series_lipschitz(series, eval_degree, 1.8) + 0.01
  # The bound of a 1 x 1 filter is its norm, so the worst eigenvalue attains the constant.
  ends = layers.series_lipschitz(series, eval_degree, 1.8, 1.8 / factor)
  np.testing.assert_allclose(constant, ends, rtol=1e-4)


def test_training_degree_state_and_evaluation():
  layer = layers.SOC(4, train_degree=3)
  variables, x = _initialised(layer)
  step = jax.jit(lambda v: layer.apply(v, x, train=True, mutable=['spectral']))
  y, updated = step(variables)
  old, new = variables['spectral'], updated['spectral']
  assert not np.array_equal(old['r'], new['r'])
  exact = layers.norm_upper(layers.skew_filter(variables['params']['kernel']))
  assert 0.9 * exact < new['norm'] <= exact * (1 + 1e-6)
  kernel = layers.skew_filter(variables['params']['kernel']) * (1.8 / new['norm'])
  bias = variables['params']['bias'].reshape(1, 1, 1, -1)
  np.testing.assert_allclose(y - bias, layers.conv_exponential(x, kernel, degree=3), atol=1e-5)
  # Evaluation moves nothing and reads the stored norm.
  _, same = jax.jit(lambda v: layer.apply(v, x, mutable=['spectral']))(variables)
  jax.tree.map(np.testing.assert_array_equal, same['spectral'], old)
  doubled = {**variables, 'spectral': {**old, 'norm': 2 * old['norm']}}
  assert np.abs(_apply(layer, doubled, x) - _apply(layer, variables, x)).max() > 0.01


def test_power_iterations_converge_over_training_steps():
  layer = layers.SOC(6)
  variables, x = _initialised(layer, (4, 4, 6))
  kernel = jax.random.normal(jax.random.key(9), (3, 3, 6, 6))  # As after an abrupt step.
  step = jax.jit(lambda v: layer.apply(v, x, train=True, mutable=['spectral'])[1])
  variables = {
    'params': {**variables['params'], 'kernel': kernel},
    **{'spectral': variables['spectral']},
  }
  exact = layers.norm_upper(layers.skew_filter(kernel))
  for _ in range(60):
    variables = {**variables, **step(variables)}
  np.testing.assert_allclose(variables['spectral']['norm'], exact, rtol=1e-3)


def test_parameter_gradients_go_through_the_norm():
  layer = layers.SOC(3, train_degree=4, use_bias=False, kernel_size=3)
  with parallel.x64():
    variables, _ = _initialised(layer, (4, 4, 3))
    x = jax.random.normal(jax.random.key(5), (1, 4, 4, 3), jnp.float64)
    variables = jax.tree.map(lambda a: a.astype(jnp.float64), variables)
    step = jax.jit(lambda v: layer.apply(v, x, train=True, mutable=['spectral'])[1])
    for _ in range(300):  # At the singular vectors the estimate's derivative is the norm's.
      variables = {**variables, **step(variables)}

    @jax.jit
    def f(params):
      return jnp.sin(layer.apply({**variables, 'params': params}, x, train=True))

    check_grads(f, (variables['params'],), order=1, modes=('rev',), atol=1e-5, rtol=1e-5)


def test_sequential_multiplies_constants_and_operators():
  model = nn.Sequential((layers.SOC(4, eval_degree=5), layers.SOC(8, strides=2, eval_degree=5)))
  variables, x = _initialised(model)
  single = layers.lipschitz_upper(model.layers[0], layers.subtree(variables, 'layers_0'))
  constant = layers.lipschitz_upper(model, variables)
  assert single > 1.003 and single**2 * 0.999 < constant < single**2 * 1.001
  operator = layers.materialize(model, variables)
  np.testing.assert_allclose(jax.jit(operator)(x), _apply(model, variables, x), atol=1e-5)
  a, b = np.random.default_rng(0).uniform(size=(2, 100, 8, 8, 4)).astype(np.float32)
  length = lambda d: np.linalg.norm(np.asarray(d, np.float64).reshape(100, -1), axis=1)
  outputs = length(_apply(model, variables, a) - _apply(model, variables, b))
  assert np.all(outputs <= constant * length(a - b) * (1 + 1e-6))


def test_filter_of_zeros_is_the_identity():
  layer = layers.SOC(4, use_bias=False)
  variables, x = _initialised(layer)
  variables = jax.tree.map(jnp.zeros_like, variables)
  np.testing.assert_allclose(_apply(layer, variables, x), x, rtol=1e-6)
  assert layers.lipschitz_upper(layer, variables) == 1.0
  loss = jax.jit(lambda v: jnp.sum(layer.apply(v, x, train=True) ** 2))
  assert np.isfinite(jax.grad(loss)(variables)['params']['kernel']).all()


@pytest.mark.parametrize(
  'options,shape,message',
  [
    (dict(kernel_size=2), (8, 8, 4), '`kernel_size` must be odd'),
    (dict(strides=3), (8, 8, 4), '`strides` must divide the image, got strides=3 for 8 x 8'),
    (dict(padding='same'), (8, 8, 4), '`padding`'),
    (dict(series='pade', eval_degree=3), (8, 8, 4), '`series` must be one of'),
    (dict(series='pade'), (8, 8, 4), '`series` must be one of'),
    (dict(grad='none'), (8, 8, 4), '`grad` must be one of'),
    (dict(bound=0.0), (8, 8, 4), '`bound` is an upper bound'),
    (dict(eval_degree=0), (8, 8, 4), '`degree` counts'),
  ],
)
def test_errors_of_a_layer(options, shape, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(layers.SOC(4, **options).init, jax.random.key(0), jnp.zeros((1, *shape)))


def test_errors_of_inputs_and_weights():
  layer = layers.SOC(4)
  variables, x = _initialised(layer)
  with pytest.raises(ValueError, match='4 channels'):
    layer.apply(variables, x[..., :3])
  circular = layers.materialize(layers.SOC(4, padding='circular'), variables)
  with pytest.raises(ValueError, match='made for, 8 x 8 .* got 4 x 8'):
    circular(x[:, :4])
  with pytest.raises(ValueError, match='batch of images'):
    layer.apply(variables, x[0])
  for bad in (np.nan, np.inf):
    kernel = variables['params']['kernel'].at[0, 0, 0, 0].set(bad)
    broken = {**variables, 'params': {**variables['params'], 'kernel': kernel}}
    for ask in (layers.lipschitz_upper, layers.materialize):
      with pytest.raises(ValueError, match=f'must be finite, but .*kernel.* holds {bad}'):
        ask(layer, broken)
  with pytest.raises(ValueError, match="must hold the collection 'spectral'"):
    layers.lipschitz_upper(layer, {'params': variables['params']})
  with pytest.raises(ValueError, match='a method `lipschitz'):
    layers.lipschitz_upper(nn.Dense(3), {})
  with pytest.raises(ValueError, match='odd sizes'):
    layers.skew_filter(jnp.zeros((2, 2, 3, 3)))
  with pytest.raises(ValueError, match='map C channels to C'):
    layers.skew_filter(jnp.zeros((3, 3, 2, 3)))
