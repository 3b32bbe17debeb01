"""Data parallelism: one mesh axis, per-replica functions, `lax.pmean`.

The same program runs on one CPU, eight chips, or several hosts: `pmap` maps a per-replica
function over the axis with `jax.jit(jax.shard_map(...))`. `check_vma=False` is not optional:
with the check, JAX sums the gradient over the axis by itself, and the explicit
`lax.pmean` then yields the gradient times the number of devices.

Several processes (`initialize`) each hold their own rows of a batch and a copy of all weights. Only
training does this: certification stays on `local_mesh()`, and never waits for a peer.
"""

import contextlib
import os
import sys
import threading

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = 'data'
"""Name of the one mesh axis; per-replica functions reduce over it."""

REPLICATED = PartitionSpec()
SHARDED = PartitionSpec(AXIS)

AUTO = 'auto'
"""The coordinator that `jax.distributed` finds by itself."""
_HEARTBEAT_SECONDS = 60  # JAX's 100 s are long to wait for a peer that is dead.
_JOIN_SECONDS = 300
_LEAVE_SECONDS = 5.0


def initialize(coordinator=None, num_processes=None, process_id=None):
  """Joins this process to the others of a training run; to be called before any other use of JAX.

  Without arguments: under Slurm's `srun` and Open MPI with several tasks, on GKE's TPU slices, and
  where `JAX_COORDINATOR_ADDRESS` is set, `jax.distributed` finds all three; elsewhere nothing
  happens. (Slurm and Open MPI get one GPU a task, as `jax.distributed` has it.) CPU devices talk
  through gloo.

  A process that dies takes the others with it, since they would wait for it for ever:
  `jax.distributed` ends them with a message, at once if it was process 0, else after 60 s without a
  heartbeat.

  Args:
    coordinator: HOST:PORT of process 0, or 'auto' to look for a cluster in every way that JAX knows
      (on a Cloud TPU pod: the metadata server).
    num_processes: how many there are; 1 does nothing, also under Slurm.
    process_id: which one this is, 0 .. num_processes - 1.

  Raises:
    ValueError: if an argument is missing or out of range, or no cluster is found.
    OSError: if the others cannot be reached.

  Example:
    >>> initialize('localhost', num_processes=2, process_id=0)
    Traceback (most recent call last):
    ...
    ValueError: `coordinator` must be HOST:PORT of process 0, got 'localhost'.
    >>> initialize('localhost:1234', num_processes=2, process_id=2)
    Traceback (most recent call last):
    ...
    ValueError: `process_id` must lie in 0 .. 1, got 2.
  """
  if num_processes == 1 and process_id in (None, 0):
    return
  found = _several_are_started() if coordinator is None else coordinator == AUTO
  if not found and (coordinator, num_processes, process_id) == (None, None, None):
    return
  _check_processes(coordinator, num_processes, process_id, found)
  address = None if coordinator == AUTO else coordinator
  try:
    jax.distributed.initialize(
      address, num_processes, process_id, initialization_timeout=_JOIN_SECONDS,
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      # All devices of each process, where Slurm is not asked.
      cluster_detection_method=None if found else 'deactivate',
    )  # fmt: skip
  except ValueError as error:
    raise ValueError(
      f'`jax.distributed` finds no cluster ({error}): give `coordinator` as HOST:PORT, '
      f'`num_processes` and `process_id`; for a single process `num_processes`=1.'
    ) from error
  except RuntimeError as error:
    reason = (str(error).strip().splitlines() or [repr(error)])[0]
    raise OSError(
      f'cannot join the other processes at {address or "the coordinator"} ({reason}): start all of '
      f'them within {_JOIN_SECONDS} s, and keep the port of process 0 open and free.'
    ) from error


def leave(code):
  """Ends a process that failed among several with exit code `code`; for `atexit`.

  JAX itself waits 5 minutes at exit for all processes to come. Those that fail for one and the same
  reason do meet here; the others are not waited for.

  Args:
    code: int, of the process.

  Example:
    >>> leave(2)  # One process: nothing to leave.
  """
  if jax.distributed.is_initialized():
    together = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    together.start()
    together.join(_LEAVE_SECONDS)
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError):  # A pipe that nobody reads any more.
        stream.flush()
    os._exit(code)


