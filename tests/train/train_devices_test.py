"""The number of devices changes nothing in training beyond the order of a sum.

One process with eight CPU devices trains on sub-meshes (`on_devices.py`); the tests read what it
printed."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from certjax import configs, smoothing, train

# Alike for all that is compared; its programs run for a moment: compile fast.
_XLA_FLAGS = '--xla_backend_optimization_level=0'


@pytest.fixture(scope='module')
def result(once, trained):
  def make(directory):
    directory.mkdir()
    done = subprocess.run(
      [sys.executable, pathlib.Path(__file__).with_name('on_devices.py'), trained / 'checkpoints'],
      capture_output=True, text=True, timeout=300, check=False,
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': '8', 'XLA_FLAGS': _XLA_FLAGS},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (directory / 'result.json').write_text(done.stdout)

  result = json.loads((once('train-devices', make) / 'result.json').read_text())
  assert result['devices'] == 8
  return result


@pytest.mark.parametrize('model', ['cnn', 'resnet'])
def test_loss_does_not_depend_on_the_devices(result, model):
  one = np.array(result[model]['1'])
  assert one.shape == (10,) and np.ptp(one) > 0.01  # It does train.
  for number in ('2', '8'):
    # Relative: float32 steps by 2.4e-7 where these losses are, and CPUs differ in how they sum.
    np.testing.assert_allclose(result[model][number], one, rtol=1e-6, atol=0)


def test_batch_norm_takes_its_statistics_over_all_devices(result):
  assert max(result['resnet_batch_stats']) < 1e-5


def test_one_sgd_step_is_that_of_one_device(result):
  assert result['sgd'] < 1e-6
  # A gradient multiplied by the device count (shard_map with check_vma) would be seen.
  assert result['sgd_times_4'] > 1e-3


def test_a_checkpoint_of_one_device_restores_onto_four(result):
  assert result['restored_on'] == [4]
  assert result['restored_difference'] == 0.0


def test_a_run_begun_on_one_device_continues_on_four(process, data_dir, tmp_path):
  """The command line restores onto the devices that there are."""
  config = configs.Train(data_dir=data_dir, out=tmp_path / 'run', max_steps=10)
  noise = smoothing.gaussian(sigma=0.25)
  train.run(config, noise)
  done = process(
    'train', 'digits', '--out', tmp_path / 'run', '--data-dir', data_dir, '--max-steps', 20,
    env={'JAX_NUM_CPU_DEVICES': '4'},
  )  # fmt: skip
  assert 'training: 10 of 20 steps done' in done.stderr
  alone = train.run(configs.Train(data_dir=data_dir, out=tmp_path / 'alone', max_steps=20), noise)
  four = train.load_run(tmp_path / 'run').variables
  for a, b in zip(jax.tree.leaves(four['params']), jax.tree.leaves(alone.params), strict=True):
    np.testing.assert_allclose(a, np.asarray(b), rtol=0, atol=1e-4)  # Adam: signs, then scale.
