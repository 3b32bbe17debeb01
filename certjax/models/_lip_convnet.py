"""LipConvnet-5b: a convolutional network whose Lipschitz constant is proved, layer by layer.

All layers but the first are 1-Lipschitz up to what their `lipschitz` states, and there is no
skip connection, so that the product of the constants bounds the network:

  pixels -> (x - mean) / std -> zeros around it -> stages -> last layer -> logits

The normalisation contributes 1 / min(std), the zeros nothing.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from certjax import layers
from certjax.models._normalize import Normalize

CONVOLUTIONS = {
  'soc': layers.SOC, 'bcop': layers.BCOP, 'cayley': layers.Cayley, 'lot': layers.LOT,
  'rko': layers.RKO, 'aol': layers.AOL, 'sll': layers.SLL, 'cpl': layers.CPL, 'bro': layers.BRO,
}  # fmt: skip
ACTIVATIONS = {
  'maxmin': layers.MaxMin,
  'hh1': functools.partial(layers.Householder, order=1),
  'hh2': functools.partial(layers.Householder, order=2),
}
LAST = ('orthogonal', 'normalized')


class LipConvNet(nn.Module):
  """LipConvnet of depth 5 b on 32 x 32 images, and its shorter forms on smaller ones.

  Every stage has b layers, a convolution and an activation each: b - 1 of stride 1 with w channels,
  and one of stride 2 with 2 w, the w of the next stage. Kernels are 3 x 3; the last one of all,
  which sees a single pixel, is 1 x 1.

  Images get zeros around them, up to the next power of two, and there is one stage for each
  halving down to 1 x 1: five for 32 x 32 and 28 x 28, three for 8 x 8.

  Attributes:
    num_classes: K.
    conv: a key of `CONVOLUTIONS`, built with its own padding: zeros for SOC, else circular.
    blocks: b.
    width: w of the first stage, even.
    activation: 'maxmin', 'hh1' or 'hh2'.
    last: 'orthogonal' (a 1 x 1 convolution of the same kind) or 'normalized' (rows of norm 1).
    mean, std: normalisation of each channel.

  Raises:
    ValueError: when called, for an unknown name, an odd width, or images of one pixel.

  Example:
    >>> module = LipConvNet(10, width=2)
    >>> variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    >>> sorted(name for name in variables['params'] if name.startswith('conv'))
    ['conv1_0', 'conv2_0', 'conv3_0']
    >>> layers.lipschitz_upper(module, variables)
    1.0

  References:
    Singla & Feizi 2021 (arXiv:2105.11417), Table 7; last = 'normalized': Singla, Singla & Feizi
    2022 (arXiv:2108.04062).
  """

  num_classes: int
  conv: str = 'soc'
  blocks: int = 1
  width: int = 32
  activation: str = 'maxmin'
  last: str = 'orthogonal'
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  @nn.compact
  def __call__(self, x, train=False):
    self._check(x)
    x = self._framed(x)
    for name, layer in self._layers(int(math.log2(x.shape[1]))):
      x = layer.clone(parent=self, name=name)(x, train)
    return x.reshape(len(x), -1)

  def lipschitz(self, variables) -> float:
    """The constant of the logits as a function of pixels: the product over all layers.

    Args:
      variables: `{'params': ..., 'spectral': ...}`.

    Returns:
      A Python float, rounded up.
    """
    return self._product(variables, self._known(variables))

  def last_layer(self, variables):
    """The rows w_j of logits = w h(x) + b with h 1-Lipschitz in pixels, for `certify.margin`.

    Args:
      variables: `{'params': ..., 'spectral': ...}`.

    Returns:
      float64[K, D], the normalised rows times the constant of all that is below; None for the
      orthogonal last layer, whose rows are sqrt(2) apart at most.
    """
    if self.last == 'orthogonal':
      return None
    *below, (name, _) = self._known(variables)
    kernel = np.asarray(variables['params'][name]['kernel'], np.float64)
    norms = np.linalg.norm(kernel, axis=0)
    return (kernel / np.where(norms > 0, norms, 1)).T * self._product(variables, below)

  def materialize(self, variables):
    """Evaluation with all normalised filters made once.

    Args:
      variables: `{'params': ..., 'spectral': ...}`.

    Returns:
      A `jax.tree_util.Partial`, x -> logits.
    """
    made = tuple(
      layers.materialize(layer, layers.subtree(variables, name))
      for name, layer in self._known(variables)
    )
    return jax.tree_util.Partial(_chained(self), made)

  def _framed(self, x):
    """Normalised, with zeros around it up to a power of two."""
    x = Normalize(self.mean, self.std, parent=None)(x)
    side = 1 << (max(x.shape[1:3]) - 1).bit_length()
    pads = [((side - n) // 2, (side - n + 1) // 2) for n in x.shape[1:3]]
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))

  def _layers(self, num_stages):
    """(name, layer) in order, the last layer included."""
    conv, activation = CONVOLUTIONS[self.conv], ACTIVATIONS[self.activation]
    for stage in range(num_stages):
      for block in range(self.blocks):
        down = block == self.blocks - 1
        features = self.width << (stage + down)
        size = 1 if down and stage == num_stages - 1 else 3
        place = f'{stage + 1}_{block}'
        yield f'conv{place}', conv(features, size, strides=1 + down, parent=None)
        yield f'act{place}', activation(parent=None)
    if self.last == 'normalized':
      yield 'last', layers.NormalizedLinear(self.num_classes, parent=None)
    else:
      yield 'last', conv(self.num_classes, 1, parent=None)

  def _known(self, variables):
    """The layers of given variables, which know how many stages there are."""
    convolutions = [name for name in variables['params'] if name.startswith('conv')]
    return list(self._layers(len(convolutions) // self.blocks))

  def _product(self, variables, chain):
    # Of the exact standard deviation and of the one that float32 makes of it, the smaller.
    std = min(np.min(self.std), np.min(np.float32(self.std)).astype(np.float64))
    bound = 1.0 if std == 1 else float(np.nextafter(1 / std, np.inf))
    for name, layer in chain:
      bound = _times(bound, layers.lipschitz_upper(layer, layers.subtree(variables, name)))
    return bound

  def _check(self, x):
    for field, known in (('conv', CONVOLUTIONS), ('activation', ACTIVATIONS), ('last', LAST)):
      if getattr(self, field) not in known:
        raise ValueError(
          f'`{field}` must be one of {", ".join(known)}; got {getattr(self, field)!r}.'
        )
    if self.blocks < 1 or self.width < 2 or self.width % 2:
      raise ValueError(
        f'`blocks` must be at least 1 and `width` even and positive (activations take pairs of '
        f'channels), got blocks={self.blocks}, width={self.width}.'
      )
    if x.ndim != 4 or max(x.shape[1:3]) < 2:
      raise ValueError(
        f'`x` must be a batch of images [B, H, W, C] of 2 x 2 pixels or more, got shape {x.shape}.'
      )


def _times(a, b):
  """The product of two bounds, rounded up unless it is exact."""
  return a * b if 1 in (a, b) else float(np.nextafter(a * b, np.inf))


@functools.cache
def _chained(module):
  """One function object a module: jit caches on its identity."""

  def apply(operators, x):
    x = module._framed(x)
    for operator in operators:
      x = operator(x)
    return x.reshape(len(x), -1)

  return apply
