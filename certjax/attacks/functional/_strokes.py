"""Gabor noise and snow (Kang et al. 2019): strokes at random places whose strength an attacker chooses.

Places and angles are drawn for each image and stay; the search moves the strengths alone. A
stroke is added up from its formula, so each step holds number * H * W values an image.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from certjax.attacks.functional._functional import (
  Functional,
  check_eps,
  image_shape,
  no_penalty,
)


class Strokes(NamedTuple):
  """Where strokes lie, and how strong they are.

  Attributes:
    strength: float[number], what is searched.
    place: float[number, 2], the middle, as shares of height and width.
    angle: float[number], of the stroke against the horizontal.
  """

  strength: Any
  place: Any
  angle: Any


def gabor(eps, *, number=32, sigma=4.0, wavelength=4.0) -> Functional:
  """Adds Gabor noise: waves under Gaussian windows, at random places and in random directions.

    x_adv = clip(x + sum_k latent_k exp(-|r_k|^2 / (2 sigma^2)) cos(2 pi s_k / wavelength), 0, 1)

  with r_k the way from place k, and s_k its part along direction k.

  Args:
    eps: largest |latent_k|, in pixel values; may be traced. Where windows overlap, waves add up.
    number: of waves.
    sigma: standard deviation of a window in pixels.
    wavelength: in pixels.

  Returns:
    A `Functional` with `Strokes` as latents.

  Raises:
    ValueError: if `eps` is negative, or above 1; or another argument is not positive.

  Example:
    >>> wave = Strokes(jnp.ones(1), jnp.array([[1 / 2, 1 / 6]]), jnp.zeros(1))
    >>> [round(float(v), 2) for v in gabor(1.0).decode(jnp.zeros((1, 3, 1)), wave).ravel()]
    [1.0, 0.0, 0.0]

  References:
    Kang et al. 2019 (arXiv:1908.08016), section 3; Lagae et al. 2009, Procedural noise using sparse
    Gabor convolution.
  """
  # Deviation: one wave a place, and noise that is not stretched to [0, 1] nor to an even variance.
  check_eps(eps, largest=1, remedy=f'`eps` is in pixel values: for grey levels write {eps} / 255')
  _check_positive(number=number, sigma=sigma, wavelength=wavelength)

  def decode(x, latent):
    along, across = _ways(latent, x)
    window = jnp.exp(-(along**2 + across**2) / (2 * sigma**2))
    noise = _sum(latent, window * jnp.cos(2 * jnp.pi / wavelength * along))
    return jnp.clip(x + noise, 0, 1)

  return _strokes('gabor', eps, 'pixel value', number, (0, jnp.pi), decode)


def snow(eps, *, number=64, length=2.0, width=0.7) -> Functional:
  """Covers the image with white streaks, at random places and fallen in nearly one direction.

    s = 1 - exp(-sum_k latent_k exp(-a_k^2 / (2 length^2) - b_k^2 / (2 width^2)));  x_adv = x + s (1 - x)

  with a_k and b_k the ways from place k along and across its streak.

  Args:
    eps: largest latent_k; they are at least 0. A streak of 1 hides 63% in its middle. May be traced.
    number: of streaks.
    length: standard deviation along a streak in pixels.
    width: across it.

  Returns:
    A `Functional` with `Strokes` as latents.

  Raises:
    ValueError: if `eps` is negative, or another argument is not positive.

  Example:
    >>> flake = Strokes(jnp.full(1, jnp.log(2.0)), jnp.full((1, 2), 0.5), jnp.zeros(1))
    >>> [round(float(v), 2) for v in snow(1.0).decode(jnp.zeros((1, 1, 1)), flake).ravel()]
    [0.5]

  References:
    Kang et al. 2019 (arXiv:1908.08016), section 3; Hendrycks & Dietterich 2019 (arXiv:1903.12261).
  """
  # Deviation: streaks at random places, not on a lattice of 4 pixels; no budget of a region, and the
  # image is not greyed.
  check_eps(eps)
  _check_positive(number=number, length=length, width=width)

  def decode(x, latent):
    along, across = _ways(latent, x)
    streaks = jnp.exp(-(along**2) / (2 * length**2) - across**2 / (2 * width**2))
    hidden = -jnp.expm1(-_sum(latent, streaks))
    return jnp.clip(x + hidden * (1 - x), 0, 1)

  falling = (jnp.pi / 4, jnp.pi * 5 / 12)  # Down to the right, 45 to 75 degrees.
  return _strokes('snow', eps, 'streaks', number, falling, decode, least=0)


def _strokes(name, eps, unit, number, angles, decode, least=-1):
  def draw(key, x, strength):
    image_shape(x)
    key_place, key_angle = jax.random.split(key)
    place = jax.random.uniform(key_place, (number, 2), x.dtype)
    return Strokes(strength, place, jax.random.uniform(key_angle, (number,), x.dtype, *angles))

  def sample(key, x):
    key_strength = jax.random.fold_in(key, 1)
    strength = jax.random.uniform(key_strength, (number,), x.dtype, least, 1) * eps
    return draw(jax.random.fold_in(key, 0), x, strength)

  def project(x, latent):
    del x
    return latent._replace(strength=jnp.clip(latent.strength, least * eps, eps))

  return Functional(
    name, eps, unit, decode=decode, sample=sample, project=project,
    init=lambda key, x: draw(jax.random.fold_in(key, 0), x, jnp.zeros(number, x.dtype)),
    penalty=no_penalty, distance=lambda latent: jnp.max(jnp.abs(latent.strength)),
  )  # fmt: skip


def _ways(latent, x):
  """float[number, H, W] twice: from each place to each pixel, along the stroke and across."""
  place, angle = lax.stop_gradient((latent.place, latent.angle))

  def one(place, angle):
    rows, columns = (
      (jnp.arange(n, dtype=x.dtype) + 0.5 - place[d] * n) for d, n in enumerate(x.shape[:2])
    )
    rows, columns = jnp.meshgrid(rows, columns, indexing='ij')
    along = jnp.cos(angle) * columns + jnp.sin(angle) * rows
    return along, jnp.cos(angle) * rows - jnp.sin(angle) * columns

  return jax.vmap(one)(place, angle)


def _sum(latent, strokes):
  return jnp.einsum('k,khw->hw', latent.strength, strokes, precision='highest')[..., None]


def _check_positive(**arguments):
  for name, value in arguments.items():
    if not value > 0:
      raise ValueError(
        f'`{name}` must be positive, got {name}={value}: leave it out for the default.'
      )
