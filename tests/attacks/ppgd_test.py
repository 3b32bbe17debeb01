"""PPGD: conjugate gradients to the digit, dense solves, linear features, the perceptual set."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks
from certjax.attacks import _ppgd
from certjax.attacks._ppgd import ppgd

J = np.array([[1, 2, 0], [0, 1, -1], [2, 0, 1], [1, 1, 1]], np.float32)
G = np.array([1, -2, 0.5], np.float32)
SINGULAR = np.array([[1, 1, 0], [0, 1, 1]], np.float32)

RNG = np.random.default_rng(0)
SHAPE, CLASSES = (2, 2, 2), 3
W = RNG.normal(size=(8, CLASSES)).astype(np.float32)
MATRIX = (np.eye(8) + 0.15 * RNG.normal(size=(8, 8))).astype(np.float32)

flat = lambda x: x.reshape(len(x), -1)
linear = lambda x: (flat(x) - 0.5) @ W  # Of numpy's arrays, too: nothing to compile.
bent = lambda x: jnp.tanh(2 * flat(x) @ MATRIX.T)


def margins(x, y):
  logits, rows = linear(np.asarray(x)), np.arange(len(x))
  others = np.where(np.arange(CLASSES)[None] == y[:, None], -np.inf, logits)
  return others.max(1) - logits[rows, y]


def batch(size=4):
  """Images off the border of [0, 1], and the labels that the model gives them."""
  x = np.random.default_rng(1).uniform(0.35, 0.65, (size, *SHAPE)).astype(np.float32)
  return x, np.argmax(linear(x), axis=1).astype(np.int32)


def features(x):
  return (x,), linear(x)


@functools.partial(jax.jit, static_argnames=('steps',))
def solve(matrix, b, steps, damping):
  """The rows of b, by conjugate gradients on matrix^T matrix + damping."""
  _, push, pull = _ppgd.jacobian(lambda x: x @ matrix.T, jnp.zeros_like(b))
  return _ppgd.conjugate_gradients(lambda v: pull(push(v)) + damping * v, b, steps)


def test_iterates_of_conjugate_gradients():
  expected = [(0.2413793, -0.4827586, 0.1206897), (0.6282051, -0.5441595, -0.1310541),
              (1, -5 / 6, -5 / 6)]  # fmt: skip
  for steps, s in enumerate(expected, 1):
    np.testing.assert_allclose(solve(J, G[None], steps, 0.0)[0], s, atol=3e-6)
  damped = solve(J, G[None], 3, 0.1)[0]
  np.testing.assert_allclose(damped, (0.8712482, -0.7563516, -0.6818531), atol=3e-6)


@pytest.mark.parametrize('steps', [2, 20])
def test_a_singular_system_gives_the_shortest_solution(steps):
  """And goes on giving it: what is left is rounding."""
  b = np.array([[1, 3, 2], [0, 0, 0]], np.float32)
  np.testing.assert_allclose(solve(SINGULAR, b, steps, 0.0), [[0, 1, 1], [0, 0, 0]], atol=1e-5)


def test_the_step_is_the_steepest_of_its_length():
  """|J delta| = 0.3 and <g, delta> = 0.3 |(J^+)^T g| = 0.45, whatever the length of g."""
  push, pull = (lambda v: v @ J.T), (lambda u: u @ J)
  step = jax.jit(lambda g: _ppgd._longest_step(push, pull, g, 0.3, 3, 0.0))
  delta = step(np.stack([G, 1e-5 * G, 0 * G]))
  np.testing.assert_allclose(delta[:2], [(0.2, -1 / 6, -1 / 6)] * 2, atol=1e-5)
  assert np.array_equal(delta[2], np.zeros(3))
  np.testing.assert_allclose(np.linalg.norm(J @ delta[0]), 0.3, rtol=1e-5)


def test_jacobian_of_a_network():
  """Both products against forward mode, through the library's convolution, which has none."""
  from certjax.layers import conv_general_dilated

  kernel = np.random.default_rng(2).normal(size=(3, 3, 2, 3)).astype(np.float32)

  def embed(x, conv=conv_general_dilated):
    y = jnp.tanh(conv(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')))
    return flat(y / jnp.sqrt(jnp.sum(y**2, axis=-1, keepdims=True)))

  @jax.jit
  def products(x, v, u):
    _, push, pull = _ppgd.jacobian(embed, x)
    plain = functools.partial(embed, conv=jax.lax.conv_general_dilated)
    return push(v), jax.jvp(plain, (x,), (v,))[1], jnp.vdot(u, push(v)), jnp.vdot(pull(u), v)

  x, v = np.random.default_rng(3).normal(size=(2, 2, *SHAPE)).astype(np.float32)
  u = np.random.default_rng(4).normal(size=(2, 12)).astype(np.float32)
  jv, expected, there, back = products(x, v, u)
  np.testing.assert_allclose(jv, expected, atol=1e-5)
  np.testing.assert_allclose(there, back, rtol=1e-4)


@functools.partial(jax.jit, static_argnames=('num_steps',))
def run(keys, x, y, eps, gain, num_steps):
  """One program for images, budgets and logits of any scale: x_adv, its distance."""
  model_fn = lambda x: gain * linear(x)
  attack = ppgd(bent, eps=eps, num_steps=num_steps, step_size=0.1, kappa=jnp.inf)
  x_adv = attack(keys, model_fn, x, y)
  distance = jnp.linalg.norm(bent(x_adv) - bent(x), axis=1)
  return x_adv, distance


def test_protocol():
  """In the set and [0, 1], never worse than x, a row by itself, x at eps = 0, one trace for all."""
  x, y = batch()
  keys = jax.random.split(jax.random.key(0), 4)
  call = lambda keys, x, eps, gain=1.0: run(keys, x, y, eps, gain, 3)
  for eps in (0.3, 0.03):
    x_adv, distance = call(keys, x, eps)
    assert (distance <= eps + 1e-6).all() and (x_adv >= 0).all() and (x_adv <= 1).all()
    assert (margins(x_adv, y) > margins(x, y) + 0.01).all()
  assert np.array_equal(call(keys, x, 0.0)[0], x)
  others = np.concatenate([x[:1], 1 - x[1:]])
  np.testing.assert_allclose(call(keys, others, 0.3)[0][0], call(keys, x, 0.3)[0][0], atol=1e-6)
  assert not np.array_equal(call(keys[::-1], x, 0.3)[0], call(keys, x, 0.3)[0])
  assert np.array_equal(call(keys, x, 0.3, np.nan)[0], x)  # NaN never replaces a number.
  assert run._cache_size() == 1


def test_more_steps_are_never_worse_and_find_wrong_labels():
  x, y = batch()
  keys = jax.random.split(jax.random.key(0), 4)
  few, many = (margins(run(keys, x, y, 0.3, 1.0, steps)[0], y) for steps in (3, 10))
  assert (many >= few).all() and (many > few).any() and many.max() > 0


def test_a_batch_of_one():
  x, y = batch()
  keys = jax.random.split(jax.random.key(0), 4)
  alone = run(keys[1:2], x[1:2], y[1:2], 0.3, 1.0, 3)[0][0]
  np.testing.assert_allclose(alone, run(keys, x, y, 0.3, 1.0, 3)[0][1], atol=1e-5)


def test_linear_features_give_the_optimum_of_a_linear_model():
  """phi = M x, an ellipsoid: <g, delta> <= eps |M^-T g|. M = 1 is PGD in an L2 ball."""
  x, _ = batch(6)
  two = lambda x: linear(x)[:, :2]
  y = np.argmax(two(x), axis=1).astype(np.int32)

  @jax.jit
  def found(x, matrix):
    embed = lambda x: flat(x) @ matrix.T
    options = dict(
      eps=0.05, num_steps=10, step_size=0.2, cg_steps=8, projection='bisection', kappa=jnp.inf
    )
    return ppgd(embed, **options)(jax.random.key(0), two, x, y)

  for matrix in (MATRIX, np.eye(8, dtype=np.float32)):
    g = np.where(y[:, None] == 0, 1, -1) * (W[:, 1] - W[:, 0])
    bound = 0.05 * np.linalg.norm(np.linalg.solve(matrix.T, g.T), axis=0)
    gain = np.sum(g * flat(np.asarray(found(x, matrix)) - x), axis=1)
    assert (gain <= bound * (1 + 1e-4)).all() and (gain >= 0.995 * bound).all()


@pytest.mark.parametrize(
  'options, match',
  [
    ({'eps': -0.1}, '`eps` must be at least 0'),
    ({'eps': np.inf}, '`eps` must be at least 0 and finite'),
    ({'num_steps': -1}, '`num_steps` must be at least 0'),
    ({'cg_steps': 0}, '`cg_steps` must be at least 1'),
    ({'damping': -1.0}, '`damping` must be at least 0'),
    ({'projection': 'none'}, '`projection` must be one of newton, bisection'),
  ],
)
def test_bad_arguments(options, match):
  with pytest.raises(ValueError, match=match):
    ppgd(flat, **options)


@pytest.mark.parametrize(
  'make', [ppgd, attacks.lpa, attacks.fast_lpa, attacks.lpips_pixel], ids=lambda make: make.__name__
)
def test_images_outside_the_pixel_range_are_refused_where_they_are_numbers(make):
  x, y = np.array([[-1.0, 0.5], [0.0, 1.0]], np.float32), np.array([0, 0])
  call = lambda x: make(lambda x: x, eps=0, num_steps=0)(jax.random.key(0), lambda x: x, x, y)
  with pytest.raises(
    ValueError, match=r'`x` must lie in \[0, 1\], got -1.0 .*use `\(x \+ 1\) / 2`'
  ):
    call(x)
  with pytest.raises(ValueError, match='divide by 255'):
    call(np.array([[0, 17], [255, 3]], np.uint8))
  assert jax.eval_shape(call, x).shape == x.shape  # Tracers hold no numbers.
  np.testing.assert_array_equal(call((x + 1) / 2), (x + 1) / 2)


def test_functions_of_another_kind():
  x, y = batch()
  call = lambda attack, fn: jax.eval_shape(lambda x: attack(jax.random.key(0), fn, x, y), x)
  with pytest.raises(ValueError, match='`model_fn` of a self-bounded attack'):
    call(ppgd(None), linear)
  with pytest.raises(ValueError, match='`embed` must return .*distances.embedding'):
    call(ppgd(features), linear)
  with pytest.raises(ValueError, match='`model_fn` must return'):
    call(ppgd(flat), features)
