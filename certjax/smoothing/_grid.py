"""Sound Gaussian noise for images on the 1/255 grid: integers, drawn with 64 random bits.

With x on the grid, clip(x + round(eps)) = clip(round(x + eps)): rounding and clipping belong
to the classifier, so Cohen's theorem holds for exact Gaussian noise eps, at every grid point
x'. The integer n = round(255 eps) is drawn by inversion,

  |n| = #{i : u < U_i},  U_i = round(2^63 Pr[|eps| > (2 i + 1) / 510]),  u uniform on 63 bits,

with one more bit for the sign. Beyond the clip [-k, k + 1], k = max(1, ceil(6 sigma)), all n
give the same pixel, so nothing is truncated; what is left is the rounding of the thresholds.
"""

import decimal
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LEVELS = 255
_BITS = 63  # Of the magnitude; the 64th is the sign.
_LARGEST_SIGMA = 10.0
_SQRT_2_OVER_PI = decimal.Decimal('0.79788456080286535587989211986876373695171726232986931533')
_DIGITS = 50  # The tail is 1 minus a sum: 2^-63 = 1e-19 keeps 30 digits.
_MIN_TABLE = 4096  # Common length of the tables of all sigma below 1.7: one compiled program.


class Table(NamedTuple):
  """Integer thresholds and the guide into them.

  Attributes:
    guide: int32[64 * 2^m]. Magnitudes u are grouped by their number of leading zeros, 0 to 63,
      and the next m bits; the entry is the number of thresholds above the whole group.
    high, low: uint32, the two words of U_0 > U_1 > ..., padded with zeros.
  """

  guide: np.ndarray
  high: np.ndarray
  low: np.ndarray


def reach(sigma: float) -> int:
  """k of the clip [-k, k + 1]: at least 6 sigma beyond black and white.

  Example:
    >>> reach(0.25), reach(1.0)
    (2, 6)
  """
  # Deviation: Voracek & Hein take int(6 sigma), 4 sigma at sigma = 0.25.
  return max(1, int(np.ceil(6 * sigma)))


def variation(sigma: float) -> float:
  """Bound of the total variation between a pixel's law and the rounded, clipped Gaussian's.

  Each of the thresholds is within half a unit of 2^-63 of its exact value (and 1e-20 of a unit
  of arithmetic, which the last factor covers), and a threshold moves mass between two bins:

    #thresholds * 2^-64  <  2^-50  for all sigma up to 4.

  Example:
    >>> variation(1.0) < 2**-53
    True
  """
  return LEVELS * (reach(sigma) + 1) * 2.0 ** -(_BITS + 1) * (1 + 1e-9)


@functools.lru_cache(maxsize=32)
def thresholds(sigma: float) -> tuple:
  r"""U_0 > U_1 > ... > 0: 2^63 Pr[|N(0, 1)| > z_i] to the nearest integer, z_i = (2i+1)/(510 sigma).

  In 50 decimal digits, by the series with positive terms

    Pr[|N| <= z] = sqrt(2/pi) exp(-z^2/2) sum_k z^(2k+1) / (1 3 5 ... (2k+1)).

  Stops at the clip, or where the thresholds round to 0.

  Args:
    sigma: standard deviation in pixel values.

  Returns:
    Python integers.

  Example:
    >>> [round(value / 2**63, 9) for value in thresholds(1 / 510)][:2]  # Beyond 1 and 3 sigma.
    [0.317310508, 0.002699796]
  """
  values = []
  with decimal.localcontext() as context:
    context.prec = _DIGITS
    unit = 1 / (2 * LEVELS * decimal.Decimal(sigma))  # The float, exactly.
    for i in range(LEVELS * (reach(sigma) + 1)):
      z = (2 * i + 1) * unit
      tail = 1 - _central_mass(z) if z < 12 else decimal.Decimal(0)  # Beyond 9.3 it rounds to 0.
      value = int((tail * 2**_BITS).to_integral_value())
      if value <= 0:
        break
      values.append(value)
  return tuple(values)


def _central_mass(z):
  square, term, total, k = z * z, z, z, 1
  while term > total * decimal.Decimal(10) ** -(_DIGITS - 2):
    k += 2
    term = term * square / k
    total += term
  return _SQRT_2_OVER_PI * (-square / 2).exp() * total


