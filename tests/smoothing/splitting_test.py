"""Splitting noise: reference values of the map, its Lipschitz property under every joint law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import parallel, smoothing, testing
from certjax.smoothing import _splitting

JOINTS = ('independent', 'shared', 'template')
SHAPE = (4, 3, 2)
X = np.random.default_rng(0).uniform(0, 1, SHAPE).astype(np.float32)
DRAW = jax.jit(jax.vmap(lambda sample, key, x: sample(key, x), (None, 0, None)))


def split(x, s, lam):
  """The map of the paper in numpy: two formulas, lam >= 1/2 and lam < 1/2."""
  if lam >= 0.5:
    return (np.minimum(s, 1) + (x > s)) / 2
  c = np.ceil((x - s) / (2 * lam)) * 2 * lam + s
  return (np.minimum(c, 1) + np.maximum(c - 2 * lam, 0)) / 2


@pytest.mark.parametrize(
  'lam, x, s, expected',
  [
    (0.75, 0.3, 0.2, 0.6), (0.75, 0.3, 0.4, 0.2), (0.75, 0.3, 0.9, 0.45), (0.75, 0.3, 1.4, 0.5),
    (0.1, 0.3, 0.02, 0.32), (0.1, 0.3, 0.1, 0.2), (0.1, 0.5, 0.02, 0.52), (0.1, 0.95, 0.05, 0.925),
    (0.1, 0.03, 0.15, 0.075),
  ],
)  # fmt: skip
def test_reference_values(lam, x, s, expected):
  with parallel.x64():  # x = 0.3, s = 0.1 lies on an edge: in float32 it is another case.
    ours = _splitting.split(jnp.float64([x]), jnp.float64([s]), np.float64(2 * lam))
    assert float(ours[0]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('lam', [0.07, 0.25, 0.4, 0.5, 0.8, 1.0, 3.0])
def test_equals_both_formulas_of_the_paper(lam):
  rng = np.random.default_rng(1)
  x, s = rng.uniform(0, 1, 2000), rng.uniform(0, 2 * lam, 2000)
  ours = _splitting.split(jnp.float32(x), jnp.float32(s), np.float32(2 * lam))
  np.testing.assert_allclose(ours, split(x, s, lam), atol=1e-5)
  edges = np.float32([0.0, 1.0])
  ours = _splitting.split(edges, jnp.float32([0.9, 0.9]) * np.float32(2 * lam), np.float32(2 * lam))
  np.testing.assert_allclose(ours, split(edges.astype(float), 1.8 * lam, lam), atol=1e-6)


@pytest.mark.parametrize('joint, lam', [('independent', 0.2), ('shared', 0.9), ('template', 0.2)])
def test_protocol(joint, lam):
  noise = smoothing.splitting(lam=lam, joint=joint, shape=SHAPE)
  testing.check_smoothing(noise, X)
  np.testing.assert_allclose(noise.radius([0.9, 0.4], [0.1, 0.01]), [0.8 * lam, 0.39 * lam])
  np.testing.assert_allclose(noise.radius(0.75), 0.5 * lam)


@pytest.mark.parametrize('joint', JOINTS)
@pytest.mark.parametrize('lam', [0.2, 0.9])
def test_every_coordinate_splits_uniformly(joint, lam):
  """10,000 draws: each coordinate's 24 bins, 5 standard errors; below 1e-3 in all by chance."""
  x = np.float32(0.37)
  noise = smoothing.splitting(lam=lam, joint=joint, shape=SHAPE)
  keys = jax.random.split(jax.random.key(3), 10_000)
  draws = np.asarray(DRAW(noise.sample, keys, jnp.full(SHAPE, x))).reshape(10_000, -1)
  grid = (np.arange(100_000) + 0.5) / 100_000 * 2 * lam
  levels = np.linspace(0, 1, 25)[:-1]
  truth = np.searchsorted(np.sort(split(float(x), grid, lam)), levels + 1e-6) / 100_000
  ours = np.mean(draws[:, :, None] < levels + 1e-6, axis=0)
  assert (np.abs(ours - truth) <= 5 * np.sqrt(truth * (1 - truth) / 10_000) + 2e-4).all()
  alike = np.mean(draws[:, 0] == draws[:, 1])
  assert (alike == 1) == (joint == 'shared')


