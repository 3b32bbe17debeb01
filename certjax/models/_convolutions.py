"""The convolutions that networks are built of: the plain one, and those with a proved constant."""

import functools

from flax import linen as nn

from certjax import layers

conv = functools.partial(
  nn.Conv,
  use_bias=False,
  conv_general_dilated=layers.conv_general_dilated,
  kernel_init=nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
)
"""The convolution of the residual networks."""

LIPSCHITZ = {
  'soc': layers.SOC, 'bcop': layers.BCOP, 'cayley': layers.Cayley, 'lot': layers.LOT,
  'rko': layers.RKO, 'aol': layers.AOL, 'sll': layers.SLL, 'cpl': layers.CPL, 'bro': layers.BRO,
}  # fmt: skip
CONVOLUTIONS = ('plain', *LIPSCHITZ)


def convolution(kind, train, features, kernel_size, stride=1, *, name):
  """A convolution without bias that halves the image `stride` / 2 times; for compact modules.

  The plain one strides; the others move pixels into channels first, so that a 1 x 1 convolution of
  stride 2 sees 4 C channels.

  Args:
    kind: one of `CONVOLUTIONS`.
    train: whether estimates of spectra move.
    features: output channels.
    kernel_size: odd.
    stride: 1 or 2.
    name: of the layer.

  Returns:
    float[B, H, W, C] -> float[B, H / stride, W / stride, features].

  Example:
    >>> import jax
    >>> class Two(nn.Module):
    ...   @nn.compact
    ...   def __call__(self, x):
    ...     x = convolution('plain', False, 4, 3, 2, name='a')(x)
    ...     return convolution('soc', False, 6, 1, 2, name='b')(x)
    >>> Two().init_with_output(jax.random.key(0), jax.numpy.ones((1, 8, 8, 3)))[0].shape
    (1, 2, 2, 6)
  """
  if kind == 'plain':
    size, padding = (kernel_size, kernel_size), kernel_size // 2
    return conv(features, size, strides=stride, padding=padding, name=name)
  layer = LIPSCHITZ[kind](features, kernel_size, strides=stride, use_bias=False, name=name)
  return functools.partial(layer, train=train)


def check_choice(module, field, known):
  """One clear error for a field that is none of `known`.

  Raises:
    ValueError: with the known ones.

  Example:
    >>> check_choice(conv(4, (3, 3), padding='SAME'), 'padding', ('SAME', 'VALID'))
  """
  if getattr(module, field) not in known:
    names = ', '.join(map(str, known))
    raise ValueError(f'`{field}` must be one of {names}; got {getattr(module, field)!r}.')
