"""The dual of Wong & Kolter: the formula itself in numpy, the reference's numbers, projections."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import bounds, parallel
from certjax.bounds import _network, _zonotope

pytestmark = pytest.mark.usefixtures('many_programs')


@pytest.fixture(autouse=True)
def _float64():
  with parallel.x64():
    yield


X, MARGIN = np.array([[0.6, 0.4]]), np.array([[1.0, -1.0]])
WEIGHTS = [np.array([[1.0, 1], [1, -1]])] * 2 + [np.array([[1.0, -1], [-1, 2]])]
BIASES = [np.zeros(2), np.array([0, -0.5]), np.array([0.5, 0])]


def mlp(weights, biases, x):
  for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
    x = x @ jnp.asarray(w.T, x.dtype) + jnp.asarray(b, x.dtype)[None]
    x = jax.nn.relu(x) if i < len(weights) - 1 else x
  return x


def published(x, eps, c, weights, biases, norm):
  """J(nu) of Wong & Kolter 2018, Theorem 1 and Algorithm 1, in numpy: min c . f."""
  dual = {'linf': 1, 'l2': 2}[norm]
  boxes = []

  def bound(c, depth):
    """-nu_{depth} = c: the least c . z_depth."""
    nu, total = -c, 0.0
    for i in range(depth - 1, -1, -1):
      total -= nu @ biases[i]
      nu = weights[i].T @ nu
      if i:
        low, high = boxes[i - 1]
        on, unstable = low >= 0, (low < 0) & (high > 0)
        nu = nu * np.where(unstable, high / np.where(unstable, high - low, 1), on)
        total += np.sum(np.where(unstable, low * np.maximum(nu, 0), 0))
    return total - nu @ x - eps * np.linalg.norm(nu, dual)

  for depth in range(1, len(weights)):
    eye = np.eye(len(weights[depth - 1]))
    boxes.append([
      np.array([bound(row, depth) for row in eye]),
      -np.array([bound(-row, depth) for row in eye]),
    ])  # fmt: skip
  return bound(c, len(weights))


def random_mlp(seed, sizes):
  rng = np.random.default_rng(seed)
  weights = [rng.normal(size=(b, a)) / np.sqrt(a) for a, b in zip(sizes, sizes[1:], strict=False)]
  return weights, [0.3 * rng.normal(size=len(w)) for w in weights]


@pytest.mark.parametrize('norm, margin', [('linf', -0.53787879), ('l2', -0.00588319)])
def test_the_published_case(norm, margin):
  """Reference case 20, same slope."""
  region = bounds.ball(X, 0.3, norm, clip=None)
  model_fn = functools.partial(mlp, WEIGHTS, BIASES)
  rows = np.concatenate([MARGIN, np.eye(2)])
  lower, upper = jax.jit(functools.partial(bounds.dual, model_fn))(region, rows)
  assert float(lower[0, 0]) == pytest.approx(margin, abs=1e-8)
  if norm == 'linf':
    np.testing.assert_allclose(lower[0, 1:], [0.398485, -2.195455], atol=1e-6)
    np.testing.assert_allclose(upper[0, 1:], [2.497727, 0.936364], atol=1e-6)


@pytest.mark.parametrize('norm, eps', [('linf', 0.3), ('l2', 0.6)])
def test_the_published_formula(norm, eps):
  """Three hidden layers; intersected with intervals, as `crown` does it, other numbers come out."""
  rows = np.array([[1.0, -1, 0], [0.5, 1, 2]])

  @jax.jit
  def both(region, weights, biases):
    model_fn = functools.partial(mlp, weights, biases)
    dual, crown = (
      bounds.dual(model_fn, region, rows),
      bounds.crown(model_fn, region, rows, slope='same'),
    )
    return dual, crown

  others = 0
  for seed in range(4):
    weights, biases = random_mlp(seed, (4, 7, 6, 5, 3))
    x = np.random.default_rng(seed).uniform(size=(1, 4))
    (lower, upper), crown = both(bounds.ball(x, eps, norm, clip=None), weights, biases)
    expected = [published(x[0], eps, c, weights, biases, norm) for c in (*rows, *-rows)]
    np.testing.assert_allclose(np.concatenate([lower[0], -upper[0]]), expected, atol=1e-10)
    others += int((np.abs(crown[0] - lower) > 1e-6).sum())
  assert others > 0


@pytest.mark.parametrize('name', ['relu', 'conv'])
def test_no_point_leaves_the_bound(name, small):
  model_fn, shape = small.networks[name]
  region = bounds.ball(np.random.default_rng(1).uniform(0, 1, (1, *shape)), 0.1)
  outputs = np.asarray(jax.jit(model_fn)(small.points(region, 12_500)))
  found = jax.jit(lambda region: [
    bounds.dual(model_fn, region, outward=outward) for outward in (False, True)
  ])(region)  # fmt: skip
  for lower, upper in found:
    assert (outputs >= lower - 1e-12).all() and (outputs <= upper + 1e-12).all()
  assert (found[1][0] < found[0][0]).all() and (found[1][1] > found[0][1]).all()
  np.testing.assert_allclose(found[0], found[1], atol=1e-9)


def boxes_by_projection(nu, norm, num):
  """The estimated box of one unit nu . x over the unit ball around 0."""
  model_fn = lambda x: jax.nn.relu(x @ jnp.asarray(nu)[:, None]) @ jnp.ones((1, 2))
  region = bounds.ball(np.zeros((1, len(nu))), 1.0, norm, clip=None)
  one = jax.tree.map(lambda leaf: leaf[0], region)
  network = _network.trace(model_fn, one.lower)
  spread = _zonotope.projected(one, num, jax.random.key(0))
  boxes, _ = _zonotope.enclose(network, one, spread, intersect=False)
  (unit,) = [node.inputs[0] for node in network.nodes if node.kind == 'relu']
  return np.array(boxes[unit]).ravel()


@pytest.mark.parametrize('norm, order', [('linf', 1), ('l2', 2)])
def test_medians_and_lengths_estimate_the_norm(norm, order):
  """Reference case 27: |nu|_1 = 3.75 by 20,001 Cauchy combinations; |nu|_2 by as many normal ones.

  Deviations: pi / (2 sqrt n) = 1.1% of the median, 1 / sqrt(2 n) = .5% of the length; 5 of them fail
  once in a million keys.
  """
  nu = np.array([0.5, -1, 2, 0, 0.25])
  low, high = boxes_by_projection(nu, norm, 20_001)
  length = np.linalg.norm(nu, order)
  assert -low == high == pytest.approx(length, rel=0.055 if order == 1 else 0.025)
  few = boxes_by_projection(nu, norm, 11)[1]
  assert few != high and 0.2 * length < few < 5 * length


def test_projections_come_near_the_dual():
  """Through two layers with 4001 combinations: a few per cent of its width, if the noise of
  layers of one size is independent; and a gradient."""
  weights, biases = random_mlp(5, (6, 6, 6, 2))
  region = bounds.ball(np.full((1, 6), 0.5), 0.2, clip=None)

  def lower(gain, num, key):
    model_fn = functools.partial(mlp, [gain * weights[0], *weights[1:]], biases)
    found = bounds.dual(model_fn, region, MARGIN, projections=num, key=key)
    return found[0][0, 0], found[1][0, 0] - found[0][0, 0]

  exact, width = jax.jit(lambda: lower(1.0, None, None))()
  estimate = jax.jit(jax.value_and_grad(lambda gain, key: lower(gain, 4001, key)[0]))
  key, step = jax.random.key(1), 1e-6
  near, slope = estimate(1.0, key)
  assert 0 < abs(near - exact) < 0.15 * width  # .04 of it is one deviation; dependent layers: .32.
  difference = (estimate(1 + step, key)[0] - estimate(1 - step, key)[0]) / (2 * step)
  assert float(slope) == pytest.approx(float(difference), rel=1e-5)
  assert estimate(1.0, jax.random.key(2))[0] != near == estimate(1.0, key)[0]


def test_the_estimate_converges_as_projections_grow():
  """The error falls as 1 / sqrt(k), or faster while k is small: 16 times as many projections leave a
  quarter of it at most.

  Over 64 keys the ratio of two root mean squares is off by 12% (one deviation): 1/2 in place of 1/4 is
  five of them, less than one false alarm in a million keys.
  """
  weights, biases = random_mlp(5, (6, 6, 5, 2))
  x, model_fn = np.full(6, 0.5), functools.partial(mlp, weights, biases)
  exact = published(x, 0.2, MARGIN[0], weights, biases, 'linf')

  @functools.partial(jax.jit, static_argnums=0)
  def estimates(num):
    region = bounds.ball(x[None], 0.2, clip=None)
    estimate = functools.partial(
      bounds.dual, model_fn, region, MARGIN, projections=num, upper=False
    )
    return jax.vmap(lambda key: estimate(key=key)[0][0, 0])(jax.random.split(jax.random.key(3), 64))

  few, many = (float(jnp.sqrt(jnp.mean((estimates(num) - exact) ** 2))) for num in (25, 401))
  assert many < few / 2


def test_the_upper_side_may_be_left_out(small):
  model_fn, shape = small.networks['relu']
  region = bounds.ball(np.full((1, *shape), 0.5), 0.1)
  both, lower = jax.jit(
    lambda region: [bounds.dual(model_fn, region, upper=upper) for upper in (True, False)]
  )(region)
  np.testing.assert_allclose(lower[0], both[0], atol=1e-14)
  assert (lower[1] == np.inf).all()


def test_no_certificate_by_projections(small):
  model_fn, shape = small.networks['relu']
  estimate = functools.partial(bounds.dual, projections=50, key=jax.random.key(0))
  for prove in (
    lambda x: bounds.verify(model_fn, x, 0.01, bound=estimate),
    lambda x: bounds.largest(model_fn, x, max_eps=0.01, bound=estimate),
  ):
    with pytest.raises(ValueError, match='estimate a bound for training and prove nothing'):
      prove(np.full((1, *shape), 0.5))
  assert 'proves nothing' in bounds.dual.__doc__.splitlines()[0]


def test_bad_arguments(small):
  model_fn, x = small.networks['relu'][0], np.full((1, 6), 0.5)
  call = functools.partial(bounds.dual, model_fn)
  key = jax.random.key(0)
  for region, options, said in (
    ('linf', {'projections': 10, 'key': key, 'outward': True}, 'estimate a bound for training'),
    ('linf', {'projections': 10}, '`projections` must be at least 1 and come with a `key`'),
    ('linf', {'projections': 0, 'key': key}, '`projections` must be at least 1'),
    ('l1', {'projections': 10, 'key': key}, "`region` must be of norm 'linf' or 'l2'"),
  ):
    with pytest.raises(ValueError, match=said):
      call(bounds.ball(x, 0.1, region), **options)
