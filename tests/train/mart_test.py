"""MART: its loss by the formula of the paper, finite at the extremes, and what its attack climbs."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import train

pytestmark = pytest.mark.usefixtures('many_programs')

NATURAL = np.array([[2.0, 1.0, 0.0], [0.5, 0.5, -1.0], [-1.0, 3.0, 0.0]])
ATTACKED = np.array([[1.0, 1.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.5, 2.0]])
LABELS = np.array([0, 1, 0])
W = jnp.array([[0.7, -0.3], [-0.2, 0.4], [0.1, 0.9], [-1.1, 0.2]])
X = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (8, 4)), jnp.float32)
Y = jnp.asarray(np.arange(8) % 2, jnp.int32)
KEYS = jax.random.split(jax.random.key(0), 8)


@functools.cache
def compiled(lam):
  """((value, (metrics, statistics)), gradient in the attacked logits) of logits that are pixels."""
  apply = lambda x, train: (x, {'trained': jnp.float32(train)})
  objective = train.mart(lam=lam)

  def loss(attacked, natural, labels):
    return objective.loss(None, apply, jnp.stack([natural, attacked], axis=1), labels, 0)

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def loss_of(lam, natural=NATURAL, attacked=ATTACKED):
  given = np.float32(attacked), np.float32(natural), np.int32(LABELS)
  return jax.device_get(compiled(lam)(*given))


def expected(natural, attacked, labels, lam):
  """Wang et al.'s equation 11, term by term in float64."""
  total = 0.0
  for z, z_adv, y in zip(natural, attacked, labels, strict=True):
    p, q = np.exp(z) / np.exp(z).sum(), np.exp(z_adv) / np.exp(z_adv).sum()
    boosted = -np.log(q[y]) - np.log(1 - np.delete(q, y).max())
    total += boosted + lam * np.sum(p * np.log(p / q)) * (1 - p[y])
  return total / len(labels)


def test_the_loss_is_that_of_the_paper():
  for lam in (0.0, 5.0):
    (value, (metrics, statistics)), _ = loss_of(lam)
    assert float(value) == pytest.approx(expected(NATURAL, ATTACKED, LABELS, lam), rel=1e-6)
    assert float(statistics['trained']) == 1
  assert float(metrics['accuracy']) == pytest.approx(1 / 3)
  assert float(metrics['robust_accuracy']) == pytest.approx(1 / 3)


def test_a_sure_model_pays_no_divergence_and_extreme_logits_are_finite():
  sure = 400.0 * np.eye(3)[LABELS] - 200.0
  for attacked in (sure, -sure):
    (value, (metrics, _)), gradient = loss_of(5.0, sure, attacked)
    assert metrics['divergence'] == 0
    assert np.isfinite(gradient).all() and np.isfinite(value)


def test_lambda_is_five():
  assert inspect.signature(train.mart).parameters['lam'].default == 5.0


def test_its_points_are_those_of_the_worst_margin():
  """As in adversarial training, whatever `trades` would climb."""
  made = train.objective('mart', None, sigma=0.0, eps=0.1, num_steps=20.0)
  perturb = jax.jit(lambda keys, x, y: made['perturb'](keys, linear, x, y, jnp.int32(0)))
  pairs = perturb(KEYS, X, Y)
  sign = np.where(np.asarray(Y) == 0, -1, 1)[:, None]
  worst = np.asarray(X) + 0.1 * sign * np.sign(np.asarray(W[:, 0] - W[:, 1]))
  assert np.array_equal(pairs[:, 0], X)
  np.testing.assert_allclose(pairs[:, 1], worst, atol=1e-6)
  assert np.abs(np.asarray(pairs[:, 1] - X)).max() <= 0.1 + 1e-6
  alone = perturb(KEYS[3:4], X[3:4], Y[3:4])
  np.testing.assert_allclose(alone[0], pairs[3], atol=1e-6)


def linear(x):
  return x @ W


@pytest.mark.parametrize(
  'parameters, said',
  [
    (dict(eps=float('inf')), '`eps` must be positive and finite'),
    (dict(num_steps=0), '`num_steps` must be positive'),
    (dict(lam=float('nan')), '`lam` weighs the divergence'),
    (dict(beta=1.0), 'has no parameter beta; it takes eps, step_size, num_steps, lam'),
  ],
)
def test_bad_parameters(parameters, said):
  with pytest.raises(ValueError, match=said):
    train.objective('mart', None, sigma=0.0, **parameters)
