"""`certjax attack` beyond norms, and `certjax report --threats`: flows, LPIPS, unions, forgeries, bad input."""

import collections
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from certjax import configs, data, evaluate, records, report, train
from certjax.cli import _attack, _attack_sets
from certjax.report import _attacked

pytestmark = pytest.mark.usefixtures('many_programs')

SMALL = ('--evenly', 20, '--batch-size', 10)
STADV = (
  '--norm', 'stadv', '--eps', 0.1, '--attacks', 'latent', '--options', 'latent.num_steps', 2, 'latent.step_size', 0.03,
)  # fmt: skip
LPIPS = (
  '--norm', 'lpips', '--eps', 0.3, '--attacks', 'fast-lpa', '--options', 'fast-lpa.num_steps', 3,
  'fast-lpa.projection', 'bisection',
)  # fmt: skip
LINF = ('--norm', 'linf', '--eps', 0.1, '--attacks', 'fgsm')
THREATS = {'stadv': STADV, 'lpips': LPIPS, 'linf': LINF}


@pytest.fixture(scope='module')
def run(data_dir, tmp_path_factory):
  """A digits network after 40 steps, and one directory a threat beside it."""
  from certjax import cli

  out = tmp_path_factory.mktemp('threats') / 'run'
  training = (
    'train', 'digits', '--method', 'none', '--objective', 'clean', '--out', out, '--data-dir', data_dir,
    '--num-epochs', 2,
  )  # fmt: skip
  with pytest.MonkeyPatch.context() as patch:
    # They take compiling, and are tested elsewhere.
    patch.setattr(_attack, '_flags', lambda target, images: [])
    for line in (
      training,
      *(('attack', out, *SMALL, *o, '--out', out / n) for n, o in THREATS.items()),
    ):
      assert cli.main([str(argument) for argument in line]) == 0
    yield out


def refused(outcome, *parts):
  errors = [line for line in outcome.err.splitlines() if line.startswith('certjax: error: ')]
  assert outcome.code == 2 and len(errors) == 1, outcome
  assert all(part in errors[0] for part in parts), errors


def right(directory, attack):
  """(indices that are right without the attack, and those that are still right under it)."""
  clean = {r['index'] for r in records.read(directory / 'clean')[1] if r['predict'] == r['label']}
  return clean, {r['index'] for r in records.read(directory / attack)[1] if not r['success']}


def stored(directory, attack):
  """Path, index and arrays of the first batch."""
  path = directory / attack / 'adversarial' / '00000000.npz'
  with np.load(path) as file:
    return path, {name: file[name].copy() for name in file.files}


def test_union_is_the_and_of_the_columns(command, run, tmp_path):
  directories = [run / name for name in THREATS]
  done = command('report', '--threats', *directories, '--trained', 'linf', '--out', tmp_path)
  assert done.code == 0, done.err
  summary = json.loads((tmp_path / 'threats.json').read_text())
  clean, _ = right(run / 'linf', 'fgsm')
  alive = {name: right(run / name, options[5])[1] for name, options in THREATS.items()}
  assert all(0 < len(alive[name]) < len(clean) for name in ('linf', 'stadv')), alive
  assert len(alive['lpips']) < len(clean)
  union = alive['stadv'] & alive['linf']  # LPIPS is in no union.
  assert summary['union'] == len(union) / 20 and summary['union_of'] == ['stadv', 'linf']
  assert [row['accuracy'] for row in summary['threats']] == [len(alive[n]) / 20 for n in THREATS]
  assert summary['unseen_mean'] == pytest.approx((len(alive['stadv']) + len(alive['lpips'])) / 40)
  exact = collections.Counter(tuple(n for n in THREATS if i not in alive[n]) for i in clean)
  assert {tuple(s['broken_by']): s['images'] for s in summary['subsets']} == exact
  assert f'| union | stadv, linf | | {len(union) / 20:.4f} | |' in done.out
  assert (tmp_path / 'threats.md').read_text().strip() in done.out


