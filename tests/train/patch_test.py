"""Training against replaced pixels: closed forms on linear models, gradients, draws, and what is then proved."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from certjax import bounds, models, parallel, train

SHAPE, SIDE = (4, 4, 1), 2
RNG = np.random.default_rng(0)
W = {'a': RNG.normal(0, 0.5, (16, 6)), 'b': RNG.normal(0, 0.5, (6, 3))}
X, Y = RNG.uniform(0, 1, (4, *SHAPE)), np.array([0, 1, 2, 0])
KEYS = jax.random.split(jax.random.key(0), 4)
PLACES = bounds.patch_locations(SHAPE, SIDE)
DOUBLE = pytest.mark.usefixtures('float64')


@pytest.fixture
def float64():
  with parallel.x64():
    yield


def network(w, x):
  return jax.nn.relu(x.reshape(len(x), -1) @ w['a']) @ w['b']


def linear(w, x):
  return x.reshape(len(x), -1) @ (w['a'] @ w['b'])


def loss_of(objective, model, w, x, step, y=Y):
  """The loss where `perturb` says, as a function of the weights."""
  w, seen = jax.tree.map(jnp.asarray, w), x
  if objective.perturb:
    seen = jax.jit(lambda w, x: objective.perturb(KEYS, functools.partial(model, w), x, y, step))(
      w, x
    )
  at = lambda w: objective.loss(KEYS, lambda x, train: (model(w, x), {}), seen, y, step)
  return at, w


def value(objective, model=network, step=0, y=Y, w=W):
  @jax.jit
  def run(w, x, step):
    at, w = loss_of(objective, model, w, x, step, y)
    return at(w)[0], at(w)[1][0]

  loss, metrics = run(w, jnp.asarray(X), jnp.int32(step))
  return float(loss), metrics


def cross_entropy(logits, y=Y):
  logits = np.asarray(logits)
  return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]))


def worst_of_linear(eps, chosen):
  """Logits less the label's, where a rival's difference is largest over the choices of pixels."""
  matrix = W['a'] @ W['b']
  difference = matrix[None] - matrix.T[Y][:, :, None]  # [B, D, K]
  x = X.reshape(4, 16, 1)
  low, high = np.maximum(x - eps, 0), np.minimum(x + eps, 1)
  gain = np.maximum(difference * (low - x), difference * (high - x))
  return (x * difference).sum(1) + max_over(gain, chosen)


def max_over(gain, chosen):
  return np.max([gain[:, list(pixels)].sum(1) for pixels in chosen], axis=0)


WINDOWS = [[4 * (r + i) + c + j for i in range(2) for j in range(2)] for r, c in PLACES]
PAIRS = list(itertools.combinations(range(16), 2))


@DOUBLE
@pytest.mark.parametrize(
  'objective, chosen',
  [(train.patch_ibp(side=SIDE, warmup_steps=8), WINDOWS),
   (train.sparse_ibp(pixels=2, warmup_steps=8), PAIRS)],
)  # fmt: skip
def test_on_a_linear_model_the_worst_is_a_closed_form(objective, chosen):
  """And pixels move by more and more; where they do not, it is the clean loss."""
  for step, eps in ((-1, 0.0), (3, 0.5), (7, 1.0), (100, 1.0)):
    worst = worst_of_linear(eps, chosen)
    found, metrics = value(objective, linear, step)
    assert found == pytest.approx(cross_entropy(worst), abs=1e-9)
    assert float(metrics['eps']) == eps
    rivals = [np.delete(worst[i], Y[i]).max() < 0 for i in range(4)]
    assert float(metrics['verified']) == np.mean(rivals)


@DOUBLE
def test_gradients():
  at, w = loss_of(train.sparse_ibp(pixels=2), network, W, jnp.asarray(X), 0)
  check_grads(jax.jit(lambda w: at(w)[0]), (w,), order=1, modes=('rev',), atol=1e-5, rtol=1e-5)


@DOUBLE
def test_the_gradient_is_that_of_the_least_over_all_places():
  """Though only the places that `perturb` found are bounded with gradients."""
  at, w = loss_of(train.patch_ibp(side=SIDE), network, W, jnp.asarray(X), 0)
  spec = bounds.margins(Y, 3).astype(X.dtype)

  def whole(w):
    lower, _ = bounds.patch_interval(functools.partial(network, w), X, SIDE, spec, chunk=4)
    return jnp.mean(jnp.log1p(jnp.sum(jnp.exp(-jnp.min(lower, axis=1)), axis=1)))

  (a, da), (b, db) = (jax.jit(jax.value_and_grad(f))(w) for f in (lambda w: at(w)[0], whole))
  np.testing.assert_allclose(a, b, atol=1e-12)
  jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=1e-10), da, db)


@DOUBLE
def test_draws_of_places():
  """Uniform draws reach all places; sharp ones find the worst, which a linear model predicts exactly."""
  two, y = {'a': W['a'], 'b': W['b'][:, :2]}, Y % 2
  loss = lambda **draws: value(train.patch_ibp(side=SIDE, **draws), linear, y=y, w=two)[0]
  everywhere = loss()
  assert loss(num_locations=1, sharpness=1e6) == pytest.approx(everywhere, abs=1e-9)
  assert loss(num_locations=1) < everywhere - 1e-3
  # A place is missed by 200 draws with probability 9 (8 / 9)^200 = 5e-10.
  assert loss(num_locations=200) == pytest.approx(everywhere, abs=1e-9)


def bars(count, seed):
  """Images of 6 x 6: the class is the third of the rows that is bright."""
  rng = np.random.default_rng(seed)
  y = np.arange(count) % 3
  bright = np.arange(6)[None] // 2 == y[:, None]
  x = 0.35 * bright[:, :, None] + rng.uniform(0, 0.4, (count, 6, 6))
  return x[..., None].astype(np.float32), y.astype(np.int32)


def trained(objective, steps=120):
  module, (x, y) = models.FeedForward(3, hidden=(24,)), bars(32, 0)
  tx = optax.adam(1e-2)
  state = train.init_state(jax.random.key(1), module, tx, x.shape[1:])
  step = parallel.pmap(
    train.make_step(module, tx, **objective._asdict()), parallel.data_mesh(jax.devices()[:1]),
    (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED), parallel.REPLICATED,
  )  # fmt: skip
  batch = {'x': x, 'y': y, 'index': np.arange(32, dtype=np.int32)}
  for _ in range(steps):
    state, metrics = step(state, jax.random.key(2), batch)
  return models.bind(module, jax.device_get(state.variables)), metrics


def gaps(model_fn, x, y):
  """The label's logit less the largest other."""
  logits = model_fn(x)
  own = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
  return own - jnp.max(jnp.where(jax.nn.one_hot(y, 3) > 0, -jnp.inf, logits), axis=1)


