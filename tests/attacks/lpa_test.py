"""LPA and Fast-LPA: schedules to the digit, the perceptual set, linear features, self-bounded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, distances, testing, threats
from certjax.attacks import _lpa
from certjax.attacks._lpa import fast_lpa, lpa

RNG = np.random.default_rng(0)
SHAPE, CLASSES = (2, 2, 2), 3
W = RNG.normal(size=(8, CLASSES)).astype(np.float32)
FOLD = RNG.normal(size=(8, 6)).astype(np.float32)

flat = lambda x: x.reshape(len(x), -1)
linear = lambda x: (flat(x) - 0.5) @ W  # Of numpy's arrays, too: nothing to compile.
folded = lambda x: jnp.tanh(jnp.maximum(flat(x) @ FOLD, 0.1))


def margins(x, y):
  logits, rows = linear(np.asarray(x)), np.arange(len(x))
  others = np.where(np.arange(CLASSES)[None] == y[:, None], -np.inf, logits)
  return others.max(1) - logits[rows, y]


def batch(size=4):
  """Images off the border of [0, 1], and the labels that the model gives them."""
  x = np.random.default_rng(1).uniform(0.35, 0.65, (size, *SHAPE)).astype(np.float32)
  return x, np.argmax(linear(x), axis=1).astype(np.int32)


def features(x):
  """Two layers of activations of a small network, and its logits."""
  first = jnp.tanh(x @ FOLD[:2, :4])
  second = jnp.abs(first[:, :1] @ FOLD[:4, :5]) + 0.1
  return (first, second), linear(x)


def test_published_schedules():
  steps = [0.5, 0.3971641, 0.3154787, 0.2505936, 0.1990536, 0.1581139, 0.1255943, 0.0997631,
           0.0792447, 0.0629463]  # fmt: skip
  weights = [1, 1.2589254, 1.5848932, 1.9952623, 2.5118864, 3.1622777, 3.9810717, 5.0118723,
             6.3095734, 7.9432823]  # fmt: skip
  np.testing.assert_allclose(0.5 * _lpa.step_lengths(10), steps, rtol=1e-6)
  np.testing.assert_allclose(_lpa.fast_weights(10), weights, rtol=1e-6)


@functools.partial(jax.jit, static_argnames=('search_steps',))
def run(keys, x, y, eps, gain, search_steps):
  """One program for images, budgets and logits of any scale: x_adv, its distance."""
  model_fn = lambda x: gain * linear(x)
  x_adv = lpa(folded, eps=eps, num_steps=8, search_steps=search_steps)(keys, model_fn, x, y)
  return x_adv, jnp.linalg.norm(folded(x_adv) - folded(x), axis=1)


def test_protocol():
  """In the set and [0, 1], never worse than x, a row by itself, x at eps = 0, one trace for all."""
  x, y = batch()
  keys = jax.random.split(jax.random.key(0), 4)
  call = lambda x, eps, gain=1.0: run(keys, x, y, eps, gain, 4)
  for eps in (0.3, 0.03):
    x_adv, distance = call(x, eps)
    assert (distance <= eps + 1e-6).all() and (x_adv >= 0).all() and (x_adv <= 1).all()
    assert (margins(x_adv, y) >= margins(x, y)).all() and not np.array_equal(x_adv, x)
  assert (margins(call(x, 0.3)[0], y) > 0).sum() >= 2
  assert np.array_equal(call(x, 0.0)[0], x)
  others = np.concatenate([x[:1], 1 - x[1:]])
  np.testing.assert_allclose(call(others, 0.3)[0][0], call(x, 0.3)[0][0], atol=1e-6)
  assert np.array_equal(call(x, 0.3, np.nan)[0], x)  # NaN never replaces a number.
  assert run._cache_size() == 1


def test_what_one_weight_does_not_find_a_larger_one_does():
  """At lambda = 0.01 a steep margin wins over the set: only later searches end inside."""
  x, y = batch()
  keys = jax.random.split(jax.random.key(0), 4)
  once, often = (margins(run(keys, x, y, 0.01, 1.0, count)[0], y) for count in (1, 4))
  assert (often >= once).all() and once.min() < 0 < often.min()


def test_fast_lpa_protocol():
  x, y = batch(2)
  distance = lambda x, x_adv: jnp.linalg.norm(folded(x_adv[None])[0] - folded(x[None])[0])
  ball = lambda eps: threats.Threat('lpips', eps, None, None, None, distance)
  make = lambda ball: jax.jit(fast_lpa(folded, eps=ball.eps, num_steps=5), static_argnums=1)
  testing.check_attack(make, ball, linear, x, y, score=attacks.margin, eps=0.2)


def test_linear_features_give_an_l2_attack():
  """phi = 2 x: |x' - x| <= eps / 2, and a linear margin gains at most eps / 2 |w|."""
  x, _ = batch(6)
  two = lambda x: linear(x)[:, :2]
  y = np.argmax(two(x), axis=1).astype(np.int32)
  attack = fast_lpa(lambda x: 2 * flat(x), eps=0.2, num_steps=20)
  x_adv = np.asarray(jax.jit(lambda x: attack(jax.random.key(0), two, x, y))(x))
  gain = np.sum(np.where(y[:, None] == 0, 1, -1) * (W[:, 1] - W[:, 0]) * flat(x_adv - x), axis=1)
  bound = 0.1 * np.linalg.norm(W[:, 1] - W[:, 0])
  assert (gain <= bound * (1 + 1e-4)).all() and (gain >= 0.88 * bound).all()


def test_self_bounded_equals_the_same_features_from_outside():
  """And without a projection, as PAT trains, the last point may lie outside of the set."""
  x, y = batch(3)
  embed = distances.embedding(features)
  options = dict(eps=0.2, num_steps=4)

  @jax.jit
  def found(x):
    own = fast_lpa(None, **options)(jax.random.key(0), features, x, y)
    other = fast_lpa(embed, **options)(jax.random.key(0), linear, x, y)
    loose = fast_lpa(None, projection='none', **options)(jax.random.key(0), features, x, y)
    return own, other, loose, jnp.stack([embed(point) for point in (x, own, loose)])

  own, other, loose, (phi, *ends) = found(x)
  np.testing.assert_allclose(own, other, atol=1e-5)
  inside, last = (np.linalg.norm(end - phi, axis=1) for end in ends)
  assert (inside <= 0.2 + 1e-6).all() and (inside > 0.05).all()
  assert (loose >= 0).all() and (loose <= 1).all() and (last > 0.2).any()


@pytest.mark.parametrize(
  'make, match',
  [
    (lambda: lpa(flat, eps=-0.1), '`eps` must be at least 0'),
    (lambda: lpa(flat, num_steps=-1), '`num_steps` must be at least 0'),
    (lambda: lpa(flat, search_steps=0), '`search_steps` must be at least 1'),
    (lambda: lpa(flat, projection='none'), '`projection` must be one of newton, bisection; got'),
    (
      lambda: fast_lpa(flat, projection='l2'),
      '`projection` must be one of newton, bisection, none',
    ),
  ],
)
def test_bad_arguments(make, match):
  with pytest.raises(ValueError, match=match):
    make()
