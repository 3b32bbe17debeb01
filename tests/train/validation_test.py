"""Held-out images choose a checkpoint; a run that is stopped anywhere chooses the same one."""

import dataclasses
import json
import math
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import certify, configs, data, evaluate, models, smoothing, train
from certjax.train import _run, _validation

OPTIONS = {'num_epochs': 6, 'save_every_epochs': 1, 'log_every': 20, 'validation': 100,
           'batch_size': 128, 'objective': 'clean', 'method': 'none'}  # fmt: skip
STEPS = 54  # 6 epochs of 9 batches: 1297 - 100 images.


def config_in(out, data_dir, **changes):
  return configs.Train(out=out, data_dir=data_dir, **{**OPTIONS, **changes})


def lines(out, name=_validation.ACCURACY):
  """step -> value of the lines that hold `name`."""
  found = map(json.loads, (out / 'metrics.jsonl').read_text().splitlines())
  return {line['step']: line[name] for line in found if name in line}


def bumpy(state):
  """Scores that rise and fall: the best is that of step 36, which step 54 only equals."""
  values = {9: 0.3, 18: 0.5, 27: 0.4, 36: 0.7, 45: 0.6, 54: 0.7}
  return {_validation.ACCURACY: values[int(state.step)]}


def test_held_out_images_are_evenly_spaced_and_keep_their_numbers():
  pixels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
  images = data.Images(pixels, np.arange(10, dtype=np.int32), np.arange(10))
  rest, held = _validation.held_out(images, 4)
  assert held.index.tolist() == [0, 2, 5, 7] and rest.index.tolist() == [1, 3, 4, 6, 8, 9]
  for part in (rest, held):
    assert part.images.ravel().tolist() == part.labels.tolist() == part.index.tolist()
  assert _validation.held_out(images, 0) == (images, None)
  seen = {i for b in data.batches(rest, 3, seed=5, num_steps=20) for i in b['index'].tolist()}
  assert seen == set(rest.index.tolist())


@pytest.fixture(scope='module')
def finished(once, data_dir):
  return once('validated-training', lambda out: train.run(config_in(out, data_dir), None))


def test_lines_best_and_what_they_say(finished, data_dir):
  """Every line is the accuracy of that checkpoint on the held-out images, and best/ the first best."""
  found = lines(finished)
  assert sorted(found) == [9, 18, 27, 36, 45, 54]
  best = train.load_run(finished, 'best')
  assert found[best.step] == max(found.values())
  assert min(step for step, value in found.items() if value == found[best.step]) == best.step
  images = data.load('digits', 'train', data_dir=data_dir)
  held = data.take(images, data.subset(1297, evenly=100))
  for run in (best, train.load_run(finished)):
    assert evaluate.accuracy(run.model_fn, held) == pytest.approx(found[run.step], abs=1e-9)
  assert [path.name for path in (finished / 'best').iterdir()] == [str(best.step)]


def test_training_never_sees_them(data_dir, tmp_path, monkeypatch):
  seen, batches = set(), data.batches

  def spied(images, *arguments, **options):
    seen.update(images.index.tolist())
    return batches(images, *arguments, **options)

  monkeypatch.setattr(data, 'batches', spied)
  train.run(config_in(tmp_path, data_dir, max_steps=1), None)
  assert seen == set(range(1297)) - set(data.subset(1297, evenly=100).tolist())


class Killed(Exception):
  """What stands for a kill."""


def killed_at(monkeypatch, name, call):
  """Makes the `call`-th call of `_validation.<name>` the last thing that happens."""
  done, original = [], getattr(_validation, name)

  def dying(*arguments, **options):
    done.append(1)
    if len(done) == call:
      raise Killed
    return original(*arguments, **options)

  monkeypatch.setattr(_validation, name, dying)


def run_bumpy(config, monkeypatch, **kill):
  """A run whose scores are `bumpy`, killed somewhere where `kill` says so."""
  with monkeypatch.context() as patch:
    patch.setattr(_run, 'scorer', lambda *arguments, **options: bumpy)
    if kill:
      killed_at(patch, **kill)
      with pytest.raises(Killed):
        train.run(config, None)
    else:
      train.run(config, None)


