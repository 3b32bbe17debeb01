"""Training over two processes x two CPU devices on loopback is training on four devices; whatever
goes wrong in one process ends all of them."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from certjax import configs, data, parallel, smoothing, train

_TIMEOUT = 120.0
# Alike for all that is compared. JAX's cache of programs does not serve process 1: compile fast.
_XLA_FLAGS = '--xla_backend_optimization_level=0'
_SCRIPT = pathlib.Path(__file__).with_name('on_processes.py')
NOISE = smoothing.gaussian(sigma=0.25)


def free_address():
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{listener.getsockname()[1]}'


def start(arguments, num_devices=2):
  return subprocess.Popen(
    [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    text=True, env={**os.environ, 'JAX_NUM_CPU_DEVICES': str(num_devices), 'XLA_FLAGS': _XLA_FLAGS},
  )  # fmt: skip


def finish(*processes):
  """(code, stdout, stderr) of each; none outlives the test."""
  try:
    outputs = [process.communicate(timeout=_TIMEOUT) for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def start_commands(out, data_dir, options=(), each=((), ())):
  """`certjax train digits` as two processes, with options for both and for each."""
  where = ('--coordinator', free_address(), '--num-processes', 2, '--log-every', 1)
  command = ('-m', 'certjax', 'train', 'digits', '--out', out, '--data-dir', data_dir, *where)
  return [start((*command, '--process-id', i, *options, *each[i])) for i in range(2)]


def read_metrics(out):
  path = out / 'metrics.jsonl'
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_steps(out, process, num_steps=5):
  until = time.monotonic() + _TIMEOUT
  while len(read_metrics(out)) < num_steps and process.poll() is None:
    assert time.monotonic() < until
    time.sleep(0.01)


def losses(out):
  return np.array([line['loss'] for line in read_metrics(out)])


def assert_close(a, b, atol):
  for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=0, atol=atol)


@pytest.fixture(scope='module')
def groups(once, data_dir):
  """Directory with the runs `one` (one process x four devices) and `two` (two x two)."""

  def make(directory):
    directory.mkdir()
    address = free_address()
    two = [start((_SCRIPT, directory / 'two', data_dir, address, 2, i)) for i in range(2)]
    one = start((_SCRIPT, directory / 'one', data_dir), num_devices=4)
    for name, (code, out, err) in zip(('0', '1', 'one'), finish(*two, one), strict=True):
      assert code == 0, err
      (directory / f'{name}.json').write_text(out.splitlines()[-1])

  return once('distributed-training', make)


def test_loss_is_that_of_one_process(groups):
  one, two = losses(groups / 'one'), losses(groups / 'two')
  assert one.shape == (10,) and np.ptp(one) > 0.01  # It does train.
  np.testing.assert_allclose(two, one, rtol=0, atol=1e-6)


def test_batch_norm_is_over_all_processes(groups):
  zero, first, one = (
    json.loads((groups / f'{name}.json').read_text()) for name in ('0', '1', 'one')
  )
  assert (zero['devices'], zero['local'], one['local']) == (4, 2, 4)
  assert len(one['batch_norm']) == 10 and np.ptp(one['batch_norm']) > 0.01
  for result in (zero, first):
    np.testing.assert_allclose(result['batch_norm'], one['batch_norm'], rtol=0, atol=1e-6)
    assert_close(result['batch_stats'], one['batch_stats'], 1e-5)


def test_checkpoint_of_two_processes_continues_in_one(groups, data_dir, tmp_path):
  one, two = (train.restore(groups / name / 'checkpoints') for name in ('one', 'two'))
  assert int(two['step']) == 10
  assert_close(two['params'], one['params'], 1e-4)  # Adam: signs, then scale.
  copies = []
  for name in ('one', 'two'):
    shutil.copytree(groups / name, tmp_path / name)
    config = configs.Train(out=tmp_path / name, data_dir=data_dir, log_every=1, max_steps=13)
    starts = []
    copies.append(train.run(config, NOISE, on_start=lambda *at, seen=starts: seen.append(at)))
    assert starts == [(10, 13)]
  assert_close(copies[1].params, copies[0].params, 1e-4)
  np.testing.assert_allclose(losses(tmp_path / 'two'), losses(tmp_path / 'one'), rtol=0, atol=1e-5)


def test_sigterm_to_one_stops_both_after_the_same_step(groups, data_dir, tmp_path):
  """Two processes continue what one began; process 0 alone talks."""
  out = tmp_path / 'run'
  shutil.copytree(groups / 'one', out)
  processes = start_commands(out, data_dir, ('--save-every-epochs', 1))
  wait_for_steps(out, processes[0], 25)  # After their first checkpoint, at step 20.
  processes[1].send_signal(signal.SIGTERM)
  (code, said, err), (other_code, other_said, other_err) = finish(*processes)
  assert (code, other_code) == (75, 75), err + other_err
  assert 'training: 10 of 1200 steps done' in err and 'training:' not in other_err
  assert 'stopped by SIGTERM' in err and 'stopped by SIGTERM' in other_err
  assert 'next:' not in said + other_said
  step = train.latest_step(out / 'checkpoints')
  assert [line['step'] for line in read_metrics(out)] == list(range(1, step + 1))
  assert 25 <= step < 1200


def test_a_killed_coordinator_ends_the_others(data_dir, tmp_path):
  """At once; a killed process that is not the coordinator is noticed by its missing heartbeat."""
  processes = start_commands(tmp_path, data_dir)
  wait_for_steps(tmp_path, processes[0])
  processes[0].kill()
  begun = time.monotonic()
  _, (code, _, err) = finish(*processes)
  assert code not in (0, None) and time.monotonic() - begun < 30
  assert 'another task died' in err


def test_what_one_process_refuses_all_refuse(data_dir, tmp_path):
  """Six images do not divide over four devices; only process 1 was told to take six."""
  outcomes = finish(*start_commands(tmp_path / 'run', data_dir, each=((), ('--batch-size', 6))))
  for (code, _, err), says in zip(outcomes, ('process 1 says: `batch', '`batch'), strict=True):
    assert code == 2, err
    (line,) = [line for line in err.splitlines() if 'certjax' in line]
    assert line.startswith(
      f'certjax: error: {says}_size` must be a multiple of the 4 devices, got 6'
    )
    assert 'Traceback' not in err
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('ours', 'theirs', 'said'),
  [
    ('"seed": 0', '"seed": 1', 'seed is 1 there and 0 here'),
    ('"checkpoint": 0', '"checkpoint": 7', 'checkpoint is 7 there'),
    ('"process_id": null', '"process_id": 1', None),
  ],
)
def test_processes_must_train_the_same_run(data_dir, tmp_path, monkeypatch, ours, theirs, said):
  """A process whose config differs, or that does not see the others' directory."""

  def gather(text):
    return [text, text.replace(ours, theirs)] if text.startswith('{') else [text]

  monkeypatch.setattr(parallel, 'gather', gather)
  config = configs.Train(out=tmp_path / 'run', data_dir=data_dir, max_steps=1)
  if said is None:
    assert int(train.run(config, NOISE).step) == 1
    return
  with pytest.raises(ValueError, match=f'process 1 does not train the same run: {said}'):
    train.run(config, NOISE)
  assert not (tmp_path / 'run').exists()


