"""Strict JAX, a compilation cache for the session, and one trained digits run for all tests."""

import fcntl
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

# Before JAX is imported: all workers, and the processes they start, share compiled programs.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  str(pathlib.Path(tempfile.gettempdir()) / f'certjax-test-programs-{os.getuid()}'),
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.6')

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')

FAST = not os.environ.get('CERTJAX_OPTIMIZED')
"""Without XLA's optimizations: of programs that run once, compiling is nearly all the time. What the tests
claim holds for every program; the core runs once more with them (`.ci/run`, Colab's versions)."""
jax.config.update('jax_disable_most_optimizations', FAST)

ROOT = pathlib.Path(__file__).parent.parent
SHARED = ROOT.parent / 'shared'


def session_directory(tmp_path_factory):
  """One directory for all xdist workers of this session."""
  base = tmp_path_factory.getbasetemp()
  return base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  """A TFDS directory with the digits, prepared once."""
  from certjax import data

  directory = session_directory(tmp_path_factory) / 'tfds'
  data.prepare('digits', directory)
  return directory


@pytest.fixture(scope='session')
def once(tmp_path_factory):
  """`once(name, make) -> directory`: one worker calls `make(directory)`, the others wait for it."""
  base = session_directory(tmp_path_factory)

  def made_once(name, make):
    directory, finished = base / name, base / f'{name}.finished'
    with open(base / f'{name}.lock', 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not finished.exists():
        make(directory)
        finished.touch()
    return directory

  return made_once


@pytest.fixture(scope='session')
def trained(once, data_dir):
  """The directory of a digits run trained with sigma 0.25 by the command line (read only)."""
  return once(
    'digits-run', lambda out: certjax('train', 'digits', '--out', out, '--data-dir', data_dir)
  )


@pytest.fixture(scope='module')
def many_programs():
  """For a module whose programs are large and serve nobody else: forgets them at its end."""
  yield
  jax.clear_caches()


@pytest.fixture
def optimized():
  """For a test about rounding, or about speed: what users run."""
  jax.config.update('jax_disable_most_optimizations', False)
  jax.clear_caches()
  yield
  jax.config.update('jax_disable_most_optimizations', FAST)
  jax.clear_caches()


@pytest.fixture(scope='session')
def shared():
  """The folder of real data beside the repository; tests that need it skip where it is absent."""
  if not (SHARED / 'data').is_dir():
    pytest.skip('no ../shared/data beside the repository')
  return SHARED / 'data'


class Outcome(NamedTuple):
  """What a command did: exit code, stdout, stderr."""

  code: int
  out: str
  err: str


@pytest.fixture
def command(capsys):
  """Runs a command line in this process: `command('certify', run) -> Outcome`."""
  from certjax import cli

  def run(*arguments):
    capsys.readouterr()
    try:
      code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
      code = stop.code
    return Outcome(code, *capsys.readouterr())

  return run


@pytest.fixture(scope='session')
def process():
  """Runs a command line in a process of its own: `process('certify', run)`."""
  return certjax


def certjax(*arguments, check=True, env=None, **options):
  """Runs the command line in a process of its own."""
  return subprocess.run(
    [sys.executable, '-m', 'certjax', *map(str, arguments)],
    check=check, capture_output=True, text=True, timeout=300,
    env={**os.environ, **(env or {})}, **options,
  )  # fmt: skip
