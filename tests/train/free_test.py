"""Adversarial training for free: the step is m updates written out."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import parallel, threats, train

pytestmark = pytest.mark.usefixtures('many_programs')

SHAPE, EPS, RATE, NUM = (2, 2, 1), 0.1, 0.5, 3
BATCH = {
  'x': np.random.default_rng(0).uniform(0.05, 0.95, (8, *SHAPE)).astype(np.float32),
  'y': (np.arange(8) % 2).astype(np.int32),
  'index': np.arange(8, dtype=np.int32),
}


class Normalised(nn.Module):
  """BatchNorm, as small as a model with statistics can be."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(4)(x.reshape(len(x), -1))
    axis = parallel.AXIS if train else None
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5, axis_name=axis)(x)
    return nn.Dense(2)(nn.tanh(x))


def run(tx, **method):
  """(first state, last state, metrics) of one step of training."""
  module = Normalised()
  state = train.init_state(jax.random.key(0), module, tx, SHAPE)
  first, seen = jax.device_get(state), []
  after = train.fit(
    train.make_step(module, tx, **method), state, [BATCH],
    key=jax.random.key(1), mesh=parallel.data_mesh(jax.devices()[:1]), log_every=1,
    on_log=lambda step, metrics: seen.append(metrics),
  )  # fmt: skip
  return first, jax.device_get(after), seen[0]


def free(**parameters):
  return train.objective('free-adversarial', None, sigma=0.0, eps=EPS, **parameters)


def written_out(first, points):
  """(weights, statistics, losses) of NUM updates, one after the other, with momentum by hand."""
  x, y = BATCH['x'], BATCH['y']
  params, stats, losses = first.params, first.batch_stats, []
  speed = jax.tree.map(np.zeros_like, params)

  def loss(params, x, stats):
    variables = {'params': params, 'batch_stats': stats}
    logits, updated = Normalised().apply(variables, x, train=True, mutable=['batch_stats'])
    value = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    return value, updated['batch_stats']

  with jax.numpy_dtype_promotion('strict'):
    one = jax.jit(
      jax.vmap(
        jax.value_and_grad(loss, (0, 1), has_aux=True), (None, 0, None), axis_name=parallel.AXIS
      )
    )
  for _ in range(NUM):
    (value, stats), (gradient, in_x) = jax.tree.map(
      lambda a: a[0], one(params, points[None], stats)
    )
    speed = jax.tree.map(lambda v, g: 0.9 * v + g, speed, gradient)
    params = jax.tree.map(lambda w, v: w - RATE * v, params, speed)
    points = jnp.clip(x + jnp.clip(points + EPS * jnp.sign(in_x) - x, -EPS, EPS), 0, 1)
    losses.append(float(value))
  return params, stats, losses


def test_a_step_is_its_updates_written_out():
  starts = []

  def remember(keys, model_fn, x, y, step):
    start = made['perturb'](keys, model_fn, x, y, step)
    jax.debug.callback(starts.append, start)
    return start

  made = free(num_replays=float(NUM))
  tx = optax.sgd(optax.constant_schedule(RATE), 0.9)
  first, after, metrics = run(tx, **{**made, 'perturb': remember})
  jax.effects_barrier()
  (start,) = starts
  params, stats, losses = written_out(first, np.asarray(start))
  chex.assert_trees_all_close(after.params, params, atol=1e-5)
  chex.assert_trees_all_close(after.batch_stats, stats, atol=1e-5)
  assert metrics['loss'] == pytest.approx(np.mean(losses), abs=1e-5)
  assert np.ptp(losses) > 1e-3  # Its updates differ.
  assert int(after.step) == 1
  counts = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.dtype == np.int32]
  assert counts == [NUM]  # A schedule counts updates.
  distance = np.abs(np.asarray(start) - BATCH['x']).max()
  assert EPS / 2 < distance <= EPS + 1e-6  # A random start.


def test_points_stay_in_another_ball_and_climb():
  threat = threats.l2
  made = train.free_adversarial(eps=EPS, threat=threat, warmup_steps=4)
  x, gradient = jnp.asarray(BATCH['x']), jnp.asarray(BATCH['x'][::-1] - 0.5)

  @jax.jit
  def points(keys, step):
    start = made.perturb(keys, None, x, None, step)
    moved = made.replays.move(x, start, gradient, step)
    row = made.replays.move(x[2:3], start[2:3], gradient[2:3], step)
    return start, moved, row, jax.vmap(threat(EPS).distance)(x, moved)

  for step, eps in ((0, EPS / 4), (9, EPS)):
    keys = jax.random.split(jax.random.key(0), 8)
    start, moved, row, distance = jax.device_get(points(keys, jnp.int32(step)))
    assert distance.max() == pytest.approx(eps, abs=1e-6)
    assert moved.min() >= 0 and moved.max() <= 1
    assert np.sum((moved - start) * np.asarray(gradient)) > 0
    np.testing.assert_allclose(row[0], moved[2], atol=1e-6)


@pytest.mark.parametrize(
  'parameters, said',
  [
    (dict(num_replays=0), r'`num_replays` must be positive and finite \(a count\)'),
    (dict(step_size=-0.1), '`step_size` must be positive'),
    (dict(num_steps=3), 'has no parameter num_steps; it takes eps, step_size, num_replays'),
  ],
)
def test_bad_parameters(parameters, said):
  with pytest.raises(ValueError, match=said):
    train.objective('free-adversarial', None, sigma=0.0, **parameters)
