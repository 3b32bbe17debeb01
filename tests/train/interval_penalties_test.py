"""Penalties of a short warm-up: their formulas in numpy, limits, gradients, and what they do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from certjax import bounds, parallel, train
from certjax.train import _interval_penalties

RNG = np.random.default_rng(0)
W = {
  'a': RNG.normal(0, 1, (6, 16)),
  'b': RNG.normal(0, 1, (16, 12)),
  'c': RNG.normal(0, 1, (12, 3)),
}
X, Y = RNG.uniform(0.2, 0.8, (8, 6)), np.arange(8) % 3
KEYS = jax.random.split(jax.random.key(0), 8)
EPS, TAU = 0.04, 0.75
DOUBLE = pytest.mark.usefixtures('float64')


@pytest.fixture
def float64():
  with parallel.x64():
    yield


def network(w, x):
  return jax.nn.relu(jax.nn.relu(x @ w['a']) @ w['b']) @ w['c']


def layers(w, eps):
  """[(l, u)] before the two ReLUs, in numpy."""
  low, high, found = X - eps, X + eps, []
  for matrix in (w['a'], w['b']):
    center, reach = (low + high) / 2 @ matrix, (high - low) / 2 @ np.abs(matrix)
    found.append((center - reach, center + reach))
    low, high = np.maximum(center - reach, 0), np.maximum(center + reach, 0)
  return found


def expected(w, eps):
  """(tightness, balance) by loops over the units."""
  tightness = balance = 0.0
  for low, high in layers(w, eps):
    tightness += max(0, TAU - 2 * eps / np.mean(high - low))
    middle = (low + high) / 2
    mean, sums = middle.mean(), np.zeros((2, 2))  # [centre or variance, active or inactive]
    for l, u, c in zip(low.ravel(), high.ravel(), middle.ravel(), strict=True):
      if l > 0 or u < 0:
        sums[:, int(u < 0)] += abs(c), (c - mean) ** 2
    if sums[0].min() > 0:
      balance += np.maximum(0, TAU - sums.min(axis=1) / sums.max(axis=1)).sum()
  return tightness / (2 * TAU), balance / (2 * TAU)


@functools.partial(jax.jit, static_argnums=(2, 3))
def penalty(w, eps, tightness=1.0, balance=1.0):
  made = _interval_penalties.penalty_of(tightness, balance, TAU)
  return made(functools.partial(network, w), bounds.ball(jnp.asarray(X), eps, clip=None))


@DOUBLE
@pytest.mark.parametrize('scale', [1.0, 0.05])
def test_the_formulas(scale):
  """With small weights the boxes shrink, and tightness costs nothing."""
  w = jax.tree.map(lambda leaf: scale * leaf, W)
  tightness, balance = expected(w, EPS)
  assert balance > 0 and (tightness > 0) == (scale == 1)
  assert float(penalty(w, EPS, 1.0, 0.0)) == pytest.approx(tightness, abs=1e-12)
  assert float(penalty(w, EPS, 0.0, 1.0)) == pytest.approx(balance, abs=1e-12)


@DOUBLE
def test_one_kind_of_units_costs_nothing():
  """All units active, all inactive, all of them unstable, and a network of zeros: finite gradients."""
  for change in (np.abs, lambda leaf: -np.abs(leaf), np.zeros_like):
    w = {**W, 'a': change(W['a']), 'b': change(W['b'])}
    assert float(penalty(w, EPS, 0.0, 1.0)) == 0
    slope = jax.grad(lambda w: penalty(w, EPS))(w)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
  assert float(penalty(W, 5.0, 0.0, 1.0)) == 0


@DOUBLE
@pytest.mark.parametrize('name', ['ibp', 'crown-ibp'])
def test_they_fade_as_the_radius_grows(name):
  """Step 0: the boxes of a small radius at full weight; then less and less, none at the end."""
  make = functools.partial(train.OBJECTIVES[name], eps=EPS, warmup_steps=10)
  penalised = make(tightness=0.5, balance=0.25, tolerance=TAU)
  model = functools.partial(network, jax.tree.map(jnp.asarray, W))
  apply = lambda x, train: (model(x), {})

  @jax.jit
  def both(step):
    losses = [o.loss(KEYS, apply, jnp.asarray(X), Y, step) for o in (penalised, make())]
    return [value for value, _ in losses], losses[0][1][0]['eps']

  for step in (0, 4, 10, 25):
    done = min(step / 10, 1)
    (found, plain), eps = both(jnp.int32(step))
    tightness, balance = expected(W, max(EPS * done, 1e-4))
    added = (1 - done) * (0.5 * tightness + 0.25 * balance)
    assert float(found) - float(plain) == pytest.approx(added, abs=1e-9)
    assert float(eps) == pytest.approx(EPS * done, abs=1e-8)


@DOUBLE
def test_gradients():
  check_grads(functools.partial(penalty, eps=EPS), (W,), 1, modes=['rev'])


def test_descending_them_tightens_and_balances():
  """In float32, from boxes that grow and mostly inactive units, as training finds them."""
  w = {**W, 'b': W['b'] - 0.8}
  w = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), w)
  made = _interval_penalties.penalty_of(1.0, 1.0, TAU)
  region = bounds.ball(jnp.asarray(X, jnp.float32), _interval_penalties.SMALLEST)
  tx = optax.adam(0.02)

  @jax.jit
  def descend(w):
    def step(carry, _):
      w, state = carry
      loss, slope = jax.value_and_grad(lambda w: made(functools.partial(network, w), region))(w)
      updates, state = tx.update(slope, state)
      return (optax.apply_updates(w, updates), state), loss

    with jax.numpy_dtype_promotion('standard'):  # optax raises floats to int32 powers.
      return jax.lax.scan(step, (w, tx.init(w)), length=200)[1]

  losses = descend(w)
  assert losses[0] > 1 and losses[-1] < 0.2
