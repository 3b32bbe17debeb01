"""PGD0: protocol, the optimum of a linear model with the box, T25, restarts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats

SHAPE = (3, 3, 2)
W = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def linear(x):
  score = jnp.einsum('bhwc,hwc->b', x - 0.5, W, precision='highest')
  return jnp.stack([score, jnp.zeros_like(score)], axis=1)


def batch(size):
  """Images that reach the border of [0, 1] in some values."""
  x = np.random.default_rng(1).uniform(-0.2, 1.2, (size, *SHAPE)).clip(0, 1).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(np.argmax(linear(x), axis=1).astype(np.int32))


def test_protocol():
  make = lambda t: attacks.pgd0(pixels=t.eps, step_size=5.0, num_steps=3)
  testing.check_attack(make, threats.l0, linear, *batch(4), eps=2)


def test_one_long_step_is_the_linear_optimum():
  """The sum of the k largest gains sum_c max(w x, w (x - 1)) where w.x must fall."""
  x, y = batch(30)
  attack = jax.jit(
    lambda pixels: attacks.pgd0(pixels=pixels, step_size=1e6, num_steps=1, loss=attacks.margin)(
      jax.random.key(0), linear, x, y
    )
  )
  w = np.float64(W) * np.where(y == 0, 1, -1)[:, None, None, None]
  gains = np.maximum(w * x, w * (np.float64(x) - 1)).sum(axis=3).reshape(30, -1)
  largest = np.cumsum(np.sort(gains)[:, ::-1], axis=1)
  before = np.asarray(jax.vmap(attacks.margin)(linear(x), y))
  for pixels in (1, 4, 9):
    x_adv = attack(pixels)
    gain = np.asarray(jax.vmap(attacks.margin)(linear(x_adv), y)) - before
    np.testing.assert_allclose(gain, largest[:, pixels - 1], rtol=1e-4, atol=1e-5)
    assert (np.any(x_adv != x, axis=3).sum(axis=(1, 2)) <= pixels).all()


def test_two_pixels_are_the_least_that_turn_the_score():
  """T25: the gains are 1.5, 1, 1, 1, 3.6, 0.45, the score 4.55; 3.6 + 1.5 is the first to exceed it."""
  w = jnp.array([3, -2, 1, 5, -4, 0.5])
  x = jnp.array([0.5, 0.5, 1, 0.2, 0.1, 0.9]).reshape(1, 1, 6, 1)

  def model_fn(x):
    score = x.reshape(-1, 6) @ w + 2
    return jnp.stack([jnp.zeros_like(score), score], axis=1)

  @jax.jit
  def score(pixels):
    attack = attacks.pgd0(pixels=pixels, step_size=100.0, num_steps=2)
    return model_fn(attack(jax.random.key(0), model_fn, x, jnp.array([1])))[0, 1]

  np.testing.assert_allclose([score(1), score(2)], [4.55 - 3.6, 4.55 - 5.1], atol=1e-5)


def test_restarts_leave_a_flat_start_and_the_best_run_counts():
  """Flat where no pixel exceeds 0.8: a random start of two pixels leaves it with probability 0.36.

  Eight of them leave it in a row with 1 - 0.64^8 = 0.97, in all 20 rows with 0.57 (the key is fixed);
  in half of them but for 1e-11.
  """
  model_fn = lambda x: jnp.stack(
    [jnp.full(len(x), 0.1), jnp.max(jnp.maximum(x - 0.8, 0), axis=(1, 2, 3))], axis=1
  )
  x, y = jnp.full((20, *SHAPE[:2], 1), 0.5), jnp.zeros(20, jnp.int32)
  run = lambda restarts: jax.jit(
    attacks.pgd0(pixels=2, step_size=0.1, num_steps=2, num_restarts=restarts, loss=attacks.margin),
    static_argnums=1,
  )
  keys = jax.random.split(jax.random.key(0), 20)
  assert np.array_equal(run(1)(keys, model_fn, x, y), x)
  restarted = run(9)
  x_adv = restarted(keys, model_fn, x, y)
  value = np.asarray(jax.vmap(attacks.margin)(model_fn(x_adv), y))
  assert (value > 0).mean() > 0.5
  assert (np.any(x_adv != x, axis=3).sum(axis=(1, 2)) <= 2).all()
  # Rows go with their keys, and with nothing else.
  assert np.array_equal(restarted(keys[::-1], model_fn, x, y)[::-1], x_adv)
  assert len(np.unique(np.asarray(x_adv).reshape(20, -1), axis=0)) > 10


def test_nan_logits_leave_the_image():
  x, y = batch(2)
  attack = attacks.pgd0(pixels=2, step_size=5.0, num_steps=2)
  assert np.array_equal(attack(jax.random.key(0), lambda x: linear(x) * jnp.nan, x, y), x)


@pytest.mark.parametrize(
  'options, match',
  [
    ({'step_size': 0}, '`step_size` positive'),
    ({'num_steps': -1}, '`num_steps` must be at least 0'),
    ({'num_restarts': 0}, '`num_restarts` at least 1'),
    ({'pixels': 0.5}, '`pixels` is a whole number of pixels'),
  ],
)
def test_bad_arguments(options, match):
  with pytest.raises(ValueError, match=match):
    attacks.pgd0(**{'pixels': 1, 'step_size': 1.0, 'num_steps': 1, **options})
