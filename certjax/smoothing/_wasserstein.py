r"""Wasserstein smoothing of Levine & Feizi 2020: Laplace noise on the flow between neighbours.

Mass moves along the edges of the pixel grid. The cheapest signed flow delta that takes one image to
another of the same mass costs, by Beckmann's theorem, as much as the cheapest transport plan whose
unit is moved by |dh| + |dw| pixels,

  min { ||delta||_1 : x' = x + div delta } = W(x, x'),   ground distance l1.

So a shift of the flow by delta is what the adversary does, and independent Laplace noise on the flow
certifies W as on pixels it certifies L1. The straight distance is at least |dh| + |dw| over sqrt 2,
which gives the radius for the l2 ground distance.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from certjax.smoothing._earlier import pixeldp_radius
from certjax.smoothing._family import check_positive, check_shape
from certjax.smoothing._laplace import laplace
from certjax.smoothing._protocol import Smoothing
from certjax.tracing import is_traced

_RELATIVE = 1e-14  # Two products and a rounded sqrt(2): below 3 ulp.
_PREFIX = 'wasserstein-'


def wasserstein(
  *, sigma: float, shape: tuple, ground='l2', bound='tight', noise='flow', norm=None
) -> Smoothing:
  r"""Laplace noise on the flow of mass from each pixel to its neighbours, channel by channel.

    m = sum x,  x~ = m (x / m + div z),  z_e ~ Laplace(scale) on each edge e,  scale = sigma / sqrt(2)
    (div z)_p = sum of z_e over the edges into p - sum of z_e over the edges out of p

    l1: radius = -scale ln(2 (1 - p_a))            tight (Teng et al. 2020), or
                 (scale / 2) ln(p_a / (1 - p_a))   levine (the paper's)
    l2: the same / sqrt(2)

  x~ has the mass of x up to rounding, is not clipped, and may be negative. The certificate is for every
  x' of the same mass in each channel with W(x / m, x' / m) <= radius: one unit is all the mass moved
  by one pixel.

  Args:
    sigma: standard deviation of the flow along an edge, as a share of the image's mass.
    shape: (H, W, C) of the images.
    ground: distance over which mass is moved: 'l1' or 'l2'.
    bound: 'tight', or 'levine', which is never larger.
    noise: 'flow', or 'pixels': the paper's baseline, Laplace noise on x / m itself. A unit of mass
      changes two pixels wherever it goes, so ||x - x'||_1 <= 2 W for either ground distance, and the
      radius is half that of Laplace noise.
    norm: 'wasserstein-l1' or 'wasserstein-l2' instead of `ground`.

  Returns:
    A `Smoothing` in norm 'wasserstein-l1' or 'wasserstein-l2', unit 'mass'. An image without mass has no
    certificate: its samples are NaN, which vote for nobody.

  Raises:
    ValueError: unless `sigma` is positive and finite, for unknown names, an image of one pixel, or
      from `sample`, for an image that is no tracer and whose mass is not positive.

  Example:
    >>> law = wasserstein(sigma=0.01, shape=(28, 28, 1), bound='levine')
    >>> round(float(law.radius(0.05 ** (1 / 10_000))), 6)
    0.020283
    >>> law.norm
    'wasserstein-l2'

  References:
    Levine & Feizi 2020, "Wasserstein Smoothing: Certified Robustness against Wasserstein Adversarial
    Attacks" (arXiv:1910.10783); Beckmann 1952, A continuous model of transportation.
  """
  shape, _ = check_shape(shape)
  check_positive(sigma=sigma)
  if norm is not None:
    ground = norm.removeprefix(_PREFIX)
  for name, value, known in (
    ('norm' if norm else 'ground', ground, _GROUNDS), ('bound', bound, _BOUNDS),
    ('noise', noise, _NOISES),
  ):  # fmt: skip
    if value not in known:
      raise ValueError(f'`{name}` must be one of {", ".join(known)}, got {value!r}.')
  if len(shape) != 3 or shape[0] * shape[1] < 2:
    raise ValueError(f'`shape` must be (H, W, C) with two pixels or more, got shape={shape}.')
  add, share = _NOISES[noise], _share(noise, ground)
  sample = jax.tree_util.Partial(add, sigma / math.sqrt(2))
  return Smoothing(sample, _radius(_BOUNDS[bound](sigma), share), _PREFIX + ground, 'mass', shape)


def divergence(down, right):
  """What a flow along the edges of a grid adds to its pixels.

  Args:
    down: float[H - 1, W, C], from pixel (i, j) to (i + 1, j).
    right: float[H, W - 1, C], from pixel (i, j) to (i, j + 1).

  Returns:
    float[H, W, C], whose sum in each channel is 0.

  Example:
    >>> flow = jnp.zeros((0, 3, 1)), jnp.array([[[0.5], [0.25]]])
    >>> divergence(*flow)[0, :, 0].tolist()
    [-0.5, 0.25, 0.25]
  """
  pad = lambda flow, axis, side: jnp.pad(flow, [side if a == axis else (0, 0) for a in range(3)])
  into = pad(down, 0, (1, 0)) + pad(right, 1, (1, 0))
  return into - pad(down, 0, (0, 1)) - pad(right, 1, (0, 1))


def _flow(key, shape, dtype):
  height, width, channels = shape
  down, right = jax.random.split(key)
  return divergence(
    jax.random.laplace(down, (height - 1, width, channels), dtype),
    jax.random.laplace(right, (height, width - 1, channels), dtype),
  )


def _sampler(draw):
  """A sampler whose noise is `draw` in units of scale and mass: traced once for all scales."""

  def sample(scale, key, x):
    mass = jnp.sum(x)
    if not is_traced(mass) and not mass > 0:
      raise ValueError(f'an image needs a positive mass to be normalised by, got sum(x)={mass}.')
    unit = jnp.asarray(scale, x.dtype) * jnp.where(mass > 0, mass, jnp.nan)
    return x + unit * draw(key, x.shape, x.dtype)

  return sample


_NOISES = {'flow': _sampler(_flow), 'pixels': _sampler(jax.random.laplace)}
_GROUNDS = ('l1', 'l2')
_BOUNDS = {
  'tight': lambda sigma: laplace(sigma=sigma).radius,
  'levine': lambda sigma: (
    lambda p_a, p_b: pixeldp_radius(p_a, p_b, sigma=sigma, mechanism='laplace')
  ),
}


def _share(noise, ground):
  """Radius of the ground distance over the radius in L1 of the noise."""
  if noise == 'pixels':
    return 0.5
  return 1.0 if ground == 'l1' else math.sqrt(0.5)


def _radius(in_l1, share):
  def radius(p_a, p_b=None, *, x=None):
    value = np.nextafter(in_l1(p_a, p_b) * share * (1 - _RELATIVE), -np.inf)
    value = np.where(value > 0, value, 0.0)
    if x is None:
      return value
    mass = np.sum(np.asarray(x, np.float64), axis=(-3, -2, -1))
    return np.where(mass > 0, value, 0.0)

  return radius
