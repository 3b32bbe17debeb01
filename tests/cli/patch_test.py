"""A trained run that is verified against patches and few pixels from the command line."""

import pytest

from certjax import configs, records, report
from certjax.cli import _subject

SIDE = ('--method', 'patch-ibp', '--parameters', 'side', 1)


def test_a_run_against_patches(command, trained, tmp_path):
  """Resumed to the byte, and a report in its unit."""
  certified = lambda: command('certify', trained, '--out', tmp_path, '--evenly', 4, *SIDE)
  assert certified().code == 0
  header, lines = records.read(tmp_path)
  assert header['config']['method'] == 'patch-ibp' and header['config']['parameters'] == {'side': 1}
  assert (header['norm'], header['unit']) == ('patch', 'patch side')
  assert header['quantifier'] == 'exact' and header['sampler'] == 'none'
  assert not {'sigma', 'alpha', 'num_samples', 'seed', 'chunk'} & header['config'].keys()
  assert {line['radius'] for line in lines} <= {0.0, 1.0} and len(lines) == 4
  file = tmp_path / 'records.jsonl'
  whole = file.read_bytes()
  file.write_bytes(b''.join(whole.splitlines(keepends=True)[:3]))  # As if it had been killed.
  again = certified()
  assert again.code == 0 and file.read_bytes() == whole and 'patch side' in again.out
  assert report.load(tmp_path).certificate.label.tolist() == [line['predict'] for line in lines]


@pytest.mark.parametrize(
  'objective, given, parameters',
  [('patch-ibp', {'side': 2.0}, {'side': 2.0}), ('patch-ibp', {}, {'side': 5}),
   ('sparse-ibp', {'pixels': 3.0}, {'pixels': 3.0})],
)  # fmt: skip
def test_a_run_is_verified_as_it_was_trained(objective, given, parameters):
  training = {'objective': objective, 'objective_parameters': given, 'method': 'none'}
  config = _subject.like_training(configs.Certify(), training)
  assert (config.method, config.parameters) == (objective, parameters)


@pytest.mark.parametrize(
  'options, said',
  [
    ((*SIDE[:-1], 9), '`side` must be a whole number in 1 .. 8, got 9'),
    ((*SIDE[:-1], 1.5), '`side` must be a whole number'),
    ((*SIDE, '--eps', 0.1), 'patch_ibp has no parameter eps; it takes side'),
    (('--method', 'patch-ibp'), "say the patch's side"),
    (('--method', 'sparse-ibp'), 'say how many pixels'),
  ],
)
def test_what_cannot_be_verified(command, trained, tmp_path, options, said):
  done = command('certify', trained, '--out', tmp_path / 'out', '--evenly', 2, *options)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()
