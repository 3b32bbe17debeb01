"""Smoothing over flipped labels: published numbers, all classifiers and all flips of few labels."""

import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from certjax import certify, poisoning, smoothing, testing


def patterns(n):
  """int[2^n, n], all labels."""
  return np.array(list(itertools.product((0, 1), repeat=n)))


def distances(n):
  return np.abs(patterns(n)[:, None] - patterns(n)).sum(axis=-1)


def weights_of(n, numerator, denominator):
  """int[2^n, 2^n] over denominator^n: the noised labels' probability around each set of labels."""
  flips = distances(n)
  return numerator**flips * (denominator - numerator) ** (n - flips)


@pytest.mark.parametrize(
  'p, q, kl, exact',
  [(0.9, 0.1, 0.2906, 0), (0.99, 0.1, 0.9185, 1), (0.9999, 0.1, 2.2256, 3), (0.9, 0.4, 6.30, 10),
   (0.99, 0.4, 19.9088, 33), (0.9999, 0.4, 48.2418, 85)],
)  # fmt: skip
def test_numbers_of_radii(p, q, kl, exact):
  radius = poisoning.flip_radius(1 - p, 200, flip_probability=q, bound='kl')
  assert abs(radius - kl) < (0.005 if kl == 6.30 else 5e-5)
  found = poisoning.flip_radius(1 - p, 200, flip_probability=q)
  assert found == exact == smoothing.discrete(keep=1 - q, levels=1, shape=(200, 1, 1)).radius(p)


def test_kl_radius_is_rounded_down():
  """Against 40 digits, q as the decimal that it is written as: below, by less than 1e-12 of it."""
  tails = np.concatenate([np.logspace(-300, -1, 50), np.linspace(0.09, 0.4999999, 50)])
  with mpmath.workdps(40):
    for q in ('0.001', '0.1', '0.4', '0.49999'):
      found = poisoning.flip_radius(tails, 10**18, flip_probability=float(q), bound='kl')
      slope = 2 * (1 - 2 * mpmath.mpf(q)) * mpmath.log(mpmath.mpf(q) / (1 - mpmath.mpf(q)))
      for tail, radius in zip(tails.tolist(), found.tolist(), strict=True):
        tail = mpmath.mpf(tail)
        exact = mpmath.log(4 * tail * (1 - tail)) / slope
        assert exact * (1 - mpmath.mpf(10) ** -12) < radius < exact


@pytest.mark.parametrize('numerator, denominator', [(1, 10), (2, 5)])
def test_all_classifiers_of_four_labels(numerator, denominator):
  """65,536 functions of 4 labels, around 0000 (any other place is alike): in integers, no certified
  number of flips makes the class rarer than one half, and one flip more does for some."""
  n = 4
  law = weights_of(n, numerator, denominator)
  codes = np.arange(2 ** (2**n))
  functions = (codes[:, None] >> np.arange(2**n)) & 1
  votes = functions @ law.T  # Of class 1, around each set of labels.
  whole = denominator**n
  votes = votes[2 * votes[:, 0] > whole]
  tail = [float(Fraction(whole - int(v), whole)) for v in votes[:, 0]]
  tail = np.nextafter(tail, np.where(votes[:, 0] == whole, 0, 1))
  flips = distances(n)[0]
  least = np.array([votes[:, flips == r].min(axis=1) for r in range(n + 1)]).T
  safe = (2 * np.minimum.accumulate(least, axis=1) > whole).sum(axis=1) - 1
  q = numerator / denominator
  exact = poisoning.flip_radius(tail, n, flip_probability=q)
  kl = poisoning.flip_radius(tail, n, flip_probability=q, bound='kl')
  assert (exact <= safe).all() and (np.floor(kl) <= exact).all()
  for radius in (1, 2):
    assert ((exact == radius) & (safe == radius)).any()


