"""What the noise families of Yang et al. 2020 share: scale, dimension, and how a bound is used.

A bound is the radius at scale 1 as a function of the tail q = 1 - p_a, which is exact in floating
point for p_a >= 1/2. Three kinds, by what the other class's probability p_b can add:

- flow: d(p_a)/dr >= -Phi(p_a), with Phi(p) = Phi(1 - p) (the differential method). Then p_a > p_b
  up to r = (R(p_a) + R(1 - p_b)) / 2, R continued by R(p) = -R(1 - p) below 1/2;
- total variation: both change by at most TV(r), so p_a - p_b > 2 TV(r) is enough;
- one class: only the event of class A is bounded; p_b adds nothing beyond 1 - p_a.
"""

import math

import numpy as np

from certjax.smoothing._protocol import image_shape, own_parameter

_RELATIVE = 1e-14  # The products of a radius: three roundings.


def check_scale(scale, sigma, unit_sigma) -> float:
  """The scale lambda of a law given either itself or by its standard deviation per coordinate.

  Args:
    scale: lambda, or None.
    sigma: standard deviation in pixel values, or None.
    unit_sigma: the standard deviation at lambda = 1; infinite where there is none.

  Returns:
    lambda.

  Raises:
    ValueError: unless exactly one is given, positive and finite; or sigma where no variance exists.

  Example:
    >>> check_scale(None, 0.5, 2.0)
    0.25
  """
  if sigma is not None and scale is None and not unit_sigma < math.inf:
    raise ValueError(
      f'this law has no finite variance, so `sigma`={sigma} cannot be met: give `scale`.'
    )
  return own_parameter('scale', scale, sigma, 1 / unit_sigma)


def check_shape(shape):
  """(H, W, C) as a tuple of ints, and its product.

  Raises:
    ValueError: unless it is a sequence of positive integers.

  Example:
    >>> check_shape((32, 32, 3))
    ((32, 32, 3), 3072)
  """
  shape = image_shape(shape)
  return shape, math.prod(shape)


def check_positive(**values):
  """Raises `ValueError` unless every value is a positive, finite number.

  Example:
    >>> check_positive(k=2.0)
  """
  for name, value in values.items():
    if not 0 < float(value) < math.inf:
      raise ValueError(f'`{name}` must be positive and finite, got {name}={value}.')


def gamma_ratio(x: float, delta: float) -> float:
  """Gamma(x + delta) / Gamma(x), to 1e-13 also where the logarithms of both are huge.

  Stirling's series above 40; below, Gamma(x + 1) = x Gamma(x) leads there.

  Example:
    >>> round(gamma_ratio(5.0, 2.0), 12)
    30.0
  """
  product = 1.0
  while min(x, x + delta) < 40:
    product *= x / (x + delta)
    x += 1
  rest = _stirling(x + delta) - _stirling(x)
  log = (x + delta - 0.5) * math.log1p(delta / x) + delta * math.log(x) - delta + rest
  return product * math.exp(log)


def _stirling(x):
  return 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5) - 1 / (1680 * x**7)


def binary(lower):
  """p_a -> `lower`(1 - p_a) above 1/2, 0 below and for NaN."""

  def bound(p_a):
    proved = (p_a > 0.5) & (p_a <= 1)
    return np.where(proved, lower(np.where(proved, 1 - p_a, 0.5)), 0.0)

  return bound


def one_class(lower):
  """A bound from which p_b gains nothing (beyond p_b <= 1 - p_a).

  Args:
    lower: tail[...] -> radius at scale 1, rounded down.

  Returns:
    `(p_a, p_b) -> float64[...]`, p_b None for 1 - p_a.
  """
  single = binary(lower)
  return lambda p_a, p_b: single(p_a) if p_b is None else np.where(p_b < p_a, single(p_a), 0.0)


