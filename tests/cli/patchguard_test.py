"""Robust masking from the command line: trained, certified as trained, resumed, reported, refused."""

import pytest

from certjax import cli, records, report

PATCH = ('--parameters', 'patch', 1)


@pytest.fixture(scope='module')
def local(once, data_dir):
  """A small BagNet after a few steps of its training on digits."""

  def make(out):
    options = (
      '--dataset',
      'digits',
      '--model',
      'bagnet-digits',
      '--max-steps',
      60,
      '--batch-size',
      64,
    )
    arguments = ('train', 'patchguard-mnist-quick', *options, '--out', out, '--data-dir', data_dir)
    assert cli.main([str(a) for a in (*arguments, '--objective-parameters.window', 3)]) == 0

  return once('patchguard-run', make)


def test_a_run_is_certified_as_it_was_trained(command, local, tmp_path):
  """Without a method named; resumed to the byte, with slack, and a report in its unit."""
  certified = lambda: command(
    'certify', local, '--out', tmp_path, '--evenly', 20, *PATCH, '--slack', 0.01
  )
  assert certified().code == 0
  header, lines = records.read(tmp_path)
  assert header['config']['method'] == 'patchguard' and header['config']['parameters'] == {
    'patch': 1
  }
  assert (header['norm'], header['unit']) == ('patch', 'patch side')
  assert header['constants'] == {'window': [3, 3]} and header['sampler'] == 'none'
  assert header['quantifier'] == 'exact'
  assert not {'sigma', 'alpha', 'num_samples', 'seed', 'chunk'} & header['config'].keys()
  assert {line['radius'] for line in lines} == {0.0, 1.0} and len(lines) == 20
  assert all(line['slack_radius'] <= line['radius'] for line in lines)
  file = tmp_path / 'records.jsonl'
  whole = file.read_bytes()
  file.write_bytes(b''.join(whole.splitlines(keepends=True)[:7]))  # As if it had been killed.
  again = certified()
  assert again.code == 0 and file.read_bytes() == whole and 'patch side' in again.out
  assert report.load(tmp_path).certificate.label.tolist() == [line['predict'] for line in lines]
  clipped = command(
    'certify',
    local,
    '--out',
    tmp_path / 'clipped',
    '--evenly',
    4,
    *PATCH,
    'aggregation',
    'clipping',
  )
  assert clipped.code == 0
  config = records.read(tmp_path / 'clipped')[0]['config']
  assert config['parameters'] == {'patch': 1, 'aggregation': 'clipping'}


@pytest.mark.parametrize(
  'options, said',
  [
    ((), 'a patch of side 5 meets all 6 x 6 cells of this network (each sees 3 pixels)'),
    (('--parameters', 'patch', 9), '`patch` must be a whole number of pixels, 1 .. 8, got 9'),
    (('--parameters', 'side', 2), 'masked has no parameter side; it takes patch, aggregation'),
    ((*PATCH, '--precision', 'bfloat16'), 'patchguard evaluates in float32, whatever it is'),
    ((*PATCH, '--radii', 1), '`radii` and `tolerance` are for sampling; patchguard is exact'),
  ],
)
def test_what_cannot_be_certified(command, local, tmp_path, options, said):
  done = command('certify', local, '--out', tmp_path / 'out', '--evenly', 2, *options)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_another_network(command, once, data_dir, tmp_path):
  """Neither certified by its local features, which it lacks, nor trained at them."""

  def make(out):
    arguments = ('train', 'digits', '--max-steps', 1, '--out', out, '--data-dir', data_dir)
    assert cli.main([str(argument) for argument in arguments]) == 0

  run = once('one-step-run', make)
  options = ('--out', tmp_path / 'out', '--evenly', 2, '--method', 'patchguard')
  done = command('certify', run, *options, *PATCH)
  assert done.code == 2 and 'DigitsCNN is none: certify it by bands' in done.err
  assert len(done.err.splitlines()) == 1 and not (tmp_path / 'out').exists()
  training = ('train', 'patchguard-mnist-quick', '--dataset', 'digits', '--model', 'digits-cnn')
  done = command(*training, '--out', tmp_path / 'run', '--data-dir', data_dir)
  assert done.code == 2 and 'needs a network of local features' in done.err
