"""Certificates by bounds on the network: interval or linear, in float64, with rounding paid for.

The statement is about the network of the stored weights in exact arithmetic, and about images in
[0, 1]. Images are evaluated one at a time, so that no record depends on a batch or a shard.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from certjax import bounds, certify
from certjax.evaluate._one_by_one import records_of

# Bounds against replaced pixels: what bounds the logits, and what proves an image.
_REPLACED = {
  'patch-ibp': (bounds.patch_interval, bounds.verify_patch),
  'sparse-ibp': (bounds.sparse_interval, bounds.verify_sparse),
}


class BoundedNetwork(NamedTuple):
  """A network that bounds can read; made by `bounded_network`.

  Attributes:
    model_fn: a `jax.tree_util.Partial`, with its weights in float64.
    method: a `certify.Bounded`.
    bound: of `bounds`, with its options.
    num_classes: K.
  """

  model_fn: Any
  method: certify.Bounded
  bound: Callable
  num_classes: int


def bounded_network(model_fn, method, *, shape) -> BoundedNetwork:
  """A network whose every step bounds know.

  Args:
    model_fn: `x[B, ...] -> logits[B, K]`.
    method: a `certify.Bounded`.
    shape: (H, W, C) of the images.

  Returns:
    A `BoundedNetwork`.

  Raises:
    ValueError: for a step that has no bound, by its name, or a model of other images.

  Example:
    >>> method = certify.bounded(eps=0.1)
    >>> bounded_network(lambda x: x.reshape(len(x), -1), method, shape=(2, 2, 1)).num_classes
    4
  """
  is_tree = isinstance(model_fn, jax.tree_util.Partial)
  model_fn = model_fn if is_tree else jax.tree_util.Partial(model_fn)
  images = np.zeros((1, *shape), np.float32)
  try:
    with jax.numpy_dtype_promotion('standard'):
      lower, _ = jax.eval_shape(_reader(method), model_fn, images)
  except ValueError:
    raise
  except Exception as error:  # Whatever the user's model raises: its cause stays visible.
    raise ValueError(f'`model_fn` does not take images of shape {tuple(shape)}: {error}') from error
  with jax.default_device(_device()):
    model_fn = bounds.widened(model_fn)
  return BoundedNetwork(model_fn, method, _bound(method), lower.shape[-1])


def bounded_certificate(network: BoundedNetwork, x):
  """Certifies images by bounds.

  Args:
    network: from `bounded_network`.
    x: float[B, H, W, C] in [0, 1].

  Returns:
    A `certify.Certificate`: radius eps (or the largest found) where it is proved, 0 where only the
    class of the image itself is; it abstains where that is not, as on NaN.

  Example:
    >>> method = certify.bounded(eps=0.1, bound='ibp')
    >>> network = bounded_network(lambda x: x.reshape(len(x), -1), method, shape=(1, 2, 1))
    >>> proof = bounded_certificate(network, np.array([0.5, 0.8, 0.6, 0.5]).reshape(2, 1, 2, 1))
    >>> proof.label.tolist(), proof.radius.tolist()
    ([1, 0], [0.1, 0.0])
  """
  proofs = [_certified(network, image) for image in x]
  return certify.certificate(
    np.array([int(proof.label) for proof in proofs]),
    np.array([float(proof.radius) for proof in proofs]),
  )


def bounded_records(network: BoundedNetwork, images, *, stop=lambda: False):
  """Certifies images and yields their records in order.

  Args:
    network: from `bounded_network`.
    images: `data.Images` or `data.Stream`.
    stop: asked before every image; once it says True, the rest is left.

  Yields:
    (record, seconds): index, label, predict and radius (float64).

  Example:
    >>> from certjax import data
    >>> images = data.Images(np.array([51, 204], np.uint8).reshape(1, 1, 2, 1), np.array([1]), np.array([20]))
    >>> method = certify.bounded(eps=0.1, bound='ibp')
    >>> network = bounded_network(lambda x: x.reshape(len(x), -1), method, shape=(1, 2, 1))
    >>> ((record, seconds),) = bounded_records(network, images)
    >>> record
    {'index': 20, 'label': 1, 'predict': 1, 'radius': 0.1}
  """
  prove = lambda image: lambda slack: _certified(network, image)  # It has no slack.
  return records_of(prove, images, stop=stop)


def _certified(network, image):
  """The certificate of one image."""
  method, x = network.method, np.asarray(image, np.float64)[None]
  if method.bound in _REPLACED:
    with jax.default_device(_device()):
      proof = network.bound(network.model_fn, x)
    return certify.Certificate(proof.label[0], proof.radius[0])
  options = {'norm': method.norm, 'batch': 1}
  with jax.default_device(_device()):
    if method.largest:
      proof = bounds.largest(
        network.model_fn, x, max_eps=method.eps, bound=network.bound, **options
      )
    else:
      proof = bounds.verify(network.model_fn, x, method.eps, bound=network.bound, **options)
    if proof.label[0] < 0:  # At one point all bounds are the same: the cheapest says the class.
      proof = bounds.verify(network.model_fn, x, 0.0, bound=bounds.interval, **options)
  return certify.Certificate(proof.label[0], proof.radius[0])


def _reader(method):
  """`(model_fn, images) -> (lower, upper)` that meets every step of the model."""
  if method.bound in _REPLACED:
    bound, size = _REPLACED[method.bound][0], int(method.eps)
    return lambda model_fn, images: bound(model_fn, images, size)
  return lambda model_fn, images: bounds.interval(model_fn, bounds.ball(images, 0.0))


def _bound(method):
  if method.bound in _REPLACED:
    verify, size = _REPLACED[method.bound][1], int(method.eps)
    return lambda model_fn, x: verify(model_fn, x, size)
  if method.bound == 'ibp':
    return bounds.interval
  return functools.partial(
    bounds.crown, slope=method.slope, num_steps=method.num_steps, chunk=method.chunk,
    intermediate='crown' if method.bound == 'crown' else 'interval',
  )  # fmt: skip


def _device():
  """Where float64 is IEEE's: a TPU has none, there the host evaluates."""
  first = jax.local_devices()[0]
  return jax.local_devices(backend='cpu')[0] if first.platform == 'tpu' else first
