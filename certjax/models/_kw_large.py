"""KWLarge: the larger network of Wong & Kolter with orthogonal layers, as BCOP and Cayley used it."""

from certjax import layers
from certjax.models._chain import ACTIVATIONS, LAST, Chain, Flatten, check_images, rounded_up
from certjax.models._convolutions import LIPSCHITZ, check_choice

_LINEAR = {'cayley': layers.CayleyLinear}  # Others: Bjorck's, as with BCOP.
_STRIDES = (1, 2, 1, 2)


class KWLarge(Chain):
  """Four convolutions of w, w, 2 w and 2 w channels, the second and fourth of stride 2, then three
  linear layers (h, h, K), with an activation between any two.

  Images get zeros around them up to multiples of 4.

  Attributes:
    num_classes: K.
    conv: a key of `LIPSCHITZ`, built with its own padding; 'cayley' has Cayley's linear layers, the
      others Bjorck's.
    width: w, even.
    hidden: h, even.
    activation: 'maxmin' (GroupSort of groups of two, as published), 'hh1' or 'hh2'.
    last: 'orthogonal' or 'normalized' (rows of norm 1).
    mean, std: normalisation of each channel.

  Raises:
    ValueError: when called, for an unknown name, an odd width, or images of one pixel.

  Example:
    >>> import jax
    >>> x = jax.numpy.zeros((1, 28, 28, 1))
    >>> variables = jax.eval_shape(KWLarge(10).init, jax.random.key(0), x)
    >>> variables['params']['linear1']['kernel'].shape  # 7 x 7 pixels of 64 channels
    (3136, 512)

  References:
    Li et al. 2019 (arXiv:1911.00937); Trockman & Kolter 2021 (arXiv:2104.07167); the network: Wong et
    al. 2018 (arXiv:1805.12514).
  """

  num_classes: int
  conv: str = 'cayley'
  width: int = 32
  hidden: int = 512
  activation: str = 'maxmin'
  last: str = 'orthogonal'
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  def _side(self, height, width):
    return rounded_up((height, width), 4)

  def _layers(self, side):
    conv, activation = LIPSCHITZ[self.conv], ACTIVATIONS[self.activation]
    linear = _LINEAR.get(self.conv, layers.OrthogonalLinear)
    for index, strides in enumerate(_STRIDES):
      features = self.width << index // 2
      # Deviation: 3 x 3 taps after downsampling where the paper has 4 x 4 of stride 2, which are
      # 2 x 2 there: kernels of these layers are odd.
      yield f'conv{index + 1}', conv(features, 3, strides=strides, parent=None)
      yield f'act{index + 1}', activation(parent=None)
    yield 'flatten', Flatten(parent=None)
    for index in (1, 2):
      yield f'linear{index}', linear(self.hidden, parent=None)
      yield f'linear_act{index}', activation(parent=None)
    head = layers.NormalizedLinear if self.last == 'normalized' else linear
    yield 'last', head(self.num_classes, parent=None)

  def _check(self, x):
    for field, known in (('conv', LIPSCHITZ), ('activation', ACTIVATIONS), ('last', LAST)):
      check_choice(self, field, known)
    if any(n < 2 or n % 2 for n in (self.width, self.hidden)):
      raise ValueError(
        f'`width` and `hidden` must be even and positive (activations take pairs), got '
        f'width={self.width}, hidden={self.hidden}.'
      )
    check_images(x)
