"""Network in Network: each convolution is followed by two of 1 x 1, small networks that slide along.

Three blocks classify (the base learners of Levine & Feizi 2021); a fourth, and the second block as
features, is RotNet (Gidaris, Singh & Komodakis 2018).
"""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from certjax import parallel
from certjax.models._convolutions import conv
from certjax.models._normalize import Normalize


def _mean_pool(x, window, strides, padding):
  """Means over windows, zeros of the padding among them (`nn.avg_pool` divides floats by an integer)."""
  return nn.pooling.pool(x, 0.0, lax.add, window, strides, padding) / math.prod(window)


_BLOCKS = ((5, nn.max_pool), (5, _mean_pool), (3, None), (3, None))
"""The first kernel of each, and what follows it."""


class NetworkInNetwork(nn.Module):
  """[conv 5x5 (w) - 1x1 (5w / 6) - 1x1 (w / 2)] - max pooling - [conv 5x5 (w) - 1x1 - 1x1] - average pooling
  - [conv 3x3 (w) - 1x1 - 1x1] (twice in four blocks) - mean over pixels - dense K.

  BatchNorm and ReLU after every convolution, pooling 3x3 of stride 2. For w = 192 and three blocks 996,042
  weights on MNIST, 1,005,642 on CIFAR-10.

  Attributes:
    num_classes: K.
    width: w.
    blocks: 3, or 4 as in RotNet.
    mean, std: normalisation of each channel.
    axis: mesh axis over which BatchNorm takes its statistics in training, or None.

  Raises:
    ValueError: when called, for other numbers of blocks.

  Example:
    >>> import jax
    >>> x = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
    >>> variables = jax.eval_shape(NetworkInNetwork(10).init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    1005642

  References:
    Lin, Chen & Yan 2014 (arXiv:1312.4400).
  """

  num_classes: int
  width: int = 192
  blocks: int = 3
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)
  axis: str | None = parallel.AXIS

  @nn.compact
  def __call__(self, x, train=False, mask=None):
    """float[B, H, W, C] -> float[B, K]; rows outside mask[B] are in no statistics."""
    if self.blocks not in (3, 4):
      raise ValueError(f'`blocks` must be 3 or 4, got {self.blocks}.')
    x, w = Normalize(self.mean, self.std)(x), self.width
    for i in range(self.blocks):
      features = (w, 5 * w // 6, w // 2) if i == 0 else (w, w, w)
      size, pool = _BLOCKS[i]
      x = _Block(features, size, pool, self.axis, name=f'block{i + 1}')(x, train, mask)
    return nn.Dense(self.num_classes, name='fc')(jnp.mean(x, axis=(1, 2)))


class _Block(nn.Module):
  """A convolution and two of 1 x 1, each with BatchNorm and ReLU, and a pooling."""

  features: tuple[int, int, int]
  size: int
  pool: Callable | None
  axis: str | None

  @nn.compact
  def __call__(self, x, train, mask):
    shown = None if mask is None else mask[:, None, None, None]
    norm = functools.partial(
      nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5,
      axis_name=self.axis if train else None,
    )  # fmt: skip
    for i, features in enumerate(self.features):
      size = self.size if i == 0 else 1
      x = conv(features, (size, size), padding=size // 2, name=f'conv{i + 1}')(x)
      x = nn.relu(norm(name=f'bn{i + 1}')(x, mask=shown))
    if self.pool is None:
      return x
    return self.pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
