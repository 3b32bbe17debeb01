"""Uniform smoothing: reference radii, 50 digits, overlaps of cubes by brute force, the box."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, smoothing, testing

SHAPE = (32, 32, 3)
RHO = np.array([0.6, 0.8, 0.9, 0.99, 0.999])
VARIANTS = {
  'l1': lambda lam: smoothing.uniform(lam=lam),
  'linf': lambda lam: smoothing.uniform(lam=lam, norm='linf', shape=SHAPE),
  'box': lambda lam: smoothing.uniform(lam=lam, box=True),
}


@pytest.mark.parametrize(
  'norm, expected',
  [
    ('l1', [0.346410162, 1.03923048, 1.38564065, 1.69740979, 1.72858671]),
    ('linf', [0.000118806404, 0.000402176603, 0.000575978109, 0.000759205189, 0.000779277889]),
  ],
)
def test_reference_radii(norm, expected):
  radius = smoothing.uniform(sigma=1.0, norm=norm, shape=SHAPE).radius
  np.testing.assert_allclose(radius(RHO), expected, rtol=5e-9)


def test_reference_radii_of_p_a_and_p_b():
  radius = smoothing.uniform(lam=1.0).radius
  np.testing.assert_allclose(radius([0.9, 0.4], [0.1, 0.01]), [0.8, 0.39], rtol=1e-12)
  assert float(smoothing.uniform(sigma=0.5).radius(0.9999239939)) == pytest.approx(0.865893757)


@pytest.mark.parametrize('name', VARIANTS)
def test_radius_is_a_proof(name):
  testing.check_radius(VARIANTS[name](0.7).radius)


def probabilities():
  rng = np.random.default_rng(0)
  p_a = np.r_[
    0.5 + 10.0 ** -np.arange(1, 16), 1 - 10.0 ** -np.arange(1, 16), rng.uniform(0.5, 1, 60), 1.0
  ]
  return p_a, np.minimum(np.nextafter(rng.uniform(0, 0.5, len(p_a)), 2), np.nextafter(p_a, 0))


@pytest.mark.parametrize('norm', ['l1', 'linf'])
def test_radius_is_below_the_theorem_in_fifty_digits(norm):
  mpmath = pytest.importorskip('mpmath')
  lam, (p_a, p_b) = 0.7, probabilities()
  radius = smoothing.uniform(lam=lam, norm=norm, shape=SHAPE).radius
  with mpmath.workdps(50):
    for a, b, one, two in zip(p_a, p_b, radius(p_a), radius(p_a, p_b), strict=True):
      for ours, rival in ((one, 1 - mpmath.mpf(a)), (two, mpmath.mpf(b))):
        gap = mpmath.mpf(a) - rival
        truth = mpmath.mpf(lam) * gap
        if norm == 'linf':
          truth = 2 * mpmath.mpf(lam) * (1 - (1 - gap / 2) ** (mpmath.mpf(1) / 3072))
        assert truth * (1 - mpmath.mpf('3e-14')) < ours < truth


def moved(delta, lam):
  """Exact probability that a sample around x is no sample around x + delta."""
  return 1 - np.prod(np.maximum(1 - np.abs(delta) / (2 * lam), 0), axis=-1)


@pytest.mark.parametrize('dimension', [1, 2, 3])
@pytest.mark.parametrize('norm', ['l1', 'linf'])
def test_no_shift_within_the_radius_takes_the_gap(norm, dimension):
  """The worst region gains moved(delta) for the rival and takes it from the label."""
  lam, gap = 0.6, np.array([0.001, 0.1, 0.5, 0.9, 0.999])
  noise = smoothing.uniform(lam=lam, norm=norm, shape=(1, 1, dimension))
  grid = np.array(list(itertools.product(np.linspace(-1, 1, 21), repeat=dimension)))
  length = np.abs(grid).sum(1) if norm == 'l1' else np.abs(grid).max(1)
  unit = grid[length > 0] / length[length > 0, None]
  for g, radius in zip(gap, noise.radius((1 + gap) / 2), strict=True):
    assert (2 * moved(unit * radius, lam) < g).all()
    assert (2 * moved(unit * radius * 1.001, lam)).max() > g, 'the bound is attained'


BOX = [
  (2 * np.sqrt(3), 0.9, 0.25, 3.920868), (2 * np.sqrt(3), 0.9, 1.0, 3.845790),
  (2 * np.sqrt(3), 0.9, 0.5, 3.990952), (np.sqrt(3) / 2, 0.5, 0.25, 0.433013),
  (np.sqrt(3) / 2, 0.5, 0.0, 0.433013), (3.5 * np.sqrt(3), 0.9, 0.75, 7.03),
]  # fmt: skip


@pytest.mark.parametrize('lam, gap, pixel, expected', BOX)
def test_reference_box_radii(lam, gap, pixel, expected):
  noise = smoothing.uniform(lam=lam, box=True)
  x = np.full(SHAPE, pixel, np.float32)
  digits = 10.0 ** -len(str(expected).split('.')[1])
  assert float(noise.radius((1 + gap) / 2, x=x)) == pytest.approx(expected, abs=0.51 * digits)
  assert float(noise.radius((1 + gap) / 2)) == pytest.approx(lam * gap)


@pytest.mark.parametrize('dimension, lam', [(1, 0.3), (2, 0.3), (2, 1.0), (3, 0.8), (3, 3.0)])
def test_box_radius_against_every_image_of_a_grid(dimension, lam):
  """Brute force over x' in [0, 1]^d: none within the radius takes the gap, one beyond it does."""
  grid = np.linspace(0, 1, {1: 2001, 2: 201, 3: 61}[dimension])
  images = np.array(list(itertools.product(grid, repeat=dimension)))
  rng = np.random.default_rng(dimension)
  attained = 0
  for gap in (0.05, 0.3, 0.6, 0.9, 1.0):
    x = rng.choice(grid, dimension)
    noise = smoothing.uniform(lam=lam, box=True)
    radius = float(noise.radius((1 + gap) / 2, x=x.reshape(1, 1, -1)))
    distance, taken = np.abs(images - x).sum(1), 2 * moved(images - x, lam)
    assert (taken[distance <= radius] < gap).all()
    assert radius >= float(noise.radius((1 + gap) / 2))
    if distance.max() > radius + 0.1:  # Else the whole cube is certified.
      assert (taken[distance <= radius + 0.1] >= gap).any()
      attained += 1
    else:
      assert radius >= distance.max() - 0.1
  assert attained >= 2