def is_main() -> bool:
  """Whether this is process 0, the one that writes metrics and talks.

  Example:
    >>> is_main()
    True
  """
  return jax.process_index() == 0


def preempted(step) -> bool:
  """Whether all processes stop after `step`, because SIGTERM came to one of them.

  To be asked by every process after every step. Always False in a single process, whose handler of
  SIGTERM is its own affair.

  Args:
    step: int, the same in all processes.

  Example:
    >>> preempted(100)
    False
  """
  if not jax.distributed.is_initialized():
    return False
  from jax.experimental import multihost_utils

  return bool(multihost_utils.reached_preemption_sync_point(step))


def gather(text) -> list[str]:
  """The `text` of every process, by process index; all of them must ask.

  Args:
    text: str.

  Returns:
    A list of str, one a process.

  Example:
    >>> gather('ready')
    ['ready']
  """
  if jax.process_count() == 1:
    return [text]
  from jax.experimental import multihost_utils

  own = np.frombuffer(text.encode(), np.uint8)
  lengths = np.asarray(multihost_utils.process_allgather(np.array([len(own)], np.int32))).ravel()
  padded = np.zeros(max(lengths), np.uint8)
  padded[: len(own)] = own
  rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
  return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


@contextlib.contextmanager
def together():
  """A block that all processes leave alike: the ValueError or OSError of one is raised by all.

  Yields:
    Nothing.

  Raises:
    ValueError: if the block of another process raised, with its number.

  Example:
    >>> with together():
    ...   raise ValueError('the file is damaged.')
    Traceback (most recent call last):
    ...
    ValueError: the file is damaged.
  """
  error = None
  try:
    yield
  except (ValueError, OSError) as caught:
    error = caught
  texts = gather('' if error is None else str(error) or repr(error))
  if error is not None:
    raise error
  for process, text in enumerate(texts):
    if text:
      raise ValueError(f'process {process} says: {text}')


def _several_are_started():
  """Whether the environment tells of several processes, in a way that `jax.distributed` reads."""
  environ = os.environ
  count = lambda name: int(value) if (value := environ.get(name, '')).isdigit() else 1
  slurm = all(name in environ for name in ('SLURM_STEP_NODELIST', 'SLURM_PROCID'))
  return (
    (slurm and count('SLURM_NTASKS') > 1)
    or count('OMPI_COMM_WORLD_SIZE') > 1
    or ',' in environ.get('TPU_WORKER_HOSTNAMES', '')
    or 'JAX_COORDINATOR_ADDRESS' in environ
  )


def _check_processes(coordinator, num_processes, process_id, found):
  if num_processes is not None and num_processes < 1:
    raise ValueError(f'`num_processes` must be at least 1, got {num_processes}.')
  if process_id is not None and not 0 <= process_id < (num_processes or process_id + 1):
    most = 'num_processes - 1' if num_processes is None else num_processes - 1
    raise ValueError(f'`process_id` must lie in 0 .. {most}, got {process_id}.')
  if coordinator not in (None, AUTO) and not coordinator.rpartition(':')[2].isdigit():
    raise ValueError(f'`coordinator` must be HOST:PORT of process 0, got {coordinator!r}.')
  given = {'coordinator': coordinator, 'num_processes': num_processes, 'process_id': process_id}
  missing = [f'`{name}`' for name, value in given.items() if value is None]
  if missing and not found:
    raise ValueError(
      f'`coordinator`, `num_processes` and `process_id` go together, but {" and ".join(missing)} '
      f'is missing: give all three, or start the processes with `srun`.'
    )


def data_mesh(devices=None) -> Mesh:
  """A one-dimensional mesh over `devices` (default: all devices of all processes).

  Example:
    >>> data_mesh().axis_names
    ('data',)
  """
  devices = jax.devices() if devices is None else list(devices)
  return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def local_mesh() -> Mesh:
  """A mesh over the devices of this process alone: certification never waits for a peer.

  Example:
    >>> local_mesh().axis_names
    ('data',)
  """
  return data_mesh(jax.local_devices())


