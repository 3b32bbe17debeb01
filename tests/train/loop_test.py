"""When the loop logs and saves, and what it hands over."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from certjax import parallel, train


def counting_step(state, key, batch):
  """A step whose metric is its number, and whose weight counts the steps."""
  step = state.step + 1
  return state._replace(step=step, params=state.params + 1.0), {'n': step.astype(jnp.float32)}


def fit(num_steps, *, start=0, **options):
  """(logged, saved, state) of a run from step `start` to `num_steps`."""
  logged, saved = [], []
  state = train.TrainState(jnp.int32(start), jnp.float32(start), {}, ())
  batch = {'x': np.zeros((2, 1), np.float32)}
  state = train.fit(
    counting_step, state, [batch] * (num_steps - start), key=jax.random.key(0),
    mesh=parallel.data_mesh(jax.devices()[:1]),
    on_log=lambda step, metrics: logged.append((step, float(metrics['n']))),
    on_save=lambda state: saved.append((int(state.step), float(state.params))), **options,
  )  # fmt: skip
  return logged, saved, state


def test_logs_are_means_over_their_window():
  logged, saved, state = fit(7, log_every=3)
  assert logged == [(3, 2.0), (6, 5.0), (7, 7.0)]
  assert saved == [(7, 7.0)] and int(state.step) == 7


def test_saves_come_in_time_and_once_at_the_end():
  logged, saved, _ = fit(8, log_every=100, save_every=4)
  assert saved == [(4, 4.0), (8, 8.0)]
  assert fit(9, log_every=100, save_every=4)[1] == [(4, 4.0), (8, 8.0), (9, 9.0)]


def test_a_run_continued_at_any_checkpoint_logs_what_it_would_have_logged():
  """Also where a checkpoint falls between two logged steps."""
  whole, saved, _ = fit(20, log_every=5, save_every=3)
  for start, _ in saved[:-1]:
    resumed, _, _ = fit(20, start=start, log_every=5, save_every=3)
    assert [line for line in whole if line[0] <= start] + resumed == whole


def test_no_batches_change_nothing():
  logged, saved, state = fit(5, start=5, log_every=1, save_every=1)
  assert (logged, saved, int(state.step)) == ([], [], 5)


def test_callbacks_are_optional():
  state = train.TrainState(jnp.int32(0), jnp.float32(0), {}, optax.EmptyState())
  state = train.fit(
    counting_step, state, [{'x': np.zeros((2, 1), np.float32)}] * 3, key=jax.random.key(0),
    mesh=parallel.data_mesh(jax.devices()[:1]), log_every=1, save_every=1,
  )  # fmt: skip
  assert int(state.step) == 3
