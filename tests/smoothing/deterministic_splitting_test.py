"""Deterministic splitting: published levels and counts, the integer rule against brute force."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, smoothing, testing

LEVELS = {
  0.15: 132, 0.25: 220, 0.5: 441, 0.75: 662, 1.0: 883, 1.25: 1104, 1.5: 1325, 1.75: 1545, 2.0: 1766,
  2.25: 1987, 2.5: 2208, 2.75: 2429, 3.0: 2650, 3.25: 2870, 3.5: 3091,
}  # fmt: skip
LARGEST = [66, 110, 220, 331, 441, 552, 662, 772, 883, 993, 1104, 1214, 1325, 1435, 1545]


def views_of(**options):
  return smoothing.deterministic_splitting(**{'shape': (2, 2, 1), **options})


def all_views(views, x):
  """[L, B, ...], every view of every image."""
  seen = jax.jit(jax.vmap(jax.vmap(views.view, (0, None)), (None, 0)))
  return np.asarray(seen(jnp.asarray(x, jnp.float32), jnp.arange(views.num_views)))


def test_published_numbers_of_views_and_largest_certificates():
  for (sigma, levels), largest in zip(LEVELS.items(), LARGEST, strict=True):
    views = views_of(sigma=sigma)
    assert views.num_views == levels
    assert steps(views, [levels, 0]) == (0, levels // 2) == (0, largest)


def test_number_of_views_of_decimal_fractions():
  """lam = k / 510 leaves exactly k views, whatever k / 510 is rounded to."""
  assert [views_of(lam=k / 510).num_views for k in range(1, 2000)] == list(range(1, 2000))
  for lam, quantization, levels in ((0.7, 255, 357), (0.29, 100, 58), (2.3, 100, 460), (0.5, 3, 3)):
    assert views_of(lam=lam, quantization=quantization).num_views == levels
  for sigma in (0.12, 0.3, 0.9, 2.2):  # Exact: floor(sqrt(12 sigma^2 255^2)).
    square = 12 * Fraction(str(sigma)) ** 2 * 255**2
    assert views_of(sigma=sigma).num_views == math.isqrt(square.numerator // square.denominator)


def steps(views, counts):
  proof = views.decide(counts)
  return int(proof.label), round(float(proof.radius) * views.quantization)


@pytest.mark.parametrize(
  'counts, expected',
  [
    ([441, 0], (0, 220)), ([0, 441], (1, 220)), ([221, 220], (0, 0)), ([220, 221], (1, 0)),
    ([300, 100, 41], (0, 100)), ([41, 100, 300], (2, 99)), ([147, 147, 147], (0, 0)),
  ],
)  # fmt: skip
def test_reference_counts(counts, expected):
  assert steps(views_of(sigma=0.5), counts) == expected


@pytest.mark.parametrize('num_classes, largest', [(2, 40), (3, 24), (4, 13), (5, 9)])
def test_rule_is_the_smallest_number_of_votes_that_changes_the_label(num_classes, largest):
  """Exhaustive: all counts of `num_views` votes against all others, 9,394 cases in all."""
  views = views_of(lam=1.0)
  for num_views in range(1, largest + 1):
    rows = itertools.product(range(num_views + 1), repeat=num_classes - 1)
    counts = np.array([[*row, num_views - sum(row)] for row in rows if sum(row) <= num_views])
    proof, label = views.decide(counts), np.argmax(counts, axis=1)
    distance = np.abs(counts[:, None] - counts).sum(-1) // 2  # Votes that differ.
    other = np.where(label[:, None] != label, distance, num_views + 1).min(axis=1)
    np.testing.assert_array_equal(proof.label, label)
    np.testing.assert_array_equal(np.round(proof.radius * 255), other - 1)
    testing.check_certificate(proof, num_classes)


def test_radii_are_rounded_down_and_whole_numbers_stay():
  for quantization in (3, 10, 255, 256, 1000):
    views = views_of(lam=3.0, quantization=quantization)
    k = np.arange(views.num_views // 2 + 1)
    radius = views.decide(np.stack([k + k, 0 * k], axis=1) + [[1, 1]]).radius
    for number, value in zip(k, radius, strict=True):
      truth = Fraction(int(number), quantization)
      assert Fraction(value) <= truth < Fraction(np.nextafter(value, np.inf))
    assert radius[quantization] == 1


def test_nobody_votes():
  proof = views_of(sigma=0.5).decide([[0, 0], [1, 0]])
  assert proof.label.tolist() == [certify.ABSTAIN, 0] and (proof.radius == 0).all()


@pytest.mark.parametrize('lam, quantization', [(0.5, 255), (0.2588, 255), (0.866, 255), (1.4, 16)])
def test_views_are_those_of_the_paper(lam, quantization):
  """s_i = ((v_i + j) mod L + 1/2) / q and the two formulas of splitting noise, in float64."""
  views = views_of(lam=lam, quantization=quantization, shape=(3, 2, 4))
  L, q = views.num_views, quantization
  template = np.random.RandomState(0).randint(L, size=24).reshape(4, 3, 2).transpose(1, 2, 0)
  x = np.random.default_rng(0).integers(0, q + 1, (5, 3, 2, 4)) / q
  s = ((template + np.arange(L).reshape(-1, 1, 1, 1, 1)) % L + 0.5) / q
  if q <= L:
    expected = (np.minimum(s, 1) + (x > s)) / 2
  else:
    c = (np.ceil(np.round((x - s) * q * 2) / (2 * L)) * L) / q + s
    expected = (np.minimum(c, 1) + np.maximum(c - L / q, 0)) / 2
  np.testing.assert_allclose(all_views(views, x), expected, atol=1e-6)


def test_seed_is_part_of_the_classifier():
  x = np.full((1, 2, 2, 1), 0.2)
  one, same, other = (all_views(views_of(lam=0.6, seed=seed), x) for seed in (0, 0, 1))
  assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize('levels, low, high, expected', [
  (441, 100, 120, 20), (132, 100, 120, 20), (132, 0, 255, 132), (441, 0, 255, 255),
])  # fmt: skip
def test_number_of_views_that_tell_two_pixels_apart(levels, low, high, expected):
  views = views_of(lam=levels / 510, shape=(1, 1, 1))
  seen = all_views(views, np.array([low, high]).reshape(2, 1, 1, 1) / 255)[:, :, 0, 0, 0]
  assert np.sum(seen[:, 0] != seen[:, 1]) == expected


@pytest.mark.parametrize('lam', [0.02, 0.3, 0.5, 0.8, 2.0])
def test_one_step_of_any_coordinate_changes_at_most_one_view(lam):
  """All 255 steps of each of 4 coordinates, the others at random; exactly one where L >= 1."""
  views = views_of(lam=lam)
  rng = np.random.default_rng(0)
  for site in range(4):
    base = np.repeat(rng.integers(0, 256, (1, 4)), 256, axis=0)
    base[:, site] = np.arange(256)
    seen = all_views(views, base.reshape(256, 2, 2, 1) / 255).reshape(views.num_views, 256, 4)
    changed = np.any(seen[:, 1:] != seen[:, :-1], axis=2).sum(axis=0)
    assert (changed == 1).all()


@pytest.mark.parametrize('lam, quantization', [(0.4, 3), (1.0, 3), (0.9, 2)])
def test_views_that_differ_are_no_more_than_the_steps(lam, quantization):
  """Every pair of images of three pixels: views that differ <= L1 distance in steps."""
  views = views_of(lam=lam, quantization=quantization, shape=(1, 3, 1))
  images = np.array(list(itertools.product(range(quantization + 1), repeat=3)))
  seen = all_views(views, images.reshape(-1, 1, 3, 1) / quantization).reshape(
    views.num_views, -1, 3
  )
  differ = np.any(seen[:, :, None] != seen[:, None], axis=-1).sum(axis=0)
  distance = np.abs(images[:, None] - images).sum(axis=-1)
  assert (differ <= distance).all() and (differ == distance).any()


def test_sample_draws_every_view_evenly():
  """700 draws of 7 views: a frequency off by 5 standard errors has probability below 1e-5."""
  views = views_of(lam=0.5, quantization=7)
  x = np.array([0, 2, 5, 7]).reshape(2, 2, 1) / np.float32(7)
  every = all_views(views, x[None])[:, 0]
  drawn = jax.jit(jax.vmap(views.sample, (0, None)))(jax.random.split(jax.random.key(0), 700), x)
  same = np.all(np.asarray(drawn)[:, None] == every, axis=(2, 3, 4))
  assert same.any(axis=1).all() and len(np.unique(every, axis=0)) == 7
  assert (np.abs(same.sum(axis=0) - 100) <= 5 * np.sqrt(700 * 6 / 49)).all()


@pytest.mark.parametrize(
  'options, said',
  [
    ({}, 'exactly one of `lam` and `sigma`'),
    (dict(lam=1.0, quantization=2.5), 'an integer >= 1, got 2.5'),
    (dict(lam=0.001), r'lam=0.001 is less than half a step of 1/255'),
    (dict(lam=1.0, shape=5), 'must be the shape of an image'),
  ],
)
def test_bad_arguments(options, said):
  with pytest.raises(ValueError, match=said):
    views_of(**options)
