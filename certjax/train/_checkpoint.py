"""Orbax checkpoints: written atomically, restored onto any number of devices."""

import pathlib

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
  """
  with _manager(directory, keep) as manager:
    tree = state._asdict()
    manager.save(int(state.step), args=ocp.args.StandardSave(jax.tree.map(np.asarray, tree)))
    manager.wait_until_finished()


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
    with _manager(directory, None) as manager:
      return jax.tree.map(np.asarray, manager.restore(step, args=args))
  except Exception as error:  # Orbax, tensorstore and msgpack share no exception class.
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
    raise ValueError(
      f'{where} cannot be read ({reason}): delete that folder to fall back on an older one, or '
      f'train again.'
    ) from error


def _manager(directory, keep):
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
  return ocp.CheckpointManager(pathlib.Path(directory).absolute(), options=options)
