"""Bad input: exit code 2, one line on stderr that says what to do, and nothing written is lost."""

import json
import resource
import shutil

import numpy as np
import pytest

from certjax import data, train

SAMPLES = ('--num-samples', 1600, '--chunk', 100)  # Groups of two images: one program for all.
SMALL = ('--max-images', 2, *SAMPLES)


def assert_refused(outcome, *parts):
  """Exit code 2 and exactly one line `certjax: error: ...` that holds all `parts`."""
  assert outcome.code == 2
  lines = [line for line in outcome.err.splitlines() if not line.startswith('training: ')]
  assert len(lines) == 1, outcome.err
  assert lines[0].startswith('certjax: error: ')
  for part in parts:
    assert part in lines[0]
  assert 'Traceback' not in outcome.out + outcome.err


@pytest.fixture
def run(trained, tmp_path):
  """A copy of the trained run, to be damaged."""
  return shutil.copytree(trained, tmp_path / 'run')


def test_unknown_commands(command):
  assert_refused(command('prove'), "unknown command 'prove'", 'quickstart, train, certify')
  nothing = command()
  assert nothing.code == 2 and 'usage: certjax COMMAND' in nothing.out


@pytest.mark.parametrize(
  'arguments',
  [
    ('certify',),
    ('certify', 'run', '--sgima', '1'),
    ('certify', 'run', '--num-samples', 'many'),
    ('train', 'digits', '--batch-size', '1.5'),
    ('data', 'download'),
    ('doctor', 'now'),
  ],
)
def test_usage_errors(command, arguments):
  outcome = command(*arguments)
  assert outcome.code == 2
  assert f'certjax {arguments[0]}' in outcome.err  # Names the --help that explains.
  assert 'Traceback' not in outcome.err


@pytest.mark.parametrize('arguments', [(), ('cifar',), ('--sigma', '0.5')])
def test_training_needs_a_preset(command, arguments):
  got = repr(arguments[0]) if arguments else 'nothing'
  assert_refused(command('train', *arguments), 'digits, mnist, cohen-cifar10', f'got {got}')


@pytest.mark.parametrize(
  ('option', 'value', 'parts'),
  [
    ('dataset', 'digit', ('digit', 'digits, mnist', 'Did you mean')),
    ('model', 'resnet21', ('`model`', "'resnet21'", 'digits-cnn', 'Did you mean')),
    ('method', 'gauss', ('`method`', "'gauss'", 'gaussian')),
    ('optimizer', 'lion', ('optimiser', "'lion'", 'adam')),
    ('schedule', 'linear', ('schedule', "'linear'", 'cosine')),
    ('schedule', 'step', ('decay_every',)),
    ('augment', 'flip', ('augment', "'flip'", 'crop_flip')),
    ('sigma', 0, ('`sigma`', 'positive', 'got sigma=0')),
    ('sigma', -1, ('`sigma`', 'got sigma=-1')),
    ('sigma', 'nan', ('`sigma`', 'got sigma=nan')),
    ('sigma', 'inf', ('`sigma`', 'got sigma=inf')),
    ('batch-size', 5000, ('`batch_size`', '1297', 'got 5000')),
    ('batch-size', 0, ('`batch_size`', 'got 0')),
    ('num-epochs', 0, ('`num_epochs`', 'positive', 'got 0')),
    ('learning-rate', 'nan', ('`learning_rate`', 'got nan')),
    ('log-every', 0, ('`log_every`', 'got 0')),
    ('save-every-epochs', -1, ('`save_every_epochs`', 'got -1')),
    ('max-steps', 0, ('`max_steps`', 'got 0')),
    ('warmup-epochs', -1, ('`warmup_epochs`', 'got -1')),
    ('weight-decay', 'nan', ('`weight_decay`', 'got nan')),
    ('seed', -1, ('`seed`', 'got -1')),
    ('seed', 2**32, ('`seed`', f'got {2**32}')),
  ],
)
def test_training_refuses_before_it_writes(command, data_dir, tmp_path, option, value, parts):
  out = tmp_path / 'run'
  outcome = command('train', 'digits', '--out', out, '--data-dir', data_dir, f'--{option}', value)
  assert_refused(outcome, *parts)
  assert not out.exists()  # Else the corrected command would find another config's run.


def test_training_refuses_a_data_set_that_is_not_prepared(command, tmp_path):
  outcome = command('train', 'mnist', '--out', tmp_path / 'run', '--data-dir', tmp_path)
  assert_refused(outcome, 'mnist is not prepared', 'certjax data prepare mnist')
  assert not (tmp_path / 'run').exists()


