"""A run trained on bands of digits, and certified against patches from the command line."""

import numpy as np
import pytest

from certjax import cli, data, records, report, smoothing, train


@pytest.fixture(scope='module')
def run(once, data_dir):
  """Ten epochs on bands of three columns."""

  def make(out):
    arguments = (
      'train', 'digits', '--method', 'bands', '--parameters', 'width', 3, '--out', out,
      '--data-dir', data_dir, '--num-epochs', 10,
    )  # fmt: skip
    assert cli.main([str(argument) for argument in arguments]) == 0

  return once('bands-run', make)


def certified(command, run, out, *options):
  return command('certify', run, '--out', out, '--evenly', 60, '--chunk', 240, *options)


def test_it_is_certified_as_it_was_trained(command, run, tmp_path):
  """Its bands, resumed to the byte; radii are sides that the votes of all bands allow."""
  options = ('--parameters', 'width', 3, 'theta', 0.3, '--slack', 1e-3)
  assert certified(command, run, tmp_path, *options).code == 0
  header, lines = records.read(tmp_path)
  assert header['config']['method'] == 'bands' and header['quantifier'] == 'exact'
  assert (header['norm'], header['unit']) == ('patch', 'patch side') and 'alpha' not in header
  assert header['config']['parameters'] == {'width': 3.0, 'theta': 0.3}
  for line in lines:
    assert line['radius'] in (0, 1, 2) and 0 <= line['slack_radius'] <= line['radius']
    assert 0 <= line['runner_up_count'] <= line['count'] <= 8
  certificate, labels = report.load(tmp_path).certificate, [line['label'] for line in lines]
  correct = certificate.label == labels
  assert correct.mean() > 0.7 and (correct & (certificate.radius >= 1)).mean() > 0.2
  file = tmp_path / 'records.jsonl'
  whole = file.read_bytes()
  file.write_bytes(b''.join(whole.splitlines(keepends=True)[:9]))  # As if it had been killed.
  again = certified(command, run, tmp_path, *options)
  assert again.code == 0 and file.read_bytes() == whole and 'patch side' in again.out


def test_a_patch_of_the_certified_side_changes_no_recorded_label(command, run, tmp_path, data_dir):
  """Sixteen places, three fillings, the published rule of counts, from another program than the records'."""
  options = ('--parameters', 'width', 3, 'per_location', 0)
  assert certified(command, run, tmp_path, *options).code == 0
  lines = [line for line in records.read(tmp_path)[1] if line['radius'] >= 1][:8]
  images = data.load('digits', 'test', data_dir=data_dir).images
  model_fn = train.load_run(run).model_fn
  views = smoothing.bands(width=3, shape=(8, 8, 1))
  shown = [[(j + k) % 8 for k in range(3)] for j in range(8)]
  assert len(lines) == 8
  for line in lines:
    x = np.repeat(data.to_float(images[line['index']])[None], 48, axis=0)
    for n in range(48):
      x[n, n % 4 * 2, n // 4 % 4 * 2] = (0, 0.5, 1)[n // 16]
    counts = np.zeros((48, 10), int)
    for columns in shown:  # By hand: copy the columns of the band into nothing.
      seen = np.zeros((48, 8, 8, 2), np.float32)
      seen[:, :, columns] = np.concatenate([x, 1 - x], axis=-1)[:, :, columns]
      counts += np.asarray(views.vote(model_fn(seen)))
    assert (counts.argmax(axis=1) == line['predict']).all()


@pytest.mark.parametrize(
  'options, said',
  [
    (('--parameters', 'width', 8), '`width` must be smaller than the image'),
    (('--parameters', 'width', 3, 'patch', 9), 'must lie in the image: 1 .. 8, got 9'),
    (('--parameters', 'width', 3, 'patch', 'all'), 'must lie in the image: 1 .. 8, got all'),
    (('--parameters', 'width', 3, 'theta', 'half'), 'between 0 and 1, got half'),
    (('--parameters', 'width', 3, 'stride', 8), '`stride` must be a whole number'),
    (('--radii', 1), '`radii` and `tolerance` are for sampling; bands is exact'),
  ],
)
def test_what_cannot_be_certified(command, run, tmp_path, options, said):
  done = certified(command, run, tmp_path / 'out', *options)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_predict_would_be_another_classifier(command, run, tmp_path):
  done = command('predict', run, '--out', tmp_path / 'out', '--evenly', 2)
  assert done.code == 2 and '`predict` draws views' in done.err
  assert not (tmp_path / 'out').exists()
