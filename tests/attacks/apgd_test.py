"""APGD: protocol, checkpoints, linear optima, a numpy version of every step, targets, brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats
from certjax.attacks import _apgd

pytestmark = pytest.mark.usefixtures('many_programs')

SHAPE, CLASSES = (2, 2, 3), 5
W = np.random.default_rng(0).normal(size=(12, CLASSES)).astype(np.float32)
V = np.random.default_rng(4).normal(size=(CLASSES, CLASSES)).astype(np.float32)


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


def network(x):
  return jnp.sin(2 * linear(x)) @ V


def two(x):
  return linear(x)[:, :2]


def batch(model_fn=linear, size=4):
  x = np.random.default_rng(1).uniform(0.3, 0.7, (size, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.argmax(model_fn(jnp.asarray(x)), axis=1).astype(jnp.int32)


def margins(model_fn, x, y):
  return np.asarray(jax.vmap(attacks.margin)(model_fn(jnp.asarray(x)), y))


def run(attack, model_fn, x, y, key=None):
  key = jax.random.key(0) if key is None else key
  return jax.jit(lambda key, x, y: attack(key, model_fn, x, y))(key, x, y)


@pytest.mark.parametrize(
  'threat, options',
  [
    (threats.linf, {'num_restarts': 2, 'loss': attacks.dlr}),
    (threats.l2, {'targets': 2}),
  ],
  ids=['linf dlr', 'l2 targets'],
)
def test_protocol(threat, options):
  make = lambda threat: attacks.apgd(threat, num_steps=6, **options)
  testing.check_attack(make, threat, network, *batch(network), score=attacks.margin)


def test_checkpoints():
  assert _apgd.checkpoints(100).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
  assert _apgd.checkpoints(50).tolist() == [11, 21, 30, 38, 45]
  assert _apgd.checkpoints(20).tolist() == [4, 7, *range(9, 21)]
  assert _apgd.checkpoints(0).tolist() == []


@pytest.mark.parametrize('name, order, targets', [('linf', 1, None), ('l2', 2, 9)])
def test_linear_optimum(name, order, targets):
  """Of two classes: the margin grows by eps |w_1 - w_0| in the dual norm, from any start."""
  x, y = batch(two)
  attack = attacks.apgd(getattr(threats, name)(0.1), num_steps=20, targets=targets)
  gain = margins(two, run(attack, two, x, y), y) - margins(two, x, y)
  np.testing.assert_allclose(gain, 0.1 * np.linalg.norm(W[:, 1] - W[:, 0], order), rtol=1e-4)


@pytest.mark.parametrize(
  'name, order, classes, loss', [('linf', 1, 3, None), ('l2', 2, 5, attacks.margin_targeted)]
)
def test_targets_find_the_best_class_of_a_linear_model(name, order, classes, loss):
  """max_t z_t - z_y + eps |w_t - w_y|; fewer classes than 4 have no ratio, and are served as well."""
  model_fn, w = lambda x: linear(x)[:, :classes], W[:, :classes]
  x, y = batch(model_fn)
  attack = attacks.apgd(getattr(threats, name)(0.1), num_steps=20, targets=9, loss=loss)
  x_adv = run(attack, model_fn, x, y)
  logits = np.asarray(model_fn(x))
  reach = np.array([0.1 * np.linalg.norm(w - w[:, [c]], order, axis=0) for c in y])
  best = logits + reach - logits[np.arange(4), y][:, None]
  best[np.arange(4), y] = -np.inf
  np.testing.assert_allclose(margins(model_fn, x_adv, y), best.max(axis=1), rtol=1e-4)


def test_targets_climb_the_ratio_where_there_are_four_classes():
  x, y = batch(network)
  ratio, default, other = (
    run(attacks.apgd(threats.l2(0.3), num_steps=8, targets=2, loss=loss), network, x, y)
    for loss in (attacks.dlr_targeted, None, attacks.margin_targeted)
  )
  assert np.array_equal(ratio, default) and not np.array_equal(ratio, other)


def numpy_apgd(threat, x, y, num_steps, start):
  """One image, as in the paper; numpy but for the threat and the gradient. Returns all points."""
  places = _apgd.checkpoints(num_steps).tolist()
  value_and_gradient = jax.jit(
    jax.value_and_grad(lambda p: attacks.cross_entropy(network(p[None])[0], y))
  )
  eta, point, previous, points, values, reduced, old_best = (
    2 * threat.eps,
    start,
    start,
    [],
    [],
    True,
    0,
  )
  best_value, best = -np.inf, None
  halvings = 0
  for t in range(num_steps + 1):
    value, gradient = value_and_gradient(point)
    value = float(value)
    points.append(np.asarray(point))
    values.append(value)
    if value > best_value:
      best_value, best = value, (point, gradient)
    if t in places:
      window = t - ([0, *places][places.index(t)])
      rises = sum(values[i] > values[i - 1] for i in range(t - window + 1, t + 1))
      halve = rises <= 0.75 * window or (not reduced and best_value == old_best)
      if halve:
        eta, (point, gradient), halvings = eta / 2, best, halvings + 1
      reduced, old_best = halve, best_value
    z = threat.project(x, point + eta * threat.steepest(gradient))
    a = 0.75 if t else 1.0
    ahead = threat.project(x, point + a * (z - point) + (1 - a) * (point - previous))
    previous, point = point, ahead
  return points, halvings


@pytest.mark.parametrize('name', ['linf', 'l2'])
def test_every_step_is_the_published_one(name, monkeypatch):
  """All points that are judged, against numpy; halvings and stretches without one both occur."""
  threat, (x, y), key = getattr(threats, name)(0.3), batch(network, 1), jax.random.key(3)
  seen = []
  attack = attacks.apgd(threat, num_steps=20)

  def watched(points):
    jax.debug.callback(lambda p: seen.append(np.asarray(p[0])), points, ordered=True)
    return network(points)

  jax.block_until_ready(run(attack, watched, x, y, key[None]))
  jax.effects_barrier()
  start = jnp.asarray(seen[1])
  points, halvings = numpy_apgd(threat, x[0], y[0], 20, start)
  assert 1 <= halvings < 14
  np.testing.assert_allclose(np.stack(seen[1:]), np.stack(points), atol=2e-4)


def test_starts_lie_on_the_border():
  x = jnp.full(SHAPE, 0.5)
  keys = jax.random.split(jax.random.key(0), 50)
  for threat in (threats.linf(0.1), threats.l2(0.1)):
    starts = jax.jit(jax.vmap(lambda key, threat=threat: _apgd._border(threat, key, x)))(keys)
    lengths = jax.vmap(threat.distance, (None, 0))(x, starts)
    np.testing.assert_allclose(lengths, 0.1, rtol=1e-5)
    above = np.asarray(starts) > 0.5
    assert above.any(axis=0).all() and not above.all(axis=0).any()


def test_finds_the_best_of_a_fine_grid():
  """Two pixels, a narrow ridge whose top is outside the square: no point of 201 x 201 is better."""
  w, top = jnp.array([[4, 1], [4, -1]], jnp.float32), jnp.array([[0.85, 0.4]])
  model_fn = lambda x: jnp.stack([jnp.zeros(len(x)), -(((x - top) @ w) ** 2).sum(1)], axis=1)
  x, y = jnp.array([[0.45, 0.55]]), jnp.array([0], jnp.int32)
  grid = np.array(list(itertools.product(np.linspace(-0.3, 0.3, 201), repeat=2)), np.float32)
  best = margins(model_fn, np.asarray(x) + grid, np.zeros(len(grid), np.int32)).max()
  attack = attacks.apgd(threats.linf(0.3), num_steps=50, loss=attacks.margin)
  x_adv = run(attack, model_fn, x, y)
  assert margins(model_fn, x_adv, y)[0] >= best - 1e-4 > margins(model_fn, x, y)[0]


def test_a_misclassified_point_is_kept_before_a_larger_loss():
  """x loses to one class; on the border the label wins narrowly over two, and the loss is larger."""
  lost, won = jnp.array([[0, 0.3, -5]], jnp.float32), jnp.array([[0, -0.1, -0.1]], jnp.float32)
  model_fn = lambda x: jnp.where(jnp.abs(x - 0.5) < 0.1, lost, won)
  x, y = jnp.array([[0.5]]), jnp.array([0], jnp.int32)
  loss = lambda logits: float(attacks.cross_entropy(logits[0], 0))
  assert loss(won) > loss(lost)
  assert np.array_equal(run(attacks.apgd(threats.linf(0.5), num_steps=2), model_fn, x, y), x)


def test_when_the_step_is_halved():
  """A stretch of 4 steps of which 3 or fewer rose; or a best loss that stood still at a kept step."""
  cases = [  # Rises before, value (the last one was .4), halved last time, best loss then: halve now?
    (3, 0.5, True, 1.0, False),
    (3, 0.5, False, 1.0, True),
    (3, 0.5, False, 0.9, False),
    (2, 0.5, True, 0.9, True),
    (3, 0.3, True, 0.9, True),
  ]
  threat, x, peak = threats.linf(0.1), jnp.array([0.5]), jnp.array([0.55])
  point = jnp.array([0.45])

  def advance(stretch, rises, value, halved, peak_then):
    top = (peak, jnp.ones(1), jnp.float32(1))
    state = _apgd._State(
      point, x, jnp.float32(0.2), jnp.float32(0.4), rises, top, peak_then, halved
    )
    new = _apgd._advance(threat, (stretch, jnp.float32(0.75)), x, state, value, -jnp.ones(1))
    return new.step_size, new.previous[0], new.halved, new.rises

  columns = [np.array(column) for column in zip(*cases, strict=True)]
  arguments = (
    columns[0].astype(np.int32),
    np.float32(columns[1]),
    columns[2],
    np.float32(columns[3]),
  )
  for stretch, expected in ((4, columns[4]), (0, np.zeros(5, bool))):
    each = jax.jit(jax.vmap(advance, (None, 0, 0, 0, 0)))
    step_size, place, halved, rises = each(jnp.int32(stretch), *arguments)
    np.testing.assert_allclose(step_size, np.where(expected, 0.1, 0.2), rtol=1e-6)
    np.testing.assert_allclose(place, np.where(expected, 0.55, 0.45), rtol=1e-6)
    if stretch:
      assert np.array_equal(halved, expected) and (rises == 0).all()


def test_nan_gradients_leave_a_feasible_point():
  x, y = batch()
  x_adv = run(attacks.apgd(threats.linf(0.1), num_steps=5), lambda x: linear(x) * jnp.nan, x, y)
  assert np.array_equal(x_adv, x)


@pytest.mark.parametrize(
  'threat, options, message',
  [
    (threats.l0(3), {}, "`threat` must be one of linf, l2, l1, got 'l0'"),
    (
      threats.l2(0.1),
      {'large_eps': True},
      "`large_eps` is a schedule for L1, got a threat in 'l2'",
    ),
    (threats.l2(0.1), {'num_steps': -1}, 'got num_steps=-1, num_restarts=1'),
    (threats.l2(0.1), {'num_restarts': 0}, '`num_restarts` at least 1, got'),
    (threats.l2(0.1), {'targets': 0}, '`targets` must be at least 1, or None'),
  ],
)
def test_bad_arguments(threat, options, message):
  with pytest.raises(ValueError, match=message):
    attacks.apgd(threat, **options)


def test_ratio_of_two_classes_is_refused():
  x, y = batch(two)
  with pytest.raises(ValueError, match='`dlr` compares 3 logits'):
    attacks.apgd(threats.l2(0.1), loss=attacks.dlr)(jax.random.key(0), two, x, y)
