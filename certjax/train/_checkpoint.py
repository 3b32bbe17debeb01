"""Orbax checkpoints: written atomically, restored onto any number of devices and processes.

Several processes save together (Orbax's barriers keep them in step; process 0 holds the pen, since
all have the same weights) in a directory that all of them see, and read each for itself.

The state's SHA-256 is stored beside it, since the array files have no checksum of their own: junk
in the middle of one would come back as weights.
"""

import contextlib
import logging
import pathlib
import signal
import sys
import threading

import jax
import numpy as np
import orbax.checkpoint as ocp

from certjax import parallel, records
from certjax.layers import SPECTRAL

_DIGEST, _DIGEST_SIZE = 'sha256', 32


def save(directory, state, *, keep=2):
  """Writes `state` as the checkpoint of its step; older ones beyond `keep` are removed.

  Orbax writes into a temporary folder and renames it, so a killed save leaves the checkpoint
  before it untouched.

  Args:
    directory: folder of the run's checkpoints.
    state: a `TrainState`; every process passes the same.
    keep: how many checkpoints stay.

  Raises:
    OSError: if it cannot be written.

  Example:
    >>> import tempfile
    >>> from certjax import train
    >>> state = train.TrainState(np.int32(7), {'w': np.ones(2, np.float32)}, {}, {})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   save(folder, state)
    ...   latest_step(folder), restore(folder, state).params
    (7, {'w': array([1., 1.], dtype=float32)})
  """
  tree, step = jax.tree.map(np.asarray, _tree(state)), int(state.step)
  digest = _digest(tree) if parallel.is_main() else np.zeros(_DIGEST_SIZE, np.uint8)
  try:
    with _orbax(), _manager(directory, keep) as manager:
      if not manager.save(step, args=ocp.args.StandardSave({**tree, _DIGEST: digest})):
        raise OSError(f'{step} is there already')
      manager.wait_until_finished()
  except Exception as error:  # Orbax and tensorstore share no exception class.
    raise OSError(
      f'cannot write the checkpoint of step {step} into {directory} ({_reason(error)}): the one '
      f'before it is intact, the same command continues there.'
    ) from error


def latest_step(directory) -> int | None:
  """The step of the newest finished checkpoint, None where there is none.

  Args:
    directory: folder of the run's checkpoints.

  Example:
    >>> latest_step('nowhere') is None
    True
  """
  if not pathlib.Path(directory).is_dir():
    return None
  with _orbax(), _manager(directory, None) as manager:
    return manager.latest_step()


def restore(directory, template=None, *, step=None):
  """Reads a checkpoint back.

  Args:
    directory: folder of the run's checkpoints.
    template: a `TrainState` whose structure the result takes; None gives nested dicts.
    step: which one; default the newest.

  Returns:
    A `TrainState` (or dicts) of numpy arrays, free of the devices it was saved from:
    `parallel.replicate` puts it on others.

  Raises:
    ValueError: if there is none, it is corrupt, holds a NaN, or does not fit the template.

  Example:
    >>> restore('nowhere')
    Traceback (most recent call last):
    ...
    ValueError: no checkpoint in nowhere: run `certjax train` there first.
  """
  step = latest_step(directory) if step is None else step
  if step is None:
    raise ValueError(f'no checkpoint in {directory}: run `certjax train` there first.')
  where = f'the checkpoint of step {step} in {directory}'
  tree = _read(directory, step, template, where)
  if not np.array_equal(tree.pop(_DIGEST, None), _digest(tree)):
    raise ValueError(_unreadable(where, step, 'its checksum does not fit'))
  _check_finite(tree, where)
  if template is not None and _shapes(tree) != _shapes(_tree(template)):
    raise ValueError(f'{where} is of another architecture: use another --out.')
  return tree if template is None else type(template)(**tree)


def _tree(state):
  """The fields of a state; no `spectral` where it is empty, as in checkpoints of before."""
  return {name: tree for name, tree in state._asdict().items() if name != SPECTRAL or tree}


def _digest(tree):
  """uint8[32] of the leaves by name: an optimiser's tuples may come back from disk as dicts."""
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  leaves = {name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
  return np.frombuffer(bytes.fromhex(records.fingerprint(leaves)), np.uint8)


def _shapes(tree):
  return jax.tree.map(np.shape, tree)


def _check_finite(tree, where):
  for path, leaf in jax.tree.leaves_with_path(tree):
    if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
      raise ValueError(
        f'{where} holds a NaN or inf in {jax.tree_util.keystr(path)}: training diverged; lower '
        f'the learning rate.'
      )


def _read(directory, step, template, where):
  if template is None:
    args = ocp.args.StandardRestore()
  else:
    like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), _tree(template))
    args = ocp.args.StandardRestore({**like, _DIGEST: np.empty(_DIGEST_SIZE, np.uint8)})
  try:
    with _orbax(), _manager(directory, None) as manager:
      return jax.tree.map(np.asarray, manager.restore(step, args=args))
  except Exception as error:
    raise ValueError(_unreadable(where, step, _reason(error))) from error


def _unreadable(where, step, reason):
  return (
    f'{where} cannot be read ({reason}): delete the folder {step} to fall back on an older one, or '
    f'train again.'
  )


def _reason(error):
  """The first line of an exception's text; the cause stands at its end, so the middle goes."""
  text = (str(error).strip().splitlines() or [repr(error)])[0]
  return text if len(text) <= 200 else f'{text[:100]} ... {text[-100:]}'


@contextlib.contextmanager
def _orbax():
  """Orbax at work: no log lines of its threads beside the exception that tells of an error, and
  Ctrl-C or SIGTERM wait until it has finished, since its event loops break under them."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    with _signals_wait():
      yield
  except Exception:
    _ignore_late_reads()
    raise
  finally:
    logger.setLevel(level)


@contextlib.contextmanager
def _signals_wait():
  if threading.current_thread() is not threading.main_thread():
    yield  # Signals go to the main thread only.
    return
  late = []
  waiting = [signal.SIGINT, signal.SIGTERM]
  if jax.distributed.is_initialized():
    waiting.remove(signal.SIGTERM)  # JAX's handler: Python can neither see nor restore it.
  before = {number: signal.getsignal(number) for number in waiting}
  before = {number: handler for number, handler in before.items() if callable(handler)}
  for number in before:
    signal.signal(number, lambda number, frame: late.append(number))
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
    for number in late[:1]:
      signal.raise_signal(number)


def _ignore_late_reads():
  """Tensorstore finishes other reads after one has failed, and finds their event loop closed."""
  before = sys.unraisablehook

  def hook(unraisable):
    late = isinstance(unraisable.exc_value, RuntimeError) and unraisable.object is None
    if not (late and 'Event loop is closed' in str(unraisable.exc_value)):
      before(unraisable)

  sys.unraisablehook = hook


def _manager(directory, keep):
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
  if keep is None and jax.process_count() > 1:  # Reading: no barrier, the others may not be here.
    options.create = False
    options.multiprocessing_options = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
  return ocp.CheckpointManager(pathlib.Path(directory).absolute(), options=options)