def total_variation(lower):
  """A bound in which p_a falls, and p_b grows, by at most a function of the shift alone.

  Args:
    lower: tail[...] -> radius at scale 1, rounded down.

  Returns:
    `(p_a, p_b) -> float64[...]`: `lower` at the tail (1 - p_a + p_b) / 2.
  """
  single = binary(lower)

  def bound(p_a, p_b):
    if p_b is None:
      return single(p_a)
    excess = np.nextafter((p_a - p_b) / 2, 0)
    # 1/2 + excess may round up in its last bit: go one below, but never above 1.
    return np.where(excess > 0, single(np.nextafter(0.5 + excess, 0)), 0.0)

  return bound


def flow(lower, upper):
  """A bound by a differential inequality, which serves two classes.

  Args:
    lower: tail[...] -> radius at scale 1, rounded down.
    upper: the same radius, rounded up.

  Returns:
    `(p_a, p_b) -> float64[...]`: (R(p_a) + R(1 - p_b)) / 2, R(p) = -R(1 - p) below 1/2.
  """
  single = binary(lower)

  def signed(tail, other):
    """R at the tail, `other` = 1 - tail; each is used where it is below 1/2."""
    inside = np.minimum(tail, 0.5)
    return np.where(tail <= 0.5, lower(inside), -upper(np.minimum(other, 0.5)))

  def bound(p_a, p_b):
    if p_b is None:
      return single(p_a)
    proved = (p_b < p_a) & (p_a <= 1) & (p_b >= 0)
    a, b = np.where(proved, p_a, 0.5), np.where(proved, p_b, 0.5)
    value = signed(1 - a, a) / 2 + signed(b, 1 - b) / 2
    return np.where(proved, value, 0.0)

  return bound


def make_radius(*bounds):
  """The `radius` of a `Smoothing`: the largest of the bounds, scaled and rounded down.

  Args:
    *bounds: pairs (bound, factor): a bound as above, and what its radius is multiplied by.

  Returns:
    `(p_a, p_b=None, *, x=None) -> float64[...]`.
  """

  def radius(p_a, p_b=None, *, x=None):
    del x  # The certificate is the same everywhere.
    p_a = np.asarray(p_a, np.float64)
    if p_b is not None:
      p_a, p_b = np.broadcast_arrays(p_a, np.asarray(p_b, np.float64))
    values = [bound(p_a, p_b) * factor for bound, factor in bounds]
    value = np.nextafter(np.max(values, axis=0) * (1 - _RELATIVE), -np.inf)
    return np.where(value > 0, value, 0.0)  # False for NaN: nothing is proved.

  return radius


_POWERS = {'l1': 1.0, 'l2': 2.0, 'linf': math.inf}


def in_norm(norm: str, direct: dict, scale: float, dimension: int | None):
  """The radius in a norm, from bounds in whichever norms the law has them.

    r_q = r_p                        for q <= p (the l_q ball lies inside the l_p ball)
    r_q = r_p / d^(1 / p - 1 / q)    for q > p

  Args:
    norm: 'l1', 'l2' or 'linf'.
    direct: norm -> bound at scale 1.
    scale: lambda.
    dimension: d, or None if it is not known: then only radii that lose nothing are used.

  Returns:
    A radius function; the largest of a direct and all converted radii.

  Raises:
    ValueError: for another norm, or if every conversion needs the dimension.
  """
  if norm not in _POWERS:
    raise ValueError(f'`norm` must be one of {", ".join(_POWERS)}, got norm={norm!r}.')
  pairs = []
  for own, bound in direct.items():
    lost = max(1 / _POWERS[own] - 1 / _POWERS[norm], 0.0)
    if lost == 0:
      pairs.append((bound, scale))
    elif dimension is not None:
      pairs.append((bound, scale * dimension**-lost))
  if not pairs:
    raise ValueError(
      f'a radius in norm={norm!r} is converted from {", ".join(direct)} by the number of '
      f'coordinates: give `shape`=(H, W, C).'
    )
  return make_radius(*pairs)


def gamma_sigma(dimension: int, k: float, j: float = 0.0) -> float:
  """sqrt(E r^2) of r^k ~ Gamma((d - j) / k), the radius of exp(-r^k) r^-j in any norm.

  Example:
    >>> round(gamma_sigma(3, 2.0) ** 2, 12)
    1.5
  """
  return math.sqrt(gamma_ratio((dimension - j) / k, 2 / k))
