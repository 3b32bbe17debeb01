"""Discrete L0 smoothing: published thresholds, brute force over all outcomes, the sampler's law."""

import itertools
import math
from fractions import Fraction

import jax
import numpy as np
import pytest

from certjax import smoothing, testing


@pytest.mark.parametrize(
  'keep, levels, first, expected',
  [
    (0.2, 255, 1, '.696862745098 .853735332564 .978988296688 .994936458815 .996190204392 '
     '.997442726814 .998645148294 .999768497784 .999939703896'),
    (0.8, 1, 1, '.875 .96875 .9921875 .99275 .9969875 .999006875 .99970371875 .9999163296875'),
    (0.8, 1, 13, '.9999989405233671875'),
    (0.1, 255, 1, '.596470588235'),
    (0.1, 255, 7, '.987398148965'),
    (0.5, 255, 1, '.998039215686'),
  ],
)  # fmt: skip
def test_published_thresholds(keep, levels, first, expected):
  for radius, text in enumerate(expected.split(), start=first):
    exact = smoothing.discrete_threshold(keep, levels, radius)
    # Printed values are rounded or cut: within one unit of the last digit.
    assert abs(exact - Fraction(text)) < Fraction(1, 10 ** (len(text) - 1))
  assert exact == Fraction(text) or levels == 255


def test_first_threshold_is_half_plus_alpha_minus_beta():
  keep = Fraction(1, 10)
  assert smoothing.discrete_threshold(keep, 255, 1) == Fraction(1, 2) + keep - (1 - keep) / 255
  assert smoothing.discrete_threshold(keep, 255, 0) == Fraction(1, 2)


def outcomes(keep, levels, dimension, changed):
  """(P, Q) of every outcome for x = 0...0 and x' = 1...1 0...0, largest P / Q first."""
  other = (1 - keep) / levels
  pairs = []
  for outcome in itertools.product(range(levels + 1), repeat=dimension):
    centre = [1] * changed + [0] * (dimension - changed)
    p = math.prod(keep if value == 0 else other for value in outcome)
    q = math.prod(
      keep if value == middle else other for value, middle in zip(outcome, centre, strict=True)
    )
    pairs.append((p, q))
  return sorted(pairs, key=lambda pair: pair[0] / pair[1], reverse=True)


def least(pairs, amount):
  """The least Q-mass at P-mass `amount`, outcome by outcome."""
  total = Fraction(0)
  for p, q in pairs:
    part = min(Fraction(1), amount / p)
    total, amount = total + part * q, amount - part * p
    if amount == 0:
      break
  return total


CASES = [(1, 4, '4/5'), (2, 3, '1/2'), (2, 3, '2/5'), (3, 3, '3/10'), (4, 2, '1/4')]


@pytest.mark.parametrize('levels, dimension, keep', CASES)
def test_thresholds_against_all_outcomes(levels, dimension, keep):
  keep = Fraction(keep)
  for changed in range(dimension + 1):
    pairs = [(q, p) for p, q in outcomes(keep, levels, dimension, changed)]
    assert smoothing.discrete_threshold(keep, levels, changed) == least(pairs, Fraction(1, 2))


@pytest.mark.parametrize('levels, dimension, keep', CASES)
def test_radii_of_two_classes_against_all_outcomes(levels, dimension, keep):
  keep = Fraction(keep)
  radius = smoothing.discrete(keep=keep, levels=levels, shape=(1, dimension, 1)).radius
  worlds = [outcomes(keep, levels, dimension, changed) for changed in range(dimension + 1)]
  seen = set()
  for p_a in (0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.97, 0.999, 1.0):
    for p_b in (None, 0.0, 0.001, 0.02, 0.1, 0.3):
      rival = 1 - Fraction(p_a) if p_b is None else min(Fraction(p_b), 1 - Fraction(p_a))
      holds = [least(pairs, Fraction(p_a)) > 1 - least(pairs, 1 - rival) for pairs in worlds]
      assert holds == sorted(holds, reverse=True), 'more changes must be harder'
      expected = max(sum(holds) - 1, 0)
      assert float(radius(p_a, p_b)) == expected, (p_a, p_b)
      seen.add(expected)
  assert len(seen) > 1


def test_the_comparison_is_exact():
  radius = smoothing.discrete(keep=0.8, levels=1, shape=(28, 28, 1)).radius
  # 7/8 is a float: at the threshold another class may tie, just above it cannot.
  assert float(radius(0.875)) == 0 and float(radius(np.nextafter(0.875, 1))) == 1
  for changed in range(2, 14):
    threshold = smoothing.discrete_threshold(0.8, 1, changed)
    near = float(threshold)
    below = near if near <= threshold else np.nextafter(near, 0)
    assert radius([below, np.nextafter(below, 1)]).tolist() == [changed - 1, changed]


