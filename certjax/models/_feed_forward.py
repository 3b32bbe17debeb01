"""Feed-forward networks without normalisation layers: the usual subjects of interval and linear bounds.

Layers carry the numbers of PyTorch's `nn.Sequential`, ReLU and flattening counted, and pixels are
flattened channels first: published weights load as they are.
"""

import math

import jax
from flax import linen as nn

from certjax.layers import conv_general_dilated
from certjax.models._convolutions import check_choice
from certjax.models._normalize import Normalize


def _ibp_init(key, shape, dtype):
  """N(0, s^2) with s = sqrt(2 pi) / fan_in."""
  fan_in = math.prod(shape[:-1])
  return math.sqrt(2 * math.pi) / fan_in * jax.random.normal(key, shape, dtype)


_INITS = {'lecun': nn.initializers.lecun_normal(), 'ibp': _ibp_init}


class FeedForward(nn.Module):
  """Convolutions, then dense layers, with ReLU between any two.

  Attributes:
    num_classes: K.
    convolutions: (features, kernel size, stride) of each.
    hidden: outputs of each dense layer but the last.
    padding: of the convolutions: 'VALID', 'SAME', or a number of zeros on each side.
    kernel_init: 'lecun' (variance 1 / fan_in), or 'ibp' (standard deviation sqrt(2 pi) / fan_in, under
      which interval bounds neither grow nor shrink with depth).
    mean, std: normalisation of each channel.

  Raises:
    ValueError: when called, for an unknown `kernel_init`, or images too small for the kernels.

  Example:
    >>> import jax.numpy as jnp
    >>> module = FeedForward(10, convolutions=((16, 4, 2), (32, 4, 1)), hidden=(100,))
    >>> variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> sorted(variables['params']), variables['params']['5']['kernel'].shape
    (['0', '2', '5', '7'], (3200, 100))

  References:
    Gowal et al. 2018 (arXiv:1810.12715), small, medium and large; Wong & Kolter 2018
    (arXiv:1711.00851); Shi et al. 2021 (arXiv:2103.17268), the initialisation.
  """

  num_classes: int
  convolutions: tuple[tuple[int, int, int], ...] = ()
  hidden: tuple[int, ...] = ()
  padding: str | int = 'VALID'
  kernel_init: str = 'lecun'
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  @nn.compact
  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, K]."""
    del train
    check_choice(self, 'kernel_init', _INITS)
    make = _INITS[self.kernel_init]
    number, shape = 0, x.shape
    x = Normalize(self.mean, self.std)(x)
    for features, size, strides in self.convolutions:
      conv = nn.Conv(
        features, (size, size), strides=strides, padding=self.padding, kernel_init=make,
        conv_general_dilated=conv_general_dilated, name=str(number),
      )  # fmt: skip
      x, number = nn.relu(conv(x)), number + 2
      if not x.size:
        raise ValueError(
          f'images of shape {shape[1:]} are too small for {len(self.convolutions)} convolutions '
          f'with `padding`={self.padding!r}: take `SAME`, or a smaller model.'
        )
    x, number = x.transpose(0, 3, 1, 2).reshape(len(x), -1), number + 1
    for features in self.hidden:
      x, number = nn.relu(nn.Dense(features, kernel_init=make, name=str(number))(x)), number + 2
    return nn.Dense(self.num_classes, kernel_init=make, name=str(number))(x)


_SMALL = {'convolutions': ((16, 4, 2), (32, 4, 1)), 'hidden': (100,)}
_MEDIUM = {'convolutions': ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2)), 'hidden': (512, 512)}
_LARGE = {
  'convolutions': ((64, 3, 1), (64, 3, 1), (128, 3, 2), (128, 3, 1), (128, 3, 1)),
  'hidden': (512,),
  'padding': 'SAME',
}
FEED_FORWARD = {
  'ibp-small': _SMALL,
  'ibp-medium': _MEDIUM,
  'ibp-large': _LARGE,
  'kw-mnist': {'convolutions': ((16, 4, 2), (32, 4, 2)), 'hidden': (100,), 'padding': 1},
  'ablation-cnn': {
    'convolutions': ((64, 4, 2), (128, 4, 2)),
    'hidden': (500, 100),
    'padding': 1,
  },
  'mlp-5x100': {'hidden': (100,) * 5},
  'mlp-255': {'hidden': (255,)},
}
"""Name -> fields: the networks of Gowal et al., of Wong & Kolter, Levine & Feizi's under ablation, ERAN's with 5
layers of 100, and Chiang et al.'s with one layer of 255."""
