"""Orbax checkpoints: written atomically, restored onto any number of devices."""

import contextlib
import logging
import pathlib
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp


def save(directory, state, *, keep=2):
  """Writes `state` as the checkpoint of its step; older ones beyond `keep` are removed.

  Orbax writes into a temporary folder and renames it, so a killed save leaves the checkpoint
  before it untouched.

  Args:
    directory: folder of the run's checkpoints.
    state: a `TrainState`.
    keep: how many checkpoints stay.

  Raises:
    OSError: if it cannot be written.
  """
  tree, step = jax.tree.map(np.asarray, state._asdict()), int(state.step)
  try:
    with _quiet(), _manager(directory, keep) as manager:
      manager.save(step, args=ocp.args.StandardSave(tree))
      manager.wait_until_finished()
  except Exception as error:  # Orbax and tensorstore share no exception class.
    raise OSError(
      f'cannot write the checkpoint of step {step} into {directory} ({_reason(error)}): the one '
      f'before it is intact, the same command continues there.'
    ) from error


def latest_step(directory) -> int | None:
  """The step of the newest finished checkpoint, None where there is none."""
  if not pathlib.Path(directory).is_dir():
    return None
  with _manager(directory, None) as manager:
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
  """
  step = latest_step(directory) if step is None else step
  if step is None:
    raise ValueError(f'no checkpoint in {directory}: run `certjax train` there first.')
  where = f'the checkpoint of step {step} in {directory}'
  tree = _read(directory, step, template, where)
  for path, leaf in jax.tree.leaves_with_path(tree):
    if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
      raise ValueError(
        f'{where} holds a NaN or inf in {jax.tree_util.keystr(path)}: training diverged; lower '
        f'the learning rate.'
      )
  return tree if template is None else type(template)(**tree)


def _read(directory, step, template, where):
  if template is None:
    args = ocp.args.StandardRestore()
  else:
    shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template._asdict())
    args = ocp.args.StandardRestore(shapes)
  try:
    with _quiet(), _manager(directory, None) as manager:
      return jax.tree.map(np.asarray, manager.restore(step, args=args))
  except Exception as error:
    raise ValueError(
      f'{where} cannot be read ({_reason(error)}): delete the folder {step} to fall back on an '
      f'older one, or train again.'
    ) from error


def _reason(error):
  """The first line of an exception's text; the cause stands at its end, so the middle goes."""
  text = (str(error).strip().splitlines() or [repr(error)])[0]
  return text if len(text) <= 200 else f'{text[:100]} ... {text[-100:]}'


@contextlib.contextmanager
def _quiet():
  """An error comes as one exception, without the log lines of Orbax's threads."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    yield
  except Exception:
    _ignore_late_reads()
    raise
  finally:
    logger.setLevel(level)


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
  return ocp.CheckpointManager(pathlib.Path(directory).absolute(), options=options)
