"""Certified training: closed forms on linear models, gradients, schedules, and a step that proves more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from certjax import bounds, models, parallel, train

MAKE = {name: train.OBJECTIVES[name] for name in train.CERTIFIED}
MAKE['projected'] = functools.partial(train.wong_kolter, num_projections=9)
MAKE['penalised'] = functools.partial(train.ibp, tightness=0.5, balance=0.5)
ATTACKED = ('sabr', 'mtl-ibp')
RNG = np.random.default_rng(0)
W = {'a': RNG.normal(0, 1, (6, 8)), 'b': RNG.normal(0, 1, (8, 3))}
X, Y = RNG.uniform(0.2, 0.8, (4, 6)), np.array([0, 1, 2, 0])
KEYS = jax.random.split(jax.random.key(0), 4)
EPS = 0.05


DOUBLE = pytest.mark.usefixtures('float64')


@pytest.fixture
def float64():
  with parallel.x64():
    yield


def network(w, x):
  return jax.nn.relu(x @ w['a']) @ w['b']


def linear(w, x):
  return x @ (w['a'] @ w['b'])


def value(objective, model=network, w=W, step=0, x=X):
  """The loss, at the points of the method's own perturb."""
  model = functools.partial(model, jax.tree.map(jnp.asarray, w))

  @jax.jit
  def run(x, step):
    if objective.perturb is not None:
      x = objective.perturb(KEYS, model, x, Y, step)
    return objective.loss(KEYS, lambda x, train: (model(x), {}), x, Y, step)

  found, (metrics, _) = run(jnp.asarray(x), jnp.int32(step))
  return float(found), metrics


def cross_entropy(logits):
  logits = np.asarray(logits)
  return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(Y)), Y]))


def worst_of_linear(eps):
  """The logits, less those of the label, where each rival's difference is largest: in closed form."""
  matrix = W['a'] @ W['b']
  difference = matrix[None] - matrix.T[Y][:, :, None]  # [B, D, K]
  return np.einsum('bd,bdk->bk', X, difference) + eps * np.abs(difference).sum(1)


@DOUBLE
def test_smooth_ramp_of_the_reference():
  ramp = functools.partial(train.smooth_ramp, start=100, end=1100, last=0.3)
  expected = {
    0: 0, 100: 0, 200: 0.0005907692, 350: 0.0230769231, 351: 0.0234461538, 600: 0.1153846154,
    1100: 0.3, 5000: 0.3,
  }  # fmt: skip
  for step, found in expected.items():
    assert float(ramp(step)) == pytest.approx(found, abs=1e-9)
  for step in (100, 137, 350, 600, 1100):
    assert float(ramp(step, exponent=1.0)) == pytest.approx(0.3 * (step - 100) / 1000, abs=1e-12)
  assert float(train.smooth_ramp(0, start=0, end=0, last=0.3)) == pytest.approx(0.3)


@DOUBLE
@pytest.mark.parametrize('name', [name for name in MAKE if name != 'penalised'])
def test_without_a_radius_it_is_the_clean_loss(name):
  found, metrics = value(MAKE[name](eps=EPS, warmup_steps=100), step=0)
  clean = np.asarray(network(W, X))
  assert found == pytest.approx(cross_entropy(clean), abs=1e-9)
  assert float(metrics['eps']) == 0
  assert float(metrics['accuracy']) == np.mean(clean.argmax(1) == Y) == float(metrics['verified'])


@DOUBLE
@pytest.mark.parametrize(
  'name', ['ibp', 'crown-ibp', 'wong-kolter', 'diffai', 'projected', 'penalised']
)
def test_on_a_linear_model_the_worst_is_a_closed_form(name):
  """All bounds are exact there; the mixture and the radius follow the ramp. Without ReLUs nothing is
  projected, and nothing penalised."""
  kappa = {'diffai': {'lam': 0.75}, 'wong-kolter': {}, 'projected': {}}.get(name, {'kappa': 0.25})
  objective = MAKE[name](eps=EPS, warmup_steps=100, clean_share=0.2, **kappa)
  for step, done in ((20, 0), (60, 0.5), (100, 1), (1000, 1)):
    weight = 1 - (1 - 0.25) * done if kappa else 1 - done
    worst = cross_entropy(worst_of_linear(EPS * done))
    expected = weight * cross_entropy(linear(W, X)) + (1 - weight) * worst
    found, metrics = value(objective, linear, step=step)
    assert found == pytest.approx(expected, abs=1e-9)
    assert float(metrics['eps']) == pytest.approx(EPS * done, abs=1e-8)
  verified = (np.delete(worst_of_linear(EPS)[i], Y[i]).max() < 0 for i in range(len(Y)))
  assert float(metrics['verified']) == np.mean(list(verified))


