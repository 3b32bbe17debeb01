"""Discrete L0 smoothing of Lee, Yuan, Chang & Jaakkola 2019, in exact rational arithmetic.

Every coordinate lives on K + 1 grid values and is kept with probability `keep`, else replaced by
one of the other K. Only the r coordinates in which x and x' differ enter the likelihood ratio, and
only through s = (how many show x) - (how many show x'), so the worst classifier is found among
2 r + 1 regions whatever the dimension. By Neyman and Pearson's lemma it takes the regions of the
largest s first. All masses are integers over a common denominator: no rounding anywhere.

The certificate for r changes holds for fewer: a worst classifier for r - 1 changes is one of the
classifiers for r changes (it ignores one coordinate).
"""

import bisect
import functools
import math
import numbers
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from certjax.smoothing._family import check_shape
from certjax.smoothing._protocol import Smoothing

_BITS = 32  # The sampler's `keep` is a multiple of 2^-32.
_LARGEST = (
  512  # No larger radius is looked for (unless p_a is 1): the integers grow with its square.
)


def discrete(*, keep: float | Fraction, levels: int = 255, shape: tuple) -> Smoothing:
  r"""Keeps each coordinate with probability `keep`, else draws one of the other values.

    x~_i = x_i with probability keep, each of the other K grid values with (1 - keep) / K
    radius = max {r : min Q(A) > max Q(B)}, r coordinates changed,

  where Q(A) is the least probability that A can have r coordinates away from x given at least p_a
  at x, and Q(B) the largest of any other class given at most p_b. Without p_b it is the largest r
  with p_a > rho_r^{-1}(1/2) = `discrete_threshold`. The comparison is exact: p_a and p_b enter as
  the rationals that their floats are.

  x is first rounded to the grid {0, 1/K, ..., 1}: the rounding belongs to the smoothed classifier,
  and as it works coordinate by coordinate the certificate holds for images off the grid too. The
  sampler's probability is `keep` rounded to 32 bits. Radii above 512 are returned as 512, except
  that p_a = 1 proves every image.

  Args:
    keep: probability of keeping a coordinate, in (1 / (K + 1), 1); a float stands for the decimal
      that prints it (0.8 is 4/5), a `fractions.Fraction` for itself.
    levels: K: the grid is {0, 1/K, ..., 1}; 255 for 8-bit images, 1 for binary ones.
    shape: (H, W, C); the radius cannot exceed H W C.

  Returns:
    A `Smoothing` in norm 'l0', unit 'pixels' where C is 1, else 'features' (coordinates).

  Raises:
    ValueError: if `keep` is outside (1 / (K + 1), 1), or `levels` or `shape` is not positive.

  Example:
    >>> float(discrete(keep=0.8, levels=1, shape=(28, 28, 1)).radius(0.99))
    2.0

  References:
    Lee, Yuan, Chang & Jaakkola 2019, "Tight Certificates of Adversarial Robustness for Randomly
    Smoothed Classifiers" (arXiv:1906.04948).
  """
  exact, levels = _check(keep, levels), int(levels)
  shape, dimension = check_shape(shape)
  radius = functools.partial(_radius, exact, levels, dimension)
  unit = 'pixels' if shape[-1] == 1 else 'features'
  cutoff = np.uint32(min(round(exact * 2**_BITS), 2**_BITS - 1))
  sample = jax.tree_util.Partial(_sample, cutoff, np.int32(levels))
  return Smoothing(sample, lambda p_a, p_b=None, *, x=None: radius(p_a, p_b), 'l0', unit, shape)


def discrete_threshold(keep: float | Fraction, levels: int, radius: int) -> Fraction:
  """The probability that a class must exceed to be certified for `radius` changed coordinates.

    rho_r^{-1}(1/2): the P-mass of the regions of largest likelihood ratio whose Q-mass is 1/2,

  the last region taken in part. It does not depend on the dimension.

  Args:
    keep: as `discrete`.
    levels: as `discrete`.
    radius: number r >= 0 of changed coordinates.

  Returns:
    The exact threshold; a class with p_a above it is the smoothed class of every image that
    differs in at most r coordinates (at equality another class may tie).

  Raises:
    ValueError: as `discrete`, and if `radius` is not an integer at least 0.

  Example:
    >>> discrete_threshold(0.8, 1, 1)
    Fraction(7, 8)
  """
  if not isinstance(radius, numbers.Integral) or radius < 0:
    raise ValueError(f'`radius` is a number of changed coordinates >= 0, got radius={radius}.')
  return _threshold(_check(keep, levels), int(levels), int(radius))


