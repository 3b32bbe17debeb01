"""Losses of Lipschitz networks by their published values, and a step that carries the spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import layers, models, parallel, train

Z, Y = jnp.array([[2.0, 0.5, -1.0]]), jnp.array([0])


def value(logits=Z, y=Y, step=0, **parameters):
  loss, _ = train.lipschitz(**parameters).loss(None, lambda x, train: (x, {}), logits, y, step)
  return float(loss)


@pytest.mark.parametrize(
  'parameters, expected',
  [
    ({}, 0.2413112967),
    (dict(margin=0.3993073588, temperature=0.25), 0.0030497522),
    (dict(margin=2**0.5, temperature=0.25), 0.1343123866),
    (dict(margin=2.0, temperature=0.75, beta=5.0), 0.1354748096),
    (dict(gamma=0.5, lipschitz=1 / 0.2507), 0.1083575441),
  ],
)
def test_reference_values(parameters, expected):
  assert abs(value(**parameters) - expected) < 2e-6


def test_multi_margin_is_that_of_pytorch():
  """Mean over rows of sum_{j != y} max(0, m - f_y + f_j) / K; zero once every margin is there."""
  z, y = np.random.default_rng(0).normal(0, 1, (5, 4)).astype(np.float32), np.array([0, 3, 1, 1, 2])
  apply = lambda x, train: (x, {})
  loss, (metrics, _) = train.multi_margin(margin=0.7).loss(None, apply, z, y, 0)
  rows = [
    [max(0, 0.7 - row[t] + row[j]) for j in range(4) if j != t] for row, t in zip(z, y, strict=True)
  ]
  assert float(loss) == pytest.approx(np.sum(rows) / 20, rel=1e-5)
  assert float(metrics['accuracy']) == pytest.approx(np.mean(z.argmax(1) == y))
  assert float(train.multi_margin(margin=1.0).loss(None, apply, Z, Y, 0)[0]) == 0
  for margin in (0.0, float('inf')):
    with pytest.raises(ValueError, match='`margin` must be positive'):
      train.multi_margin(margin=margin)


def test_a_wrong_label_earns_no_radius():
  assert value(y=jnp.array([2]), gamma=0.5) == value(y=jnp.array([2]))


def test_emma_asks_for_what_is_there_and_its_offset_has_no_gradient():
  """Every rival at most eps away moves up by its own radius: all logits come to f_y."""
  near = jnp.array([[0.2, 0.1, 0.0]])
  assert abs(value(near, eps=1.0) - np.log(3)) < 1e-6
  assert abs(value(near, eps=1e-9) - value(near)) < 1e-6
  grown = [value(Z, eps=1.0, warmup_steps=100, step=step) for step in (0, 50, 100)]
  assert grown[0] < grown[1] < grown[2]
  gradient = jax.grad(
    lambda z: train.lipschitz(eps=1.0).loss(None, lambda x, t: (x, {}), z, Y, 0)[0]
  )
  np.testing.assert_allclose(gradient(near), [[1 / 3 - 1, 1 / 3, 1 / 3]], atol=1e-6)


@pytest.mark.parametrize(
  'parameters, said',
  [
    (dict(temperature=0.0), '`temperature` must be positive'),
    (dict(lipschitz=-1.0), '`lipschitz` must be positive'),
    (dict(margin=-1.0), '`margin` must be at least 0'),
    (dict(gamma=float('inf')), '`gamma` must be at least 0'),
    (dict(beta=0.5), '`beta` must be 0 or at least 1'),
  ],
)
def test_bad_parameters(parameters, said):
  with pytest.raises(ValueError, match=said):
    train.lipschitz(**parameters)


@pytest.fixture(scope='module')
def trained():
  """Forty steps of a tiny SOC network on two kinds of images: (module, states, losses)."""
  module = models.LipConvNet(2, width=2, mean=(0.5,), std=(0.25,))
  tx = optax.sgd(0.1, momentum=0.9)
  mesh = parallel.data_mesh(jax.devices()[:1])
  objective = train.objective('lipschitz', None, sigma=0.0, margin=0.2, temperature=0.25)
  step = parallel.pmap(
    train.make_step(module, tx, **objective), mesh,
    (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED), parallel.REPLICATED,
  )  # fmt: skip
  rng = np.random.default_rng(0)
  y = rng.integers(0, 2, 32).astype(np.int32)
  x = np.clip(0.25 + 0.5 * y[:, None, None, None] + 0.1 * rng.normal(size=(32, 8, 8, 1)), 0, 1)
  batch = {'x': x.astype(np.float32), 'y': y, 'index': np.arange(32, dtype=np.int32)}
  state = first = train.init_state(jax.random.key(0), module, tx, (8, 8, 1))
  losses = []
  for _ in range(40):
    state, metrics = step(state, jax.random.key(1), batch)
    losses.append(float(metrics['loss']))
  return module, first, state, losses


def test_the_step_trains_and_moves_the_spectra(trained):
  module, first, last, losses = trained
  assert losses[-1] < 0.5 * losses[0]
  before, after = (jax.tree.leaves(state.spectral) for state in (first, last))
  assert before and any(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
  assert last.batch_stats == {} and set(last.variables) == {'params', 'batch_stats', 'spectral'}
  assert 4.0 <= layers.lipschitz_upper(module, last.variables) < 4.05


def test_checkpoints_keep_the_spectra(trained, tmp_path):
  _, first, last, _ = trained
  train.save(tmp_path, last)
  restored = train.restore(tmp_path, first)
  for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(last), strict=True):
    np.testing.assert_array_equal(one, other)


def test_clean_objectives_refuse_noise():
  from certjax import smoothing

  with pytest.raises(ValueError, match='trains on clean images'):
    train.objective('lipschitz', smoothing.gaussian(sigma=0.5), sigma=0.5)