def test_images_that_a_threat_or_a_network_cannot_take(run):
  images = data.Images(
    np.zeros((1, 28, 28, 3), np.uint8), np.zeros(1, np.int32), np.zeros(1, np.int64)
  )
  with pytest.raises(ValueError, match=r'sides that 16 divides.*\(28, 28, 3\): pad or resize'):
    _attack_sets._check_shape(configs.threat_of('jpeg', 0.1), images)
  with pytest.raises(
    ValueError, match=r'`features`: .* does not take images of shape \(28, 28, 3\)'
  ):
    _attack_sets._measure(run, images)


def column(norm, eps, correct, clean=(1, 1, 1, 1, 1)):
  correct, clean = np.array(correct, bool), np.array(clean, bool)
  return _attacked.Column(norm, eps, 'unit', ('a',), np.arange(5), clean, correct, {})


def test_unions_and_subsets_by_hand():
  columns = [
    column('linf', 0.1, [1, 1, 1, 0, 1]), column('l2', 0.5, [1, 0, 1, 1, 1]), column('jpeg', 1, [1, 1, 1, 0, 1]),
    column('linf', 0.2, [1, 1, 0, 1, 1]), column('lpips', 0.5, [0, 0, 0, 0, 1]),
  ]  # fmt: skip
  summary = _attacked.threats_summary(columns, ('linf 0.1', 'linf 0.2'))
  assert [row['name'] for row in summary['threats']] == [
    'linf 0.1',
    'l2',
    'jpeg',
    'linf 0.2',
    'lpips',
  ]
  assert [row['accuracy'] for row in summary['threats']] == [0.8, 0.8, 0.8, 0.8, 0.2]
  assert summary['union'] == 0.4 and 'lpips' not in summary['union_of']
  assert summary['unseen_mean'] == pytest.approx((0.8 + 0.8 + 0.2) / 3)
  assert [(s['broken_by'], s['images']) for s in summary['subsets']] == [
    ([], 1), (['lpips'], 1), (['l2', 'lpips'], 1), (['linf 0.2', 'lpips'], 1),
    (['linf 0.1', 'jpeg', 'lpips'], 1),
  ]  # fmt: skip
  # What is wrong without an attack is broken by none of them.
  wrong = [column('lpips', 0.5, [0, 0, 1, 1, 1], (1, 0, 1, 1, 1))]
  summary = _attacked.threats_summary(wrong)
  assert summary['union'] is None and summary['unseen_mean'] is None
  assert [s['images'] for s in summary['subsets']] == [3, 1] and summary['clean'] == 0.8


def test_what_is_stored_lies_in_its_set(run):
  header, lines = records.read(run / 'stadv' / 'latent')
  assert header['norm'] == 'stadv' and header['unit'] == 'normalised flow' and header['eps'] == 0.1
  assert header['settings']['optimizer'] == 'adam'
  assert header['settings']['penalty_weight'] == pytest.approx(0.0025 / 0.1)
  _, arrays = stored(run / 'stadv', 'latent')
  sizes = np.abs(arrays['latent']).max(axis=1)
  assert arrays['latent'].shape[1] == 8 * 8 * 2 and sizes.max() <= 0.1 + 1e-6
  assert [line['distance'] for line in lines[:10]] == pytest.approx(sizes.tolist())
  header, lines = records.read(run / 'lpips' / 'fast-lpa')
  assert header['features'] == 'the attacked network' and header['unit'] == 'LPIPS distance'
  assert (
    all(line['distance'] <= 0.3003 for line in lines)
    and 'latent' not in stored(run / 'lpips', 'fast-lpa')[1]
  )


