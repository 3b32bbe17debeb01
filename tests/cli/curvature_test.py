"""Curvature from the command line: of a smooth network, and of a head on Lipschitz features."""

import json

import pytest

from certjax import cli, records

pytestmark = pytest.mark.usefixtures('many_programs')


def trained(once, data_dir, name, *options):
  """A few steps on digits, in a directory of its own."""

  def make(out):
    arguments = ('train', *options, '--out', out, '--data-dir', data_dir)
    assert cli.main([str(argument) for argument in arguments]) == 0

  return once(name, make)


@pytest.fixture(scope='module')
def smooth(once, data_dir):
  """A sigmoid network under curvature-regularised training."""
  options = ('crt-mnist', '--dataset', 'digits', '--max-steps', 20)
  return trained(once, data_dir, 'crt-run', *options, '--objective-parameters.eps', 0.2)


@pytest.fixture(scope='module')
def headed(once, data_dir):
  """A LipConvNet that ends in a curvature head."""
  options = ('lipconvnet5-soc-digits', '--model', 'lipconvnet5-small-soc-crc', '--max-steps', 5)
  return trained(once, data_dir, 'crc-lip-run', *options)


def test_a_smooth_network_is_certified_by_its_curvature(exact_run, command, smooth, tmp_path):
  """Without being told so, after training for it; shards and slack as of other exact methods."""
  header, lines = exact_run(smooth, tmp_path / 'out', 'crc')
  assert header['constants'].keys() == {'curvature', 'lipschitz'}
  options = ('--evenly', 6, '--method', 'crc', '--slack', 0.01)
  for shard in ('1/2', '0/2'):
    done = command('certify', smooth, '--out', tmp_path / 'parts', *options, '--shard', shard)
    assert done.code == 0
  for line, whole in zip(records.read(tmp_path / 'parts')[1], lines, strict=True):
    assert {name: line[name] for name in whole} == whole
    assert line['slack_predict'] == line['predict'] and 0 < line['slack_radius'] < line['radius']
  few = ('--evenly', 6, '--method', 'crc', '--parameters', 'num_steps', 1)
  assert command('certify', smooth, '--out', tmp_path / 'few', *few).code == 0
  short = [line['radius'] for line in records.read(tmp_path / 'few')[1]]
  assert all(r <= line['radius'] for r, line in zip(short, lines, strict=True))
  assert sum(short) < sum(line['radius'] for line in lines)


def test_a_curvature_head_is_certified_as_a_lipschitz_network(exact_run, headed, tmp_path):
  header, _ = exact_run(headed, tmp_path, 'lipschitz')
  assert 1 < header['constants']['lipschitz'] < 1 + 1e-6 and header['constants']['curvature'] > 0


@pytest.mark.parametrize(
  'options, said',
  [
    (('--precision', 'bfloat16'), '`precision` is of sampled methods'),
    (('--norm', 'linf'), "`norm` of the crc method is 'l2'"),
    (('--parameters', 'keep', 0.2), 'crc has no parameter keep; it takes norm, num_steps'),
    (('--eps', 0.2), 'crc has no parameter eps'),
    (('--parameters', 'num_steps', 0.5), '`num_steps` must be a whole number'),
    (('--radii', 0.5), '`radii` and `tolerance` are for sampling; crc is exact'),
    (('--slack', -1), '`slack` must be a difference of logits'),
  ],
)
def test_options_that_mean_nothing(command, smooth, tmp_path, options, said):
  done = command('certify', smooth, '--out', tmp_path / 'out', '--evenly', 2, *options)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_a_network_that_is_not_smooth(command, headed, tmp_path):
  done = command('certify', headed, '--out', tmp_path / 'out', '--evenly', 2, '--method', 'crc')
  assert done.code == 2 and 'LipConvNet is none: certify it under noise' in done.err
  assert len(done.err.splitlines()) == 1 and not (tmp_path / 'out').exists()
  config = json.loads((headed / 'config.json').read_text())
  assert config['model'] == 'lipconvnet5-small-soc-crc'