@jax.jit
def climb(key, model_fn, inside, x, y):
  """The least gap of one image at random corners in each window, and where they lead uphill."""
  images, labels = jnp.repeat(x[None], len(inside), 0), jnp.repeat(y, len(inside))
  corners = jax.random.bernoulli(key, 0.5, images.shape).astype(x.dtype)
  start = jnp.where(inside > 0, corners, images)

  def ascend(_, now):
    slope = jax.grad(lambda x: jnp.sum(gaps(model_fn, x, labels)))(now)
    return jnp.clip(now - 0.2 * jnp.sign(slope) * inside, 0, 1)

  end = jax.lax.fori_loop(0, 20, ascend, start)
  return jnp.min(jnp.minimum(gaps(model_fn, start, labels), gaps(model_fn, end, labels)))


def attacked(model_fn, x, y, side):
  """Whether some window misleads the model, for each image."""
  places = bounds.patch_locations(x.shape[1:], side)
  inside = np.zeros((len(places), *x.shape[1:]), np.float32)
  for mask, (r, c) in zip(inside, places, strict=True):
    mask[r : r + side, c : c + side] = 1
  keys = jax.random.split(jax.random.key(3), 4)
  found = [
    [float(climb(key, model_fn, inside, image, label[None])) for key in keys]
    for image, label in zip(x, y.astype(np.int32), strict=True)
  ]
  return np.min(found, axis=1) <= 0


def test_what_is_proved_after_training_is_not_broken():
  """All images of the trained network, some of a plain one, of whose others the attack breaks some."""
  model_fn, metrics = trained(train.patch_ibp(side=SIDE, warmup_steps=60))
  plain, _ = trained(train.clean())
  x, y = bars(12, 5)
  assert float(metrics['verified']) == float(metrics['eps']) == 1
  proofs = [bounds.verify_patch(model, x, SIDE) for model in (model_fn, plain)]
  broken = [attacked(model, x, y, SIDE) for model in (model_fn, plain)]
  for proof, missed in zip(proofs, broken, strict=True):
    assert (proof.label == y).all() and not missed[proof.radius > 0].any()
  assert (proofs[0].radius == SIDE).sum() == 12 > (proofs[1].radius == SIDE).sum() + 3
  assert broken[1].any()  # It is an attack.


@pytest.mark.parametrize(
  'make, options, said',
  [
    (train.patch_ibp, {'side': 0}, '`side` must be a whole number of pixels, 1 or more, got 0'),
    (train.patch_ibp, {'side': 2.5}, '`side` must be a whole number'),
    (train.patch_ibp, {'side': float('nan')}, '`side` must be a whole number'),
    (train.patch_ibp, {'num_locations': -1}, '`num_locations` must be 0'),
    (train.patch_ibp, {'sharpness': 1.0}, '`sharpness` must be 0 or more, finite, and of a draw'),
    (train.sparse_ibp, {'pixels': -1}, '`pixels` must be a whole number of pixels, 0 or more'),
  ],
)
def test_bad_options(make, options, said):
  with pytest.raises(ValueError, match=said):
    make(**options)