def test_forgeries_are_found(command, run):
  again = lambda name: command('attack', run, *SMALL, *THREATS[name], '--out', run / name)
  path, arrays = stored(run / 'stadv', 'latent')
  index, x_adv, latent = arrays['index'], arrays['x_adv'], arrays['latent']
  before = path.read_bytes()
  evaluate.write_adversarials(path, index, x_adv, latent * 9)
  refused(again('stadv'), 'has a latent at distance', 'outside of stadv at 0.1')
  evaluate.write_adversarials(path, index, np.clip(x_adv + np.float32(0.01), 0, 1), latent)
  refused(again('stadv'), 'row 0 differs by 0.01', 'from what its latent makes')
  evaluate.write_adversarials(path, index, x_adv)
  refused(again('stadv'), 'holds no latents float32[10, D] of stadv')
  evaluate.write_adversarials(path, index, x_adv, latent)
  assert path.read_bytes() == before and again('stadv').code == 0
  path, arrays = stored(run / 'lpips', 'fast-lpa')
  before = path.read_bytes()
  evaluate.write_adversarials(path, arrays['index'], 1 - arrays['x_adv'])
  refused(again('lpips'), 'row 0 is at LPIPS distance', 'beyond eps=0.3')
  path.write_bytes(before)
  # A table that its records do not make.
  path = run / 'linf' / 'attacks.json'
  summary, whole = json.loads(path.read_text()), path.read_text()
  summary['worst_case']['correct'] += 1
  path.write_text(json.dumps(summary))
  refused(command('report', '--threats', run / 'linf'), 'attacks.json says')
  path.write_text(whole)


def test_another_network_may_measure(command, run, tmp_path):
  options = (*LPIPS[:-4], '--options', 'fast-lpa.num_steps', 1, '--features', run)
  done = command('attack', run, '--evenly', 10, '--batch-size', 10, *options, '--out', tmp_path)
  assert done.code == 0, done.err
  header, lines = records.read(tmp_path / 'fast-lpa')
  assert header['features'] == header['weights_sha256']  # Here it is the same network.
  assert max(line['distance'] for line in lines) > 0.1


@pytest.fixture(scope='module')
def retrained(run):
  """The same network under other weights, as after more steps."""
  other = run.parent / 'retrained'
  shutil.copytree(run, other, ignore=shutil.ignore_patterns(*THREATS))
  state = train.restore(run / 'checkpoints')
  state = train.TrainState(**{name: tree for name, tree in state.items() if name != 'sha256'})
  scaled = jax.tree.map(lambda leaf: np.float32(1.5) * leaf, state.params)
  train.save(other / 'checkpoints', state._replace(step=state.step + 1, params=scaled))
  return other


def test_an_attack_refuses_other_weights(command, run, retrained, tmp_path):
  """Of the attacked network, and of the one that measures: same options, same place."""
  attack = lambda subject, *options: command(
    'attack', subject, '--evenly', 4, '--batch-size', 4, *options, '--out', tmp_path
  )
  lpips = (*LPIPS[:-4], '--options', 'fast-lpa.num_steps', 0)
  assert attack(run, *lpips, '--features', run).code == 0
  kept = [path for path in tmp_path.rglob('*') if path.is_file() and path.suffix != '.lock']
  before = [path.read_bytes() for path in kept]
  refused(attack(run, *lpips, '--features', retrained), 'features is', 'there and')
  refused(attack(retrained, *lpips, '--features', run), 'weights_sha256 is', 'there and')
  refused(attack(run, *lpips), 'features is', 'the attacked network')
  assert [path.read_bytes() for path in kept] == before and tmp_path / 'attacks.json' in kept
  assert attack(run, *lpips, '--features', run).code == 0  # Where that run lies does not matter.
  moved = shutil.copytree(run, tmp_path.parent / f'{tmp_path.name}-moved')
  assert attack(run, *lpips, '--features', moved).code == 0


