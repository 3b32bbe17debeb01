"""Zonotopes: closed forms, no sampled point outside, order, and the dual read forwards."""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from scipy import integrate

from certjax import bounds, parallel
from certjax.bounds import _network, _zonotope

pytestmark = pytest.mark.usefixtures('many_programs')


@pytest.fixture(autouse=True)
def _float64():
  with parallel.x64():
    yield


def enclosed(model_fn, region, intersect=True):
  """(centre, generators) of the first image's output."""

  @jax.jit
  def form(region):
    one = jax.tree.map(lambda leaf: leaf[0], region)
    network = _network.trace(model_fn, one.lower)
    return _zonotope.enclose(network, one, _zonotope.diagonal(one), intersect=intersect)[1]

  return jax.tree.map(np.asarray, form(region))


def test_exact_where_the_network_is_affine():
  """Correlated sums that intervals cannot see; also ReLUs that are stable on the region."""
  rng = np.random.default_rng(0)
  w1, w2 = rng.normal(size=(5, 7)), rng.normal(size=(7, 3))
  x = rng.uniform(0.3, 0.7, (4, 5))
  region = bounds.ball(x, 0.1)
  for model_fn in (
    lambda x: (x @ w1) @ w2 - 0.5,
    lambda x: jax.nn.relu(x @ w1 + 50) @ w2 - 0.5 - 50 * w2.sum(0)[None],
  ):
    lower, upper = jax.jit(functools.partial(bounds.zonotope, model_fn))(region)
    reach = 0.1 * np.abs(w1 @ w2).sum(axis=0)
    np.testing.assert_allclose(lower, x @ w1 @ w2 - 0.5 - reach, atol=1e-10)
    np.testing.assert_allclose(upper, x @ w1 @ w2 - 0.5 + reach, atol=1e-10)


@pytest.mark.parametrize('low, high', [(-1.0, 2.0), (-3.0, 0.5), (0.25, 2.0)])
def test_one_neuron_is_the_parallelogram_of_least_area(low, high):
  """Of (t, relu(t)): area -l u = (u - l) 2 delta, by integration of the section over t; 0 if stable."""
  region = bounds.box(np.array([[low]]), np.array([[high]]))
  model_fn = lambda x: jnp.concatenate([x, jax.nn.relu(x)], axis=1)
  form = enclosed(model_fn, region)
  generators = np.asarray(form.generators)[:, 0]
  area = 4 * abs(np.linalg.det(generators))
  expected = -low * high if low < 0 < high else 0.0
  assert area == pytest.approx(expected, abs=1e-12)
  center, (along, fresh) = np.asarray(form.center)[0], generators

  def section(t):
    middle = center[1] + (t - center[0]) / along[0] * along[1]
    assert middle - abs(fresh[1]) - 1e-12 <= max(t, 0) <= middle + abs(fresh[1]) + 1e-12
    return 2 * abs(fresh[1])

  assert integrate.quad(section, low, high)[0] == pytest.approx(expected, abs=1e-9)
  kinks = [np.clip(0, low, high), low, high]
  heights = [np.ptp([max(t, 0) - slope * t for t in kinks]) for slope in np.linspace(0, 1, 101)]
  assert area <= min(heights) * (high - low) + 1e-12  # None with upright sides is smaller.


@pytest.mark.parametrize('name', ['relu', 'sigmoid', 'max-pool', 'pairs'])
def test_no_point_leaves_the_zonotope_and_it_is_within_the_interval(name, small):
  model_fn, shape = small.networks[name]
  x = np.random.default_rng(1).uniform(0, 1, (2, *shape))
  region = bounds.ball(x, 0.1)
  found = jax.jit(lambda region: {
    method: bound(model_fn, region)
    for method, bound in (('zonotope', bounds.zonotope), ('interval', bounds.interval))
  })(region)  # fmt: skip
  found = {name: np.asarray(sides) for name, sides in found.items()}
  (lower, upper), interval = found['zonotope'], found['interval']
  one = jax.tree.map(lambda leaf: leaf[:1], region)
  outputs = np.asarray(jax.jit(model_fn)(small.points(one, 12_500)))
  assert (outputs >= lower[0] - 1e-12).all() and (outputs <= upper[0] + 1e-12).all()
  assert (lower >= interval[0] - 1e-12).all() and (upper <= interval[1] + 1e-12).all()
  assert np.mean(upper - lower) < 0.95 * np.mean(interval[1] - interval[0])


