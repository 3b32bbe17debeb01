"""The scale `full`: what a recipe would train and certify is what `published.json` says, word by word.

Trainings, certificates and attacks are stood in for, and asked what was asked of them.
"""

import dataclasses
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from certjax import attacks, certify, configs, data, evaluate, models, poisoning, report, reproduce
from certjax import train as training
from certjax.reproduce import (
  _ablation_vs_lee,
  _cohen,
  _nouns,
  _partition_aggregation,
  _patch_bands,
  _perceptual_training,
  _soc_vs_bcop,
  _sparse_empirical,
  _splitting_noise,
  _trained_bounds,
  _wasserstein,
)
from certjax.train import TrainedRun, _run

PRESETS = {name: preset for name, (_, preset) in configs.PRESETS.items()}
LABELS = np.arange(20) % 10
PROOF = certify.certificate(LABELS, np.full(20, 2.0))


class Asked:
  """Stand-ins of what recipes call; `trainings`, `proofs`, `images` hold what was asked for."""

  def __init__(self, monkeypatch, tmp_path):
    self.patch, self.trainings, self.proofs, self.images = monkeypatch.setattr, {}, {}, set()
    tables = reproduce.Attacks(configs.threat_of, configs.build_attack, configs.unit_of, {})
    self.request = reproduce.Request('full', tmp_path, 3, None, presets=PRESETS, attacks=tables)

  def stand_in(self, module, *names):
    for name in names:
      self.patch(module, name, getattr(self, f'_{name}'))

  def _images_of(self, request, dataset, num_images=None):
    self.images.add((dataset, num_images or data.dataset(dataset).size('test')))
    shape = data.dataset(dataset).shape
    return data.Images(np.zeros((20, *shape), np.uint8), LABELS, np.arange(20))

  def _trained(self, request, preset, where, law=None, **changed):
    config = dataclasses.replace(request.presets[preset], **changed)
    assert where not in self.trainings  # Two networks in one folder.
    self.trainings[where] = config
    return TrainedRun(vars(config), lambda x: jax.nn.one_hot(LABELS[: len(x)], 10), {}, 1)

  def _certified(self, request, run, law, images, where, *, sampling=None, **settings):
    assert where not in self.proofs
    self.proofs[where] = law, sampling, settings
    header = {'quantifier': 'sampled' if sampling else 'exact'}
    return report.Run(where, images.index, images.labels, PROOF, header=header)

  def _certified_under(self, request, plan, images, where, law, method, parameters, **changed):
    shared = {'num_epochs': plan.num_epochs, 'method': method, 'parameters': parameters}
    run = self._trained(request, plan.preset, where, law, **shared, **changed)
    return self._certified(request, run, law, images, where, sampling=plan.sampling)


@pytest.fixture
def asked(monkeypatch, tmp_path):
  return Asked(monkeypatch, tmp_path)


def check(config):
  """A training that can be built: its network, method, objective, descent and schedule."""
  spec = data.dataset(config.dataset)
  models.build(config.model, num_classes=training.num_outputs(config.objective, spec.num_classes))
  noise = None
  if config.method != 'none':
    noise = configs.smoothing_of(config.method, config.sigma, config.parameters, shape=spec.shape)
  training.objective(config.objective, noise, sigma=config.sigma, **config.objective_parameters)
  _run._optimizer(config, per_epoch=10)
  assert config.batch_size % 8 == 0


def said(table):
  """(setting of a table, the same in small letters without hyphens)."""
  text = reproduce.published(table, reproduce.numbers(table)[0]).setting
  return text, text.lower().replace('-', '')


def compared(result):
  """Numbers that are compared; `verdict` refuses those of another data set."""
  assert all(reproduce.verdict(row) for row in result.rows if row.comparable)
  return [row.number for row in result.rows if row.comparable]


# By name


def test_each_recipe_offers_the_published_setting_or_says_why_not():
  left = {name for name, recipe in reproduce.RECIPES.items() if 'full' not in recipe.scales}
  assert left == {
    'ssdpa-mnist', 'landscape', 'attack-gallery', 'heuristic-defenses', 'pat-imagenet100',
    'attack-overlap', 'perceptibility-vs-lpips',
  }  # fmt: skip
  text = reproduce.listing()
  for name, recipe in reproduce.RECIPES.items():
    assert set(recipe.left_out) == ({'full'} if name in left else set())
    for scale, why in recipe.left_out.items():
      assert f'{scale:<8} not offered: {why}' in text
      with pytest.raises(ValueError, match=re.escape(f"got '{scale}': {why}.")):
        reproduce.find(name, scale)
    if 'full' in recipe.scales and recipe.dataset != _nouns.ARITHMETIC and name != 'curse-of-dimensionality':  # fmt: skip
      assert recipe.scales['full'].datasets == (recipe.dataset,)


