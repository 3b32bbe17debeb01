"""Data parallelism: one mesh axis, per-replica functions, `lax.pmean`.

The same program runs on one CPU, eight chips, or several hosts: `pmap` maps a per-replica
function over the axis with `jax.jit(jax.shard_map(...))`. `check_vma=False` is not optional:
with the check, JAX sums the gradient over the axis by itself, and the explicit
`lax.pmean` then yields the gradient times the number of devices.
"""

import contextlib

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = 'data'
"""Name of the one mesh axis; per-replica functions reduce over it."""

REPLICATED = PartitionSpec()
SHARDED = PartitionSpec(AXIS)


def data_mesh(devices=None) -> Mesh:
  """A one-dimensional mesh over `devices` (default: all devices of all processes).

  Example:
    >>> data_mesh().axis_names
    ('data',)
  """
  devices = jax.devices() if devices is None else list(devices)
  return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def local_mesh() -> Mesh:
  """A mesh over the devices of this process alone: certification never waits for a peer."""
  return data_mesh(jax.local_devices())


def replicate(mesh: Mesh, tree):
  """Copies every leaf of `tree` to all devices of `mesh`."""
  return jax.device_put(tree, NamedSharding(mesh, REPLICATED))


def shard_batch(mesh: Mesh, tree):
  """Splits the leading axis of every leaf over `mesh`.

  Raises:
    ValueError: if a leading axis is not a multiple of the number of devices.
  """
  size = mesh.devices.size
  for leaf in jax.tree.leaves(tree):
    if np.shape(leaf)[0] % size:
      raise ValueError(
        f'the batch must divide evenly over the devices: got batch={np.shape(leaf)[0]} for '
        f'{size} devices; choose a multiple of {size}.'
      )
  return jax.device_put(tree, NamedSharding(mesh, SHARDED))


def pmap(fn, mesh: Mesh, in_specs, out_specs, *, donate_argnums=()):
  """Jits a per-replica function over the axis `AXIS` of `mesh`.

  Args:
    fn: per-replica function; it may call `lax.pmean(value, parallel.AXIS)`.
    mesh: from `data_mesh`.
    in_specs: one spec an argument: `REPLICATED` or `SHARDED` (leading axis).
    out_specs: the same for the results; what is `REPLICATED` must be equal on all devices.
    donate_argnums: arguments whose buffers may be reused.

  Returns:
    A jitted function of global arrays.
  """
  mapped = jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
  return jax.jit(mapped, donate_argnums=donate_argnums)


@contextlib.contextmanager
def x64():
  """Enables float64 inside the block, on every supported version of JAX."""
  if hasattr(jax, 'enable_x64'):
    with jax.enable_x64(True):
      yield
  else:  # jax < 0.8 keeps it among the experimental names.
    from jax.experimental import enable_x64

    with enable_x64():
      yield