def test_radius_is_monotone_and_bounded():
  tails = np.array([0.0, 1e-300, 1e-30, 1e-8, 0.2, 0.49, 0.5, 0.7, 1.0, np.nan])
  for bound in ('exact', 'kl'):
    radius = poisoning.flip_radius(tails, 10**6, flip_probability=0.4, bound=bound)
    assert radius[0] == 10**6 and (np.diff(radius[:6]) <= 0).all() and (radius[6:] == 0).all()
    assert poisoning.flip_radius(1e-300, 3, flip_probability=0.4, bound=bound) == 3
  exact, kl = (
    poisoning.flip_radius([1e-300, 1e-30], 10**6, flip_probability=0.4, bound=bound)
    for bound in ('exact', 'kl')
  )
  assert exact[0] == np.floor(kl[0]) > 4000 and exact[1] == 512 > kl[1]


def exact_tail(weights, labels, q):
  """Pr[a^T y~ <= 1/2] and Pr[a^T y~ >= 1/2] over all noised labels; weights are k / 64."""
  noised = patterns(len(labels))
  flips = np.abs(noised - labels).sum(axis=1)
  law = q**flips * (1 - q) ** (len(labels) - flips)
  score = noised @ weights
  return law[score <= 0.5].sum(), law[score >= 0.5].sum()


def test_chernoff_of_equal_weights():
  """20 weights of 1/20, 16 ones, q = 0.1: the reference's example, and its law by convolution."""
  labels = np.array([1] * 16 + [0] * 4)
  label, tail = poisoning.score_tail(np.full(20, 0.05), labels, flip_probability=0.1)
  law = np.ones(1)
  for one in labels:
    law = np.convolve(law, [0.1, 0.9] if one else [0.9, 0.1])
  assert label == 1 and round(float(tail), 7) == 0.0098044
  assert round(law[:11].sum(), 7) == 0.0023131


def test_chernoff_is_above_all_tails_and_near_its_minimum():
  """300 random scores of 8 labels of both signs and of all sizes."""
  rng = np.random.default_rng(0)
  weights = np.round(rng.normal(size=(300, 8)) * 64 * rng.choice([0.2, 0.5, 1], (300, 1))) / 64
  weights[0], weights[1] = 0, 0.125
  labels = rng.integers(0, 2, 8)
  label, tail = poisoning.score_tail(weights, labels, flip_probability=0.2)
  exact = np.array([exact_tail(a, labels, 0.2) for a in weights])
  exact = np.take_along_axis(exact, 1 - label[:, None], axis=1)[:, 0]
  assert (exact * (1 - 1e-12) <= tail).all() and (tail <= 1).all() and tail[0] < 1e-300
  assert 0.1 < (tail < 0.5).mean() < 1
  one, side = np.where(labels == 1, 0.8, 0.2), np.where(label == 1, 1, -1)[:, None]
  t = np.exp2(np.linspace(-8, 8, 200))[:, None, None]
  logs = np.logaddexp(np.log(1 - one), np.log(one) - t * side * weights).sum(axis=-1)
  best = (logs + t[..., 0] * side[:, 0] / 2).min(axis=0)
  assert (np.log(tail) <= np.minimum(best, 0) + 1e-9).all()


@pytest.mark.parametrize('q, size', [('0.3', 1.0), ('0.00001', 0.6)])
def test_chernoff_of_many_labels_is_rounded_up(q, size):
  """4,040 labels of three weights: the minimum in 30 digits is below, by less than 1e-6 of it."""
  groups = [
    (1000, 0.0011, 0),
    (1000, 0.0011, 1),
    (1000, -0.0003, 0),
    (1000, -0.0003, 1),
    (40, 0.002, 1),
  ]
  numbers, values, labels = (np.array(column) for column in zip(*groups, strict=True))
  values = size * values
  weights = np.repeat(values, numbers)
  label, tail = poisoning.score_tail(weights, np.repeat(labels, numbers), flip_probability=float(q))
  with mpmath.workdps(30):
    ones = [1 - mpmath.mpf(q) if one else mpmath.mpf(q) for one in labels.tolist()]
    terms = list(zip(numbers.tolist(), values.tolist(), ones, strict=True))

    def log_bound(t):
      return t / 2 + sum(n * mpmath.log(1 - p + p * mpmath.exp(-t * a)) for n, a, p in terms)

    low, high = mpmath.mpf(0), mpmath.mpf(10**5)
    for _ in range(60):
      middle = (low + high) / 2
      low, high = (middle, high) if mpmath.diff(log_bound, middle) < 0 else (low, middle)
    least = mpmath.exp(log_bound(low))
  assert label == 1 and 1e-250 < least <= tail.item() < min(least * (1 + mpmath.mpf('1e-6')), 0.2)