def test_the_dimension_only_caps():
  p = np.append(np.linspace(0.5, 1, 400)[:-1], 0.9999)
  small, large = (
    smoothing.discrete(keep=0.2, shape=shape).radius(p) for shape in ((28, 28, 1), (224, 224, 3))
  )
  np.testing.assert_array_equal(small, large)
  assert large.max() >= 8
  capped = smoothing.discrete(keep=0.2, shape=(1, 2, 1)).radius
  np.testing.assert_array_equal(capped(p), np.minimum(small, 2))
  assert float(capped(1.0)) == 2
  assert float(smoothing.discrete(keep=0.2, shape=(224, 224, 3)).radius(1.0)) == 224 * 224 * 3


def test_thresholds_grow():
  values = [smoothing.discrete_threshold(0.05, 255, radius) for radius in range(0, 60, 3)]
  assert values == sorted(values) and len(set(values)) == len(values) and values[-1] < 1


def test_ten_thousand_radii():
  radius = smoothing.discrete(keep=0.2, shape=(224, 224, 3)).radius
  p = np.linspace(0.4, 0.9999, 10_000)
  r = radius(p)
  assert (np.diff(r) >= 0).all() and (r == np.floor(r)).all() and (r[p <= 0.5] == 0).all()
  assert (radius(p, 1 - np.maximum(p, 0.5)) >= r).all()


def test_a_low_runner_up_helps():
  radius = smoothing.discrete(keep=0.2, shape=(32, 32, 3)).radius
  assert float(radius(0.45, 0.001)) > 0 == float(radius(0.45))
  assert float(radius(0.69, 0.01)) > float(radius(0.69))


def test_sampler_law():
  """Each of 3 x 10^5 draws per grid value; 5 standard errors, 8 values: false alarm below 5e-6."""
  levels, keep = 3, 0.4
  noise = smoothing.discrete(keep=keep, levels=levels, shape=(100, 1000, 1))
  for index in (0, 2, 3):
    x = np.full((100, 1000, 1), index / levels, np.float32)
    z = np.asarray(noise.sample(jax.random.key(index), x)) * levels
    values, counts = np.unique(np.round(z).astype(int), return_counts=True)
    assert values.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(z, np.round(z), atol=1e-6)
    for value, count in zip(values, counts, strict=True):
      p = keep if value == index else (1 - keep) / levels
      assert abs(count / z.size - p) < 5 * math.sqrt(p * (1 - p) / z.size)


def test_images_are_rounded_to_the_grid():
  noise = smoothing.discrete(keep=0.999999, levels=255, shape=(16, 16, 1))
  x = np.random.default_rng(0).uniform(-0.1, 1.1, (16, 16, 1)).astype(np.float32)
  z = np.asarray(noise.sample(jax.random.key(0), x))
  np.testing.assert_allclose(z, np.clip(np.round(x * 255), 0, 255) / 255, atol=1e-6)


def test_protocol_and_unit():
  noise = smoothing.discrete(keep=0.502, levels=1, shape=(5, 4, 1))
  testing.check_smoothing(noise, np.zeros((5, 4, 1), np.float32))
  assert (noise.norm, noise.unit, noise.shape) == ('l0', 'pixels', (5, 4, 1))
  assert smoothing.discrete(keep=0.2, shape=(5, 4, 3)).unit == 'features'


@pytest.mark.parametrize('keep', [0, 1, 0.5, 1.2, -1, np.nan, np.inf])
def test_bad_keep(keep):
  with pytest.raises(ValueError, match='`keep` is the probability of keeping'):
    smoothing.discrete(keep=keep, levels=1, shape=(2, 2, 1))


def test_whole_floats_are_levels():
  """Numbers of the command line come as floats."""
  shape = (2, 2, 1)
  of = lambda levels: smoothing.discrete(keep=0.8, levels=levels, shape=shape)
  assert of(1.0).radius(0.99) == of(1).radius(0.99) == 2
  key, x = jax.random.key(0), np.ones(shape, np.float32)
  np.testing.assert_array_equal(of(3.0).sample(key, x), of(3).sample(key, x))
  with pytest.raises(ValueError, match='`levels` is K of the grid'):
    of(1.5)


def test_bad_levels_shape_and_radius():
  with pytest.raises(ValueError, match='`levels` is K of the grid'):
    smoothing.discrete(keep=0.5, levels=0, shape=(2, 2, 1))
  with pytest.raises(ValueError, match='`shape`'):
    smoothing.discrete(keep=0.5, shape=(0, 2, 1))
  with pytest.raises(ValueError, match='`radius` is a number of changed coordinates'):
    smoothing.discrete_threshold(0.5, 255, -1)
