"""A run trained at bounds from the command line, and verified by them."""

import json

import pytest

from certjax import cli, records, report

EPS = 0.02


@pytest.fixture(scope='module')
def run(once, data_dir):
  """A hundred steps of IBP on digits."""

  def make(out):
    arguments = (
      'train', 'digits', '--method', 'none', '--sigma', 0, '--objective', 'ibp',
      '--objective-parameters', 'eps', EPS, '--objective-warmup-epochs', 2, '--out', out,
      '--data-dir', data_dir, '--num-epochs', 5,
    )  # fmt: skip
    assert cli.main([str(argument) for argument in arguments]) == 0

  return once('ibp-run', make)


def certified(command, run, out, *options):
  return command('certify', run, '--out', out, '--evenly', 6, *options)


def test_it_is_verified_as_it_was_trained(command, run, tmp_path):
  """Method and radius of the training, records in order, resumed, and a report that calls them exact."""
  assert certified(command, run, tmp_path).code == 0
  header, lines = records.read(tmp_path)
  assert header['config']['method'] == 'ibp' and header['config']['parameters'] == {'eps': EPS}
  assert header['quantifier'] == 'exact' and header['sampler'] == 'none'
  assert header['norm'] == 'linf' and header['unit'] == 'pixel value' and 'alpha' not in header
  assert not {'sigma', 'alpha', 'num_samples', 'seed', 'chunk'} & header['config'].keys()
  assert [list(line) for line in lines] == [['index', 'label', 'predict', 'radius']] * 6
  assert [line['index'] for line in lines] == [0, 83, 166, 250, 333, 416]
  assert {line['radius'] for line in lines} == {0.0, EPS}
  file = tmp_path / 'records.jsonl'
  whole = file.read_bytes()
  file.write_bytes(b''.join(whole.splitlines(keepends=True)[:4]))  # As if it had been killed.
  again = certified(command, run, tmp_path, '--chunk', 3, '--num-samples', 5)
  assert again.code == 0 and file.read_bytes() == whole
  assert 'certificates are exact' in again.out and 'certjax: warning' not in again.err
  refused = certified(command, run, tmp_path, '--eps', EPS / 2)
  assert refused.code == 2 and 'eps' in refused.err
  assert (report.load(tmp_path).certificate.radius > 0).any()


@pytest.mark.usefixtures('optimized')  # Its search runs longer than it compiles.
def test_the_largest_radius_in_shards(command, run, tmp_path):
  """Linear bounds prove at least what intervals do; two shards are the whole."""
  options = ('--eps', 0.2, '--largest')
  assert certified(command, run, tmp_path / 'ibp', *options).code == 0
  options = (*options, '--method', 'crown-ibp', '--slope', 'zero')
  assert certified(command, run, tmp_path / 'whole', *options).code == 0
  for shard in ('1/2', '0/2'):
    assert certified(command, run, tmp_path / 'parts', *options, '--shard', shard).code == 0
  whole, parts = ((tmp_path / name / 'records.jsonl').read_bytes() for name in ('whole', 'parts'))
  assert parts == whole
  header = json.loads(whole.splitlines()[0])
  assert header['config']['slope'] == 'zero'
  assert header['config']['largest'] is True and header['config']['eps'] == 0.2
  linear, interval = (records.read(tmp_path / name)[1] for name in ('whole', 'ibp'))
  for ours, theirs in zip(linear, interval, strict=True):
    assert 0 < theirs['radius'] <= ours['radius'] < 0.2 and ours['predict'] == theirs['predict']


@pytest.mark.parametrize(
  'options, said',
  [
    (('--precision', 'bfloat16'), '`precision` is of sampled methods'),
    (('--norm', 'l0'), '`norm` must be one of linf, l2, l1'),
    (('--eps', 8), 'for grey levels divide by 255'),
    (('--eps', -0.1), '`eps` must be positive'),
    (('--slope', 'same'), '`slope` and `num_steps` are of linear bounds'),
    (('--slack', 0.1), '`slack` is of votes and margins'),
    (('--radii', 0.5), '`radii` and `tolerance` are for sampling; ibp is exact'),
    (('--method', 'gaussian', '--sigma', 0.25, '--eps', 0.1), 'gaussian has no parameter eps'),
  ],
)
def test_options_that_mean_nothing(command, run, tmp_path, options, said):
  done = certified(command, run, tmp_path / 'out', *options)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_a_run_trained_otherwise_needs_a_radius(command, trained, tmp_path):
  done = certified(command, trained, tmp_path / 'out', '--method', 'ibp')
  assert done.code == 2 and 'say the radius to verify' in done.err and '--eps 0.1' in done.err
  done = certified(command, trained, tmp_path / 'out', '--method', 'ibp', '--eps', 0.001)
  assert done.code == 0 and len(records.read(tmp_path / 'out')[1]) == 6


def test_predict_has_nothing_to_vote_on(command, run, tmp_path):
  done = command('predict', run, '--out', tmp_path / 'out', '--evenly', 2)
  assert done.code == 2 and '`predict` votes under noise, ibp has none' in done.err
  assert not (tmp_path / 'out').exists()
