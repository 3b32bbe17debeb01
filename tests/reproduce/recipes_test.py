"""Each recipe at a small size, its numbers against an oracle or a closed form."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from certjax import certify, configs, data, poisoning, report, reproduce, smoothing
from certjax.reproduce import (
  _cohen,
  _landscape,
  _naive_partitioning,
  _partition_aggregation,
  _smoothed_regions,
  _soc_approximation_error,
  _ssn_representation,
)

PRESETS = {name: preset for name, (_, preset) in configs.PRESETS.items()}


@pytest.fixture
def request_in(tmp_path, data_dir):
  """`request_in(**changed)`: a quick request whose data are there."""
  given = {'scale': 'quick', 'out': tmp_path / 'out', 'data_dir': data_dir, 'presets': PRESETS}
  return lambda **changed: reproduce.Request(**{**given, **changed})


def by_number(result):
  return {row.number: row for row in result.rows}


# one-dimensional-proof


def test_the_worst_score_at_the_radius_is_a_half(request_in):
  result = reproduce.reproduce('one-dimensional-proof', request_in(seed=3))
  assert {reproduce.verdict(row) for row in result.rows} == {'agrees'}
  worst, slopes = result.rows[:4], result.rows[4:]
  assert all(row.ours == pytest.approx(0.5, abs=1e-8) for row in worst)
  # A half-plane attains the constant along its normal, which random pairs come close to.
  assert 0.9999 < slopes[0].ours <= 1 + 1e-9
  assert 0.9 < slopes[1].ours <= 1 + 1e-9 and {row.seed for row in slopes} == {3}
  steps, values = result.figure
  for line, end in zip(steps.lines, special.ndtri([0.6, 0.9]), strict=True):
    np.testing.assert_array_equal(line.y > 0.5, np.asarray(line.x) < end - 1e-9)
  for theorem, program in zip(values.lines[::2], values.lines[1::2], strict=True):
    np.testing.assert_allclose(program.y, theorem.y, atol=1e-8)


def test_a_radius_that_is_too_large_is_seen(request_in, monkeypatch):
  true = smoothing.gaussian
  longer = lambda **given: true(**given)._replace(radius=lambda p: 1.01 * true(**given).radius(p))
  monkeypatch.setattr(smoothing, 'gaussian', longer)
  result = reproduce.reproduce('one-dimensional-proof', request_in())
  assert [reproduce.verdict(row) for row in result.rows[:4]] == ['differs'] * 4


# curse-of-dimensionality


def published_limit(table, votes, sigma, p):
  """The papers' formulas with scipy's own quantiles."""
  p_a = stats.beta.ppf(1e-3, votes, 100_000 - votes + 1)
  power = 3072 ** (0.5 - 1 / p)
  return {
    'curse-iid': sigma / (math.sqrt(2 * (1 - p_a)) * power),
    'curse-generalized-gaussian': 2 * sigma * math.sqrt(-math.log(1 - p_a)) / power,
    'curse-exact': sigma * stats.norm.ppf(p_a) / power,
  }[table]


def test_limits_are_the_formulas_at_the_published_counts(request_in):
  rows = iter(reproduce.reproduce('curse-of-dimensionality', request_in()).rows)
  for table in ('curse-iid', 'curse-generalized-gaussian', 'curse-exact'):
    for name in reproduce.numbers(table):
      votes = reproduce.published('curse-counts', name).value
      sigma, p = float(name[6:10]), float(name.split('p = ')[1][0])
      ends = [published_limit(table, n, sigma, p) for n in (math.floor(votes), math.ceil(votes))]
      row = next(rows)
      assert row.ours == pytest.approx(np.mean(ends), rel=1e-9)
      if reproduce.verdict(row) == 'differs':  # Convex: a mean of two lies above the middle.
        assert row.ours < row.published.value < row.ours * 1.001
  assert next(rows, None) is None


def test_most_published_limits_are_met_to_the_last_digit(request_in):
  rows = reproduce.reproduce('curse-of-dimensionality', request_in()).rows
  said = [reproduce.verdict(row) for row in rows]
  assert said.count('agrees') == 15 and said.count('differs') == 4
  assert all(reproduce.verdict(row) == 'agrees' for row in rows if 'one image' in row.number)


# smoothed-regions


def half_plane(x):
  """Class 1 above the line x_1 = 0.05, whose smoothed border is the line itself."""
  return jnp.stack([0.05 - x[:, 1], x[:, 1] - 0.05], axis=1)


SMALL_REGIONS = {'model_fn': half_plane, 'side': 16, 'num_votes': 200, 'num_samples': 2000}


def test_discs_end_before_the_border_of_a_half_plane(request_in):
  result = _smoothed_regions.run(request_in(), **SMALL_REGIONS)
  (row,) = result.rows
  assert row.ours == 0 and reproduce.verdict(row) == 'agrees'
  x, y, radius = np.array(result.figure[1].discs).T
  distance = np.abs(y - 0.05)
  assert (radius <= distance).all()
  # The votes are binomial; 5 standard errors below their mean: probability below 2e-6.
  p = special.ndtr(distance / 0.2)
  fewest = np.floor(2000 * p - 5 * np.sqrt(2000 * p * (1 - p))).astype(int)
  p_a = stats.beta.ppf(1e-3, fewest, 2000 - fewest + 1)
  assert (radius >= np.where(p_a > 0.5, 0.2 * special.ndtri(p_a), 0) - 1e-9).all()
  smooth = np.asarray(result.figure[1].labels)
  assert (smooth[:6] == 0).all() and (smooth[-6:] == 1).all()  # Row 0 is the bottom.


def test_discs_that_are_too_large_meet_the_other_label(request_in, monkeypatch):
  true = certify.sampled
  larger = lambda *args, **more: true(*args, **more)._replace(radius=np.full(5, 0.9))
  monkeypatch.setattr(certify, 'sampled', larger)
  (row,) = _smoothed_regions.run(request_in(), **SMALL_REGIONS).rows
  assert row.ours > 20 and reproduce.verdict(row) == 'differs'


# soc-approximation-error


def published_filter():
  """sin(1 + 0.7 n) in the order O, I, H, W."""
  kernel = np.sin(1 + 0.7 * np.arange(36.0)).reshape(2, 2, 3, 3)
  return kernel.transpose(2, 3, 1, 0)


def test_errors_of_a_known_filter():
  """Of the skew filter of norm 1.16216 on 4 x 4 pixels, after 6 and 12 terms."""
  jacobian = _soc_approximation_error.skew_jacobian(published_filter(), 4)
  assert np.linalg.norm(jacobian, 2) == pytest.approx(1.162159924, abs=1e-6)
  error = lambda terms: _soc_approximation_error.layer_error(jacobian, 'taylor', terms - 1)
  assert error(6) == pytest.approx(3.386776e-3, rel=1e-5)
  assert error(12) == pytest.approx(1.262900e-8, rel=1e-5)


@pytest.mark.parametrize(
  'series, degree, error',
  [
    ('taylor', 5, 4.61e-2),
    ('taylor', 8, 5.39e-4),
    ('chebyshev', 5, 1.33e-3),
    ('chebyshev', 8, 1.98e-6),
  ],
)
def test_worst_errors(series, degree, error):
  assert _soc_approximation_error.worst_error(series, degree) == pytest.approx(error, rel=5e-3)


def test_the_published_bound_of_the_series_holds(request_in):
  result = reproduce.reproduce('soc-approximation-error', request_in(seed=5))
  bound, worst, layer = result.rows[:3]
  assert bound.ours == pytest.approx(1.8**12 / math.factorial(12), rel=1e-12)
  assert layer.ours < worst.ours < bound.ours and layer.seed == 5
  assert {reproduce.verdict(row) for row in (bound, worst, layer)} == {'agrees'}
  (panel,) = result.figure
  theorem, skew, one, _ = (np.asarray(line.y) for line in panel.lines)
  assert (one <= skew).all() and (skew <= theorem).all()


# ssn-representation


@pytest.mark.parametrize('sigma, low, high, apart', [(0.5, 100, 120, 20), (0.15, 100, 120, 20), (0.15, 0, 255, 132)])  # fmt: skip
def test_each_step_moves_one_view(sigma, low, high, apart):
  views = smoothing.deterministic_splitting(sigma=sigma, shape=(1, 1, 1))
  assert _ssn_representation.told_apart(views, low, high) == apart


def test_what_splitting_noise_shows_of_a_pixel(request_in):
  """lambda = 0.866: uniform noise spreads 1.73 wide, split pixels stay in [0, 1], many at 1/2."""
  result = _ssn_representation.run(request_in(), num_draws=2000)
  assert [row.ours for row in result.rows[:2]] == [441, 3091]
  assert {reproduce.verdict(row) for row in result.rows[:3]} == {'agrees'}
  added, split = (
    [(np.asarray(line.x), np.asarray(line.y)) for line in panel.lines] for panel in result.figure
  )
  for (x, density), value in zip(added, (0.2, 0.6), strict=True):
    seen = x[density > 0]
    assert seen.max() - seen.min() > 1.6 and abs(seen.mean() - value) < 0.05
  for x, density in split:
    seen = x[density > 0]
    assert -1e-9 <= seen.min() and seen.max() < 1
    # s >= 1 with probability (2 lambda - 1) / (2 lambda) = 0.423; 6 standard errors.
    share = density[np.argmin(np.abs(x - 0.5))] * 0.05
    # Beside the point at 1/2 the bin [0.5, 0.55) has at most 2 * 0.05 / (2 lambda) of cuts.
    assert 0.423 - 0.067 < share < 0.423 + 0.058 + 0.067


# naive-partitioning


def test_parts_that_change_by_hand():
  x, y = np.arange(6, dtype=np.uint8)[:, None], np.zeros(6, np.int64)
  more, wrong = np.insert(x, 3, [[9]], axis=0), np.insert(y, 3, 1)
  naive = lambda x, y: poisoning.by_position(len(x), 3)
  hashed = lambda x, y: poisoning.partition(x, y, poisoning.pixel_sum(x, 3), 3)
  # 0 3 | 1 4 | 2 5 becomes 0 9 5 | 1 3 | 2 4; the hash sends 9 to the first part alone.
  assert _naive_partitioning.changed_parts(naive, x, y, more, wrong) == 3
  assert _naive_partitioning.changed_parts(hashed, x, y, more, wrong) == 1
  assert _naive_partitioning.changed_parts(naive, x, y, x, y) == 0


def test_one_image_reaches_all_parts_by_position_and_one_by_a_hash(request_in):
  result = _naive_partitioning.run(request_in(), num_parts=9, num_inserted=2, num_images=40)
  found = [(row.ours, reproduce.verdict(row)) for row in result.rows]
  assert found[0] == (9, '') and found[1][0] > 1
  assert found[3] == (1, 'agrees') and found[4][0] <= 1 and found[5] == (0, 'agrees')
  assert {row.dataset for row in result.rows} == {'digits'}


# dpa-mnist


def nearest(x, y, images):
  """The class of the nearest of x to each image, the lowest of equals."""
  flat = lambda images: images.reshape(len(images), -1).astype(np.float64)
  distance = ((flat(images)[:, None] - flat(x)[None]) ** 2).sum(axis=-1)
  each = np.where(y[None] == np.arange(10)[:, None], 0, np.inf)[None] + distance[:, None]
  return each.min(axis=-1).argmin(axis=-1)


def test_certified_samples_are_those_of_a_count_by_hand(request_in):
  plan = _partition_aggregation.Plan('digits', {1200: 8})
  request = request_in()
  result = _partition_aggregation.run(
    'dpa-mnist', request, plan=plan, learner=poisoning.nearest_neighbour(10), num_images=25
  )
  training = data.load('digits', 'train', data_dir=request.data_dir)
  test = data.load('digits', 'test', data_dir=request.data_dir, indices=range(0, 500, 20))
  part = training.images.reshape(len(training.images), -1).astype(int).sum(axis=1) % 8
  votes = np.stack(
    [nearest(training.images[part == i], training.labels[part == i], test.images) for i in range(8)]
  )
  radii = []
  for image, label in enumerate(test.labels):
    counts = np.bincount(votes[:, image], minlength=10)
    winner = counts.argmax()
    rivals = [counts[c] + (c < winner) for c in range(10) if c != winner]
    radii.append((counts[winner] - max(rivals)) // 2 if winner == label else -1)
  median, clean, base = result.rows
  assert median.ours == sorted(radii)[len(radii) // 2]
  assert clean.ours == np.mean(np.array(radii) >= 0) and clean.interval[0] < clean.ours
  assert base.ours == pytest.approx(np.mean(votes == test.labels))
  assert {reproduce.verdict(row) for row in result.rows} == {'another setting'}
  budgets, accuracy = result.figure[0].lines[0].x, result.figure[0].lines[0].y
  np.testing.assert_allclose(accuracy, [np.mean(np.array(radii) >= r) for r in budgets])


# cohen-cifar10, cohen-imagenet


@pytest.fixture
def trained_request(request_in, trained):
  """A request whose training is done already."""
  request = request_in()
  shutil.copytree(trained, request.out / 'digits')
  return request


def test_digits_stand_beside_cifar10_and_are_counted_by_hand(trained_request):
  small = {'num_images': 12, 'num_samples': 400}
  result = _cohen.run('cohen-cifar10', trained_request, **small)
  path = trained_request.out / 'digits' / 'records.jsonl'
  before = path.read_bytes()
  lines = [json.loads(line) for line in before.splitlines()[1:]]
  assert len(lines) == 12
  proved = np.array([line['radius'] if line['predict'] == line['label'] else -1 for line in lines])
  for row in result.rows:
    radius = float(row.number.split('r = ')[1])
    right = int((proved >= radius).sum())
    assert row.ours == right / 12 and reproduce.verdict(row) == 'another setting'
    assert (row.dataset, row.published.dataset) == ('digits', 'cifar10')
    exact = stats.binomtest(right, 12).proportion_ci(0.95, method='exact')
    np.testing.assert_allclose(row.interval, exact, atol=1e-9)
  assert [row.published.value for row in result.rows] == [0.60, 0.43, 0.27, 0.00]
  again = _cohen.run('cohen-cifar10', trained_request, **small)
  assert again.rows == result.rows and path.read_bytes() == before
  with pytest.raises(ValueError, match='num_samples is 400 there and 500 here'):
    _cohen.run('cohen-cifar10', trained_request, num_images=12, num_samples=500)


@pytest.mark.parametrize('name, cells', [('cohen-cifar10', 18), ('cohen-imagenet', 12)])
def test_published_tables_from_the_authors_logs(monkeypatch, request_in, shared, name, cells):
  run = report.Run('digits', np.arange(2), np.array([1, 2]), certify.Certificate(np.array([1, 2]), np.array([0.3, 0.6])))  # fmt: skip
  monkeypatch.setattr(_cohen, '_certified', lambda *arguments: run)
  logs = shared / 'logs' / 'cohen_logs' / 'data'
  rows = _cohen.run(name, request_in(logs=logs)).rows
  compared = [row for row in rows if row.comparable]
  assert [row.published for row in compared] == [
    reproduce.published(name, number) for number in reproduce.numbers(name)
  ]
  assert len(compared) == cells
  assert {reproduce.verdict(row) for row in compared} == {'agrees'}
  assert all(row.dataset == 'digits' for row in rows if not row.comparable)
  lines = _cohen.run(name, request_in(logs=logs)).figure[0].lines
  dataset = reproduce.published(name, reproduce.numbers(name)[0]).dataset
  assert [line.name.split(',')[0] for line in lines] == ['digits'] + [dataset] * (len(lines) - 1)


def test_a_folder_without_logs_is_refused_before_the_training(request_in, tmp_path):
  request = request_in(logs=tmp_path)
  with pytest.raises(ValueError, match='`logs`=.* has no certify/cifar10/resnet110/noise_0.12'):
    _cohen.run('cohen-cifar10', request)
  assert not request.out.exists()


# landscape


PROVED = {  # Name in the landscape -> method of `certjax.prove` and its parameters.
  'Gaussian smoothing': {'method': 'gaussian', 'sigma': 0.25},
  'derandomized splitting': {'method': 'deterministic-splitting', 'sigma': 0.25},
  'curvature': {'method': 'crc'},
  'interval bounds': {'method': 'ibp', 'eps': 0.5, 'largest': True},
}
SMALL_LANDSCAPE = {'num_images': 5, 'num_samples': 400}


@pytest.fixture(scope='module')
def network(data_dir, tmp_path_factory):
  """The landscape's network after a few steps."""
  given = {'seed': 2, 'data_dir': data_dir}
  request = reproduce.Request('quick', tmp_path_factory.mktemp('landscape'), **given)
  return _landscape.trained(request, 100)


