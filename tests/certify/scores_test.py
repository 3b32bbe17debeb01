"""Certified confidence: published values, a loop as oracle, soundness against a known law."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from certjax import certify, parallel, smoothing

SIGMA, KEY = 0.25, jax.random.key(11)
NOISE = smoothing.gaussian(sigma=SIGMA)
METHODS = ('dkw', 'per_threshold', 'mean')
THRESHOLDS = np.linspace(0.05, 1, 20)


def from_samples(scores, thresholds):
  """Counts of a sample on the host, the definition of `score_histogram`."""
  return np.bincount(np.searchsorted(thresholds, scores, 'right'), minlength=len(thresholds) + 1)


# Host: the bounds.


def test_reference_values_of_the_toy():
  """Shares taken for probabilities (no confidence width): scores 0 / 1, and i / n for i = 1..n."""
  given = dict(sigma=SIGMA, radius=0.25)
  assert float(certify.shifted_mean([0.9], [1.0], **given)) == pytest.approx(0.610856, abs=5e-7)
  n = 10_000
  scores = np.arange(1, n + 1) / n
  shares = np.arange(n, 0, -1) / n
  for radius, cdf, naive in ((0, 0.5000500, 0.50005), (0.25, 0.239800, 0.158686),
                             (0.5, 0.078700, 0.022757)):  # fmt: skip
    ours = certify.shifted_mean(shares, scores, sigma=SIGMA, radius=radius)
    assert float(ours) == pytest.approx(cdf, abs=5e-7)
    ours = certify.shifted_mean([scores.mean()], [1.0], sigma=SIGMA, radius=radius)
    assert float(ours) == pytest.approx(naive, abs=5e-6)


def test_sorted_samples_as_thresholds_give_the_published_formula():
  """DKW on the order statistics: p_i = max((n - i + 1) / n - eps, 0)."""
  scores = np.sort(np.random.default_rng(0).beta(5, 1, 2000))
  eps = np.sqrt(np.log(1000) / 4000)
  p = np.maximum(np.arange(2000, 0, -1) / 2000 - eps, 0)
  radius = np.array([0, 0.1, 0.4])
  steps = np.diff(np.r_[0, scores])
  expected = (steps * special.ndtr(special.ndtri(p) - radius[:, None] / SIGMA)).sum(axis=1)
  counts = from_samples(scores, scores)
  ours = certify.confidence(
    counts, thresholds=scores, sigma=SIGMA, radius=radius, alpha=1e-3, method='dkw'
  )
  np.testing.assert_allclose(ours, expected, rtol=1e-10)
  assert (ours < expected).all()


def test_margins_use_their_range():
  """All margins 1: the mean form is 1 - 2 Phi(-z) with Hoeffding's width on [-1, 1]."""
  n = 100_000
  q = 1 - np.sqrt(np.log(1000) / (2 * n))
  counts = np.array([0, 0, n])
  given = dict(thresholds=[0.0, 1.0], sigma=SIGMA, radius=0.25, low=-1.0)
  expected = 2 * special.ndtr(special.ndtri(q) - 1) - 1
  for method in ('mean', 'dkw'):
    ours = float(certify.confidence(counts, method=method, **given))
    assert ours == pytest.approx(expected, rel=1e-9) and ours < expected
  assert float(certify.confidence(counts, method='per_threshold', **given)) > expected


