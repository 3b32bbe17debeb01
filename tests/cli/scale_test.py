"""Shards, segments, sequential tests, bfloat16: what a large run needs, on a small one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from certjax import data, records

SMALL = ('--evenly', 11, '--num-samples', 600, '--chunk', 100)


@pytest.fixture(scope='module')
def whole(once, trained):
  """The records of one process."""
  from certjax import cli

  def make(out):
    assert cli.main([*map(str, ('certify', trained, '--out', out, *SMALL))]) == 0

  return once('eleven-images', make)


def test_shards_on_any_number_of_devices_merge_to_the_records_of_one_process(
  command, trained, whole, tmp_path
):
  """Three shards on 8, 2 and 1 devices, each in a process of its own."""
  arguments = ['certify', trained, '--out', tmp_path / 'run', *SMALL]
  for index, devices in enumerate((8, 2, 1)):
    done = subprocess.run(
      [sys.executable, '-m', 'certjax', *map(str, arguments), '--shard', f'{index}/3'],
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices), 'XDG_CACHE_HOME': str(tmp_path)},
      capture_output=True, text=True, check=True,
    )  # fmt: skip
    if index == 1:
      partial = command('report', tmp_path / 'run')
      assert partial.code == 0 and 'shard 2' in partial.err
  assert 'everything is in' in done.stdout and '| r = 0 |' in done.stdout
  merged = (tmp_path / 'run' / 'records.jsonl').read_bytes()
  assert merged == (whole / 'records.jsonl').read_bytes()


def test_shards_in_segments_merge_to_the_same_records(
  command, trained, whole, tmp_path, monkeypatch
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  arguments = ['certify', trained, '--out', tmp_path / 'run', *SMALL, '--store', 'segments']
  for index in range(3):
    done = command(*arguments, '--shard', f'{index}/3')
    assert done.code == 0, done.err
    if index == 1:
      partial = command('report', tmp_path / 'run')
      assert partial.code == 0 and 'shard 2' in partial.err
  assert 'everything is in' in done.out and '| r = 0 |' in done.out
  merged = (tmp_path / 'run' / 'records.jsonl').read_bytes()
  assert merged == (whole / 'records.jsonl').read_bytes()


def test_slurm_tells_the_shard(command, trained, whole, tmp_path, monkeypatch):
  monkeypatch.setenv('SLURM_NTASKS', '2')
  monkeypatch.setenv('SLURM_STEP_NODELIST', 'node[1-2]')
  for index in (1, 0):  # Whichever comes last reports.
    monkeypatch.setenv('SLURM_PROCID', str(index))
    done = command('certify', trained, '--out', tmp_path, *SMALL)
    assert done.code == 0 and f'certifying shard {index}/2' in done.err
  assert (tmp_path / 'records.jsonl').read_bytes() == (whole / 'records.jsonl').read_bytes()


def test_a_shard_goes_on_where_it_stopped(command, trained, whole, tmp_path):
  arguments = ('certify', trained, '--out', tmp_path, *SMALL, '--shard', '1/2')
  assert command(*arguments).code == 0
  path = tmp_path / 'records-00001-of-00002.jsonl'
  full = path.read_bytes()
  path.write_bytes(full[:-40])  # Torn in the last line.
  again = command(*arguments)
  assert again.code == 0 and '4 of 5 images done' in again.err
  assert path.read_bytes() == full


@pytest.mark.parametrize('shard', ['2/2', '1', 'a/b', '-1/2'])
def test_bad_shards(command, trained, tmp_path, shard):
  refused = command('certify', trained, '--out', tmp_path / 'out', f'--shard={shard}')
  assert refused.code == 2 and '`shard`' in refused.err
  assert not (tmp_path / 'out').exists()


def test_sequential(command, trained, whole, tmp_path):
  options = ('--radii', 0.1, 0.2, '--evenly', 11, '--num-samples', 20_000, '--chunk', 100)
  done = command('certify', trained, '--out', tmp_path / 'a', *options)
  assert done.code == 0 and '| r = 0 |' in done.out
  header, lines = records.read(tmp_path / 'a')
  assert header['config']['radii'] == [0.1, 0.2] and header['alpha'] == 0.001
  assert {line['radius'] for line in lines} == {0.0, 0.1, 0.2}
  assert np.median([line['samples'] for line in lines]) < 2000
  _, fixed = records.read(whole)  # 600 samples prove 0.2 only of clear cases.
  for one, other in zip(lines, fixed, strict=True):
    assert one['radius'] >= 0.2 or other['radius'] < 0.2
  labels = command('certify', trained, '--out', tmp_path / 'b', *options, '--fixed-class')
  assert labels.code == 0
  _, tested = records.read(tmp_path / 'b')
  assert all(line['candidate'] == line['label'] for line in tested)
  correct = [(line['predict'] == line['label']) * line['radius'] for line in lines]
  assert [line['radius'] for line in tested] == correct


def test_tolerance(command, trained, tmp_path):
  options = ('--tolerance', 0.2, '--evenly', 4, '--num-samples', 50_000, '--chunk', 100)
  assert command('certify', trained, '--out', tmp_path, *options).code == 0
  _, lines = records.read(tmp_path)
  assert any(line['radius'] > 0.3 for line in lines)
  assert all(line['samples'] < 30_000 for line in lines)


@pytest.mark.parametrize(
  'options, said',
  [
    (('--rule', 'betting'), 'give --radii or --tolerance'),
    (('--radii', 0.1, '--runner-up'), '`runner_up` has no sequential form'),
    (('--radii', 0.1, '--tolerance', 0.1), 'give either `radii`'),
    (('--radii', 0.7), 'never prove'),
    (('--radii', 0.1, '--method', 'deterministic-splitting'), 'is exact'),
    (('--slack', 0.1), '`slack` is of exact methods'),
    (('--slack', -1, '--method', 'deterministic-splitting'), '`slack` must be a difference'),
    (('--precision', 'float16'), '`precision` must be one of float32, bfloat16'),
    (('--dataset', 'mnist'), '`dataset` goes with --model'),
    (('--model', 'resnet20'), 'evaluate what?'),
  ],
)
def test_options_that_do_not_fit(command, trained, tmp_path, options, said):
  refused = command('certify', trained, '--out', tmp_path / 'out', *options, *SMALL)
  assert refused.code == 2 and said in refused.err, refused.err
  assert len(refused.err.splitlines()) == 1 and not (tmp_path / 'out').exists()


def test_bfloat16_is_another_classifier_and_says_so(command, trained, whole, tmp_path):
  done = command('certify', trained, '--out', tmp_path, *SMALL, '--precision', 'bfloat16')
  assert done.code == 0
  header, lines = records.read(tmp_path)
  before, others = records.read(whole)
  assert list(records.differences(header, before)) == [
    "config.precision is absent there and 'bfloat16' here"
  ]
  counts, exact = ([line['count'] for line in run] for run in (lines, others))
  assert counts != exact and np.abs(np.subtract(counts, exact)).max() < 30


def test_slack_records_the_portable_radius_too(command, trained, tmp_path):
  options = ('--method', 'deterministic-splitting', '--evenly', 4, '--chunk', 200)
  plain = command('certify', trained, '--out', tmp_path / 'a', *options)
  slack = command('certify', trained, '--out', tmp_path / 'b', *options, '--slack', 0.5)
  assert plain.code == slack.code == 0
  (_, alone), (header, both) = records.read(tmp_path / 'a'), records.read(tmp_path / 'b')
  assert header['config']['slack'] == 0.5
  for one, other in zip(alone, both, strict=True):
    assert other['radius'] == one['radius'] >= other['slack_radius']
  assert any(line['radius'] > line['slack_radius'] for line in both)


MODEL = """
import jax.numpy as jnp, numpy as np
from flax import linen as nn, nnx

W = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)

def in_jax(x):
  return (x.reshape(len(x), 64) - 0.5) @ W

def in_numpy(x):
  assert type(x) is np.ndarray
  return (x.reshape(len(x), 64) - 0.5) @ W

class Net(nnx.Module):
  def __init__(self):
    self.w = nnx.Param(jnp.asarray(W))
  def __call__(self, x):
    return (x.reshape(len(x), 64) - 0.5) @ self.w[...]

class Linen(nn.Module):
  @nn.compact
  def __call__(self, x):
    return (x.reshape(len(x), 64) - 0.5) @ self.param('w', lambda key: jnp.asarray(W))

in_nnx = Net()
in_linen = (Linen(), {'params': {'w': jnp.asarray(W)}})
broken = lambda x: x @ W
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
  (tmp_path / 'own_models.py').write_text(MODEL)
  monkeypatch.chdir(tmp_path)
  monkeypatch.delitem(sys.modules, 'own_models', raising=False)
  monkeypatch.setattr(sys, 'path', list(sys.path))


def test_a_model_of_ones_own_from_anywhere(command, own, data_dir, tmp_path):
  """A function, nnx, linen, and numpy outside JAX: the same classifier, the same records."""
  found = {}
  for name, extra in {
    'in_jax': (), 'in_nnx': (), 'in_linen': (), 'in_numpy': ('--outside-jax',),
  }.items():  # fmt: skip
    out = tmp_path / name
    done = command(
      'certify', '--model', f'own_models:{name}', '--dataset', 'digits', '--data-dir', data_dir,
      '--sigma', 0.25, '--out', out, *SMALL, *extra,
    )  # fmt: skip
    assert done.code == 0, done.err
    header, found[name] = records.read(out)
    assert header['config']['model'] == f'own_models:{name}'
  assert found['in_jax'] == found['in_nnx'] == found['in_linen']
  counts = [[line['count'] for line in found[name]] for name in ('in_jax', 'in_numpy')]
  assert np.abs(np.subtract(*counts)).max() <= 2  # Another matrix product, other last bits.
  assert len(set(counts[0])) > 3


