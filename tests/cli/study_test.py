"""`certjax study`: from stored attacks on real digits to a page, its endpoint, and the analysis."""

import json
import signal
import subprocess
import sys
import urllib.request

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from certjax import data, distances, models, records, study, train
from certjax.evaluate._adversarials import write_adversarials

SHIFTS = {0: 0.02, 1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}  # Of each image; image 3 was not broken.
SMALL = ('--batch-size', 6, '--num-identical', 1, '--num-sentinels', 2)


def store(directory, names=('pgd',), norm='linf', eps=0.4, parts=(), scale=1.0, split='test'):
  """What `certjax attack` leaves of five digits in batches of three: `parts` has one directory each."""
  x = data.to_float(
    data.take(data.stream(data.source('digits', split), np.arange(5)), slice(None)).images
  )
  header = {'config': {'dataset': 'digits', 'split': split}}
  lines = [{'index': i, 'label': 0, 'predict': int(i != 3), 'radius': 0.0} for i in range(5)]
  with records.writer(directory / 'clean', header, num_images=5) as writer:
    for line in lines:
      writer.append(line | {'success': False}, {})
  for name in names:
    for part in parts or ('',):
      place = directory / name / part if part else directory / name
      mine = [i for i in range(5) if part != 'second' or i in (3, 4)]
      with records.writer(place, header, num_images=len(mine)) as writer:
        for i in mine:
          writer.append(
            lines[i] | {'success': i != 3 and (not part or (part == 'first') == (i < 4))}, {}
          )
      for start in range(0, len(mine), 3):
        index = mine[start : start + 3]
        delta = np.array([scale * SHIFTS[i] for i in index], np.float32)[:, None, None, None]
        write_adversarials(
          place / 'adversarial' / f'{start:08}.npz', index, np.clip(x[index] + delta, 0, 1)
        )
  summary = {
    'norm': norm,
    'eps': eps,
    'unit': 'pixel value',
    'attacks': [{'name': name} for name in names],
    'worst_case': {'correct': 0},
  }
  (directory / 'attacks.json').write_text(json.dumps(summary))
  return directory, data.take(
    data.stream(data.source('digits', split), np.arange(5)), slice(None)
  ).images


@pytest.fixture
def attacked(tmp_path):
  return store(tmp_path / 'attack')


def adversarial(out):
  return [truth for truth in study.read_key(out)['pairs'].values() if 'attack' in truth]


def refused(outcome, *parts):
  assert outcome.code == 2, outcome.out
  assert outcome.err.count('\n') == 1 and outcome.err.startswith('certjax: error: '), outcome.err
  assert all(part in outcome.err for part in parts), outcome.err


def test_pairs_are_the_stored_successes(command, attacked, tmp_path):
  directory, x = attacked
  out = tmp_path / 'study'
  done = command('study', 'build', directory, '--out', out, *SMALL)
  assert done.code == 0, done.err
  assert (
    'pgd-linf 0.4: 4 pairs' in done.out and f'2 batches of 6: {out}/page/index.html' in done.out
  )
  key = study.read_key(out)
  found = adversarial(out)
  assert sorted(truth['index'] for truth in found) == [0, 1, 2, 4]
  for name, truth in key['pairs'].items():
    if 'attack' not in truth:
      continue
    order = ('original', 'adversarial')
    ends = ('1', '2') if truth['first'] == 'original' else ('2', '1')
    images = dict(zip(order, (_pixels(out, name, end) for end in ends), strict=True))
    clean = x[truth['index']]
    shift = np.float32(SHIFTS[truth['index']])
    expected = np.rint(255 * np.clip(data.to_float(clean) + shift, 0, 1)).astype(np.uint8)
    np.testing.assert_array_equal(images['original'], clean[..., 0])
    np.testing.assert_array_equal(images['adversarial'], expected[..., 0])
    delta = (expected.astype(float) - clean) / 255
    assert truth['distances'] == pytest.approx(
      {'l2': np.sqrt((delta**2).sum()), 'linf': np.abs(delta).max()}, abs=1e-6
    )


def _pixels(out, name, end):
  with Image.open(out / 'page' / 'pairs' / f'{name}-{end}.png') as file:
    return np.asarray(file)


def test_parts_and_several_directories(command, tmp_path):
  one, _ = store(tmp_path / 'one', names=('autoattack',), parts=('first', 'second'))
  two, _ = store(tmp_path / 'two', names=('pgd', 'ddn'), norm='l2', eps=1.0)
  out = tmp_path / 'study'
  done = command('study', 'build', one, two, '--out', out, '--max-pairs', 3, *SMALL)
  assert done.code == 0, done.err
  groups = {}
  for truth in adversarial(out):
    groups.setdefault((truth['attack'], truth['bound']), []).append(truth['index'])
  assert {name: sorted(index) for name, index in groups.items()} == {
    ('autoattack-linf', 0.4): [0, 1, 2], ('pgd-l2', 1.0): [0, 1, 2], ('ddn-l2', 1.0): [0, 1, 2],
  }  # fmt: skip