def smoothed_score(x, slope):
  """E sigmoid(slope (x + sigma z)), by Gauss-Hermite quadrature."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(120)
  return (weights * special.expit(slope * (x + SIGMA * nodes))).sum() / np.sqrt(2 * np.pi)


@pytest.mark.parametrize('method', METHODS)
def test_no_bound_exceeds_the_score_of_a_shifted_one_dimensional_model(method):
  """300 samples of 500 draws at alpha = .05: a sound bound exceeds the truth at some radius more
  than `allowed` times with probability below 1e-6."""
  slope, x = 6.0, 0.3
  radii = np.array([0, 0.1, 0.2, 0.4])
  truth = np.array([smoothed_score(x - r, slope) for r in radii])
  rng = np.random.default_rng(4)
  scores = special.expit(slope * (x + SIGMA * rng.normal(size=(300, 500))))
  counts = np.stack([from_samples(row, THRESHOLDS) for row in scores])
  ours = certify.confidence(
    counts[:, None], thresholds=THRESHOLDS, sigma=SIGMA, radius=radii, alpha=0.05, method=method
  )
  assert ((ours > truth).any(axis=1)).sum() <= stats.binom.isf(1e-6, 300, 0.05)
  assert (ours[:, 1] > 0.4).all()  # Not vacuous: the truth is 0.68.


def test_bounds_are_tight_for_an_indicator():
  """Score 1{x + sigma z > 0} is a half-space: with exact probabilities the bound is the truth."""
  x, radii = 0.3, np.array([0, 0.2, 0.5])
  p = special.ndtr(x / SIGMA)
  ours = certify.shifted_mean([p], [1.0], sigma=SIGMA, radius=radii)
  truth = special.ndtr((x - radii) / SIGMA)
  assert (ours < truth).all()
  np.testing.assert_allclose(ours, truth, rtol=1e-10)


def test_per_threshold_shares_alpha_among_the_thresholds():
  counts, thresholds = np.array([100, 200, 300, 400]), [0.2, 0.5, 0.9]
  p = certify.clopper_pearson([900, 700, 400], 1000, alpha=0.01 / 3)
  expected = 0.2 * p[0] + 0.3 * p[1] + 0.4 * p[2]
  ours = certify.confidence(counts, thresholds=thresholds, sigma=1.0, radius=0.0, alpha=0.01)
  assert float(ours) == pytest.approx(expected, rel=1e-10) and ours < expected


def test_per_threshold_is_far_tighter_for_confident_scores():
  counts = np.zeros(21, int)
  counts[-2:] = 100, 99_900
  given = dict(thresholds=THRESHOLDS, sigma=SIGMA, radius=0.5)
  mean, dkw, exact = (
    float(certify.confidence(counts, method=m, **given)) for m in ('mean', 'dkw', 'per_threshold')
  )
  assert mean < dkw + 0.03 and dkw + 0.1 < exact


@pytest.mark.parametrize('method', METHODS)
def test_radius_of_a_target(method):
  rng = np.random.default_rng(0)
  counts = np.stack([from_samples(rng.beta(a, 1, 5000), THRESHOLDS) for a in (0.5, 3, 20)])
  counts = np.concatenate([counts, np.r_[np.zeros(20, int), 5000][None]])
  given = dict(thresholds=THRESHOLDS, sigma=SIGMA, method=method)
  radius = certify.confidence_radius(counts, 0.5, **given)
  assert radius[0] == 0 and (np.diff(radius) > 0).all()
  at_x = certify.confidence(counts, radius=0.0, **given)
  assert at_x[0] < 0.5
  assert (certify.confidence(counts[1:], radius=radius[1:], **given) >= 0.5).all()
  assert (certify.confidence(counts[1:], radius=radius[1:] + 1e-9, **given) < 0.5).all()
  alone = [float(certify.confidence_radius(row, 0.5, **given)) for row in counts]
  np.testing.assert_array_equal(radius, alone)


def test_nan_and_no_samples_prove_nothing():
  assert float(certify.shifted_mean([np.nan], [1.0], sigma=1.0, radius=0.1)) == 0
  counts = np.array([100, 0])
  for method in METHODS:
    ours = certify.confidence(counts, thresholds=[0.5], sigma=1.0, radius=0.0, method=method)
    assert float(ours) == 0


# Device: the counts.


def model_fn(x):
  return jnp.stack([6 * x[:, 0], jnp.zeros(len(x)), 3 * x[:, 1]], axis=1)


X = np.array([[0.3, 0.1], [0.0, 0.5], [-0.2, 0.2]], np.float32)
CLASSES = np.array([0, 2, 1])


def histogram(x=X, **options):
  given = dict(class_index=CLASSES, num_samples=150, thresholds=THRESHOLDS, chunk=64)
  return certify.score_histogram(
    KEY, options.pop('model_fn', model_fn), NOISE, x, **given | options
  )


@pytest.mark.parametrize('score', ['probability', 'margin'])
def test_equals_a_loop_over_images_and_samples(score):
  expected = np.zeros((3, 21), int)
  thresholds = np.linspace(-0.9, 1, 20) + 1e-3
  for i, x in enumerate(X):
    draw = lambda j: NOISE.sample(jax.random.fold_in(jax.random.fold_in(KEY, i), j), x)  # noqa: B023
    noisy = jax.vmap(draw)(jnp.arange(150))
    scores = special.softmax(np.asarray(model_fn(noisy), np.float64), axis=1)
    values = scores[:, CLASSES[i]]
    if score == 'margin':
      values = values - np.delete(scores, CLASSES[i], axis=1).max(axis=1)
    expected[i] = from_samples(values, thresholds)
  np.testing.assert_array_equal(histogram(score=score, thresholds=thresholds), expected)


def test_chunk_order_padding_and_devices_do_not_matter():
  full = histogram()
  assert (full.sum(axis=1) == 150).all() and full.dtype == np.int64
  np.testing.assert_array_equal(histogram(chunk=7), full)
  order = np.array([2, 0, 1])
  np.testing.assert_array_equal(
    histogram(X[order], index=order, class_index=CLASSES[order]), full[order]
  )
  np.testing.assert_array_equal(
    histogram(X[2:], index=[2], class_index=CLASSES[2:], slots=3), full[2:]
  )
  np.testing.assert_array_equal(histogram(mesh=parallel.local_mesh()), full)


def test_votes_and_scores_see_the_same_noise():
  """Among two classes the score of the winner exceeds 1/2."""
  two = lambda x: model_fn(x)[:, :2]
  votes = certify.votes(KEY, two, NOISE, X, num_samples=150, chunk=64)
  above = histogram(model_fn=two, class_index=[0, 0, 0], thresholds=[0.5])
  np.testing.assert_array_equal(above[:, 1], votes[:, 0])


def test_nan_scores_fall_below_every_threshold():
  holes = lambda x: jnp.where(x[:, :1] > 0.3, jnp.nan, model_fn(x))
  counts = histogram(model_fn=holes, thresholds=[1e-6, 0.5])
  assert 30 < counts[0, 0] < 120 and (counts.sum(axis=1) == 150).all()


def test_thresholds_are_rounded_up_to_float32():
  """A score of exactly float32(.1) > .1 reaches .1; float32(.7) < .7 does not reach .7."""
  constant = lambda p: (
    lambda x: jnp.log(jnp.stack([jnp.full(len(x), p), jnp.full(len(x), 1 - p)], 1))
  )
  score = np.asarray(jax.nn.softmax(constant(0.7)(jnp.zeros((1, 2)))))[0, 0]
  between = (float(score) + float(np.nextafter(score, np.float32(1)))) / 2
  for threshold, reached in ((float(score), 150), (between, 0)):
    counts = histogram(model_fn=constant(0.7), class_index=[0, 0, 0], thresholds=[threshold])
    assert counts[:, 1].tolist() == [reached] * 3


def test_one_program_for_all_sigmas_and_numbers_of_samples():
  chex.clear_trace_counter()
  counted = chex.assert_max_traces(model_fn, n=2)  # Shapes once, the program once.
  for sigma, number in ((0.25, 10), (0.5, 10), (1.0, 333)):
    certify.score_histogram(
      KEY, counted, smoothing.gaussian(sigma=sigma), X, class_index=CLASSES, num_samples=number,
      thresholds=THRESHOLDS, chunk=16,
    )  # fmt: skip


def test_end_to_end_is_sound():
  """The device's counts under the bounds: the truth lies above at every radius (alpha = .001 an
  image: three images err with probability at most .003, with this key never)."""
  counts = histogram(model_fn=lambda x: model_fn(x)[:, :2], class_index=[0, 0, 0], num_samples=5000)
  for radius in (0.0, 0.2):
    ours = certify.confidence(counts, thresholds=THRESHOLDS, sigma=SIGMA, radius=radius)
    truth = [smoothed_score(x - radius, 6.0) for x in X[:, 0].astype(float)]
    assert (ours <= truth).all() and (ours > np.array(truth) - 0.12).all()


def test_bad_arguments():
  given = dict(thresholds=[0.5, 0.9], sigma=1.0, radius=0.1)
  with pytest.raises(ValueError, match=r'`counts` must be \[..., n \+ 1\]'):
    certify.confidence([1, 2], **given)
  with pytest.raises(ValueError, match='`method` must be one of'):
    certify.confidence([1, 2, 3], method='clt', **given)
  with pytest.raises(ValueError, match='`alpha` <= 1/2'):
    certify.confidence([1, 2, 3], method='dkw', alpha=0.6, **given)
  with pytest.raises(ValueError, match=r'`thresholds` must lie in \(0, 1\]'):
    certify.confidence([1, 2], thresholds=[1.5], sigma=1.0, radius=0.1)
  with pytest.raises(ValueError, match='that ascends'):
    certify.confidence([1, 2, 3], thresholds=[0.9, 0.5], sigma=1.0, radius=0.1)
  with pytest.raises(ValueError, match='`target` must lie in'):
    certify.confidence_radius([1, 2, 3], 1.5, thresholds=[0.5, 0.9], sigma=1.0)
  with pytest.raises(ValueError, match='`class_index` must be'):
    histogram(class_index=[0, 1, 3])
  with pytest.raises(ValueError, match='`class_index` must be'):
    histogram(class_index=[0, -1, 2])
  with pytest.raises(ValueError, match='`score` must be one of'):
    histogram(score='logit')
