"""Runs on views of digits from the command line: masks of PatchCleanser, and a smoothed vision transformer."""

import json

import numpy as np
import pytest

from certjax import cli, configs, data, models, records, report, smoothing, train


@pytest.fixture(scope='module')
def run(once, data_dir):
  """Ten epochs on digits under pairs of masks against patches of 2."""

  def make(out):
    arguments = (
      'train', 'digits', '--method', 'masks', '--parameters', 'patch', 2, 'num_masks', 3, '--out', out,
      '--data-dir', data_dir, '--num-epochs', 10,
    )  # fmt: skip
    assert cli.main([str(argument) for argument in arguments]) == 0

  return once('masks-run', make)


def certified(command, run, out, *options):
  return command('certify', run, '--out', out, '--evenly', 40, '--chunk', 450, *options)


def test_it_is_certified_as_it_was_trained(command, run, tmp_path):
  """The masks of its training, resumed to the byte; radii are the side of the patch, or 0."""
  assert certified(command, run, tmp_path, '--slack', 1e-3).code == 0
  header, lines = records.read(tmp_path)
  assert header['config']['method'] == 'masks' and header['quantifier'] == 'exact'
  assert (header['norm'], header['unit']) == ('patch', 'patch side') and 'alpha' not in header
  assert header['config']['parameters'] == {'patch': 2.0, 'num_masks': 3.0}
  for line in lines:
    assert line['radius'] in (0, 2) and 0 <= line['slack_radius'] <= line['radius']
    assert line['radius'] == 0 or (line['count'], line['runner_up_count']) == (45, 0)
  certificate, labels = report.load(tmp_path).certificate, [line['label'] for line in lines]
  correct = certificate.label == labels
  assert correct.mean() > 0.7 and (correct & (certificate.radius == 2)).mean() > 0.1
  file = tmp_path / 'records.jsonl'
  whole = file.read_bytes()
  file.write_bytes(b''.join(whole.splitlines(keepends=True)[:9]))  # As if it had been killed.
  again = certified(command, run, tmp_path, '--slack', 1e-3)
  assert again.code == 0 and file.read_bytes() == whole and 'patch side' in again.out


def test_a_patch_changes_no_recorded_label(command, run, tmp_path, data_dir):
  """All 49 places, two fillings, masks laid by hand, and another program than the records'."""
  assert certified(command, run, tmp_path).code == 0
  lines = [line for line in records.read(tmp_path)[1] if line['radius'] == 2][:3]
  images = data.load('digits', 'test', data_dir=data_dir).images
  model_fn = train.load_run(run).model_fn
  decide = smoothing.masks(patch=2, num_masks=3, shape=(8, 8, 1)).decide
  masks = np.ones((9, 8, 8, 1), np.float32)
  for number in range(9):
    row, column = ((0, 3, 4)[place] for place in divmod(number, 3))
    masks[number, row : row + 4, column : column + 4] = 0
  both = np.stack([masks[i] * masks[j] for i in range(9) for j in range(i, 9)])
  assert len(lines) == 3
  for line in lines:
    x = np.repeat(data.to_float(images[line['index']])[None], 98, axis=0)
    for n in range(98):
      row, column = divmod(n // 2, 7)
      x[n, row : row + 2, column : column + 2] = n % 2
    labels = np.asarray(model_fn((x[:, None] * both).reshape(-1, 8, 8, 1))).argmax(axis=1)
    votes = labels.reshape(98, 45, 1) == np.arange(10)
    assert (decide(votes).label == line['predict']).all()


@pytest.mark.parametrize(
  'options, said',
  [
    (('--parameters', 'patch', 8), '`patch` is the side of a square in whole pixels, smaller'),
    (('--parameters', 'patch', 2, 'num_masks', 1), '`num_masks` must be a whole number, 2 or more'),
    (('--parameters', 'patch', 2, 'fill', 'mean'), '`fill` of masks must be a number'),
    (('--radii', 1), '`radii` and `tolerance` are for sampling; masks is exact'),
  ],
)
def test_what_cannot_be_certified(command, run, tmp_path, options, said):
  done = certified(command, run, tmp_path / 'out', *options)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_a_vision_transformer_on_bands_with_a_mask(command, tmp_path, data_dir):
  out = tmp_path / 'run'
  trained = command(
    'train', 'digits', '--model', 'vit-mnist', '--method', 'bands', '--parameters', 'width', 4, 'null',
    'mask', 'top_one', 1, '--out', out, '--data-dir', data_dir, '--max-steps', 3,
  )  # fmt: skip
  assert trained.code == 0
  assert json.loads((out / 'config.json').read_text())['input_shape'] == [8, 8, 2]
  proof = command('certify', out, '--out', tmp_path / 'proof', '--max-images', 4, '--chunk', 32)
  assert proof.code == 0
  header, lines = records.read(tmp_path / 'proof')
  assert header['config']['parameters'] == {'width': 4.0, 'null': 'mask', 'top_one': 1.0}
  assert len(lines) == 4 and all(line['count'] + line['runner_up_count'] <= 8 for line in lines)


def test_presets_show_their_models_what_they_are_made_for():
  """Bands of four columns, in tokens of four pixels, to a network that computes two columns of them."""
  for name, side in (('smoothed-vit-mnist-quick', 7), ('smoothed-vit-cifar10', 8)):
    _, preset = configs.PRESETS[name]
    assert preset.model.endswith('band4') and preset.parameters['null'] == 'mask'
    assert preset.parameters['width'] == 4
    module = models.build(preset.model, num_classes=10)
    assert module.visible == 2 * side