def test_it_is_the_dual_read_forwards(small):
  """Without intersections the same numbers, by another route: ReLU, convolutions, a residual sum."""
  deep = small.mlp(jax.nn.relu, 0, (4, 6, 6, 6, 2)), (4,), 0.4  # Where intersecting would matter.
  for model_fn, shape, eps in (deep, (*small.networks['conv'], 0.15)):
    x = np.random.default_rng(2).uniform(0.2, 0.8, (1, *shape))
    region = bounds.ball(x, eps, clip=None)
    lower, upper = jax.jit(functools.partial(bounds.dual, model_fn))(region)
    form = enclosed(model_fn, region, intersect=False)
    reach = np.abs(form.generators).sum(axis=0)
    np.testing.assert_allclose(form.center - reach, lower, atol=1e-9)
    np.testing.assert_allclose(form.center + reach, upper, atol=1e-9)


def test_radius_zero_is_the_forward_pass_and_memory_is_as_said(small):
  model_fn, shape = small.networks['relu']
  x = np.random.default_rng(3).uniform(0, 1, (3, *shape))
  for side in jax.jit(functools.partial(bounds.zonotope, model_fn))(bounds.ball(x, 0.0)):
    np.testing.assert_allclose(side, model_fn(x), atol=1e-12)
  form = enclosed(model_fn, bounds.ball(x, 0.1))
  assert form.generators.shape == (6 + 8 + 7, 1, 3)  # Pixels, and two hidden layers.


@pytest.mark.parametrize('norm, eps, dual', [('l2', 0.3, 2), ('l1', 0.5, np.inf)])
def test_balls_of_other_norms(norm, eps, dual, small):
  """No point leaves the bound; an affine network has its exact range, as by the dual norm."""
  rng = np.random.default_rng(7)
  w, x = rng.normal(size=(6, 2)), rng.uniform(0.6, 0.7, (1, 6))
  region = bounds.ball(x, eps, norm, clip=None)
  lower, upper = bounds.zonotope(lambda x: x @ w @ w.T, region, np.eye(6)[:2])
  reach = eps * np.linalg.norm((w @ w.T)[:, :2], dual, axis=0)
  np.testing.assert_allclose(lower[0], (x @ w @ w.T)[0, :2] - reach, atol=1e-12)
  np.testing.assert_allclose(upper[0], (x @ w @ w.T)[0, :2] + reach, atol=1e-12)
  model_fn, shape = small.networks['relu']
  region = bounds.ball(rng.uniform(0, 1, (1, *shape)), eps, norm)
  lower, upper = jax.jit(functools.partial(bounds.zonotope, model_fn))(region)
  outputs = np.asarray(model_fn(small.points(region, 20_000)))
  assert (outputs >= lower - 1e-12).all() and (outputs <= upper + 1e-12).all()
  interval = bounds.interval(model_fn, region)
  assert (lower >= interval[0] - 1e-12).all() and (upper - lower < interval[1] - interval[0]).any()


def test_gradient_of_a_loss():
  rng = np.random.default_rng(6)
  region, spec = bounds.ball(rng.uniform(0, 1, (2, 4)), 0.05), np.eye(3)[:2] - np.eye(3)[2]
  w = {'a': rng.normal(0, 1, (4, 5)), 'b': rng.normal(0, 1, (5, 3))}

  @jax.jit
  def loss(w):
    lower, _ = bounds.zonotope(lambda x: jax.nn.relu(x @ w['a']) @ w['b'], region, spec)
    return jnp.sum(jax.nn.softplus(-lower))

  jax.test_util.check_grads(loss, (w,), 1, modes=['rev'])


def test_where_the_zonotope_alone_is_looser_than_the_interval():
  """relu(t) over [-1, 2]: the parallelogram reaches down to -2/3, the interval to 0."""
  region, model_fn = bounds.box(np.array([[-1.0]]), np.array([[2.0]])), lambda x: jax.nn.relu(x)
  form = enclosed(model_fn, region)
  assert float(form.center[0, 0] - np.abs(form.generators).sum()) == pytest.approx(-2 / 3)
  lower, upper = bounds.zonotope(model_fn, region)
  assert float(lower[0, 0]) == 0.0 and float(upper[0, 0]) == pytest.approx(2.0)


def test_what_it_does_not_prove_is_refused(small):
  model_fn, x = small.networks['relu'][0], np.full((1, 6), 0.5)
  with pytest.raises(ValueError, match='`outward` must be False: .* slope=.same.'):
    bounds.zonotope(model_fn, bounds.ball(x, 0.1), outward=True)
  with pytest.raises(ValueError, match='`outward` must be False'):
    bounds.verify(model_fn, x, 0.01, bound=bounds.zonotope)
