"""EOT: protocol, the mean over draws, random defences that one draw does not break."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, defenses, testing, threats

pytestmark = pytest.mark.usefixtures('many_programs')

W = np.random.default_rng(0).normal(size=12).astype(np.float32)


def linear(x):
  score = x.reshape(len(x), -1) @ W
  return jnp.stack([score, jnp.zeros(len(x))], axis=1)


def noisy(keys, x):
  """The linear model behind a large random term of each row's key."""
  noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
  return linear(x * (1 + 3 * noise))


def batch(size=4):
  x = np.random.default_rng(1).uniform(0.3, 0.7, (size, 2, 2, 3)).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(np.argmax(linear(x), axis=1).astype(np.int32))


def on_model(attack):
  """An attack on a model without randomness."""
  return lambda key, model_fn, x, y: attack(key, lambda keys, x: model_fn(x), x, y)


def test_protocol():
  make = lambda threat: on_model(attacks.eot_pgd(threat, step_size=0.05, num_steps=3, num_draws=2))
  testing.check_attack(make, threats.l2, linear, *batch())


def test_rows_have_their_own_draws():
  """A row's result depends on its own key alone, and on it."""
  x, y = batch()
  keys = jax.random.split(jax.random.key(0), 4)
  attack = attacks.eot_pgd(threats.l2(0.2), step_size=0.05, num_steps=2, num_draws=3)
  run = jax.jit(lambda keys, x, y: attack(keys, noisy, x, y))
  together = run(keys, x, y)
  alone = run(keys[2:3], x[2:3], y[2:3])
  np.testing.assert_allclose(alone[0], together[2], atol=1e-5)
  twice = run(keys, jnp.broadcast_to(x[:1], x.shape), jnp.broadcast_to(y[:1], y.shape))
  assert np.abs(np.asarray(twice[0] - twice[1])).max() > 1e-3


def test_many_draws_find_the_direction_of_the_mean():
  """The mean gradient is that of the linear model; that of one draw is mostly noise."""
  x, y = batch()

  def drop(num_draws):
    attack = attacks.eot_pgd(
      threats.l2(0.1),
      step_size=0.1,
      num_steps=1,
      num_draws=num_draws,
      random_start=False,
      loss=attacks.margin,
    )
    # The point that is kept is a guess under noise; a start that loses shows where the step led.
    x_adv = jax.jit(lambda x, y: attack(jax.random.key(1), noisy, x, y))(x, y)
    moved = np.abs(np.asarray(x_adv - x)).reshape(4, -1).max(axis=1) > 0
    best = 0.1 * np.linalg.norm(W)
    return (np.abs(np.asarray(linear(x_adv) - linear(x))[:, 0]) / best)[moved], moved

  one, many = drop(1), drop(1000)
  assert many[1].any() and (many[0] > 0.9).all()
  assert one[1].any() and one[0].mean() < 0.7


def test_eot_is_the_mean_softmax_of_its_draws():
  x = batch()[0]
  keys = jax.random.split(jax.random.key(0), 5)
  each = [jax.nn.softmax(noisy(jnp.broadcast_to(key, (4,)), x)) for key in keys]
  g = attacks.eot(jax.random.key(0), noisy, num_draws=5)
  np.testing.assert_allclose(np.exp(g(x)), np.mean(each, axis=0), rtol=1e-5)


@pytest.mark.parametrize('name', ['resize', 'pruning'])
def test_random_defences_fall(name):
  """Fresh draws after the attack: nearly all labels of the clean images stay, nearly none of the attacked ones do.

  Bright above dark is the one class, dark above bright the other.
  """
  if name == 'resize':
    place = defenses.resize_pad(size=6, smallest=4)
    halves = lambda x: x[:, :3].sum((1, 2, 3)) - x[:, 3:].sum((1, 2, 3))
    gate = lambda x: jnp.stack([5 * halves(x), jnp.zeros(len(x))], axis=1)
    random_fn = defenses.randomized(gate, place)
    shade = 0.5 + 0.08 * jnp.sign(1.5 - jnp.arange(4.0))
    x = jnp.broadcast_to(shade[None, :, None, None], (2, 4, 4, 1))
  else:
    rows = lambda x: jnp.concatenate([x, 1 - x], axis=1) * 4
    head = lambda h: jnp.stack([h[:, :8].sum(1) - h[:, 8:].sum(1), jnp.zeros(len(h))], axis=1)
    random_fn = defenses.pruned([rows, head], share=2.0)
    x = jnp.full((2, 8), 0.7)
  y, eps = jnp.zeros(2, jnp.int32), 0.3
  attack = attacks.eot_pgd(
    threats.linf(eps), step_size=0.1, num_steps=6, num_draws=8, loss=attacks.margin
  )

  @jax.jit
  def kept(key, x):
    labels = lambda key: jnp.argmax(random_fn(jax.random.split(key, 2), x), axis=1) == y
    return jnp.mean(jax.vmap(labels)(jax.random.split(key, 50)))

  x_adv = jax.jit(lambda x, y: attack(jax.random.key(0), random_fn, x, y))(x, y)
  before, after = (float(kept(jax.random.key(7), points)) for points in (x, x_adv))
  assert before > 0.7 and after < 0.1, (before, after)
  assert float(jnp.abs(x_adv - x).max()) <= eps + 1e-6


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: attacks.eot(jax.random.key(0), noisy, num_draws=0), '`num_draws` must be at least 1'),
    (
      lambda: attacks.eot_pgd(threats.l2(1.0), step_size=1.0, num_steps=1, num_draws=0),
      '`num_draws` must be at least 1',
    ),
    (
      lambda: attacks.eot_pgd(threats.l2(1.0), step_size=0.0, num_steps=1),
      '`step_size` positive',
    ),
  ],
)
def test_bad_arguments(make, message):
  with pytest.raises(ValueError, match=message):
    make()
