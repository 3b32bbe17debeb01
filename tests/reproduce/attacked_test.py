"""Recipes that attack: every number is counted again from the records; one tiny classifier serves all."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import configs, data, report, reproduce, study
from certjax.reproduce import (
  _attack_gallery,
  _attack_overlap,
  _certified,
  _perceptibility,
  _perceptual_training,
  _recoloring,
)

pytestmark = pytest.mark.usefixtures('many_programs')

PRESETS = {name: preset for name, (_, preset) in configs.PRESETS.items()}
BOUNDS = {'digits': {'linf': 0.2, 'l2': 0.6, 'stadv': 0.07, 'lpips': 0.3}}
TABLES = reproduce.Attacks(configs.threat_of, configs.build_attack, configs.unit_of, BOUNDS)
WEAK = {
  'L_inf': ('linf', 'fgsm', {}),
  'L2': ('l2', 'fgsm', {}),
  'StAdv': ('stadv', 'latent', {'num_steps': 2}),
  'PPGD': ('lpips', 'ppgd', {'num_steps': 1, 'cg_steps': 1, 'projection': 'bisection'}),
  'LPA': ('lpips', 'fast-lpa', {'num_steps': 3, 'projection': 'bisection'}),
}
NUM = 20


@pytest.fixture(scope='module')
def classifier(data_dir, tmp_path_factory):
  """A request in whose folder one digits network lies, after two epochs, and its `TrainedRun`."""
  out = tmp_path_factory.mktemp('attacked')
  request = reproduce.Request('quick', out, 2, data_dir, presets=PRESETS, attacks=TABLES)
  short = {**_perceptual_training.CLEAN, 'num_epochs': 2}
  run = _certified.trained(request, 'digits', 'measuring', **short)
  shutil.copytree(out / 'measuring', out / 'classifier')  # The gallery's.
  return request, run


@pytest.fixture
def asked(classifier, monkeypatch):
  """The request; every training gives the one network, and is noted in `asked.trainings`."""
  request, run = classifier
  trainings = {}

  def already(request, preset, name, law=None, **changed):
    trainings[name] = train_config(request, preset, changed)
    return run

  for module in (_attack_gallery, _attack_overlap, _perceptibility, _perceptual_training, _recoloring):  # fmt: skip
    monkeypatch.setattr(module, 'trained', already)
  return request, trainings


def train_config(request, preset, changed):
  return configs.Train(**{**vars(request.presets[preset]), **changed})


def small(plan=_perceptual_training.PLANS['quick']):
  return plan._replace(num_images=NUM, attacks=WEAK)


def right(directory, attack):
  """(indices that are right as they are, and those also under the attack), from the records."""
  lines = lambda name: map(json.loads, (directory / name / 'records.jsonl').read_text().splitlines()[1:])  # fmt: skip
  clean = {one['index'] for one in lines('clean') if one['predict'] == one['label']}
  return clean, {one['index'] for one in lines(attack) if one['predict'] == one['label']}


def columns_of(out, classifier, bounds=BOUNDS['digits']):
  """Column -> what is right under it, from the records of a classifier."""
  found = {}
  for column, (norm, attack, _) in WEAK.items():
    folder = out / classifier / f'{attack}-{norm}-{bounds[norm]:g}'
    found['clean'], found[column] = right(folder, attack)
  return found


def test_the_table_of_perceptual_training_is_counted_again(asked):
  request, trainings = asked
  result = _perceptual_training.run('pat-cifar10', request, plan=small())
  rows = {row.number: row for row in result.rows}
  assert len(rows) == len(reproduce.numbers('pat-cifar10')) == 96
  for name, trained_for in _perceptual_training.TRAINED.items():
    if name == 'AT StAdv':
      continue
    found = columns_of(request.out, _perceptual_training.slug(name))
    shares = {column: len(each) / NUM for column, each in found.items()}
    shares['union'] = len(found['L_inf'] & found['L2'] & found['StAdv']) / NUM
    norms = {'L_inf': 'linf', 'L2': 'l2', 'StAdv': 'stadv', 'LPA': 'lpips'}
    unseen = [shares[column] for column, norm in norms.items() if norm not in trained_for]
    shares['unseen mean'] = np.mean(unseen)
    for column, value in shares.items():
      row = rows[f'{name}, {column}']
      assert row.ours == pytest.approx(value) and reproduce.verdict(row) == 'another setting'
      assert row.dataset == 'digits' and row.seed == 2
    assert rows[f'{name}, ReColorAdv'].ours is None
  assert 0 < rows['Normal, L_inf'].ours < rows['Normal, clean'].ours
  elsewhere = [
    row for row in result.rows if row.number.startswith(('TRADES', 'AT all', 'PAT-Alex'))
  ]
  assert {(row.ours, reproduce.verdict(row), row.seed) for row in elsewhere} == {(None, '', None)}
  assert trainings['pat-self'].objective == 'pat' and trainings['pat-self'].num_epochs == 20
  assert trainings['measuring'].seed == 1000 and trainings['normal'].objective == 'clean'


def test_both_versions_of_the_slide_stand_beside_one_run(asked):
  request, trainings = asked
  plan = _perceptual_training.with_flows(small(), BOUNDS)
  result = _perceptual_training.run_unforeseen(request, plan=plan)
  first, final = result.rows[:25], result.rows[25:]
  assert len(final) == 25 and all('first version' in row.number for row in first)
  assert all('final version' in row.number for row in final)
  assert [row.ours for row in first] == [row.ours for row in final]
  pairs = {row.number.rsplit(', ', 1)[0]: row for row in first}
  _, left = right(request.out / 'at-stadv' / 'latent-stadv-0.07', 'latent')
  assert pairs['AT StAdv, StAdv'].ours == len(left) / NUM
  assert pairs['AT ReColorAdv, clean'].ours is None
  assert (pairs['AT L2, StAdv'].published.value, final[13].published.value) == (0.149, 0.078)
  config = trainings['at-stadv']
  assert config.objective == 'adversarial-stadv' and config.objective_parameters['eps'] == 0.07


def test_sets_of_vulnerable_images_are_counted_again(asked):
  request, _ = asked
  result = _attack_overlap.run(request, plan=small())
  sizes = {'linf': 0.2, 'l2': 0.6, 'stadv': 0.07}
  broken = {}
  for norm, attack, _ in (WEAK['L_inf'], WEAK['L2'], WEAK['StAdv']):
    clean, left = right(request.out / 'at-linf' / f'{attack}-{norm}-{sizes[norm]:g}', attack)
    broken[norm] = clean - left
  for eps in (0.3, 0.15, 0.075):
    clean, left = right(request.out / 'at-linf' / f'fast-lpa-lpips-{eps:g}', 'fast-lpa')
    broken[f'lpips {eps:g}'] = clean - left
  exactly = {}
  for index in clean:
    by = ', '.join(name for name, each in broken.items() if index in each) or 'none'
    exactly[f'broken by exactly: {by}'] = exactly.get(f'broken by exactly: {by}', 0) + 1
  rows = {row.number: row.ours for row in result.rows}
  narrow = broken['linf'] | broken['l2'] | broken['stadv']
  assert narrow and len(exactly) > 1
  for eps in (0.3, 0.15, 0.075):
    mine = rows.pop(f'of the images that L_inf, L2, StAdv broke, broken by LPA at {eps:g}')
    assert mine == pytest.approx(len(narrow & broken[f'lpips {eps:g}']) / len(narrow))
  assert rows == pytest.approx({name: count / len(clean) for name, count in exactly.items()})
  assert result.figure[0].labels.sum() == sum(map(len, broken.values()))
  assert result.figure[0].labels.shape == (len(clean), 6)


def test_the_gallery_shows_what_was_broken(asked, tmp_path):
  request, _ = asked
  result = _attack_gallery.run(
    request, norms=('linf', 'l0', 'recolor'), num_images=NUM,
    parameters={
      'linf': {'num_steps': 3}, 'l0': {'num_steps': 2, 'num_restarts': 1}, 'recolor': {'num_steps': 2},
    },
  )  # fmt: skip
  clean, *rows = result.rows
  for row, folder in zip(rows, ('pgd-linf-0.2', 'pgd0-l0-5', 'latent-recolor-0.2'), strict=True):
    unbroken, left = right(request.out / 'classifier' / folder, folder.split('-')[0])
    assert row.ours == len(left) / NUM and clean.ours == len(unbroken) / NUM
  test = data.load('digits', 'test', data_dir=request.data_dir)
  for shown in result.shown:
    np.testing.assert_array_equal(shown.originals, data.to_float(test.images[shown.index]))
    assert (shown.predict != shown.labels).all() and len(shown.index) <= 6
    np.testing.assert_array_equal(shown.labels, test.labels[shown.index])
  moved = np.abs(result.shown[0].adversarials - result.shown[0].originals).max()
  assert result.shown[0].title.startswith('pgd, linf 0.2') and 0 < moved < 0.20001
  reproduce.write(_attack_gallery.RECIPE, request._replace(out=tmp_path), result, {})
  assert (tmp_path / 'figure.png').read_bytes().startswith(b'\x89PNG')
  assert set(_attack_gallery.ATTACKS) == {
    norm for row in configs.ATTACKS.values() for norm in row.norms if norm != 'jpeg'
  }


def test_combinations_are_counted_again_and_go_on(asked, monkeypatch):
  request, _ = asked
  every = _recoloring.scaled_searches
  two = lambda sizes: {name: every(sizes)[name] for name in ('C', 'C + S + D')}
  monkeypatch.setattr(_recoloring, 'scaled_searches', two)  # Compiling is all their time.
  result = _recoloring.run(request, num_images=NUM, num_steps=2)
  rows, files = {row.number: row for row in result.rows}, {}
  for name in ('C', 'C + S + D'):
    path = request.out / f'none-{name.lower().replace(" + ", "")}' / 'records.jsonl'
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    count = sum(one['label'] == one['predict'] and one['label'] == one['before'] for one in lines)
    row, files[path] = rows[f'None, {name}'], path.read_bytes()
    assert len(lines) == NUM and row.ours == count / NUM
    assert (row.dataset, reproduce.verdict(row)) == ('digits', 'another setting')
    assert max(one['largest_change'] for one in lines) > 0
  assert {row.ours for row in result.rows if not row.number.startswith('None')} == {None}
  assert [row.published.value for row in result.rows[:5]] == [0.033, 0.0, 0.009, 0.0, 0.0]
  again = _recoloring.run(request, num_images=NUM, num_steps=2)
  assert again.rows == result.rows and all(path.read_bytes() == old for path, old in files.items())


def test_steps_grow_with_the_sizes():
  searches = _recoloring.scaled_searches(_recoloring.Sizes(0.12, 0.05, 4 / 255))
  assert searches['C'].step_size == pytest.approx(0.002)
  assert searches['C + S + D'].step_size == pytest.approx((0.002, 0.001, 0.0005))
  assert searches['S + D'].step_size == pytest.approx((0.001, 0.0005))
  assert all(each.step_size == 0.001 for each in _recoloring.published_searches().values())
  x = jnp.full((8, 8, 1), 0.5)
  for name, search in searches.items():
    latent = search.threat.init(jax.random.key(0), x)
    np.testing.assert_allclose(search.threat.decode(x, latent), x, atol=1e-6, err_msg=name)


def test_published_networks_are_asked_for_by_name(tmp_path, monkeypatch, asked):
  request, _ = asked
  reduced = request._replace(scale='reduced', weights=tmp_path)
  with pytest.raises(ValueError, match=r'must hold one file \*resnet32_normal\.\*.* got 0'):
    _recoloring.run(reduced)
  seen = []
  monkeypatch.setattr(_recoloring, 'published_network', lambda directory, name: name)
  monkeypatch.setattr(_recoloring, 'images_of', lambda request, dataset, num: (dataset, num))
  right_of = lambda request, cell, search, network, images, steps: seen.append((cell, network, images)) or np.arange(200) < 3  # fmt: skip
  monkeypatch.setattr(_recoloring, '_right', right_of)
  rows = _recoloring.run(reduced).rows
  assert seen[0] == (('None', 'C'), 'normal', ('cifar10', 200))
  assert seen[-1] == (('Adv. training', 'C'), 'recoloradv', ('cifar10', 200)) and len(seen) == 6
  verdicts = {row.number: reproduce.verdict(row) for row in rows}
  assert verdicts['None, C'] == 'agrees' and verdicts['Adv. training, C'] == 'differs'
  assert verdicts['TRADES, C'] == '' and rows[0].interval[0] < 0.033 < rows[0].interval[1]
  for scale, given in (('reduced', None), ('quick', tmp_path)):
    with pytest.raises(ValueError, match='recoloradv-combinations at scale'):
      ask = request._replace(scale=scale, weights=given)
      reproduce.reproduce('recoloradv-combinations', ask)


# perceptibility-vs-lpips


def condition(name, bound, step):
  """20 grey images and the same, brighter by `step` levels: distances are known."""
  x = np.full((20, 12, 12, 1), 100, np.uint8)
  distances = {'linf': np.full(20, step / 255), 'l2': np.full(20, 12 * step / 255)}
  labels = np.arange(20) % 10
  return study.Condition(name, bound, 'pixel value', np.arange(20), labels, x, x + np.uint8(step), distances)  # fmt: skip


def test_the_observer_answers_as_its_formula_says():
  steps = (5, 15, 30, 60)
  conditions = [condition('pgd', step / 255, step) for step in steps]
  summary = _perceptibility.simulated(conditions, seed=3)
  for one, step in zip(summary['conditions'], steps, strict=True):
    chance = 0.01 + 0.98 * (1 - 0.95 * np.exp(-((step / 25.5) ** 2)))
    assert one['answers'] == 200 and one['pairs'] == 20
    # 5 standard errors: probability below 1e-6 each.
    assert abs(one['perceptibility'] - chance) < 5 * np.sqrt(chance * (1 - chance) / 200) + 1e-9
    assert one['lower'] <= one['perceptibility'] <= one['upper']
  assert abs(summary['false_alarms']['share'] - 0.059) < 0.05
  assert summary['distances']['l2']['spearman'] == pytest.approx(1)


def test_perceptibility_of_real_attacks_by_a_sharp_observer(asked, monkeypatch):
  """An observer who sees every change of more than 30 levels, and no other, gives shares of pairs."""
  request, _ = asked
  sharp = lambda a, b: float(np.abs(np.int64(a) - np.int64(b)).max() > 30)
  monkeypatch.setattr(_perceptibility, 'different', sharp)
  given = {'linf': {'num_steps': 2}, 'stadv': {'num_steps': 2}}
  monkeypatch.setattr(_perceptibility, 'STRENGTHS', (0.5, 1.0))
  monkeypatch.setattr(_perceptibility, 'ATTACKS', {'linf': 'pgd', 'stadv': 'latent'})
  result = _perceptibility.run(request, plan=small(), parameters=given)
  rows = {row.number: row for row in result.rows}
  for eps, share in ((0.1, 0.0), (0.2, 1.0)):  # 25.5 levels, and 51.
    row = rows[f'perceptibility of pgd-linf at {eps:g} (pixel value)']
    clean, left = right(request.out / 'normal' / f'pgd-linf-{eps:g}', 'pgd')
    assert row.ours == share and f'SIMULATED, {len(clean - left)} pairs' in row.setting
  assert all(row.published is None and 'SIMULATED' in row.setting for row in result.rows)
  assert {panel.title for panel in result.figure} == {'l2', 'linf', 'lpips'}
  assert 'human column is empty' in result.notes[0]


# Published


def test_published_tables_of_perceptual_training_are_the_golden_ones(shared):
  golden = json.loads((shared / 'golden' / 'pat_tables.json').read_text())
  for table, name in (('pat-cifar10', 'cifar10'), ('pat-imagenet100', 'imagenet100')):
    theirs = [v for row in golden[name]['rows'].values() for v in row if v is not None]
    ours = [100 * reproduce.published(table, number).value for number in reproduce.numbers(table)]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
  rows = golden['recoloradv']
  theirs = [v for name in ('None', 'Adv. training', 'TRADES') for v in rows[name]]
  value = lambda number: 100 * reproduce.published('recoloradv-combinations', number).value
  ours = [value(number) for number in reproduce.numbers('recoloradv-combinations')]
  np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize('name', ['Normal', 'AT L_inf', 'TRADES L_inf', 'AT L2', 'AT StAdv', 'AT ReColorAdv', 'PAT-self', 'PAT-AlexNet'])  # fmt: skip
def test_the_published_unseen_mean_is_that_of_its_columns(name):
  columns = ('L_inf', 'L2', 'StAdv', 'ReColorAdv', 'LPA')
  value = lambda column: 100 * reproduce.published('pat-cifar10', f'{name}, {column}').value
  own = {'TRADES L_inf': 'L_inf'}.get(name, name.removeprefix('AT '))
  seen = ('LPA',) if name.startswith('PAT') else (own,) if own in columns else ()
  mean = report.unseen_mean({column: value(column) for column in columns}, seen)
  assert mean == pytest.approx(value('unseen mean'), abs=0.0501)
  narrow = min(value(column) for column in columns[:-1])
  assert value('union') <= narrow + 1e-9