HERE = ('--coordinator', '127.0.0.1:1')


@pytest.mark.parametrize(
  ('options', 'parts'),
  [
    ((*HERE, '--num-processes', 2, '--process-id', 2), ('`process_id`', '0 .. 1', 'got 2')),
    ((*HERE, '--num-processes', 2, '--process-id', -1), ('`process_id`', 'got -1')),
    (('--num-processes', 1, '--process-id', 1), ('`process_id`', '0 .. 0', 'got 1')),
    ((*HERE, '--num-processes', 0, '--process-id', 0), ('`num_processes`', 'got 0')),
    (('--num-processes', 2, '--process-id', 0), ('`coordinator` is missing',)),
    (('--num-processes', 2), ('`coordinator` and `process_id` is missing', 'srun')),
    (HERE, ('`num_processes` and `process_id` is missing',)),
    (('--coordinator', 'host', '--num-processes', 2, '--process-id', 0), ('HOST:PORT', "'host'")),
  ],
)
def test_arguments(command, data_dir, tmp_path, options, parts):
  out = tmp_path / 'run'
  outcome = command('train', 'digits', '--out', out, '--data-dir', data_dir, *options)
  assert outcome.code == 2 and outcome.err.count('\n') == 1, outcome.err
  assert all(part in outcome.err for part in parts), outcome.err
  assert not out.exists()