@DOUBLE
def test_small_boxes_and_two_tasks_end_in_what_they_are_made_of():
  interval = value(MAKE['ibp'](eps=EPS, kappa=0.0))[0]
  assert value(MAKE['sabr'](eps=EPS, lam=1.0))[0] == pytest.approx(interval, abs=1e-9)
  assert value(MAKE['mtl-ibp'](eps=EPS, alpha=1.0))[0] == pytest.approx(interval, abs=1e-9)
  attacked = value(MAKE['mtl-ibp'](eps=EPS, alpha=0.0, num_steps=20))[0]
  assert cross_entropy(network(W, X)) < attacked < interval
  small = value(MAKE['sabr'](eps=EPS, lam=0.2, num_steps=20))[0]
  assert attacked - 0.02 < small < interval
  # On a linear model PGD finds the worst point of a pair of classes.
  two = {'a': W['a'], 'b': W['b'][:, :2]}
  matrix, y = two['a'] @ two['b'], Y.copy()
  Y[:] = Y % 2
  try:
    moved = X - EPS * np.sign(matrix[:, Y] - matrix[:, 1 - Y]).T
    found = value(MAKE['mtl-ibp'](eps=EPS, alpha=0.0, num_steps=20), linear, two)[0]
    assert found == pytest.approx(cross_entropy(linear(two, moved)), abs=1e-9)
    boxes = value(MAKE['sabr'](eps=EPS, lam=0.3, num_steps=20), linear, two)[0]
    assert boxes == pytest.approx(found, abs=1e-9)  # Its box ends at that point.
  finally:
    Y[:] = y


@DOUBLE
def test_small_boxes_stay_in_the_ball():
  objective = MAKE['sabr'](eps=EPS, lam=0.25, num_steps=10)
  model = functools.partial(network, W)
  points = jax.jit(lambda x: objective.perturb(KEYS, model, x, Y, jnp.int32(0)))(jnp.asarray(X))
  assert points.shape == (4, 2, 6) and np.array_equal(points[:, 0], X)
  moved = np.abs(points[:, 1] - X).max()
  assert 0.7 * EPS < moved <= 0.75 * EPS + 1e-12


@DOUBLE
def test_zonotopes_prove_more_than_boxes_and_less_than_is_true():
  interval = value(MAKE['ibp'](eps=EPS, kappa=0.0))[0]
  zonotope = value(MAKE['diffai'](eps=EPS, lam=1.0))[0]
  attacked = value(MAKE['mtl-ibp'](eps=EPS, alpha=0.0, num_steps=20))[0]
  assert attacked < zonotope < interval - 1e-3
  clean = cross_entropy(network(W, X))
  half = value(MAKE['diffai'](eps=EPS, lam=0.25))[0]
  assert half == pytest.approx(0.75 * clean + 0.25 * zonotope, abs=1e-9)


@DOUBLE
def test_projections_estimate_the_dual():
  """One deviation of 4001 is 5e-5 here (of 20 keys): ten of them never fail. Other keys, another loss."""
  objective = train.wong_kolter(eps=EPS, num_projections=4001)
  model = functools.partial(network, jax.tree.map(jnp.asarray, W))

  @jax.jit
  def exact():
    margins = bounds.dual(model, bounds.ball(jnp.asarray(X), EPS), bounds.margins(Y, 3))[0]
    return jnp.mean(jnp.logaddexp(0.0, jax.nn.logsumexp(-margins, axis=1)))

  @jax.jit
  def estimate(keys):
    return objective.loss(keys, lambda x, train: (model(x), {}), jnp.asarray(X), Y, 0)[0]

  found = float(estimate(KEYS))
  assert found == pytest.approx(float(exact()), abs=5e-4)
  assert found != float(estimate(KEYS[::-1]))


@DOUBLE
def test_crown_ibp_mixes_both_bounds_and_ends_as_ibp():
  model = functools.partial(network, W)

  @jax.jit
  def both(eps):
    region, spec = bounds.ball(jnp.asarray(X), eps), bounds.margins(Y, 3)
    linear = bounds.crown(model, region, spec, intermediate='interval')[0]
    return bounds.interval(model, region, spec)[0], linear

  low, high = map(np.asarray, both(EPS))
  assert (high > low + 1e-3).any()
  loss = lambda margins: float(np.mean(np.log1p(np.exp(-margins).sum(1))))
  ends = functools.partial(MAKE['crown-ibp'], eps=EPS, kappa=0.0)
  for beta in (0.0, 1.0):
    expected = loss(beta * high + (1 - beta) * low)
    assert value(ends(beta=beta))[0] == pytest.approx(expected, abs=1e-9)
  # Half-way the radius is half, and the share of linear bounds 1 - (1 - 0.2) / 2.
  low, high = map(np.asarray, both(EPS / 2))
  clean = cross_entropy(network(W, X))
  expected = 0.5 * clean + 0.5 * loss(0.6 * high + 0.4 * low)
  assert value(ends(beta=0.2, warmup_steps=10), step=5)[0] == pytest.approx(expected, abs=1e-9)


