"""The engine: whatever the schedule, a plan is sent the counts of a loop over its items."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, smoothing
from certjax.certify import _engine

KEY = jax.random.key(11)
X = np.linspace(-0.5, 0.5, 9, dtype=np.float32)[:, None] * np.ones((9, 2), np.float32)
NOISE = smoothing.gaussian(sigma=0.5)
ALL = tuple(range(9))


def model_fn(x):
  return jnp.stack([x[:, 0], x[:, 1]], axis=1)


def program(chunk=16):
  return certify.smoothing_program(KEY, model_fn, NOISE, (2,), chunk)


def until(votes, sizes):
  """Asks round after round, with more selection samples aside, until class 0 has `votes`."""
  total, looks = 0, []
  for size in sizes:
    _, counts = yield [(certify.SELECTION, 3), (certify.ESTIMATION, size)]
    total += counts[0]
    looks.append((size, counts.tolist()))
    if total >= votes:
      break
  return looks


def work(order=ALL, votes=20):
  sizes = [5, 1, 40, 7, 90]
  return (certify.Work(X[i], i, until(votes, sizes)) for i in order)


def looks(order=ALL, *, chunk=16, slots=64, **options):
  results = certify.run(program(chunk), work(order), chunk=chunk, slots=slots, **options)
  return [result for result, _ in results]


def test_plans_see_the_counts_of_a_loop_over_their_items():
  found = looks()
  assert len({len(rounds) for rounds in found}) > 2, 'the plans end at different looks'
  for i, rounds in enumerate(found):
    key = jax.random.fold_in(jax.random.fold_in(KEY, certify.ESTIMATION), i)
    draw = lambda j, key=key, i=i: NOISE.sample(jax.random.fold_in(key, j), X[i])
    noisy = jax.vmap(draw)(jnp.arange(143))
    label = np.asarray(jnp.argmax(model_fn(noisy), axis=1))
    begin = 0
    for size, counts in rounds:
      expected = np.bincount(label[begin : begin + size], minlength=2)
      np.testing.assert_array_equal(counts, expected)
      begin += size


@pytest.mark.parametrize('chunk, slots', [(16, 1), (16, 2), (1, 3), (7, 64), (400, 5)])
def test_no_schedule_changes_a_result(chunk, slots):
  assert looks(chunk=chunk, slots=slots) == looks()


def test_order_and_waves_do_not_matter(monkeypatch):
  order = [4, 8, 0, 2, 6, 1, 3, 5, 7]
  full = looks()
  assert looks(order) == [full[i] for i in order]
  monkeypatch.setattr(_engine, '_next_wave', lambda chunks, seconds: 1)
  monkeypatch.setattr(_engine, '_UNDER_WAY', 1)
  assert looks() == full


def test_images_are_read_as_slots_come_free_and_results_come_in_order():
  read = []

  def stream():
    for item in work():
      read.append(item.index)
      yield item

  seen = []
  for result, seconds in certify.run(program(), stream(), chunk=16, slots=2):
    seen.append(len(read))
    assert seconds > 0 and result
  assert seen[0] < 9, 'the first result came before the last image was read'
  assert seen == sorted(seen) and len(seen) == 9


def test_the_batch_is_full_while_there_is_work(monkeypatch):
  """Of what the device runs, at most the last chunk and the waits at the end are padding."""
  sizes = []
  cut = _engine._Queue.cut

  def spy(self, wave, step, *, ragged):
    segments = cut(self, wave, step, ragged=ragged)
    sizes.append(sum(segment.size for segment in segments))
    return segments

  monkeypatch.setattr(_engine._Queue, 'cut', spy)
  plans = [certify.once((certify.ESTIMATION, 1000)) for _ in X]
  items = [certify.Work(x, i, plan) for i, (x, plan) in enumerate(zip(X, plans, strict=True))]
  assert len(list(certify.run(program(64), items, chunk=64, slots=2))) == 9
  whole = [size for size in sizes if size]
  assert sum(whole) == 9000
  assert collections.Counter(size % 64 == 0 for size in whole)[False] == 1


def test_a_slow_image_holds_back_a_bounded_number_of_others():
  begun = []

  def slow():
    for _ in range(400):
      yield [(certify.ESTIMATION, 50)]

  def quick(i):
    begun.append(i)
    yield [(certify.ESTIMATION, 1)]

  stream = (certify.Work(X[0], i, slow() if i == 0 else quick(i)) for i in range(100))
  results = certify.run(program(), stream, chunk=16, slots=3)
  next(results)
  assert len(begun) <= 1 + 3 * (_engine._AHEAD + 1)
  assert len(list(results)) == 99


def test_an_error_of_a_plan_and_bad_sizes_are_raised():
  def broken():
    yield [(certify.ESTIMATION, 1)]
    raise OSError('the disk is full')

  with pytest.raises(OSError, match='disk is full'):
    list(certify.run(program(), [certify.Work(X[0], 0, broken())], chunk=16))
  with pytest.raises(ValueError, match='must be at least 1, got 16 and 0'):
    looks(slots=0)
  assert list(certify.run(program(), [], chunk=16)) == []
