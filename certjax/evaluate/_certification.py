"""Certification and prediction of a list of images, one record an image, in order.

Each image's plan makes its record on the host as soon as its votes are in; `certify.run` keeps the
device full with the items of many images.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from certjax import certify, data
from certjax.evaluate._bounded import (
  BoundedNetwork,
  bounded_certificate,
  bounded_network,
  bounded_records,
)
from certjax.evaluate._curvature import (
  CurvedNetwork,
  curved_certificate,
  curved_network,
  curved_records,
)
from certjax.evaluate._margin import (
  ExactNetwork,
  exact_network,
  margin_certificate,
  margin_records,
)
from certjax.evaluate._masked import (
  MaskedNetwork,
  masked_certificate,
  masked_network,
  masked_records,
)

_MOST_SAMPLES = 2**30


class _Clean(NamedTuple):
  """A kind of proof without noise.

  Attributes:
    method: its type.
    kind: type of the network that the proof reads.
    network: `(model_fn, method, *, shape) -> kind`.
    certificate: `(network, x) -> Certificate`.
    records: `(network, images, **options) -> (record, seconds)`, in order.
  """

  method: type
  kind: type
  network: Callable
  certificate: Callable
  records: Callable


_CLEAN = (
  _Clean(
    certify.Margin, ExactNetwork,
    lambda model_fn, method, *, shape: exact_network(model_fn, shape=shape), margin_certificate,
    margin_records,
  ),
  _Clean(certify.Bounded, BoundedNetwork, bounded_network, bounded_certificate, bounded_records),
  _Clean(certify.Curved, CurvedNetwork, curved_network, curved_certificate, curved_records),
  _Clean(certify.Masked, MaskedNetwork, masked_network, masked_certificate, masked_records),
)  # fmt: skip


def is_exact(smoothing) -> bool:
  """Whether nothing is sampled: `Views`, all of which are evaluated, or what `is_clean`.

  Args:
    smoothing: a `Smoothing`, `Views`, or what `is_clean`.

  Example:
    >>> from certjax import smoothing
    >>> is_exact(smoothing.bands(width=2, shape=(8, 8, 1))), is_exact(smoothing.gaussian(sigma=0.25))
    (True, False)
  """
  return hasattr(smoothing, 'num_views') or is_clean(smoothing)


def is_clean(smoothing) -> bool:
  """Whether the proof is about the network at the image itself: `Margin`, `Bounded`, `Curved`, `Masked`.

  Args:
    smoothing: a `Smoothing`, `Views`, or one of these four.

  Example:
    >>> from certjax import smoothing
    >>> is_clean(certify.bounded(eps=0.1)), is_clean(smoothing.gaussian(sigma=0.25))
    (True, False)
  """
  return isinstance(smoothing, tuple(row.method for row in _CLEAN))


def clean_network(model_fn, method, *, shape):
  """The network that a proof without noise reads.

  Args:
    model_fn: what the kind of proof needs: `exact_network`, `bounded_network`, `curved_network`,
      `masked_network`.
    method: what `is_clean`.
    shape: (H, W, C) of the images.

  Returns:
    An `ExactNetwork`, a `BoundedNetwork`, a `CurvedNetwork` or a `MaskedNetwork`.

  Raises:
    ValueError: for a model that the proof cannot read.

  Example:
    >>> clean_network(lambda x: x.reshape(len(x), -1), certify.bounded(eps=0.1), shape=(2, 2, 1)).num_classes
    4
  """
  return _row('method', method).network(model_fn, method, shape=shape)


def clean_certificate(network, x):
  """The `Certificate` of images x[B, H, W, C] by a network of `clean_network`.

  Args:
    network: from `clean_network`.
    x: float[B, H, W, C] in [0, 1].

  Returns:
    A `Certificate` of arrays [B].

  Example:
    >>> network = clean_network(lambda x: x.reshape(len(x), -1), certify.bounded(eps=0.1), shape=(1, 2, 1))
    >>> clean_certificate(network, np.array([0.5, 0.8]).reshape(1, 1, 2, 1))
    Certificate(label=array([1]), radius=array([0.1]))
  """
  return _row('kind', network).certificate(network, x)


def clean_records(network, images, **options):
  """Records by a network of `clean_network`: yields (record, seconds) in order.

  Args:
    network: from `clean_network`.
    images: `data.Images` or `data.Stream`.
    **options: `slack` and `stop`, as the records of that kind of network take them.

  Yields:
    (record, seconds), as the records of that kind of network.

  Example:
    >>> from certjax import data
    >>> images = data.Images(np.array([51, 204], np.uint8).reshape(1, 1, 2, 1), np.array([1]), np.array([20]))
    >>> network = clean_network(lambda x: x.reshape(len(x), -1), certify.bounded(eps=0.1), shape=(1, 2, 1))
    >>> ((record, seconds),) = clean_records(network, images)
    >>> record
    {'index': 20, 'label': 1, 'predict': 1, 'radius': 0.1}
  """
  return _row('kind', network).records(network, images, **options)


def _row(column, value):
  """The row of the table that an instance belongs to."""
  return next(row for row in _CLEAN if isinstance(value, getattr(row, column)))


def check_arguments(
  kind, smoothing, *, chunk, num_samples=None, alpha=None, num_selection=None, runner_up=False
):
  """Refuses what can never give a record, before anything is traced or written.

  Args:
    kind: 'certify' or 'predict'.
    smoothing: a `Smoothing`, `Views`, or what `is_clean`.
    num_samples, alpha, chunk, num_selection, runner_up: as in `certified_records`; of exact methods
      the chunk alone.

  Raises:
    ValueError: naming the argument, the rule and the value.

  Example:
    >>> from certjax import smoothing
    >>> check_arguments('certify', smoothing.gaussian(sigma=0.25), num_samples=9, alpha=0.001, chunk=1000)
    Traceback (most recent call last):
    ...
    ValueError: `num_samples`=9 can never certify at `alpha`=0.001: at least 10 are needed (PREDICT: 11).
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
  runner_up=False, **options,
):  # fmt: skip
  """Certifies images by sampling and yields their records in order.

  Args:
    key: root key; noise depends on it, the data set index and the sample's number only.
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`.
    smoothing: a `Smoothing`.
    images: `data.Images`, or a `data.Stream`, which is decoded on the way.
    num_selection, num_samples, alpha, runner_up: as in `certify.sampled`.
    **options: `chunk`, `mesh`, `slots` and `stop` of `certify.run`.

  Yields:
    (record, seconds): the fields index, label, predict, radius (float64, rounded down),
    candidate (the selected class), count (its votes) and runner_up_count; seconds of device
    time.

  Raises:
    ValueError: before any work, as `check_arguments`.

  Example:
    >>> import jax
    >>> from certjax import data, smoothing
    >>> images = data.Images(np.array([51, 204], np.uint8).reshape(1, 1, 2, 1), np.array([1]), np.array([20]))
    >>> model_fn, law = lambda x: 1e3 * x.reshape(len(x), -1), smoothing.gaussian(sigma=0.1)
    >>> key, options = jax.random.key(0), {'num_samples': 100, 'num_selection': 10, 'chunk': 100}
    >>> ((record, seconds),) = certified_records(key, model_fn, law, images, slots=1, **options)
    >>> record['index'], record['predict'], record['count'], round(record['radius'], 3)
    (20, 1, 100, 0.15)
  """
  options = {'chunk': 1000, **options}
  check_arguments(
    'certify', smoothing, num_samples=num_samples, alpha=alpha, chunk=options['chunk'],
    num_selection=num_selection, runner_up=runner_up,
  )  # fmt: skip

  def plan(x, label):
    del label
    selected, counts = yield [
      (certify.SELECTION, num_selection),
      (certify.ESTIMATION, num_samples),
    ]
    candidate = np.argmax(selected)
    proof = certify.from_votes(
      smoothing, candidate, counts, num_samples=num_samples, alpha=alpha, runner_up=runner_up, x=x
    )
    others = np.delete(counts, candidate)
    return {
      'predict': int(proof.label),
      'radius': float(proof.radius),
      'candidate': int(candidate),
      'count': int(counts[candidate]),
      'runner_up_count': int(others.max(initial=0)),
    }

  yield from _records(_sampling(key, model_fn, smoothing, options), images, plan, options)