def test_arithmetic_is_the_same_at_every_scale(tmp_path):
  alike = {
    name for name, recipe in reproduce.RECIPES.items() if set(recipe.scales) == set(reproduce.SCALES)
    and recipe.scales['full'] == recipe.scales['reduced']
  }  # fmt: skip
  assert alike == {
    'smoothed-regions', 'one-dimensional-proof', 'curse-of-dimensionality', 'ssn-representation',
    'soc-approximation-error', 'naive-partitioning',
  }  # fmt: skip
  for name in alike:
    quick, reduced, _ = (reproduce.RECIPES[name].scales[scale] for scale in reproduce.SCALES)
    assert reduced.cost == f'{quick.cost}: the same computation as quick'
    assert reduced.datasets == quick.datasets
  quick, full = (
    reproduce.reproduce('curse-of-dimensionality', reproduce.Request(scale, tmp_path, 1)).rows
    for scale in ('quick', 'full')
  )
  assert quick == full and len(full) == 19


# Noise


@pytest.mark.parametrize('name', ['cohen-cifar10', 'cohen-imagenet'])
def test_gaussian_smoothing(asked, name):
  asked.stand_in(_cohen, 'images_of', 'trained', 'certified')
  result = _cohen.run(name, asked.request)
  text, letters = said(name)
  ((dataset, count),) = asked.images
  assert f'every {data.dataset(dataset).size("test") // count}th' in text
  numbers = reproduce.numbers(name)
  assert compared(result) == [f'certified accuracy, {number}' for number in numbers]
  sigmas = {float(number.split(',')[0].removeprefix('sigma ')) for number in numbers}
  assert {config.sigma for config in asked.trainings.values()} == sigmas
  for where, (law, sampling, settings) in asked.proofs.items():
    config = asked.trainings[where]
    check(config)
    assert str(sampling) in text and config.model in letters and law.norm == 'l2'
    assert config.sigma == settings['sigma'] and config.num_epochs == 90
  assert len(result.notes) == 2 and all(row.dataset == dataset for row in result.rows)


@pytest.mark.parametrize('name', ['cifar10', 'imagenet'])
def test_noise_for_l1(asked, name):
  asked.stand_in(_splitting_noise, 'images_of', 'trained', 'certified')
  result = _splitting_noise.run(name, asked.request)
  tables = {method: f'l1-{method}-{name}' for method in _splitting_noise.NOISES}
  assert compared(result) == [
    f'{method}, {number}' for method, table in tables.items() for number in reproduce.numbers(table)
  ]
  ((_, count),) = asked.images
  for method, table in tables.items():
    text, letters = said(table)
    theirs = [config for config in asked.trainings.values() if config.method == method]
    sigmas = [config.sigma for config in theirs]
    among = f'{len(sigmas)} in {min(sigmas)} .. {max(sigmas)}'
    assert f'best of {among if name == "cifar10" else "0.5, 2 and 3.5"} at' in text
    assert name == 'cifar10' or sigmas == [0.5, 2, 3.5]
    assert re.search(rf'\b{count:,} (test|validation) images', text)
    for config in theirs:
      check(config)
      assert config.model.replace('-', '') in letters and config.objective == 'noise'
      assert config.num_epochs == {'cifar10': 120, 'imagenet': 30}[name]
    for _, sampling, settings in asked.proofs.values():
      if settings['method'] == method:
        assert ('exact' in text) if sampling is None else str(sampling).split(', ', 1)[1] in text


def test_mass_that_moves(asked, monkeypatch):
  asked.stand_in(_wasserstein, 'images_of', 'trained', 'certified')
  line = {'label': 1, 'candidate': 1, 'count': 9_000, 'runner_up_count': 500}
  monkeypatch.setattr(_wasserstein.records, 'read', lambda out: (None, [line] * 20))
  result = _wasserstein.run(asked.request)
  assert all(number.endswith('votes of 10,000') for number in compared(result))
  assert asked.images == {('mnist', 10_000)} and len(asked.trainings) == 7
  for where, (_, sampling, settings) in asked.proofs.items():
    config = asked.trainings[where]
    check(config)
    assert (config.num_epochs, config.optimizer, config.learning_rate) == (200, 'sgd', 1e-3)
    assert sampling[:3] == (1_000, 10_000, 0.05) and settings['sigma'] == config.sigma


