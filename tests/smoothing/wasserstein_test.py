"""Wasserstein smoothing: Beckmann against transport plans, printed radii, exact worst cases, the noise's law."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from certjax import certify, smoothing, testing
from certjax.smoothing import _wasserstein

SHAPE = (6, 5, 3)
VARIANTS = list(itertools.product(('l1', 'l2'), ('tight', 'levine'), ('flow', 'pixels')))
NAMES = ('ground', 'bound', 'noise')


def law(*variant, sigma=0.01, shape=(28, 28, 1)):
  return smoothing.wasserstein(sigma=sigma, shape=shape, **dict(zip(NAMES, variant, strict=False)))


@pytest.mark.parametrize(
  'variant, radii',
  [
    (('l1', 'levine'), (0.02868379, 0.01014166, 0.00757349, 0.00131418)),
    (('l2', 'levine'), (0.02028250, 0.00717123, 0.00535527, 0.00092926)),
    (('l2', 'levine', 'pixels'), (0.01434190, 0.00507083, 0.00378675, None)),
    (('l1', 'levine', 'pixels'), (0.01434190, 0.00507083, 0.00378675, None)),
    (('l1', 'tight'), (0.05246841, 0.01577256, 0.01103066, None)),
    (('l2', 'tight'), (0.05246841 / math.sqrt(2), None, None, None)),
  ],
)
def test_printed_radii(variant, radii):
  """Of 10,000, 9500, 9000 and 6000 among 10,000 votes at alpha = .05."""
  p_a = certify.clopper_pearson([10_000, 9500, 9000, 6000], 10_000, alpha=0.05)
  for p, expected in zip(p_a, radii, strict=True):
    if expected is not None:
      assert abs(float(law(*variant).radius(p)) - expected) < 6e-9
      assert abs(float(law(*variant, sigma=0.005).radius(p)) - expected / 2) < 6e-9


@pytest.mark.parametrize('variant', VARIANTS)
def test_radius_is_a_proof(variant):
  noise = law(*variant)
  testing.check_radius(noise.radius)
  assert (noise.norm, noise.unit) == (f'wasserstein-{variant[0]}', 'mass')


@pytest.mark.parametrize('variant', VARIANTS)
def test_radii_are_below_the_theorem_in_fifty_digits(variant):
  mpmath = pytest.importorskip('mpmath')
  ground, bound, noise = variant
  p_a = np.r_[0.5 + 10.0 ** -np.arange(1, 15), 1 - 10.0 ** -np.arange(1, 15), 0.75]
  with mpmath.workdps(50):
    scale = mpmath.mpf(0.01) / mpmath.sqrt(2)
    share = mpmath.mpf(1) / 2 if noise == 'pixels' else 1 / mpmath.sqrt(1 if ground == 'l1' else 2)
    for p, radius in zip(map(mpmath.mpf, map(float, p_a)), law(*variant).radius(p_a), strict=True):
      tight, levine = -scale * mpmath.log(2 * (1 - p)), scale / 2 * mpmath.log(p / (1 - p))
      truth = share * (tight if bound == 'tight' else levine)
      assert truth * (1 - mpmath.mpf('3e-12')) < radius < truth


def test_the_tight_bound_is_never_smaller():
  p_a = np.linspace(0.02, 0.98, 30)[:, None]
  p_b = np.linspace(0.01, 1, 31)[None] * (1 - p_a)
  for ground, noise in (('l1', 'flow'), ('l2', 'pixels')):
    tight, levine = (law(ground, bound, noise).radius for bound in ('tight', 'levine'))
    assert (tight(p_a, p_b) >= levine(p_a, p_b)).all()
    assert (tight(p_a) >= levine(p_a)).all() and tight(0.9) > 1.4 * levine(0.9)


def incidence(shape):
  """float64[H W, edges]: what a unit of flow along each edge adds to the pixels."""
  height, width, _ = shape
  sizes = (height - 1, width, 1), (height, width - 1, 1)
  cut = math.prod(sizes[0])
  basis = np.eye(cut + math.prod(sizes[1]), dtype=np.float32)
  parts = zip((basis[:, :cut], basis[:, cut:]), sizes, strict=True)
  flows = [part.reshape(len(basis), *size) for part, size in parts]
  moved = jax.vmap(_wasserstein.divergence)(*flows)
  return np.asarray(moved, np.float64).reshape(len(basis), -1).T


def transport(x, other, order):
  """The cheapest plan's cost from x to other, float64[H, W] of mass 1."""
  places = np.stack(np.meshgrid(*map(np.arange, x.shape), indexing='ij'), -1).reshape(-1, 2)
  cost = np.linalg.norm(places[:, None] - places[None], ord=order, axis=-1)
  size = x.size
  rows, columns = np.kron(np.eye(size), np.ones(size)), np.kron(np.ones(size), np.eye(size))
  solved = optimize.linprog(
    cost.ravel(), A_eq=np.r_[rows, columns], b_eq=np.r_[x.ravel(), other.ravel()]
  )
  return solved.fun