def test_what_eight_bits_hide_is_said(command, tmp_path):
  directory, _ = store(tmp_path / 'attack', scale=0.01)
  done = command('study', 'build', directory, '--out', tmp_path / 'study', *SMALL)
  assert done.code == 0 and 'warning: pgd-linf 0.4: 2 pairs are equal once rounded' in done.err
  assert sorted(truth['unchanged'] for truth in adversarial(tmp_path / 'study')) == [
    False,
    False,
    True,
    True,
  ]


def test_lpips_of_a_run(command, attacked, tmp_path):
  """Of a network as training leaves it, that was only initialised."""
  directory, x = attacked
  run, out = tmp_path / 'run', tmp_path / 'study'
  spec = data.dataset('digits')
  module = models.build('digits-cnn', num_classes=10, mean=spec.mean, std=spec.std)
  state = train.init_state(jax.random.key(0), module, optax.sgd(0.1), spec.shape)
  train.save(run / 'checkpoints', state)
  config = {
    'dataset': 'digits',
    'data_dir': None,
    'model': 'digits-cnn',
    'method': 'none',
    'sigma': None,
  }
  (run / 'config.json').write_text(json.dumps(config))
  done = command('study', 'build', directory, '--out', out, '--features', 'self', run, *SMALL)
  assert done.code == 0, done.err
  feature_fn = models.features_of(train.load_run(run).model_fn)
  index = np.array([0, 1, 2, 4])
  shift = np.float32([SHIFTS[i] for i in index])[:, None, None, None]
  shown = np.rint(255 * np.clip(data.to_float(x[index]) + shift, 0, 1)).astype(np.uint8)
  expected = distances.between(distances.lpips(feature_fn), x[index], shown)
  found = {truth['index']: truth['distances']['lpips_self'] for truth in adversarial(out)}
  assert [found[i] for i in index] == pytest.approx(expected.tolist(), rel=1e-5)
  assert expected[0] > 0


def test_served_and_analysed(command, attacked, tmp_path):
  directory, _ = attacked
  out = tmp_path / 'study'
  assert command('study', 'build', directory, '--out', out, *SMALL).code == 0
  server = subprocess.Popen(
    [sys.executable, '-m', 'certjax', 'study', 'serve', out, '--port', '0'],
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    address = server.stdout.readline().strip()
    key = study.read_key(out)
    for batch, names in enumerate(key['settings']['batches'], start=1):
      answers = [
        {'pair': name, 'answer': 'same' if key['pairs'][name]['truth_same'] else 'different', 'milliseconds': 9}
        for name in names
      ]  # fmt: skip
      text = json.dumps({'worker': 'w1', 'batch': batch, 'answers': answers})
      with urllib.request.urlopen(f'{address}answers', text.encode(), timeout=10) as reply:
        assert reply.status == 200
    server.send_signal(signal.SIGINT)
    rest, _ = server.communicate(timeout=20)
  finally:
    server.kill()
    server.wait()
  assert server.returncode == 0 and rest == f'answers are in {out}/answers\n'
  done = command('study', 'analyse', out)
  assert (
    done.code == 0
    and '| pgd-linf | 0.4 (pixel value) | 4 | 4 | 1.000 | 0.510 to 1.000 |' in done.out
  )
  assert sorted(path.name for path in (out / 'analysis').iterdir()) == [
    'answers.csv', 'study.csv', 'study.json', 'study.md', 'study.png',
  ]  # fmt: skip
  refused(command('study', 'analyse', out, '--threshold', 2), '`threshold` must be a share')


def test_refusals(command, attacked, tmp_path):
  directory, _ = attacked
  out = tmp_path / 'study'
  build = lambda *arguments: command('study', 'build', *arguments, '--out', out)
  refused(command('study'), 'begins with one of build, serve, analyse; got nothing')
  refused(command('study', 'prove'), "got 'prove'")
  refused(build(tmp_path), 'holds no attacks.json')
  refused(build(directory, directory), 'one attack and bound twice')
  refused(build(directory, '--max-pairs', 0), '`max_pairs`')
  refused(build(directory, '--batch-size', 9), '`batch_size`=9 must hold')
  refused(build(directory, '--url', 'http://a.org'), '`url` must be https')
  other, _ = store(tmp_path / 'other', names=('fgsm',), split='train')
  refused(build(directory, other), 'must be of one data set')
  assert not out.exists()
  (directory / 'pgd' / 'adversarial' / '00000003.npz').write_bytes(b'x')
  refused(build(directory), '00000003.npz: damaged')
  (directory / 'attacks.json').write_text('{}')
  refused(build(directory), 'attacks.json is damaged')
  refused(command('study', 'serve', out), 'holds no study')
  refused(command('study', 'analyse', out), 'holds no study')


def test_a_study_is_kept(command, attacked, tmp_path):
  directory, _ = attacked
  assert command('study', 'build', directory, '--out', tmp_path / 'study', *SMALL).code == 0
  refused(
    command('study', 'build', directory, '--out', tmp_path / 'study'), 'holds a study already'
  )
  refused(command('study', 'analyse', tmp_path / 'study'), '`answers`')
