"""Lines of maxima: against enumeration, exact where one value dominates, tighter than boxes, and paid for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from certjax import bounds, parallel
from certjax.bounds import _crown, _maximum, _network
from certjax.bounds._interval import propagate


@pytest.fixture(autouse=True)
def _float64():
  with parallel.x64():
    yield


pytestmark = pytest.mark.usefixtures('many_programs')


def window(size, strides, padding, **dilations):
  dilations = {name: (1, d, d, 1) for name, d in dilations.items()}
  return lambda x: lax.reduce_window(
    x, -jnp.inf, lax.max, (1, size, size, 1), (1, strides, strides, 1), padding, **dilations
  )


POOLS = {
  'apart': window(2, 2, 'VALID'),
  'overlapping, padded': window(3, 2, 'SAME'),
  'spread': window(2, 1, 'VALID', window_dilation=2),
  'holes': window(2, 1, ((0, 0), (1, 0), (0, 1), (0, 0)), base_dilation=2),
  'cut off': window(2, 1, ((0, 0), (-1, 0), (0, 1), (0, 0))),
  'axes': lambda x: x.max(axis=(1, 3)),
}
SHAPE = (1, 4, 5, 2)


def node_of(pool):
  network = _network.trace(pool, jnp.zeros(SHAPE[1:]))
  (node,) = [node for node in network.nodes if node.kind == 'maximum']
  return node


def random_box(rng, spread=1.0):
  center, reach = rng.normal(size=SHAPE), spread * rng.uniform(0.01, 1, SHAPE)
  return center - reach, center + reach


@pytest.mark.usefixtures('optimized')
@pytest.mark.parametrize('name', POOLS)
def test_lines_hold_touch_and_stay_in_the_box(name):
  rng, node = np.random.default_rng(0), node_of(POOLS[name])
  low, high = random_box(rng)
  inside = rng.uniform(low, high, (2_000, *SHAPE))
  corners = np.where(rng.random((2_000, *SHAPE)) < 0.5, low, high)

  @jax.jit
  def values(low, high, points):
    line = _maximum.maximum_lines(node, (low, high), outward=True)
    over = lambda x: jax.vmap(lambda x: node.windows(x, 0.0))(x)
    below = jnp.sum(line.lower_weight[None] * over(points), axis=1) + line.lower_offset[None]
    above = jnp.sum(line.upper_weight[None] * over(points), axis=1) + line.upper_offset[None]
    ends = [jnp.sum(w * node.windows(x, 0.0), axis=0) + b for w, b, x in (
      (line.lower_weight, line.lower_offset, low), (line.upper_weight, line.upper_offset, high))]  # fmt: skip
    return below, jax.vmap(node.apply)(points), above, ends, node.apply(low), node.apply(high)

  below, value, above, ends, floor, ceiling = values(low, high, np.concatenate([inside, corners]))
  assert (below <= value).all() and (value <= above).all()
  np.testing.assert_allclose(ends[0], floor, rtol=1e-12)  # At its own end each is the box's.
  np.testing.assert_allclose(ends[1], ceiling, rtol=1e-12)
  assert float((above - value).min()) < 1e-9 and float((value - below).min()) < 1e-9


def test_windows_are_those_of_the_maximum():
  """The largest of the values is the maximum itself, for every kind of window."""
  x = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE))
  for pool in POOLS.values():
    np.testing.assert_array_equal(node_of(pool).windows(x, -jnp.inf).max(axis=0), pool(x))


def test_the_upper_line_is_the_chord():
  """max(x, y) over [0, 4] x [-1, 1]: at most 1 + 3 x / 4; over [2, 4] x [-1, 1] it is x."""
  node = _network.trace(lambda x: x.max(axis=1), jnp.zeros(2)).nodes[1]
  for left, slope, offset in ((0.0, 0.75, 1.0), (2.0, 1.0, 0.0), (1.0, 1.0, 0.0)):
    box = (jnp.array([[left, -1.0]]), jnp.array([[4.0, 1.0]]))
    line = _maximum.maximum_lines(node, box)
    assert line.upper_weight[:, 0].tolist() == [slope, 0] and line.upper_offset.tolist() == [offset]
    assert line.lower_weight[:, 0].tolist() == [1, 0] and line.lower_offset.tolist() == [0]


@pytest.mark.parametrize('name', ['overlapping, padded', 'holes', 'axes'])
def test_coefficients_below_are_those_of_the_lines(name):
  """a . line(x) = part . x + constant, with the signs of a choosing the line."""
  rng, node = np.random.default_rng(2), node_of(POOLS[name])
  box = tuple(map(jnp.asarray, random_box(rng)))
  line = _maximum.maximum_lines(node, box)
  x, a = rng.normal(size=SHAPE), rng.normal(size=(3, *node.shape))
  part, constant = _crown._relaxed(node, box[0], jnp.asarray(a), line)
  at = np.asarray(node.windows(jnp.asarray(x), 0.0))
  below = (line.lower_weight * at).sum(axis=0) + line.lower_offset
  above = (line.upper_weight * at).sum(axis=0) + line.upper_offset
  for row in range(3):
    expected = np.where(a[row] > 0, a[row] * below, a[row] * above).sum()
    found = (np.asarray(part[row]) * x).sum() + float(constant[row])
    assert found == pytest.approx(expected, rel=1e-12)


def pooled_net(pool, hidden=6, seed=0):
  """conv - ReLU - pool - dense - ReLU - dense; without `hidden`, conv - pool - dense."""
  rng = np.random.default_rng(seed)
  kernel, shape = rng.normal(0, 0.4, (2, 2, 1, 3)), (5, 6, 1)
  numbers = ('NHWC', 'HWIO', 'NHWC')
  width = pool(jnp.zeros((1, 4, 5, 3))).size
  w1, w2 = rng.normal(0, width**-0.5, (width, hidden or 3)), rng.normal(0, 0.4, (6, 3))

  def model_fn(x):
    x = lax.conv_general_dilated(
      x, jnp.asarray(kernel, x.dtype), (1, 1), 'VALID', dimension_numbers=numbers
    )
    x = pool(jax.nn.relu(x - 0.1) if hidden else x).reshape(len(x), -1)
    x = x @ jnp.asarray(w1, x.dtype)
    return jax.nn.relu(x) @ jnp.asarray(w2, x.dtype) if hidden else x

  return model_fn, shape


def stopped_at_maxima(model_fn, region, spec):
  """CROWN that takes the box of every maximum: what its lines are to beat."""
  lines_of = _crown.relaxations
  without = lambda network, *rest: {
    i: line for i, line in lines_of(network, *rest).items() if network.nodes[i].kind != 'maximum'
  }
  _crown.relaxations = without
  try:
    return bounds.crown(model_fn, region, spec)
  finally:
    _crown.relaxations = lines_of


def test_a_network_with_pooling_is_bounded_and_tighter_than_by_boxes(small):
  model_fn, shape = pooled_net(POOLS['overlapping, padded'])
  x = np.random.default_rng(3).uniform(0.2, 0.8, (4, *shape))
  spec = np.array([[1.0, -1, 0], [1, 0, -1], [0, 1, -1]])

  @jax.jit
  def found(x):
    region = bounds.ball(x, 0.05)
    return (
      bounds.crown(model_fn, region, spec), bounds.interval(model_fn, region, spec),
      stopped_at_maxima(model_fn, region, spec),
    )  # fmt: skip

  (lower, upper), interval, boxed = jax.tree.map(np.asarray, found(x))
  forward = jax.jit(model_fn)
  for i in range(len(x)):
    points = small.points(bounds.ball(x[i : i + 1], 0.05), 4_000)
    margins = np.asarray(forward(points)) @ spec.T
    assert (margins >= lower[i] - 1e-12).all() and (margins <= upper[i] + 1e-12).all()
  assert (lower >= interval[0] - 1e-12).all() and (upper <= interval[1] + 1e-12).all()
  width, before = upper - lower, boxed[1] - boxed[0]
  assert (width < before - 1e-3).all() and width.mean() < 0.85 * before.mean()


def test_boxes_after_pooling_are_tighter():
  model_fn, shape = pooled_net(POOLS['apart'])
  x = np.random.default_rng(4).uniform(0.2, 0.8, shape)
  network = _network.trace(model_fn, jnp.asarray(x))
  last = max(i for i, node in enumerate(network.nodes) if node.kind == 'relu')
  (number,) = network.nodes[last].inputs  # What the ReLU after the pooling reads.

  @jax.jit
  def widths(x):
    region = bounds.Region(x - 0.05, x + 0.05, None, None, 'linf')
    boxes = propagate(network, region)
    relaxed = _crown.relaxations(network, boxes, 'adaptive')
    stopped = {i: line for i, line in relaxed.items() if network.nodes[i].kind != 'maximum'}
    made = [
      _crown._of_node(network, region, boxes, number, line, None, False)
      for line in (relaxed, stopped)
    ]
    return [jnp.sum(upper - lower) for lower, upper in [*made, boxes[number]]]

  linear, stopped, interval = map(float, widths(x))
  assert linear < 0.95 * min(stopped, interval)


def test_one_dominating_value_makes_it_exact():
  """Pixel values far apart: the network is affine on the ball, and so is its bound."""
  pool = POOLS['apart']
  w = np.random.default_rng(5).normal(size=(4, 2))
  model_fn = lambda x: pool(x).reshape(len(x), -1) @ w
  rank = np.random.default_rng(6).permutation(16).reshape(1, 4, 4, 1) / 15
  bound = jax.jit(lambda x: bounds.crown(model_fn, bounds.ball(x, 0.03, clip=None)))
  lower, upper = map(np.asarray, bound(rank))
  reach = 0.03 * np.abs(w).sum(axis=0)
  np.testing.assert_allclose((upper - lower)[0] / 2, reach, rtol=1e-12)
  np.testing.assert_allclose((upper + lower)[0] / 2, np.asarray(model_fn(rank))[0], rtol=1e-12)


@pytest.mark.usefixtures('optimized')
def test_outward_float32_contains_the_float64_bound():
  """Overlapping windows, whose coefficients cancel, at radius 0 and above."""
  model_fn, shape = pooled_net(POOLS['overlapping, padded'], hidden=0)
  x = np.random.default_rng(8).uniform(0.2, 0.8, (8, *shape)).astype(np.float32)

  @functools.partial(jax.jit, static_argnums=(2,))
  def bound(x, eps, outward):
    return bounds.crown(model_fn, bounds.ball(x, eps), outward=outward)

  for eps in (np.float32(0), np.float32(0.03)):
    low, high = map(np.asarray, bound(x.astype(np.float64), eps.astype(np.float64), False))
    wide, near = (list(map(np.asarray, bound(x, eps, outward))) for outward in (True, False))
    assert wide[0].dtype == np.float32
    assert (wide[0] <= low).all() and (wide[1] >= high).all()
    assert (near[0] > low).any() or (near[1] < high).any()  # Without it, some bound is wrong.
    assert np.abs(wide[0] - near[0]).max() < 1e-3


def test_slopes_are_optimised_and_weights_trained_through_pooling():
  """alpha-CROWN gains, and the gradient of a CROWN-IBP margin is that of finite differences."""
  rng = np.random.default_rng(11)
  w = {'a': rng.normal(size=(5, 8)), 'b': rng.normal(size=(2, 2))}
  region = bounds.ball(rng.uniform(0.3, 0.7, (4, 5)), 0.2)

  def margins(w, num_steps):
    model_fn = lambda x: jax.nn.relu((x @ w['a']).reshape(-1, 2, 4).max(axis=2) - 0.5) @ w['b']
    return bounds.crown(
      model_fn, region, intermediate='interval', num_steps=num_steps, upper=False
    )[0]  # fmt: skip

  plain, optimised = (jax.jit(margins, static_argnums=1)(w, steps) for steps in (0, 20))
  assert (optimised >= plain).all() and (optimised > plain + 1e-3).any()
  check_grads(jax.jit(lambda w: jnp.sum(margins(w, 0))), (w,), 1, modes=['rev'])


def test_a_window_of_padding_proves_nothing():
  pool = window(1, 1, ((0, 0), (1, 0), (0, 0), (0, 0)))
  model_fn = lambda x: pool(x).reshape(len(x), -1)
  lower, _ = jax.jit(lambda x: bounds.crown(model_fn, bounds.ball(x, 0.1)))(
    np.full((1, 1, 1, 1), 0.5)
  )
  assert not (np.asarray(lower)[0, 0] > -np.inf)
