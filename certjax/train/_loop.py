"""The training loop: batches in, a trained state out; progress goes to callbacks."""

import jax

from certjax import parallel


def fit(
  step, state, batches, *, key, mesh, log_every=50, save_every=None, on_log=None, on_save=None,
  stopped=None,
):  # fmt: skip
  """Runs a training step over an iterator of batches.

  Args:
    step: per-replica step of `make_step`; the arrays of a `jax.tree_util.Partial` are arguments of the
      compiled step.
    state: a `TrainState`; its `step` is where the run stands.
    batches: iterator of {'x', 'y', 'index'} that starts at that step; of several processes, each
      has its own rows (`parallel.local_rows`).
    key: root key of the run.
    mesh: from `parallel.data_mesh`; the batch must divide evenly over it.
    log_every: `on_log(step, metrics)` is called at multiples of it, with the means since the
      last call; the host waits for the device only then.
    save_every: `on_save(state)` is called at multiples of it, and at the end; `on_log` comes
      just before it, so that a resumed run logs what an uninterrupted one does.
    on_log, on_save: callbacks.
    stopped: asked as `stopped(step)` after every step; if it says so, the run saves and ends there.

  Returns:
    The last `TrainState`.

  Example:
    >>> import numpy as np
    >>> from certjax.train import TrainState
    >>> step = lambda state, key, batch: (state._replace(step=state.step + 1), {'mean': batch['x'].mean()})
    >>> state, mesh = TrainState(np.int32(0), {}, {}, {}), parallel.data_mesh(jax.devices()[:1])
    >>> batches = [{'x': np.full(4, number, np.float32)} for number in range(3)]
    >>> log = lambda step, metrics: print(step, float(metrics['mean']))
    >>> state = fit(step, state, batches, key=jax.random.key(1), mesh=mesh, on_log=log)
    3 1.0
    >>> int(state.step)
    3
  """
  step = step if isinstance(step, jax.tree_util.Partial) else jax.tree_util.Partial(step)
  specs = (parallel.REPLICATED, parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED)
  compiled = parallel.pmap(
    _call, mesh, specs, (parallel.REPLICATED, parallel.REPLICATED), donate_argnums=(1,)
  )
  done = saved = int(state.step)
  step, state, key = parallel.replicate(mesh, (step, state, key))
  window = []
  for batch in batches:
    state, metrics = compiled(step, state, key, parallel.shard_batch(mesh, batch))
    done, window = done + 1, [*window, metrics]
    save = save_every is not None and done % save_every == 0
    if save or done % log_every == 0:
      window = _log(on_log, done, window)
    if save and on_save:
      on_save(state)
      saved = done
    if stopped and stopped(done):
      break
  if window:
    _log(on_log, done, window)
  if on_save and done != saved:
    on_save(state)
  return state


def _call(step, state, key, batch):
  return step(state, key, batch)


def _log(on_log, step, window):
  """Reports the means of a window of metrics; the next one starts empty."""
  if on_log:
    values = jax.device_get(window)
    on_log(step, {name: sum(v[name] for v in values) / len(values) for name in values[0]})
  return []