def test_other_weights_of_ones_own_model_are_refused(command, own, data_dir, tmp_path):
  arguments = (
    'certify', '--model', 'own_models:in_jax', '--dataset', 'digits', '--data-dir', data_dir,
    '--sigma', 0.25, '--out', tmp_path / 'out', *SMALL,
  )  # fmt: skip
  assert command(*arguments).code == 0
  (tmp_path / 'own_models.py').write_text(MODEL.replace('default_rng(0)', 'default_rng(10)'))
  del sys.modules['own_models']
  refused = command(*arguments)
  assert refused.code == 2 and 'weights_sha256' in refused.err


@pytest.mark.parametrize(
  'model, said',
  [
    ('own_models:missing', "has no attribute 'missing'"),
    ('no_such_package:f', "No module named 'no_such_package'"),
    ('own_models:broken', 'does not take images of shape (8, 8, 8, 1)'),
    ('own_models:Net', 'a model is a function'),
    ('resnet20', 'say where its --weights are'),
  ],
)
def test_models_that_are_none(command, own, data_dir, tmp_path, model, said):
  refused = command(
    'certify', '--model', model, '--dataset', 'digits', '--data-dir', data_dir, '--sigma', 0.25,
    '--out', tmp_path / 'out', *SMALL,
  )  # fmt: skip
  assert refused.code == 2 and said in refused.err, refused.err
  assert len(refused.err.splitlines()) == 1 and not (tmp_path / 'out').exists()


def test_another_jaxlib_or_another_data_set_is_refused(
  command, trained, whole, data_dir, tmp_path, monkeypatch
):
  out = tmp_path / 'out'
  out.mkdir()
  kept = (whole / 'records.jsonl').read_bytes()
  (out / 'records.jsonl').write_bytes(kept)
  monkeypatch.setattr('jaxlib.__version__', '0.0.1')
  refused = command('certify', trained, '--out', out, *SMALL)
  assert refused.code == 2 and 'program.jaxlib' in refused.err
  monkeypatch.undo()
  examples = data.Source.examples
  inverted = lambda self, index: ((255 - image, y) for image, y in examples(self, index))
  monkeypatch.setattr(data.Source, 'examples', inverted)
  refused = command('certify', trained, '--out', out, *SMALL)
  assert refused.code == 2 and 'images_sha256' in refused.err
  assert (out / 'records.jsonl').read_bytes() == kept


def test_records_hold_no_place_and_no_shard(whole, trained):
  header = (whole / 'records.jsonl').read_text().splitlines()[0]
  assert str(trained) not in header and 'shard' not in json.loads(header)
