"""Wasserstein attacks: exact distances, linear programs as optima, the growing ball, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from certjax import attacks, layers
from certjax.attacks._transport import stencil
from certjax.attacks._wasserstein import onto_ball

SHAPE, METHODS = (4, 4, 2), ('frank-wolfe', 'dual-projection', 'sinkhorn')
SLOPE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
EPS = np.array([0.0, 0.05, 0.3, 0.05, 0.3, 1.0], np.float32)


def linear(x):
  score = jnp.tensordot(x, jnp.asarray(SLOPE), 3)
  return jnp.stack([score, jnp.zeros(len(x))], axis=1)


def batch():
  """Six images, the last three nearly full: the capacity binds."""
  x = np.random.default_rng(1).uniform(size=(6, *SHAPE)).astype(np.float32)
  x[:3] *= 0.3 * (x[:3] > 0.3)
  x[3:] = np.minimum(0.5 + 0.8 * x[3:], 1)
  return jnp.asarray(x), jnp.zeros(6, jnp.int32)


def limits(places, x, eps, capacity):
  """Arguments of `linprog` for plans from x of cost at most eps within the capacity."""
  inside = places.index < x.size
  s, n = np.nonzero(inside)
  rows, columns = (np.zeros((x.size, len(s))) for _ in range(2))
  rows[n, np.arange(len(s))] = 1
  columns[places.index[s, n], np.arange(len(s))] = 1
  below = {'A_ub': np.vstack([places.cost[s], columns]), 'b_ub': [eps] + [capacity] * x.size}
  return inside, {**below, 'A_eq': rows, 'b_eq': x}


def least_score(x, eps, places):
  """The least <SLOPE, x'> that any plan of the stencil reaches, by a linear program."""
  mass, unit = float(x.sum()), np.float64(x).ravel() / float(x.sum())
  inside, arguments = limits(places, unit, eps, max(1 / mass, unit.max()))
  places_value = np.append(SLOPE.ravel(), 0)[places.index][inside]
  return mass * optimize.linprog(np.float64(places_value), **arguments).fun


@functools.cache
def attacked(method):
  """(x_adv, x_adv of the same rows backwards, traces of two calls)."""
  traces = []

  @jax.jit
  def run(x, y, eps):
    traces.append(1)
    attack = attacks.wasserstein(
      eps=eps, method=method, num_steps=60, step_size=0.3, loss=attacks.margin
    )
    return attack(jax.random.key(0), linear, x, y)

  x, y = batch()
  x_adv, backwards = run(x, y, EPS), run(x[::-1], y, EPS[::-1])
  return np.asarray(x_adv), np.asarray(backwards)[::-1], len(traces)


@pytest.mark.parametrize('method', METHODS)
def test_protocol(method):
  """In the ball by the exact program and in [0, 1]; eps = 0 changes no bit; rows alone; one trace."""
  x_adv, backwards, traces = attacked(method)
  x, _ = batch()
  assert traces == 1
  np.testing.assert_array_equal(x_adv[0], x[0])
  np.testing.assert_allclose(x_adv, backwards, atol=1e-6)
  assert x_adv.min() >= 0 and x_adv.max() <= 1
  for row, image, eps in zip(x, x_adv, EPS, strict=True):
    assert attacks.wasserstein_distance(row, image) <= eps
    np.testing.assert_allclose(image.sum((0, 1)), row.sum((0, 1)), rtol=1e-5)
  before, after = (np.asarray(linear(z)[:, 0]) for z in (x, x_adv))
  assert (after[1:] < before[1:]).all()  # Even the weakest climbs.


@pytest.mark.parametrize('method, share', [('frank-wolfe', 0.88), ('dual-projection', 0.86)])
def test_near_the_optimum_of_a_linear_model(method, share):
  """Of the plans' linear program; `share` where pixels are full (without prices at most .46)."""
  x, _ = batch()
  gains = np.asarray(linear(x)[:, 0] - linear(attacked(method)[0])[:, 0])
  places = stencil(SHAPE)
  for i in range(1, 6):
    best = float(linear(x[i : i + 1])[0, 0]) - least_score(np.asarray(x[i]), EPS[i], places)
    assert (0.98 if i < 3 else share) * best <= gains[i] <= best * (1 + 1e-4), (i, gains[i] / best)


