"""Every command end to end on real digits, at a small size, and what `--help` explains."""

import json
import os
import pathlib
import platform
import subprocess
import sys

import pytest

from certjax import records, report

SMALL = ('--evenly', 20, '--num-samples', 400, '--chunk', 100)
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def two_runs(once, trained):
  """The trained model certified under two noises."""
  from certjax import cli

  def make(base):
    for sigma in ('0.25', '0.5'):
      arguments = ('certify', trained, '--out', base / sigma, '--sigma', sigma, *SMALL)
      assert cli.main([str(argument) for argument in arguments]) == 0

  base = once('two-runs', make)
  return base / '0.25', base / '0.5'


def test_train_writes_a_run_and_does_not_repeat_it(command, data_dir, tmp_path):
  arguments = ('train', 'digits', '--out', tmp_path / 'run', '--data-dir', data_dir)
  small = ('--max-steps', 20, '--log-every', 5)
  done = command(*arguments, *small)
  assert done.code == 0 and done.out == f'next: certjax certify {tmp_path / "run"}\n'
  written = (tmp_path / 'run' / 'metrics.jsonl').read_text()
  lines = [json.loads(line) for line in written.splitlines()]
  assert [line['step'] for line in lines] == [5, 10, 15, 20]
  assert lines[-1]['loss'] < lines[0]['loss']
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert config['sigma'] == 0.25 and config['data_dir'] == str(data_dir)
  again = command(*arguments, *small)
  assert again.code == 0 and 'training: 20 of 20 steps done' in again.err
  assert (tmp_path / 'run' / 'metrics.jsonl').read_text() == written


def test_certify_writes_records_and_a_report(command, trained, tmp_path):
  done = command('certify', trained, '--out', tmp_path, *SMALL)
  assert done.code == 0
  header, lines = records.read(tmp_path)
  assert header['alpha'] == 0.001 and header['norm'] == 'l2' and header['unit'] == 'pixel value'
  assert header['num_images'] == len(lines) == 20
  assert [line['index'] for line in lines] == list(range(0, 500, 25))
  for line in lines:
    certified = line['radius'] > 0
    assert line['predict'] == (line['candidate'] if certified else -1)
    assert 0 <= line['runner_up_count'] <= 400 - line['count']
  correct = sum(line['predict'] == line['label'] for line in lines)
  assert correct >= 12  # A trained model: chance is 2 of 20.
  assert f'| {correct / 20:.4f} |' in done.out  # The table's first column, at radius 0.
  assert 'certjax: warning: num_samples=400' in done.err  # They cap the radius.
  for name in ('table.md', 'table.csv', 'curve.png', 'timing.jsonl'):
    assert (tmp_path / name).stat().st_size > 0
  before = (tmp_path / 'records.jsonl').read_bytes()
  again = command('certify', trained, '--out', tmp_path, *SMALL)
  assert again.code == 0 and 'certifying: 20 of 20 images done' in again.err
  assert (tmp_path / 'records.jsonl').read_bytes() == before


def test_predict_counts(command, trained, tmp_path):
  done = command('predict', trained, '--out', tmp_path / 'p', *SMALL)
  assert done.code == 0
  _, lines = records.read(tmp_path / 'p')
  correct = sum(line['predict'] == line['label'] for line in lines)
  abstained = sum(line['predict'] == -1 for line in lines)
  assert (
    f'20 images: {correct} correct, {20 - correct - abstained} wrong, {abstained} abst' in done.out
  )
  assert correct >= 12 and {line['radius'] for line in lines} == {0.0}


def test_report_of_two_runs(command, two_runs, tmp_path):
  done = command(
    'report', *two_runs, '--compare', '--out', tmp_path, '--tsv', tmp_path / 'log.tsv',
    '--radii', 0, 0.1, 0.3, '--high-probability', '--latex', tmp_path / 'table.tex',
  )  # fmt: skip
  assert done.code == 0
  assert 'r = 0.1 | r = 0.3' in done.out and 'with high probability' in done.out
  comparison = (tmp_path / 'comparison.md').read_text()
  assert comparison and comparison in done.out
  assert (tmp_path / 'table.md').read_text() in done.out
  summary = report.table(report.load_all(two_runs), [0, 0.1, 0.3])
  assert (tmp_path / 'table.tex').read_text() == report.latex(summary, high_probability=True)
  read_back, original = report.load(tmp_path / 'log.tsv'), report.load(two_runs[0])
  assert read_back.certificate.label.tolist() == original.certificate.label.tolist()
  assert (read_back.certificate.radius <= original.certificate.radius).all()
  of_a_file = command('report', tmp_path / 'log.tsv')
  assert of_a_file.code == 0 and (tmp_path / 'log-report' / 'table.md').exists()


def test_report_works_without_jax(process, two_runs, tmp_path):
  fake = tmp_path / 'fake'
  for package in ('jax', 'flax', 'optax', 'orbax', 'chex'):
    (fake / package).mkdir(parents=True)
    (fake / package / '__init__.py').write_text(f'raise ImportError("{package} is not here")')
  path = os.pathsep.join([str(fake), str(ROOT)])
  env = {'PYTHONPATH': path, 'MPLCONFIGDIR': str(tmp_path)}
  done = process('report', *two_runs, '--compare', '--out', tmp_path / 'out', env=env)
  assert '| 0.25 |' in done.stdout and (tmp_path / 'out' / 'curve.png').exists()
  doctor = process('doctor', check=False, env=env)
  assert 'jax is not here' in doctor.stderr  # Else the fake would prove nothing.