@functools.lru_cache(maxsize=32)
def table(sigma: float) -> Table:
  """The thresholds as two words, with a guide fine enough that one comparison decides.

  Example:
    >>> table(0.25).guide.shape
    (16384,)
  """
  values = np.array(thresholds(sigma)[::-1], np.uint64)  # Ascending, for searchsorted.
  for bits in range(8, 16):
    first, last = _groups(bits)
    above_last = len(values) - np.searchsorted(values, last, side='right')
    above_first = len(values) - np.searchsorted(values, first, side='right')
    if np.all(above_first - above_last <= 1):
      break
  else:  # pragma: no cover: sigma is at most 10.
    raise AssertionError(f'no guide of 15 bits for sigma={sigma}')
  size = max(_MIN_TABLE, 1 << len(values).bit_length())
  padded = np.zeros(size, np.uint64)
  padded[: len(values)] = values[::-1]
  high, low = padded >> np.uint64(32), padded & np.uint64(0xFFFFFFFF)
  return Table(above_last.astype(np.int32), high.astype(np.uint32), low.astype(np.uint32))


def _groups(bits):
  """The first and last magnitude of each group (zeros, next bits), in order of its index."""
  zeros, mantissa = np.divmod(np.arange((_BITS + 1) << bits), 1 << bits)
  lead = np.maximum(_BITS - 1 - zeros, 0)  # Position of the leading one.
  width = np.maximum(lead - bits, 0).astype(np.uint64)
  surplus = np.maximum(bits - lead, 0)  # Zeros shifted in below the last bit.
  first = (np.uint64(1) << lead.astype(np.uint64)) + (
    (mantissa >> surplus).astype(np.uint64) << width
  )
  last = first + ((np.uint64(1) << width) - np.uint64(1))
  none = zeros == _BITS  # u = 0 has no leading one.
  return np.where(none, np.uint64(0), first), np.where(none, np.uint64(0), last)


def sampler(sigma: float):
  """`(key, x) -> clip(x + n / 255)` for ONE image x on the grid, values on the grid.

  Args:
    sigma: standard deviation in pixel values, at most 10.

  Returns:
    A `jax.tree_util.Partial` with the tables as leaves.

  Raises:
    ValueError: if sigma exceeds 10.

  Example:
    >>> x = jnp.full((2, 2, 1), 100 / 255)
    >>> levels = 255 * sampler(0.25)(jax.random.key(0), x)
    >>> bool((jnp.abs(levels - jnp.round(levels)) < 1e-4).all())
    True
  """
  if sigma > _LARGEST_SIGMA:
    raise ValueError(f"`sampler='grid'` serves sigma up to {_LARGEST_SIGMA:g}, got sigma={sigma}.")
  k = reach(sigma)
  lowest, highest = -LEVELS * k, LEVELS * (k + 1)
  # A table, because XLA divides by 255 as a product with 1/255, which misses the grid by an ulp.
  pixels = np.arange(lowest, lowest + max(_MIN_TABLE, highest - lowest + 1)).astype(np.float32)
  pixels /= np.float32(LEVELS)
  return jax.tree_util.Partial(_sample, table(sigma), pixels, np.int32(lowest), np.int32(highest))


@jax.jit
def _sample(table, pixels, lowest, highest, key, x):
  high, low = jax.random.bits(key, (2, *x.shape), jnp.uint32)
  level = jnp.round(LEVELS * x).astype(jnp.int32) + noise(table, high, low)
  return jnp.asarray(pixels)[jnp.clip(level, lowest, highest) - lowest].astype(x.dtype)


def noise(table: Table, high, low):
  """int32[...], the integer noise of 64 uniform bits in two uint32 words.

  Args:
    table: of a sigma.
    high: uint32[...], the sign (its top bit, 1 is negative) and the upper 31 bits of u.
    low: uint32[...], the lower 32 bits of u.

  Example:
    >>> round(int(noise(table(0.25), jnp.uint32(0), jnp.uint32(1))) / 255 / 0.25, 1)  # In sigmas.
    9.0
  """
  guide, bound_high, bound_low = (jnp.asarray(leaf) for leaf in table)
  negative, high = (high >> 31) == 1, high & jnp.uint32(0x7FFFFFFF)
  index = guide[_group(high, low, (guide.size >> 6).bit_length() - 1)]
  bound_high, bound_low = bound_high[index], bound_low[index]
  below = (high < bound_high) | ((high == bound_high) & (low < bound_low))
  magnitude = index + below.astype(jnp.int32)
  return jnp.where(negative, -magnitude, magnitude)


def _group(high, low, bits):
  """Index of a magnitude's group: leading zeros of its 63 bits, then the next bits."""
  big = high != 0
  top, rest = jnp.where(big, high, low), jnp.where(big, low, jnp.uint32(0))
  zeros = lax.clz(top)
  shift = zeros & jnp.uint32(31)
  # A shift by 32 is undefined: by 1, then by up to 31.
  normal = (top << shift) | ((rest >> 1) >> (jnp.uint32(31) - shift))
  octave = jnp.where(big, zeros - jnp.uint32(1), zeros + jnp.uint32(31))
  return ((octave << bits) | ((normal << 1) >> (32 - bits))).astype(jnp.int32)
