"""Runs trained under ablation and under Wasserstein noise, certified from the command line."""

import json

import jax.numpy as jnp
import pytest

from certjax import certify, cli, records, report, smoothing, train


@pytest.fixture(scope='module')
def run(once, data_dir):
  """Twelve epochs of digits with 12 of 64 pixels shown."""

  def make(out):
    arguments = (
      'train', 'digits', '--method', 'ablation', '--parameters', 'keep', 12, '--out', out,
      '--data-dir', data_dir, '--num-epochs', 12, '--batch-size', 64, '--learning-rate', 0.005,
    )  # fmt: skip
    assert cli.main([str(argument) for argument in arguments]) == 0

  return once('ablation-run', make)


def test_the_model_sees_twice_the_channels(run):
  config = json.loads((run / 'config.json').read_text())
  assert config['parameters'] == {'keep': 12.0} and config['input_shape'] == [8, 8, 2]
  trained = train.load_run(run)
  kernels = trained.variables['params']
  assert kernels['Conv_0']['kernel'].shape[2] == 2
  assert trained.model_fn(jnp.zeros((3, 8, 8, 2))).shape == (3, 10)


def test_it_is_certified_in_pixels(command, run, tmp_path):
  """The training's law, pixels as the unit, a median, and 0 pixels with a label; resumed to the byte."""
  options = ('--out', tmp_path, '--evenly', 16, '--num-samples', 400, '--alpha', 0.05)
  done = command('certify', run, *options, '--chunk', 400)
  assert done.code == 0 and 'l0, pixels' in done.out and '| median |' in done.out
  header, lines = records.read(tmp_path)
  assert header['config']['method'] == 'ablation'
  assert (header['norm'], header['unit']) == ('l0', 'pixels')
  for line in lines:  # 1/2 + 12/64, 1/2 + 1 - (52 51) / (64 63), ... at Clopper-Pearson's bound.
    assert line['radius'] in (0.0, 1.0, 2.0, 3.0)
    assert line['predict'] == (line['candidate'] if line['count'] >= 218 else -1)
    assert (line['radius'] >= 1) == (line['count'] >= 290)
  assert max(line['radius'] for line in lines) >= 1
  file = tmp_path / 'records.jsonl'
  whole = file.read_bytes()
  file.write_bytes(b''.join(whole.splitlines(keepends=True)[:5]))  # As if it had been killed.
  again = command('certify', run, *options, '--chunk', 400)
  assert again.code == 0 and file.read_bytes() == whole
  assert report.load(tmp_path).certificate.radius.max() >= 1


@pytest.mark.parametrize(
  'options, said',
  [
    (('--parameters', 'keep', 40), '`keep` is how many of the 64 pixels are shown'),
    (('--parameters', 'keep', 'few'), '`keep` is how many'),
    (('--parameters', 'width', 3), 'ablation has no parameter width; it takes keep, shape, null'),
    (('--norm', 'l1'), 'ablation has no parameter norm'),
    (('--num-samples', 5), '`num_samples`=5 can never certify'),
    (
      ('--method', 'gaussian', '--sigma', 1),
      'sees images of shape (8, 8, 2) (trained by `method` ablation)',
    ),
  ],
)
def test_what_cannot_be_certified(command, run, tmp_path, options, said):
  done = command('certify', run, '--out', tmp_path / 'out', '--evenly', 2, *options)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_the_mean_as_null(command, data_dir, tmp_path):
  """Words choose: the encoding by the mean leaves the images their channels."""
  law = ('--method', 'ablation', '--parameters', 'keep', 20, 'null', 'mean', 'mean', 0.3)
  options = ('--out', tmp_path, '--data-dir', data_dir, '--max-steps', 1, '--batch-size', 64)
  assert command('train', 'digits', *law, *options).code == 0
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config['parameters'] == {'keep': 20.0, 'null': 'mean', 'mean': 0.3}
  assert 'input_shape' not in config


def test_wasserstein(command, data_dir, tmp_path):
  """Trained and certified by mass; norm and bound are asked for by their names."""
  options = ('--data-dir', data_dir, '--num-epochs', 1, '--batch-size', 64, '--warmup-epochs', 0)
  law = ('--method', 'wasserstein', '--sigma', 0.01)
  assert command('train', 'digits', '--out', tmp_path / 'run', *law, *options).code == 0
  few = ('--evenly', 4, '--num-samples', 200, '--chunk', 200, '--alpha', 0.05)
  options = ('--norm', 'wasserstein-l1', '--parameters', 'bound', 'levine')
  done = command('certify', tmp_path / 'run', '--out', tmp_path / 'proofs', *options, *few)
  assert done.code == 0 and 'wasserstein-l1, mass' in done.out and '| median |' in done.out
  _, lines = records.read(tmp_path / 'proofs')
  radius = smoothing.wasserstein(sigma=0.01, shape=(8, 8, 1), ground='l1', bound='levine').radius
  for line in lines:
    proved = float(radius(certify.clopper_pearson(line['count'], 200, alpha=0.05)))
    assert line['radius'] == proved and (line['predict'] == -1) == (proved == 0)
  assert max(line['radius'] for line in lines) > 0
