"""PAT: the attack is Fast-LPA on the network in training, from what it gets right."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import distances, models, parallel, train
from certjax.attacks import fast_lpa
from certjax.models import features_of

pytestmark = pytest.mark.usefixtures('many_programs')

MODULE = models.DigitsCNN(10, width=2)
X = np.random.default_rng(0).uniform(0, 1, (8, 8, 8, 1)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 8)
RIGHT = np.arange(8) % 2 == 0  # Which labels are the network's own answers.


class Normalised(nn.Module):
  """BatchNorm: evaluation mode and training mode differ."""

  @nn.compact
  def __call__(self, x, train=False):
    axis = parallel.AXIS if train else None
    x = nn.Dense(4)(x.reshape(len(x), -1))
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5, axis_name=axis)(x)
    return nn.Dense(2)(nn.tanh(x))


def drawn(module, x):
  """Variables of a network that answers differently from image to image."""
  rng, shapes = np.random.default_rng(1), jax.eval_shape(module.init, jax.random.key(1), x)
  return jax.tree.map(lambda leaf: np.float32(0.3 * rng.normal(size=leaf.shape)), shapes)


def labels(model_fn, right):
  answer = jnp.argmax(model_fn(X[: len(right)]), axis=1).astype(jnp.int32)
  return jnp.where(right, answer, (answer + 1) % 10)


def flat(x):
  return x.reshape(len(x), -1)


def test_attacks_what_is_classified_correctly():
  """The same points as Fast-LPA's, without a projection; what is wrong already stays, bit for bit."""

  @jax.jit
  def run(variables, keys, x, right, step):
    model_fn = models.bind(MODULE, variables)
    y = labels(model_fn, right)
    found = train.pat(eps=0.2, num_steps=3, warmup_steps=10).perturb(keys, model_fn, x, y, step)
    every = train.pat(eps=0.2, num_steps=3, warmup_steps=10, only_correct=False)
    attack = fast_lpa(None, eps=0.1, num_steps=3, projection='none')
    expected = attack(keys, features_of(model_fn), x, y)
    return found, every.perturb(keys, model_fn, x, y, step), expected

  variables = drawn(MODULE, X)
  found, every, expected = run(variables, KEYS, X, RIGHT, np.int32(4))
  np.testing.assert_allclose(found[RIGHT], expected[RIGHT], atol=1e-6)
  np.testing.assert_allclose(every, expected, atol=1e-6)
  assert np.array_equal(found[~RIGHT], X[~RIGHT])
  assert np.abs(every - X).max(axis=(1, 2, 3)).min() > 0.02
  first = run(variables, KEYS, X, RIGHT, np.int32(0))[0]
  assert run._cache_size() == 1  # A step is data.
  assert np.abs(first - X).max() < np.abs(found - X).max()


def test_another_network_measures():
  """`embed` bounds the attack, of a model of any kind; one image is a row of eight."""
  w = 0.1 * np.random.default_rng(2).normal(size=(64, 3)).astype(np.float32)
  linear, y = (lambda x: flat(x) @ w), jnp.argmax(flat(X) @ w, axis=1).astype(jnp.int32)
  objective = train.pat(eps=0.5, num_steps=4, embed=flat, only_correct=False)
  perturb = jax.jit(lambda keys, x, y: objective.perturb(keys, linear, x, y, 0))
  attack = fast_lpa(flat, eps=0.5, num_steps=4, projection='none')
  whole = perturb(KEYS, X, y)
  np.testing.assert_allclose(whole, attack(KEYS, linear, X, y), atol=1e-6)
  np.testing.assert_allclose(whole[2:3], perturb(KEYS[2:3], X[2:3], y[2:3]), atol=1e-6)
  # phi is x itself: the penalty holds the points at about the distance of eps.
  distances = np.linalg.norm(flat(np.asarray(whole) - X), axis=1)
  assert distances.min() > 0.25 and distances.max() < 0.75