def replicate(mesh: Mesh, tree):
  """Copies every leaf of `tree` to all devices of `mesh`; every process must hold the same tree.

  Args:
    mesh: from `data_mesh`.
    tree: of arrays.

  Returns:
    The tree of `jax.Array`.

  Example:
    >>> replicate(local_mesh(), {'w': np.ones(3, np.float32)})['w'].is_fully_replicated
    True
  """
  sharding = NamedSharding(mesh, REPLICATED)
  if sharding.is_fully_addressable:
    return jax.device_put(tree, sharding)

  def place(leaf):
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
      return leaf
    leaf = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)  # Typed keys stay such.
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

  return jax.tree.map(place, tree)


def local_rows(mesh: Mesh, batch_size):
  """int64[...], ascending: the rows of a batch that lie on this process's devices of `mesh`.

  Args:
    mesh: from `data_mesh`.
    batch_size: rows of the batch of all processes.

  Returns:
    int64[R].

  Raises:
    ValueError: if `batch_size` is not a multiple of the number of devices.

  Example:
    >>> local_rows(local_mesh(), 8 * jax.local_device_count()).size == 8 * jax.local_device_count()
    True
  """
  size = mesh.devices.size
  if batch_size % size:
    raise ValueError(
      f'the batch must divide evenly over the devices: got batch={batch_size} for '
      f'{size} devices; choose a multiple of {size}.'
    )
  own = [device.process_index == jax.process_index() for device in mesh.devices.flat]
  return np.flatnonzero(np.repeat(own, batch_size // size))


def shard_batch(mesh: Mesh, tree):
  """Splits the leading axis of every leaf over `mesh`.

  Of several processes each hands in its own rows only, those of `local_rows`; the result is the one
  array of all rows.

  Args:
    mesh: from `data_mesh`.
    tree: of arrays whose leading axis is the batch.

  Returns:
    The tree of `jax.Array`.

  Raises:
    ValueError: if a leading axis is not a multiple of the number of (this process's) devices.

  Example:
    >>> shard_batch(data_mesh(jax.devices()[:1]), np.arange(4)).shape
    (4,)
  """
  size = len(mesh.local_devices)
  for leaf in jax.tree.leaves(tree):
    if np.shape(leaf)[0] % size:
      raise ValueError(
        f'the batch must divide evenly over the devices: got batch={np.shape(leaf)[0]} for '
        f'{size} devices; choose a multiple of {size}.'
      )
  sharding = NamedSharding(mesh, SHARDED)
  if sharding.is_fully_addressable:
    return jax.device_put(tree, sharding)

  def place(leaf):
    batch_size = len(leaf) // size * mesh.devices.size
    rows = local_rows(mesh, batch_size)

    def part(index):
      begin, end = np.searchsorted(rows, index[0].indices(batch_size)[:2])
      return leaf[begin:end]

    return jax.make_array_from_callback((batch_size, *np.shape(leaf)[1:]), sharding, part)

  return jax.tree.map(place, tree)


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

  Example:
    >>> mesh = data_mesh(jax.devices()[:1])
    >>> mean = pmap(lambda x: jax.lax.pmean(x.mean(), AXIS), mesh, (SHARDED,), REPLICATED)
    >>> float(mean(np.array([1.0, 2.0], np.float32)))
    1.5
  """
  mapped = jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
  return jax.jit(mapped, donate_argnums=donate_argnums)


@contextlib.contextmanager
def x64():
  """Enables float64 inside the block, on every supported version of JAX.

  Yields:
    Nothing.

  Example:
    >>> with x64():
    ...   print(jax.numpy.asarray(0.1).dtype)
    float64
  """
  if hasattr(jax, 'enable_x64'):
    with jax.enable_x64(True):
      yield
  else:  # jax < 0.8 keeps it among the experimental names.
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue] # Then.

    with enable_x64():
      yield
