"""Sparse-RS: T25, exhaustive search over pixels and patches, the schedule, its draws, protocol."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks
from certjax.attacks import _sparse_rs

SHAPE, ROWS, SEARCHES, BIAS = (4, 4, 1), 8, 32, 5.6
W1 = np.random.default_rng(0).normal(size=(16, 12)).astype(np.float32)
W2 = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)


def network(x):
  """Label 0 near grey; no single pixel flips an image, and two, or 2 x 2, flip some of the 8."""
  logits = jnp.sin(0.7 * ((x.reshape(len(x), -1) - 0.5) @ W1)) @ W2
  return logits + jnp.array([[BIAS, 0, 0]], jnp.float32)


def batch(shape=SHAPE):
  x = np.random.default_rng(2).uniform(0.3, 0.7, (ROWS, *shape)).astype(np.float32)
  return jnp.asarray(x), jnp.zeros(ROWS, jnp.int32)


def margins(model_fn, x, y):
  return np.asarray(jax.vmap(attacks.margin)(model_fn(jnp.asarray(x)), y))


def linear(x):
  score = x @ jnp.array([3, -2, 1, 5, -4, 0.5], jnp.float32) + 2
  return jnp.stack([score, jnp.zeros(len(x))], axis=1)


def test_linear_score_needs_two_pixels():
  x = jnp.array([[0.5, 0.5, 1, 0.2, 0.1, 0.9]] * ROWS, jnp.float32)
  y = jnp.zeros(ROWS, jnp.int32)
  one, two = (attacks.sparse_rs(pixels=pixels, num_queries=200) for pixels in (1, 2))
  both = jax.jit(lambda key, x: (one(key, linear, x, y), two(key, linear, x, y)))
  points = both(jax.random.key(0), x)
  for pixels, success, x_adv in zip((1, 2), (False, True), points, strict=True):
    np.testing.assert_array_equal(margins(linear, x_adv, y) > 0, success)
    assert ((x_adv != x).sum(axis=1) <= pixels).all()
    if pixels == 1:  # The best single pixel takes 3.6 of 4.55.
      np.testing.assert_allclose(margins(linear, x_adv, y), -0.95, rtol=1e-5)


def best_of_all(x, y, places, num_values):
  """The largest margin over all black-and-white colourings of each place, a list of pixels."""
  points = [np.array(x).reshape(ROWS, 16)]
  for place, colours in itertools.product(places, itertools.product((0, 1), repeat=num_values)):
    points.append(points[0].copy())
    points[-1][:, place] = colours
  every = np.stack(points).reshape(-1, *SHAPE)
  return margins(network, every, np.tile(y, len(points))).reshape(-1, ROWS).max(axis=0)


def squares(side, length=4):
  for top, left in itertools.product(range(length - side + 1), repeat=2):
    yield [(top + i) * length + left + j for i in range(side) for j in range(side)]


CASES = {
  'one pixel': (attacks.sparse_rs(pixels=1, num_queries=400), [[i] for i in range(16)], 1),
  'two pixels': (
    attacks.sparse_rs(pixels=2, num_queries=1000),
    [list(pair) for pair in itertools.combinations(range(16), 2)],
    2,
  ),
  'patch': (attacks.sparse_rs_patch(side=2, num_queries=300), list(squares(2)), 4),
}


@pytest.fixture(scope='module', params=CASES)
def searched(request):
  """32 searches of each image by one program: its name, its trace count, keys, images, result."""
  attack, traces = CASES[request.param][0], []

  @jax.jit
  def traced(keys, x, y):
    traces.append(1)
    return attack(keys, network, x, y)

  x, y = batch()
  x, y = jnp.tile(x, (SEARCHES, 1, 1, 1)), jnp.tile(y, SEARCHES)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(len(x)))
  return request.param, traced, traces, keys, x, y, traced(keys, x, y)


def test_finds_a_flip_exactly_where_exhaustive_search_does(searched):
  """A single pixel can go anywhere from everywhere: there each search finds the largest margin itself.
  A patch can only move or change a pixel, and has many local optima on so small an image."""
  case, _, _, _, x, y, x_adv = searched
  _, places, num_values = CASES[case]
  largest = best_of_all(x[:ROWS], y[:ROWS], places, num_values)
  found = margins(network, x_adv, y).reshape(SEARCHES, ROWS)
  assert (found <= largest[None] + 1e-5).all()
  np.testing.assert_array_equal(found.max(axis=0) > 0, largest > 0)
  if case == 'one pixel':
    np.testing.assert_allclose(found, np.tile(largest, (SEARCHES, 1)), atol=1e-5)
  else:
    assert 0 < (largest > 0).sum() < ROWS
  changed, values = (np.asarray(a).reshape(-1, 16) for a in (x_adv != x, x_adv))
  inside = [any(set(np.flatnonzero(row)) <= set(place) for place in places) for row in changed]
  assert all(inside) and np.isin(values[changed], (0, 1)).all()


def test_protocol(searched):
  case, traced, traces, keys, x, y, x_adv = searched
  assert (margins(network, x_adv, y) >= margins(network, x, y)).all()
  order = np.random.default_rng(0).permutation(len(x))
  np.testing.assert_array_equal(traced(keys[order], x[order], y), x_adv[order])
  np.testing.assert_array_equal(traced(keys, x, y + 1), x)  # It is misclassified as it is.
  np.testing.assert_array_equal(traced(keys, x * jnp.nan, y), x * jnp.nan)
  assert len(traces) == 1


def test_nothing_to_change():
  x, y = batch()
  for attack in (
    attacks.sparse_rs(pixels=0, num_queries=9),
    attacks.sparse_rs_patch(side=0, num_queries=9),
  ):
    np.testing.assert_array_equal(attack(jax.random.key(0), network, x, y), x)


def test_all_pixels_of_a_coloured_image():
  """More pixels asked for than there are: the optimum of a linear score is at a corner of the box.
  Each of 4 pixels takes its one best colour of 8 with probability 1/32 a query: it stays away for 500
  in 4 (31/32)^500 = 5e-7 of the rows."""
  w = np.random.default_rng(5).normal(size=12).astype(np.float32)
  model_fn = lambda x: jnp.stack([jnp.full(len(x), 9.0), x.reshape(len(x), -1) @ w], axis=1)
  x, y = batch((2, 2, 3))
  attack = attacks.sparse_rs(pixels=9, num_queries=500, loss=attacks.cross_entropy)
  x_adv = jax.jit(lambda key, x: attack(key, model_fn, x, y))(jax.random.key(0), x)
  np.testing.assert_array_equal(x_adv.reshape(ROWS, -1), np.tile(w > 0, (ROWS, 1)))


def test_schedules():
  """Of 10,000 queries: the first with each share; half as many queries: twice as early."""
  firsts = np.array([1, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 9999])
  pixels = [2, 2, 4, 5, 6, 8, 10, 12, 15, 20, 20]
  patch = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512]
  for schedule, divisors in (
    (_sparse_rs._PIXEL_SCHEDULE, pixels),
    (_sparse_rs._PATCH_SCHEDULE, patch),
  ):
    alphas = _sparse_rs._alphas(schedule, 0.3, 10_000)
    np.testing.assert_allclose(alphas[firsts - 1], 0.3 / np.array(divisors))
    halved = _sparse_rs._alphas(schedule, 0.3, 5000)
    np.testing.assert_allclose(halved[firsts[2:-1] // 2], 0.3 / np.array(divisors[2:-1]))
  size, move, share = _sparse_rs._patch_schedule(10, 0.4, 10_000)
  assert (
    size[0] == 6 and size[49] == 4 and size[-1] == 1
  )  # 10 sqrt(.4), 10 sqrt(.2), 10 sqrt(.4/512)
  assert np.flatnonzero(move[:1010]).tolist() == [*range(4, 999, 5), 999, 1009]
  np.testing.assert_allclose(share[0], 0.75 * 0.9999, rtol=1e-5)
  np.testing.assert_allclose(share[-1], 0.75 * 0.0001, rtol=1e-5)


def test_an_exchange_moves_so_many_pixels_to_fresh_places():
  """Which pixels leave, which enter and their colours are uniform: 4000 draws, each frequency within
  5 standard deviations (some 60 of them: 4e-5 false alarms)."""
  x = jnp.full((6, 3), 0.5).at[0].set(jnp.array([1.0, 0.0, 1.0]))
  x, n = x.reshape(6, 1, 3), 4000
  pixels = jnp.array([4, 1, 2], jnp.int32)
  keys = jax.random.split(jax.random.key(0), n)
  draw = jax.jit(
    lambda amount: jax.vmap(
      lambda key: _sparse_rs._exchange(2, key, x, (pixels, jnp.full((3, 3), 7.0)), amount)
    )(keys)
  )
  near = lambda count, p: abs(count - n * p) <= 5 * np.sqrt(n * p * (1 - p))
  for amount in (1, 2):
    after, colours = (np.asarray(a) for a in draw(jnp.int32(amount)))
    fresh = (colours != 7).all(axis=2)
    assert (fresh.sum(axis=1) == amount).all()
    assert ((after == np.array([[4, 1, 2]])) | fresh).all() and after.min() >= 0 and after.max() < 6
    assert all(len(set(row)) == 3 for row in after.tolist())
    assert all(near(count, amount / 3) for count in fresh.sum(axis=0))
    old = [np.mean(after[fresh] == p) for p in (1, 2, 4)]
    new = [(after[fresh] == p).sum() for p in (0, 3, 5)]
    assert all(near(count, amount / (3 + amount)) for count in new) and min(old) > 0
    assert np.isin(colours[fresh], (0, 1)).all()
    entered = colours[fresh][after[fresh] == 0]
    same = (entered == [1, 0, 1]).all(axis=1)
    assert same.any() == (amount == 2)  # One pixel alone never takes the colour it has.


def test_another_corner_is_uniform():
  """7 corners, 7000 draws: each within 5 standard deviations (4e-6 false alarms)."""
  colours = jnp.tile(jnp.array([[1.0, 0.0, 1.0]]), (7000, 1))
  draw = jax.jit(_sparse_rs._corners)(jax.random.key(0), colours, True)
  counts = np.bincount(np.asarray(draw @ jnp.array([4.0, 2.0, 1.0])).astype(int), minlength=8)
  assert counts[5] == 0
  assert (np.abs(np.delete(counts, 5) - 1000) <= 5 * np.sqrt(7000 * 6 / 49)).all()


@pytest.mark.parametrize(
  'call, match',
  [
    (lambda: attacks.sparse_rs(pixels=-1, num_queries=1), '`pixels` must be at least 0'),
    (lambda: attacks.sparse_rs(pixels=1, num_queries=0), '`num_queries` must be at least 1'),
    (lambda: attacks.sparse_rs_patch(side=-1, num_queries=1), '`side` must be at least 0'),
    (lambda: attacks.sparse_rs_patch(side=1, num_queries=1, alpha_init=2), '`alpha_init` in'),
    (
      lambda: attacks.sparse_rs_patch(side=5, num_queries=1)(None, network, *batch()),
      '`side`=5 needs images',
    ),
  ],
)
def test_bad_arguments(call, match):
  with pytest.raises(ValueError, match=match):
    call()
