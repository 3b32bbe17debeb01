"""Sequential certificates: the samples they draw are a prefix of CERTIFY's, the answer is right."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from certjax import certify, smoothing, testing

KEY = jax.random.key(3)
SIGMA = 0.5
NOISE = smoothing.gaussian(sigma=SIGMA)


def model_fn(x):
  """The smoothed classifier gives class 0 probability Phi(x / sigma): its radius is x exactly."""
  return jnp.stack([x[:, 0], -x[:, 0]], axis=1)


def certified(x, **options):
  x = np.asarray(x, np.float32).reshape(-1, 1)
  options = {'max_samples': 4000, 'chunk': 100, **options}
  return certify.sequential(KEY, model_fn, NOISE, x, **options)


METHODS = ['group-sequential', 'betting', 'union-bound', 'horvath', 'fixed']


@pytest.mark.parametrize('method', METHODS)
def test_decides_a_radius(method):
  """Far above, far below and at the threshold: proved early, given up early, left open."""
  proof, samples = certified([0.9, 0.1, 0.5, -0.9], radii=[0.5], method=method)
  testing.check_certificate(proof, 2)
  assert proof.label.tolist() == [0, -1, -1, 1]
  assert proof.radius.tolist() == [0.5, 0.0, 0.0, 0.5]
  if method == 'fixed':
    assert set(samples.tolist()) == {4100}
  else:
    assert max(samples[[0, 1, 3]]) < 4100 / 3 and samples[2] > samples[1]


@pytest.mark.parametrize('method', METHODS)
def test_looks_see_a_prefix_of_the_samples_of_certify(method):
  """Replays a boundary on the estimation votes, counted look by look by `votes`."""
  x = np.linspace(-0.6, 0.8, 5, dtype=np.float32)[:, None]
  proof, samples = certified(x, radii=[0.3], method=method, labels=[0] * 5)
  p0 = certify.probability_of_radius(NOISE, 0.3)
  test = certify.boundary(method, p0, alpha=1e-3, max_samples=4000)
  key = jax.random.fold_in(KEY, certify.ESTIMATION)
  draw = lambda i, n: certify.votes(
    key, model_fn, NOISE, x[i : i + 1], index=[i], num_samples=int(n), chunk=100
  )[0, 0]
  ends = {}
  for i in range(5):
    for t, look in enumerate(test.looks):
      before = draw(i, test.starts[t]) if test.starts[t] else 0
      count = draw(i, look) - before
      if count >= test.accept[t] or count <= test.reject[t] or t == len(test.looks) - 1:
        ends[i] = (int(look), bool(count >= test.accept[t]))
        break
  assert [(int(n), label == 0) for n, label in zip(samples, proof.label, strict=True)] == [
    ends[i] for i in range(5)
  ]
  assert len({accepted for _, accepted in ends.values()}) == 2


def test_several_radii_give_the_largest_proved():
  x = [0.05, 0.3, 0.6, 1.2]
  proof, samples = certified(x, radii=[0.125, 0.25, 0.5, 1.0])
  assert proof.radius.tolist() == [0.0, 0.25, 0.5, 1.0]
  assert (proof.label >= 0).tolist() == [False, True, True, True]
  assert samples.max() <= 4100
  alone, _ = certified(x, radii=[0.5])
  assert (proof.radius >= 0.5).tolist() == (alone.radius > 0).tolist()


def test_a_false_radius_is_claimed_with_probability_at_most_alpha_over_all_radii():
  """The judge on simulated counts at p just below the second of three radii. 4,000 runs at
  alpha = .02: false alarm below 1e-6."""
  rule = certify.sequential_rule(
    NOISE, radii=[0.25, 0.5, 0.75], max_samples=300, alpha=0.02, beta=0.3, num_selection=None
  )
  p = stats.norm.cdf(0.4999 / SIGMA)
  rng = np.random.default_rng(0)
  runs = 4000
  plans = [rule.plan(0, None) for _ in range(runs)]
  asked = [plan.send(None)[0][1] for plan in plans]
  claims = np.zeros(runs)
  left = list(range(runs))
  while left:
    counts = rng.binomial([asked[i] for i in left], p)
    going = []
    for i, count in zip(left, counts, strict=True):
      try:
        asked[i] = plans[i].send([np.array([count, 0])])[0][1]
        going.append(i)
      except StopIteration as done:
        claims[i] = done.value.radius
    left = going
  wrong = int((claims >= 0.5).sum())
  assert wrong <= stats.binom.isf(1e-6, runs, 0.02)
  assert 0.2 * 0.02 * runs < wrong, 'the test spends what it is given'
  assert (claims == 0.25).mean() > 0.9


@pytest.mark.parametrize('method', ['betting', 'union-bound'])
def test_tolerance(method):
  proof, samples = certified([1.0, 0.5, 0.02], tolerance=0.1, method=method, max_samples=100_000)
  assert proof.label.tolist()[:2] == [0, 0]
  assert np.all(proof.radius <= [1.0, 0.5, 0.02])  # The true radii; alpha = .001 each.
  assert proof.radius[1] > 0.42 and samples[1] < 50_000
  tighter, more = certified([0.5], index=[1], tolerance=0.02, method=method, max_samples=100_000)
  assert tighter.radius[0] > proof.radius[1] and more[0] > samples[1]


def test_a_unanimous_image_stops_at_a_tenth_of_its_limit():
  """All votes for the class: the upper bound is infinite, the limit is what max_samples can prove."""
  proof, samples = certified([50.0], tolerance=0.2, max_samples=100_000)
  limit = certify.largest_radius(NOISE, 100_000, 1e-3)
  assert samples[0] < 20_000 and 0.8 * 0.9 * limit < proof.radius[0] < limit


def test_fixed_labels_need_no_selection():
  _, samples = certified([0.9], radii=[0.5], labels=[0])
  _, selected = certified([0.9], radii=[0.5], num_selection=77)
  assert selected[0] == samples[0] + 77
  proof, _ = certified([0.9], radii=[0.5], labels=[1])
  assert proof.label.tolist() == [-1]


def test_nan_votes_prove_nothing():
  holes = lambda x: jnp.where(x[:, :1] > 0, jnp.nan, model_fn(x))
  proof, _ = certify.sequential(
    KEY, holes, NOISE, np.ones((1, 1), np.float32), radii=[0.1], max_samples=1000, chunk=50,
    labels=[0],
  )  # fmt: skip
  assert proof.label.tolist() == [-1]


@pytest.mark.parametrize(
  'noise',
  [NOISE, smoothing.uniform(lam=1.0), smoothing.laplace(scale=0.3)],
  ids=['gaussian', 'uniform', 'laplace'],
)
def test_probability_of_a_radius_is_the_least(noise):
  for radius in (1e-3, 0.1, 0.3):
    p = certify.probability_of_radius(noise, radius)
    assert noise.radius(p) >= radius > noise.radius(np.nextafter(p, 0))


def test_schedules_and_chunks_do_not_matter():
  x = np.linspace(-0.8, 0.9, 7)
  runs = [
    certified(x, radii=[0.25, 0.5], chunk=chunk, slots=slots)
    for chunk, slots in itertools.product((37, 100), (2, 64))
  ]
  for proof, samples in runs[1:]:
    np.testing.assert_array_equal(proof.radius, runs[0][0].radius)
    np.testing.assert_array_equal(samples, runs[0][1])


@pytest.mark.parametrize(
  'options, said',
  [
    ({}, 'give either `radii`'),
    (dict(radii=[0.5], tolerance=0.1), 'give either `radii`'),
    (dict(radii=[0.5, 0.5]), 'must be finite, positive and ascending'),
    (dict(radii=[-1.0]), 'must be finite, positive and ascending'),
    (dict(radii=[float('nan')]), 'must be finite, positive and ascending'),
    (dict(radii=[1e9]), '1e\\+09 is out of reach'),
    (dict(radii=[1.5]), r'can never prove p >= 0.99865'),
    (dict(radii=[0.5], method='magic'), "`method`='magic' is unknown"),
    (dict(tolerance=0.1, method='fixed'), 'gives no bound to stop at'),
    (dict(tolerance=1.5), 'is a fraction'),
    (dict(radii=[0.5], num_selection=0), 'must be at least 1'),
    (dict(radii=[0.5], labels=[2]), r'`labels` must be int\[B\] in \[0, 2\)'),
    (dict(radii=[0.5], alpha=0.0), '`alpha`'),
  ],
)
def test_bad_arguments(options, said):
  with pytest.raises(ValueError, match=said):
    certified([0.5], **options)
