"""Adversarial training against flows, recolourings, JPEG, several threats at once, and compositions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import models, parallel, train
from certjax.attacks import functional

pytestmark = pytest.mark.usefixtures('many_programs')

RNG = np.random.default_rng(0)
COLOUR = RNG.uniform(0.2, 0.8, (8, 4, 4, 3)).astype(np.float32)
GREY = COLOUR[..., :1]
KEYS = jax.random.split(jax.random.key(0), 8)
W = RNG.normal(size=(48, 3)).astype(np.float32)
Y = np.argmax(COLOUR.reshape(8, -1) @ W, axis=1).astype(np.int32)
SIZES = dict(eps_linf=0.03, eps_l2=0.2, eps_stadv=0.1, eps_recolor=0.06, num_steps=2)


def linear(x):
  x = x.reshape(len(x), -1)
  return x @ W[: x.shape[1]]


class Normalised(nn.Module):
  """BatchNorm: evaluation mode and training mode differ."""

  @nn.compact
  def __call__(self, x, train=False):
    axis = parallel.AXIS if train else None
    x = nn.Dense(4)(x.reshape(len(x), -1))
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5, axis_name=axis)(x)
    return nn.Dense(3)(nn.tanh(x))


def gentle(x):
  """A model whose margins grow by less than the penalties of a search do."""
  return 0.05 * linear(x)


def perturbed(objective, model_fn=linear):
  """(keys, x, y, step) -> points of the model, jitted."""
  return jax.jit(lambda keys, x, y, step: objective.perturb(keys, model_fn, x, y, step))


AVERAGE = perturbed(train.adversarial_all(variant='average', **SIZES, warmup_steps=10))
RANDOM = perturbed(train.adversarial_all(variant='random', **SIZES))
COMPOSED = perturbed(
  train.adversarial_composed(parts='sd', eps_stadv=0.1, eps_linf=0.03, num_steps=2), gentle
)


def gradient_alone(value):
  """0, with the gradient of the value: a penalty that leads a search and does not choose its result."""
  return value - jax.lax.stop_gradient(value)


def loss_of(objective, copies):
  apply = lambda x, train: (linear(x), {'seen': jnp.float32(len(x)) if train else None})
  return objective.loss(None, apply, copies, Y, 0)


def singles(x):
  """What three attacks find, each alone, at full size."""
  return [
    train.objective(name, None, sigma=0.0, eps=eps, num_steps=2)['perturb'](KEYS, linear, x, Y, 0)
    for name, eps in (('adversarial', 0.03), ('adversarial-l2', 0.2), ('adversarial-stadv', 0.1))
  ]


def test_a_copy_for_each_threat():
  """Those of the single methods; inside of each set; smaller in a warm-up."""
  x_adv = AVERAGE(KEYS, GREY, Y, np.int32(9))
  for number, points in enumerate(jax.jit(singles)(GREY)):
    np.testing.assert_allclose(x_adv[:, number], points, atol=2e-6)
  moved = np.asarray(x_adv) - GREY[:, None]
  assert np.abs(moved[:, 0]).max() == pytest.approx(0.03, abs=1e-6)
  assert np.linalg.norm(moved[:, 1].reshape(8, -1), axis=1).max() == pytest.approx(0.2, abs=1e-6)
  assert (
    np.abs(moved[:, 2]).max(axis=(1, 2, 3)).min() > 1e-3 and 0 <= x_adv.min() <= x_adv.max() <= 1
  )
  early = np.abs(np.asarray(AVERAGE(KEYS, GREY, Y, np.int32(0))) - GREY[:, None])
  assert early[:, 0].max() == pytest.approx(0.003, abs=1e-6)
  assert np.all(early.max(axis=(0, 2, 3, 4)) < 0.3 * np.abs(moved).max(axis=(0, 2, 3, 4)))
  assert AVERAGE._cache_size() == 1


def test_average_and_maximum_are_those_of_the_single_losses():
  copies = np.clip(COLOUR[:, None] + RNG.normal(size=(8, 4, 4, 4, 3)) * 0.3, 0, 1).astype(
    np.float32
  )
  singles = np.stack(
    [[-jax.nn.log_softmax(linear(c))[i, y] for i, y in enumerate(Y)] for c in copies.swapaxes(0, 1)]
  )
  right = np.stack([np.argmax(linear(c), axis=1) == Y for c in copies.swapaxes(0, 1)])
  for variant, expected in (('average', singles.mean()), ('maximum', singles.max(0).mean())):
    value, (metrics, statistics) = loss_of(train.adversarial_all(variant=variant), copies)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert float(metrics['accuracy']) == pytest.approx(right.mean())
    assert float(metrics['union_accuracy']) == pytest.approx(right.all(0).mean())
    assert float(statistics['seen']) == 32  # All copies in one pass, in training mode.
  assert 0 < right.all(0).mean() < right.mean() < 1


def test_random_depends_on_the_step_alone():
  """One attack for the whole batch, whatever the keys and images; all get their turn."""
  turn = lambda *arrays: [array[::-1] for array in arrays]
  once, turned = (KEYS, GREY, Y), turn(KEYS, GREY, Y)

  def which(given, copies, step):
    points = np.asarray(RANDOM(*given, np.int32(step)))
    apart = np.abs(points[:, None] - copies).max(axis=(0, 2, 3, 4))
    assert np.sum(apart < 2e-6) == 1
    return int(np.argmin(apart))

  every = [np.asarray(AVERAGE(*given, np.int32(9))) for given in (once, turned)]
  first = [which(once, every[0], step) for step in range(24)]
  second = [which(turned, every[1], step) for step in range(24)]
  assert first == second and set(first) == {0, 1, 2}
  assert RANDOM._cache_size() == 1


def test_what_is_left_out():
  """A size of 0 leaves a threat out; images without colour are not recoloured."""
  alone = train.adversarial_all(
    variant='average', eps_linf=0.03, eps_l2=0, eps_stadv=0, num_steps=2
  )
  copies = alone.perturb(KEYS, linear, GREY, Y, 0)
  ball = train.adversarial_training(eps=0.03, num_steps=2)
  assert copies.shape == (8, 1, 4, 4, 1)
  np.testing.assert_allclose(copies[:, 0], ball.perturb(KEYS, linear, GREY, Y, 0), atol=1e-6)
  of_colour = lambda x: train.adversarial_all(**SIZES).perturb(KEYS, linear, x, Y, 0)
  assert jax.eval_shape(of_colour, COLOUR).shape == (8, 4, 4, 4, 3)
  none = train.adversarial_all(eps_linf=0, eps_l2=0, eps_stadv=0)
  with pytest.raises(ValueError, match='have no colour, and `eps_recolor` alone is positive'):
    none.perturb(KEYS, linear, GREY, Y, 0)


def test_levels_of_grey_and_coefficients():
  """A curve over levels moves equal pixels alike; JPEG's coefficients move by at most eps / 2."""
  x = jnp.asarray(np.tile(np.round(GREY, 1), (1, 2, 2, 1)))
  w = RNG.normal(size=(64, 3)).astype(np.float32)
  model_fn = lambda x: x.reshape(len(x), -1) @ w

  @jax.jit
  def both(x):
    make = lambda name: train.objective(name, None, sigma=0.0, num_steps=2)['perturb']
    return [make(f'adversarial-{n}')(KEYS, model_fn, x, Y, 0) for n in ('recolor', 'jpeg')]

  bent, waves = both(x)
  moved = np.asarray(bent - x)
  for level in np.unique(x[0]):
    assert np.ptp(moved[0][np.asarray(x[0]) == level]) < 1e-6
  assert 0.02 < np.abs(moved).max() <= 0.06 + 1e-6
  encode = jax.vmap(functional.encode_jpeg)
  assert np.abs(encode(waves) - encode(x)).max() == pytest.approx(0.25 / 2, abs=1e-3)