def flow_cost(x, other):
  """The least total flow along the edges from x to other (Beckmann)."""
  edges = incidence((*x.shape, 1))
  both = np.c_[edges, -edges]
  return optimize.linprog(np.ones(both.shape[1]), A_eq=both, b_eq=(other - x).ravel()).fun


def test_the_least_flow_is_the_wasserstein_distance():
  """The reference's pair, then random ones; W_l1 <= sqrt(2) W_l2, and |x - x'|_1 <= 2 W of either."""
  rng = np.random.default_rng(1)
  pair = [image / image.sum() for image in (rng.random((3, 3)), rng.random((3, 3)))]
  assert flow_cost(*pair) == pytest.approx(0.4704266621, abs=1e-9)
  assert transport(*pair, 1) == pytest.approx(0.4704266621, abs=1e-9)
  assert transport(*pair, 2) == pytest.approx(0.4195463528, abs=1e-9)
  assert np.abs(pair[0] - pair[1]).sum() == pytest.approx(0.5608843860, abs=1e-9)
  for shape in ((2, 4), (1, 5), (3, 2)):
    x, other = (image / image.sum() for image in rng.exponential(size=(2, *shape)) ** 3)
    moved, plan, straight = flow_cost(x, other), transport(x, other, 1), transport(x, other, 2)
    assert moved == pytest.approx(plan, abs=1e-9)
    assert plan <= math.sqrt(2) * straight + 1e-9
    assert np.abs(x - other).sum() <= 2 * straight + 1e-9


def test_a_diagonal_step_attains_the_ratio_of_the_grounds():
  x, other = np.array([[0.5, 0.5], [0, 0]]), np.array([[0, 0.5], [0, 0.5]])
  assert transport(x, other, 1) == pytest.approx(math.sqrt(2) * transport(x, other, 2))
  one, two = law('l1').radius(0.9), law('l2').radius(0.9)
  assert one == pytest.approx(math.sqrt(2) * two)


def lower_set(thresholds, scale):
  """Probability that each coordinate of Laplace noise lies below its threshold."""
  return np.prod(stats.laplace.cdf(np.asarray(thresholds), scale=scale), axis=-1)


def test_no_shift_of_the_flow_beats_the_radius():
  """Classifiers of a row of pixels by its partial sums, which are the flows: exact probabilities.

  x' with partial sums moved by delta has W = |delta|_1. In one coordinate the tight radius is exact.
  """
  rng = np.random.default_rng(0)
  scale = 0.01 / math.sqrt(2)
  for size in (1, 2, 3):
    noise = law('l1', shape=(1, size + 1, 1))
    for _ in range(60):
      thresholds = rng.exponential(0.02, size) + 0.01 * (size - 1)
      p_a = lower_set(thresholds, scale)
      radius = float(noise.radius(p_a))
      split = rng.dirichlet(np.full(size, 0.5), 40)
      after = lower_set(thresholds - radius * split, scale)
      assert after.min() >= 0.5 - 1e-9
      if size == 1:
        assert lower_set(thresholds - radius * (1 + 1e-6), scale) < 0.5
  assert radius > 0


def test_moving_mass_within_the_radius_keeps_the_label():
  """From end to end: a classifier of the left half's share of mass, and mass moved across the middle."""
  x = np.full((1, 1, 4, 1), 0.25, np.float32)
  noise = law('l2', shape=(1, 4, 1), sigma=0.05)
  model_fn = lambda z: jnp.stack([z[:, 0, :2, 0].sum(1), 0 * z[:, 0, 0, 0] + 0.42], axis=1)
  options = {'num_samples': 5000, 'chunk': 500}
  proof = certify.sampled(jax.random.key(0), model_fn, noise, x, **options)
  # The flow over the middle is below .08 with p = .948: in a row W_l1 = W_l2, and the truth is .08.
  assert proof.label.item() == 0 and 0.04 < proof.radius.item() < 0.08 / math.sqrt(2)
  moved = x + np.array([0, -1, 1, 0], np.float32).reshape(x.shape) * np.float32(proof.radius.item())
  label = certify.predict(jax.random.key(1), model_fn, noise, moved, **options, alpha=1e-3)
  assert label.item() == 0