def test_weights_of_the_measuring_network_are_arguments():
  """One program, without their values in it, serves all of them; the points are those of its distance."""
  model_fn, weights = models.bind(MODULE, drawn(MODULE, X)), drawn(MODULE, X[:1])
  batch = {'x': X, 'y': np.asarray(labels(model_fn, RIGHT)), 'index': np.arange(8, dtype=np.int32)}
  seen, tx = models.bind_features(MODULE, weights), optax.sgd(0.1)
  method = train.objective('pat', None, sigma=None, features=seen, eps=0.3, num_steps=2)
  step = train.make_step(MODULE, tx, **method)
  pairs = zip(jax.tree.leaves(step), jax.tree.leaves(weights), strict=True)
  assert all(ours is given for ours, given in pairs)
  mesh, whole, split = parallel.data_mesh(jax.devices()[:1]), parallel.REPLICATED, parallel.SHARDED

  def both(step, state, key, batch):
    keys = jax.random.split(key, 8)
    perturb, seen = step.args[0], step.args[0].args[0].args[0]
    found = perturb(keys, model_fn, batch['x'], batch['y'], 0)
    attack = fast_lpa(distances.embedding(seen), eps=0.3, num_steps=2, projection='none')
    return step(state, key, batch)[1]['loss'], found, attack(keys, model_fn, batch['x'], batch['y'])

  run = parallel.pmap(both, mesh, (whole, whole, whole, split), (whole, split, split))
  state, key = train.init_state(jax.random.key(0), MODULE, tx, X.shape[1:]), jax.random.key(1)
  state = state._replace(params=drawn(MODULE, X)['params'])  # It gets the same images right.
  loss, found, expected = run(step, state, key, batch)
  np.testing.assert_allclose(found[RIGHT], expected[RIGHT], atol=1e-6)
  other, moved, _ = run(jax.tree.map(lambda leaf: -2 * leaf, step), state, key, batch)
  assert run._cache_size() == 1
  assert abs(loss - other) > 1e-5 and np.abs(moved - found)[RIGHT].max() > 1e-3


def test_a_step_descends_at_points_found_in_evaluation_mode():
  """The loss of a step is that of the pass in training mode over them, and it moves the weights."""
  module, tx, y = Normalised(), optax.sgd(0.1), np.arange(4) % 2
  batch = {'x': X[:4], 'y': y.astype(np.int32), 'index': np.arange(4, dtype=np.int32)}
  method = train.pat(eps=0.5, num_steps=2, embed=flat, only_correct=False)._asdict()
  state, seen = train.init_state(jax.random.key(0), module, tx, X.shape[1:]), []
  first = jax.device_get(state)
  after = train.fit(
    train.make_step(module, tx, **method), state, [batch],
    key=jax.random.key(1), mesh=parallel.data_mesh(jax.devices()[:1]), log_every=1,
    on_log=lambda step, metrics: seen.append(metrics),
  )  # fmt: skip

  def expected(root, state):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(root, 0), batch['index'])
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    x_adv = method['perturb'](keys, models.bind(module, state.variables), X[:4], batch['y'], 0)
    apply = lambda x: module.apply(state.variables, x, train=True, mutable=['batch_stats'])[0]
    return optax.softmax_cross_entropy_with_integer_labels(apply(x_adv), batch['y']).mean()

  mesh, whole = parallel.data_mesh(jax.devices()[:1]), parallel.REPLICATED
  loss = parallel.pmap(expected, mesh, (whole, whole), whole)(jax.random.key(1), first)
  assert seen[0]['loss'] == pytest.approx(float(loss), rel=1e-4)
  moved = jax.tree.map(lambda a, b: np.abs(a - np.asarray(b)).max(), first.params, after.params)
  assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.parametrize(
  'parameters, said',
  [
    (dict(eps=0.0), '`eps` must be positive'),
    (dict(num_steps=0), '`num_steps` must be positive'),
    (dict(embed=1.0), 'has no parameter embed; it takes eps, num_steps, only_correct'),
  ],
)
def test_bad_parameters(parameters, said):
  with pytest.raises(ValueError, match=said):
    train.objective('pat', None, sigma=0.0, **parameters)


def test_features_are_of_pat_alone():
  with pytest.raises(ValueError, match="`features` measure .* pat, got objective 'adversarial'"):
    train.objective('adversarial', None, sigma=0.0, features=features_of)
