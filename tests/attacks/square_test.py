"""Square: the published schedule and pattern, all corners, linear optima, single exchanges, protocol."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats
from certjax.attacks import _square

pytestmark = pytest.mark.usefixtures('many_programs')

SHAPE = (3, 3, 1)
W1 = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
W2 = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)


def network(x):
  """Label 0 in the whole ball that the tests search: they look for the largest margin."""
  logits = jnp.sin((x.reshape(len(x), -1) - 0.5) @ W1) @ W2
  return logits + jnp.array([[20, 0, 0]], jnp.float32)


def batch(size=4, shape=SHAPE):
  x = np.random.default_rng(2).uniform(0.35, 0.65, (size, *shape)).astype(np.float32)
  return jnp.asarray(x), jnp.zeros(size, jnp.int32)


def margins(model_fn, x, y):
  return np.asarray(jax.vmap(attacks.margin)(model_fn(jnp.asarray(x)), y))


@pytest.mark.parametrize('name', ['linf', 'l2'])
def test_protocol(name):
  make = lambda threat: attacks.square(threat, num_queries=6)
  testing.check_attack(make, getattr(threats, name), network, *batch(), score=attacks.margin)


def test_published_schedule():
  number = np.array([0, 11, 51, 201, 501, 1001, 2001, 4001])
  share = _square.shares(number, 0.8)
  np.testing.assert_allclose(share, 0.8 / 2.0 ** np.arange(8))
  assert _square.sides(share, (32, 32)).tolist() == [29, 20, 14, 10, 7, 5, 4, 3]
  assert _square.sides(share, (224, 224)).tolist() == [200, 142, 100, 71, 50, 35, 25, 18]
  assert _square.odd_sides(share, (32, 32)).tolist() == [29, 21, 15, 11, 7, 5, 5, 3]
  assert _square.odd_sides(np.array([0.9, 0.01]), (4, 9)).tolist() == [3, 3]


def loop_pyramid(height, width):
  total = np.zeros((height, width))
  for n in range(max(height // 2, width // 2) + 1):
    top, left = height // 2 - n, width // 2 - n
    total[max(top, 0) : height // 2 + n + 1, max(left, 0) : width // 2 + n + 1] += 1 / (n + 1) ** 2
  return total / np.linalg.norm(total)


@pytest.mark.parametrize('side', [3, 5, 6])
def test_bumps(side):
  half = side // 2
  both = np.concatenate([loop_pyramid(half, side), -loop_pyramid(side - half, side)])
  np.testing.assert_allclose(_square.two_bumps(side), both / np.sqrt(2), atol=1e-12)


def test_finds_the_best_corner():
  """Every point of the L_inf search is a corner of x +- eps: of 512, no better one exists, and of 16
  searches of each image the best finds it (each finds it in at least half of the cases)."""
  x, y = batch(2)
  signs = np.array(list(itertools.product((-1, 1), repeat=9)), np.float32).reshape(-1, *SHAPE)
  attack = attacks.square(threats.linf(0.3), num_queries=300, rescale=True)
  keys = jax.random.split(jax.random.key(0), 32)
  x, y = jnp.repeat(x, 16, axis=0), jnp.repeat(y, 16)
  x_adv = jax.jit(lambda keys, x, y: attack(keys, network, x, y))(keys, x, y)
  assert np.allclose(np.abs(x_adv - x), 0.3, atol=1e-6)
  for rows in (slice(16), slice(16, 32)):
    corners = np.asarray(x[rows][0]) + 0.3 * signs
    best = margins(network, corners, np.zeros(512, np.int32)).max()
    found = margins(network, x_adv[rows], y[rows])
    assert (found <= best + 1e-4).all() and (found >= best - 1e-4).mean() >= 0.5


def test_linear_optimum():
  """300 queries of one pixel: one of 9 keeps the wrong sign with probability 9 (17 / 18)^295 < 1e-6."""
  x, y = batch()
  w = W1[:, 0]
  model_fn = lambda x: jnp.stack([50 + x.reshape(len(x), -1) @ w, jnp.zeros(len(x))], axis=1)
  attack = attacks.square(threats.linf(0.3), num_queries=300, rescale=True)
  x_adv = jax.jit(lambda x: attack(jax.random.key(0), model_fn, x, y))(x)
  gain = margins(model_fn, x_adv, y) - margins(model_fn, x, y)
  np.testing.assert_allclose(gain, 0.3 * np.abs(w).sum(), rtol=1e-4)


def test_one_exchange_in_l2():
  """The length stays eps; outside the two windows the perturbation is only rescaled, and one of them
  is emptied where they do not overlap."""
  shape = (9, 8, 2)
  x, side = jnp.full(shape, 0.5), 3
  _, propose, _, _ = _square._l2(0.2, shape, np.array([0.1]))
  delta = _square._tiles(_square._L2, 0.2, shape, jax.random.key(0), jnp.float32)
  exchange = jax.jit(jax.vmap(lambda key: propose(key, x, delta, jnp.int32(0), jnp.int32(side))))
  keys = jax.random.split(jax.random.key(1), 30)
  for key, new in zip(keys, np.asarray(exchange(keys)), strict=True):
    np.testing.assert_allclose(np.linalg.norm(new), 0.2, rtol=1e-5)
    to, away = (
      np.asarray(_square._inside(_square._place(part, side, shape), side, shape))
      for part in jax.random.split(key, 4)[:2]
    )
    outside = np.broadcast_to(~to & ~away, shape) & (np.abs(delta) > 1e-3)
    ratio = new[outside] / np.asarray(delta)[outside]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
    assert (new[np.broadcast_to(away & ~to, shape)] == 0).all()
    assert (new[np.broadcast_to(to, shape)] != 0).any()


def test_one_exchange_in_l1():
  """Each channel's window gets three times what both windows held and what the ball left free; beyond
  the windows nothing changes; the projection then brings all to eps, on fewer values."""
  shape, eps = (9, 8, 2), 0.2
  x = jnp.full(shape, 0.5)
  begin, propose, paint, _ = _square._l1(eps, shape, np.array([0.1]))
  old = np.asarray(0.75 * (paint(x, begin(jax.random.key(0), jnp.float32)) - x))
  exchange = lambda key: propose(key, x, jnp.asarray(old), jnp.int32(0), jnp.int32(3))
  both = jax.jit(jax.vmap(lambda key: (exchange(key), paint(x, exchange(key)))))
  keys = jax.random.split(jax.random.key(1), 30)
  for key, new, point in zip(keys, *map(np.asarray, both(keys)), strict=True):
    to, away = (
      np.asarray(_square._inside(_square._place(part, 3, shape), 3, shape))
      for part in jax.random.split(key, 4)[:2]
    )
    free = (eps - np.abs(old).sum()) / 2
    held = np.abs(np.where(to | away, old, 0)).sum(axis=(0, 1))
    given = np.abs(np.where(to, new, 0)).sum(axis=(0, 1))
    np.testing.assert_allclose(given, 3 * (free + held), rtol=1e-4)
    beyond = np.broadcast_to(~to & ~away, shape)
    np.testing.assert_allclose(new[beyond], old[beyond], atol=1e-7)
    assert (new[np.broadcast_to(away & ~to, shape)] == 0).all()
    np.testing.assert_allclose(np.abs(point - 0.5).sum(), eps, rtol=1e-4)
    fewer = 0 < (np.abs(point - 0.5) > 1e-6).sum() < (np.abs(new) > 1e-6).sum()
    assert fewer or np.array_equal(to, away)


def test_l1_search_reaches_few_values():
  """A search by squares gets at least half of the best gain of L1, eps max |w|, from few values; it
  stays in the ball and in [0, 1], and at eps = 0 on the image."""
  x, y = batch(4, (6, 6, 1))
  w = np.random.default_rng(3).normal(size=36).astype(np.float32)
  model_fn = lambda x: jnp.stack([50 + x.reshape(len(x), -1) @ w, jnp.zeros(len(x))], axis=1)
  attack = lambda eps, x, y: attacks.square(threats.l1(eps), num_queries=400)(
    jax.random.key(0), model_fn, x, y
  )
  attack = jax.jit(attack)
  x_adv = attack(0.2, x, y)
  assert (np.abs(x_adv - x).sum(axis=(1, 2, 3)) <= 0.2 * (1 + 1e-5)).all()
  gain, best = margins(model_fn, x_adv, y) - margins(model_fn, x, y), 0.2 * np.abs(w).max()
  assert (gain <= best * (1 + 1e-4)).all() and (gain >= best / 2).all()
  assert ((np.abs(x_adv - x) > 1e-6).sum(axis=(1, 2, 3)) <= 12).all()
  assert np.array_equal(attack(0.0, x, y), x)
  near = attack(0.5, jnp.clip(2 * x - 0.5, 0, 1), y)
  assert near.min() >= 0 and near.max() <= 1


def test_first_pattern_in_l2():
  """25 tiles of an image of 32 x 32: their length is eps, and their colours are drawn apart."""
  draw = jax.jit(
    jax.vmap(lambda key: _square._tiles(_square._L2, 2.0, (32, 32, 3), key, jnp.float32))
  )
  boards = np.asarray(draw(jax.random.split(jax.random.key(0), 20)))
  np.testing.assert_allclose(np.linalg.norm(boards.reshape(20, -1), axis=1), 2, rtol=1e-5)
  assert (boards[:, [0, 31]] == 0).all() and (boards[:, :, [0, 31]] == 0).all()
  scale = np.linalg.norm(boards[0, 1:7, 1:7, 0])
  tiles = boards[0, 1:31, 1:31].reshape(5, 6, 5, 6, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 6, 6)
  pattern = _square.two_bumps(6) * scale
  kinds = [
    np.argmin([np.abs(t - k).max() for k in (pattern, -pattern, pattern.T, -pattern.T)])
    for t in tiles
  ]
  assert all(
    np.abs(tile - (pattern, -pattern, pattern.T, -pattern.T)[kind]).max() < 1e-5
    for tile, kind in zip(tiles, kinds, strict=True)
  )
  assert len(np.unique(kinds)) == 4  # 25 directions, 75 signs: fails with probability below 1e-6.


def test_l2_search_climbs_and_stays_in_the_ball():
  """Towards a smooth direction; more queries never hurt, as their draws are the same."""
  shape, steps = (8, 8, 1), np.linspace(-1, 1, 8, dtype=np.float32)
  w = np.outer(steps, 1 - steps**2).reshape(-1).astype(np.float32)
  model_fn = lambda x: jnp.stack([50 + x.reshape(len(x), -1) @ w, jnp.zeros(len(x))], axis=1)
  x, y = batch(4, shape)
  gains = []
  for num_queries in (1, 30, 300):
    attack = attacks.square(threats.l2(0.5), num_queries=num_queries)
    x_adv = jax.jit(lambda x, attack=attack: attack(jax.random.key(0), model_fn, x, y))(x)
    assert (np.linalg.norm((x_adv - x).reshape(4, -1), axis=1) <= 0.5 * (1 + 1e-5)).all()
    gains.append(margins(model_fn, x_adv, y) - margins(model_fn, x, y))
  assert (gains[0] >= -1e-5).all() and (gains[1] >= gains[0]).all() and (gains[2] >= gains[1]).all()
  optimum = 0.5 * np.linalg.norm(w)
  assert (gains[2] <= optimum * (1 + 1e-4)).all() and (gains[2] >= 0.6 * optimum).all()


def test_windows_take_every_place():
  """2,000 draws of 7 x 6 places; a place missing has probability 42 (41/42)^2000 < 1e-19."""
  draw = jax.jit(jax.vmap(lambda key: _square._place(key, jnp.int32(3), (9, 8, 1))))
  places = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))
  assert len(np.unique(places, axis=0)) == 42 and places.max(axis=0).tolist() == [6, 5]


@pytest.mark.parametrize(
  'threat, options, message',
  [
    (threats.l0(1), {}, "`threat` must be one of linf, l2, l1, got 'l0'"),
    (threats.l2(0.1), {'num_queries': 0}, '`num_queries` must be at least 1'),
    (threats.l2(0.1), {'p_init': 0}, r'`p_init` in \(0, 1\], got'),
  ],
)
def test_bad_arguments(threat, options, message):
  with pytest.raises(ValueError, match=message):
    attacks.square(threat, **options)


def test_bad_shapes():
  attack = attacks.square(threats.l2(0.1))
  for shape in ((1, 9), (1, 2, 9, 1)):
    with pytest.raises(ValueError, match=r'`x` must be images \[B, H, W, C\], in L2 and L1 of'):
      attack(jax.random.key(0), network, jnp.zeros(shape), jnp.zeros(1, jnp.int32))