def test_training_by_the_distance_of_another_run(command, run, retrained, data_dir, tmp_path):
  """config.json holds the hash of the weights: the same run goes on by these alone, wherever they lie."""
  out, measure = tmp_path / 'out', shutil.copytree(run, tmp_path / 'measure')
  training = lambda *options: command(
    'train', 'digits', '--method', 'none', '--objective', 'pat', '--objective-parameters', 'eps', 0.5,
    'num_steps', 1, '--out', out, '--data-dir', data_dir, *options,
  )  # fmt: skip
  assert training('--features', run, '--max-steps', 1).code == 0
  config = json.loads((out / 'config.json').read_text())
  assert config['features_sha256'] == records.read(run / 'linf' / 'clean')[0]['weights_sha256']
  metrics = (out / 'metrics.jsonl').read_bytes()
  refused(
    training('--features', retrained, '--max-steps', 2), 'features_sha256 is', 'another config'
  )
  refused(training('--max-steps', 2), 'features_sha256 is', 'and absent here')
  assert (out / 'metrics.jsonl').read_bytes() == metrics
  assert training('--features', measure, '--max-steps', 1).code == 0
  refused(training('--features', tmp_path / 'nowhere'), 'nowhere holds no training run')
  other = command(
    'train', 'digits', '--method', 'none', '--objective', 'clean', '--out', tmp_path / 'new', '--data-dir',
    data_dir, '--features', run,
  )  # fmt: skip
  refused(other, '`features` measure the distance of objective pat', "'clean'")
  assert not (tmp_path / 'new').exists()


def test_a_bound_of_0_changes_nothing(command, run, data_dir, tmp_path):
  options = (
    '--norm',
    'stadv',
    '--eps',
    0,
    '--attacks',
    'latent',
    '--options',
    'latent.num_steps',
    1,
  )
  done = command('attack', run, *SMALL, *options, '--out', tmp_path)
  assert done.code == 0, done.err
  summary = json.loads((tmp_path / 'attacks.json').read_text())
  assert summary['worst_case']['correct'] == summary['clean']['correct'] > 0
  _, arrays = stored(tmp_path, 'latent')
  test = data.load('digits', 'test', data_dir=data_dir)
  images = dict(zip(test.index.tolist(), data.to_float(test.images), strict=True))
  for index, x_adv in zip(arrays['index'].tolist(), arrays['x_adv'], strict=True):
    np.testing.assert_array_equal(x_adv, images[index])


@pytest.mark.parametrize(
  'options, parts',
  [
    (('--norm', 'stadv', '--eps', 0.1), ('autoattack is for linf', "'stadv'", 'there are latent')),
    (('--norm', 'linf', '--eps', 0.1, '--attacks', 'lpa'), ('lpa is for lpips', 'autoattack')),
    (('--norm', 'stadv', '--eps', 8, '--attacks', 'latent'), ('`eps` must be at most 2',)),
    (('--norm', 'lpips', '--eps', -1, '--attacks', 'lpa'), ('`eps` must be at least 0', 'eps=-1')),
    (
      ('--norm', 'fog', '--eps', 1, '--attacks', 'latent', '--options', 'latent.optimizer', 'sgd'),
      ('`optimizer` must be one of', "'sgd'"),
    ),
    (
      ('--norm', 'lpips', '--eps', 0.1, '--attacks', 'ppgd', '--options', 'ppgd.cg_steps', 0),
      ('`cg_steps` must be at least 1',),
    ),
    (
      ('--norm', 'linf', '--eps', 0.1, '--features', 'nowhere'),
      ('`features` measure', "norm 'linf'"),
    ),
    (
      ('--norm', 'lpips', '--eps', 0.1, '--attacks', 'lpa', '--features', 'nowhere'), ('nowhere',)
    ),
    (
      ('--norm', 'lpips', '--eps', 0.1, '--attacks', 'lpa', '--sigma', 0.25),
      ('a smoothed model has no features', '--features'),
    ),
    (
      ('--norm', 'lpips', '--eps', 0.1, '--attacks', 'lpa', '--precision', 'bfloat16'),
      ('reads features of a network of certjax', '--features'),
    ),
  ],
)  # fmt: skip
def test_bad_attacks_are_refused_before_anything_is_written(command, run, tmp_path, options, parts):
  refused(command('attack', run, '--out', tmp_path / 'out', *SMALL, *options), *parts)
  assert not (tmp_path / 'out').exists()