@pytest.mark.parametrize(
  ('environment', 'several'),
  [
    ({}, False),
    ({'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}, False),  # A batch script, outside srun.
    ({'SLURM_NTASKS': '4', 'SLURM_PROCID': '0', 'SLURM_STEP_NODELIST': 'n[1-2]'}, True),
    ({'SLURM_NTASKS': '1', 'SLURM_PROCID': '0', 'SLURM_STEP_NODELIST': 'n1'}, False),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, True),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, False),
    ({'TPU_WORKER_HOSTNAMES': 't-0,t-1'}, True),
    ({'JAX_COORDINATOR_ADDRESS': 'h:1'}, True),
  ],
)
def test_a_cluster_is_found_by_its_environment(monkeypatch, environment, several):
  called = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *a, **k: called.append((a, k)))
  for name in ('SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_STEP_NODELIST', 'OMPI_COMM_WORLD_SIZE',
               'TPU_WORKER_HOSTNAMES', 'JAX_COORDINATOR_ADDRESS'):  # fmt: skip
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  parallel.initialize()
  assert len(called) == several
  parallel.initialize(num_processes=1)  # Alone all the same.
  assert len(called) == several
  if several:
    ((arguments, options),) = called
    assert arguments == (None, None, None) and options['cluster_detection_method'] is None


def test_no_cluster_and_no_peer_are_said(monkeypatch):
  def raises(error):
    def initialize(*arguments, **options):
      raise error

    monkeypatch.setattr(jax.distributed, 'initialize', initialize)

  raises(ValueError('coordinator_address should be defined.'))
  with pytest.raises(ValueError, match='finds no cluster .*give `coordinator` as HOST:PORT'):
    parallel.initialize('auto')
  raises(RuntimeError('DEADLINE_EXCEEDED: nobody\nmore'))
  with pytest.raises(OSError, match=r'cannot join .* at h:1 \(DEADLINE_EXCEEDED: nobody\): start'):
    parallel.initialize('h:1', 2, 1)


def test_another_process_than_the_first_writes_no_files(data_dir, tmp_path, monkeypatch):
  """Beside what Orbax lets it write: here, as if it were alone, the checkpoint."""
  monkeypatch.setattr(parallel, 'is_main', lambda: False)
  logged = []
  config = configs.Train(out=tmp_path / 'run', data_dir=data_dir, max_steps=1)
  train.run(config, NOISE, on_log=lambda *at: logged.append(at))
  assert [path.name for path in config.out.iterdir()] == ['checkpoints'] and len(logged) == 1


@pytest.mark.parametrize('augment', [None, 'crop'])
def test_a_process_decodes_its_own_rows_only(data_dir, monkeypatch, augment):
  """Rows 2 and 3 of 6 are those of the batches that a single process would make."""
  rows, decoded = np.array([2, 3]), []
  images = data.source('digits', 'train', data_dir)
  examples = data.Source.examples

  def counted(source, index, words=None):
    decoded.extend(index)
    return examples(source, index, words)

  options = {'seed': 5, 'num_steps': 3, 'augment': augment}
  whole = list(data.batches(images, 6, **options))
  loaded = data.load('digits', 'train', data_dir=data_dir)
  monkeypatch.setattr(data.Source, 'examples', counted)
  for source in (images, loaded):
    own = list(data.batches(source, 6, rows=rows, **options))
    for part, batch in zip(own, whole, strict=True):
      for name in ('x', 'y', 'index'):
        np.testing.assert_array_equal(part[name], batch[name][rows])
  assert decoded == [i for batch in whole for i in batch['index'][rows]]


def test_one_process_has_all_rows_and_agrees_with_itself():
  mesh = parallel.local_mesh()
  np.testing.assert_array_equal(parallel.local_rows(mesh, 8), np.arange(8))
  assert parallel.gather('a') == ['a'] and parallel.is_main() and not parallel.preempted(3)
  with pytest.raises(ValueError, match='^as it was$'), parallel.together():
    raise ValueError('as it was')
