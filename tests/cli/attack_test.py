"""`certjax attack`: table, records, resumption byte for byte, forgeries, smoothed runs, bad input."""

import json
import os
import signal

import numpy as np
import pytest

from certjax import configs, data, records
from certjax.cli import _attack
from certjax.evaluate import _attack as engine

pytestmark = pytest.mark.usefixtures('many_programs')

MODEL = """
import jax, numpy as np

means = np.load('{means}')

def logits(means, x):  # Nearest class mean: linear, so that attacks compile fast.
  x = x.reshape(len(x), -1)
  return 2 * x @ means.T - (means ** 2).sum(axis=1)[None]

model_fn = jax.tree_util.Partial(logits, means)
"""
SMALL = (
  '--evenly', 12, '--batch-size', 5, '--eps', 0.1, '--attacks', 'fgsm', 'pgd', '--options', 'pgd.num_steps', 3,
)  # fmt: skip


@pytest.fixture(scope='module')
def home(data_dir, tmp_path_factory):
  """A directory with the classifier."""
  home = tmp_path_factory.mktemp('home')
  training = data.load('digits', 'train', data_dir=data_dir)
  x = data.to_float(training.images).reshape(len(training.labels), -1)
  np.save(home / 'means.npy', np.stack([x[training.labels == c].mean(axis=0) for c in range(10)]))
  (home / 'nearest_means.py').write_text(MODEL.format(means=home / 'means.npy'))
  return home


@pytest.fixture
def model(home, data_dir, monkeypatch):
  """A command line up to the classifier that it attacks."""
  monkeypatch.syspath_prepend(home)
  return (
    'attack',
    '--model',
    'nearest_means:model_fn',
    '--dataset',
    'digits',
    '--data-dir',
    data_dir,
  )


def contents(out):
  """Relative path -> bytes of all that is deterministic."""
  files = (path for path in out.rglob('*') if path.is_file() and not path.name.startswith('.'))
  return {str(p.relative_to(out)): p.read_bytes() for p in files if 'timing' not in p.name}


def refused(outcome, *parts):
  errors = [line for line in outcome.err.splitlines() if line.startswith('certjax: error: ')]
  assert outcome.code == 2 and len(errors) == 1, outcome
  assert all(part in errors[0] for part in parts), errors
  assert 'Traceback' not in outcome.out + outcome.err


def test_table_resumption_and_forgery(command, model, tmp_path, monkeypatch):
  arguments = (*model, *SMALL)
  done = command(*arguments, '--out', tmp_path / 'whole')
  assert done.code == 0, done.err
  summary = json.loads((tmp_path / 'whole' / 'attacks.json').read_text())
  header, clean = records.read(tmp_path / 'whole' / 'clean')
  alive = {line['index'] for line in clean if line['predict'] == line['label']}
  right = {'clean': alive}
  for name in ('fgsm', 'pgd'):
    header, lines = records.read(tmp_path / 'whole' / name)
    assert header['norm'] == 'linf' and header['eps'] == 0.1 and header['part'] == name
    assert {line['index'] for line in lines} == alive
    assert all(line['success'] == (line['predict'] != line['label']) for line in lines)
    right[name] = {line['index'] for line in lines if not line['success']}
  assert header['settings']['num_steps'] == 3 and header['settings']['step_size'] == pytest.approx(
    0.25 / 3
  )
  right['worst case'] = right['fgsm'] & right['pgd']
  rows = [summary['clean'], *summary['attacks'], summary['worst_case']]
  for row in rows:
    assert (
      row['correct'] == len(right[row['name']])
      and f'| {row["name"]} | {row["accuracy"]:.4f} |' in done.out
    )
  assert 0 < summary['worst_case']['correct'] < summary['clean']['correct']

  # SIGTERM while a batch is written, then the same command.
  write, written = engine.write_adversarials, []

  def stopping(*arguments):
    write(*arguments)
    written.append(1)
    if len(written) == 2:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(engine, 'write_adversarials', stopping)
  stopped = command(*arguments, '--out', tmp_path / 'parts')
  assert stopped.code == 75 and 'the same command continues' in stopped.err
  assert not (tmp_path / 'parts' / 'attacks.json').exists() and len(written) == 2
  path = tmp_path / 'parts' / 'fgsm' / 'records.jsonl'
  path.write_bytes(path.read_bytes()[:-9])  # As if it had been killed on top.
  assert command(*arguments, '--out', tmp_path / 'parts').code == 0
  assert contents(tmp_path / 'parts') == contents(tmp_path / 'whole')

  # An image that is changed by hand.
  path = tmp_path / 'whole' / 'pgd' / 'adversarial' / '00000000.npz'
  with np.load(path) as file:
    index, x_adv = file['index'], file['x_adv'].copy()
  x_adv[0] = 1 - x_adv[0]
  write(path, index, x_adv)
  refused(
    command(*arguments, '--out', tmp_path / 'whole'), '00000000.npz', 'row 0', 'beyond eps=0.1'
  )