def test_ablation_beside_lee(asked):
  asked.stand_in(_ablation_vs_lee, 'images_of', 'certified_under')
  result = _ablation_vs_lee.run(asked.request)
  text, _ = said('ablation-vs-lee')
  (keep,) = (config.parameters['keep'] for config in asked.trainings.values() if config.method == 'ablation')  # fmt: skip
  assert f'{keep} of 784 pixels' in text and asked.images == {('mnist', 10_000)}
  medians = [number for number in compared(result) if number.startswith('median')]
  assert medians == [
    'median certified pixels, ablation',
    'median certified pixels, Lee et al., binary, the best of their settings',
  ]
  assert result.rows[-1].published.value == 4 and len(asked.trainings) == 8
  for where, config in asked.trainings.items():
    check(config)
    theirs = config.method == 'discrete'
    assert config.num_epochs == (30 if theirs else 400)
    assert config.model == ('lee-cnn' if theirs else 'ablation-cnn')
    assert asked.proofs[where][1][:3] == ((100, 100_000, 1e-3) if theirs else (1_000, 10_000, 0.05))


def test_the_best_of_lees_settings_is_the_largest_median(asked, monkeypatch):
  asked.stand_in(_ablation_vs_lee, 'images_of')
  radii = iter((8.0, 1.0, 3.0, 4.0, 2.0, 0.0, 0.0, 1.0))

  def proved(request, plan, images, where, *law, **changed):
    radius = np.full(20, next(radii))
    return report.Run(where, images.index, LABELS, certify.certificate(LABELS, radius))

  monkeypatch.setattr(_ablation_vs_lee, 'certified_under', proved)
  best = _ablation_vs_lee.run(asked.request).rows[-1]
  assert best.ours == 4 and 'keep = 0.8' in best.setting and reproduce.verdict(best) == 'agrees'


# Patches, pixels


def test_bands(asked):
  asked.stand_in(_patch_bands, 'images_of', 'trained', 'certified')
  result = _patch_bands.run(asked.request)
  (config,) = asked.trainings.values()
  check(config)
  assert compared(result) == [] and asked.images == {('mnist', 10_000)}
  assert (config.num_epochs, config.method, config.optimizer) == (400, 'bands', 'sgd')
  assert {settings['theta'] for *_, settings in asked.proofs.values()} == {0.2, 0.3}


def test_pointwise(asked, monkeypatch):
  asked.stand_in(_sparse_empirical, 'images_of', 'trained', 'certified_under')
  found = attacks.Sparse(None, LABELS >= 0, np.full(20, 10), np.full(20, 10))
  given = {}

  def searched(model_fn, x, y, search, seed):
    given['search'] = search
    return found

  def of_votes(*more, **options):
    given['votes'] = options
    return evaluate.Confirmed(found, found, LABELS >= 0, LABELS >= 0)

  monkeypatch.setattr(_sparse_empirical, 'searched', searched)
  monkeypatch.setattr(_sparse_empirical.evaluate, 'pointwise_of_votes', of_votes)
  model = TrainedRun({}, lambda x: x, {}, 1)
  monkeypatch.setattr(_sparse_empirical.train, 'load_run', lambda out: model)
  none = data.Images(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, int), np.arange(1))
  monkeypatch.setattr(_sparse_empirical.data, 'load', lambda *more, **options: none)
  result = _sparse_empirical.run(asked.request)
  text, _ = said('pointwise-mnist')
  search, votes = given['search'], given['votes']
  assert f'{search["num_repeats"]} repeats of {search["num_noises"]:,} noises' in text
  assert f'{votes["num_votes"]:,} votes' in text and votes['alpha'] == 0.05
  assert compared(result) == [
    'median changed pixels, nearest neighbour', 'median certified pixels, randomized ablation',
  ]  # fmt: skip
  for config in asked.trainings.values():
    check(config)
  assert asked.trainings['linf'].objective_parameters == {'eps': 0.3, 'step_size': 0.01, 'num_steps': 40}  # fmt: skip
  assert asked.trainings['ablation'].num_epochs == 400


# Networks with proofs of their own


