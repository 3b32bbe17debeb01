"""TRADES: its loss to the digit, the worst divergence of a linear model, what updates the statistics."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import parallel, smoothing, threats, train

pytestmark = pytest.mark.usefixtures('many_programs')

NATURAL = np.array([[2.0, 1.0, 0.0], [0.5, 0.5, -1.0]], np.float32)
ATTACKED = np.array([[1.0, 1.5, 0.0], [-0.5, 1.0, 0.0]], np.float32)
LABELS = np.array([0, 1], np.int32)
W = jnp.array([[0.7, -0.3], [-0.2, 0.4], [0.1, 0.9], [-1.1, 0.2]])
X = np.random.default_rng(0).uniform(0.3, 0.7, (8, 4)).astype(np.float32)
Y = (np.arange(8) % 2).astype(np.int32)
KEYS = jax.random.split(jax.random.key(0), 8)
EPS = 0.1


def logits_are_pixels(x, train):
  """Each pass leaves the squares of what it saw as its statistics."""
  return x, {'squares': jnp.sum(x**2)} if train else {'squares': jnp.float32(-1e9)}


@functools.cache
def compiled(beta):
  """((value, (metrics, statistics)), gradient in the natural logits) of logits that are pixels."""
  objective = train.trades(beta=beta)

  def loss(natural, attacked):
    pairs = jnp.stack([natural, attacked], axis=1)
    return objective.loss(None, logits_are_pixels, pairs, LABELS, 0)

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def loss_of(beta, natural=NATURAL, attacked=ATTACKED):
  return jax.device_get(compiled(beta)(natural, attacked))


def linear(x):
  return x @ W


@functools.cache
def attack(name):
  """The `perturb` of the linear model, compiled."""
  made = train.objective(name, None, sigma=0.0, eps=EPS, num_steps=20.0, warmup_steps=10)
  return jax.jit(lambda keys, x, y, step: made['perturb'](keys, linear, x, y, step))


def perturbed(name='trades', rows=slice(None), y=Y, step=9):
  """The images and the attacked points."""
  return np.asarray(attack(name)(KEYS[rows], X[rows], y[rows], np.int32(step)))


def test_the_loss_to_the_digit():
  (value, (metrics, statistics)), _ = loss_of(6.0)
  assert float(value) == pytest.approx(2.1914446, abs=1e-6)
  assert float(metrics['divergence']) == pytest.approx(0.2646973, abs=1e-6)
  clean = float(value) - 6 * float(metrics['divergence'])
  assert clean == pytest.approx(0.6032611, abs=1e-6)
  turned = loss_of(6.0, ATTACKED, NATURAL)[0][1][0]['divergence']
  assert float(turned) == pytest.approx((0.2452511 + 0.2397928) / 2, abs=1e-6)
  assert (float(metrics['accuracy']), float(metrics['robust_accuracy'])) == (0.5, 0.5)
  # Both passes in training mode count the same.
  assert float(statistics['squares']) == pytest.approx((6.5 + 4.5) / 2)


def test_the_natural_side_of_the_divergence_is_differentiated():
  """d KL(p || q) / d z = p (log p/q - KL), beside the gradient p - e_y of the cross-entropy."""
  _, gradient = loss_of(6.0)
  p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (NATURAL, ATTACKED))
  apart = np.sum(p * np.log(p / q), axis=1, keepdims=True)
  expected = (p - np.eye(3)[LABELS] + 6 * p * (np.log(p / q) - apart)) / 2
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize(
  'name, dual, threat', [('trades', 1, threats.linf), ('trades-l2', 2, threats.l2)]
)
def test_the_attack_finds_the_worst_divergence_of_a_linear_model(name, dual, threat):
  """Of two classes it is convex in the margin: largest where that moves by eps |w_0 - w_1|_dual."""
  x, x_adv = (perturbed(name)[:, which] for which in (0, 1))
  assert np.array_equal(x, X)
  np.testing.assert_allclose(jax.vmap(threat(EPS).distance)(x, x_adv), EPS, atol=1e-6)
  assert x_adv.min() >= 0 and x_adv.max() <= 1
  direction = np.asarray(W[:, 0] - W[:, 1])
  moved, length = (x_adv - x) @ direction, np.linalg.norm(direction, dual)
  np.testing.assert_allclose(np.abs(moved), EPS * length, atol=1e-4)


def test_a_row_does_not_depend_on_its_batch_nor_on_the_labels():
  alone = perturbed(rows=slice(5, 6), y=1 - Y)
  np.testing.assert_allclose(alone[0], perturbed()[5], atol=1e-6)


def test_the_ball_grows_with_the_warm_up():
  for step, reached in ((0, 0.01), (50, EPS)):
    assert np.abs(perturbed(step=step)[:, 1] - X).max() == pytest.approx(reached, abs=1e-6)


class Normalised(nn.Module):
  """BatchNorm, as small as a model with statistics can be."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(8)(x.reshape(len(x), -1))
    axis = parallel.AXIS if train else None
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5, axis_name=axis)(x)
    return nn.Dense(2)(nn.tanh(x))


def test_training_lowers_the_loss_in_one_trace_and_moves_the_statistics():
  module, tx = Normalised(), optax.sgd(0.5)
  state = train.init_state(jax.random.key(0), module, tx, (4,))
  chex.clear_trace_counter()
  made = train.objective('trades', None, sigma=0.0, eps=0.05, num_steps=2, beta=2)
  step = chex.assert_max_traces(train.make_step(module, tx, **made), n=1)
  batch = {
    'x': np.float32(0.5 + (Y[:, None] - 0.5) * 0.4 + (X - 0.5) / 4),
    'y': Y,
    'index': np.arange(8, dtype=np.int32),
  }
  seen = []
  after = train.fit(
    step, state, [batch] * 30, key=jax.random.key(1), log_every=1,
    mesh=parallel.data_mesh(jax.devices()[:1]),
    on_log=lambda step, metrics: seen.append(metrics),
  )  # fmt: skip
  assert seen[-1]['loss'] < 0.5 * seen[0]['loss'] and seen[-1]['robust_accuracy'] == 1
  assert np.abs(np.asarray(after.batch_stats['BatchNorm_0']['mean'])).max() > 0


@pytest.mark.parametrize(
  'parameters, said',
  [
    (dict(eps=0.0), '`eps` must be positive and finite .*use `clean`'),
    (dict(eps=8.0), 'for 8 grey levels write 8 / 255'),
    (dict(step_size=-1.0), '`step_size` must be positive'),
    (dict(num_steps=0), '`num_steps` must be positive'),
    (dict(beta=-1.0), '`beta` weighs the divergence: at least 0'),
    (dict(gamma=1.0), r'`gamma` is a share .* in \[0, 1\), got gamma=1.0'),
    (dict(betta=1.0), 'has no parameter betta; it takes eps, step_size, num_steps, beta'),
  ],
)
def test_bad_parameters(parameters, said):
  with pytest.raises(ValueError, match=said):
    train.objective('trades', None, sigma=0.0, **parameters)


def test_it_refuses_noise_and_images_without_their_points():
  with pytest.raises(ValueError, match='trains on clean images'):
    train.objective('trades', smoothing.gaussian(sigma=0.5), sigma=0.5)
  with pytest.raises(ValueError, match='give `make_step` the `perturb` of the same objective'):
    train.trades().loss(None, logits_are_pixels, NATURAL, LABELS, 0)
