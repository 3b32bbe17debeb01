"""Random views of an image, as pure functions of a key: crops, mirror images, colours, rotations.

`(key, image[H, W, C]) -> image[H, W, C]`, in pixel values of [0, 1]; a batch is `jax.vmap`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_RATIO = (3 / 4, 4 / 3)  # Width over height of a resized crop.
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as grey images are made of colours.


def random_crop(key, image, *, pad: int):
  """Zero padding, and a random window of the image's own size: a shift by up to `pad` along each axis.

  Args:
    key: of the offsets.
    image: float[H, W, C].
    pad: pixels added on each side.

  Returns:
    float[H, W, C].

  Example:
    >>> random_crop(jax.random.key(0), jnp.ones((2, 2, 1)), pad=0).ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
  """
  if pad == 0:
    return image
  row, column = jax.random.randint(key, (2,), 0, 2 * pad + 1)
  padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
  return lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), image.shape)


def random_flip(key, image):
  """The image or its mirror image, left for right, with probability 1/2 each.

  Args:
    key: one typed key.
    image: float[H, W, C].

  Returns:
    float[H, W, C].

  Example:
    >>> image = jnp.arange(2.0).reshape(1, 2, 1)
    >>> sorted(random_flip(jax.random.key(1), image).ravel().tolist())
    [0.0, 1.0]
  """
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def random_resized_crop(key, image, *, scale=(0.08, 1.0)):
  """A window of random area and shape, resized to the image's own size (bilinear).

  The area is uniform in `scale` times that of the image, the logarithm of width / height uniform between
  3/4 and 4/3; sides that would stick out are cut to the image's.

  Args:
    key: of area, shape and place.
    image: float[H, W, C].
    scale: (least, largest) share of the image's area.

  Returns:
    float[H, W, C].

  Example:
    >>> image = jnp.full((4, 4, 1), 0.5)
    >>> bool(jnp.allclose(random_resized_crop(jax.random.key(0), image), image))
    True

  References:
    Szegedy et al. 2015 (arXiv:1409.4842), section 6, as Chen et al. 2020 use it.
  """
  height, width, channels = image.shape
  key_area, key_ratio, key_place = jax.random.split(key, 3)
  area = jax.random.uniform(key_area, (), minval=scale[0], maxval=scale[1]) * (height * width)
  ratio = jnp.exp(
    jax.random.uniform(key_ratio, (), minval=np.log(_RATIO[0]), maxval=np.log(_RATIO[1]))
  )
  sides = jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)])
  # Deviation: sides that stick out are cut, where the usual code draws up to ten times again.
  sides = jnp.minimum(sides, jnp.array([height, width], jnp.float32))
  room = jnp.array([height, width], jnp.float32) - sides
  corner = jax.random.uniform(key_place, (2,)) * room
  zoom = jnp.array([height, width], jnp.float32) / sides
  return jax.image.scale_and_translate(
    image, (height, width, channels), (0, 1), zoom, -corner * zoom, 'linear', antialias=False
  )


def random_colours(
  key, image, *, strength: float = 0.5, share: float = 0.8, grey_share: float = 0.2
):
  """Brightness, contrast, saturation and hue, with probability `share`; then grey with `grey_share`.

  Factors are uniform in 1 +- 0.8 `strength`, the hue turns by at most 0.2 `strength` of the circle, around
  the grey axis of the colour cube. Images of one channel have brightness and contrast alone.

  Args:
    key: of all factors.
    image: float[H, W, C], 1 or 3 channels.
    strength: s of the paper.
    share: of the images whose colours change.
    grey_share: of those that become grey.

  Returns:
    float[H, W, C] in [0, 1].

  Example:
    >>> image = jnp.full((2, 2, 3), 0.5)
    >>> 0 <= float(random_colours(jax.random.key(0), image).min()) <= 1
    True

  References:
    Chen et al. 2020 (arXiv:2002.05709), appendix A.
  """
  key_changed, key_factors, key_hue, key_grey = jax.random.split(key, 4)
  low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
  bright, contrast, saturation = jax.random.uniform(key_factors, (3,), minval=low, maxval=high)
  clip = functools.partial(jnp.clip, min=0.0, max=1.0)
  # Deviation: always in this order; the paper draws one.
  changed = clip(image * bright)
  middle = jnp.mean(_grey(changed))
  changed = clip(middle + contrast * (changed - middle))
  if image.shape[2] == 3:
    grey = _grey(changed)
    changed = clip(grey + saturation * (changed - grey))
    turn = jax.random.uniform(key_hue, (), minval=-0.2 * strength, maxval=0.2 * strength)
    # Deviation: a rotation about the grey axis in place of a shift of HSV's hue: smooth everywhere.
    changed = clip(jnp.matmul(changed, _turned(2 * jnp.pi * turn).T, precision='highest'))
  image = jnp.where(jax.random.bernoulli(key_changed, share), changed, image)
  grey = jnp.broadcast_to(_grey(image), image.shape)
  return jnp.where(jax.random.bernoulli(key_grey, grey_share), grey, image)


def rotations(image):
  """The image turned by 0, 90, 180 and 270 degrees against the clock, pixel by pixel.

  Args:
    image: float[H, H, C].

  Returns:
    float[4, H, H, C].

  Raises:
    ValueError: unless it is square.

  Example:
    >>> rotations(jnp.arange(4).reshape(2, 2, 1))[1, ..., 0].tolist()
    [[1, 3], [0, 2]]
  """
  if image.ndim != 3 or image.shape[0] != image.shape[1]:
    raise ValueError(f'rotations need square images [H, H, C], got shape {image.shape}.')
  return jnp.stack([jnp.rot90(image, turns) for turns in range(4)])


def _grey(image):
  """float[H, W, 1], the image's luma."""
  if image.shape[2] != 3:
    return image
  return jnp.sum(image * jnp.array(_LUMA, image.dtype)[None, None], axis=2, keepdims=True)


def _turned(angle):
  """float[3, 3], the rotation by an angle about the grey axis (Rodrigues)."""
  axis = jnp.ones((3, 3), jnp.float32) / 3
  cross = jnp.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], jnp.float32) / jnp.float32(3**0.5)
  return jnp.cos(angle) * (jnp.eye(3) - axis) + axis + jnp.sin(angle) * cross
