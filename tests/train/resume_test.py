"""A training run that is killed and started again ends where an uninterrupted one does, bit for
bit."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from certjax import configs, smoothing, train

_TIMEOUT = 120.0
OPTIONS = {'num_epochs': 15, 'save_every_epochs': 1, 'log_every': 15, 'seed': 3}  # 300 steps.
NOISE = smoothing.gaussian(sigma=0.25)


def config_in(out, data_dir):
  return configs.Train(out=out, data_dir=data_dir, **OPTIONS)


def command_in(out, data_dir):
  options = [f'--{name.replace("_", "-")}={value}' for name, value in OPTIONS.items()]
  return [sys.executable, '-m', 'certjax', 'train', 'digits', '--out', str(out), '--data-dir',
          str(data_dir), *options]  # fmt: skip


def assert_equal(out, other):
  """Equal steps, weights and optimiser states, and equal metrics."""
  a, b = train.restore(out / 'checkpoints'), train.restore(other / 'checkpoints')
  assert int(a['step']) == int(b['step']) == 300
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)
  assert (out / 'metrics.jsonl').read_bytes() == (other / 'metrics.jsonl').read_bytes()


@pytest.fixture(scope='module')
def uninterrupted(once, data_dir):
  out = once('uninterrupted-training', lambda out: train.run(config_in(out, data_dir), NOISE))
  steps = [json.loads(line)['step'] for line in (out / 'metrics.jsonl').read_text().splitlines()]
  assert steps == sorted({*range(15, 301, 15), *range(20, 301, 20)})
  return out


@pytest.mark.parametrize(('sent', 'code'), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_stopped_mid_run(uninterrupted, data_dir, tmp_path, sent, code):
  command = command_in(tmp_path, data_dir)
  # Bits are those of one and the same compiler.
  plain = str(int(jax.config.read('jax_disable_most_optimizations')))
  env = {**os.environ, 'JAX_DISABLE_MOST_OPTIMIZATIONS': plain}
  process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
  until = time.monotonic() + _TIMEOUT
  while not (tmp_path / 'checkpoints' / '100').exists() and process.poll() is None:
    assert time.monotonic() < until
    time.sleep(0.002)
  process.send_signal(sent)
  _, stderr = process.communicate(timeout=_TIMEOUT)
  assert process.returncode == code and 'Traceback' not in stderr, stderr
  assert 100 <= train.latest_step(tmp_path / 'checkpoints') < 300
  starts = []
  train.run(config_in(tmp_path, data_dir), NOISE, on_start=lambda *at: starts.append(at))
  assert starts[0][0] >= 100 and starts[0][1] == 300  # It did continue.
  assert_equal(tmp_path, uninterrupted)


def test_stopping_on_purpose_changes_nothing_but_one_line(uninterrupted, data_dir, tmp_path):
  config = config_in(tmp_path, data_dir)
  train.run(dataclasses.replace(config, max_steps=33), NOISE)
  train.run(config, NOISE)
  a, b = train.restore(tmp_path / 'checkpoints'), train.restore(uninterrupted / 'checkpoints')
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def test_a_torn_config_is_never_left(data_dir, tmp_path):
  """config.json appears whole: it is written beside its place and renamed."""
  config = dataclasses.replace(config_in(tmp_path, data_dir), max_steps=1)
  (tmp_path / '.config.json').write_text('{"torn')
  train.run(config, NOISE)
  assert train.read_config(tmp_path)['seed'] == 3


def test_load_run(trained):
  run = train.load_run(trained)
  assert run.step == 1200 and run.config['model'] == 'digits-cnn'
  x = np.zeros((2, 8, 8, 1), np.float32)
  assert run.model_fn(x).shape == (2, 10)
  assert set(run.variables) == {'params', 'batch_stats'}
