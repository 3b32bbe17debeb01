"""CornerSearch: T25, exhaustive search over pixels and pairs, the law of the ranks, protocol."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks
from certjax.attacks import _corner_search

SHAPE, ROWS = (2, 3, 3), 6
W1 = np.random.default_rng(0).normal(size=(18, 12)).astype(np.float32)
W2 = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
CORNERS = np.array(list(itertools.product((0, 1), repeat=3)), np.float32)


def network(x, bias=5.0):
  """Label 0 near grey; a bias of 5 leaves images that one pixel flips, and others; 6.8 so for two."""
  logits = jnp.sin(0.5 * ((x.reshape(len(x), -1) - 0.5) @ W1)) @ W2
  return logits + jnp.array([[bias, 0, 0]], jnp.float32)


MODELS = {1: network, 2: functools.partial(network, bias=6.8)}


def batch():
  x = np.random.default_rng(2).uniform(0.3, 0.7, (ROWS, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.zeros(ROWS, jnp.int32)


def margins(model_fn, x, y):
  return np.asarray(jax.vmap(attacks.margin)(model_fn(jnp.asarray(x)), y))


def test_linear_score_needs_two_pixels():
  score = lambda x: x @ jnp.array([3, -2, 1, 5, -4, 0.5], jnp.float32) + 2
  linear = lambda x: jnp.stack([score(x), jnp.zeros(len(x))], axis=1)
  x, y = jnp.array([[0.5, 0.5, 1, 0.2, 0.1, 0.9]] * 2, jnp.float32), jnp.zeros(2, jnp.int32)
  attack = attacks.corner_search(pixels=4, step=1, num_samples=20, chunk=8)
  x_adv = jax.jit(lambda key, x: attack(key, linear, x, y))(jax.random.key(0), x)
  assert (margins(linear, x_adv, y) > 0).all() and ((x_adv != x).sum(axis=1) == 2).all()


def best_of_all(x, y, pixels):
  """The largest margin over all corners of all sets of so many pixels."""
  points = [np.array(x).reshape(ROWS, 6, 3)]
  for place, colours in itertools.product(
    itertools.combinations(range(6), pixels), itertools.product(CORNERS, repeat=pixels)
  ):
    points.append(points[0].copy())
    points[-1][:, list(place)] = np.stack(colours)
  every = np.stack(points).reshape(-1, *SHAPE)
  return margins(MODELS[pixels], every, np.tile(y, len(points))).reshape(-1, ROWS).max(axis=0)


@pytest.fixture(scope='module', params=[1, 2], ids=['single', 'pairs'])
def searched(request):
  """Of six images: how many pixels, the program, its trace count, keys, images, result. 5 does not
  divide the 48 changes, nor 256 the 600 samples."""
  pixels, traces = request.param, []

  @jax.jit
  def traced(keys, x, y):
    traces.append(1)
    attack = attacks.corner_search(pixels=pixels, num_samples=600, chunk={1: 5, 2: 256}[pixels])
    return attack(keys, MODELS[pixels], x, y)

  x, y = batch()
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(ROWS))
  return pixels, traced, traces, keys, x, y, traced(keys, x, y)


def test_finds_a_flip_exactly_where_exhaustive_search_does(searched):
  """600 draws a class of the 960 pairs, those of high rank first; single pixels are all tried."""
  pixels, _, _, _, x, y, x_adv = searched
  largest = best_of_all(x, y, pixels)
  found = margins(MODELS[pixels], x_adv, y)
  np.testing.assert_array_equal(found > 0, largest > 0)
  changed = np.asarray(x_adv != x).any(axis=-1).reshape(ROWS, 6)
  assert (changed.sum(axis=1) <= pixels).all()
  assert 0 < (found > 0).sum() < ROWS
  if pixels == 1:
    np.testing.assert_allclose(found, largest, atol=1e-5)
  else:
    assert changed.sum() > ROWS
    np.testing.assert_array_less(found, largest + 1e-5)


def test_protocol(searched):
  pixels, traced, traces, keys, x, y, x_adv = searched
  assert (margins(MODELS[pixels], x_adv, y) >= margins(MODELS[pixels], x, y)).all()
  order = jnp.array([3, 3, 1, 0, 5, 4])
  np.testing.assert_array_equal(traced(keys[order], x[order], y), x_adv[order])
  np.testing.assert_array_equal(traced(keys, x, y + 1), x)  # It is misclassified as it is.
  np.testing.assert_array_equal(traced(keys, x * jnp.nan, y), x * jnp.nan)
  assert len(traces) == 1
  np.testing.assert_array_equal(attacks.corner_search(pixels=0)(keys, network, x, y), x)


def test_ranks_fall_linearly():
  """40,000 draws of 8 ranks: each frequency within 5 standard deviations (5e-6 false alarms)."""
  ranks = jax.jit(lambda key: _corner_search._draw_ranks(key, (40_000,), 8))(jax.random.key(0))
  p = (2 * (8 - np.arange(8)) - 1) / 64
  deviation = np.abs(np.bincount(np.asarray(ranks), minlength=8) - 40_000 * p)
  assert (deviation <= 5 * np.sqrt(40_000 * p * (1 - p))).all()


def test_a_pixel_is_changed_once():
  """Of two changes of one pixel the first counts; those beyond `size` do not."""
  x, change = jnp.full((3, 1), 0.5), jax.jit(_corner_search._change_several)
  changed = change(x, 3, jnp.array([3, 2, 4, 1], jnp.int32))
  assert changed.tolist() == [[0.5], [1.0], [0.0]]
  changed = change(x, 1, jnp.array([0, 5, 5, 5], jnp.int32))
  assert changed.tolist() == [[0.0], [0.5], [0.5]]


@pytest.mark.parametrize(
  'options, match',
  [
    (dict(pixels=-1), '`pixels` must be at least 0'),
    (dict(pixels=1, num_best=5000), '`num_best` at most 2048'),
    (dict(pixels=1, chunk=0), '`chunk` must be at least 1'),
  ],
)
def test_bad_arguments(options, match):
  with pytest.raises(ValueError, match=match):
    attacks.corner_search(**options)


def test_too_many_channels():
  with pytest.raises(ValueError, match='at most 8 channels'):
    attacks.corner_search(pixels=1)(jax.random.key(0), network, jnp.zeros((1, 2, 2, 9)), None)
