"""ReColorAdv (Laidlaw & Feizi 2019): one function of colour for all pixels of an image.

The function is c + Delta(c), with Delta given on a grid over colour space and interpolated between. The paper
interpolates f itself on absolute colours; then colours outside of the grid's cube, such as red in
CIELUV, move though f is the identity. Displacements leave every colour where it is at Delta = 0.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.attacks.functional._colour import rgb_to_unit_luv, unit_luv_to_rgb
from certjax.attacks.functional._field import check_choice, interpolate, variation
from certjax.attacks.functional._functional import Functional, check_eps, in_box

_SPACES = {
  'luv': (rgb_to_unit_luv, unit_luv_to_rgb, (16, 32, 32)),
  'rgb': (lambda rgb: rgb, lambda rgb: rgb, (16, 16, 16)),
  'grey': (lambda grey: grey, lambda grey: grey, (32,)),
}
"""Name -> (from the image's colours, back, points of the default grid, one number a channel)."""


def recolor(eps=0.06, *, space='luv', resolution=None, compat=False) -> Functional:
  """Every colour c becomes c + Delta(c), each channel of Delta at most `eps`.

  The penalty is the grid's variation (6 neighbours), 0.98304 for the identity on 16 x 32 x 32 points. The
  result is cut to [0, 1] in RGB.

  Args:
    eps: as a share of a channel's range: .06 is 6 L*, 12 u* and 12 v*; in 'rgb' and 'grey' pixel
      values. May be traced.
    space: 'luv'; 'rgb'; or 'grey', a curve over the levels of images with one channel.
    resolution: points of the grid along each channel; default (16, 32, 32), (16, 16, 16), (32,).
    compat: ReColorAdv's published code: absolute colours on a cube, points moved into sRGB's gamut. Even
      Delta = 0 changes colours outside of the cube, and those near such points.

  Returns:
    A `Functional` with latents float[*resolution, channels].

  Raises:
    ValueError: if `eps` is outside [0, 1], the space is unknown, a channel has fewer than 2 points, or the
      image has another number of channels.

  Example:
    >>> threat = recolor(0.25, space='grey', resolution=(3,))
    >>> x = jnp.array([[[0.0], [0.25], [0.5]]])
    >>> threat.decode(x, jnp.array([[0.0], [0.25], [0.0]])).ravel().tolist()
    [0.0, 0.375, 0.75]

  References:
    Laidlaw & Feizi 2019 (arXiv:1906.00001).
  """
  check_eps(eps, largest=1, remedy='.06 is 6 L*, and .06 * 255 grey levels')
  check_choice('space', space, _SPACES)
  encode, back, default = _SPACES[space]
  sizes = default if resolution is None else tuple(resolution)
  if len(sizes) != len(default) or min(sizes) < 2:
    raise ValueError(
      f'`resolution` of {space!r} takes {len(default)} numbers of points, each at least 2, got '
      f'resolution={resolution}.'
    )

  def place(colour):
    return jnp.stack([colour[..., d] * (size - 1) for d, size in enumerate(sizes)], axis=-1)

  def decode(x, latent):
    # Deviation: displacements, on which the identity is exact; `compat` takes the authors' f.
    colour = encode(x)
    moved = interpolate(latent, place(colour))
    ahead = back(colour + moved)
    still = jnp.all(moved == 0, axis=-1, keepdims=True)
    # What the way there and back loses cancels; where nothing moves it is one and the same number.
    change = ahead - lax.stop_gradient(jnp.where(still, ahead, back(colour)))
    return jnp.clip(x + change, 0, 1)

  def shape(image):
    if image[-1] != len(sizes):
      raise ValueError(
        f'`space`={space!r} needs images with {len(sizes)} channels, got shape {image}: use '
        f"space='grey' for 1 channel, 'luv' or 'rgb' for 3."
      )
    return *sizes, len(sizes)

  threat = in_box('recolor', eps, 'share of a channel', shape, decode, penalty=variation)
  return _compat(threat, encode, back, sizes, place) if compat else threat


def recolor_of_image(eps):
  """A recolouring in CIELUV; of images with one channel a curve over their levels of grey.

  Args:
    eps: as in `recolor`.

  Returns:
    A `Functional`.

  Example:
    >>> import jax
    >>> threat, key = recolor_of_image(0.06), jax.random.key(0)
    >>> [threat.init(key, jnp.zeros((4, 4, channels))).shape for channels in (1, 3)]
    [(32, 1), (16, 32, 32, 3)]
  """
  colours, greys = recolor(eps), recolor(eps, space='grey')
  of = lambda x: greys if x.shape[-1] == 1 else colours
  return colours._replace(
    init=lambda key, x: of(x).init(key, x),
    sample=lambda key, x: of(x).sample(key, x),
    decode=lambda x, latent: of(x).decode(x, latent),
    project=lambda x, latent: of(x).project(x, latent),
  )


def _compat(threat, encode, back, sizes, place):
  """The authors' parameters: f on absolute colours, and their order of the three constraints."""
  axes = np.meshgrid(*(np.linspace(0, 1, size) for size in sizes), indexing='ij')
  points = lambda latent: jnp.asarray(np.stack(axes, axis=-1), latent.dtype)

  def decode(x, latent):
    moved = interpolate(points(latent) + latent, place(encode(x)))
    # At eps = 0 an attack changes nothing, whatever the cube does.
    return jnp.where(jnp.asarray(threat.eps) > 0, jnp.clip(back(moved), 0, 1), x)

  def project(x, latent):
    inside = jnp.clip(back(jnp.clip(points(latent) + latent, 0, 1)), 0, 1)
    return threat.project(x, encode(inside) - points(latent))

  return threat._replace(
    decode=decode,
    project=project,
    init=lambda key, x: project(x, threat.init(key, x)),
    sample=lambda key, x: project(x, threat.sample(key, x)),
  )