def test_composition_is_one_search():
  """The parts in their order, their penalties led by and not paid; one image is a row of eight."""
  x_adv = COMPOSED(KEYS, GREY, Y, np.int32(0))
  parts = functional.compose(functional.stadv(0.1), functional.additive(0.03), weights=(1, 0))
  steered = parts._replace(penalty=lambda latent: gradient_alone(parts.penalty(latent)))
  attack = functional.latent_attack(
    steered, num_steps=2, step_size=(0.1 / 4, 0.03 / 4), penalty_weight=0.05
  )
  expected = jax.jit(lambda x: attack(KEYS, gentle, x, Y))(GREY)
  np.testing.assert_allclose(x_adv, expected, atol=1e-6)
  alone = COMPOSED(KEYS[2:3], GREY[2:3], Y[2:3], np.int32(0))
  np.testing.assert_allclose(alone[0], x_adv[2], atol=1e-6)
  assert np.abs(x_adv - GREY).max(axis=(1, 2, 3)).min() > 0.01  # Penalties paid, images would stay.


def test_trades_against_a_composition():
  """The image itself, and the point that leaves the network's own answer: labels are not asked."""
  objective = train.trades_composed(parts='sd', eps_stadv=0.1, eps_linf=0.03, num_steps=2, beta=2.0)
  answer = np.argmax(linear(GREY), axis=1).astype(np.int32)
  images, points = np.moveaxis(perturbed(objective, gentle)(KEYS, GREY, (answer + 1) % 3, 0), 1, 0)
  assert np.array_equal(images, GREY)
  np.testing.assert_allclose(points, COMPOSED(KEYS, GREY, answer, np.int32(0)), atol=1e-6)
  pair = np.stack([COLOUR, np.flip(COLOUR, 1)], axis=1)
  value, (metrics, _) = loss_of(objective, pair)
  expected, (theirs, _) = loss_of(train.trades(beta=2.0), pair)
  assert float(value) == float(expected) and sorted(metrics) == sorted(theirs)