def test_training_refuses_another_config(command, run, data_dir):
  before = (run / 'config.json').read_bytes()
  outcome = command('train', 'digits', '--out', run, '--data-dir', data_dir, '--sigma', 0.5)
  assert_refused(outcome, 'another config', 'sigma is 0.25 there and 0.5 here', '--out')
  assert (run / 'config.json').read_bytes() == before


def test_a_batch_must_divide_over_the_devices(data_dir, tmp_path):
  from certjax import configs

  class Three:
    """A mesh of three devices, as far as the check looks."""

    devices = np.zeros(3)

  config = configs.Train(out=tmp_path / 'run', data_dir=data_dir, batch_size=64)
  with pytest.raises(ValueError, match='`batch_size` must be a multiple of the 3 devices, got 64'):
    train.run(config, None, mesh=Three())


def test_divergence_is_said_and_not_saved(command, data_dir, tmp_path):
  outcome = command(
    'train', 'digits', '--out', tmp_path, '--data-dir', data_dir, '--max-steps', 20,
    '--log-every', 5, '--learning-rate', 1e30, '--warmup-epochs', 0,
  )  # fmt: skip
  assert_refused(outcome, 'training diverged', 'nan at step 5', '`learning_rate`')
  assert train.latest_step(tmp_path / 'checkpoints') is None


@pytest.mark.parametrize(
  ('options', 'parts'),
  [
    (('--sigma', 0), ('`sigma`', 'positive', 'got sigma=0')),
    (('--sigma', -0.25), ('`sigma`', 'got sigma=-0.25')),
    (('--sigma', 'nan'), ('`sigma`', 'got sigma=nan')),
    (('--sigma', 'inf'), ('`sigma`', 'got sigma=inf')),
    (('--alpha', 0), ('`alpha`', '(0, 1)', 'got alpha=0')),
    (('--alpha', 1), ('`alpha`', 'got alpha=1')),
    (('--alpha', 'nan'), ('`alpha`', 'got alpha=nan')),
    (('--num-samples', 0), ('`num_samples`', 'got 0')),
    (('--num-samples', 2**31), ('`num_samples`', f'got {2**31}')),
    (('--chunk', 0), ('`chunk`', 'got 0')),
    (('--skip', -1), ('`skip`', 'got -1')),
    (('--skip', 0), ('`skip`', 'got 0')),
    (('--max-images', 0), ('`max_images`', 'got 0')),
    (('--evenly', 501), ('`evenly`=501', '500 images')),
    (('--evenly', 5, '--skip', 2), ('`evenly`', '`skip`')),
    (('--seed', -1), ('`seed`', 'got -1')),
    (('--seed', 2**32), ('`seed`', f'got {2**32}')),
    (('--split', 'validation'), ('split', "'validation'", 'train, test')),
    (('--method', 'laplas'), ('`method`', "'laplas'", 'gaussian')),
  ],
)
@pytest.mark.parametrize('kind', ['certify', 'predict'])
def test_certification_refuses_before_it_writes(command, trained, tmp_path, kind, options, parts):
  small = () if options[0] in ('--evenly', '--max-images') else ('--max-images', 2)
  outcome = command(kind, trained, '--out', tmp_path / 'out', *small, *options)
  assert_refused(outcome, *parts)
  assert not (tmp_path / 'out').exists()  # A header would refuse the corrected command.


def test_too_few_samples(command, trained, tmp_path):
  outcome = command('certify', trained, '--out', tmp_path / 'out', '--num-samples', 9)
  assert outcome.err == (
    'certjax: error: `num_samples`=9 can never certify at `alpha`=0.001: at least 10 are needed '
    '(PREDICT: 11).\n'
  )
  outcome = command('predict', trained, '--out', tmp_path / 'out', '--num-samples', 10)
  assert_refused(outcome, '`num_samples`=10 always abstains', 'at least 11')
  outcome = command('certify', trained, '--out', tmp_path / 'out', '--num-selection', 0)
  assert_refused(outcome, '`num_selection`', 'got 0')
  outcome = command('quickstart', '--out', tmp_path / 'out', '--num-samples', 9)
  assert_refused(outcome, '`num_samples`=9 can never certify')
  outcome = command('quickstart', '--out', tmp_path / 'out', '--num-images', 501)
  assert_refused(outcome, '`num_images`', '1 .. 500', 'got 501')
  assert not (tmp_path / 'out').exists()