@pytest.fixture
def landscape(network, request_in, monkeypatch):
  """`landscape(names)`: a small `Result`."""
  monkeypatch.setattr(_landscape, 'trained', lambda request, num_steps: network)
  return lambda *names: _landscape.run(request_in(seed=2), names=names, **SMALL_LANDSCAPE)


def test_the_landscape_is_what_the_library_proves(landscape, network, data_dir):
  indices = data.subset(500, evenly=SMALL_LANDSCAPE['num_images'])
  images = data.load('digits', 'test', data_dir=data_dir, indices=indices)
  x, y = data.to_float(images.images), images.labels
  result = landscape('Lipschitz margin', *PROVED)
  rows, proofs = by_number(result), {}
  for name, given in PROVED.items():
    run = configs.prove(network.model_fn, x, y, key=jax.random.key(2), num_samples=400, **given)
    proofs[name] = run.certificate
    assert rows[f'{name}: clean accuracy'].ours == report.clean_accuracy(run.certificate, y)
    median = rows[f'{name}: median certified radius']
    assert median.ours == report.median_radius(run.certificate, y)
    assert median.unit == f'{run.header["norm"]}, {run.header["unit"]}'
    assert ('exact' in median.setting) == (run.header['quantifier'] == 'exact')
  lipschitz = _landscape.prove('Lipschitz margin', 2, network, x, 400).certificate
  assert (lipschitz.radius <= proofs['curvature'].radius).all() and (lipschitz.radius > 0).all()
  attacked = [row for row in result.rows if 'PGD' in row.number]
  assert [row.ours for row in attacked] == [0, 0]
  assert [panel.title for panel in result.figure] == ['L2', 'L1', 'L_inf']