@pytest.mark.parametrize('n, zeros, most', [(8, 0, 1), (12, 0, 2), (12, 1, 1), (12, 11, 2)])
def test_no_certified_flips_turn_ridge_regression(n, zeros, most):
  """All flips up to the radius, and all 2^n noised labels of each, in integers (q = 1/16)."""
  rng = np.random.default_rng(n)
  labels = (np.arange(n) >= zeros).astype(int)
  features = np.stack([np.ones(n), rng.normal(size=n)], axis=1)
  x = np.stack([np.ones(16), np.linspace(-5, 5, 16)], axis=1)
  proof, weaker = (
    poisoning.ridge_smoothed_certificate(
      features, labels, x, flip_probability=1 / 16, ridge=0.5, bound=bound
    )
    for bound in ('exact', 'kl')
  )
  testing.check_certificate(proof, 2)
  assert (np.floor(weaker.radius) <= proof.radius).all()
  assert proof.radius.max() >= most and (proof.label == certify.ABSTAIN).any()
  noised, distance = patterns(n), np.abs(patterns(n) - labels).sum(axis=1)
  says_one = (noised @ poisoning.ridge_weights(features, x, ridge=0.5).T > 0.5).astype(np.int64)
  for radius in range(int(proof.radius.max()) + 1):
    flips = np.abs(noised[distance <= radius][:, None] - noised).sum(axis=-1)
    ones = 15 ** (n - flips) @ says_one  # Over 16^n.
    certified = (proof.radius >= radius) & (proof.label != certify.ABSTAIN)
    assert ((2 * ones > 16**n) == (proof.label == 1))[:, certified].all()


def test_ridge_weights_are_those_of_the_regression():
  rng = np.random.default_rng(0)
  features, y, x = rng.normal(size=(30, 5)), rng.integers(0, 2, 30), rng.normal(size=(2, 3, 5))
  augmented = np.concatenate([features, np.sqrt(0.3) * np.eye(5)])
  coefficients = np.linalg.lstsq(augmented, np.append(y, np.zeros(5)), rcond=None)[0]
  weights = poisoning.ridge_weights(features, x, ridge=0.3)
  np.testing.assert_allclose(weights @ y, x @ coefficients, rtol=1e-12, atol=1e-13)


def test_images_in_blocks(monkeypatch):
  rng = np.random.default_rng(0)
  weights, labels = rng.normal(size=(5, 4, 9)) / 4, rng.integers(0, 2, 9)
  whole = poisoning.score_tail(weights, labels, flip_probability=0.1)
  monkeypatch.setattr('certjax.poisoning._label_flips._BLOCK', 20)
  np.testing.assert_array_equal(whole, poisoning.score_tail(weights, labels, flip_probability=0.1))


@pytest.mark.parametrize(
  'call, word',
  [
    (lambda: poisoning.flip_radius(0.1, 9, flip_probability=0.5), '1/2'),
    (lambda: poisoning.flip_radius(0.1, 9, flip_probability=float('nan')), 'nan'),
    (lambda: poisoning.flip_radius(0.1, 0, flip_probability=0.1), 'num_labels'),
    (lambda: poisoning.flip_radius(0.1, 9, flip_probability=0.1, bound='best'), 'exact, kl'),
    (lambda: poisoning.score_tail([0.1], [2], flip_probability=0.1), 'two classes'),
    (lambda: poisoning.score_tail([0.1], [0.5], flip_probability=0.1), 'integers'),
    (lambda: poisoning.score_tail([0.1, 1.0], [1], flip_probability=0.1), 'weights'),
    (lambda: poisoning.score_tail([np.inf], [1], flip_probability=0.1), 'finite'),
    (lambda: poisoning.ridge_weights([[1.0]], [1.0], ridge=0.0), 'ridge'),
    (lambda: poisoning.ridge_weights([[1.0]], [1.0, 2.0], ridge=1.0), 'shapes'),
  ],
)
def test_bad_arguments(call, word):
  with pytest.raises(ValueError, match=word):
    call()
