"""LipConvnet-5b: a convolutional network whose Lipschitz constant is proved, layer by layer."""

import math

from certjax import layers
from certjax.models._chain import ACTIVATIONS, LAST, Chain, Flatten, MaxPool, check_images
from certjax.models._convolutions import LIPSCHITZ, check_choice

POOLS = {None: None, 'lip': layers.LipPool, 'max': MaxPool}


class LipConvNet(Chain):
  """LipConvnet of depth 5 b on 32 x 32 images, and its shorter forms on smaller ones.

  Every stage has b layers, a convolution and an activation each: b - 1 of stride 1 with w channels,
  and one of stride 2 with 2 w, the w of the next stage. Kernels are 3 x 3; the last one of all,
  which sees a single pixel, is 1 x 1.

  With `pool`, the later form: one more layer of w channels comes first, and the convolutions of
  stride 2 drop no channel, they make 4 w, of which the pooling of pairs, in place of the activation,
  leaves 2 w. The last stage begins with its stride, and its kernels are 1 x 1.

  Images get zeros around them, up to the next power of two, and there is one stage for each
  halving down to 1 x 1: five for 32 x 32 and 28 x 28, three for 8 x 8.

  Attributes:
    num_classes: K.
    conv: a key of `LIPSCHITZ`, built with its own padding: zeros for SOC, else circular.
    blocks: b.
    width: w of the first stage, even.
    activation: 'maxmin', 'hh1' or 'hh2'.
    last: 'orthogonal' (a 1 x 1 convolution of the same kind), 'normalized' (rows of norm 1), 'curvature' (a
      `layers.CurvatureHead`: CRC-Lip), or None: the features, without a last layer.
    mean, std: normalisation of each channel.
    pool: None, 'lip' (the learned `layers.LipPool`) or 'max' (the larger of every pair).
    hidden, beta: of the curvature head.

  Raises:
    ValueError: when called, for an unknown name, an odd width, or images of one pixel.

  Example:
    >>> import jax
    >>> module = LipConvNet(10, width=2)
    >>> variables = jax.jit(module.init)(jax.random.key(0), jax.numpy.zeros((1, 8, 8, 1)))
    >>> sorted(name for name in variables['params'] if name.startswith('conv'))
    ['conv1_0', 'conv2_0', 'conv3_0']
    >>> layers.lipschitz_upper(module, variables)
    1.0

  References:
    Singla & Feizi 2021 (arXiv:2105.11417), Table 7; last = 'normalized': Singla, Singla & Feizi
    2022 (arXiv:2108.04062); `pool`, last = 'curvature': Singla & Feizi 2022 (arXiv:2211.08453).
  """

  num_classes: int
  conv: str = 'soc'
  blocks: int = 1
  width: int = 32
  activation: str = 'maxmin'
  last: str | None = 'orthogonal'
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)
  pool: str | None = None
  hidden: int = 4096
  beta: float = 1.0

  def _side(self, height, width):
    side = 1 << (max(height, width) - 1).bit_length()
    return side, side

  def _layers(self, side):
    conv, activation = LIPSCHITZ[self.conv], ACTIVATIONS[self.activation]
    if self.pool:
      yield 'stem', conv(self.width, 3, parent=None)
      yield 'stem_act', activation(parent=None)
    num_stages = int(math.log2(side))
    for stage in range(num_stages):
      for block in range(self.blocks):
        features, size, strides = self._shape(stage, block, stage == num_stages - 1)
        place = f'{stage + 1}_{block}'
        follow = POOLS[self.pool] if self.pool and strides == 2 else activation
        yield f'conv{place}', conv(features, size, strides=strides, parent=None)
        yield f'act{place}', follow(parent=None)
    if self.last == 'normalized':
      yield 'last', layers.NormalizedLinear(self.num_classes, parent=None)
    elif self.last == 'curvature':
      yield 'last', layers.CurvatureHead(self.num_classes, self.hidden, self.beta, parent=None)
    elif self.last == 'orthogonal':
      yield 'last', conv(self.num_classes, 1, parent=None)
    yield 'flatten', Flatten(parent=None)

  def _shape(self, stage, block, is_last):
    """(features, kernel size, strides) of a convolution."""
    width = self.width << stage
    first, final = block == 0, block == self.blocks - 1
    if not self.pool:
      return width << final, 1 if is_last and final else 3, 1 + final
    if is_last:
      return (4 * width, 1, 2) if first else (2 * width, 1, 1)
    return (4 * width, 3, 2) if final else (width, 3, 1)

  def known(self, variables):
    """The layers of given variables, which know how many stages there are."""
    convolutions = [name for name in variables['params'] if name.startswith('conv')]
    return list(self._layers(1 << len(convolutions) // self.blocks))

  def _check(self, x):
    for field, known in (
      ('conv', LIPSCHITZ), ('activation', ACTIVATIONS), ('last', (*LAST, 'curvature', None)), ('pool', POOLS)
    ):  # fmt: skip
      check_choice(self, field, known)
    if self.blocks < 1 or self.width < 2 or self.width % 2:
      raise ValueError(
        f'`blocks` must be at least 1 and `width` even and positive (activations take pairs of '
        f'channels), got blocks={self.blocks}, width={self.width}.'
      )
    check_images(x)
