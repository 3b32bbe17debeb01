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


def restore(directory, template, *, step=None):
  """Reads a checkpoint back.

  Args:
    directory: folder of the run's checkpoints.
    template: a `TrainState` of the same shapes (arrays or `jax.ShapeDtypeStruct`).
    step: which one; default the newest.

  Returns:
    A `TrainState` of numpy arrays: `parallel.replicate` puts it on devices.

  Raises:
    ValueError: if there is none, it is corrupt, or its shapes are not the template's.
  """
  step = latest_step(directory) if step is None else step
  if step is None:
    raise ValueError(f'no checkpoint in {directory}: run `certjax train` there first.')
  shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template._asdict())
  try:
    with _manager(directory, None) as manager:
      tree = manager.restore(step, args=ocp.args.StandardRestore(shapes))
  except Exception as error:  # Orbax, tensorstore and msgpack share no exception class.
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
    raise ValueError(
      f'the checkpoint of step {step} in {directory} cannot be read ({reason}): delete that '
      f'folder to fall back on an older one, or train again.'
    ) from error
  for path, leaf in jax.tree.leaves_with_path(tree):
    if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
      raise ValueError(
        f'the checkpoint of step {step} in {directory} holds a NaN or inf in '
        f'{jax.tree_util.keystr(path)}: training diverged; lower the learning rate.'
      )
  return type(template)(**tree)


def _manager(directory, keep):
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
  return ocp.CheckpointManager(pathlib.Path(directory).absolute(), options=options)