@pytest.fixture(scope='module')
def whole(once, data_dir):
  def make(out):
    with pytest.MonkeyPatch.context() as patch:
      run_bumpy(config_in(out, data_dir), patch)

  return once('bumpy-training', make)


def assert_same_run(out, other):
  assert (out / 'metrics.jsonl').read_bytes() == (other / 'metrics.jsonl').read_bytes()
  for folder, step in (('best', 36), ('checkpoints', STEPS)):
    a, b = (train.restore(run / folder) for run in (out, other))
    assert int(a['step']) == int(b['step']) == step
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
  'name, call',
  [
    ('save', 5),  # Best so far is step 18; the checkpoint of step 27 is not written.
    ('_keep', 3),  # The checkpoint of step 36 is there, its copy is not.
    ('save', 7),  # The same, the older copy intact.
  ],
)
def test_killed_anywhere_it_ends_as_if_it_had_not_been(
  whole, data_dir, tmp_path, monkeypatch, name, call
):
  config = config_in(tmp_path, data_dir)
  run_bumpy(config, monkeypatch, name=name, call=call)
  run_bumpy(config, monkeypatch)
  assert_same_run(tmp_path, whole)


def test_stopped_between_two_checkpoints_judges_nothing_there(
  whole, data_dir, tmp_path, monkeypatch
):
  config = config_in(tmp_path, data_dir)
  run_bumpy(dataclasses.replace(config, max_steps=40), monkeypatch)  # `bumpy` knows no step 40.
  assert train.load_run(tmp_path).step == 40 and train.load_run(tmp_path, 'best').step == 36
  run_bumpy(config, monkeypatch)
  assert lines(tmp_path) == lines(whole)
  assert int(train.restore(tmp_path / 'best')['step']) == 36


def test_falling_back_on_an_older_checkpoint(whole, data_dir, tmp_path, monkeypatch):
  """What the error of a damaged checkpoint advises; best/ is then ahead of the run."""
  config = config_in(tmp_path, data_dir)
  run_bumpy(dataclasses.replace(config, max_steps=36), monkeypatch)
  shutil.rmtree(tmp_path / 'checkpoints' / '36')
  run_bumpy(config, monkeypatch)
  assert_same_run(tmp_path, whole)


def test_noise_is_drawn_once_an_image(data_dir):
  """A model trained under noise is judged under it: the same draws each time, other ones by key."""
  held = data.load('digits', 'train', data_dir=data_dir, indices=np.arange(40))
  module = models.build('digits-cnn', num_classes=10, width=2)
  state = train.init_state(jax.random.key(0), module, optax.sgd(0.1), (8, 8, 1))
  noise = smoothing.gaussian(sigma=1.0)
  score = _validation.scorer(module, held, smoothing=noise, key=jax.random.key(1))
  x = data.to_float(held.images)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(1), jnp.arange(40))
  noisy = jax.vmap(noise.sample)(keys, x)
  logits = certify.evaluate(models.bind(module, state.variables), noisy)
  right = np.argmax(logits, axis=-1) == held.labels
  assert score(state) == score(state) == {_validation.ACCURACY: pytest.approx(float(right.mean()))}


class Rows(nn.Module):
  """A linear classifier with orthogonal rows of length `scale`, and the constant that it states."""

  scale: float = 1.0
  stated: float = 1.0

  @nn.compact
  def __call__(self, x, train=False):
    kernel = self.param('kernel', nn.initializers.orthogonal(), (64, 10))
    return self.scale * x.reshape(len(x), -1) @ kernel

  def lipschitz(self, variables):
    return self.stated


class KnownRows(Rows):
  """One that also says how far they are apart."""

  def last_layer(self, variables):
    return np.asarray(variables['params']['kernel']).T


