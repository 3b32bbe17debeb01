"""The primal-dual attack: published case, protocol, closed form, brute force, its own optimality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, bounds, parallel, testing, threats

W1, B1 = np.array([[1, 2], [-1, 0.5], [0.3, -1]]), np.array([0.1, -0.2, 0.0])
W2, B2 = np.array([[1, -2, 0.5], [-0.5, 1, 1.5]]), np.array([0.3, -0.1])
X = np.array([[-0.6, 0.8]])


def network(first, first_bias, last, last_bias):
  def model_fn(x):
    cast = lambda a: jnp.asarray(a, x.dtype)
    x = x.reshape(len(x), -1)
    hidden = jax.nn.softplus(x @ cast(first).T + cast(first_bias)[None])
    return hidden @ cast(last).T + cast(last_bias)[None]

  return model_fn


def random_head(seed, features, hidden, num_classes, gain=1.0):
  rng = np.random.default_rng(seed)
  shapes = (hidden, features), (hidden,), (num_classes, hidden), (num_classes,)
  return [gain * rng.normal(size=shape) / np.sqrt(shape[-1]) for shape in shapes]


def worst(x, y, j, eps, weights, **options):
  with parallel.x64():
    found = attacks.worst_in_ball(
      network(*weights), jnp.asarray(x), jnp.asarray(y), jnp.asarray(j), eps,
      curvature=bounds.curvature(weights[0], weights[2]), **options,
    )  # fmt: skip
    return jax.tree.map(np.asarray, found)


def test_the_published_case():
  """Reference case 24."""
  found = worst(X, [0], [1], 0.3, (W1, B1, W2, B2))
  np.testing.assert_allclose(found.x, [[-0.88224948, 0.69833766]], atol=1e-8)
  assert found.value[0] == pytest.approx(-2.3620862642, abs=1e-9)
  assert found.multiplier[0] == pytest.approx(10.990682, abs=1e-5)
  assert found.bound[0] == pytest.approx(found.value[0], abs=1e-9) and found.optimal[0]


def test_between_the_dual_and_brute_force():
  """In the plane, over balls so large that the sphere is not always reached; all pairs of classes."""
  weights = random_head(0, 2, 6, 3, gain=2.0)
  y, j = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 2, 0, 2, 0, 1])
  x = np.tile([[0.3, -0.2]], (6, 1))
  angle, length = np.meshgrid(np.linspace(0, 2 * np.pi, 721), np.linspace(0, 1, 201))
  disk = np.stack([length * np.cos(angle), length * np.sin(angle)], axis=-1).reshape(-1, 2)
  closed = 0
  for eps in (0.1, 0.7, 3.0):
    found = worst(x, y, j, eps, weights)
    with parallel.x64():
      f = np.asarray(network(*weights)(jnp.asarray(x[0] + eps * disk)))
    true = (f[:, y] - f[:, j]).min(axis=0)
    assert (found.bound <= true + 1e-9).all() and (found.bound <= found.value + 1e-9).all()
    assert (np.linalg.norm(found.x - x, axis=1) <= eps * (1 + 1e-12)).all()
    assert (found.value[found.optimal] <= true[found.optimal] + 1e-5).all()
    closed += found.optimal.sum()
    assert (worst(x, y, j, eps, weights, num_multipliers=2, num_steps=1).bound <= true + 1e-9).all()
  assert 6 <= closed < 18  # It knows which.


def test_of_a_linear_model_in_closed_form():
  """f_y - f_j falls by eps |w_y - w_j|; clipping to [0, 1] does nothing here."""
  w = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
  model_fn = lambda x: x.reshape(len(x), -1) @ w
  x = jnp.full((3, 2, 2, 3), 0.5)
  y = jnp.argmax(model_fn(x), axis=1).astype(jnp.int32)
  attack = attacks.cra(threats.l2(0.2), curvature=np.zeros((3, 3)))
  before = model_fn(x) - jnp.take_along_axis(model_fn(x), y[:, None], axis=1)
  rival = jnp.argmax(jnp.where(jax.nn.one_hot(y, 3, dtype=bool), -jnp.inf, before), axis=1)
  after = model_fn(attack(jax.random.key(0), model_fn, x, y))
  steep = np.linalg.norm(w[:, np.asarray(y)] - w[:, np.asarray(rival)], axis=0)
  pick = lambda f, c: np.asarray(jnp.take_along_axis(f, c[:, None], axis=1)[:, 0])
  fall = pick(model_fn(x), y) - pick(model_fn(x), rival) - pick(after, y) + pick(after, rival)
  np.testing.assert_allclose(fall, 0.2 * steep, rtol=1e-5)


def test_protocol():
  first, _, last, _ = random_head(1, 12, 8, 3)
  curvature = bounds.curvature(first, last, activation='tanh')
  matrices = [jnp.asarray(w.T, jnp.float32) for w in (first, last)]
  model_fn = lambda x: jnp.tanh(x.reshape(len(x), -1) @ matrices[0]) @ matrices[1]
  make = lambda threat: attacks.cra(threat, curvature=curvature, num_multipliers=3, num_steps=2)
  x = np.random.default_rng(1).uniform(0, 1, (3, 2, 2, 3)).astype(np.float32)
  y = jnp.array([0, 1, 2], jnp.int32)
  testing.check_attack(make, threats.l2, model_fn, jnp.asarray(x), y, score=attacks.margin)


def test_a_point_that_clipping_makes_worse_is_not_returned():
  """g = 10 (a - b + 1/2)^2 + a + b falls along (-1, -1), but from a = 0 only b can go."""

  def model_fn(x):
    g = 10 * (x[:, 0] - x[:, 1] + 0.5) ** 2 + x[:, 0] + x[:, 1]
    return jnp.stack([g, jnp.zeros_like(g)], axis=1)

  x, y = jnp.array([[0.0, 0.5]]), jnp.array([0])
  curvature = np.array([[0.0, 0.0], [40.0, 0.0]])
  found = jax.jit(lambda: attacks.worst_in_ball(
    model_fn, x, y, jnp.array([1]), 0.4, curvature=curvature
  ))()  # fmt: skip
  assert found.x[0, 0] < -0.2 and found.value[0] < 0.1
  attack = attacks.cra(threats.l2(0.4), curvature=curvature)
  assert np.array_equal(jax.jit(lambda: attack(None, model_fn, x, y))(), x)


def test_it_never_breaks_the_certificate_and_nearly_reaches_it():
  """At the certified radius each rival's margin stays positive; 1% beyond it some are broken."""
  weights = random_head(2, 5, 10, 3, gain=1.5)
  x = np.random.default_rng(2).normal(size=(30, 5))
  proof = bounds.crc(x, weights[::2], weights[1::2])
  broken = []
  for factor in (1.0, 1.01):
    least = np.full(len(x), np.inf)
    for step in (1, 2):
      j = (proof.label + step) % 3
      value = batched(x, proof.label, j, factor * proof.radius, weights)
      least = np.minimum(least, value)
    broken.append(least <= 0)
  assert not broken[0].any() and broken[1].mean() > 0.5


def batched(x, y, j, eps, weights):
  """`worst_in_ball` with one radius an image, by vmap."""
  curvature = bounds.curvature(weights[0], weights[2])
  with parallel.x64():
    one = lambda x, y, j, eps: attacks.worst_in_ball(
      network(*weights), x[None], y[None], j[None], eps, curvature=curvature
    ).value[0]
    arrays = [jnp.asarray(a) for a in (x, y, j, eps)]
    return np.asarray(jax.jit(jax.vmap(one))(*arrays))


@pytest.mark.parametrize(
  'call, said',
  [
    (
      lambda: attacks.cra(threats.linf(0.1), curvature=np.zeros((2, 2))),
      '`threat` must be of norm l2, got .linf.',
    ),
    (
      lambda: attacks.cra(threats.l2(0.1), curvature=np.zeros((2, 2)), num_steps=0),
      '`num_multipliers` and `num_steps` must be at least 1',
    ),
  ],
)
def test_bad_input(call, said):
  with pytest.raises(ValueError, match=said):
    call()
