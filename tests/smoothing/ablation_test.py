"""Randomized ablation: exact thresholds, an exhaustive adversary, the law of the subsets."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from certjax import certify, smoothing, testing
from certjax.smoothing import _ablation

MNIST = (28, 28, 1)


def law(num_pixels, keep, channels=1):
  return smoothing.ablation(keep=keep, shape=(1, num_pixels, channels))


@pytest.mark.parametrize(
  'num_pixels, keep, radius, expected',
  [
    (784, 45, 8, Fraction(988_217_074_027, 2_613_201_154_473)),
    (1024, 75, 1, Fraction(75, 1024)),
    (10, 3, 2, Fraction(8, 15)),
    (6, 2, 2, Fraction(3, 5)),
    (7, 3, 1, Fraction(3, 7)),
    (64, 4, 9, Fraction(98_107, 211_792)),
    (784, 45, 740, Fraction(1)),
    (784, 45, 0, Fraction(0)),
  ],
)
def test_changes(num_pixels, keep, radius, expected):
  assert smoothing.ablation_change(num_pixels, keep, radius) == expected


def test_changes_against_the_printed_ones():
  mnist = (
    '0 .0573979592 .1115704903 .1626949505 .2109391595 .2564619003 .2994133952 .3399357566 .3781634155 '
    '.4142235267 .4482363542 .4803156359'
  )
  found = [float(smoothing.ablation_change(784, 45, radius)) for radius in range(12)]
  np.testing.assert_allclose(found, [float(text) for text in mnist.split()], atol=5e-11)
  for size, keep, radius, expected in (
    (1024, 75, 7, 0.4137851731), (1024, 75, 8, 0.4570163550),
    (50_176, 1000, 1, 0.0199298469), (50_176, 1000, 16, 0.2754080754),
  ):  # fmt: skip
    assert abs(smoothing.ablation_change(size, keep, radius) - expected) < 5e-11


@pytest.mark.parametrize('num_pixels, keep', [(6, 2), (7, 3), (5, 1)])
def test_changes_count_the_subsets(num_pixels, keep):
  subsets = list(itertools.combinations(range(num_pixels), keep))
  for radius in range(num_pixels + 1):
    met = sum(min(chosen) < radius for chosen in subsets)
    assert smoothing.ablation_change(num_pixels, keep, radius) == Fraction(met, len(subsets))


@pytest.mark.parametrize('shape, keep', [(MNIST, 45), ((32, 32, 3), 75), ((224, 224, 3), 1000)])
def test_the_comparison_is_exact(shape, keep):
  """At the last float that does not exceed 1/2 + Delta a radius is not proved, at the next it is."""
  radius, num_pixels = smoothing.ablation(keep=keep, shape=shape).radius, math.prod(shape[:2])
  for changed in range(1, 10):
    threshold = Fraction(1, 2) + smoothing.ablation_change(num_pixels, keep, changed)
    near = float(threshold)
    below = near if near <= threshold else np.nextafter(near, 0)
    assert radius([below, np.nextafter(below, 1)]).tolist() == [changed - 1, changed]


def test_fewest_votes_of_each_radius():
  """Published thresholds: N = 10,000 or 1000 at alpha = .05, no radius above 11."""
  noise = smoothing.ablation(keep=45, shape=MNIST)
  for samples, needed in (
    (10_000, [5083, 5657, 6197, 6706, 7185, 7636, 8061, 8460, 8836, 9189, 9520, 9827]),
    (1000, [527, 584, 638, 688, 735, 780, 821, 860, 896, 930, 960, 988]),
  ):
    needed = np.array(needed)
    for votes, radius in ((needed, np.arange(12)), (needed - 1, np.arange(-1, 11))):
      counts = np.stack([votes, samples - votes], axis=1)
      proof = certify.from_votes(noise, np.zeros(12, int), counts, num_samples=samples, alpha=0.05)
      assert proof.label.tolist() == [0 if r >= 0 else certify.ABSTAIN for r in radius]
      assert proof.radius.tolist() == np.maximum(radius, 0).tolist()


@pytest.mark.parametrize(
  'num_pixels, keep, ceiling',
  [(784, 5, 101), (784, 20, 26), (784, 45, 11), (784, 100, 5), (1024, 75, 9), (50_176, 1000, 34)],
)
def test_ceilings(num_pixels, keep, ceiling):
  assert certify.largest_radius(law(num_pixels, keep), 10_000, 0.05) == ceiling


def test_votes_for_and_against():
  """Clopper-Pearson and PREDICT at the paper's alpha = .05."""
  noise = smoothing.ablation(keep=45, shape=MNIST)
  bound = certify.clopper_pearson([10_000, 9000, 8000, 5082], 10_000, alpha=0.05)
  np.testing.assert_allclose(
    bound, [0.9997004716, 0.8949288834, 0.7933062931, 0.4999258], atol=5e-8
  )
  assert noise.radius(bound).tolist() == [11, 8, 5, 0]
  votes = np.array([[5099, 4901], [5098, 4902], [61, 39], [60, 40]])
  assert certify.label_from_votes(votes, alpha=0.05).tolist() == [0, -1, 0, -1]


