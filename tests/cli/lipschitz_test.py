"""A Lipschitz run from the command line: trained without noise, certified without samples."""

import json

import jax
import numpy as np
import pytest

from certjax import cli, records, train

pytestmark = pytest.mark.usefixtures('many_programs')
MODEL = 'lipconvnet5-tiny-soc'


@pytest.fixture(scope='module')
def run(once, data_dir):
  """A few steps of a small network on digits."""

  def make(out):
    arguments = (
      'train',
      'lipconvnet5-soc-digits',
      '--model',
      MODEL,
      '--out',
      out,
      '--data-dir',
      data_dir,
    )
    assert cli.main([str(argument) for argument in (*arguments, '--max-steps', 25)]) == 0

  return once('lipschitz-run', make)


def certified(command, run, out, *options):
  return command('certify', run, '--out', out, '--evenly', 6, *options)


def test_it_needs_no_noise_and_no_samples(exact_run, run, tmp_path):
  """Default method, records in order, resumed, and a report that calls them exact."""
  header, _ = exact_run(run, tmp_path, 'lipschitz')
  assert 1 < header['constants']['lipschitz'] < 1 + 1e-8


def test_shards_and_slack(command, run, tmp_path):
  assert certified(command, run, tmp_path / 'whole', '--slack', 0.01).code == 0
  for shard in ('1/2', '0/2'):
    assert certified(command, run, tmp_path / 'parts', '--slack', 0.01, '--shard', shard).code == 0
  whole, parts = ((tmp_path / name / 'records.jsonl').read_bytes() for name in ('whole', 'parts'))
  assert parts == whole
  for line in map(json.loads, whole.splitlines()[1:]):
    lost = line['radius'] - line['slack_radius']
    assert lost == pytest.approx(min(0.01 / 2**0.5, line['radius']), abs=1e-8)


def test_other_methods_still_work(command, run, tmp_path):
  options = ('--method', 'gaussian', '--num-samples', 100, '--chunk', 50)
  done = command('certify', run, '--out', tmp_path, '--max-images', 1, '--sigma', 0.25, *options)
  assert done.code == 0
  header, _ = records.read(tmp_path)
  assert header['config']['method'] == 'gaussian' and header['config']['sigma'] == 0.25
  assert 'constants' not in header


def test_published_weights(command, run, data_dir, tmp_path):
  """--model and --weights of an architecture that states its constant give the run's records."""
  state = {}
  for path, leaf in jax.tree.leaves_with_path(train.load_run(run).variables):
    *layer, name = (key.key for key in path[1:])
    name = '.'.join([*layer, 'weight' if name == 'kernel' else name]).replace('_', '.')
    state[name] = np.transpose(leaf, (3, 2, 0, 1)) if np.ndim(leaf) == 4 else leaf
  np.savez(tmp_path / 'weights.npz', **state)
  options = ('--model', MODEL, '--weights', tmp_path / 'weights.npz', '--dataset', 'digits')
  options = (*options, '--data-dir', data_dir, '--evenly', 2)
  with jax.numpy_rank_promotion('allow'):  # A file's numbers come as vectors of one.
    assert command('certify', *options, '--out', tmp_path / 'there').code == 0
  assert command('certify', run, '--evenly', 2, '--out', tmp_path / 'here').code == 0
  there, here = (records.read(tmp_path / name)[1] for name in ('there', 'here'))
  assert there == here and len(here) == 2


@pytest.mark.parametrize(
  'options, said',
  [
    (('--precision', 'bfloat16'), '`precision` is of sampled methods'),
    (('--norm', 'linf'), "`norm` of the lipschitz method is 'l2'"),
    (('--parameters', 'keep', 0.2), 'lipschitz has no parameter keep; it takes norm.'),
    (('--radii', 0.5), '`radii` and `tolerance` are for sampling; lipschitz is exact'),
    (('--slack', -1), '`slack` must be a difference of logits'),
    (('--chunk', 0), '`chunk` must lie in 1 ..'),
  ],
)
def test_options_that_mean_nothing(command, run, tmp_path, options, said):
  done = certified(command, run, tmp_path / 'out', *options)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_a_network_without_a_constant(command, trained, tmp_path):
  done = certified(command, trained, tmp_path / 'out', '--method', 'lipschitz')
  assert done.code == 2 and 'DigitsCNN does not: certify it under noise' in done.err
  assert len(done.err.splitlines()) == 1 and not (tmp_path / 'out').exists()


def test_predict_has_nothing_to_vote_on(command, run, tmp_path):
  done = command('predict', run, '--out', tmp_path / 'out', '--evenly', 2)
  assert done.code == 2 and '`predict` votes under noise, lipschitz has none' in done.err
  assert not (tmp_path / 'out').exists()
