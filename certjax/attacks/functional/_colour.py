"""CIELUV of sRGB colours, with the constants of ReColorAdv and gradients finite everywhere.

  linear = c / 12.92 below .04045, else ((c + .055) / 1.055)^2.4;  XYZ = M linear
  L = 116 Y^(1/3) - 16 above (6/29)^3, else (29/3)^3 Y
  u = 13 L (4 X / (X + 15 Y + 3 Z) - .1978),  v = 13 L (9 Y / (X + 15 Y + 3 Z) - .4683)

White is (100, .057, .040) and not (100, 0, 0): the white point has four decimals. Colours come last.
"""

import jax.numpy as jnp
import numpy as np

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9504]])
_FROM_XYZ = np.array(
  [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
)
_WHITE_U, _WHITE_V = 0.1978, 0.4683
_KNEE = (6 / 29) ** 3
_SLOPE = (29 / 3) ** 3
_BRIGHTEST = 1.1  # Of X, Y, Z: keeps what colours far from sRGB decode to finite.


def rgb_to_luv(rgb):
  """sRGB to CIELUV.

  Args:
    rgb: float[..., 3] in [0, 1].

  Returns:
    float[..., 3]: L in [0, 100], u in about [-83, 175], v in about [-134, 107].

  Example:
    >>> [round(float(value), 1) for value in rgb_to_luv(jnp.array([1.0, 0.0, 0.0]))]
    [53.2, 175.1, 37.8]

  References:
    CIE 1976; constants as in the code of Laidlaw & Feizi 2019 (arXiv:1906.00001).
  """
  high = rgb > 0.04045
  linear = jnp.where(high, ((jnp.where(high, rgb, 1) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
  x, y, z = _split(_multiply(linear, _TO_XYZ))
  bright = y > _KNEE
  lightness = jnp.where(bright, 116 * jnp.cbrt(jnp.where(bright, y, 1)) - 16, _SLOPE * y)
  total = x + 15 * y + 3 * z
  black = total == 0
  total = jnp.where(black, 1, total)
  u = jnp.where(black, 0, 4 * x / total - _WHITE_U)
  v = jnp.where(black, 0, 9 * y / total - _WHITE_V)
  return jnp.stack([lightness, 13 * lightness * u, 13 * lightness * v], axis=-1)


def luv_to_rgb(luv):
  """CIELUV to sRGB; the inverse of `rgb_to_luv` up to 1e-3, as both matrices have four decimals.

  Args:
    luv: float[..., 3], any numbers. X, Y and Z are cut to [0, 1.1].

  Returns:
    float[..., 3], finite; outside of [0, 1] for colours that sRGB lacks.

  Example:
    >>> [round(float(value), 2) for value in luv_to_rgb(jnp.array([53.39, 0.03, 0.02]))]
    [0.5, 0.5, 0.5]
  """
  lightness, u, v = _split(luv)
  y = jnp.where(lightness <= 8, lightness / _SLOPE, ((lightness + 16) / 116) ** 3)
  scale = _away_from_zero(13 * lightness)
  u, v = u / scale + _WHITE_U, _away_from_zero(v / scale + _WHITE_V)
  x, z = y * 9 * u / (4 * v), y * (12 - 3 * u - 20 * v) / (4 * v)
  xyz = jnp.clip(jnp.stack([x, y, z], axis=-1), 0, _BRIGHTEST)
  linear = _multiply(xyz, _FROM_XYZ)
  high = linear > 0.0031308
  power = 1.055 * jnp.where(high, linear, 1) ** (1 / 2.4) - 0.055
  return jnp.where(high, power, 12.92 * linear)


def rgb_to_unit_luv(rgb):
  """CIELUV as (L / 100, (u + 100) / 200, (v + 100) / 200).

  Saturated colours leave [0, 1]: red has u = 1.375.

  Args:
    rgb: float[..., 3] in [0, 1].

  Returns:
    float[..., 3].

  Example:
    >>> [round(float(value), 3) for value in rgb_to_unit_luv(jnp.array([1.0, 0.0, 0.0]))]
    [0.532, 1.375, 0.689]
  """
  lightness, u, v = _split(rgb_to_luv(rgb))
  return jnp.stack([lightness / 100, (u + 100) / 200, (v + 100) / 200], axis=-1)


def unit_luv_to_rgb(luv):
  """The inverse of `rgb_to_unit_luv`, as `luv_to_rgb` is of `rgb_to_luv`.

  Example:
    >>> [round(float(value), 2) for value in unit_luv_to_rgb(jnp.array([1.0, 0.5, 0.5]))]
    [1.0, 1.0, 1.0]
  """
  lightness, u, v = _split(luv)
  return luv_to_rgb(jnp.stack([100 * lightness, 200 * u - 100, 200 * v - 100], axis=-1))


def _split(colour):
  return colour[..., 0], colour[..., 1], colour[..., 2]


def _multiply(colour, matrix):
  """matrix @ colour, on every backend in full precision."""
  parts = _split(colour)
  rows = [sum(float(row[i]) * parts[i] for i in range(3)) for row in matrix]
  return jnp.stack(rows, axis=-1)


def _away_from_zero(value):
  tiny = 1e-6
  return jnp.where(jnp.abs(value) > tiny, value, tiny)