def test_box_certificates_of_a_batch():
  noise = smoothing.uniform(lam=3.0, box=True)
  rng = np.random.default_rng(0)
  x = rng.uniform(0, 1, (5, 4, 4, 1)).astype(np.float32)
  counts = np.array([[900, 100], [1000, 0], [510, 490], [990, 10], [100, 900]])
  proof = certify.from_votes(noise, [0] * 5, counts, num_samples=1000, x=jnp.asarray(x))
  plain = certify.from_votes(noise, [0] * 5, counts, num_samples=1000)
  testing.check_certificate(proof, 2)
  np.testing.assert_array_equal(proof.label, plain.label)
  assert (proof.radius >= plain.radius).all() and (proof.radius > plain.radius + 0.1)[
    [0, 1, 3]
  ].all()
  alone = [noise.radius(p, x=image) for p, image in zip([0.7, 0.8, 0.9, 0.99, 1], x, strict=True)]
  np.testing.assert_array_equal(noise.radius([0.7, 0.8, 0.9, 0.99, 1], x=x), alone)


def test_box_radius_grows_with_p_a_and_ignores_what_proves_nothing():
  noise = smoothing.uniform(lam=1.3, box=True)
  p = np.linspace(0.4, 1, 2001)
  radius = noise.radius(p, x=np.tile(np.float32([[0.1, 0.9, 0.5, 0.3]]), (2001, 1)))
  assert (np.diff(radius) >= 0).all() and (radius[p <= 0.5] == 0).all()
  assert float(noise.radius(np.nan, x=np.zeros(4))) == 0
  assert float(noise.radius(0.3, 0.3, x=np.zeros(4))) == 0
  with pytest.raises(ValueError, match=r'got x of shape \(3, 4\) for probabilities of shape \(2,'):
    noise.radius([0.9, 0.9], x=np.zeros((3, 4)))


def test_box_radius_is_below_the_theorem_in_fifty_digits():
  """The greedy adversary at the radius must keep the product above 1 - gap / 2."""
  mpmath = pytest.importorskip('mpmath')
  rng = np.random.default_rng(1)
  with mpmath.workdps(50):
    for p_a in [0.5 + 1e-12, 0.51, 0.9, 1 - 1e-9, *rng.uniform(0.5, 1, 20)]:
      lam, x = 5.0, rng.uniform(0, 1, 300).astype(np.float32)
      rest = mpmath.mpf(float(smoothing.uniform(lam=lam, box=True).radius(p_a, x=x)))
      product = mpmath.mpf(1)
      for pixel in sorted(x, key=lambda v: -abs(float(v) - 0.5)):
        reach = max(mpmath.mpf(float(pixel)), 1 - mpmath.mpf(float(pixel)))
        step = min(reach, rest)
        product, rest = product * (1 - step / (2 * lam)), rest - step
      gap = 2 * mpmath.mpf(p_a) - 1
      assert 0 < product - (1 - gap / 2) < gap * mpmath.mpf('1e-11')


def test_moments_and_support():
  """10^6 draws: a mean or variance off by 5 standard errors has probability below 1e-6."""
  noise = smoothing.uniform(sigma=0.25)
  keys = jax.random.split(jax.random.key(0), 1000)
  draws = jax.vmap(noise.sample, (0, None))(keys, jnp.full((1000,), 0.5))
  z = (np.asarray(draws, np.float64) - 0.5) / (0.25 * np.sqrt(3))
  assert abs(z.mean()) < 5e-3 / np.sqrt(3)
  assert abs(z.var() - 1 / 3) < 5e-3 * np.sqrt(1 / 5 - 1 / 9)
  assert 0.9999 < np.abs(z).max() < 1 + 1e-6
  assert abs(np.corrcoef(z[:, 0], z[:, 1])[0, 1]) < 5 / np.sqrt(1000)


@pytest.mark.parametrize(
  'options, said',
  [
    ({}, 'exactly one of `lam` and `sigma`'),
    (dict(lam=1.0, sigma=1.0), 'exactly one of `lam` and `sigma`'),
    (dict(lam=0.0), '`lam` .* must be positive and finite, got lam=0'),
    (dict(sigma=np.nan), '`sigma` .* must be positive and finite'),
    (dict(lam=1.0, norm='l2'), r"one of \['l1', 'linf'\], got 'l2'"),
    (dict(lam=1.0, norm='linf'), 'needs `shape`'),
    (dict(lam=1.0, norm='linf', shape=SHAPE, box=True), 'no `box` form'),
    (dict(lam=1.0, shape=(32, 0, 3)), r'must be the shape of an image'),
  ],
)
def test_bad_arguments(options, said):
  with pytest.raises(ValueError, match=said):
    smoothing.uniform(**options)
