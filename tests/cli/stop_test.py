"""Ctrl-C, SIGTERM and SIGKILL: the same command continues, and the records are those of a run that
was never stopped, byte for byte."""

import contextlib
import io
import random
import signal
import subprocess
import sys
import time

import pytest

from certjax import cli

_NUM_IMAGES = 60
_TIMEOUT = 120.0


def command_line(trained, out):
  return [
    'certify', str(trained), '--out', str(out), '--evenly', str(_NUM_IMAGES),
    '--num-samples', '5000', '--chunk', '500',
  ]  # fmt: skip


def finish(trained, out):
  """Runs the command to its end in this process, and returns the bytes of its records."""
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    assert cli.main(command_line(trained, out)) == 0
  return (out / 'records.jsonl').read_bytes()


@pytest.fixture(scope='module')
def uninterrupted(once, trained):
  out = once('uninterrupted-certification', lambda out: finish(trained, out))
  records = (out / 'records.jsonl').read_bytes()
  assert records.count(b'\n') == 1 + _NUM_IMAGES
  return records


@contextlib.contextmanager
def started(trained, out):
  """The command in a process of its own, which is dead after the block."""
  # A caught signal is reset in the child; an ignored one, as under nohup, would stay ignored.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  process = subprocess.Popen(
    [sys.executable, '-m', 'certjax', *command_line(trained, out)],
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  signal.signal(signal.SIGINT, before)
  try:
    yield process
  finally:
    process.kill()
    process.communicate()


def count_lines(out):
  path = out / 'records.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def wait_for(process, out, num_lines):
  """Returns once the records have that many lines, or the process has ended."""
  until = time.monotonic() + _TIMEOUT
  while count_lines(out) < num_lines and process.poll() is None:
    assert time.monotonic() < until, f'no {num_lines} lines within {_TIMEOUT} s'
    time.sleep(0.005)


@pytest.mark.parametrize(
  ('sent', 'code', 'said'),
  [(signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 75, 'stopped by SIGTERM')],
)
def test_signals(trained, uninterrupted, tmp_path, sent, code, said):
  with started(trained, tmp_path) as process:
    wait_for(process, tmp_path, 5)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=_TIMEOUT)
  assert process.returncode == code, stderr
  assert stderr.splitlines()[-1].startswith(f'certjax: {said}')
  assert 'the same command continues' in stderr and 'Traceback' not in stderr
  part = (tmp_path / 'records.jsonl').read_bytes()
  assert part.endswith(b'\n') and uninterrupted.startswith(part)
  assert 5 <= part.count(b'\n') < uninterrupted.count(b'\n')
  assert finish(trained, tmp_path) == uninterrupted


def test_killed_three_times(trained, uninterrupted, tmp_path):
  chance = random.Random(0)
  reached = []
  for kill in range(3):
    begun = count_lines(tmp_path)
    with started(trained, tmp_path) as process:
      if kill == 1:  # While JAX is being imported, or soon after.
        with contextlib.suppress(subprocess.TimeoutExpired):
          process.wait(timeout=chance.uniform(0.2, 1.0))
      else:
        wait_for(process, tmp_path, max(begun, 1) + chance.randint(1, 8))
        with contextlib.suppress(subprocess.TimeoutExpired):
          process.wait(timeout=chance.uniform(0.0, 0.05))
      process.send_signal(signal.SIGKILL)
      assert process.wait(timeout=_TIMEOUT) == -signal.SIGKILL  # It was alive: the kill counts.
    reached.append(count_lines(tmp_path))
  assert reached == sorted(reached)  # No restart lost a record.
  assert 1 < reached[0] < reached[-1] < 1 + _NUM_IMAGES
  assert finish(trained, tmp_path) == uninterrupted
  timing = (tmp_path / 'timing.jsonl').read_bytes()
  assert timing.count(b'\n') == _NUM_IMAGES
