"""LipNeXt: orthogonal matrices on the channels and shifts of the pixels, no convolution.

Every layer keeps the norm of differences or shrinks it, for any image size.
"""

from certjax import layers
from certjax.models._chain import LAST, Chain, Flatten, L2Pool, Patches, check_images, rounded_up
from certjax.models._convolutions import check_choice

_STILL = ((0, 0),)


class LipNeXt(Chain):
  """Patches, layers of two orthogonal matrices with a shift between them, pooling, last layer:

    x -> patches -> x Q -> [beta-Abs(shift(x R) M + b)] ... -> L2 norm of each channel -> logits

  Between two stages, L2 pooling of 2 x 2 windows. Images get zeros around them, up to multiples of the
  patch and of all pooling.

  Attributes:
    num_classes: K.
    depths: layers of each stage.
    width: W, channels.
    patch: side of the patches.
    beta: share of the channels whose sign is dropped.
    last: 'normalized' (rows of norm 1) or 'orthogonal'.
    mean, std: normalisation of each channel.

  Raises:
    ValueError: when called, for an unknown name, or numbers that make no network.

  Example:
    >>> import jax
    >>> x = jax.numpy.zeros((1, 32, 32, 3))
    >>> module = LipNeXt(10, mean=(0.5,) * 3, std=(0.25,) * 3)
    >>> params = jax.eval_shape(module.init, jax.random.key(0), x)['params']
    >>> sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.shape == (1024, 1024)) / 2**20
    64.0

  References:
    LipNeXt (arXiv:2601.18513).
  """

  # Deviation: of the paper, only the parts, the widths and depths, and the counts of weights (64 M
  # for 32 layers of width 1024: two square matrices each) are known here; patch, beta, the order
  # inside a layer, stages, and the last layer are fields or choices of this file.

  num_classes: int
  depths: tuple[int, ...] = (32,)
  width: int = 1024
  patch: int = 2
  beta: float = 0.5
  last: str = 'normalized'
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  def _side(self, height, width):
    return rounded_up((height, width), self.patch << len(self.depths) - 1)

  def _layers(self, side):
    yield 'patches', Patches(self.patch, parent=None)
    yield 'stem', layers.OrthogonalLinear(self.width, parent=None)
    for stage, depth in enumerate(self.depths):
      if stage:
        yield f'pool{stage}', L2Pool(2, parent=None)
      for index in range(depth):
        place = f'{stage + 1}_{index}'
        yield f'shift{place}', layers.LipNeXtBlock(beta=0.0, use_bias=False, parent=None)
        yield f'mix{place}', layers.LipNeXtBlock(beta=self.beta, shifts=_STILL, parent=None)
    yield 'pool', L2Pool(parent=None)
    yield 'flatten', Flatten(parent=None)
    orthogonal = self.last == 'orthogonal'
    head = layers.OrthogonalLinear if orthogonal else layers.NormalizedLinear
    yield 'last', head(self.num_classes, parent=None)

  def _check(self, x):
    check_choice(self, 'last', LAST)
    if not self.depths or min(*self.depths, self.width, self.patch) < 1:
      raise ValueError(
        f'`depths`, `width` and `patch` must be positive, got depths={self.depths}, '
        f'width={self.width}, patch={self.patch}.'
      )
    check_images(x)