def test_missing_runs(command, tmp_path):
  nowhere = tmp_path / 'nowhere'
  for kind in ('certify', 'predict'):
    assert_refused(command(kind, nowhere), str(nowhere), 'no config.json', 'certjax train')
  assert_refused(command('report', nowhere), str(nowhere), 'No such file')
  assert_refused(command('report'), 'which runs')
  nowhere.mkdir()
  assert_refused(command('report', nowhere), str(nowhere), 'certjax certify')
  assert_refused(command('report', nowhere, '--compare'), '`--compare`', 'two runs', 'got 1')


def test_data_sets_by_name(command, tmp_path):
  assert_refused(command('data', 'prepare'), 'which data set', 'digits, mnist')
  outcome = command('data', 'prepare', 'minst', '--data-dir', tmp_path)
  assert_refused(outcome, "'minst'", "Did you mean 'mnist'?")


@pytest.mark.parametrize('text', ['', '{"sigma": 0.2', '[]', '{}', '\x00\xff', '{"model": "x"}'])
def test_damaged_config(command, run, tmp_path, text):
  (run / 'config.json').write_bytes(text.encode('latin-1'))
  assert_refused(command('certify', run, '--out', tmp_path / 'out'), str(run / 'config.json'))


def test_a_run_trained_without_noise_has_no_default_noise(command, run, tmp_path):
  config = json.loads((run / 'config.json').read_text())
  (run / 'config.json').write_text(json.dumps({**config, 'method': 'none'}))
  assert_refused(command('certify', run, '--out', tmp_path / 'out'), 'without noise', '`--sigma')
  outcome = command('certify', run, '--out', tmp_path / 'out', *SMALL, '--sigma', 0.25)
  assert outcome.code == 0 and 'not the training noise 0' in outcome.err


def test_another_architecture_in_the_config(command, run):
  config = json.loads((run / 'config.json').read_text())
  (run / 'config.json').write_text(json.dumps({**config, 'model': 'mnist-cnn'}))
  assert_refused(command('certify', run, *SMALL), 'checkpoint', 'another architecture')


def test_damaged_checkpoint(command, run):
  step = run / 'checkpoints' / str(train.latest_step(run / 'checkpoints'))
  (step / 'default' / 'manifest.ocdbt').write_bytes(b'')
  outcome = command('certify', run, *SMALL)
  assert_refused(outcome, f'checkpoint of step {step.name}', 'cannot be read', 'older one')
  outcome = command('train', 'digits', '--out', run, '--data-dir', run.parent)
  assert_refused(outcome, f'checkpoint of step {step.name}', 'cannot be read')
  shutil.rmtree(step)  # The remedy it names.
  assert command('certify', run, *SMALL).code == 0
  shutil.rmtree(run / 'checkpoints')
  assert_refused(command('predict', run, *SMALL), 'no checkpoint in', 'certjax train')


def _with_other_weights(run, change):
  """Adds a checkpoint in which one weight is changed."""
  state = train.restore(run / 'checkpoints')
  state['params']['Dense_1']['bias'] = change(state['params']['Dense_1']['bias'].copy())
  train.save(run / 'checkpoints', train.TrainState(**{**state, 'step': state['step'] + 1}))


def test_a_nan_weight(command, run):
  _with_other_weights(run, lambda bias: np.r_[bias[:-1], np.float32('nan')])
  assert_refused(command('certify', run, *SMALL), "['params']['Dense_1']['bias']", 'NaN')


def test_records_of_another_run_are_refused_and_kept(command, run, tmp_path):
  out = tmp_path / 'out'
  first = ('certify', run, '--out', out, *SMALL)
  assert command(*first).code == 0
  before = (out / 'records.jsonl').read_bytes()
  for option, name in {
    ('--sigma', 0.5): 'config.sigma is 0.25 there and 0.5 here',
    ('--seed', 1): 'config.seed is 0 there and 1 here',
    ('--chunk', 50): 'config.chunk is 100 there and 50 here',
    ('--alpha', 0.01): 'config.alpha',
    ('--num-samples', 999): 'config.num_samples',
    ('--split', 'train'): 'images_sha256',
  }.items():
    assert_refused(command(*first, *option), 'another configuration', name, '--out')
  outcome = command('predict', run, '--out', out, *SMALL)
  assert_refused(outcome, "kind is 'certify' there and 'predict' here")
  _with_other_weights(run, lambda bias: bias + 1)
  assert_refused(command(*first), 'weights_sha256')
  assert (out / 'records.jsonl').read_bytes() == before


