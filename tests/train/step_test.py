"""The training step: fresh noise, the order of perturb and noise, one trace, evaluation mode."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import attacks, data, models, parallel, smoothing, threats, train

SHAPE = (4, 4, 1)


class Linear(nn.Module):
  """Two logits, no statistics."""

  @nn.compact
  def __call__(self, x, train=False):
    return nn.Dense(2)(x.reshape(len(x), -1))


class Normalised(nn.Module):
  """BatchNorm, as small as a model with statistics can be."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(8)(x.reshape(len(x), -1))
    axis = parallel.AXIS if train else None
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5, axis_name=axis)(x)
    return nn.Dense(2)(nn.tanh(x))


def spy(keys, apply, x, y, step):
  """A loss that returns what it was given: each row's noisy pixels."""
  _, stats = apply(x, True)
  return jnp.float32(0), ({'x': x}, stats)


def run_steps(step, state, batches, key=None):
  """The state and the metrics of each batch, on one device."""
  mesh = parallel.data_mesh(jax.devices()[:1])
  specs = (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED)
  compiled = parallel.pmap(step, mesh, specs, (parallel.REPLICATED, parallel.REPLICATED))
  seen = []
  for batch in batches:
    state, metrics = compiled(state, jax.random.key(7) if key is None else key, batch)
    seen.append(jax.device_get(metrics))
  return state, seen


def batch_of(index, value=0.5):
  index = np.asarray(index, np.int32)
  x = np.full((len(index), *SHAPE), value, np.float32)
  return {'x': x, 'y': np.zeros(len(index), np.int32), 'index': index}


def start(module=None, tx=None):
  module, tx = module or Linear(), tx or optax.sgd(0.1)
  return module, tx, train.init_state(jax.random.key(0), module, tx, SHAPE)


def test_noise_is_fresh_at_every_step_and_example():
  module, tx, state = start()
  step = train.make_step(module, tx, spy, smoothing=smoothing.gaussian(sigma=0.25))
  state, seen = run_steps(step, state, [batch_of([3, 5])] * 3)
  assert int(state.step) == 3
  noise = np.stack([metrics['x'] for metrics in seen]).reshape(6, -1) - 0.5
  assert len(np.unique(noise, axis=0)) == 6
  correlation = np.corrcoef(noise) - np.eye(6)
  assert np.abs(correlation).max() < 0.95  # Of 16 independent pixels; equal draws would give 1.


def test_noise_is_that_of_the_smoothing():
  module, tx, state = start()
  step = train.make_step(module, tx, spy, smoothing=smoothing.gaussian(sigma=0.25))
  _, (metrics,) = run_steps(step, state, [batch_of(np.arange(4000))])
  noise = metrics['x'] - 0.5
  # 64,000 draws: the mean strays by 4 standard errors with probability 6e-5, once, fixed key.
  assert abs(noise.mean()) < 4 * 0.25 / np.sqrt(noise.size)
  assert abs(noise.std() - 0.25) < 4 * 0.25 / np.sqrt(2 * noise.size)


def test_noise_does_not_depend_on_the_batch():
  module, tx, state = start()
  step = train.make_step(module, tx, spy, smoothing=smoothing.gaussian(sigma=0.25))
  _, (whole,) = run_steps(step, state, [batch_of([9, 2, 7, 4])])
  for rows in ([9], [4, 9], [7, 7, 2]):
    _, (part,) = run_steps(step, state, [batch_of(rows)])
    for row, index in enumerate(rows):
      np.testing.assert_array_equal(part['x'][row], whole['x'][[9, 2, 7, 4].index(index)])


def test_noise_depends_on_the_root_key():
  module, tx, state = start()
  step = train.make_step(module, tx, spy, smoothing=smoothing.gaussian(sigma=0.25))
  draws = [run_steps(step, state, [batch_of([1])], jax.random.key(seed))[1][0] for seed in (0, 1)]
  assert not np.array_equal(draws[0]['x'], draws[1]['x'])


def test_noise_comes_after_the_perturbation():
  """perturb moves 0.5 to 0.75 exactly: it saw the clean image, and the noise was added to that."""
  module, tx, state = start()
  seen = []

  def perturb(keys, model_fn, x, y, step):
    seen.append((keys.shape, x.shape))
    return jnp.where(x == 0.5, 0.75, 0.0)

  noise = smoothing.gaussian(sigma=0.01)
  _, (both,) = run_steps(
    train.make_step(module, tx, spy, smoothing=noise, perturb=perturb), state, [batch_of([1, 2])]
  )
  _, (alone,) = run_steps(
    train.make_step(module, tx, spy, smoothing=noise), state, [batch_of([1, 2])]
  )
  assert seen[0] == ((2,), (2, *SHAPE))
  np.testing.assert_allclose(both['x'] - 0.75, alone['x'] - 0.5, atol=1e-6)  # The same draw.
  assert np.abs(both['x'] - 0.75).max() > 1e-3


def test_perturbation_noise_and_loss_draw_different_keys():
  module, tx, state = start()
  given = {}

  def perturb(keys, model_fn, x, y, step):
    given['perturb'] = jax.random.key_data(keys)
    return x

  def loss(keys, apply, x, y, step):
    bits = {'perturb': given['perturb'], 'loss': jax.random.key_data(keys), 'noise': x}
    return jnp.float32(0), (bits, {})

  class Reveal:
    """A smoothing whose noise is its key."""

    @staticmethod
    def sample(key, x):
      return jax.random.key_data(key)

  step = train.make_step(module, tx, loss, smoothing=Reveal, perturb=perturb)
  _, (bits,) = run_steps(step, state, [batch_of([1, 2])])
  rows = np.concatenate([bits['perturb'], bits['noise'], bits['loss']])
  assert len(np.unique(rows, axis=0)) == 6


