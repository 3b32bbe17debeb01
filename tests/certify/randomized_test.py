"""CERTIFY and PREDICT: the theorem on linear classifiers, the runner-up form, abstention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from certjax import certify, smoothing, testing

N = 100_000


def linear(x):
  """The half-space x_0 > 0: its exact L2 distance is |x_0|."""
  return jnp.stack([x[:, 0], jnp.zeros(len(x))], axis=1)


def test_linear_classifier_exceeds_its_distance_rarely():
  """4,000 certificates at alpha = 0.05 of a point at distance 0.4 of a half-space.

  A certificate is wrong where its radius exceeds the distance. Wrong more often than alpha by
  chance, beyond the 99.9% quantile of Binomial(4000, 0.05), that is 244: false-alarm rate
  0.001, with a fixed key. The half-space is the worst case of the theorem, so a sound bound is wrong
  nearly alpha of the time: below 100 the radii would be needlessly small.
  """
  x = np.tile(np.float32([[0.4, 0.0, 0.0]]), (4000, 1))
  noise = smoothing.gaussian(sigma=0.5)
  proof = certify.sampled(
    jax.random.key(0), linear, noise, x, num_selection=20, num_samples=500, alpha=0.05, chunk=20_000
  )
  testing.check_certificate(proof, 2)
  wrong = np.sum((proof.label == 0) & (proof.radius > 0.4)) + np.sum(proof.label == 1)
  assert 100 < wrong <= stats.binom.ppf(0.999, 4000, 0.05)


def test_runner_up_form_exceeds_its_distance_rarely():
  """The same for p_a and p_b of a three-class slab: class 0 where x_0 > 0, else 1 or 2.

  Classes 1 and 2 split the other side by the sign of x_1, so p_b is half of 1 - p_a at x_1 = 0
  and the radius that both bounds certify must not exceed the true distance 0.4.
  """

  def slab(x):
    other = jnp.where(x[:, 0] > 0, -1.0, 1.0)
    side = jnp.sign(x[:, 1])
    return jnp.stack([jnp.zeros(len(x)), 2 * other + side, 2 * other - side], axis=1)

  x = np.tile(np.float32([[0.4, 0.0]]), (4000, 1))
  proof = certify.sampled(
    jax.random.key(1), slab, smoothing.gaussian(sigma=0.5), x, num_selection=20, num_samples=500,
    alpha=0.05, runner_up=True, chunk=20_000,
  )  # fmt: skip
  p_a = stats.norm.cdf(0.4 / 0.5)
  truth = 0.25 * (stats.norm.ppf(p_a) - stats.norm.ppf((1 - p_a) / 2))  # Of the exact p_a and p_b.
  wrong = np.sum((proof.radius > truth) | (proof.label != 0) & (proof.label >= 0))
  assert wrong <= stats.binom.ppf(0.999, 4000, 0.05)
  assert np.median(proof.radius) > 0.4, 'the runner-up form must beat 1 - p_a here'


def test_runner_up_reference_radii():
  """sigma = 1, N = 10^5, alpha = 0.001 split .9 / .1; four digits of the reference."""
  cases = [
    ((90_000, 10_000), 1.26468), ((90_000, 9000), 1.29236), ((99_990, 10), 3.48831),
    ((99_990, 5), 3.51709), ((99_000, 500), 2.40437), ((80_000, 19_000), 0.84420),
    ((60_000, 20_000), 0.53282),
  ]  # fmt: skip
  for (top, second), expected in cases:
    counts = [[top, second, N - top - second]]
    if counts[0][2] > second:  # The rest is spread over many classes.
      counts = [[top, second] + [second] * ((N - top) // second)]
    proof = certify.from_votes(
      smoothing.gaussian(sigma=1.0), [0], counts, num_samples=N, runner_up=True
    )
    assert float(proof.radius[0]) == pytest.approx(expected, abs=0.6e-5)


def test_runner_up_certifies_without_a_majority():
  counts = [[45_000, 20_000, 20_000, 15_000]]
  noise = smoothing.gaussian(sigma=1.0)
  alone = certify.from_votes(noise, [0], counts, num_samples=N)
  both = certify.from_votes(noise, [0], counts, num_samples=N, runner_up=True)
  assert alone.label[0] == certify.ABSTAIN and alone.radius[0] == 0
  assert both.label[0] == 0 and both.radius[0] > 0.3


def test_selection_and_estimation_are_different_draws():
  """A fair coin: were the class bounded on the samples that chose it, p_a would be biased up."""
  x = np.zeros((2000, 1), np.float32)
  candidate, counts = certify.sampled_votes(
    jax.random.key(0), linear, smoothing.gaussian(sigma=1.0), x, num_selection=9, num_samples=9,
    chunk=9000,
  )  # fmt: skip
  chosen = counts[np.arange(2000), candidate] / 9
  assert abs(chosen.mean() - 0.5) < 5 * 0.5 / np.sqrt(9 * 2000)  # Five standard errors: 6e-7.


def test_candidate_that_loses_abstains():
  proof = certify.from_votes(smoothing.gaussian(sigma=1.0), [1], [[900, 100]], num_samples=1000)
  assert proof.label.tolist() == [certify.ABSTAIN] and proof.radius.tolist() == [0.0]


def test_missing_votes_count_as_misses():
  noise = smoothing.gaussian(sigma=1.0)
  full = certify.from_votes(noise, [0], [[900, 100]], num_samples=1000)
  some = certify.from_votes(noise, [0], [[900, 0]], num_samples=1000)
  assert full.radius == some.radius
  everything_nan = certify.from_votes(noise, [0], [[0, 0]], num_samples=1000, runner_up=True)
  assert everything_nan.label[0] == certify.ABSTAIN


def test_predict_answers_and_abstains():
  x = np.float32([[1.0], [0.0], [-1.0]])
  label = certify.predict(
    jax.random.key(0), linear, smoothing.gaussian(sigma=0.5), x, num_samples=100, alpha=0.001,
    chunk=100,
  )  # fmt: skip
  assert label.tolist() == [0, certify.ABSTAIN, 1]


def test_predict_errs_rarely():
  """4,000 predictions at alpha = 0.05 of a class with p = 0.52: wrong at most 244 times."""
  x = np.full((4000, 1), 0.5 * stats.norm.ppf(0.52), np.float32)
  label = certify.predict(
    jax.random.key(3), linear, smoothing.gaussian(sigma=0.5), x, num_samples=60, alpha=0.05,
    chunk=20_000,
  )  # fmt: skip
  assert np.sum(label == 1) <= stats.binom.ppf(0.999, 4000, 0.05)
  assert np.sum(label == certify.ABSTAIN) > 3000


def test_label_from_votes_against_scipy():
  rng = np.random.default_rng(0)
  counts = rng.multinomial(200, [0.4, 0.35, 0.25], size=300)
  for row, label in zip(counts, certify.label_from_votes(counts, alpha=0.05), strict=True):
    second, top = np.sort(row)[-2:]
    sure = stats.binomtest(int(top), int(top + second)).pvalue <= 0.05
    assert label == (np.argmax(row) if sure else certify.ABSTAIN)
  assert certify.label_from_votes([[7]], alpha=0.05).tolist() == [0]  # One class only.


def test_predict_and_sampled_refuse_too_few_samples():
  noise, x = smoothing.gaussian(sigma=0.5), np.zeros((1, 1), np.float32)
  with pytest.raises(
    ValueError,
    match=r'`num_samples`=9 can never certify at `alpha`=0.001: at least 10 are needed \(PREDICT: 11',
  ):
    certify.sampled(jax.random.key(0), linear, noise, x, num_samples=9)
  with pytest.raises(ValueError, match='`num_samples`=10 always abstains .* at least 11'):
    certify.predict(jax.random.key(0), linear, noise, x, num_samples=10, alpha=0.001)
  with pytest.raises(ValueError, match='alpha=1.5'):
    certify.sampled(jax.random.key(0), linear, noise, x, alpha=1.5)


def test_smallest_number_of_samples_is_found_without_counting_up_to_it():
  noise = smoothing.discrete(keep=0.999, levels=255, shape=(2, 2, 1))
  with pytest.raises(ValueError, match='at least [0-9]+ are needed') as error:
    certify.check_num_samples(noise, 100, 0.001)
  needed = int(str(error.value).split('at least ')[1].split()[0])
  assert certify.largest_radius(noise, needed, 0.001) > 0
  assert certify.largest_radius(noise, needed - 1, 0.001) == 0
  never = smoothing.gaussian(sigma=1.0)._replace(radius=lambda p_a, p_b=None, *, x=None: 0 * p_a)
  with pytest.raises(ValueError, match='no number of samples certifies'):
    certify.check_num_samples(never, 100, 0.001)


def test_certificate_turns_everything_unproved_into_an_abstention():
  proof = certify.certificate([0, 1, 2, -1], [np.nan, -0.1, 0.5, 0.7])
  testing.check_certificate(proof, 3)
  assert proof.label.tolist() == [-1, -1, 2, -1] and proof.radius.tolist() == [0, 0, 0.5, 0]


@pytest.mark.parametrize(
  'label, radius',
  [([5], [0.1]), ([0], [np.nan]), ([0], [-1.0]), ([-1], [0.3])],
)
def test_the_certificate_check_sees_faults(label, radius):
  broken = certify.Certificate(np.array(label), np.array(radius, np.float64))
  with pytest.raises(AssertionError):
    testing.check_certificate(broken, 3)
