"""Networks that are chains of layers with proved constants: no skip connection leaves the chain.

  pixels -> (x - mean) / std -> zeros around it -> layer -> ... -> layer -> logits

The product of the constants bounds the network; normalisation contributes 1 / min(std), the
zeros nothing.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax import layers
from certjax.models._normalize import Normalize

ACTIVATIONS = {
  'maxmin': layers.MaxMin,
  'hh1': functools.partial(layers.Householder, order=1),
  'hh2': functools.partial(layers.Householder, order=2),
}
LAST = ('orthogonal', 'normalized')


class Chain(nn.Module):
  """Applies, bounds and freezes the layers that a subclass lists.

  A subclass has the fields `mean`, `std` and `last` (one of `LAST`; where it says so also 'curvature', a
  `layers.CurvatureHead`, and None, which leaves the features), a method `_check(x)` that refuses bad
  ones, `_side(height, width)`, and `_layers(side)`.
  """

  @nn.compact
  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, K]."""
    self._check(x)
    x = self.frame(x)
    for name, layer in self._layers(x.shape[1]):
      x = layer.clone(parent=self, name=name)(x, train)
    return x

  def lipschitz(self, variables) -> float:
    """The constant of the logits as a function of pixels: the product over all layers.

    Args:
      variables: `{'params': ..., 'spectral': ...}`.

    Returns:
      A Python float, rounded up.
    """
    return self._product(variables, self.known(variables))

  def last_layer(self, variables):
    """The rows w_j of logits = w h(x) + b with h 1-Lipschitz in pixels, for `certify.margin`.

    Args:
      variables: `{'params': ..., 'spectral': ...}`.

    Returns:
      float64[K, D], the normalised rows (of a curvature head those of its second matrix) times the
      constant of all that is below; None for the orthogonal last layer, whose rows are sqrt(2) apart at
      most.
    """
    if self.last in ('orthogonal', None):
      return None
    below = itertools.takewhile(lambda named: named[0] != 'last', self.known(variables))
    if smooth := self.smooth_head(variables):
      head, own = smooth
      constant = _times(self._product(variables, below), head.hidden_lipschitz(own))
      return head.matrices(own)['last'] * constant
    kernel = np.asarray(variables['params']['last']['kernel'], np.float64)
    norms = np.linalg.norm(kernel, axis=0)
    return (kernel / np.where(norms > 0, norms, 1)).T * self._product(variables, below)

  def smooth_head(self, variables):
    """(`layers.CurvatureHead`, its variables) of last = 'curvature', None of any other network.

    What is below it is this module with `last=None`, of the same variables.
    """
    if self.last != 'curvature':
      return None
    head = next(layer for name, layer in self.known(variables) if name == 'last')
    return head, layers.subtree(variables, 'last')

  def materialize(self, variables):
    """Evaluation with all normalised filters made once.

    Args:
      variables: `{'params': ..., 'spectral': ...}`.

    Returns:
      A `jax.tree_util.Partial`, x -> logits.
    """
    made = tuple(
      layers.materialize(layer, layers.subtree(variables, name))
      for name, layer in self.known(variables)
    )
    return jax.tree_util.Partial(_chained(self), made)  # pyright: ignore[reportArgumentType] # Frozen: it has a hash.

  def _check(self, x):
    """Raises a ValueError for bad fields or images."""
    raise NotImplementedError

  def _side(self, height, width):
    """(height, width) of the image with the zeros around it."""
    raise NotImplementedError

  def _layers(self, side):
    """(name, layer) in order, 'last' among them; `side` is the framed image's height."""
    raise NotImplementedError

  def known(self, variables):
    """The layers of given variables."""
    return list(self._layers(None))

  def frame(self, x):
    """Normalised, with zeros around it."""
    return framed(Normalize(self.mean, self.std, parent=None)(x), self._side(*x.shape[1:3]))

  def _product(self, variables, chain):
    # Of the exact standard deviation and of the one that float32 makes of it, the smaller.
    std = min(np.min(self.std), np.min(np.float32(self.std)).astype(np.float64))
    bound = 1.0 if std == 1 else float(np.nextafter(1 / std, np.inf))
    for name, layer in chain:
      bound = _times(bound, layers.lipschitz_upper(layer, layers.subtree(variables, name)))
    return bound


def framed(x, size):
  """Zeros around an image, as many on both sides as can be: an isometry.

  Args:
    x: float[B, H, W, C].
    size: (height, width) of the result.

  Returns:
    float[B, height, width, C].

  Example:
    >>> framed(jnp.ones((1, 1, 1, 1)), (2, 3))[0, :, :, 0].tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
  """
  missing = [n - m for n, m in zip(size, x.shape[1:3], strict=True)]
  return jnp.pad(x, ((0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)))


def rounded_up(size, multiple):
  """The least multiples of `multiple` that are not below the numbers `size`.

  Example:
    >>> rounded_up((28, 32), 8)
    (32, 32)
  """
  return tuple(-(-n // multiple) * multiple for n in size)


def check_images(x, least=2):
  """One clear error for what is no batch of images.

  Raises:
    ValueError: for another rank, or images below `least` x `least` pixels.

  Example:
    >>> check_images(jnp.zeros((1, 8, 8, 3)))
  """
  if x.ndim != 4 or max(x.shape[1:3]) < least:
    raise ValueError(
      f'`x` must be a batch of images [B, H, W, C] of {least} x {least} pixels or more, got shape '
      f'{x.shape}.'
    )


class Fixed(nn.Module):
  """A layer without weights whose constant is 1."""

  def lipschitz(self, variables):
    """1: what the real function has."""
    return 1.0

  def materialize(self, variables):
    """See `certjax.layers.materialize`."""
    return jax.tree_util.Partial(self.apply, variables)


class Flatten(Fixed):
  """All pixels and channels in one row: an isometry."""

  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, H W C]."""
    return x.reshape(len(x), -1)


class Patches(Fixed):
  """Blocks of pixels moved into channels: an isometry.

  Attributes:
    side: of a block.
  """

  side: int

  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, H / side, W / side, C side^2]."""
    return layers.invertible_downsampling(x, self.side)


class MaxPool(Fixed):
  """The larger of every pair of channels, one of each half: halves the channels."""

  def __call__(self, x, train=False):
    """float[..., C] -> float[..., C / 2]."""
    return layers.fit_channels(layers.max_min(x), x.shape[-1] // 2)


class L2Pool(Fixed):
  """`layers.l2_pool` as a layer.

  Attributes:
    side: of the square windows; None: one window, the image.
  """

  side: int | None = None

  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, H / side, W / side, C]."""
    return layers.l2_pool(x, window=x.shape[1:3] if self.side is None else (self.side, self.side))


def _times(a, b):
  """The product of two bounds, rounded up unless it is exact."""
  return a * b if 1 in (a, b) else float(np.nextafter(a * b, np.inf))


@functools.cache
def _chained(module):
  """One function object a module: jit caches on its identity."""

  def apply(operators, x):
    x = module.frame(x)
    for operator in operators:
      x = operator(x)
    return x

  return apply