def test_a_smoothed_model_abstains(command, model, tmp_path, monkeypatch):
  monkeypatch.setattr(
    _attack, '_flags', lambda target, images: []
  )  # They take compiling, and are seen above.
  small = (
    '--evenly', 6, '--batch-size', 6, '--eps', 0.5, '--norm', 'l2', '--attacks', 'pgd', '--sigma', 0.25,
    '--method', 'uniform', '--num-noises', 2, '--num-samples', 40, '--chunk', 40, '--options', 'pgd.num_steps', 2,
  )  # fmt: skip
  done = command(*model, *small, '--out', tmp_path / 'out')
  assert done.code == 0, done.err
  summary = json.loads((tmp_path / 'out' / 'attacks.json').read_text())
  header, lines = records.read(tmp_path / 'out' / 'clean')
  assert header['config']['method'] == 'uniform' and header['config']['num_noises'] == 2
  assert header['norm'] == 'l2' and 'smoothing._uniform' in header['sampler']
  abstained = sum(line['predict'] < 0 for line in lines)
  assert summary['clean']['abstained'] == abstained
  (row,) = summary['attacks']
  assert row['correct'] + row['wrong'] + row['abstained'] == 6 and row['correct'] < 6


@pytest.mark.parametrize(
  'options, parts',
  [
    ((), ('`eps` has no default',)),
    (('--eps', 8), ('`eps` is in pixel units', '8 / 255')),
    (('--eps', 0.1, '--norm', 'l3'), ('`norm` must be one of linf, l2, l1, l0, patch', "'l3'")),
    (('--eps', 0.1, '--attacks', 'pdg'), ('`attacks` must be among', "'pdg'")),
    (('--eps', 0.1, '--attacks', 'pgd', 'pgd'), ('names one twice',)),
    (('--eps', 0.1, '--attacks', 'ddn'), ('ddn is for l2', "norm 'linf'", 'autoattack')),
    (('--eps', 0.1, '--options', 'pgd.num_steps', 3), ('`options` are ATTACK.PARAMETER', "'pgd.num_steps'")),
    (
      ('--eps', 0.1, '--options', 'autoattack.steps', 3),
      ('autoattack has no parameter steps', 'num_steps'),
    ),
    (
      ('--eps', 0.1, '--options', 'autoattack.num_steps', 2.5),
      ('autoattack.num_steps is a whole number', '2.5'),
    ),
    (('--eps', 0.1, '--options', 'autoattack.version', 'fast'), ('`version` must be one of', "'fast'")),
    (('--eps', 0.1, '--batch-size', 0), ('`batch_size` must be at least 1, got 0',)),
    (('--eps', 0.1, '--shard', '0/2'), ('`shard` is of certify',)),
    (('--eps', 0.1, '--outside-jax',), ('`outside_jax`', 'gradients')),
    (('--eps', 0.1, '--sigma', 0.25, '--num-samples', 5), ('always abstains',)),
    (('--eps', 0.1, '--evenly', 501), ('`evenly`=501',)),
    (('--eps', 0.1, '--seed', -1), ('`seed`', 'got -1')),
  ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(command, model, tmp_path, options, parts):
  refused(command(*model, '--out', tmp_path / 'out', *options), *parts)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', configs.ATTACKS)
def test_every_attack_of_the_table_is_built(name):
  row = configs.ATTACKS[name]
  assert row.title and 'arXiv' in row.reference and row.norms
  for norm in row.norms:
    for eps in (0, 2 if norm in ('l0', 'patch') else 0.1):
      parts = configs.build_attack(name, configs.threat_of(norm, eps), 10)
      assert all(callable(part.attack) and json.dumps(part.settings) for part in parts)


def test_values_become_their_parameters_type():
  parts = configs.build_attack('pgd', configs.threat_of('linf', 0.4), 10, {'num_steps': 8.0})
  assert parts[0].settings == {'num_steps': 8, 'step_size': 0.125, 'num_restarts': 1}
  (part,) = configs.build_attack('fgsm', configs.threat_of('l2', 1.0), 10, {'random_start': 1.0})
  assert part.settings == {'random_start': True}
  with pytest.raises(ValueError, match='pgd.step_size is a number, got'):
    configs.build_attack('pgd', configs.threat_of('linf', 0.4), 10, {'step_size': 'long'})
  with pytest.raises(ValueError, match='autoattack.version is a word, got 3'):
    configs.build_attack('autoattack', configs.threat_of('linf', 0.4), 10, {'version': 3.0})


def test_square_after_white_box_parts_is_flagged():
  part = lambda name, broken: engine.Outcome(
    name, np.arange(4), np.zeros(4, int), np.array([1] * broken + [0] * (4 - broken)), np.zeros(4)
  )
  clean = part('clean', 0)
  found = lambda *parts: [
    flag.name for flag in _attack._square_flags(engine.Attacked(clean, {'a': parts}))
  ]
  assert found(part('apgd-ce', 0), part('square', 2)) == ['square']
  assert found(part('apgd-ce', 2), part('square', 0)) == [] == found(part('square', 3))
