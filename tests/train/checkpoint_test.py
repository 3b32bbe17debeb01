"""Checkpoints: what is read back is what was written, or an error of one line."""

import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from certjax import models, train


def make_state(seed=0, step=3):
  module = models.build('digits-cnn', num_classes=10, width=2)
  state = train.init_state(jax.random.key(seed), module, optax.adam(0.1), (8, 8, 1))
  return state._replace(step=jnp.int32(step))


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_round_trip(tmp_path):
  state = make_state()
  assert train.latest_step(tmp_path / 'none') is None
  train.save(tmp_path, state)
  assert train.latest_step(tmp_path) == 3
  assert_equal(train.restore(tmp_path, state), state)
  assert_equal(train.restore(tmp_path)['params'], state.params)
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(train.restore(tmp_path)))


def test_the_newest_are_kept(tmp_path):
  states = [make_state(step, step) for step in (1, 2, 10)]
  for state in states:
    train.save(tmp_path, state, keep=2)
  assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ['10', '2']
  assert_equal(train.restore(tmp_path, states[0]), states[2])
  assert_equal(train.restore(tmp_path, states[0], step=2), states[1])


def test_missing(tmp_path):
  with pytest.raises(ValueError, match=r'no checkpoint in .*: run `certjax train`'):
    train.restore(tmp_path)


def test_another_architecture(tmp_path):
  train.save(tmp_path, make_state())
  module = models.build('digits-cnn', num_classes=10, width=3)
  other = train.init_state(jax.random.key(0), module, optax.adam(0.1), (8, 8, 1))
  with pytest.raises(ValueError, match='checkpoint of step 3 .* of another architecture'):
    train.restore(tmp_path, other)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_weights_that_are_no_numbers(tmp_path, value):
  state = make_state()
  state.params['Dense_0']['bias'] = state.params['Dense_0']['bias'].at[1].set(value)
  train.save(tmp_path, state)
  with pytest.raises(ValueError, match=r"NaN or inf in \['params'\]\['Dense_0'\]\['bias'\]"):
    train.restore(tmp_path)


def test_damage_is_an_error_or_harmless(tmp_path):
  """Every file of a checkpoint, emptied, cut in half, junk in the middle, or deleted."""
  state = make_state()
  train.save(tmp_path / 'whole', state)
  step = tmp_path / 'whole' / '3'
  files = [path.relative_to(step) for path in sorted(step.rglob('*')) if path.is_file()]
  middle = lambda content: len(content) // 2
  junk = np.random.default_rng(0).bytes(16)
  damages = {
    'emptied': lambda content: b'',
    'halved': lambda content: content[: middle(content)],
    'junk': lambda content: content[: middle(content)] + junk + content[middle(content) + 16 :],
    'deleted': lambda content: None,
  }
  refused = set()
  for name, damage in damages.items():
    for file in files:
      copy = tmp_path / 'copy'
      shutil.copytree(tmp_path / 'whole', copy)
      content = damage((copy / '3' / file).read_bytes())
      (copy / '3' / file).unlink()
      if content is not None:
        (copy / '3' / file).write_bytes(content)
      try:
        assert_equal(train.restore(copy, state), state)
      except ValueError as error:
        assert '\n' not in str(error) and 'checkpoint of step 3' in str(error)
        refused.add((name, file.parts[-2]))
      shutil.rmtree(copy)
  assert {name for name, _ in refused} == set(damages)
  assert ('junk', 'd') in refused  # The arrays themselves.


def test_a_step_is_saved_once(tmp_path):
  train.save(tmp_path, make_state())
  with pytest.raises(OSError, match='cannot write the checkpoint of step 3 .*there already'):
    train.save(tmp_path, make_state())


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_save(tmp_path, monkeypatch, sent):
  """Orbax's event loops do not survive an exception out of a signal handler."""
  finished = []
  wait = ocp.CheckpointManager.wait_until_finished

  def interrupted(manager):
    if not finished:
      signal.raise_signal(sent)
    wait(manager)
    finished.append(True)

  def stop(number, frame):
    raise KeyboardInterrupt(number)

  monkeypatch.setattr(ocp.CheckpointManager, 'wait_until_finished', interrupted)
  before = signal.signal(sent, stop)
  try:
    with pytest.raises(KeyboardInterrupt):
      train.save(tmp_path, make_state())
    assert signal.getsignal(sent) is stop
  finally:
    signal.signal(sent, before)
  assert finished and train.latest_step(tmp_path) == 3
