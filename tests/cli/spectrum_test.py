"""`certjax spectrum`: the files of a real run, against the run's own weights; and its errors."""

import csv
import json
import math

import jax
import numpy as np
import optax
import pytest

from certjax import data, layers, models, report, train

LAYERS = ['Conv_0', 'Conv_1', 'Dense_0', 'Dense_1']


def test_of_a_trained_run(command, trained, tmp_path):
  done = command('spectrum', trained, '--out', tmp_path)
  assert done.code == 0 and done.out.endswith(f'written to {tmp_path}\n')
  assert 'measuring: 4 of 4 layers' in done.err
  rows = json.loads((tmp_path / 'spectrum.json').read_text())
  assert [row['layer'] for row in rows] == LAYERS
  params = train.load_run(trained).variables['params']
  kernel = params['Conv_0']['kernel']
  exact = layers.singular_values(kernel, (8, 8))
  np.testing.assert_allclose(rows[0]['singular_values'], exact, rtol=1e-12)
  assert rows[0]['fantastic_four'] == layers.norm_upper(kernel)
  assert rows[0]['zero_padded'] == layers.zero_padded_norm(kernel, (8, 8))
  assert rows[0]['gram'] == layers.zero_padded_norm(kernel, (8, 8), steps=6)
  dense = np.linalg.svd(params['Dense_1']['kernel'].astype(float), compute_uv=False)
  for name, value in (('min', dense[-1]), ('median', np.median(dense)), ('max', dense[0])):
    assert rows[3][name] == pytest.approx(value, rel=1e-12)
  assert (tmp_path / 'spectrum.png').read_bytes().startswith(b'\x89PNG')
  with open(tmp_path / 'spectrum.csv') as file:
    table = list(csv.DictReader(file))
  assert [float(row['max']) for row in table] == [row['max'] for row in rows]
  assert table[3]['lipschitz'] == table[3]['gram'] == ''
  assert f'| {math.ceil(rows[0]["gram"] * 1e6) / 1e6:.6f} |' in done.out


def test_of_a_lipschitz_network(command, tmp_path):
  """A run as training leaves it, of a network that was only initialised."""
  config = {
    'dataset': 'digits', 'data_dir': None, 'model': 'lipconvnet5-tiny-soc', 'method': 'none',
    'sigma': None,
  }  # fmt: skip
  spec = data.dataset('digits')
  module = models.build(config['model'], num_classes=10, mean=spec.mean, std=spec.std)
  state = train.init_state(jax.random.key(0), module, optax.sgd(0.1), spec.shape)
  train.save(tmp_path / 'checkpoints', state)
  (tmp_path / 'config.json').write_text(json.dumps(config))
  done = command('spectrum', tmp_path)
  assert done.code == 0, done.err
  rows = json.loads((tmp_path / 'spectrum.json').read_text())
  assert [row['kind'] for row in rows] == ['SOC'] * 4
  for row in rows:
    assert row['lipschitz'] == 1.0 and 0.9999 < row['min'] <= row['max'] <= 1 + 1e-6


def test_a_capped_layer_says_so(command, trained, tmp_path):
  done = command('spectrum', trained, '--out', tmp_path, '--max-work', 500)
  assert done.code == 0 and '| every |' in done.out
  rows = json.loads((tmp_path / 'spectrum.json').read_text())
  assert rows[0]['every'] == 2 and rows[0]['zero_padded'] is None


@pytest.mark.parametrize(
  ('where', 'options', 'parts'),
  [
    ('nothing', (), ('holds no training run', 'certjax train')),
    ('run', ('--max-work', 0), ('`max_work` must be positive', 'got 0')),
  ],
)
def test_errors_are_one_line(command, trained, tmp_path, where, options, parts):
  run = trained if where == 'run' else tmp_path
  done = command('spectrum', run, '--out', tmp_path / 'out', *options)
  assert done.code == 2 and 'Traceback' not in done.err
  last = done.err.strip().splitlines()[-1]
  assert last.startswith('certjax: error: ') and all(part in last for part in parts)
  assert not (tmp_path / 'out').exists()


def test_help(command):
  done = command('spectrum', '--help')
  assert done.code == 0 and 'usage: certjax spectrum' in done.out
  assert 'spectrum' in command('--help').out


def test_bounds_are_printed_rounded_up(tmp_path):
  """A bound of 1.0000001 must not read 1.000000; what is merely measured is rounded."""
  low, high = 0.9999999, 1.0000001
  values = np.array([high, low])
  row = models.LayerSpectrum('layer', 'Conv', (4, 4, 1), values, 1, low, high, high, np.inf)
  text = report.write_spectra([row], tmp_path)
  cells = text.splitlines()[-1].strip('| ').split(' | ')
  assert cells[:4] == ['layer', 'Conv', '4 x 4 x 1', '2']
  assert cells[4:] == ['1.000000', '1.000000', '1.000001', '1.000000', '1.000001', '1.000001', '-']
  assert json.loads((tmp_path / 'spectrum.json').read_text())[0]['gram'] is None


def test_a_model_without_layers_has_no_report(tmp_path):
  with pytest.raises(ValueError, match='has no layer with a matrix'):
    report.write_spectra([], tmp_path)
