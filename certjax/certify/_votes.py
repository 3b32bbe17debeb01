"""Votes of a classifier under noise: drawn and counted on the device.

A work item is a pair (image, sample). Its noise is a function of the root key, the image's
data set index and the sample's number alone, and the model runs at one batch shape, so the
counts are the same bit for bit in whatever order, on however many devices, the items run.
Only int32[B, K] leaves the device; memory does not depend on the number of samples.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax import parallel

_SECONDS_PER_DISPATCH = 0.5  # How long Ctrl-C may have to wait; the votes do not depend on it.
_MAX_STEP = 2**24
_MAX_ITEMS = (
  2**31 - _MAX_STEP
)  # Item numbers are int32, with room for the padding of the last chunk.


def votes(
  key, model_fn, smoothing, x, *, index=None, num_samples, chunk=1000, mesh=None, pad_to=None
):
  """Counts how often each class wins under `num_samples` draws of the noise.

    counts[b, c] = sum_j 1{argmax model_fn(sample(key_bj, x_b)) = c},
    key_bj = fold_in(fold_in(key, index_b), j)

  Ties of logits go to the lowest class. A sample whose logits hold a NaN votes for nobody, so
  the counts of an image may sum to less than `num_samples`: divide by `num_samples`.

  Args:
    key: one typed key.
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`, a function of its rows one by one (BatchNorm
      in evaluation mode). Pass weights as a `jax.tree_util.Partial` (`models.bind`).
    smoothing: a `Smoothing`, or whatever has a `sample` of one image.
    x: float[B, ...], images.
    index: int[B], data set indices; default 0..B-1.
    num_samples: samples an image; not part of the compiled program.
    chunk: rows of the model's batch on each device.
    mesh: default all devices of this process.
    pad_to: images the compiled program holds, at least B: a ragged last group of images
      then runs the program of the others, at no cost for the rows that are missing.

  Returns:
    int32[B, K] on the host.

  Raises:
    ValueError: on an empty batch, a wrong `index`, a non-finite image, a bad `chunk`.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from certjax import smoothing
    >>> model_fn = lambda x: jnp.stack([x[:, 0], -x[:, 0]], axis=1)
    >>> x = jnp.array([[3.0], [-3.0]])
    >>> noise = smoothing.gaussian(sigma=0.5)
    >>> votes(jax.random.key(0), model_fn, noise, x, num_samples=100, chunk=50).tolist()
    [[100, 0], [0, 100]]
  """
  x, index = _check(smoothing, x, index, num_samples, chunk)
  mesh = parallel.local_mesh() if mesh is None else mesh
  model_fn, sample = as_pytree(model_fn), as_pytree(smoothing.sample)
  num_images = len(x)
  x, index = _pad(x, index, pad_to or num_images)
  num_classes = _num_classes(key, model_fn, sample, x, chunk)
  operands = parallel.replicate(mesh, (key, model_fn, sample, x, index))
  counts = parallel.replicate(mesh, jnp.zeros((len(x), num_classes), jnp.int32))
  number, count = np.int32(num_samples), functools.partial(_count, mesh=mesh, chunk=chunk)
  counts = in_waves(
    lambda counts, start, stop: count(operands, counts, number, start, stop),
    counts, num_images * num_samples, chunk * mesh.devices.size,
  )  # fmt: skip
  return np.asarray(counts)[:num_images]


def in_waves(count, totals, num_items, step):
  """Counts the items 0..num_items-1 in dispatches of about `_SECONDS_PER_DISPATCH`.

  Args:
    count: `(totals, start, stop) -> totals`, adds the items start..stop-1 (int32 scalars).
    totals: what it starts from.
    num_items: of the whole count.
    step: items of one chunk on all devices: dispatches are multiples of it, but the last.

  Returns:
    The totals, ready.

  Example:
    >>> int(in_waves(lambda total, start, stop: total + int(stop - start), 0, 10, 3))
    10
  """
  if step > _MAX_STEP:
    raise ValueError(
      f'`chunk` times the number of devices must be at most {_MAX_STEP}, got {step}.'
    )
  start, wave = 0, step
  while start < num_items:
    seconds = time.perf_counter()
    end = min(start + wave, num_items)
    totals = jax.block_until_ready(count(totals, np.int32(start), np.int32(end)))
    seconds = time.perf_counter() - seconds
    start, wave = end, step * _next_wave(wave // step, seconds)
  return totals


def _next_wave(chunks, seconds):
  """Chunks of the next dispatch, so that it lasts about `_SECONDS_PER_DISPATCH`."""
  wanted = int(chunks * _SECONDS_PER_DISPATCH / max(seconds, 1e-6))
  return min(max(wanted, 1), 8 * chunks)  # The first dispatch includes compilation.


@functools.partial(jax.jit, static_argnames=('mesh', 'chunk'), donate_argnums=(1,))
def _count(operands, counts, num_samples, start, stop, *, mesh, chunk):
  """Adds the votes of the items start..stop-1 to `counts`; item t is (t // N, t % N)."""
  replica = functools.partial(_count_replica, chunk=chunk, num_classes=counts.shape[-1])
  specs = (parallel.REPLICATED,) * 4
  added = parallel.pmap(replica, mesh, specs, parallel.REPLICATED)(
    operands, num_samples, start, stop
  )
  return counts + added


def _count_replica(operands, num_samples, start, stop, *, chunk, num_classes):
  key, model_fn, sample, x, index = operands
  image_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
  num_devices = lax.axis_size(parallel.AXIS)
  first = start + chunk * lax.axis_index(parallel.AXIS)
  steps = (stop - start + chunk * num_devices - 1) // (chunk * num_devices)

  def add_chunk(step, counts):
    item = first + step * chunk * num_devices + jnp.arange(chunk, dtype=jnp.int32)
    row, number = jnp.minimum(item // num_samples, len(x) - 1), item % num_samples
    label = _labels(model_fn, sample, image_keys[row], number, x[row])
    return counts.at[row, label].add((item < stop).astype(jnp.int32), mode='drop')

  counts = jnp.zeros((len(x), num_classes), jnp.int32)
  return lax.psum(lax.fori_loop(0, steps, add_chunk, counts), parallel.AXIS)


def _labels(model_fn, sample, keys, number, x):
  """int32[chunk], the class of each item; K (nobody) where a logit is NaN."""
  noisy = jax.vmap(lambda key, j, x: sample(jax.random.fold_in(key, j), x))(keys, number, x)
  # The barrier keeps the model's own fusions independent of how the noise was made.
  logits = model_fn(lax.optimization_barrier(noisy)).astype(jnp.float32)
  label = jnp.argmax(logits, axis=-1).astype(jnp.int32)
  return jnp.where(jnp.any(jnp.isnan(logits), axis=-1), logits.shape[-1], label)


@functools.partial(jax.jit, static_argnames='chunk')
def _chunk_of_logits(key, model_fn, sample, x, *, chunk):
  return model_fn(jax.vmap(sample, (0, None))(jax.random.split(key, chunk), x[0]))


def _num_classes(key, model_fn, sample, x, chunk):
  """K, from the shape of the logits; traced once a shape, never run."""
  shape = _chunk_of_logits.eval_shape(key, model_fn, sample, x, chunk=chunk).shape
  if len(shape) != 2 or shape[0] != chunk:
    raise ValueError(
      f'`model_fn` must return logits [B, K], got shape {shape} for a batch of {chunk} images.'
    )
  return shape[-1]


def as_pytree(fn):
  """`Partial` makes any function a jit argument: its weights are leaves, its code is static.

  Example:
    >>> as_pytree(len)([1, 2])
    2
  """
  return fn if isinstance(fn, jax.tree_util.Partial) else jax.tree_util.Partial(fn)


def _pad(x, index, size):
  if size < len(x):
    raise ValueError(f'`pad_to` must be at least the number of images, got {size} for {len(x)}.')
  rows = np.minimum(np.arange(size), len(x) - 1)
  return x[rows], index[rows]


def _check(smoothing, x, index, num_samples, chunk):
  x = check_images(x, getattr(smoothing, 'shape', None))
  index = np.arange(len(x)) if index is None else np.asarray(index)
  if index.shape != (len(x),) or not np.issubdtype(index.dtype, np.integer):
    raise ValueError(
      f'`index` must be int[B], one data set index an image: got shape {index.shape}, '
      f'dtype {index.dtype} for B={len(x)}.'
    )
  if num_samples < 1 or chunk < 1:
    raise ValueError(
      f'`num_samples` and `chunk` must be at least 1, got {num_samples} and {chunk}.'
    )
  check_num_items(len(x), num_samples)
  return jnp.asarray(x, jnp.float32), jnp.asarray(index, jnp.uint32)


def check_images(x, shape):
  """The images as an array, unless they are no finite batch of images of that shape.

  Args:
    x: float[B, ...].
    shape: of one image, or None.

  Raises:
    ValueError: on an empty batch, another shape, a NaN or inf.
  """
  x = np.asarray(x) if not isinstance(x, jax.Array) else x
  if x.ndim < 2 or len(x) == 0:
    raise ValueError(f'`x` must be a batch [B, ...] with B >= 1, got shape {x.shape}.')
  if shape is not None and tuple(x.shape[1:]) != tuple(shape):
    raise ValueError(f'this smoothing was made for images of shape {shape}, got {x.shape[1:]}.')
  finite = np.isfinite(np.asarray(x)).reshape(len(x), -1).all(axis=1)
  if not finite.all():
    raise ValueError(f'`x` must be finite: image {int(np.argmin(finite))} holds a NaN or inf.')
  return x


def check_num_items(num_images, num_samples):
  """Raises `ValueError` where (image, sample) pairs cannot be numbered in int32."""
  if num_images * num_samples > _MAX_ITEMS:
    raise ValueError(
      f'at most {_MAX_ITEMS} samples a call, got {num_images} images x {num_samples}: pass fewer '
      f'images at a time; the votes are the same.'
    )