def test_no_mass_is_made_or_lost():
  """In any channel, for an image of any mass; the noise grows with the mass."""
  x = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)
  sample = jax.jit(law(shape=SHAPE, sigma=0.5).sample)
  z = np.asarray(sample(jax.random.key(0), x))
  np.testing.assert_allclose(z.sum((0, 1)), x.sum((0, 1)), rtol=1e-4)
  assert (z < 0).any() and (z > 1).any(), 'nothing is clipped'
  twice = np.asarray(sample(jax.random.key(0), 2 * x))
  np.testing.assert_allclose(twice, 2 * z, rtol=1e-5, atol=1e-4)


def test_the_flows_of_a_row_are_laplace():
  """24,000 partial sums: Kolmogorov-Smirnov at 1e-4, uncorrelated within 5 standard errors."""
  noise, x = law(shape=(1, 4, 1), sigma=0.02), np.full((1, 4, 1), 0.5, np.float32)
  keys = jax.random.split(jax.random.key(0), 8000)
  draws = np.asarray(jax.jit(jax.vmap(noise.sample, (0, None)))(keys, x), np.float64)
  flows = -np.cumsum((draws - 0.5)[:, 0, :, 0] / 2, axis=1)[:, :3]
  scale = 0.02 / math.sqrt(2)
  assert stats.kstest(flows.ravel(), stats.laplace(scale=scale).cdf).pvalue > 1e-4
  assert np.abs(np.corrcoef(flows.T) - np.eye(3)).max() < 5 / math.sqrt(8000)


@pytest.mark.parametrize('noise', ['flow', 'pixels'])
def test_covariance(noise):
  """sigma^2 A A^T for flows (A the incidence), sigma^2 I on pixels; 5 standard errors, 36 entries."""
  sample = law('l2', 'tight', noise, shape=(2, 3, 1), sigma=0.02).sample
  x = np.arange(1, 7, dtype=np.float32).reshape(2, 3, 1)
  keys = jax.random.split(jax.random.key(1), 20_000)
  draws = np.asarray(jax.jit(jax.vmap(sample, (0, None)))(keys, x), np.float64)
  z = (draws - x).reshape(-1, 6) / (21 * 0.02)
  edges = incidence((2, 3, 1))
  expected = edges @ edges.T if noise == 'flow' else np.eye(6)
  assert np.abs(z.mean(axis=0)).max() < 5 * math.sqrt(3 / 20_000)
  # A product's variance is at most E z^4 = 6 var^2 <= 54.
  assert np.abs(np.cov(z.T) - expected).max() < 5 * math.sqrt(54 / 20_000)


def test_images_without_mass_have_no_certificate():
  noise = law(shape=(2, 2, 1))
  dark = np.zeros((2, 2, 1), np.float32)
  with pytest.raises(ValueError, match=r'positive mass .* got sum\(x\)=0'):
    noise.sample(jax.random.key(0), dark)
  assert np.isnan(jax.jit(noise.sample)(jax.random.key(0), dark)).all()
  assert float(noise.radius(0.9, x=dark)) == 0 < float(noise.radius(0.9, x=dark + 1))
  assert noise.radius([0.9, 0.9], x=np.stack([dark, dark + 1])).tolist()[0] == 0
  model_fn = lambda z: jnp.stack([0 * z[:, 0, 0, 0], 1 + 0 * z[:, 0, 0, 0]], axis=1)
  proof = certify.sampled(
    jax.random.key(0), model_fn, noise, np.stack([dark, dark + 1]), num_samples=100, chunk=100
  )
  assert proof.label.tolist() == [certify.ABSTAIN, 1]


@pytest.mark.parametrize(
  'options, said',
  [
    (dict(sigma=0.0), '`sigma` must be positive and finite, got sigma=0.0'),
    (dict(sigma=np.nan), '`sigma` must be positive'),
    (dict(ground='linf'), "`ground` must be one of l1, l2, got 'linf'"),
    (dict(norm='l2 pixels'), '`norm` must be one of'),
    (dict(bound='renyi'), '`bound` must be one of tight, levine'),
    (dict(noise='gaussian'), '`noise` must be one of flow, pixels'),
    (dict(shape=(1, 1, 3)), 'two pixels or more'),
    (dict(shape=(28, 28)), r'`shape` must be \(H, W, C\)'),
  ],
)
def test_bad_arguments(options, said):
  with pytest.raises(ValueError, match=said):
    smoothing.wasserstein(**{'sigma': 0.01, 'shape': (4, 4, 1), **options})


def test_a_norm_names_the_ground():
  noise = smoothing.wasserstein(sigma=0.01, shape=SHAPE, norm='wasserstein-l1')
  assert noise.norm == 'wasserstein-l1' and noise.radius(0.9) == law('l1').radius(0.9)
