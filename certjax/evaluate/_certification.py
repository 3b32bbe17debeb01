"""Certification and prediction of a list of images, one record an image.

Images run in groups of one fixed size, so that selection fills whole chunks and a killed run loses
little; the group has no influence on the votes.
"""

import math
import time

import jax
import numpy as np

from certjax import certify, data, parallel

_CHUNKS_PER_GROUP = 32  # Rounding a group up to whole chunks costs at most 2 of them.
_MOST_IMAGES = 64
_MOST_SAMPLES = 2**30  # Items are counted in int32, with room for the padding of the last chunk.


def is_exact(smoothing) -> bool:
  """Whether it is `Views`, all of which are evaluated, rather than a distribution."""
  return hasattr(smoothing, 'num_views')


def check_arguments(
  kind, smoothing, *, chunk, num_samples=None, alpha=None, num_selection=None, runner_up=False
):
  """Refuses what can never give a record, before anything is traced or written.

  Args:
    kind: 'certify' or 'predict'.
    smoothing: a `Smoothing` or `Views`.
    num_samples, alpha, chunk, num_selection, runner_up: as in `certified_records`; of `Views`
      the chunk alone.

  Raises:
    ValueError: naming the argument, the rule and the value.
  """
  counts = {'num_selection': num_selection, 'num_samples': num_samples, 'chunk': chunk}
  for name, value in counts.items():
    if value is not None and not 1 <= value < _MOST_SAMPLES:
      raise ValueError(f'`{name}` must lie in 1 .. {_MOST_SAMPLES - 1}, got {value}.')
  if alpha is None:
    return
  if kind == 'certify':
    certify.check_num_samples(smoothing, num_samples, alpha, runner_up=runner_up)
  else:
    certify.check_predict_samples(num_samples, alpha)


def certified_records(
  key, model_fn, smoothing, images, *, num_selection=100, num_samples=100_000, alpha=1e-3,
  runner_up=False, chunk=1000, mesh=None,
):  # fmt: skip
  """Certifies images by sampling and yields their records in order.

  Args:
    key: root key; noise depends on it, the data set index and the sample's number only.
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`.
    smoothing: a `Smoothing`.
    images: `data.Images`.
    num_selection, num_samples, alpha, runner_up, chunk, mesh: as in `certify.sampled`.

  Yields:
    (record, seconds): the fields index, label, predict, radius (float64, rounded down),
    candidate (the selected class), count (its votes) and runner_up_count; seconds is an
    image's share of its group's time.

  Raises:
    ValueError: before any work, as `check_arguments`.
  """
  check_arguments(
    'certify', smoothing, num_samples=num_samples, alpha=alpha, chunk=chunk,
    num_selection=num_selection, runner_up=runner_up,
  )  # fmt: skip
  for group, options, clock in _groups(images, num_samples, chunk, mesh):
    x = data.to_float(group.images)
    candidate, counts = certify.sampled_votes(
      key, model_fn, smoothing, x, num_selection=num_selection, num_samples=num_samples, **options
    )
    proof = certify.from_votes(
      smoothing, candidate, counts, num_samples=num_samples, alpha=alpha, runner_up=runner_up, x=x
    )
    seconds = clock()
    for row, index in enumerate(group.index):
      others = np.delete(counts[row], candidate[row])
      yield (
        {
          'index': int(index),
          'label': int(group.labels[row]),
          'predict': int(proof.label[row]),
          'radius': float(proof.radius[row]),
          'candidate': int(candidate[row]),
          'count': int(counts[row, candidate[row]]),
          'runner_up_count': int(others.max(initial=0)),
        },
        seconds,
      )


def enumerated_records(key, model_fn, views, images, *, chunk=1000, mesh=None):
  """Certifies images by evaluating all views of each and yields their records in order.

  Args:
    key: unused: nothing is drawn.
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`.
    views: `Views` whose votes are summed.
    images: `data.Images`.
    chunk, mesh: as in `certify.enumerated`.

  Yields:
    (record, seconds): index, label, predict, radius, count and runner_up_count.
  """
  del key
  for group, options, clock in _groups(images, views.num_views, chunk, mesh):
    x = data.to_float(group.images)
    x = x[np.minimum(np.arange(options['pad_to']), len(x) - 1)]  # One program for all groups.
    counts, _ = certify.enumerated_counts(model_fn, views, x, chunk=chunk, mesh=options['mesh'])
    counts = counts[: len(group.index)]
    proof, seconds = certify.from_counts(views, counts), clock()
    ordered = np.sort(counts, axis=-1)
    for row, index in enumerate(group.index):
      yield (
        {
          'index': int(index),
          'label': int(group.labels[row]),
          'predict': int(proof.label[row]),
          'radius': float(proof.radius[row]),
          'count': int(ordered[row, -1]),
          'runner_up_count': int(ordered[row, -2:][0]),
        },
        seconds,
      )


def predicted_records(
  key, model_fn, smoothing, images, *, num_samples=1000, alpha=1e-3, chunk=1000, mesh=None
):
  """Classifies images by PREDICT and yields their records in order.

  Args:
    key, model_fn, smoothing, images, num_samples, alpha, chunk, mesh: as in `certify.predict`.

  Yields:
    (record, seconds): index, label, predict, radius (0: nothing is certified) and count.

  Raises:
    ValueError: before any work, as `check_arguments`.
  """
  check_arguments('predict', smoothing, num_samples=num_samples, alpha=alpha, chunk=chunk)
  for group, options, clock in _groups(images, num_samples, chunk, mesh):
    counts = certify.predict_votes(
      key, model_fn, smoothing, data.to_float(group.images), num_samples=num_samples, **options
    )
    label, seconds = certify.label_from_votes(counts, alpha=alpha), clock()
    for row, index in enumerate(group.index):
      yield (
        {
          'index': int(index),
          'label': int(group.labels[row]),
          'predict': int(label[row]),
          'radius': 0.0,
          'count': int(counts[row].max()),
        },
        seconds,
      )


def _groups(images, num_samples, chunk, mesh):
  """Yields (images of the group, options of `votes`, clock of seconds an image)."""
  mesh = parallel.local_mesh() if mesh is None else mesh
  wanted = math.ceil(_CHUNKS_PER_GROUP * chunk * mesh.devices.size / num_samples)
  size = min(wanted, _MOST_IMAGES, len(images.index))
  for start in range(0, len(images.index), size):
    group = jax.tree.map(lambda array, start=start: array[start : start + size], images)
    begun = time.perf_counter()
    options = {'index': group.index, 'chunk': chunk, 'mesh': mesh, 'pad_to': size}
    yield group, options, lambda: (time.perf_counter() - begun) / len(group.index)  # noqa: B023