def test_a_radius_beyond_the_truth_is_attacked(landscape, monkeypatch):
  true = _landscape._lipschitz
  larger = lambda *given: (proof := true(*given))._replace(radius=20 * proof.radius)
  monkeypatch.setattr(_landscape, '_lipschitz', larger)
  rows = landscape('Lipschitz margin').rows
  assert rows[-1].number.startswith('images that PGD moves') and rows[-1].ours > 0.5


def test_every_method_of_the_landscape_can_be_made():
  made = {name: make() for name, make in _landscape._methods((8, 8, 1)).items()}
  assert ('Lipschitz margin', *made) == _landscape.NAMES
  norms = {method.norm for method in made.values()}
  assert norms == {'l2', 'l1', 'linf', 'l0', 'patch'}
  assert made['linear bounds (CROWN), L1'].bound == 'crown' and made['interval bounds'].largest


# By name


def test_what_cannot_be_run_is_said(request_in, tmp_path):
  with pytest.raises(ValueError, match="`name` must be one of cohen-cifar10, .*; got 'pat'"):
    reproduce.find('pat')
  with pytest.raises(
    ValueError,
    match="`scale` of landscape must be one of quick, got 'full': a page of this library's own",
  ):
    reproduce.find('landscape', 'full')
  with pytest.raises(
    ValueError, match='needs mnist: it is not prepared .*certjax data prepare mnist'
  ):
    reproduce.reproduce('dpa-mnist', request_in(scale='reduced', data_dir=tmp_path))
  with pytest.raises(ValueError, match='`logs`: dpa-mnist reads none; cohen-cifar10'):
    reproduce.reproduce('dpa-mnist', request_in(logs=tmp_path))


def test_the_list_says_what_is_at_hand(data_dir):
  text = reproduce.listing(data_dir)
  lines = [line for line in text.splitlines() if not line.startswith(' ')]
  assert lines == list(reproduce.RECIPES)
  for name, recipe in reproduce.RECIPES.items():
    after = text.split(f'{name}\n', 1)[1]
    assert f'source: {recipe.source}' in after
    for scale in recipe.scales.values():
      assert scale.cost in after
  assert 'data: mnist; missing: mnist' in text and 'data: digits; data at hand' in text
