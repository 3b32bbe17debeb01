"""APGD in L1: protocol, schedule, sparse steps, a numpy version of every step, the best corner of a ball."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats
from certjax.attacks import _apgd_l1

pytestmark = pytest.mark.usefixtures('many_programs')

SHAPE, CLASSES = (2, 2, 3), 4
W = np.random.default_rng(0).normal(size=(12, CLASSES)).astype(np.float32)
V = np.random.default_rng(4).normal(size=(CLASSES, CLASSES)).astype(np.float32)


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


def network(x):
  return jnp.sin(2 * linear(x)) @ V


def batch(model_fn=linear, low=0.3, high=0.7):
  x = np.random.default_rng(1).uniform(low, high, (4, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.argmax(model_fn(jnp.asarray(x)), axis=1).astype(jnp.int32)


def margins(model_fn, x, y):
  return np.asarray(jax.vmap(attacks.margin)(model_fn(jnp.asarray(x)), y))


def run(attack, model_fn, x, y):
  return jax.jit(lambda x, y: attack(jax.random.key(0), model_fn, x, y))(x, y)


def test_protocol():
  make = lambda threat: attacks.apgd(threat, num_steps=9, targets=2, large_eps=True)
  testing.check_attack(make, threats.l1, network, *batch(network), score=attacks.margin)


def test_schedule():
  """100 steps: 30, 30 and 40 of them, the start of each judged too; a checkpoint every 4%, at least 1."""
  kept, entries, first = _apgd_l1.schedule(100, True, np.float32)
  here, leaves, scale, after = map(np.asarray, entries)
  assert first == 3 and np.flatnonzero(leaves).tolist() == [30, 61]
  assert scale.tolist() == [3] * 31 + [2] * 31 + [1] * 41
  assert after.tolist() == [3] * 30 + [2] * 31 + [1] * 42
  assert np.array_equal(kept, np.arange(103) >= 62)
  assert not here[[0, 31, 62]].any() and here[1:31].all() and here[63:].all()
  kept, entries, first = _apgd_l1.schedule(100, False, np.float32)
  here, leaves, _, _ = map(np.asarray, entries)
  assert kept.all() and not leaves.any() and first == 1
  assert np.flatnonzero(here).tolist() == list(range(4, 101, 4))
  for num_steps in range(4):
    assert len(_apgd_l1.schedule(num_steps, True, np.float32)[0]) == num_steps + 3


def test_sparse_steps():
  gradient = jnp.array([0.5, -3.0, 0.0, 2.0, 1.0])
  step = jax.jit(_apgd_l1.sparse_step)
  expected = {0.2: [0, -1, 0, 0, 0], 2.9: [0, -0.5, 0, 0.5, 0], 9.0: [0.25, -0.25, 0, 0.25, 0.25]}
  for share, values in expected.items():
    assert step(gradient, share).tolist() == values
  assert step(jnp.zeros(3), 2.0).tolist() == [0, 0, 0]
  assert step(jnp.array([1.0, 1.0, 0.5]), 1.0).tolist() == [0.5, 0.5, 0]
  assert np.isfinite(step(jnp.array([jnp.nan, 1.0]), 2.0)).all()


def greedy(x, w, eps):
  """The largest <w, d> with |d|_1 <= eps and x + d in [0, 1]: values of large |w| to the border, in turn."""
  total, left = 0, eps
  room = np.where(w > 0, 1 - x, x)
  for i in np.argsort(-np.abs(w)):
    total, left = total + abs(w[i]) * min(room[i], left), max(left - room[i], 0)
  return total


@pytest.mark.parametrize('large_eps', [False, True])
def test_best_corner_of_a_linear_model(large_eps):
  """Of two classes, in a ball that one value alone fills, and in one that needs two or three."""
  two = lambda x: linear(x)[:, :2]
  x, y = batch(two)
  attack = lambda eps: attacks.apgd(threats.l1(eps), num_steps=60, large_eps=large_eps)
  each = jax.jit(lambda eps, x, y: attack(eps)(jax.random.key(0), two, x, y))
  for eps, least in ((0.2, 1), (1.5, 0.95)):
    gain = margins(two, each(eps, x, y), y) - margins(two, x, y)
    sign = np.where(np.asarray(y) == 0, 1, -1)
    flat = np.float64(x).reshape(4, -1)
    best = np.array(
      [greedy(row, s * (W[:, 1] - W[:, 0]), eps) for row, s in zip(flat, sign, strict=True)]
    )
    assert (gain <= best * (1 + 1e-4)).all() and (gain >= least * best * (1 - 1e-4)).all()


def numpy_search(eps, x, y, start, balls):
  """One image, as in the paper, ball after ball; numpy but for projection and gradient. All points."""
  value_and_gradient = jax.jit(
    jax.value_and_grad(lambda p: attacks.cross_entropy(network(p[None])[0], y))
  )
  points, shrunk, grown = [], 0, 0
  moved = lambda point: int(np.sum(np.asarray(point) != np.asarray(x)))
  point, best, share, old = start, start, 0.2 * x.size, x.size
  for number, (scale, length) in enumerate(balls):
    ball = threats.l1(scale * eps)
    if number:
      point = ball.project(x, best)
      share, old = moved(point) / 1.5, moved(point)
    step_size, stretch, top = scale * eps, max(length * 4 // 100, 1), -np.inf
    for t in range(length + 1):
      value, gradient = value_and_gradient(point)
      points.append(np.asarray(point))
      if value > top:
        top, best, slope = value, point, gradient
      if t and t % stretch == 0:
        new = moved(best)
        if new / old < 0.95:
          step_size, point, gradient, shrunk = scale * eps, best, slope, shrunk + 1
        else:
          step_size, grown = max(step_size / 1.5, scale * eps / 10), grown + 1
        share, old = new / 1.5, new
      g, at = np.asarray(gradient), np.asarray(point)
      g = np.where(np.where(g > 0, 1 - at, at) < 1e-6, 0, g)
      number_moved = max(int(share), 1)
      large = (np.abs(g) >= np.sort(np.abs(g).ravel())[-number_moved]) & (g != 0)
      point = ball.project(x, point + step_size * np.sign(g) * large / large.sum())
  return points, shrunk, grown


def test_every_step_is_the_published_one():
  """All points that are judged, in three balls, against numpy; the step is reset and divided."""
  x, y = batch(network)
  seen = []

  def watched(points):
    jax.debug.callback(lambda p: seen.append(np.asarray(p[0])), points, ordered=True)
    return network(points)

  attack = attacks.apgd(threats.l1(0.4), num_steps=20, large_eps=True)
  jax.block_until_ready(run(attack, watched, x[:1], y[:1]))
  jax.effects_barrier()
  points, shrunk, grown = numpy_search(
    0.4, x[0], y[0], jnp.asarray(seen[1]), [(3, 6), (2, 6), (1, 8)]
  )
  assert shrunk and grown and len(seen) == 24
  np.testing.assert_allclose(np.abs(seen[1] - x[0]).sum(), 1.2, rtol=1e-4)
  np.testing.assert_allclose(np.stack(seen[1:]), np.stack(points), atol=2e-4)


def test_points_of_larger_balls_are_not_returned():
  """Every point but x is misclassified, by a margin that grows with its distance; times NaN, x stays."""

  def attack(scale, x, y):
    far = lambda x: jnp.stack([jnp.full(len(x), 1e-3), jnp.abs(x - 0.5).sum((1, 2, 3))], axis=1)
    search = attacks.apgd(threats.l1(0.3), num_steps=6, large_eps=True)
    return search(jax.random.key(0), lambda x: far(x) * scale, x, y)

  x, y, attack = jnp.full((1, *SHAPE), 0.5), jnp.zeros(1, jnp.int32), jax.jit(attack)
  np.testing.assert_allclose(jnp.abs(attack(1.0, x, y) - x).sum(), 0.3, rtol=1e-5)
  assert np.array_equal(attack(jnp.nan, x, y), x)