def test_a_low_runner_up_helps():
  radius = smoothing.ablation(keep=45, shape=MNIST).radius
  assert (float(radius(0.8)), float(radius(0.8, 0.1))) == (6, 7)
  assert float(radius(0.4, 0.05)) == 3 and float(radius(0.4)) == 0
  assert float(radius(0.8, 0.5)) == 6, 'p_b is never more than 1 - p_a'
  counts = np.array([[450, 20, 530 - 20]])  # No majority, a clear lead over one of two.
  options = {'num_samples': 1000, 'alpha': 0.05}
  noise = smoothing.ablation(keep=45, shape=MNIST)
  assert certify.from_votes(noise, [0], counts, runner_up=True, **options).label.item() == -1
  spread = np.array([[450, *[110] * 5]])
  proof = certify.from_votes(noise, [0], spread, runner_up=True, **options)
  assert (proof.label.item(), proof.radius.item()) == (0, 2)
  assert certify.from_votes(noise, [0], spread, **options).label.item() == -1


@pytest.mark.parametrize('num_pixels, keep', [(4, 1), (5, 2), (6, 1), (7, 1), (8, 1)])
def test_no_adversary_beats_the_radius(num_pixels, keep):
  """All classifiers of the subsets into three classes, and all sets of changed pixels.

  The strongest adversary makes every subset that meets his pixels vote for one rival. Where the rival
  has all other votes, he succeeds at one pixel more than is certified: no larger radius exists.
  """
  subsets = list(itertools.combinations(range(num_pixels), keep))
  total, names = len(subsets), 3 if keep == 1 else 2
  votes = np.array(list(itertools.product(range(names), repeat=total)), np.int8)
  counts = np.stack([(votes == name).sum(axis=1) for name in range(3)], axis=1)
  rival = counts[:, 1:].max(axis=1)
  p_a, p_b = np.nextafter(counts[:, 0] / total, 0), np.nextafter(rival / total, 1)
  radius = law(num_pixels, keep).radius
  one, two = radius(p_a), radius(p_a, p_b)
  lost = np.zeros((num_pixels + 1, len(votes)), bool)
  for changed in range(num_pixels + 1):
    for pixels in itertools.combinations(range(num_pixels), changed):
      met = np.array([bool(set(pixels) & set(chosen)) for chosen in subsets])
      left = np.stack([((votes == name) & ~met).sum(axis=1) for name in range(3)])
      lost[changed] |= left[0] <= left[1:].max(axis=0) + met.sum()
  first = np.argmax(lost, axis=0)  # The fewest pixels that take the lead; all of them do.
  leads = counts[:, 0] > rival
  assert (one[leads] < first[leads]).all() and (two[leads] < first[leads]).all()
  assert (two >= one).all() and (two[~leads] == 0).all()
  for majority in range(total // 2 + 1, total + 1):
    same = (counts[:, 0] == majority) & (counts[:, 1] == total - majority)
    assert first[same].min() == one[same][0] + 1
  assert one.max() > 0 and ((two > one).any() or num_pixels in (4, 5, 7))


def test_changing_all_channels_of_a_pixel_is_one_pixel():
  """Views that hide the changed pixel are the same bit for bit, and there are 1 - Delta of them."""
  noise = smoothing.ablation(keep=2, shape=(2, 3, 3))
  x = np.random.default_rng(0).uniform(size=(2, 3, 3)).astype(np.float32)
  other = x.copy()
  other[1, 2] = 1 - other[1, 2]
  sample = jax.jit(jax.vmap(noise.sample, (0, None)))
  keys = jax.random.split(jax.random.key(0), 4000)
  alike = np.all(np.asarray(sample(keys, x) == sample(keys, other)), axis=(1, 2, 3)).mean()
  # Delta = 2/6; five standard errors of 4000 draws: false alarm below 1e-6.
  assert abs(alike - 2 / 3) < 5 * math.sqrt(2 / 9 / 4000)
  assert noise.unit == 'pixels' and noise.norm == 'l0'


def test_certified_from_end_to_end():
  """A classifier whose exact vote is known: the certificate never exceeds the exact radius.

  It says 0 if a bright pixel is shown: p_0 = 1 - C(9 - 5, 2) / C(9, 2) = 5/6, and the adversary
  darkens pixels. Each bound fails with probability 1e-3; the key is fixed.
  """
  x = np.zeros((1, 3, 3, 1), np.float32)
  x.reshape(-1)[:5] = 1
  model_fn = lambda z: jnp.stack([z[..., 0].sum((1, 2)), 0.5 + 0 * z[:, 0, 0, 0]], axis=1)
  noise = smoothing.ablation(keep=2, shape=(3, 3, 1))
  options = {'num_samples': 4000, 'num_selection': 1000, 'chunk': 500}
  proof = certify.sampled(jax.random.key(0), model_fn, noise, x, **options)
  assert (proof.label.item(), proof.radius.item()) == (0, 1)
  darker = x.copy()
  darker.reshape(-1)[:2] = 0  # 1 - C(6, 2) / C(9, 2) = 7/12: the label stays, radius 0.
  proof = certify.sampled(jax.random.key(0), model_fn, noise, darker, **options)
  assert (proof.label.item(), proof.radius.item()) == (0, 0)
  testing.check_certificate(proof, 2)


def test_subsets_are_uniform():
  """Chi-square over the 10 subsets of 2 of 5, and over the 4 of 3 of 4: false alarm 1e-4 each."""
  for size, keep in ((5, 2), (4, 3)):
    keys = jax.random.split(jax.random.key(size), 20_000)
    draw = lambda key, size=size, keep=keep: _ablation.subset(key, size, keep)
    chosen = np.asarray(jax.jit(jax.vmap(draw))(keys))
    assert (chosen.sum(axis=1) == keep).all()
    _, counts = np.unique(chosen @ 2 ** np.arange(size), return_counts=True)
    assert len(counts) == math.comb(size, keep)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_each_pixel_is_shown_as_often():
  """784 pixels, 20,000 draws; 6 standard errors at the most extreme of 784: false alarm 2e-6."""
  noise = smoothing.ablation(keep=45, shape=MNIST)
  draw = jax.jit(lambda keys: jax.vmap(noise.sample, (0, None))(keys, jnp.ones(MNIST))[..., 0])
  shown = np.concatenate(
    [np.asarray(draw(jax.random.split(jax.random.key(i), 2000))) for i in range(10)]
  ).reshape(-1, 784)
  assert (shown.sum(axis=1) == 45).all()
  share, p = shown.mean(axis=0, dtype=np.float64), 45 / 784
  assert np.abs(share - p).max() < 6 * math.sqrt(p * (1 - p) / len(shown))


def test_how_hidden_pixels_look():
  x = np.random.default_rng(0).uniform(size=(3, 4, 3)).astype(np.float32)
  key = jax.random.key(1)
  two = np.asarray(smoothing.ablation(keep=5, shape=x.shape).sample(key, x))
  shown = two.any(axis=-1)
  assert two.shape == (3, 4, 6) and shown.sum() == 5
  np.testing.assert_array_equal(two[shown], np.concatenate([x, 1 - x], axis=-1)[shown])
  mean = (0.25, 0.5, 0.75)
  one = np.asarray(smoothing.ablation(keep=5, shape=x.shape, null='mean', mean=mean).sample(key, x))
  np.testing.assert_array_equal(one, np.where(shown[..., None], x, np.float32(mean)))
  grey = smoothing.ablation(keep=5, shape=x.shape, null='mean', mean=0.5).sample(key, x)
  np.testing.assert_array_equal(np.asarray(grey)[~shown], 0.5)


def test_nothing_is_proved_by_nonsense():
  radius = smoothing.ablation(keep=5, shape=MNIST).radius
  assert radius([np.nan, 0.5, -1, 2, np.inf]).tolist() == [0] * 5
  assert radius(0.9, [np.nan, 0.9, 0.95, -0.1, np.inf]).tolist() == [0] * 5
  testing.check_radius(radius)


@pytest.mark.parametrize(
  'options, said',
  [
    (dict(keep=0), '`keep` is how many of the 16 pixels are shown, a whole number in 1 .. 7'),
    (dict(keep=8), 'half of them certify nothing'),
    (dict(keep=2.5), 'keep=2.5'),
    (dict(keep=np.nan), 'keep=nan'),
    (dict(keep='many'), 'keep=many'),
    (dict(keep=2, null='black'), "`null` must be one of multichannel, mean, got 'black'"),
    (dict(keep=2, null='mean'), '`mean` goes with null'),
    (dict(keep=2, mean=0.5), '`mean` goes with null'),
    (dict(keep=2, null='mean', mean=(0.5, 0.5)), 'one for each of the 3 channels'),
    (dict(keep=2, null='mean', mean=np.nan), 'one finite number'),
    (dict(keep=2, shape=(4,)), r'`shape` must be \(H, W, C\)'),
  ],
)
def test_bad_arguments(options, said):
  with pytest.raises(ValueError, match=said):
    smoothing.ablation(**{'shape': (4, 4, 3), **options})


@pytest.mark.parametrize('keep, radius', [(4, 1.5), (4, -1), (11, 1), (4, 11)])
def test_bad_changes(keep, radius):
  with pytest.raises(ValueError, match='is a number of the 10 pixels, 0 .. 10'):
    smoothing.ablation_change(10, keep, radius)


def test_default_is_the_share_of_the_paper():
  x = jnp.ones(MNIST)
  shown = smoothing.ablation(shape=MNIST).sample(jax.random.key(0), x)
  assert int(shown[..., 0].sum()) == 45
  assert float(smoothing.ablation(keep=45.0, shape=MNIST).radius(0.9)) == 8