@DOUBLE
@pytest.mark.parametrize('name', MAKE)
def test_gradients(name):
  """Against finite differences, through the bounds and the clean part, half-way up the ramp."""
  objective = MAKE[name](eps=EPS, warmup_steps=10)
  x = jnp.asarray(X)
  if name in ATTACKED:
    x = jnp.stack([x, x + 0.01], axis=1)

  @jax.jit
  def loss(w):
    apply = lambda x, train: (network(w, x), {})
    return objective.loss(KEYS, apply, x, Y, jnp.int32(5))[0]

  check_grads(loss, (W,), 1, modes=['rev'])


@DOUBLE
def test_gradients_through_convolutions():
  """Linear bounds of a convolutional network: the transposed convolutions have gradients too."""
  x = jnp.asarray(RNG.uniform(0.2, 0.8, (4, 6, 6, 1)))
  module = models.FeedForward(3, convolutions=((2, 3, 2), (3, 2, 1)))
  w = jax.jit(module.init)(jax.random.key(0), x.astype(jnp.float32))
  w = jax.tree.map(lambda leaf: leaf.astype(float), w)
  objective = MAKE['crown-ibp'](eps=EPS, beta=0.5)

  @jax.jit
  def loss(w):
    return objective.loss(KEYS, lambda x, train: (module.apply(w, x), {}), x, Y, 0)[0]

  check_grads(loss, (w,), 1, modes=['rev'])


@DOUBLE
@pytest.mark.parametrize('name', train.CERTIFIED)
def test_statistics_come_from_the_clean_pass(name):
  passes = []

  def apply(x, train):
    passes.append((train, jnp.shape(x)))
    return network(W, x), f'of {len(passes)}' if train else 'old'

  x = jnp.stack([X, X + 0.01], axis=1) if name in ATTACKED else jnp.asarray(X)
  _, (_, statistics) = MAKE[name](eps=EPS).loss(KEYS, apply, x, Y, 0)
  trained = [number for number, (train, _) in enumerate(passes, 1) if train]
  assert len(trained) == 1 and statistics == f'of {trained[0]}'
  assert passes[trained[0] - 1] == (True, (4, 6))


def test_a_step_proves_more_and_more():
  """Sixty steps of IBP on two kinds of images, through the one training step."""
  module = models.FeedForward(2, hidden=(16,))
  tx = optax.adam(0.03)
  mesh = parallel.data_mesh(jax.devices()[:1])
  objective = train.objective('ibp', None, sigma=0.0, eps=0.1, warmup_steps=20)
  step = parallel.pmap(
    train.make_step(module, tx, **objective), mesh,
    (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED), parallel.REPLICATED,
  )  # fmt: skip
  y = np.arange(32, dtype=np.int32) % 2
  x = 0.3 + 0.4 * y[:, None, None, None] + RNG.uniform(-0.05, 0.05, (32, 4, 4, 1))
  batch = {'x': x.astype(np.float32), 'y': y, 'index': np.arange(32, dtype=np.int32)}
  state, seen = train.init_state(jax.random.key(0), module, tx, (4, 4, 1)), []
  for _ in range(60):
    state, metrics = step(state, jax.random.key(1), batch)
    seen.append({name: float(found) for name, found in metrics.items()})
  assert seen[-1]['verified'] == seen[-1]['accuracy'] == 1
  assert seen[-1]['eps'] == np.float32(0.1) and seen[0]['eps'] == 0
  proof = bounds.verify(models.bind(module, state.variables), batch['x'], 0.1)
  assert (proof.label == y).all()


@pytest.mark.parametrize(
  'name, parameters, said',
  [
    ('ibp', {'eps': 8}, '`eps` is in pixel values of .0, 1., got eps=8'),
    ('ibp', {'eps': float('nan')}, '`eps` is in pixel values'),
    ('ibp', {'kappa': 1.5}, '`kappa` is a share'),
    ('crown-ibp', {'beta': -0.1}, '`beta` is a share'),
    ('wong-kolter', {'exponent': 0.5}, '`exponent` must be at least 1'),
    ('wong-kolter', {'clean_share': 2}, '`clean_share` is a share'),
    ('sabr', {'lam': 0.0}, '`lam` must be positive'),
    ('sabr', {'num_steps': -1}, '`num_steps` must be at least 0'),
    ('mtl-ibp', {'eps': 0.6, 'attack_scale': 2.0}, '`attack_scale` times `eps`'),
    ('diffai', {'lam': 1.5}, '`lam` is a share'),
    ('wong-kolter', {'num_projections': -1}, '`num_projections` is a count, 0 for exact bounds'),
    ('wong-kolter', {'num_projections': 2.5}, '`num_projections` is a count'),
    ('ibp', {'tightness': -1.0}, '`tightness` is a weight'),
    ('crown-ibp', {'balance': float('inf')}, '`balance` is a weight'),
    ('ibp', {'balance': 0.5, 'tolerance': 0.0}, '`tolerance` is the least ratio'),
    ('ibp', {'beta': 1.0}, 'has no parameter beta; it takes eps, kappa, exponent, clean_share'),
  ],
)
def test_bad_parameters(name, parameters, said):
  with pytest.raises(ValueError, match=said):
    train.objective(name, None, sigma=0.0, **parameters)
