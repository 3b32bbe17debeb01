"""Fast adversarial training: one long step from a random point, one gradient, whatever it brings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import smoothing, threats, train

pytestmark = pytest.mark.usefixtures('many_programs')

W = jnp.array([[0.7, -0.3], [-0.2, 0.4], [0.1, 0.9], [-1.1, 0.2]])
X = jnp.asarray(np.random.default_rng(0).uniform(0.02, 0.98, (8, 4)), jnp.float32)
Y = jnp.asarray(np.arange(8) % 2, jnp.int32)
KEYS = jax.random.split(jax.random.key(0), 8)
EPS = 0.1
UPHILL = np.where(np.asarray(Y) == 0, -1, 1)[:, None] * np.sign(np.asarray(W[:, 0] - W[:, 1]))


def linear(x):
  return x @ W


def perturb(x=X, model_fn=linear, step=0, rows=slice(None), **parameters):
  made = train.objective('fast-adversarial', None, sigma=0.0, eps=EPS, **parameters)
  return made['perturb'](KEYS[rows], model_fn, x[rows], Y[rows], jnp.int32(step))


def test_one_step_of_a_linear_model_from_the_random_start():
  start = np.asarray(jax.vmap(threats.linf(EPS).sample)(KEYS, X))
  x = np.asarray(X)
  for step_size, options in ((1.25 * EPS, {}), (0.02, {'step_size': 0.02})):
    expected = np.clip(x + np.clip(start + step_size * UPHILL - x, -EPS, EPS), 0, 1)
    np.testing.assert_allclose(perturb(**options), expected, atol=1e-6)
  assert np.ptp(np.abs(expected - x)) > EPS / 2  # The start is not x.


def test_it_costs_one_gradient_and_keeps_a_point_that_is_worse():
  """The model is called once; a step over a narrow peak of the loss ends below it, and stays there."""
  calls = []

  def peaked(x):
    calls.append(x.shape)
    height = -jnp.abs(x - 0.5).sum(axis=1)
    return jnp.stack([jnp.where(Y == 0, -height, height), jnp.zeros(len(x))], axis=1)

  x = jnp.full_like(X, 0.5)
  x_adv = perturb(x, peaked)
  assert calls == [(8, 4)]
  start = jax.vmap(threats.linf(EPS).sample)(KEYS, x)
  assert float(jnp.abs(x_adv - 0.5).mean()) > float(jnp.abs(start - 0.5).mean())


def test_inside_the_ball_row_by_row_and_compiled():
  x_adv = np.asarray(perturb())
  assert np.abs(x_adv - X).max() <= EPS + 1e-6
  assert x_adv.min() >= 0 and x_adv.max() <= 1
  early = train.fast_adversarial(eps=EPS, warmup_steps=10).perturb
  alone = jax.jit(
    lambda x: (perturb(x), perturb(x, rows=slice(2, 3)), early(KEYS, linear, x, Y, 0))
  )
  whole, row, early = jax.device_get(alone(X))
  np.testing.assert_allclose(whole, x_adv, atol=1e-6)
  np.testing.assert_allclose(row[0], x_adv[2], atol=1e-6)
  assert 0 < np.abs(early - X).max() <= EPS / 10 + 1e-6


def test_defaults_are_those_of_the_paper():
  """8/255, and 10/255 from anywhere in the ball reaches the border in at least an eighth of cases."""
  x = jnp.full((8, 4), 0.5)
  x_adv = train.fast_adversarial().perturb(KEYS, linear, x, Y, 0)
  assert float(jnp.max(jnp.abs(x_adv - x))) == pytest.approx(8 / 255, abs=1e-6)
  assert float(jnp.min((x_adv - x) * UPHILL)) >= 2 / 255 - 1e-6


@pytest.mark.parametrize(
  'parameters, said',
  [
    (dict(eps=0.0), '`eps` must be positive and finite'),
    (dict(eps=8.0), 'for 8 grey levels write 8 / 255'),
    (dict(step_size=0.0), '`step_size` must be positive'),
    (dict(num_steps=2), 'has no parameter num_steps; it takes eps, step_size'),
  ],
)
def test_bad_parameters(parameters, said):
  with pytest.raises(ValueError, match=said):
    train.objective('fast-adversarial', None, sigma=0.0, **parameters)


def test_methods_against_attacks_refuse_noise():
  for name in train.ATTACKED:
    with pytest.raises(ValueError, match='trains on clean images'):
      train.objective(name, smoothing.gaussian(sigma=0.5), sigma=0.5)