def test_projection_on_plans_is_the_nearest():
  """P is the projection of V exactly where no plan Q has <V - P, Q> above <V - P, P>."""
  places, rng = stencil((3, 3, 1), 3), np.random.default_rng(2)
  x = np.r_[rng.random(8), 0.0]
  x = x / x.sum()
  run = jax.jit(lambda plan, eps: onto_ball(plan, jnp.asarray(x, jnp.float32), eps, places))
  for eps in (0.05, 0.4, 10.0):
    inside, arguments = limits(places, x, eps, 1)
    v = rng.normal(0, 0.2, inside.shape) * inside
    plan = np.float64(run(jnp.asarray(v, jnp.float32), np.float32(eps)))
    np.testing.assert_allclose(plan.sum(0), x, atol=1e-6)
    assert (plan * places.cost[:, None]).sum() <= eps * (1 + 1e-6)
    assert plan.min() >= 0 and not plan[~inside].any()
    best = -optimize.linprog(-(v - plan)[inside], **arguments).fun
    assert abs(best - np.sum((v - plan)[inside] * plan[inside])) < 1e-5


def test_radius_of_a_linear_model():
  """Between the least distance to the boundary and two growths above; 0 where x is wrong, else inf."""
  scores = np.asarray(linear(batch()[0])[:, 0])
  x = batch()[0][np.argsort(-scores)[:2]]
  places = stencil(SHAPE)
  bias = np.mean([scores.max(), least_score(np.asarray(x[0]), 0.2, places)])
  model_fn = lambda x: linear(x) - jnp.array([[bias, 0.0]], jnp.float32)
  attack = attacks.wasserstein_radius(start=0.01, growth=1.2, grow_every=8, num_steps=160)
  found, radius = attack(None, model_fn, jnp.stack([x[0], x[0]]), jnp.array([0, 1]))
  least = optimize.brentq(lambda e: least_score(np.asarray(x[0]), e, places) - bias, 1e-3, 0.2)
  assert least <= float(radius[0]) <= 1.45 * least
  assert attacks.wasserstein_distance(x[0], found[0]) <= float(radius[0])
  assert model_fn(found).argmax(-1).tolist() == [1, 0] and float(radius[1]) == 0
  np.testing.assert_array_equal(found[1], x[0])


def test_convolutions_are_climbed_and_no_mass_or_number_is_survived():
  kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))

  def model_fn(x):
    hidden = layers.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return jnp.max(jax.nn.relu(hidden), axis=(1, 2))

  x = batch()[0].at[0].set(0)
  y = jnp.argmax(model_fn(x), axis=1)
  attack = attacks.wasserstein(eps=0.5, num_steps=10, size=3)
  with pytest.raises(ValueError, match=r'sum x is not positive for rows \[0\]'):
    attack(None, model_fn, x, y)
  run = jax.jit(lambda scale, x: attack(None, lambda x: scale * model_fn(x), x, y))
  x_adv = run(1.0, x)
  before, after = (jax.vmap(attacks.cross_entropy)(model_fn(z), y) for z in (x, x_adv))
  assert (np.asarray(after)[1:] > np.asarray(before)[1:] + 0.1).all()
  np.testing.assert_array_equal(x_adv[0], x[0])
  np.testing.assert_array_equal(run(jnp.nan, x), x)


@pytest.mark.parametrize(
  'make, match',
  [
    (lambda: attacks.wasserstein(eps=-1.0), '`eps` must be at least 0, got eps=-1.0'),
    (lambda: attacks.wasserstein(eps=np.nan), '`eps` must be at least 0'),
    (lambda: attacks.wasserstein(eps=1.0, method='fw'), '`method` must be one of frank-wolfe'),
    (lambda: attacks.wasserstein(eps=1.0, num_steps=-1), '`num_steps` must be at least 0'),
    (lambda: attacks.wasserstein(eps=1.0, size=2), '`size` of the stencil must be odd'),
    (lambda: attacks.wasserstein(eps=1.0, step_size=0.0), '`step_size` and `regularization`'),
    (lambda: attacks.wasserstein_radius(start=0.0), '`start` must be positive'),
    (lambda: attacks.wasserstein(eps=1.0)(None, linear, jnp.ones((2, 3)), None), 'got shape'),
  ],
)
def test_bad_arguments(make, match):
  with pytest.raises(ValueError, match=match):
    make()
