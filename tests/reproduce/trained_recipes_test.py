"""Recipes whose networks are stood in for: their rows against closed forms of known networks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, certify, configs, data, evaluate, models, poisoning, report, reproduce
from certjax.reproduce import (
  _ablation,
  _certified,
  _partition_aggregation,
  _soc_vs_bcop,
  _sparse_empirical,
  _trained_bounds,
)
from certjax.train import TrainedRun

pytestmark = pytest.mark.usefixtures('many_programs')
PRESETS = {name: preset for name, (_, preset) in configs.PRESETS.items()}
NUM = 20


@pytest.fixture
def request_in(tmp_path, data_dir):
  """A quick request whose data are there."""
  return reproduce.Request('quick', tmp_path / 'out', 2, data_dir, presets=PRESETS)


@pytest.fixture
def images(request_in):
  """The test images of all recipes here."""
  return _certified.images_of(request_in, 'digits', NUM)


def stand_in(module, variables=None, **config):
  """`trained` of a network that is known; `.asked` has what it was asked for."""
  x = jnp.zeros((1, 8, 8, 1))
  variables = module.init(jax.random.key(3), x) if variables is None else variables
  variables = jax.tree.map(np.asarray, variables)

  def trained(request, preset, where, law=None, **changed):
    trained.asked.append((preset, where, changed))
    return TrainedRun({'num_epochs': 1, **config}, models.bind(module, variables), variables, 1)

  trained.asked = []
  return trained


def weights(module):
  """(W_1, b_1, W_2, b_2) of a network of one hidden layer, float64."""
  params = module['params']
  return [
    np.asarray(params[name][of], np.float64) for name in sorted(params) for of in ('kernel', 'bias')
  ]


# ibp-mnist, crt-mnist


@pytest.fixture
def mlp():
  """A stand-in of one hidden layer, with its float64 matrices."""
  module = models.build('mlp-255', num_classes=10)
  variables = module.init(jax.random.key(3), jnp.zeros((1, 8, 8, 1)))
  return module, variables


def intervals(variables, x, y, eps):
  """bool[N]: every margin of the label is positive on the box of the hidden layer."""
  first, b_1, last, b_2 = weights(variables)
  flat = x.reshape(len(x), -1).astype(np.float64)
  low, high = np.clip(flat - eps, 0, 1), np.clip(flat + eps, 0, 1)
  center, reach = (low + high) / 2 @ first + b_1, (high - low) / 2 @ np.abs(first)
  low, high = np.maximum(center - reach, 0), np.maximum(center + reach, 0)
  margins = last[:, y].T[:, :, None] - last[None]  # [N, hidden, class]
  bias = b_2[y][:, None] - b_2[None]
  worst = (np.where(margins > 0, low[..., None], high[..., None]) * margins).sum(axis=1) + bias
  worst[np.arange(len(y)), y] = np.inf
  return (worst > 0).all(axis=1)


def test_intervals_are_those_of_two_matrices(request_in, images, monkeypatch, mlp):
  module, variables = mlp
  x = data.to_float(images.images)
  # Labels of its own: most are right, and some are not.
  found = np.asarray(module.apply(variables, x).argmax(axis=1))
  labels = np.where(np.arange(NUM) % 5 == 0, (found + 1) % 10, found)
  monkeypatch.setattr(_trained_bounds, 'images_of', lambda *more: images._replace(labels=labels))
  net = stand_in(module, variables, model='mlp-255', objective_parameters={'eps': 0.2})
  monkeypatch.setattr(_trained_bounds, 'trained', net)
  small, large = 0.002, 0.3
  models_of = tuple(
    _trained_bounds._interval(eps)._replace(radii={eps: 'ibp-mnist-0.1'}) for eps in (small, large)
  )
  monkeypatch.setitem(_trained_bounds.MODELS, 'ibp-mnist', models_of)
  rows = {
    row.number: row
    for row in _trained_bounds.run(
      'ibp-mnist', request_in, plan=_trained_bounds.Plan('digits', {}, NUM)
    ).rows
  }
  for eps in (small, large):
    proved = intervals(variables, x, labels, eps)
    row = rows[f'certified accuracy, linf {eps:g}']
    assert row.ours == proved.mean() and reproduce.verdict(row) == 'another setting'
    assert rows[f'clean accuracy, linf {eps:g}'].ours == (labels == found).mean() == 0.8
    assert proved.mean() <= rows[f'accuracy under PGD, linf {eps:g}'].ours <= 0.8
    assert rows[f'certified images that PGD breaks, linf {eps:g}'].ours == 0
  assert rows[f'certified accuracy, linf {small:g}'].ours > 0.4
  assert rows[f'accuracy under PGD, linf {large:g}'].ours < 0.2


def test_images_that_a_wrong_proof_claims_are_counted(request_in, images, mlp):
  module, variables = mlp
  net = stand_in(module, variables, model='mlp-255', objective_parameters={'eps': 0.2})
  run = net(request_in, '', '')
  found = np.asarray(run.model_fn(data.to_float(images.images)).argmax(axis=1))
  proof = certify.certificate(found, np.full(NUM, 0.3))
  wrong = report.Run('wrong', images.index, found, proof)
  model = _trained_bounds._interval(0.3)
  plan = _trained_bounds.Plan('digits', {}, NUM)
  rows = list(
    _trained_bounds._rows(request_in, plan, model, run, wrong, images._replace(labels=found))
  )
  assert rows[-1].number.startswith('certified images that PGD breaks') and rows[-1].ours > NUM / 2
  assert rows[-1].ours == NUM - round(rows[-2].ours * NUM)


def test_curvature_rows_are_its_certificates(request_in, images, monkeypatch):
  module = models.MLP(10, hidden=(6,), activation='sigmoid')
  x = data.to_float(images.images)
  net = stand_in(module, model='mlp', objective_parameters={'eps': 1.58})
  monkeypatch.setattr(_trained_bounds, 'trained', net)
  run = net(request_in, '', '')
  found = np.asarray(run.model_fn(x).argmax(axis=1))
  monkeypatch.setattr(_trained_bounds, 'images_of', lambda *more: images._replace(labels=found))
  plan = _trained_bounds.Plan('digits', {}, NUM)
  rows = {
    row.number: row.ours for row in _trained_bounds.run('crt-mnist', request_in, plan=plan).rows
  }
  proved = configs.prove(run.model_fn, x, found, method='crc').certificate.radius
  for radius in (0.5, 1.58):
    assert rows[f'certified accuracy, l2 {radius}'] == (proved >= radius).mean()
    assert rows[f'certified images that PGD breaks, l2 {radius}'] == 0
    assert rows[f'clean accuracy, l2 {radius}'] == 1


# soc-vs-bcop


def test_radii_of_a_matrix_of_norm_one_and_robustness_of_two_classes(
  request_in, images, monkeypatch
):
  """A linear network of two live classes: PGD's corner of the box is the worst point."""
  module = models.MLP(10, hidden=())
  rng = np.random.default_rng(0)
  kernel, bias = np.zeros((64, 10), np.float32), np.full(10, -1e3, np.float32)
  kernel[:, :2], bias[:2] = rng.normal(size=(64, 2)) / 8, 0
  variables = {'params': {'dense0': {'kernel': kernel, 'bias': bias}}}
  x = data.to_float(images.images)
  flat = x.reshape(NUM, -1).astype(np.float64)
  labels = np.where(np.arange(NUM) < 15, (flat @ kernel[:, :2]).argmax(axis=1), 9)
  images = images._replace(labels=labels)
  monkeypatch.setattr(_soc_vs_bcop, 'images_of', lambda *more: images)
  net = stand_in(module, variables, model='linear')
  monkeypatch.setattr(_soc_vs_bcop, 'trained', net)
  norm = np.linalg.norm(kernel[:, 0] - kernel[:, 1])
  radius = np.abs(flat @ (kernel[:, 0] - kernel[:, 1])) / norm

  def proved(request, run, law, images, where, **settings):
    assert law == certify.lipschitz() and settings == {'method': 'lipschitz'}
    label = (flat @ kernel[:, :2]).argmax(axis=1)
    return report.Run(where, images.index, images.labels, certify.certificate(label, radius))

  monkeypatch.setattr(_soc_vs_bcop, 'certified', proved)
  result = _soc_vs_bcop.run(request_in, plan=_soc_vs_bcop.Plan('digits', {}, {}, NUM))
  rows = {row.number: row.ours for row in result.rows}
  right = labels < 2
  slope = kernel[:, labels % 2].T - kernel[:, (labels + 1) % 2].T
  worst = np.clip(flat - 8 / 255 * np.sign(slope), 0, 1)
  robust = right & ((worst * slope).sum(axis=1) > 0)
  for name in ('SOC', 'BCOP'):
    assert rows[f'certified accuracy, {name}'] == (right & (radius >= 36 / 255)).mean()
    assert rows[f'clean accuracy, {name}'] == right.mean() == 0.75
  for name in ('vanilla', 'SOC', 'BCOP'):
    assert rows[f'standard training, clean accuracy, {name}'] == 0.75
    assert rows[f'adversarial training, robust accuracy, {name}'] == robust.mean()
  assert 0 < robust.mean() < 0.75
  assert {reproduce.verdict(row) for row in result.rows} == {'another setting'}
  asked = {where: (preset, changed) for preset, where, changed in net.asked}
  assert list(asked)[:2] == ['lipconvnet5-soc-digits', 'lipconvnet5-bcop-digits']
  preset, changed = asked['adversarial-resnet9-small-bcop']
  assert preset == 'resnet9-bcop-cifar10' and changed['objective'] == 'adversarial'
  assert len(asked) == 8 and all(
    where in PRESETS or preset in PRESETS for where, (preset, _) in asked.items()
  )
  lines = result.figure[1].lines
  assert [line.x for line in lines] == [[5, 10, 15, 20, 25, 30, 35, 40]] * 2