@pytest.mark.parametrize('joint', JOINTS)
@pytest.mark.parametrize('lam', [0.2, 0.9])
def test_images_at_a_distance_look_different_as_rarely_as_promised(joint, lam):
  """P(x~ != x'~) <= ||delta||_1 / (2 lam): 5,000 draws of each of 18 pairs, 4 standard errors.

  The same keys draw both, so `view(x) != view(x')` is the event of the proof. False-alarm rate
  below 1e-3 in all.
  """
  noise = smoothing.splitting(lam=lam, joint=joint, shape=SHAPE)
  keys = jax.random.split(jax.random.key(4), 5000)
  rng = np.random.default_rng(5)
  for size in (0.01, 0.002, 0.0005):
    delta = rng.uniform(-size, size, SHAPE) * (rng.uniform(size=SHAPE) < 0.7)
    other = np.clip(X + delta, 0, 1).astype(np.float32)
    bound = np.abs(other - X).sum() / (2 * lam)
    differ = np.mean(
      np.any(DRAW(noise.sample, keys, X) != DRAW(noise.sample, keys, other), axis=(1, 2, 3))
    )
    assert differ <= bound + 4 * np.sqrt(bound * (1 - bound) / 5000)
    assert differ > 0


def shared_votes(view, x, num=2**13, lam=0.75):
  """Labels over an even grid of one shared offset: 1 where the first pixel is the larger."""
  offset = (np.arange(num) + 0.5) / num * 2 * lam
  seen = view(np.asarray(x, np.float64)[None], offset[:, None])
  return seen[:, 0] > seen[:, 1]


def test_shared_splitting_is_lipschitz_and_shared_addition_is_not():
  """One number for all pixels: a splitting certifies; added, it hides nothing.

  The classifier compares two pixels. Shared addition never changes which is larger, so its
  smoothed probability jumps from 0 to 1 within any distance; after shared splitting it moves by
  no more than distance / (2 lam).
  """
  lam, grid = 0.75, 2.0**-13
  x, close = (0.5, 0.501), (0.502, 0.501)
  add = lambda x, s: x + s - lam
  both = lambda x, s: split(x, s, lam)
  distance = np.abs(np.subtract(x, close)).sum()
  assert np.mean(shared_votes(add, x)) == 0 and np.mean(shared_votes(add, close)) == 1
  assert abs(np.mean(shared_votes(both, close)) - np.mean(shared_votes(both, x))) <= (
    distance / (2 * lam) + grid
  )
  rng = np.random.default_rng(0)
  for _ in range(200):  # Any classifier of what is seen: count the offsets that show a difference.
    x = rng.uniform(0, 1, 3)
    other = np.clip(x + rng.normal(size=3) * rng.choice([0.003, 0.03, 0.3]), 0, 1)
    distance = np.abs(other - x).sum()
    for width in (0.15, 0.9):
      offset = ((np.arange(2**11) + 0.5) / 2**11 * 2 * width)[:, None]
      differ = np.mean(np.any(split(x, offset, width) != split(other, offset, width), axis=1))
      assert differ <= distance / (2 * width) + 6 * 2.0**-11


def test_sampler_of_the_shared_law_is_that_map():
  noise = smoothing.splitting(lam=0.75, joint='shared')
  key = jax.random.key(9)
  s = np.float64(jax.random.uniform(key, (), jnp.float32)) * 1.5
  np.testing.assert_allclose(noise.sample(key, X), split(X.astype(float), s, 0.75), atol=1e-6)


def test_box_needs_independence_and_pays():
  noise = smoothing.splitting(lam=3.0, box=True)
  plain, boxed = float(noise.radius(0.95)), float(noise.radius(0.95, x=X))
  assert plain == pytest.approx(2.7) and boxed > plain + 0.2
  uniform = smoothing.uniform(lam=3.0, box=True)
  assert float(uniform.radius(0.95, x=X)) == boxed
  for joint in ('shared', 'template'):
    with pytest.raises(ValueError, match="needs joint='independent'"):
      smoothing.splitting(lam=3.0, joint=joint, shape=SHAPE, box=True)


@pytest.mark.parametrize('joint', JOINTS)
def test_one_trace_serves_all_widths(joint):
  traces = []

  @jax.jit
  def draw(sample, key, x):
    traces.append(1)
    return sample(key, x)

  for lam in (0.1, 0.5, 2.0):
    draw(smoothing.splitting(lam=lam, joint=joint, shape=SHAPE).sample, jax.random.key(0), X)
  assert len(traces) == 1


@pytest.mark.parametrize(
  'options, said',
  [
    ({}, 'exactly one of `lam` and `sigma`'),
    (dict(lam=1.0, joint='copula'), r"one of \['independent', 'shared', 'template'\]"),
    (dict(lam=1.0, joint='template'), 'needs `shape`'),
    (dict(sigma=-1.0), '`sigma` .* must be positive'),
  ],
)
def test_bad_arguments(options, said):
  with pytest.raises(ValueError, match=said):
    smoothing.splitting(**options)