def _sample(cutoff, levels, key, x):
  keep_key, value_key = jax.random.split(key)
  index = jnp.clip(jnp.round(x * levels.astype(x.dtype)), 0, levels.astype(x.dtype))
  index = index.astype(jnp.int32)
  kept = jax.random.bits(keep_key, x.shape, jnp.uint32) < cutoff
  other = index + 1 + jax.random.randint(value_key, x.shape, 0, levels)
  other = jnp.where(other > levels, other - levels - 1, other)
  return jnp.where(kept, index, other).astype(x.dtype) / levels.astype(x.dtype)


def _masses(keep, levels, radius):
  """Integer P-masses of s = radius, ..., -radius (Q's are these reversed), and their sum.

  Coefficients of (A z^2 + C z + B)^r, A, B, C proportional to the probabilities of showing x, x'
  and a third value, by the recurrence that f^r' = r f' f^r / f gives.
  """
  shown, hidden = keep.numerator * levels, keep.denominator - keep.numerator
  third = (levels - 1) * hidden
  masses = [shown**radius]
  for n in range(1, 2 * radius + 1):
    value = (radius - n + 1) * third * masses[-1]
    if n > 1:
      value += (2 * radius - n + 2) * hidden * masses[-2]
    masses.append(value // (n * shown))  # Exact.
  return masses, (shown + hidden + third) ** radius


@functools.lru_cache(maxsize=32)
def _cumulated(keep, levels, radius):
  """Cumulated P-masses and Q-masses of s = radius, radius - 1, ..., each beginning with 0."""
  masses, total = _masses(keep, levels, radius)
  p, q = [0], [0]
  for mass, mirrored in zip(masses, reversed(masses), strict=True):
    p.append(p[-1] + mass)
    q.append(q[-1] + mirrored)
  return p, q, total


def _fill(first, second, amount):
  """The `second` mass of the regions, in order, whose `first` mass is `amount`."""
  i = bisect.bisect_right(first, amount) - 1
  if i == len(first) - 1:
    return Fraction(second[-1])
  part = Fraction(amount - first[i]) / (first[i + 1] - first[i])
  return second[i] + part * (second[i + 1] - second[i])


@functools.lru_cache(maxsize=1024)
def _threshold(keep, levels, radius):
  p, q, total = _cumulated(keep, levels, radius)
  return _fill(q, p, Fraction(total, 2)) / total


def _least(keep, levels, radius, probability):
  """The least Q-probability of a class whose P-probability is `probability`."""
  p, q, total = _cumulated(keep, levels, radius)
  return _fill(p, q, probability * total) / total


def _radius(keep, levels, dimension, p_a, p_b):
  pairs = np.broadcast_arrays(
    np.asarray(p_a, np.float64), np.asarray(np.nan if p_b is None else p_b, np.float64)
  )
  rows = np.stack([pair.ravel() for pair in pairs], 1)
  rows, inverse = np.unique(rows, axis=0, return_inverse=True)
  values = np.zeros(len(rows))
  for i, (a, b) in enumerate(rows.tolist()):
    if p_b is None or (b >= 1 - a and 0 <= b < a):
      b = 1 - a  # Exact where it matters: for a >= 1/2.
      proved = 0.5 < a <= 1
    else:
      proved = 0 <= b < a <= 1
    if proved:
      holds = functools.partial(_holds, keep, levels, a, b)
      values[i] = dimension if a == 1 else _largest(holds, min(dimension, _LARGEST))
  return values[inverse.reshape(-1)].reshape(pairs[0].shape)


def _holds(keep, levels, p_a, p_b, radius):
  if p_b == 1 - p_a:
    return Fraction(p_a) > _threshold(keep, levels, radius)
  least = _least(keep, levels, radius, Fraction(p_a))
  return least > 1 - _least(keep, levels, radius, 1 - Fraction(p_b))


def _largest(holds, limit):
  """The largest r <= limit that holds, 0 where r = 1 does not; `holds` is monotone."""
  step = 1
  while step < limit and holds(step):
    step = min(2 * step, limit)
  low, high = step // 2, step
  if step == limit and holds(limit):
    return limit
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if holds(middle) else (low, middle)
  return low


def _check(keep, levels):
  if (
    not isinstance(levels, numbers.Real) or levels != levels // 1 or not 1 <= float(levels) < 2**24
  ):
    raise ValueError(
      f'`levels` is K of the grid {{0, 1/K, ..., 1}}, an integer in [1, 2^24), got '
      f'levels={levels}; 255 for 8-bit images, 1 for binary ones.'
    )
  levels = int(float(levels))
  exact = keep if isinstance(keep, Fraction) else _decimal(keep)
  if exact is None or not Fraction(1, levels + 1) < exact < 1:
    raise ValueError(
      f'`keep` is the probability of keeping a coordinate, in (1 / (levels + 1), 1) = '
      f'({1 / (levels + 1):.6g}, 1), got keep={keep}; the usual values are 0.1 to 0.8.'
    )
  return exact


def _decimal(keep):
  keep = float(keep)
  return Fraction(repr(keep)) if math.isfinite(keep) else None
