"""Certificates of networks of small receptive field against patches: one clean image, no noise.

The classifier is robust masking, or clipping, of the local logits that **one compiled program** makes of one
image. Its cells must depend on no pixel outside their receptive field, to the last bit: direct convolutions do
not; where a library transforms tiles of the image (Winograd, FFT), `slack` pays for what leaks.

Images are evaluated one at a time, so that no record depends on a batch or a shard.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from certjax import certify, models
from certjax.evaluate._one_by_one import records_of


class MaskedNetwork(NamedTuple):
  """A network of local features, ready to be certified; made by `masked_network`.

  Attributes:
    model_fn: `x[1, H, W, C] -> float32[1, h, w, K]`, a `jax.tree_util.Partial`.
    method: a `certify.Masked`.
    num_classes: K.
    windows: (height, width) in cells that a patch of side 1, 2, ..., `method.patch` meets.
  """

  model_fn: Any
  method: certify.Masked
  num_classes: int
  windows: tuple

  @property
  def constants(self) -> dict:
    """What the proof took from the network: the cells of its largest window."""
    return {'window': list(self.windows[-1])}


def masked_network(model_fn, method, *, shape) -> MaskedNetwork:
  """A network with the windows that patches meet.

  Args:
    model_fn: a module and its variables, as `models.bind` or `models.as_model_fn` make them; the module
      has `local_logits(x)`, `receptive_field` and `stride`, as `models.BagNet`.
    method: a `certify.Masked`.
    shape: (H, W, C) of the images.

  Returns:
    A `MaskedNetwork`.

  Raises:
    ValueError: for another model, other images, or a patch that leaves no cell alone.

  Example:
    >>> module, x = models.build('bagnet-small', num_classes=10), np.zeros((1, 28, 28, 1), np.float32)
    >>> shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    >>> model_fn = models.bind(module, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    >>> masked_network(model_fn, certify.masked(patch=2), shape=(28, 28, 1)).windows
    ((5, 5), (5, 5))
  """
  module = _local(model_fn)
  local = jax.tree_util.Partial(_local_logits(module), *model_fn.args)
  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  try:
    cells = jax.eval_shape(local, x).shape[1:]
  except ValueError:
    raise
  except Exception as error:  # Whatever the user's model raises: its cause stays visible.
    raise ValueError(f'`model_fn` does not take images of shape {tuple(shape)}: {error}') from error
  windows = tuple(_window(module, side, cells[:2]) for side in range(1, method.patch + 1))
  if windows[-1] == cells[:2]:
    fits = sum(window != cells[:2] for window in windows)
    raise ValueError(
      f'a patch of side {method.patch} meets all {cells[0]} x {cells[1]} cells of this network (each sees '
      f'{module.receptive_field} pixels): nothing is left to say the class; `patch` may be {fits} at most.'
    )
  return MaskedNetwork(local, method, cells[2], windows)


def masked_certificate(network: MaskedNetwork, x, *, slack=None) -> certify.Certificate:
  """Certifies images by their local features.

  Args:
    network: from `masked_network`.
    x: float[B, H, W, C] in [0, 1].
    slack: None trusts this program. Otherwise the label holds for every program whose features are less
      than slack / 2 from these.

  Returns:
    A `certify.Certificate` in norm 'patch': the radius is the side of a square patch of any content in
    [0, 1], anywhere in the image. It abstains where a feature is NaN.

  Example:
    >>> module, x = models.build('bagnet-digits', num_classes=10), np.ones((2, 8, 8, 1), np.float32)
    >>> shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    >>> model_fn = models.bind(module, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    >>> network = masked_network(model_fn, certify.masked(patch=2), shape=(8, 8, 1))
    >>> masked_certificate(network, x)  # All features are 0: a tie, which class 0 wins.
    Certificate(label=array([0, 0]), radius=array([2., 2.]))

  References:
    Xiang et al. 2021 (arXiv:2005.10884).
  """
  proofs = [_certified(network, _features(network, image), slack) for image in x]
  return certify.certificate(*map(np.stack, zip(*proofs, strict=True)))


def masked_records(network: MaskedNetwork, images, *, slack=None, stop=lambda: False):
  """Certifies images and yields their records in order.

  Args:
    network: from `masked_network`.
    images: `data.Images` or `data.Stream`.
    slack: as in `masked_certificate`; None records this program's certificate only.
    stop: asked before every image; once it says True, the rest is left.

  Yields:
    (record, seconds): index, label, predict and radius; with `slack` also slack_predict and
    slack_radius, the certificate that holds for other programs too.

  Example:
    >>> from certjax import data
    >>> images = data.Images(np.full((1, 8, 8, 1), 255, np.uint8), np.array([1]), np.array([20]))
    >>> module, x = models.build('bagnet-digits', num_classes=10), np.ones((1, 8, 8, 1), np.float32)
    >>> shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    >>> model_fn = models.bind(module, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    >>> network = masked_network(model_fn, certify.masked(patch=2), shape=(8, 8, 1))
    >>> ((record, seconds),) = masked_records(network, images)
    >>> record  # All features are 0: a tie, which class 0 wins.
    {'index': 20, 'label': 1, 'predict': 0, 'radius': 2.0}
  """
  prove = lambda image: functools.partial(_certified, network, _features(network, image))
  return records_of(prove, images, slack=slack, stop=stop)


def _certified(network, features, slack):
  """The certificate of one image."""
  method, windows = network.method, network.windows
  if method.aggregation == 'clipping':
    return certify.patch_from_clipping(features, windows=windows, slack=slack)
  return certify.patch_from_masking(
    features, mask=windows[-1], windows=windows, threshold=method.threshold, slack=slack
  )


def _features(network, image):
  """float32[h, w, K] of one image."""
  return certify.evaluate(network.model_fn, np.asarray(image, np.float32)[None])[0]


def _local(model_fn) -> Any:
  """The module, if it has local features."""
  module = models.module_of(model_fn)
  if all(hasattr(module, name) for name in ('local_logits', 'receptive_field', 'stride')):
    return module
  what = 'this function' if module is None else type(module).__name__
  raise ValueError(
    f"`method`='patchguard' needs a network of small receptive field, models.BagNet (bagnet17 and the "
    f'like), bound to its weights; {what} is none: certify it by bands, `--method bands`.'
  )


def _window(module, side, cells):
  geometry = {'receptive_field': module.receptive_field, 'stride': module.stride}
  return tuple(certify.cells_met(side, cells=n, **geometry) for n in cells)


@functools.cache
def _local_logits(module):
  """One function object a module: jit caches on its identity."""
  return lambda variables, x: module.apply(variables, x, method='local_logits')