def test_a_step_descends_at_the_worst_copies():
  """Found in evaluation mode; the pass in training mode over all of them makes the loss."""
  module, tx = Normalised(), optax.sgd(0.1)
  batch = {'x': GREY, 'y': Y, 'index': np.arange(8, dtype=np.int32)}
  method = train.objective(
    'adversarial-maximum', None, sigma=0.0, **{**SIZES, 'eps_stadv': 0.0, 'num_steps': 2.0}
  )
  state, points, seen = train.init_state(jax.random.key(0), module, tx, GREY.shape[1:]), [], []
  first = jax.device_get(state)

  def perturb(keys, model_fn, x, y, step):
    assert models.module_of(model_fn) is module  # As `bind` makes it.
    copies = method['perturb'](keys, model_fn, x, y, step)
    jax.debug.callback(points.append, copies)
    return copies

  mesh, whole = parallel.data_mesh(jax.devices()[:1]), parallel.REPLICATED
  after = train.fit(
    train.make_step(module, tx, method['loss'], perturb=perturb), state, [batch],
    key=jax.random.key(1), mesh=mesh, log_every=1,
    on_log=lambda step, metrics: seen.append(metrics),
  )  # fmt: skip
  moved = np.asarray(points[0]) - GREY[:, None]
  assert moved.shape[1] == 2 and np.abs(moved[:, 0]).max() == pytest.approx(0.03, abs=1e-6)

  def expected(state, x):
    logits, _ = module.apply(state.variables, x, train=True, mutable=['batch_stats'])
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.repeat(batch['y'], 2))
    return each.reshape(8, 2).max(axis=1).mean()

  x = np.asarray(points[0]).reshape(16, 4, 4, 1)
  loss = parallel.pmap(expected, mesh, (whole, whole), whole)(first, x)
  assert seen[0]['loss'] == pytest.approx(float(loss), rel=1e-4)
  change = jax.tree.map(lambda a, b: np.abs(a - np.asarray(b)).max(), first.params, after.params)
  assert max(jax.tree.leaves(change)) > 1e-3


@pytest.mark.parametrize(
  'make, said',
  [
    (
      lambda: train.adversarial_all(variant='sum'),
      '`variant` must be one of average, maximum, random',
    ),
    (lambda: train.adversarial_all(eps_l2=-1.0), '`eps_l2` must be at least 0'),
    (lambda: train.adversarial_all(eps_linf=8.0), 'for grey levels write 8.0 / 255|write 8'),
    (lambda: train.adversarial_all(num_steps=0), '`num_steps` must be positive'),
    (
      lambda: train.adversarial_all(eps_linf=0, eps_l2=0, eps_stadv=0, eps_recolor=0),
      'must be positive, got 0 for all',
    ),
    (lambda: train.adversarial_composed(parts='cx'), "`parts` takes .* got parts='cx'"),
    (lambda: train.adversarial_composed(parts='cc'), 'at most once'),
    (lambda: train.trades_composed(eps_stadv=0.0), '`eps` must be positive'),
    (lambda: train.trades_composed(beta=-1.0), '`beta` weighs'),
    (
      lambda: train.objective('trades-csd', None, sigma=0.0, parts=1.0),
      'has no parameter parts; it takes eps_recolor, eps_stadv, eps_linf, num_steps, beta',
    ),
  ],
)
def test_bad_arguments(make, said):
  with pytest.raises(ValueError, match=said):
    make()


def test_methods_are_made_by_name():
  for name in train.THREAT_MODELS:
    made = train.objective(name, None, sigma=0.0, warmup_steps=5)
    assert callable(made['perturb']) and name in train.ATTACKED