def test_orthogonal_convolutions(asked, monkeypatch):
  asked.stand_in(_soc_vs_bcop, 'images_of', 'trained', 'certified')
  monkeypatch.setattr(_soc_vs_bcop.evaluate, 'accuracy', lambda *more, **options: 0.9)
  stands = lambda *more, **options: LABELS > 4
  monkeypatch.setattr(_soc_vs_bcop.evaluate, 'survivors', stands)
  result = _soc_vs_bcop.run(asked.request)
  assert asked.images == {('cifar10', 10_000)}
  clean = [n for n in reproduce.numbers('orthogonal-resnet') if n.startswith('standard')]
  assert len(compared(result)) == len(reproduce.numbers('lipconvnet')) + len(clean)
  beside = {row.number: row.published for row in result.rows if row.comparable}
  for number in reproduce.numbers('lipconvnet'):
    network, what = number.rsplit(', ', 1)
    assert beside[f'{what} accuracy, {network}'] == reproduce.published('lipconvnet', number)
  text, _ = said('lipconvnet')
  for where, config in asked.trainings.items():
    check(config)
    assert f'{config.num_epochs} epochs' in text and config.dataset == 'cifar10'
    assert config.augment == 'crop_flip'
    if where in asked.proofs:
      assert where == f'{config.model}-cifar10' and config.objective == 'lipschitz'
    else:
      assert config.model in ('resnet18', 'resnet18-bcop', 'resnet18-soc')
  assert len(asked.trainings) == 16 + 6


@pytest.mark.parametrize('name', ['ibp-mnist', 'crt-mnist'])
def test_trained_bounds(asked, monkeypatch, name):
  asked.stand_in(_trained_bounds, 'images_of', 'trained', 'certified')
  monkeypatch.setattr(_trained_bounds, 'attacked', lambda *more: LABELS < 5)
  result = _trained_bounds.run(name, asked.request)
  assert asked.images == {('mnist', 10_000)}
  for config in asked.trainings.values():
    check(config)
  if name == 'crt-mnist':  # Certified against the runner-up alone: another setting.
    (config,) = asked.trainings.values()
    text, _ = said('crt-mnist-0.5')
    assert compared(result) == [] and config.num_epochs == 30
    assert f'gamma {config.objective_parameters["gamma"]}' in text
  else:
    assert len(compared(result)) == 6 and 'large network' in said('ibp-mnist-0.1')[0]
    small, large = asked.trainings.values()
    assert small.model == large.model == 'ibp-large'
    steps = small.num_epochs * 60_000 / small.batch_size
    growing = small.objective_warmup_epochs * 60_000 / small.batch_size
    assert (steps, growing) == (60_000, 12_000)
    assert growing * small.objective_parameters['clean_share'] == pytest.approx(2_000)
    assert small.objective_parameters['eps'] == 0.2 and large.objective_parameters['eps'] == 0.33
    assert reproduce.RECIPES[name].scales['full'].datasets == ('mnist',)


# Partitions


@pytest.mark.parametrize('name', ['dpa-mnist', 'dpa-cifar10', 'ssdpa-cifar10'])
def test_partitions(asked, monkeypatch, name):
  plan = _partition_aggregation.PLANS[name]['full']
  asked.stand_in(_partition_aggregation, 'images_of', 'trained')
  spec, made = data.dataset(plan.dataset), []
  few = data.Images(np.zeros((20, *spec.shape), np.uint8), LABELS, np.arange(20))
  monkeypatch.setattr(_partition_aggregation.data, 'load', lambda *more, **options: few)
  flat = lambda images: images.reshape(len(images), -1)
  monkeypatch.setattr(_partition_aggregation.evaluate, 'frozen_features', lambda *more: flat)

  def votes(request, plan, learner, training, inputs, parts):
    made.append((parts, learner.num_classes, inputs[0].shape[1:]))
    return np.repeat(LABELS[:, None], 3, axis=1)

  monkeypatch.setattr(_partition_aggregation, '_votes', votes)
  result = _partition_aggregation.run(name, asked.request)
  text, letters = said(f'{name}-clean')
  assert [f'k = {parts}' for parts, *_ in made] == list(reproduce.numbers(f'{name}-clean'))
  assert 'all 10,000 test images' in text and asked.images == {(plan.dataset, 10_000)}
  if name == 'ssdpa-cifar10':  # Members to their optimum, and not for 100 epochs.
    config = asked.trainings['simclr']
    check(config)
    assert 'SimCLR, ResNet-18' in text and config.model == 'resnet18-simclr'
    assert compared(result) == [] and config.num_epochs == 1000
    assert 'regressions on simclr' in result.rows[0].setting
    return
  learner = {**poisoning.learner_parameters('nin'), **plan.parameters}
  assert f'{learner["num_epochs"]} epochs' in text and learner['width'] == 192
  assert learner['mirror'] == (plan.dataset == 'cifar10') and made[0][2] == spec.shape
  medians = reproduce.numbers(f'{name}-median')
  assert len(compared(result)) == 2 * len(made) + len(medians) and 'million weights' in letters