def sequential_records(key, model_fn, smoothing, images, *, rule, **options):
  """Certifies images by sequential tests and yields their records in order.

  Args:
    key, model_fn, smoothing, images: as in `certified_records`.
    rule: a `certify.SequentialRule`.
    **options: `chunk`, `mesh`, `slots` and `stop` of `certify.run`.

  Yields:
    (record, seconds): index, label, predict, radius, candidate, count (its votes) and samples
    (all that were drawn, selection included).

  Example:
    >>> import jax
    >>> from certjax import data, smoothing
    >>> images = data.Images(np.array([51, 204], np.uint8).reshape(1, 1, 2, 1), np.array([1]), np.array([20]))
    >>> model_fn, law = lambda x: 1e3 * x.reshape(len(x), -1), smoothing.gaussian(sigma=0.1)
    >>> rule = certify.sequential_rule(law, radii=[0.05], max_samples=100, num_selection=10)
    >>> key, options = jax.random.key(0), {'chunk': 100, 'slots': 1}
    >>> ((record, seconds),) = sequential_records(key, model_fn, law, images, rule=rule, **options)
    >>> record['predict'], record['radius'], record['samples'] < 110
    (1, 0.05, True)
  """
  options = {'chunk': 1000, **options}

  def plan(x, label):
    found = yield from rule.plan(label, x)
    return found._asdict()

  yield from _records(_sampling(key, model_fn, smoothing, options), images, plan, options)


