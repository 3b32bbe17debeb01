"""Recipes that train presets and certify them, at a tiny size: their rows against counts of their own."""

import dataclasses
import json
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn import datasets

from certjax import certify, configs, data, evaluate, report, reproduce, smoothing, train
from certjax.reproduce import (
  _ablation,
  _ablation_vs_lee,
  _certified,
  _patch_bands,
  _wasserstein,
)

pytestmark = pytest.mark.usefixtures('many_programs')
_SAMPLING = _certified.Sampling(20, 200, 0.05, chunk=200)
_SMALL = {'model': 'mlp-255', 'learning_rate': 0.003}
PRESETS = {
  name: dataclasses.replace(preset, **_SMALL) for name, (_, preset) in configs.PRESETS.items()
}


@pytest.fixture(scope='module')
def request_in(tmp_path_factory, data_dir):
  """`request_in(name, **changed)`: a quick request with small networks, a folder for each name."""
  base = tmp_path_factory.mktemp('recipes')
  given = {'scale': 'quick', 'data_dir': data_dir, 'presets': PRESETS}
  return lambda name, **changed: reproduce.Request(**{**given, 'out': base / name, **changed})


def lines_of(request, where):
  """The records of a run, as they lie in its file."""
  text = (request.out / where / 'records.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()[1:]]


def lower(line):
  """scipy's bound on the probability of the selected class."""
  count = line['count']
  return stats.beta.ppf(0.05, count, 200 - count + 1) if count else 0.0


def answers(lines):
  """(right, abstained) of PREDICT, by scipy's exact test."""
  right = abstained = 0
  for line in lines:
    two = line['count'], line['runner_up_count']
    if stats.binomtest(max(two), sum(two)).pvalue > 0.05:
      abstained += 1
    else:
      right += two[0] > two[1] and line['candidate'] == line['label']
  return right, abstained


def median(proved):
  """Of radii, -1 where the image is lost; None where the upper of the two in the middle is."""
  middle = sorted(proved)[len(proved) // 2]
  return middle if middle >= 0 else None


# ablation-k-mnist, ablation-encodings

SHOWN = _ablation.Plan('digits', 'ablation-mnist-quick', 12, {45: 20, 5: 9}, 24, _SAMPLING)


@pytest.fixture(scope='module')
def shown(request_in):
  """(request, result) of two models under ablation."""
  request = request_in('shown', seed=1)
  return request, _ablation.run_shown(request, plan=SHOWN)


def ablated_pixels(line, keep):
  """The certified pixels of a record by the theorem, -1 where the label is not proved."""
  p = Fraction(lower(line))
  if line['candidate'] != line['label'] or p <= Fraction(1, 2):
    return -1
  radius = 0
  while p > Fraction(3, 2) - Fraction(math.comb(64 - radius - 1, keep), math.comb(64, keep)):
    radius += 1
  return radius


def test_certified_pixels_are_the_theorems_for_the_recorded_votes(shown):
  request, result = shown
  rows = iter(result.rows)
  for beside, keep in SHOWN.shown.items():
    lines = lines_of(request, f'keep-{keep}')
    proved = [ablated_pixels(line, keep) for line in lines]
    right, abstained = answers(lines)
    found = [next(rows) for _ in range(3)]
    assert [row.ours for row in found] == [median(proved), right / 24, abstained / 24]
    assert all(row.number.endswith(f'published k = {beside}') for row in found)
    assert {row.dataset for row in found} == {'digits'} and {row.seed for row in found} == {1}
  assert next(rows, None) is None
  assert result.rows[0].ours is not None  # Else the medians say nothing.
  assert {reproduce.verdict(row) for row in result.rows} <= {'another setting', ''}
  assert result.rows[3].published is None  # No median is published at k = 5.


def test_recorded_votes_are_those_of_the_trained_model(shown):
  request, _ = shown
  law, model_fn = (
    smoothing.ablation(keep=20, shape=(8, 8, 1)),
    train.load_run(request.out / 'keep-20').model_fn,
  )
  images = _certified.images_of(request, 'digits', 24)
  options = {'num_samples': 200, 'alpha': 0.05, 'num_selection': 20, 'chunk': 200}
  proof = certify.sampled(
    jax.random.key(1), model_fn, law, data.to_float(images.images), index=images.index, **options
  )
  lines = lines_of(request, 'keep-20')
  assert proof.label.tolist() == [line['predict'] for line in lines]
  assert proof.radius.tolist() == [line['radius'] for line in lines]


def test_the_same_request_continues_and_another_refuses(shown):
  request, result = shown
  path = request.out / 'keep-9' / 'records.jsonl'
  before = path.read_text()
  path.write_text(''.join(before.splitlines(keepends=True)[:-3]))  # As if it had been killed.
  assert _ablation.run_shown(request, plan=SHOWN).rows == result.rows
  assert path.read_text() == before
  more = SHOWN._replace(sampling=_SAMPLING._replace(num_samples=300))
  with pytest.raises(ValueError, match='num_samples is 200 there and 300 here'):
    _ablation.run_shown(request, plan=more)


def test_the_published_setting_is_the_papers():
  plan = _ablation.PLANS['full']
  preset = configs.PRESETS[plan.preset][1]
  assert plan.is_published and plan.dataset == 'mnist' and plan.num_images == 10_000
  assert plan.sampling[:3] == (1000, 10_000, 0.05) and plan.num_epochs == preset.num_epochs == 400
  assert preset.model == 'ablation-cnn' and preset.batch_size == 128
  assert [f'k = {keep}' for keep in plan.shown.values()] == list(
    reproduce.numbers('ablation-accuracy')
  )


def test_hidden_pixels_are_the_mean_grey_of_the_training_images(request_in):
  request = request_in('nulls')
  plan = SHOWN._replace(shown={45: 20})
  result = _ablation.run_nulls(request, plan=plan)
  digits = datasets.load_digits()
  grey = data.load('digits', 'train', data_dir=request.data_dir).images.mean() / 255
  assert abs(grey - digits.images.mean() / 16) < 0.01  # Of all 1,797, to the rounding of 8 bits.
  config = train.read_config(request.out / 'keep-20-mean')
  assert config['parameters'] == {'keep': 20, 'null': 'mean', 'mean': round(float(grey), 4)}
  for null, rows in (('multichannel', result.rows[:3]), ('mean', result.rows[3:])):
    lines = lines_of(request, f'keep-20-{null}')
    right, abstained = answers(lines)
    proved = median([ablated_pixels(line, 20) for line in lines])
    assert [row.ours for row in rows] == [proved, right / 24, abstained / 24]
    assert all(row.number.endswith(null) for row in rows)


# ablation-vs-lee


def least_chance(p, radius, kept, levels):
  """Lee et al.'s certificate by all counts of `radius` coordinates: what p at x leaves at x'."""
  other = (1 - kept) / levels
  cells = []
  for ours in range(radius + 1):
    for theirs in range(radius + 1 - ours):
      third = radius - ours - theirs
      number = math.comb(radius, ours) * math.comb(radius - ours, theirs)
      rest = ((levels - 1) * other) ** third
      cells.append(
        (number * kept**ours * other**theirs * rest, number * kept**theirs * other**ours * rest)
      )
  left, chance = Fraction(p), Fraction(0)
  for here, there in sorted(
    cells, key=lambda cell: (cell[0] / cell[1]) if cell[1] else 0, reverse=True
  ):
    share = min(left, here) / here if here else 0
    left, chance = left - share * here, chance + share * there
  return chance


def test_thresholds_agree_and_ceilings_are_those_of_a_count(request_in, monkeypatch):
  proof = certify.Certificate(np.array([3, 1, 7]), np.array([2.0, 4.0, 1.0]))
  asked = []

  def stub(request, plan, images, where, law, method, parameters):
    asked.append((law, method, parameters))
    return report.Run(where, np.arange(3), np.array([3, 1, 7]), proof)

  monkeypatch.setattr(_ablation_vs_lee, 'certified_under', stub)
  result = _ablation_vs_lee.run(request_in('lee'))
  rows = {row.number: row for row in result.rows}
  said = [reproduce.verdict(row) for row in result.rows]
  assert said == ['agrees'] * 16 + [''] * 4 + ['another setting'] * 3
  kept, p = Fraction(45, 784), Fraction(0.05 ** (1 / 10_000)) - Fraction(1, 10**12)
  q = float(kept)
  bits = 784 * (8 + q * math.log2(q) + (1 - q) * math.log2((1 - q) / 255))
  assert rows['information of what is seen, ablation'].ours == 360
  assert rows['information of what is seen, Lee et al.'].ours == pytest.approx(bits, rel=1e-9)
  assert bits < 360
  assert rows['largest radius that votes can certify, ablation'].ours == 11
  most = rows['largest radius that votes can certify, Lee et al.'].ours
  half = Fraction(1, 2)
  assert least_chance(p, int(most), kept, 255) > half >= least_chance(p, int(most) + 1, kept, 255)
  assert [row.ours for row in result.rows[-3:]] == [2.0] * 3
  (_, _, ablation), _, (_, _, lee) = asked
  assert lee['keep'] * 64 == pytest.approx(ablation['keep'], abs=0.01) and lee['levels'] == 255


def test_a_wrong_threshold_is_seen(request_in, monkeypatch):
  true = smoothing.discrete_threshold
  monkeypatch.setattr(
    smoothing, 'discrete_threshold', lambda *more: true(*more) * Fraction(999_999, 10**6)
  )
  rows = list(_ablation_vs_lee._thresholds())
  assert {reproduce.verdict(row) for row in rows} == {'differs'}


# wasserstein-mnist


def test_radii_of_mass_are_the_published_formula_for_the_recorded_votes(request_in):
  plan = _wasserstein.Plan('digits', 12, (0.02,), 24, _SAMPLING)
  request = request_in('mass')
  result = _wasserstein.run(request, plan=plan)
  assert [reproduce.verdict(row) for row in result.rows[:9]] == ['agrees'] * 9
  lines, scale = lines_of(request, 'sigma-0.02'), 0.02 / math.sqrt(2)
  bounds = {
    'levine': lambda p: scale / 2 * math.log(p / (1 - p)),
    'tight': lambda p: -scale * math.log(2 * (1 - p)),
  }
  rows = {row.number: row.ours for row in result.rows[9:]}
  for ground, shorter in (('l2', math.sqrt(2)), ('l1', 1.0)):
    for bound, radius in bounds.items():
      name = f'ground distance {ground}, bound {bound}, sigma 0.02'
      proved = [
        radius(lower(line)) / shorter
        if lower(line) > 0.5 and line['candidate'] == line['label']
        else -1
        for line in lines
      ]
      assert median(proved) is not None
      assert rows[f'median certified radius, {name}'] == pytest.approx(median(proved), rel=1e-9)
      most = radius(0.05 ** (1 / 200)) / shorter
      most_row = rows[f'largest radius that the votes can certify, {name}']
      assert most_row == pytest.approx(most, rel=1e-9)
  right, abstained = answers(lines)
  assert rows['accuracy, sigma 0.02'] == right / 24
  assert rows['abstained, sigma 0.02'] == abstained / 24


def test_another_bound_proves_what_certification_under_it_does(request_in):
  noise = smoothing.gaussian(sigma=0.5)
  lines = [{'candidate': c, 'count': n} for c, n in ((3, 150), (1, 100), (7, 200), (2, 0))]
  proof = evaluate.recertified(lines, noise, num_samples=200, alpha=0.05)
  bound = [stats.beta.ppf(0.05, n, 201 - n) for n in (150, 200)]
  assert proof.label.tolist() == [3, -1, 7, -1]
  np.testing.assert_allclose(
    proof.radius, [0.5 * special.ndtri(bound[0]), 0, 0.5 * special.ndtri(bound[1]), 0], rtol=1e-9
  )


# patch-bands-mnist


def test_patches_are_counted_band_by_band(request_in):
  plan = _patch_bands.Plan('digits', 12, 2, {2: 1, 5: 2}, 24)
  request = request_in('bands')
  result = _patch_bands.run(request, plan=plan)
  images = _certified.images_of(request, 'digits', 24)
  x, model_fn = data.to_float(images.images), train.load_run(request.out / 'model').model_fn
  columns = np.arange(8)
  seen = ((columns[None] - columns[:, None]) % 8 < 2)[:, None, :, None]  # [view, 1, column, 1]
  both = np.concatenate([x, 1 - x], axis=-1)
  views = np.where(seen[None], both[:, None], 0).astype(np.float32)
  logits = np.asarray(jax.jit(lambda f, v: f(v))(model_fn, views.reshape(-1, 8, 8, 2)))
  softmax = np.asarray(jax.nn.softmax(jnp.asarray(logits))).reshape(24, 8, 10)
  found = {row.number: row.ours for row in result.rows}
  certified = 0
  for theta in (0.2, 0.3):
    votes = softmax >= theta
    for theirs, side in plan.sides.items():
      right = {'counts': 0, 'places': 0}
      for image, label in zip(votes, images.labels, strict=True):
        right['counts'] += by_counts(image, label, side + 1)
        right['places'] += all(
          by_counts_left(image, label, np.arange(place - 1, place + side) % 8)
          for place in range(8 - side + 1)
        )
      for rule, number in right.items():
        name = f'certified accuracy, theta {theta}, rule of {rule}, {side} x {side}, beside patch-ibp at {theirs} x {theirs}'
        assert found[name] == number / 24
      assert right['places'] >= right['counts']
      certified += right['counts']
  assert certified > 0
  assert {reproduce.verdict(row) for row in result.rows} == {'another setting', ''} - {''}
  assert {row.published.dataset for row in result.rows} == {'mnist', 'cifar10'}


def by_counts(votes, label, affected):
  """The published rule: the lead is at least twice the bands that a patch meets."""
  counts = votes.sum(axis=0)
  rest = [(counts[c] + 2 * affected + (c < label)) for c in range(10) if c != label]
  return bool(counts.sum() and counts[label] >= max(rest))


def by_counts_left(votes, label, met):
  """No votes of the bands that are met can raise another class above the label's others."""
  left = np.delete(votes, met, axis=0).sum(axis=0)
  rest = [left[c] + len(met) + (c < label) for c in range(10) if c != label]
  return bool(left[label] >= max(rest))
