"""The device side of the engine: images in slots, and the compiled count of a wave of items."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax import parallel
from certjax.certify._program import Outside, logits_of


class Device:
  """Images, keys and weights on the devices, and the compiled program."""

  def __init__(self, program, example, chunk, mesh, slots):
    self._mesh, self._slots, self._bins = mesh, slots, tuple(program.bins)
    self._replicate = functools.partial(parallel.replicate, mesh)
    model_fn, *others = program.model_fn, program.perturb, program.tally, program.keys
    self._outside = isinstance(model_fn, Outside)
    model_fn = model_fn if self._outside else self._replicate(model_fn)
    self._parts = model_fn, *self._replicate(others)
    image = np.asarray(example.image)
    numbers = np.zeros(slots, np.uint32), np.zeros(slots, np.int32)
    self._images = self._replicate((np.zeros((slots, *image.shape), np.float32), *numbers))
    self._turn, self._chunk = self._replicate(np.int32(0)), chunk

  def load(self, slot, work):
    image = np.asarray(work.image, np.float32), np.uint32(work.index), np.int32(work.extra)
    self._images = _load(self._images, self._replicate(image), np.int32(slot))

  def count(self, segments):
    """Dispatches a wave: int32[2 slots, *bins], row m of segment m, not ready yet."""
    size = 2 * self._slots
    table = np.zeros((4, size), np.int32)
    sizes = [segment.size for segment in segments]
    for m, (request, first, _) in enumerate(segments):
      table[:3, m] = request.image.slot, request.purpose, first
    table[3] = np.concatenate([np.cumsum(sizes), np.full(size - len(sizes), sum(sizes))])
    sizes = {'chunk': self._chunk, 'bins': self._bins}
    if self._outside:
      return _count_outside(self._parts, self._images, table, **sizes)
    counts, self._turn = _count(
      self._parts, self._images, table, self._turn, mesh=self._mesh, **sizes
    )
    return counts


@jax.jit
def _load(images, image, slot):
  return jax.tree.map(lambda all, one: all.at[slot].set(one), images, image)


@functools.partial(jax.jit, static_argnames=('mesh', 'chunk', 'bins'))
def _count(parts, images, table, turn, *, mesh, chunk, bins):
  """Counts of one wave. `turn` makes it wait for the wave before: collectives of two programs at
  once can block each other on CPU."""
  replica = functools.partial(_count_replica, chunk=chunk, bins=bins)
  specs = (parallel.REPLICATED,) * 3
  counts = parallel.pmap(replica, mesh, specs, parallel.REPLICATED)(parts, images, table)
  return counts, turn + 1


def _count_replica(parts, images, table, *, chunk, bins):
  model_fn, perturb, tally, keys = parts
  num_items = table[3, -1]
  num_devices = lax.axis_size(parallel.AXIS)
  start = chunk * lax.axis_index(parallel.AXIS)
  steps = (num_items + chunk * num_devices - 1) // (chunk * num_devices)
  items = functools.partial(_items, keys, images, table, chunk=chunk)

  def add_chunk(step, counts):
    row, number, item_keys, x, extra = items(start + step * chunk * num_devices)
    logits = logits_of(model_fn, perturb, item_keys, number, x)
    return tally(counts, row, number, logits, extra)

  counts = jnp.zeros((table.shape[1], *bins), jnp.int32)
  return lax.psum(lax.fori_loop(0, steps, add_chunk, counts), parallel.AXIS)


def _items(keys, images, table, start, *, chunk):
  """Of the items start .. start + chunk - 1: segment (too large for padding), number, key, image,
  extra."""
  x, index, extra = images
  slot, purpose, first, end = table
  begin = jnp.concatenate([jnp.zeros(1, jnp.int32), end[:-1]])
  image_keys = jax.vmap(jax.random.fold_in)(keys[purpose], index[slot])
  item = start + jnp.arange(chunk, dtype=jnp.int32)
  segment = jnp.searchsorted(end, item, side='right').astype(jnp.int32)
  row = jnp.minimum(segment, len(end) - 1)
  return segment, first[row] + item - begin[row], image_keys[row], x[slot[row]], extra[slot[row]]


def _count_outside(parts, images, table, *, chunk, bins):
  """The same counts with a model on the host: chunk by chunk, noise there, logits back."""
  model_fn, perturb, tally, keys = parts
  counts = jnp.zeros((table.shape[1], *bins), jnp.int32)
  for start in range(0, int(table[3, -1]), chunk):
    noisy = _perturbed(perturb, keys, images, table, np.int32(start), chunk=chunk)
    logits = model_fn(np.asarray(noisy))
    counts = _tallied(tally, counts, keys, images, table, np.int32(start), logits)
  return counts


@functools.partial(jax.jit, static_argnames='chunk')
def _perturbed(perturb, keys, images, table, start, *, chunk):
  _, number, item_keys, x, _ = _items(keys, images, table, start, chunk=chunk)
  return jax.vmap(perturb)(item_keys, number, x)


@jax.jit
def _tallied(tally, counts, keys, images, table, start, logits):
  row, number, _, _, extra = _items(keys, images, table, start, chunk=len(logits))
  return tally(counts, row, number, logits, extra)