def test_data_lists_what_is_prepared(command, data_dir):
  done = command('data', '--data-dir', data_dir)
  rows = {line.split()[0]: line for line in done.out.splitlines()}
  assert ' prepared ' in rows['digits'] and str(data_dir) in rows['digits']
  assert 'missing: certjax data prepare mnist' in rows['mnist']
  done = command('data', 'prepare', 'digits', '--data-dir', data_dir)
  assert done.code == 0 and str(data_dir / 'digits') in done.out


def test_doctor_proves_something(command, monkeypatch):
  done = command('doctor', '--chunk', 100)
  assert done.code == 0
  for part in ('jaxlib', 'devices', 'certified 0.2', 'images a second'):
    assert part in done.out
  from certjax.cli import _doctor

  monkeypatch.setattr(_doctor, '_AT_LEAST', 0.2999)  # As if the bound came out too low.
  broken = command('doctor', '--chunk', 100)
  assert broken.code == 2 and 'self-test certificate must lie' in broken.err


def test_quickstart_plans_what_its_options_say(command, monkeypatch, tmp_path):
  """The parts run in other tests and in CI; here, that the options reach them."""
  from certjax.cli import _certify, _train

  seen = []
  monkeypatch.setattr(_train, 'run', seen.append)
  monkeypatch.setattr(_certify, 'run', lambda config: seen.append(config) or config.run)
  done = command(
    'quickstart', '--out', tmp_path, '--sigma', 0.5, '--num-samples', 100, '--num-images', 7,
    '--data-dir', tmp_path / 'd',
  )  # fmt: skip
  training, certification = seen
  assert training.out == certification.run == tmp_path
  assert training.sigma == certification.sigma == 0.5
  assert (certification.num_samples, certification.evenly) == (100, 7)
  assert training.data_dir == certification.data_dir == tmp_path / 'd'
  assert done.code == 0 and f'certjax predict {tmp_path}' in done.out


COMMANDS = ('quickstart', 'train', 'certify', 'predict', 'report', 'data', 'doctor', 'version')


@pytest.mark.parametrize('name', COMMANDS)
def test_help(command, name):
  done = command(name, '--help')
  assert done.code == 0 and f'usage: certjax {name}' in done.out
  assert 'STR (required)' not in done.out
  assert name in command('--help').out


def test_help_of_a_preset_says_units(command):
  text = ' '.join(command('train', 'digits', '--help').out.replace('│', ' ').split())
  assert 'Standard deviation of the noise, in pixel values of [0, 1]' in text
  text = ' '.join(command('certify', '--help').out.replace('│', ' ').split())
  assert 'Standard deviation of the noise, in pixel values of [0, 1]' in text
  assert '[OPTIONS] [RUN]' in text and 'Directory written by `certjax train`' in text


def test_version_names_what_runs(command):
  """Against what the modules say of themselves, not against the metadata that it reads."""
  import flax
  import jax
  import jaxlib
  import numpy
  import optax
  import orbax.checkpoint
  import scipy

  import certjax as package

  modules = {
    'certjax': package, 'jax': jax, 'jaxlib': jaxlib, 'flax': flax, 'optax': optax,
    'orbax-checkpoint': orbax.checkpoint, 'numpy': numpy, 'scipy': scipy,
  }  # fmt: skip
  found = json.loads(command('version', '--json').out)
  assert found == {
    **{name: module.__version__ for name, module in modules.items()},
    'python': '.'.join(map(str, sys.version_info[:3])),
    'platform': found['platform'],
    'devices': f'cpu: {", ".join(map(str, jax.local_devices()))}',
  }
  assert platform.machine() in found['platform']
  done = command('version')
  assert [line.split(maxsplit=1) for line in done.out.splitlines()] == [*map(list, found.items())]
  assert command('--version').out == done.out and done.out in command('doctor', '--chunk', 100).out


def test_version_of_a_broken_installation(command, monkeypatch):
  from certjax.cli import _versions

  def fail():
    raise RuntimeError('no device,\n  no driver')

  monkeypatch.setattr('jax.local_devices', fail)
  monkeypatch.setattr(_versions, '_PACKAGES', ('numpy', 'a-package-that-nobody-has'))
  done = command('version')
  assert done.code == 0 and done.out.endswith('devices           none: no device, no driver\n')
  assert 'a-package-that-nobody-has not installed\n' in done.out


def test_the_module_is_the_command():
  done = subprocess.run(
    [sys.executable, '-m', 'certjax', 'prove'], capture_output=True, text=True, check=False
  )
  assert done.returncode == 2 and done.stderr.startswith('certjax: error: unknown command')


def test_a_closed_pipe_is_no_error():
  """`certjax --help | head` ends quietly."""
  process = subprocess.Popen(
    f'{sys.executable} -m certjax data | true; exit "${{PIPESTATUS[0]}}"',
    shell=True, executable='/bin/bash', stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  _, stderr = process.communicate(timeout=60)
  assert process.returncode == 0 and stderr == ''