def enumerated_records(key, model_fn, views, images, *, slack=None, **options):
  """Certifies images by evaluating all views of each and yields their records in order.

  Args:
    key: unused: nothing is drawn.
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`.
    views: `Views`.
    images: `data.Images` or `data.Stream`.
    slack: as in `certify.enumerated`; None trusts this program.
    **options: `chunk`, `mesh`, `slots` and `stop` of `certify.run`.

  Yields:
    (record, seconds): index, label, predict, radius, count and runner_up_count; with `slack` also
    slack_predict and slack_radius, the certificate that holds for other programs too.

  Example:
    >>> from certjax import data, smoothing
    >>> images = data.Images(np.array([51, 204], np.uint8).reshape(1, 1, 2, 1), np.array([1]), np.array([20]))
    >>> views = smoothing.deterministic_splitting(lam=0.5, quantization=255, shape=(1, 2, 1))
    >>> model_fn = lambda x: 1e3 * x.reshape(len(x), -1)
    >>> ((record, seconds),) = enumerated_records(None, model_fn, views, images, chunk=255, slots=1)
    >>> record
    {'index': 20, 'label': 1, 'predict': 1, 'radius': 0.49803921568627446, 'count': 255, 'runner_up_count': 0}
  """
  del key
  options = {'chunk': 1000, **options}

  def plan(x, label):
    del label
    certify.check_views(views, x[None])
    (totals,) = yield [(0, views.num_views)]
    votes, unsure = certify.tallied(views, totals)
    proof = certify.from_counts(views, votes)
    ordered = np.sort(votes if views.needs == 'counts' else votes.sum(axis=0))
    portable = {}
    if slack is not None:
      other = certify.from_counts(views, votes, unsure)
      portable = {'slack_predict': int(other.label), 'slack_radius': float(other.radius)}
    return {
      **portable,
      'predict': int(proof.label),
      'radius': float(proof.radius),
      'count': int(ordered[-1]),
      'runner_up_count': int(ordered[-2:][0]),
    }

  program = lambda shape: certify.views_program(
    model_fn, views, shape, options['chunk'], slack=slack or 0.0
  )
  yield from _records(program, images, plan, options)


def predicted_records(key, model_fn, smoothing, images, *, num_samples=1000, alpha=1e-3, **options):
  """Classifies images by PREDICT and yields their records in order.

  Args:
    key, model_fn, smoothing, images, num_samples, alpha: as in `certify.predict`.
    **options: `chunk`, `mesh`, `slots` and `stop` of `certify.run`.

  Yields:
    (record, seconds): index, label, predict, radius (0: nothing is certified) and count.

  Raises:
    ValueError: before any work, as `check_arguments`.

  Example:
    >>> import jax
    >>> from certjax import data, smoothing
    >>> images = data.Images(np.array([51, 204], np.uint8).reshape(1, 1, 2, 1), np.array([1]), np.array([20]))
    >>> model_fn, law = lambda x: 1e3 * x.reshape(len(x), -1), smoothing.gaussian(sigma=0.1)
    >>> key, options = jax.random.key(0), {'num_samples': 100, 'chunk': 100, 'slots': 1}
    >>> ((record, seconds),) = predicted_records(key, model_fn, law, images, **options)
    >>> record
    {'index': 20, 'label': 1, 'predict': 1, 'radius': 0.0, 'count': 100}
  """
  options = {'chunk': 1000, **options}
  check_arguments(
    'predict', smoothing, num_samples=num_samples, alpha=alpha, chunk=options['chunk']
  )

  def plan(x, label):
    del x, label
    (counts,) = yield [(certify.PREDICTION, num_samples)]
    label = certify.label_from_votes(counts, alpha=alpha)
    return {'predict': int(label), 'radius': 0.0, 'count': int(counts.max())}

  yield from _records(_sampling(key, model_fn, smoothing, options), images, plan, options)


def _sampling(key, model_fn, smoothing, options):
  return lambda shape: certify.smoothing_program(key, model_fn, smoothing, shape, options['chunk'])


def _records(program, images, plan, options):
  """Runs one plan an image and adds index and label to what it returns."""
  if not len(images.index):
    return
  shape = data.take(images, slice(1)).images.shape[1:]
  work = (_work(plan, *row) for row in data.rows(images))
  yield from certify.run(program(shape), work, **options)


def _work(plan, image, label, index):
  x = data.to_float(image)

  def record():
    found = yield from plan(x, label)
    return {'index': int(index), 'label': int(label), **found}

  return certify.Work(x, index, record())