# sparse-empirical-mnist


def test_pointwise_finds_the_fewest_pixels_of_a_sum(request_in, images, monkeypatch):
  """Class 0 while the pixels sum to at most 24: the fewest are the darkest, put to 1."""
  labels = np.zeros(NUM, np.int64)
  images = images._replace(labels=labels)
  monkeypatch.setattr(_sparse_empirical, 'images_of', lambda *more: images)
  dark = lambda x: jnp.stack([jnp.full(len(x), 24.0), x.sum((1, 2, 3))], axis=1)
  monkeypatch.setattr(_sparse_empirical, '_classifiers', lambda *more: {'CNN': lambda: dark})
  proof = certify.certificate(labels, np.arange(NUM))
  proved = report.Run('ablation', images.index, labels, proof)
  monkeypatch.setattr(_sparse_empirical, 'certified_under', lambda *more: proved)
  monkeypatch.setattr(_sparse_empirical.train, 'load_run', lambda out: TrainedRun({}, dark, {}, 1))
  counts = np.arange(1, NUM + 1)
  half = attacks.Sparse(None, counts <= NUM // 2, counts, counts)
  votes = evaluate.Confirmed(half._replace(success=counts > 0), half, counts > 0, counts > 0)
  monkeypatch.setattr(
    _sparse_empirical.evaluate, 'pointwise_of_votes', lambda *more, **options: votes
  )
  plan = _sparse_empirical.PLANS['quick']._replace(search={'num_repeats': 8, 'num_noises': 20})
  result = _sparse_empirical.run(request_in, plan=plan)
  rows = {row.number: row for row in result.rows}
  x = data.to_float(images.images).reshape(NUM, -1)
  fewest = [
    int(np.argmax(row.sum() + np.append(0, np.cumsum(np.sort(1 - row)[::-1])) > 24)) for row in x
  ]
  ours = rows['median changed pixels, CNN'].ours
  assert np.median(fewest) <= ours <= np.median(fewest) + 3  # 1-minimal points, no smaller ones.
  assert rows['misclassified as they are, CNN'].ours == sum(row.sum() > 24 for row in x)
  assert rows['not turned, CNN'].ours == 0
  ablation = rows['median changed pixels, randomized ablation']
  assert ablation.ours is None and ablation.published.value == 31  # Half were not turned.
  assert rows['not turned, randomized ablation'].ours == NUM // 2
  assert rows['median certified pixels, randomized ablation'].ours == NUM // 2
  before = rows['median changed pixels, randomized ablation, before new votes judge']
  assert before.ours == np.median(counts)


def test_new_votes_judge_the_points_of_a_search(monkeypatch):
  """The search's votes see five changed pixels as enough, new ones ask for six."""
  x, law = np.ones((2, 8, 8, 1), np.float32), object()
  enough = {7: 5, 8: 6, 9: 6}

  def votes(key, model_fn, given, points, *, index, num_samples, slots, chunk):
    assert given is law and slots == 2
    seed = next(
      s
      for s in enough
      if (jax.random.key_data(key) == jax.random.key_data(jax.random.key(s))).all()
    )
    assert num_samples == (50 if seed == 7 else 300)
    turned = (np.asarray(points) != x[index]).sum(axis=(1, 2, 3)) >= enough[seed]
    return np.where(turned[:, None], [0, 50], [50, 0])

  monkeypatch.setattr(certify, 'votes', votes)
  found = evaluate.pointwise_of_votes(
    None, law, x, np.zeros(2, int), num_votes=50, num_judges=300, alpha=0.05, seed=7,
    num_repeats=2, num_noises=20,
  )  # fmt: skip
  assert found.search.num_changed.tolist() == [5, 5] and not found.ends.any()
  assert (found.confirmed.num_changed >= 6).all() and found.confirmed.success.all()
  assert found.again.all()
  visited = [[np.zeros(3)], []]
  assert evaluate.sparsest_confirmed(visited, lambda points, rows: np.zeros(len(rows), bool)) == [
    None,
    None,
  ]


# ssdpa-mnist


def test_flipped_labels_are_counted_on_features_by_hand(request_in, monkeypatch):
  """Every second pixel is the feature; parts are every eighth of the sorted images."""
  halves = lambda images: images.reshape(len(images), -1)[:, ::2].astype(np.float32)
  monkeypatch.setattr(_partition_aggregation, 'trained', lambda *more, **changed: None)
  monkeypatch.setattr(
    _partition_aggregation.evaluate, 'frozen_features', lambda run, dataset: halves
  )
  plan = _partition_aggregation.Plan('digits', {1200: 8}, 'nearest-neighbour', {})
  monkeypatch.setitem(_partition_aggregation._NOTES, 'nearest-neighbour', '-')
  result = _partition_aggregation.run('ssdpa-mnist', request_in, plan=plan, num_images=25)
  training = data.load('digits', 'train', data_dir=request_in.data_dir)
  test = data.load('digits', 'test', data_dir=request_in.data_dir, indices=range(0, 500, 20))
  flat = training.images.reshape(len(training.images), -1).astype(int)
  ranks = np.lexsort(flat.T[::-1])  # By the first pixel, then the second, ...
  known, asked = halves(training.images).astype(float), halves(test.images).astype(float)
  votes = np.empty((25, 8), int)
  for part in range(8):
    mine = ranks[part::8]
    distance = ((known[mine][:, None] - asked[None]) ** 2).sum(axis=-1)
    nearest = distance.min(axis=0)
    for image in range(25):
      votes[image, part] = training.labels[mine][distance[:, image] == nearest[image]].min()
  radii = []
  for counts, label in zip((np.bincount(v, minlength=10) for v in votes), test.labels, strict=True):
    winner = counts.argmax()
    rival = max(counts[c] + (c < winner) for c in range(10) if c != winner)
    radii.append((counts[winner] - rival) // 2 if winner == label else -1)
  median, clean, base = result.rows
  assert median.ours == sorted(radii)[12] and median.published.value == 485
  assert 'flipped labels' in median.number
  assert clean.ours == np.mean(np.array(radii) >= 0)
  assert base.ours == pytest.approx(np.mean(votes == test.labels[:, None]))


def test_published_parts_without_a_median_have_no_number_beside(request_in):
  found = report.Run('', np.arange(2), np.array([1, 1]), certify.certificate([1, 0], [3.0, 1.0]))
  plan = _partition_aggregation.PLANS['dpa-cifar10']['quick']
  rows = [
    _partition_aggregation._rows('dpa-cifar10', request_in, plan, k, 5, np.array([[1], [0]]), found)
    for k in (50, 1000)
  ]
  assert rows[0][0].published.value == 9 and rows[1][0].published is None
  assert [row.published.value for row in rows[1][1:]] == [0.4425, 0.2325]
  assert {reproduce.verdict(row) for row in rows[0]} == {'another setting'}


def test_at_the_published_setting_numbers_are_compared(request_in, monkeypatch):
  """97 of 100 images with 8 pixels: the table's 96.72% lies in the interval, 32.32% does not."""
  line = {'label': 1, 'candidate': 1, 'count': 9_000, 'runner_up_count': 500}
  lines = [line] * 97 + [{**line, 'count': 5_050, 'runner_up_count': 4_950}] * 3
  monkeypatch.setattr(_ablation.records, 'read', lambda out: (None, lines))
  proof = certify.certificate(np.ones(100, int), np.full(100, 8.0))
  found = report.Run('keep', np.arange(100), np.ones(100, int), proof)
  rows = lambda k: _ablation._rows(request_in, _ablation.PLANS['full'], found, f'k = {k}', '')
  said = lambda k: [reproduce.verdict(row._replace(dataset='mnist')) for row in rows(k)]
  assert said(45) == ['agrees', 'agrees', 'differs'] and said(100)[0] == 'differs'
  assert said(5) == ['', 'differs', 'agrees']
  assert all(row.dataset == 'mnist' for row in rows(45))


def test_every_scale_names_presets_and_parts_that_are_there():
  for plan in (*_ablation.PLANS.values(), *_ablation.BEST_PLANS.values()):
    assert plan.preset in PRESETS and all(
      2 * k < math.prod(data.dataset(plan.dataset).shape) for k in plan.shown.values()
    )
  for name, plans in _partition_aggregation.PLANS.items():
    for plan in plans.values():
      assert {f'k = {k}' for k in plan.parts} <= set(reproduce.numbers(f'{name}-clean'))
      assert plan.learner in poisoning.LEARNERS