def test_a_file_where_a_directory_should_be(command, trained, data_dir, tmp_path):
  file = tmp_path / 'file'
  file.write_text('mine')
  assert_refused(command('certify', trained, '--out', file, *SMALL), str(file), 'cannot write')
  assert_refused(command('predict', trained, '--out', file / 'a', *SMALL), 'Not a directory')
  assert_refused(command('train', 'digits', '--out', file, '--data-dir', data_dir), str(file))
  assert command('certify', trained, '--out', tmp_path / 'out', *SMALL).code == 0
  assert_refused(command('report', tmp_path / 'out', '--out', file), str(file), 'File exists')
  assert file.read_text() == 'mine'


@pytest.fixture
def small_disk():
  """A context in which no file grows beyond some bytes, as on a full disk."""

  class Limit:
    def __init__(self, size):
      self._size, self._before = size, resource.getrlimit(resource.RLIMIT_FSIZE)

    def __enter__(self):
      resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._before[1]))

    def __exit__(self, *_):
      resource.setrlimit(resource.RLIMIT_FSIZE, self._before)

  return Limit


def test_full_disk_while_certifying(command, trained, tmp_path, small_disk):
  arguments = ('certify', trained, '--max-images', 20, *SAMPLES)
  assert command(*arguments, '--out', tmp_path / 'whole').code == 0
  whole = (tmp_path / 'whole' / 'records.jsonl').read_bytes()
  with small_disk(len(whole) - 500):
    outcome = command(*arguments, '--out', tmp_path / 'out')
  assert outcome.code == 2
  assert outcome.err.splitlines()[-1].startswith('certjax: error: ')
  assert 'the same command resumes' in outcome.err and 'Traceback' not in outcome.err
  part = (tmp_path / 'out' / 'records.jsonl').read_bytes()
  assert whole.startswith(part) and part.endswith(b'\n') and part.count(b'\n') >= 15
  assert command(*arguments, '--out', tmp_path / 'out').code == 0
  assert (tmp_path / 'out' / 'records.jsonl').read_bytes() == whole


def test_full_disk_while_training(command, data_dir, tmp_path, small_disk):
  arguments = ('train', 'digits', '--out', tmp_path, '--data-dir', data_dir, '--max-steps')
  assert command(*arguments, 10).code == 0
  with small_disk(2000):
    outcome = command(*arguments, 12)
  assert_refused(outcome, 'checkpoint of step 12', 'cannot write', 'same command continues')
  assert train.load_run(tmp_path).step == 10


def test_stored_images_of_another_shape(command, trained, tmp_path, monkeypatch):
  wide = lambda: (np.zeros((1797, 8, 9, 1), np.uint8), np.zeros(1797, np.int32))
  monkeypatch.setattr(data._digits, 'digits_arrays', wide)
  data.prepare('digits', tmp_path)
  outcome = command('certify', trained, '--out', tmp_path / 'out', '--data-dir', tmp_path, *SMALL)
  assert_refused(outcome, 'digits', '(8, 8, 1)', '(8, 9, 1)')
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('kind', ['certify', 'train'])
def test_stored_labels_out_of_range(command, trained, data_dir, tmp_path, monkeypatch, kind):
  examples = data.Source.examples

  def crafted(self, index):
    for i, (image, label) in enumerate(examples(self, index)):
      yield image, 10 if i == 1 else label

  monkeypatch.setattr(data.Source, 'examples', crafted)
  arguments = {
    'certify': ('certify', trained, *SMALL),
    'train': ('train', 'digits', '--data-dir', data_dir, '--batch-size', 2),
  }[kind]
  outcome = command(*arguments, '--out', tmp_path / 'out')
  assert_refused(outcome, 'labels', '0 .. 9', 'got 10 at [1]')
  assert not (tmp_path / 'out').exists()


def test_a_defect_shows_its_traceback(command, monkeypatch):
  """Only what the user can repair becomes one line; CERTJAX_DEBUG shows the rest."""
  from certjax.cli import _main

  def fail(error):
    def run(*_):
      raise error

    monkeypatch.setattr(_main, '_run', run)

  fail(KeyError('a defect'))
  with pytest.raises(KeyError, match='a defect'):
    command('doctor')
  fail(RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes'))
  assert_refused(command('doctor'), 'out of memory', '--chunk', '--batch-size')
  fail(ValueError('two\n  lines'))
  assert_refused(command('doctor'), 'two lines')
  monkeypatch.setenv('CERTJAX_DEBUG', '1')
  with pytest.raises(ValueError, match='two'):
    command('doctor')