def test_a_grid_shows_what_is_stored(command, run, data_dir, tmp_path, monkeypatch):
  drawn, draw = [], report.plot_attacked
  spy = lambda attacks, path, **options: (drawn.append(attacks), draw(attacks, path, **options))
  monkeypatch.setattr(report, 'plot_attacked', spy)
  file = tmp_path / 'grid.png'
  options = (
    '--grid',
    file,
    '--num-images',
    3,
    '--data-dir',
    data_dir,
    '--threats',
    '--out',
    tmp_path,
  )
  done = command('report', run / 'linf', run / 'stadv', *options)
  assert done.code == 0 and f'written to {file}' in done.out, done.err
  assert (tmp_path / 'threats.md').read_text().strip() in done.out
  with Image.open(file) as image:
    assert image.size == report.grid_pixels(2, 3, (8, 8, 1))
  test = data.load('digits', 'test', data_dir=data_dir)
  for name, shown in zip(('linf', 'stadv'), drawn[0], strict=True):
    lines = [r for r in records.read(run / name / THREATS[name][5])[1] if r['success']]
    chosen = [lines[i * len(lines) // 3] for i in range(3)]
    assert shown.index.tolist() == [line['index'] for line in chosen]
    assert shown.predict.tolist() == [line['predict'] for line in chosen]
    paths = sorted((run / name / THREATS[name][5] / 'adversarial').iterdir())
    arrays = {}
    for path in paths:
      with np.load(path) as content:
        arrays |= dict(zip(content['index'].tolist(), content['x_adv'], strict=True))
    for row, index in enumerate(shown.index.tolist()):
      np.testing.assert_array_equal(shown.adversarials[row], arrays[index])
      np.testing.assert_array_equal(shown.originals[row], data.to_float(test.images[index]))
      assert shown.labels[row] == test.labels[index]
  assert drawn[0][0].title == 'fgsm, linf 0.1 (pixel value)'


def test_bad_grids(command, run, data_dir, tmp_path):
  file, out = tmp_path / 'grid.png', tmp_path / 'linf'
  grid = lambda *options: command('report', out, '--grid', file, '--data-dir', data_dir, *options)
  refused(grid(), 'holds no attacks.json')
  shutil.copytree(run / 'linf', out)
  refused(grid('--num-images', 0), '`num_images` must be at least 1, got 0')
  refused(grid('--compare'), '`grid` reads attacks')
  refused(command('report', out, '--grid', tmp_path / 'grid.pdf'), 'name it FILE.png')
  lines = (out / 'fgsm' / 'records.jsonl').read_text()
  wrong = lines.replace('"label": 0', '"label": 1').replace('"label":0', '"label":1')
  assert wrong != lines
  (out / 'fgsm' / 'records.jsonl').write_text(wrong)
  refused(grid('--num-images', 20), 'not those of digits here', '--data-dir')
  none = lines.replace('"success": true', '"success": false').replace(
    '"success":true', '"success":false'
  )
  assert none != lines
  (out / 'fgsm' / 'records.jsonl').write_text(none)
  refused(grid(), 'the attack broke no image')
  (out / 'fgsm' / 'records.jsonl').write_text(lines)
  shutil.rmtree(out / 'fgsm' / 'adversarial')
  refused(grid(), 'its adversarial images are missing')
  assert not file.exists()


def test_bad_reports(command, run, tmp_path):
  summarise = lambda *arguments: command('report', *arguments, '--out', tmp_path / 'out')
  refused(summarise(run / 'linf', '--trained', 'linf'), '`trained`', 'give both')
  refused(summarise('--threats', run / 'linf', '--compare'), '`threats` reads attacks')
  refused(summarise('--threats', run / 'linf', '--latex', 'a.tex'), '`threats` reads attacks')
  refused(summarise('--threats', run / 'linf', '--trained', 'l2'), 'among linf', 'got l2')
  refused(summarise('--threats', run / 'linf', run / 'linf'), 'a threat twice at one size')
  refused(summarise('--threats', run), 'holds no attacks.json')
  other = tmp_path / 'other'
  assert command('attack', run, '--evenly', 5, *LINF, '--out', other).code == 0
  refused(
    summarise('--threats', run / 'stadv', other), 'images_sha256 differs between stadv and linf'
  )
  assert not (tmp_path / 'out').exists()