def test_grey_levels_become_pixels():
  module, tx, state = start()
  batch = {**batch_of([0]), 'x': np.full((1, *SHAPE), 51, np.uint8)}
  _, (metrics,) = run_steps(train.make_step(module, tx, spy), state, [batch])
  assert metrics['x'].dtype == np.float32
  np.testing.assert_allclose(metrics['x'], 51 / 255, rtol=1e-6)


def test_the_loss_decides_which_pass_updates_the_statistics():
  module, tx, state = start(Normalised())

  def without(keys, apply, x, y, step):
    logits, stats = apply(x, False)
    return jnp.mean(logits), ({}, stats)

  moved, _ = run_steps(train.make_step(module, tx, train.cross_entropy), state, [batch_of([0, 1])])
  stayed, _ = run_steps(train.make_step(module, tx, without), state, [batch_of([0, 1])])
  chex.assert_trees_all_equal(stayed.batch_stats, state.batch_stats)
  mean = moved.batch_stats['BatchNorm_0']['mean']
  assert np.abs(np.asarray(mean)).max() > 0


def test_adversarial_training_attacks_the_model_in_evaluation_mode():
  """The attack calls the model with its running statistics: were they the batch's, a row's logits
  would depend on the other rows, and the points of a batch would not be those of its rows."""
  module, tx, state = start(Normalised())
  state = state._replace(
    batch_stats={'BatchNorm_0': {'mean': jnp.full(8, 0.3), 'var': jnp.full(8, 2.0)}}
  )
  attack = attacks.pgd(threats.linf(0.1), step_size=0.05, num_steps=3)
  perturb = train.adversarial(attack)
  images = np.random.default_rng(0).uniform(0.2, 0.8, (4, *SHAPE)).astype(np.float32)
  batch = {
    'x': images,
    'y': np.array([0, 1, 1, 0], np.int32),
    'index': np.arange(4, dtype=np.int32),
  }
  step = train.make_step(module, tx, spy, perturb=perturb)
  after, (whole,) = run_steps(step, state, [batch])
  for row in range(4):
    alone = {name: array[row : row + 1] for name, array in batch.items()}
    _, (part,) = run_steps(step, state, [alone])
    np.testing.assert_allclose(part['x'][0], whole['x'][row], atol=1e-6)
  distance = np.abs(whole['x'] - images).max(axis=(1, 2, 3))
  assert (distance <= 0.1 + 1e-6).all() and (distance > 0.05).all()
  model_fn = models.bind(module, state.variables)
  loss = lambda x: optax.softmax_cross_entropy_with_integer_labels(model_fn(x), batch['y'])
  assert (np.asarray(loss(whole['x'])) > np.asarray(loss(images))).all()
  assert np.abs(np.asarray(after.batch_stats['BatchNorm_0']['mean']) - 0.3).max() > 0  # The loss's.


def test_adversarial_training_with_noise_lowers_the_loss():
  module, tx, state = start(Normalised(), optax.adam(0.02))
  rng = np.random.default_rng(0)
  y = rng.integers(0, 2, 32).astype(np.int32)
  x = np.clip(
    0.5 + 0.3 * (y[:, None, None, None] - 0.5) + 0.05 * rng.normal(size=(32, *SHAPE)), 0, 1
  )
  batch = {'x': x.astype(np.float32), 'y': y, 'index': np.arange(32, dtype=np.int32)}
  step = train.make_step(
    module, tx, train.cross_entropy, smoothing=smoothing.gaussian(sigma=0.1),
    perturb=train.adversarial(attacks.pgd(threats.l2(0.2), step_size=0.1, num_steps=2)),
  )  # fmt: skip
  _, seen = run_steps(step, state, [batch] * 40)
  assert seen[-1]['loss'] < 0.5 * seen[0]['loss'] and seen[-1]['accuracy'] > 0.9


def test_gradients_do_not_flow_through_the_perturbation():
  """The points of `tied` are those of `constant`, but have a gradient in the weights."""
  module, tx, state = start()

  def constant(keys, model_fn, x, y, step):
    return jnp.full_like(x, 0.7)

  def tied(keys, model_fn, x, y, step):
    weights = model_fn(x).sum()
    return jnp.full_like(x, 0.7) + (weights - jax.lax.stop_gradient(weights))

  steps = [
    train.make_step(module, tx, train.cross_entropy, perturb=perturb)
    for perturb in (constant, tied)
  ]
  params = [run_steps(step, state, [batch_of([0, 1])])[0].params for step in steps]
  chex.assert_trees_all_close(*params, atol=1e-7)


@pytest.mark.parametrize('module', [Linear(), Normalised()])
def test_one_trace_serves_many_steps(module):
  tx = optax.adam(optax.linear_schedule(0.1, 0.0, 10))
  state = train.init_state(jax.random.key(0), module, tx, SHAPE)
  chex.clear_trace_counter()
  step = chex.assert_max_traces(
    train.make_step(module, tx, train.cross_entropy, smoothing=smoothing.gaussian(sigma=0.1)), n=1
  )
  images = data.Images(np.zeros((12, *SHAPE), np.uint8), np.zeros(12, np.int32), np.arange(12))
  state = train.fit(
    step, state, data.batches(images, 4, seed=0, num_steps=9), key=jax.random.key(0),
    mesh=parallel.data_mesh(jax.devices()[:1]), log_every=2,
  )  # fmt: skip
  assert int(state.step) == 9
