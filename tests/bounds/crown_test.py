"""Interval and CROWN bounds: the reference's numbers, order, truth by integer programming, and no
sampled point outside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import optimize

from certjax import bounds, parallel

pytestmark = pytest.mark.usefixtures('many_programs')
METHODS = {
  'interval': bounds.interval,
  'adaptive': bounds.crown,
  'zero': functools.partial(bounds.crown, slope='zero'),
  'same': functools.partial(bounds.crown, slope='same'),
  'one': functools.partial(bounds.crown, slope='one'),
  'crown-ibp': functools.partial(bounds.crown, intermediate='interval'),
  'alpha': functools.partial(bounds.crown, num_steps=10),
}
NAMES = ['relu', 'softplus', 'tanh', 'sigmoid', 'conv', 'max-pool', 'mean-pool', 'pairs']
BALLS = [('linf', 0.1), ('l2', 0.25), ('l1', 0.5)]


@pytest.fixture(autouse=True)
def _float64():
  with parallel.x64():
    yield


def reference_net(x):
  """The network of reference tests 19 and 20."""
  w1 = w2 = jnp.array([[1.0, 1.0], [1.0, -1.0]])
  w3 = jnp.array([[1.0, -1.0], [-1.0, 2.0]])
  x = jax.nn.relu(x @ w1.T)
  x = jax.nn.relu(x @ w2.T + jnp.array([[0.0, -0.5]]))
  return x @ w3.T + jnp.array([[0.5, 0.0]])


X = np.array([[0.6, 0.4]])
MARGIN = np.array([[1.0, -1.0]])


def reference_ball(norm):
  return bounds.ball(X, 0.3, norm, clip=None)


@pytest.mark.parametrize(
  'norm, lower, upper',
  [
    ('linf', [-0.2, -2.4], [2.9, 1.8]),
    ('l2', [0.151471863, -2.048528137], [2.548528137, 1.272792206]),
    ('l1', [0.4, -1.8], [2.3, 0.9]),
  ],
)
def test_interval_of_the_reference(norm, lower, upper):
  found = bounds.interval(reference_net, reference_ball(norm))
  np.testing.assert_allclose(found[0][0], lower, atol=1e-8)
  np.testing.assert_allclose(found[1][0], upper, atol=1e-8)


def test_interval_margin_of_the_reference():
  for norm, expected in (('linf', -2.0), ('l2', -1.12132034)):
    found = bounds.interval(reference_net, reference_ball(norm), MARGIN)[0]
    assert float(found[0, 0]) == pytest.approx(expected, abs=1e-8)


REFERENCE = {  # (norm, slope): CROWN, CROWN-IBP.
  ('linf', 'adaptive'): (-1.0, -1.27),
  ('linf', 'zero'): (0.4, -0.02),
  ('linf', 'same'): (-0.53787879, -0.78333333),
  ('linf', 'one'): (-1.0, None),
  ('l2', 'adaptive'): (-0.26715422, -0.34553678),
  ('l2', 'zero'): (0.57573593, 0.47618418),
  ('l2', 'same'): (-0.00588319, -0.11567076),
}


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_crown_margins_of_the_reference(norm):
  expected = {slope: pair for (n, slope), pair in REFERENCE.items() if n == norm}
  found = jax.jit(
    lambda region: {
      slope: [
        bounds.crown(
          reference_net, region, MARGIN, slope=slope, intermediate=intermediate, upper=False
        )[0][0, 0]
        for intermediate in ('crown', 'interval')
      ]
      for slope in expected
    }
  )(reference_ball(norm))
  for slope, pair in expected.items():
    for ours, theirs in zip(found[slope], pair, strict=True):
      assert theirs is None or float(ours) == pytest.approx(theirs, abs=1e-8), slope


LOGITS = {  # The reference's last layer without intersecting with intervals; we may only be tighter.
  'adaptive': ([0.2, -2.4], [2.6, 1.2]),
  'zero': ([0.625, -2.0], [2.5, 0.6]),
  'same': ([0.398485, -2.195455], [2.497727, 0.936364]),
}


def test_crown_logits_of_the_reference():
  found = jax.jit(
    lambda region: {slope: bounds.crown(reference_net, region, slope=slope) for slope in LOGITS}
  )(reference_ball('linf'))
  for slope, (lower, upper) in LOGITS.items():
    low, high = (np.asarray(side[0]) for side in found[slope])
    assert (low >= np.array(lower) - 1e-6).all() and (high <= np.array(upper) + 1e-6).all(), slope
    np.testing.assert_allclose(low[0], lower[0], atol=1e-6)
    np.testing.assert_allclose(high[1], upper[1], atol=1e-6)


def test_optimised_slopes_reach_the_best_of_the_reference():
  found = jax.jit(lambda region: bounds.crown(reference_net, region, MARGIN, num_steps=400))(
    reference_ball('linf')
  )[0]
  assert 19 / 35 - 1e-3 < float(found[0, 0]) <= 19 / 35 + 1e-12  # The best there is: 19/35.


# Of one activation every way to choose its lines. The ball meets them where slopes are optimised
# through its own minimum, and where inner boxes come from it; of other networks every step.
@pytest.mark.parametrize(
  'name, norm, eps, methods',
  [('relu', *BALLS[0], tuple(METHODS))]
  + [('relu', *ball, ('interval', 'adaptive', 'crown-ibp', 'alpha')) for ball in BALLS[1:]]
  + [(name, *BALLS[0], ('interval', 'adaptive')) for name in NAMES[1:]]
  + [(name, *ball, ('interval', 'adaptive')) for name in ('conv', 'pairs') for ball in BALLS[1:]],
)
def test_no_point_leaves_a_bound_which_at_radius_zero_is_the_forward_pass(
  name, norm, eps, methods, small
):
  model_fn, shape = small.networks[name]
  x = np.random.default_rng(1).uniform(0, 1, (3, *shape))

  @jax.jit
  def bounded(x, eps):
    region = bounds.ball(x, eps, norm)
    return model_fn(x), {method: METHODS[method](model_fn, region) for method in methods}

  outputs = np.asarray(jax.jit(model_fn)(small.points(bounds.ball(x, eps, norm), 100_000)))
  _, found = jax.tree.map(np.asarray, bounded(x, eps))
  for method, (lower, upper) in found.items():
    assert (outputs >= lower[0] - 1e-12).all() and (outputs <= upper[0] + 1e-12).all(), method
    assert (lower < upper).all()
    assert (lower >= found['interval'][0] - 1e-12).all(), method
    assert (upper <= found['interval'][1] + 1e-12).all(), method
  logits, found = bounded(x, 0.0)
  for method, sides in found.items():
    for side in sides:
      np.testing.assert_allclose(side, logits, atol=1e-12, err_msg=method)


def test_interval_crown_alpha_in_order_where_crown_alone_is_looser(small):
  """45 random deep networks and images at a large eps: the intersection keeps the order."""
  gained, spec = 0, np.array([[1.0, -1.0]])
  methods = [bounds.interval, bounds.crown, functools.partial(bounds.crown, num_steps=5)]
  x = 0.5 + np.random.default_rng(0).uniform(-0.1, 0.1, (15, 4))

  @jax.jit
  def found(model_fn, x):
    return [bound(model_fn, bounds.ball(x, 0.4), spec)[0] for bound in methods]

  for seed in range(3):
    chain = found(small.mlp(jax.nn.relu, seed, (4, 6, 6, 6, 2)), x)
    assert (chain[0] <= chain[1] + 1e-12).all() and (chain[1] <= chain[2] + 1e-12).all()
    gained += int((chain[2] > chain[1] + 1e-6).sum())
  assert gained > 5


def truth_by_integer_program(weights, biases, low, high, row):
  """min of row . f over the box of a ReLU network with one hidden layer, exactly."""
  (w1, w2), (b1, b2) = weights, biases
  n, h = w1.shape
  big_low = np.minimum(low[:, None] * w1, high[:, None] * w1).sum(0) + b1
  big_high = np.maximum(low[:, None] * w1, high[:, None] * w1).sum(0) + b1
  cost = np.concatenate([np.zeros(n), w2 @ row, np.zeros(h)])  # x, a = relu(z), d in {0, 1}.
  eye, none = np.eye(h), np.zeros((h, h))
  rows = [
    (np.hstack([w1.T, -eye, none]), -np.inf, -b1),  # a >= z
    (
      np.hstack([w1.T, -eye, np.diag(np.minimum(big_low, 0))]),
      np.minimum(big_low, 0) - b1,
      np.inf,
    ),
    (np.hstack([np.zeros((h, n)), eye, -np.diag(np.maximum(big_high, 0))]), -np.inf, np.zeros(h)),
  ]
  found = optimize.milp(
    cost,
    integrality=np.concatenate([np.zeros(n + h), np.ones(h)]),
    bounds=optimize.Bounds(
      np.concatenate([low, np.zeros(2 * h)]), np.concatenate([high, np.full(h, np.inf), np.ones(h)])
    ),
    constraints=[optimize.LinearConstraint(*r) for r in rows],
  )
  assert found.success
  return found.fun + b2 @ row


def test_bounds_against_the_truth_by_integer_programming(small):
  rng = np.random.default_rng(0)
  slack, row = [], np.array([1.0, -1.0])

  @jax.jit
  def found(weights, biases, region, points):
    (w1, w2), (b1, b2) = weights, biases
    model_fn = lambda x: jax.nn.relu(x @ w1 + b1[None]) @ w2 + b2[None]
    proved = {name: bound(model_fn, region, row[None])[0][0, 0] for name, bound in METHODS.items()}
    return proved, (model_fn(points) @ row).min()

  for _ in range(10):
    weights = [rng.normal(0, 1, (3, 5)), rng.normal(0, 1, (5, 2))]
    biases = [rng.normal(0, 0.5, 5), rng.normal(0, 0.5, 2)]
    x = rng.uniform(0, 1, (1, 3))
    region = bounds.ball(x, 0.2)
    low, high = np.asarray(region.lower[0]), np.asarray(region.upper[0])
    truth = truth_by_integer_program(weights, biases, low, high, row)
    proved, sampled = found(weights, biases, region, small.points(region, 5_000))
    assert truth <= sampled + 1e-9  # The oracle's own check.
    for name, least in proved.items():
      assert float(least) <= truth + 1e-7, name
    slack.append(truth - float(proved['alpha']))
  assert np.median(slack) < 0.2  # Close: the bound is not trivially low.


def test_chunks_change_nothing(small):
  model_fn, shape = small.networks['conv']
  region = bounds.ball(np.random.default_rng(3).uniform(0, 1, (2, *shape)), 0.05)
  whole, parts = jax.jit(
    lambda region: [bounds.crown(model_fn, region, chunk=chunk) for chunk in (None, 5)]
  )(region)
  np.testing.assert_allclose(whole, parts, rtol=1e-12)


@pytest.mark.usefixtures('optimized')
# A curved activation; convolutions over windows and whole rows, ReLU, a maximum, a dense layer.
@pytest.mark.parametrize('name', ['sigmoid', 'max-pool'])
def test_outward_bounds_are_wider_by_rounding_alone(name, small):
  model_fn, shape = small.networks[name]
  region = bounds.ball(np.random.default_rng(4).uniform(0, 1, (2, *shape)), 0.1)
  pairs = jax.jit(
    lambda region: [
      [bound(model_fn, region, outward=outward) for outward in (False, True)]
      for bound in (bounds.interval, bounds.crown)
    ]
  )(region)
  for near, wide in pairs:
    assert (wide[0] < near[0]).all() and (wide[1] > near[1]).all()
    assert float(np.max(near[0] - wide[0])) < 1e-9


@pytest.mark.usefixtures('optimized')
def test_outward_float32_contains_the_float64_bound(small):
  """The rounding error of float32 is real, and covered."""
  model_fn, shape = small.networks['conv']
  x = np.random.default_rng(5).uniform(0, 1, (4, *shape)).astype(np.float32)
  below = 0
  for bound in (bounds.interval, bounds.crown):
    compiled = jax.jit(lambda x, outward, b=bound: b(model_fn, bounds.box(x, x), outward=outward),
                       static_argnums=1)  # fmt: skip
    exact = np.asarray(compiled(x.astype(np.float64), False)[0])
    plain, wide = ([np.asarray(side) for side in compiled(x, o)] for o in (False, True))
    assert plain[0].dtype == np.float32
    below += int((plain[0] > exact).sum())
    assert (wide[0] <= exact).all() and (wide[1] >= exact).all()
  assert below > 0  # Without the widening some bound would be wrong.


def test_gradients_of_a_certified_loss():
  """d loss / d weights through IBP and CROWN-IBP against finite differences."""
  rng = np.random.default_rng(6)
  region = bounds.ball(rng.uniform(0, 1, (2, 4)), 0.05)
  w = {'a': rng.normal(0, 1, (4, 5)), 'b': rng.normal(0, 1, (5, 3))}

  def loss(w, bound):
    lower, _ = bound(
      lambda x: jax.nn.relu(x @ w['a']) @ w['b'], region, np.eye(3)[:2] - np.eye(3)[2]
    )
    return jnp.sum(jax.nn.softplus(-lower))

  for bound in (bounds.interval, METHODS['crown-ibp']):
    check_grads(jax.jit(lambda w, bound=bound: loss(w, bound)), (w,), 1, modes=['rev'])


@pytest.mark.parametrize(
  'model_fn, message',
  [
    (lambda x: jnp.exp(x), "primitive 'exp' of the input, in the model: bounds read abs, add"),
    (lambda x: jax.nn.silu(x), "primitive 'mul' of two values that depend on it"),
    (lambda x: x @ x.T, 'two values that depend on it'),
    (lambda x: jnp.ones((1, 3)), 'must map .* to logits .* that depend on it'),
    (lambda x: x.sum(), 'must map'),
    (jax.jit(lambda x: jax.checkpoint(jnp.sin)(x)), "'sin'.*in /<lambda>/"),
    (lambda x: 1 / x, "primitive 'div'"),
    (lambda x: jnp.where(x > 0, x, 0.1 * x), "primitive 'gt'"),
  ],
)  # fmt: skip
def test_unknown_steps_are_named(model_fn, message):
  for bound in (bounds.interval, bounds.crown):
    with pytest.raises(ValueError, match=message):
      bound(model_fn, bounds.ball(np.full((1, 3), 0.5), 0.1))


def test_bad_arguments(small):
  x = np.full((1, 6), 0.5)
  model_fn, region = small.networks['relu'][0], bounds.ball(x, 0.1)
  cases = [
    (lambda: bounds.ball(x, -0.1), '`eps` must be at least 0 and finite'),
    (lambda: bounds.ball(x, np.inf), '`eps` must be at least 0 and finite'),
    (lambda: bounds.ball(x * np.nan, 0.1), '`x` must be finite'),
    (lambda: bounds.ball(x * 255, 0.1), '`x` must lie in `clip`'),
    (lambda: bounds.ball(x, 0.1, 'l3'), '`norm` must be one of linf, l2, l1'),
    (lambda: bounds.ball(x[0], 0.1), 'add an axis'),
    (lambda: bounds.box(x, np.inf * x), 'must be finite: nothing holds on an unbounded set'),
    (lambda: bounds.box(x, x - 1), 'the box is empty'),
    (lambda: bounds.box(x, x[:, :1]), 'of one shape'),
    (lambda: bounds.crown(model_fn, region, slope='half'), '`slope` must be one of adaptive'),
    (lambda: bounds.crown(model_fn, region, intermediate='x'), '`intermediate` must be one of'),
    (lambda: bounds.crown(model_fn, region, np.eye(4)), '`spec` must be .* with K=3'),
  ]
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()