@pytest.mark.parametrize(
  'module', [Rows(), Rows(4.0, 4.0), KnownRows(stated=1e9), Rows(stated=math.inf)]
)
def test_lipschitz_models_are_chosen_by_certified_accuracy(data_dir, module):
  """Rows are sqrt(2) apart, so the radius is the gap / sqrt(2), whatever the logits' scale."""
  held = data.load('digits', 'train', data_dir=data_dir, indices=np.arange(200))
  state = train.init_state(jax.random.key(0), module, optax.sgd(0.1), (8, 8, 1))
  kernel = np.asarray(state.params['kernel'], np.float64)
  logits = np.sort(held.images.reshape(200, 64) / 255 @ kernel, axis=1)
  labels = np.argmax(held.images.reshape(200, 64) / 255 @ kernel, axis=1)
  labels[:50] = (labels[:50] + 1) % 10
  certified = (logits[:, -1] - logits[:, -2]) / np.sqrt(2) >= 36 / 255
  certified &= (np.arange(200) >= 50) & math.isfinite(module.stated)
  held = held._replace(labels=labels.astype(np.int32))
  found = _validation.scorer(module, held)(state)
  assert found[_validation.CERTIFIED] == certified.mean()
  assert (0.1 < certified.mean() < 0.7) == math.isfinite(module.stated)
  assert found[_validation.ACCURACY] == 0.75
  assert _validation.criterion(module) == _validation.CERTIFIED
  noise = smoothing.gaussian(sigma=0.1)
  assert _validation.criterion(module, noise) == _validation.ACCURACY
  noisy = _validation.scorer(module, held, smoothing=noise, key=jax.random.key(0))
  assert set(noisy(state)) == {_validation.ACCURACY}


@pytest.mark.parametrize(
  'changes, said',
  [
    ({'validation': -1}, '`validation` must be at least 0'),
    ({'validation': 1297}, '`validation` must leave images to train on: below 1297, got 1297'),
    ({'validation': 1200}, '`batch_size` must lie in 1 .. 97'),
  ],
)
def test_bad_counts(data_dir, tmp_path, changes, said):
  with pytest.raises(ValueError, match=said):
    train.run(config_in(tmp_path, data_dir, **changes), None)


def test_images_that_are_not_in_memory():
  source = object.__new__(data.Source)
  source.spec = data.DATASETS['imagenet2012']
  with pytest.raises(ValueError, match='fits in memory, which imagenet2012 does not'):
    _validation.held_out(source, 10)


def test_another_number_of_held_out_images_is_another_run(finished, data_dir):
  with pytest.raises(ValueError, match='another config: .*validation'):
    train.run(config_in(finished, data_dir, validation=99), None)


def test_an_older_config_held_out_none(data_dir, tmp_path):
  config = config_in(tmp_path, data_dir, validation=0, max_steps=2)
  train.run(config, None)
  there = json.loads((tmp_path / 'config.json').read_text())
  del there['validation']
  (tmp_path / 'config.json').write_text(json.dumps(there))
  train.run(config, None)
  with pytest.raises(
    ValueError, match=r"'best' is chosen by held-out images, and .* held out none"
  ):
    train.load_run(tmp_path, 'best')
  with pytest.raises(ValueError, match="`checkpoint` must be one of latest, best; got 'newest'"):
    train.load_run(tmp_path, 'newest')


def test_the_command_line_certifies_the_best(finished, data_dir, tmp_path, command):
  options = ('--sigma', 0.1, '--num-samples', 100, '--evenly', 2, '--data-dir', data_dir)
  hashes = {}
  for checkpoint in ('latest', 'best'):
    out = tmp_path / checkpoint
    done = command('certify', finished, '--checkpoint', checkpoint, '--out', out, *options)
    assert done.code == 0, done.err
    header = json.loads((out / 'records.jsonl').read_text().splitlines()[0])
    hashes[checkpoint] = header['weights_sha256']
    assert header['config'].get('checkpoint') == (None if checkpoint == 'latest' else 'best')
  runs = [train.load_run(finished, checkpoint) for checkpoint in hashes]
  assert (hashes['latest'] == hashes['best']) == (runs[0].step == runs[1].step)
  done = command('certify', '--model', 'a:b', '--checkpoint', 'best', '--dataset', 'digits',
                 '--out', tmp_path)  # fmt: skip
  assert done.code == 2 and '`checkpoint` chooses among those of RUN' in done.err
