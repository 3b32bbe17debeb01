"""Votes of a classifier under noise: drawn and counted on the device.

A work item is a pair (image, sample). Its noise is a function of the root key, the image's
data set index and the sample's number alone, and the model runs at one batch shape, so the
counts are the same bit for bit in whatever order, on however many devices, the items run.
Only int32[., K] leaves the device; memory does not depend on the number of samples.
"""

import jax.numpy as jnp
import numpy as np

from certjax.certify import _engine, _program

_MOST_SAMPLES = 2**31 - 1  # A sample's number is int32.


def votes(
  key, model_fn, smoothing, x, *, index=None, num_samples, chunk=1000, mesh=None, slots=None
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
    slots: images on the device at once, part of the compiled program; default min(B, 64). The
      votes do not depend on it.

  Returns:
    int64[B, K] on the host.

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
  x, index = check(smoothing, x, index, num_samples, chunk)
  program = count_votes([key], model_fn, smoothing, x.shape[1:], chunk)
  counts = each(
    program, x, index, lambda: _engine.once((0, num_samples)), chunk=chunk, mesh=mesh, slots=slots
  )
  return np.stack([count for (count,) in counts])


def count_votes(keys, model_fn, smoothing, shape, chunk):
  """The engine's program that counts the argmax of logits: one key a purpose, K bins.

  Args:
    keys: typed keys, one a purpose.
    model_fn, smoothing, chunk: as in `votes`.
    shape: of one image.

  Returns:
    An `_program.Program`.
  """
  model_fn, perturb = _program.as_pytree(model_fn), _program.draws(smoothing)
  bins = (_program.num_classes(model_fn, perturb, shape, chunk),)
  return _program.Program(model_fn, perturb, _program.as_pytree(_tally), jnp.stack(keys), bins)


def each(program, x, index, plan, *, chunk, mesh, slots, extra=None):
  """The results of one plan for every image of a batch in memory.

  Args:
    program, chunk, mesh, slots: as in `_engine.run`; `slots` None means min(B, 64).
    x: float32[B, ...].
    index: int[B], data set indices.
    plan: makes the plan of one image.
    extra: int[B] for the program's `tally`, or None.

  Returns:
    A list of B results.
  """
  extra = np.zeros(len(x), np.int32) if extra is None else extra
  work = (
    _engine.Work(*image, plan(), other) for *image, other in zip(x, index, extra, strict=True)
  )
  slots = min(len(x), _engine.SLOTS) if slots is None else slots
  return [result for result, _ in _engine.run(program, work, chunk=chunk, mesh=mesh, slots=slots)]


def _tally(counts, row, number, logits, extra):
  """One vote an item, for class K (nobody, dropped) where a logit is NaN."""
  del number, extra
  label = jnp.argmax(logits, axis=-1).astype(jnp.int32)
  label = jnp.where(jnp.any(jnp.isnan(logits), axis=-1), logits.shape[-1], label)
  return counts.at[row, label].add(1, mode='drop')


def check(smoothing, x, index, num_samples, chunk):
  """Images and data set indices as arrays, unless an argument of `votes` is bad.

  Returns:
    float32[B, ...] and uint32[B].

  Raises:
    ValueError: naming the argument, the rule and the value.
  """
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
  if num_samples > _MOST_SAMPLES:
    raise ValueError(f'`num_samples` must be at most {_MOST_SAMPLES}, got {num_samples}.')
  return x, index.astype(np.uint32)


def check_images(x, shape):
  """The images on the host, unless they are no finite batch of images of that shape.

  Args:
    x: float[B, ...].
    shape: of one image, or None.

  Returns:
    float32[B, ...].

  Raises:
    ValueError: on an empty batch, another shape, a NaN or inf.
  """
  x = np.asarray(x)
  if x.ndim < 2 or len(x) == 0:
    raise ValueError(f'`x` must be a batch [B, ...] with B >= 1, got shape {x.shape}.')
  if shape is not None and tuple(x.shape[1:]) != tuple(shape):
    raise ValueError(f'this smoothing was made for images of shape {shape}, got {x.shape[1:]}.')
  x = x.astype(np.float32)
  finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
  if not finite.all():
    raise ValueError(f'`x` must be finite: image {int(np.argmin(finite))} holds a NaN or inf.')
  return x


def check_classes(name, classes, num_images, num_classes):
  """int32[B], one class an image.

  Raises:
    ValueError: naming the argument, unless they are integers in [0, K).
  """
  classes = np.asarray(classes)
  inside = classes.shape == (num_images,) and np.issubdtype(classes.dtype, np.integer)
  if not inside or classes.min() < 0 or classes.max() >= num_classes:
    raise ValueError(
      f'`{name}` must be int[B] in [0, {num_classes}), one class an image (drop abstentions '
      f'first), got {classes!r} for B={num_images}.'
    )
  return classes.astype(np.int32)
