"""Pointwise: T25, brute force over all black-and-white changes, 1-minimality, both loops, protocol."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, certify, smoothing

SHAPE, SEARCH = (3, 3, 3), dict(num_repeats=4, num_noises=20)
W1 = np.random.default_rng(0).normal(size=(27, 16)).astype(np.float32)
W2 = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)


def network(x):
  """Label 0 near grey; between 6% and 15% of all black-and-white changes of 3 x 3 pixels flip it."""
  logits = jnp.sin(0.5 * ((x.reshape(len(x), -1) - 0.5) @ W1)) @ W2
  return logits + jnp.array([[5, 0, 0]], jnp.float32)


def batch():
  x = np.random.default_rng(2).uniform(0.3, 0.7, (6, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.zeros(6, jnp.int32)


def linear(x):
  """The score of T25 on one channel; the image scores 4.55, and single pixels gain at most 3.6."""
  score = x[..., 0].reshape(len(x), -1) @ jnp.array([3, -2, 1, 5, -4, 0.5, 0, 0, 0], jnp.float32)
  return jnp.stack([score + 2, jnp.zeros(len(x))], axis=1)


def wrong(model_fn, y):
  return lambda x: np.asarray(jax.vmap(attacks.margin)(model_fn(jnp.asarray(x)), y) > 0)


def test_least_pixels_of_a_linear_score():
  """Two pixels are needed; a search ends at a local minimum of 2 or 3, the best of four at 2."""
  x = np.full((6, 9, 3), 0.5, np.float32)
  x[:, :6, 0] = [0.5, 0.5, 1, 0.2, 0.1, 0.9]
  x, y = x.reshape(6, *SHAPE), jnp.zeros(6, jnp.int32)
  found = attacks.pointwise_search(jax.random.key(0), wrong(linear, y), x, **SEARCH)
  assert found.success.all() and wrong(linear, y)(found.x).all()
  assert (found.num_changed == 2).all()
  np.testing.assert_array_equal((found.x != x).any(axis=-1).sum(axis=(1, 2)), 2)


def least_black_and_white(x, y):
  """The fewest pixels, each black or white, that change the label: all 3^9 images."""
  choices = np.array(list(itertools.product((-1, 0, 1), repeat=9)), np.float32)
  choices = choices.reshape(-1, 3, 3, 1)
  label = np.argmax(network(np.where(choices < 0, x, choices)), axis=1)
  return (choices >= 0).sum(axis=(1, 2, 3))[label != y].min()


@pytest.fixture(scope='module')
def searched():
  x, y = batch()
  search = lambda unit: attacks.pointwise_search(
    jax.random.key(1), wrong(network, y), x, unit=unit, **SEARCH
  )
  return x, y, {unit: search(unit) for unit in ('pixels', 'features')}


def test_never_below_and_mostly_at_the_least_of_brute_force(searched):
  x, y, found = searched
  least = np.array([least_black_and_white(*row) for row in zip(x, y, strict=True)])
  assert least.tolist() == [2, 1, 1, 2, 2, 1]
  num_changed = found['pixels'].num_changed
  assert found['pixels'].success.all() and (num_changed >= least).all()
  assert (num_changed == least).sum() >= 4


@pytest.mark.parametrize('unit, shape', [('pixels', (9, 3)), ('features', (27, 1))])
def test_no_changed_pixel_can_be_put_back(searched, unit, shape):
  x, y, found = searched
  found, count = found[unit], 0
  assert wrong(network, y)(found.x)[found.success].all()
  for image, point in zip(np.asarray(x), found.x, strict=True):
    image, point = image.reshape(shape), point.reshape(shape)
    for place in np.flatnonzero((image != point).any(axis=1)):
      restored = point.copy()
      restored[place] = image[place]
      assert np.argmax(network(restored.reshape(1, *SHAPE))) == 0
      count += 1
  assert count == found.num_changed.sum() > 6


def test_ends_only_when_every_pixel_left_was_refused_again():
  """Of nine pixels the last changed one alone can be put back, in whatever order they are tried: one
  refusal each is not enough, and the first pixel is what is left."""

  def is_adversarial(x):
    changed = (x != 0.5).any(axis=-1).reshape(6, 9)
    count = changed.sum(axis=1, keepdims=True)
    return ((changed == (np.arange(9)[None] < count)) & (count > 0)).all(axis=1)

  x = np.full((6, *SHAPE), 0.5, np.float32)
  found = attacks.pointwise_search(jax.random.key(0), is_adversarial, x, **SEARCH)
  assert found.success.all() and (found.x[:, 0, 0] != 0.5).all() and (found.num_changed == 1).all()


def test_blocks_find_one_value_of_many_with_few_questions():
  """All of 27 values change at first and one matters. Each of the sizes 14, 7, 4, 2 asks for two blocks
  at most, or for three where the last is short, and size 1 twice; single values would take 27."""
  asked = []

  def is_adversarial(x):
    asked.append(x)
    return x[:, 1, 1, 1] != 0.5

  x = np.full((6, *SHAPE), 0.5, np.float32)
  found = attacks.pointwise_search(
    jax.random.key(0), is_adversarial, x, num_repeats=4, num_noises=1, unit='features'
  )
  assert (found.num_changed == 1).all() and (found.x[:, 1, 1, 1] != 0.5).all()
  assert max(found.num_queries) == len(asked) <= 1 + 4 * (1 + 3 * 4 + 2)


def test_protocol(searched):
  x, y, found = searched
  attack, traces = attacks.pointwise(pixels=1, **SEARCH), []

  @jax.jit
  def traced(keys, x, y):
    traces.append(1)
    return attack(keys, network, x, y)

  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(1), jnp.arange(6))
  x_adv = np.asarray(traced(keys, x, y))
  # Both loops end alike; one key is folded by row; what takes more than one pixel is thrown away.
  few = found['pixels'].num_changed <= 1
  assert few.any() and not few.all()
  np.testing.assert_array_equal(x_adv[few], found['pixels'].x[few])
  np.testing.assert_array_equal(x_adv[~few], np.asarray(x)[~few])
  assert x_adv.min() >= 0 and x_adv.max() <= 1
  order = jnp.array([3, 3, 1, 0, 5, 4])
  np.testing.assert_array_equal(traced(keys[order], x[order], y), x_adv[order])
  np.testing.assert_array_equal(traced(keys, x, y + 1), x)  # It is misclassified as it is.
  assert traced(keys, x * jnp.nan, y).shape == x.shape  # It ends.
  assert len(traces) == 1
  none = attacks.pointwise(pixels=0)(keys, network, x, y)
  np.testing.assert_array_equal(none, x)


def test_failure_and_success_at_once():
  x = batch()[0]
  wrong_before = np.arange(6) % 3 == 1
  found = attacks.pointwise_search(jax.random.key(1), lambda x: wrong_before, x, **SEARCH)
  np.testing.assert_array_equal(found.x, x)
  np.testing.assert_array_equal(found.success, wrong_before)
  np.testing.assert_array_equal(found.num_changed, 0)
  np.testing.assert_array_equal(found.num_queries, np.where(wrong_before, 1, 1 + 4 * 20))


def test_smoothed_labels_hold_within_their_radius():
  """The worst classifier: class 1 as soon as a black pixel is shown. Three of 16 pixels are shown:
  Delta(3) = .489, Delta(4) = .607, so that 3 are certified and 4 or 5 can be seen to flip PREDICT.
  False alarms: 1e-3 for the certificate and each question about at most 3 pixels; fixed keys."""
  law = smoothing.ablation(keep=3, shape=(4, 4, 1))
  black = lambda x: jnp.sum(x[..., 1] > 0.9, axis=(1, 2)).astype(jnp.float32)
  model_fn = lambda x: jnp.stack([jnp.full(len(x), 0.5), black(x)], axis=1)
  x = jnp.full((1, 4, 4, 1), 0.5)
  sizes = dict(alpha=1e-3, chunk=300)
  proof = certify.sampled(jax.random.key(0), model_fn, law, x, num_samples=1200, **sizes)
  assert proof.label == 0 and proof.radius == 3

  def flips(x):
    label = certify.predict(jax.random.key(1), model_fn, law, x, num_samples=300, **sizes)
    return label == 1  # An abstention is no misclassification.

  found = attacks.pointwise_search(jax.random.key(2), flips, x, num_repeats=1, num_noises=10)
  assert found.success.all() and 4 <= found.num_changed <= 5


@pytest.mark.parametrize(
  'call, match',
  [
    (lambda: attacks.pointwise(pixels=-1), '`pixels` must be at least 0'),
    (lambda: attacks.pointwise(num_repeats=0), '`num_repeats` and `num_noises` must be'),
    (lambda: attacks.pointwise(unit='pixel'), '`unit` must be one of pixels, features'),
    (
      lambda: attacks.pointwise_search(jax.random.key(0), lambda x: x.sum(), np.ones((2, 3))),
      r'`is_adversarial` must return bool\[B\]',
    ),
  ],
)
def test_bad_arguments(call, match):
  with pytest.raises(ValueError, match=match):
    call()