def test_how_many_members_train_at_once_changes_no_vote(asked, data_dir):
  """Three members, two in a program: the last is not full."""
  learner, request = poisoning.nearest_neighbour(10), asked.request._replace(data_dir=data_dir)
  known = data.load('digits', 'train', data_dir=data_dir)
  few = data.load('digits', 'test', data_dir=data_dir, indices=range(10)).images
  votes = [
    _partition_aggregation._votes(
      request, _partition_aggregation.Plan('digits', {1200: 3}, at_once=at_once), learner, known,
      (known.images, few), 3,
    )
    for at_once in (2, 40)
  ]  # fmt: skip
  assert votes[0].shape == (10, 3) and len(np.unique(votes[0])) > 1
  np.testing.assert_array_equal(*votes)


# Perceptual training


@pytest.fixture
def robust(asked, monkeypatch):
  """Stand-ins of training and attacks: every classifier is right where its attack's norm says."""
  module = _perceptual_training
  asked.stand_in(module, 'images_of', 'trained')
  monkeypatch.setattr(module.train, 'load_features', lambda run, shape: SimpleNamespace(run=run))
  asked.armed = {}

  def attacked(request, name, run, attack, images, *, measure=None):
    assert measure.run == request.out / module.MEASURING
    asked.armed[attack.norm, attack.name] = attack.eps
    left = {'linf': 10, 'l2': 9, 'stadv': 8, 'recolor': 6, 'lpips': 2}[attack.norm]
    correct = np.arange(20) < left if attack.norm != 'recolor' else np.arange(20) >= left
    same = {'weights_sha256': name, 'images_sha256': '', 'seen_sha256': ''}
    return report.Column(attack.norm, attack.eps, attack.unit, (attack.name,), images.index, LABELS >= 0, correct, same)  # fmt: skip

  monkeypatch.setattr(module, 'attacked', attacked)
  return asked


def test_perceptual_training(robust):
  result = _perceptual_training.run('pat-cifar10', robust.request)
  text, letters = said('pat-cifar10')
  assert robust.images == {('cifar10', 10_000)}
  eps = {norm: size for (norm, _), size in robust.armed.items()}
  assert f'L_inf {eps["linf"] * 255:g}/255 and L2 {eps["l2"]:g} by AutoAttack' in text
  assert f'StAdv {eps["stadv"]:g}, ReColorAdv {eps["recolor"]:g}' in text
  assert f'PPGD and LPA {eps["lpips"]:g} by AlexNet' in text
  names = {name for norm, name in robust.armed if norm in ('linf', 'l2')}
  assert names == {'autoattack'} and len(robust.armed) == 6
  rows = {row.number: row for row in result.rows}
  assert all(row.ours is not None for row in rows.values()) and len(rows) == 96
  for name, row in rows.items():
    column = name.rsplit(', ', 1)[1]
    assert row.comparable == (column not in ('PPGD', 'LPA', 'unseen mean'))
    value = {'union': 2 / 20, 'LPA': 2 / 20, 'ReColorAdv': 14 / 20, 'clean': 1}.get(column)
    assert value is None or row.ours == value
  seen = {'AT L_inf': (9, 8, 14, 2), 'AT StAdv': (10, 9, 14, 2), 'PAT-AlexNet': (10, 9, 8, 14)}
  for name, left in seen.items():
    assert rows[f'{name}, unseen mean'].ours == pytest.approx(np.mean(left) / 20)
  for where, config in robust.trainings.items():
    features = config.features
    check(dataclasses.replace(config, features=None))
    assert features == (robust.request.out / 'measuring' if where == 'pat-alexnet' else None)
    model = {'trades-linf': 'wrn34-10', 'measuring': 'alexnet-cifar'}.get(where, 'resnet50-cifar')
    assert config.model == model and config.dataset == 'cifar10'
    assert model.split('-cifar')[0].replace('-', '') in letters
  assert len(robust.trainings) == 12  # 11 classifiers, and the measuring network.
  assert robust.trainings['at-l2'].objective_parameters['eps'] == eps['l2']
  assert robust.trainings['at-linf'].objective_parameters['eps'] == eps['linf']


def test_unforeseen_attacks(robust):
  result = _perceptual_training.run_unforeseen(robust.request)
  first, final = result.rows[:25], result.rows[25:]
  assert not any(row.comparable for row in first) and all(row.comparable for row in final)
  assert all(row.ours is not None for row in result.rows)
  assert set(robust.trainings) == {
    'measuring', 'normal', 'at-linf', 'at-l2', 'at-stadv', 'at-recoloradv',
  }  # fmt: skip
