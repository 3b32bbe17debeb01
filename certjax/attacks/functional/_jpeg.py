"""Attack in JPEG's coefficients (Kang et al. 2019): waves of 8 x 8 pixels, in steps of its quantisation.

  RGB -> YCbCr -> colours averaged over 2 x 2 pixels -> blocks of 8 x 8 -> orthonormal DCT -> / Q

Without rounding all of it is affine: a change of coefficients is a change of the image, whatever the image.
"""

import jax.numpy as jnp
import numpy as np

from certjax import threats
from certjax.attacks.functional._field import check_choice
from certjax.attacks.functional._functional import Functional, in_box

_BLOCK = 8
LUMA = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ]
)
CHROMA = np.full((_BLOCK, _BLOCK), 99)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
TO_YCBCR = np.array(
  [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
_FROM_YCBCR = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
COSINES = np.cos(np.outer(np.arange(_BLOCK), 2 * np.arange(_BLOCK) + 1) * np.pi / 16) / 2
COSINES[0] /= np.sqrt(2)
# The standard's (ITU-T T.81, annex K) tables at quality 50, its colours, and the orthonormal DCT-II; JPEG as a defence
# (`defenses.jpeg`) has them from here.


def jpeg(eps, *, norm='linf', cap=2.0, compat=False) -> Functional:
  """Each coefficient of JPEG at quality 50 moves by half a step of its quantisation times latent.

    x_adv = clip(x + decoded(latent / 2), 0, 1)

  A latent of 1 is the largest error that JPEG's rounding makes; in the mean of a block of Y it is one
  grey level. An image with one channel is its own Y.

  Args:
    eps: bound on the latent's norm; may be traced.
    norm: 'linf', 'l2' or 'l1' over all coefficients of the image.
    cap: largest |latent| of one coefficient in 'l2' and 'l1'.
    compat: the image passes through the codec too, which averages its colours over 2 x 2 pixels (as in
      UAR's code), so that a latent of 0 changes it.

  Returns:
    A `Functional` with latents float[N]: N = 1.5 H W for colour, H W for grey.

  Raises:
    ValueError: if `eps` is negative, `cap` not positive, the norm unknown, the image has sides that 16
      (8 for grey) does not divide, or neither 1 nor 3 channels.

  Example:
    >>> mean = jnp.zeros(64).at[0].set(0.5)
    >>> x_adv = jpeg(0.5).decode(jnp.full((8, 8, 1), 0.5), mean)
    >>> [round(255 * float(value - 0.5), 4) for value in (x_adv.min(), x_adv.max())]
    [0.5, 0.5]

  References:
    Kang et al. 2019 (arXiv:1908.08016), section 3; ITU-T T.81, annex K.
  """
  # Deviation: L1 by projected ascent (optimizer 'l2'), where the authors use Frank-Wolfe.
  check_choice('norm', norm, ('linf', 'l2', 'l1'))
  if not cap > 0:
    raise ValueError(f'`cap` must be positive, got cap={cap}: the default is 2.')

  def decode(x, latent):
    if compat:
      through = decode_jpeg(encode_jpeg(x) + latent / 2, x.shape)
      return jnp.where(jnp.asarray(eps) > 0, jnp.clip(through, 0, 1), x)
    return jnp.clip(x + _decode_change(latent / 2, x.shape), 0, 1)

  size = lambda shape: (sum(np.prod(part, dtype=int) for part in _parts(shape)),)
  threat = in_box('jpeg', eps, 'largest rounding errors', size, decode)
  return threat if norm == 'linf' else _in_ball(threat, norm, cap)


def encode_jpeg(x):
  """Coefficients over Q, not rounded: those of Y, then of Cb and Cr, block by block.

  Args:
    x: float[H, W, 3] or float[H, W, 1] in [0, 1]; 16, or 8, divides the sides.

  Returns:
    float[N].

  Example:
    >>> round(float(encode_jpeg(jnp.ones((8, 8, 1)))[0]), 3)  # 8 * 127 / 16
    63.5
  """
  planes = [255 * x[..., 0]] if x.shape[-1] == 1 else _split_colours(255 * x)
  parts = _parts(x.shape)
  planes = [planes[0] - 128, *planes[1:]]
  flat = [_transform(plane, i).ravel() for i, plane in enumerate(planes[: len(parts)])]
  return jnp.concatenate(flat)


def decode_jpeg(coefficients, shape):
  """The image of coefficients over Q; each colour covers 2 x 2 pixels.

  Args:
    coefficients: float[N], as from `encode_jpeg`.
    shape: (H, W, C) of the image.

  Returns:
    float[H, W, C], not cut to [0, 1].

  Example:
    >>> bool(abs(decode_jpeg(jnp.zeros(64), (8, 8, 1)) - 128 / 255).max() < 1e-6)
    True
  """
  return 128 / 255 + _decode_change(coefficients, shape)


def rgb_to_ycbcr(rgb):
  """JFIF's Y, Cb, Cr of colours, all in [0, 255].

  Example:
    >>> rgb_to_ycbcr(jnp.array([0.0, 0.0, 0.0])).tolist()
    [0.0, 128.0, 128.0]
  """
  return jnp.stack([plane + (128 if i else 0) for i, plane in enumerate(_rows(TO_YCBCR, rgb))], -1)


def ycbcr_to_rgb(ycbcr):
  """The inverse of `rgb_to_ycbcr`, up to 2e-4: its matrix has six decimals.

  Example:
    >>> ycbcr_to_rgb(jnp.array([255.0, 128.0, 128.0])).tolist()
    [255.0, 255.0, 255.0]
  """
  y, cb, cr = (ycbcr[..., i] - (128 if i else 0) for i in range(3))
  return jnp.stack(_rows(_FROM_YCBCR, jnp.stack([y, cb, cr], axis=-1)), axis=-1)


def _decode_change(coefficients, shape):
  """The linear part: without the 128 of grey and the 128 of Cb and Cr."""
  planes, start = [], 0
  for i, part in enumerate(_parts(shape)):
    end = start + int(np.prod(part))
    blocks = coefficients[start:end].reshape(part) * _table(i, coefficients)
    dct = jnp.asarray(COSINES, coefficients.dtype)
    plane = jnp.einsum('ui,hwuv,vj->hiwj', dct, blocks, dct, precision='highest')
    planes.append(plane.reshape(part[0] * _BLOCK, part[1] * _BLOCK))
    start = end
  if len(planes) == 1:
    return planes[0][..., None] / 255
  planes[1:] = [jnp.repeat(jnp.repeat(plane, 2, 0), 2, 1) for plane in planes[1:]]
  return jnp.stack(_rows(_FROM_YCBCR, jnp.stack(planes, axis=-1)), axis=-1) / 255


def _transform(plane, index):
  height, width = plane.shape
  blocks = plane.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
  dct = jnp.asarray(COSINES, plane.dtype)
  blocks = jnp.einsum('ui,hiwj,vj->hwuv', dct, blocks, dct, precision='highest')
  return blocks / _table(index, plane)


def _split_colours(rgb):
  """Y[H, W], and Cb and Cr without their 128, [H / 2, W / 2]."""
  height, width, _ = rgb.shape
  y, *colours = _rows(TO_YCBCR, rgb)
  halve = lambda plane: plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
  return [y, *map(halve, colours)]


def _table(index, like):
  return jnp.asarray((CHROMA if index else LUMA)[None, None], like.dtype)


def _rows(matrix, colour):
  """The rows of matrix @ colour, on every backend in full precision."""
  return [sum(float(row[i]) * colour[..., i] for i in range(3)) for row in matrix]


def _parts(shape):
  """Shape of the coefficients of each plane: [rows of blocks, blocks in a row, 8, 8]."""
  height, width, channels = shape
  unit = {1: _BLOCK, 3: 2 * _BLOCK}.get(channels)
  if unit is None or height % unit or width % unit:
    raise ValueError(
      f'`jpeg` needs 3 channels and sides that 16 divides, or 1 channel and sides that 8 divides, '
      f'got shape {shape}: pad or resize the images.'
    )
  blocks = lambda size: (height // size, width // size, _BLOCK, _BLOCK)
  return [blocks(_BLOCK)] + [blocks(2 * _BLOCK)] * (channels - 1)


def _in_ball(threat, norm, cap):
  """The latents of a ball, none of them above cap: [-cap, cap] is [0, 1] around 1/2 for `threats`."""
  width = 2 * cap
  ball = {'l2': threats.l2, 'l1': threats.l1}[norm](threat.eps / width)
  middle = lambda latent: jnp.full_like(latent, 0.5)
  project = lambda latent: (ball.project(middle(latent), 0.5 + latent / width) - 0.5) * width
  return threat._replace(
    project=lambda x, latent: project(latent),
    sample=lambda key, x: (ball.sample(key, middle(threat.init(key, x))) - 0.5) * width,
    distance=lambda latent: width * ball.distance(jnp.zeros_like(latent), latent / width),
  )
