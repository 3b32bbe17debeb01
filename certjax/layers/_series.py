"""Polynomials of a skew map, p(L) ~ exp(L): coefficients, and exact Lipschitz constants.

A real skew map is normal with eigenvalues i theta, so the singular values of p(L) are |p(i theta)|
over its spectrum, and the constant of the truncated exponential is

  max |p(i theta)|,  |theta| <= norm,  norm >= ||L||_2,

whatever the truncation error. |p(i theta)|^2 - 1 is a polynomial in t = theta^2; its maximum is
enclosed by Bernstein coefficients (a polynomial on an interval never exceeds the largest of them)
under repeated halving, in integers rounded upwards: a proof, not a sample.
"""

import fractions
import functools
import heapq
import math

import numpy as np
from scipy import special

SERIES = ('taylor', 'chebyshev')
_BITS = 320  # Of the fixed-point numbers.
_GAP = 1 << (_BITS - 70)  # The enclosure of |p|^2 is this tight: 2^-70.


def polynomial(series, degree, bound):
  r"""Exact coefficients a_0 .. a_m of p(L) = sum_i a_i L^i.

    taylor       p(L) = sum_i L^i / i!
    chebyshev    p(L) = J_0(s) + 2 sum_k J_k(s) S_k(L / s),  S_{k+1}(A) = 2 A S_k(A) + S_{k-1}(A)

  with s = `bound`, J_k the Bessel functions and S_0 = 1, S_1(A) = A. On the imaginary axis
  S_k(i c) = i^k T_k(c): the Jacobi-Anger expansion of exp(i s c), nearly the best polynomial
  of its degree for |theta| <= s. Its error at s = 1.8 and degree 5 is 1.3e-3, Taylor's 4.6e-2.

  Args:
    series: 'taylor' or 'chebyshev'.
    degree: m, the number of applications of L.
    bound: s; the Taylor polynomial does not depend on it.

  Returns:
    tuple of m + 1 `fractions.Fraction` (the Bessel values are float64, then exact).

  Raises:
    ValueError: for another name, degree < 1, or a bound that is not positive and finite.

  Example:
    >>> [str(a) for a in polynomial('taylor', 3, 1.8)]
    ['1', '1', '1/2', '1/6']
  """
  if series not in SERIES:
    raise ValueError(f'`series` must be one of {SERIES}, got series={series!r}.')
  if int(degree) != degree or degree < 1:
    raise ValueError(
      f'`degree` counts the convolutions of the series and must be at least 1, got '
      f'degree={degree}; usual are 5 in training and 12 (taylor) or 8 (chebyshev) in evaluation.'
    )
  if not 0 < bound < math.inf:
    raise ValueError(
      f'`bound` is an upper bound of the norm of the skew map and must be positive and finite, '
      f'got bound={bound}; the usual value is 1.8.'
    )
  if series == 'taylor':
    return tuple(fractions.Fraction(1, math.factorial(i)) for i in range(degree + 1))
  weights = special.jv(np.arange(degree + 1), float(bound)) * np.where(np.arange(degree + 1), 2, 1)
  scale = 1 / fractions.Fraction(float(bound))
  before, last = [fractions.Fraction(1)], [fractions.Fraction(0), scale]
  total = _add(_times(weights[0], before), _times(weights[1], last))
  for weight in weights[2:]:
    before, last = last, _add([fractions.Fraction(0), *_times(2 * scale, last)], before)
    total = _add(total, _times(weight, last))
  return tuple(total)


def recurrence_coefficients(power, bound):
  """Coefficients c_k with sum_i a_i L^i = sum_k c_k S_k(L / bound), S_k as in `polynomial`.

  Args:
    power: the a_i, exact.
    bound: scale of the argument.

  Returns:
    float64[m + 1].

  Example:
    >>> recurrence_coefficients(polynomial('taylor', 2, 1.0), 1.0).tolist()
    [0.75, 1.0, 0.25]
  """
  scale = fractions.Fraction(float(bound))
  total = []
  for i, a in reversed(list(enumerate(power))):  # Horner, A S_k = (S_{k+1} - S_{k-1}) / 2.
    total = _add(_times_argument(total), [a * scale**i])
  return np.array([float(c) for c in total])


@functools.lru_cache(maxsize=1024)
def series_lipschitz(series, degree, bound, norm=None) -> float:
  r"""The exact Lipschitz constant of a truncated exponential of a skew map.

    max |p_m(i theta)|,  |theta| <= norm

  to 2^-70, rounded up. It is 1 for Taylor degrees 4, 8, 12 up to the norms 2.828, 3.395, 3.379.

  Args:
    series: 'taylor' or 'chebyshev'.
    degree: m >= 1.
    bound: the scale s of the Chebyshev series.
    norm: upper bound of the norm of the map; default `bound`. It may exceed `bound`.

  Returns:
    A Python float; `inf` where `norm` is infinite or NaN.

  Raises:
    ValueError: as `polynomial`, or for a negative norm.

  Example:
    >>> series_lipschitz('taylor', 12, 1.8), round(series_lipschitz('taylor', 5, 1.8), 9)
    (1.0, 1.004740848)
    >>> round(series_lipschitz('chebyshev', 8, 1.8) - 1, 8)
    1.96e-06

  References:
    Singla & Feizi 2021 (arXiv:2105.11417) bound the error instead: ||L||^k / k!.
  """
  power = polynomial(series, degree, bound)
  norm = float(bound if norm is None else norm)
  if norm < 0:
    raise ValueError(f'`norm` bounds a norm and cannot be negative, got norm={norm}.')
  if not norm < math.inf:
    return math.inf
  square = _square_on_imaginary_axis(power)
  square[0] -= 1
  excess = _maximum(square, fractions.Fraction(norm) ** 2)
  return _root_upwards((1 << _BITS) + excess)


def _square_on_imaginary_axis(power):
  """Coefficients in t = theta^2 of |p(i theta)|^2 = E(t)^2 + t O(t)^2."""
  even = [a * (-1) ** k for k, a in enumerate(power[0::2])]
  odd = [a * (-1) ** k for k, a in enumerate(power[1::2])]
  return _add(_product(even, even), [fractions.Fraction(0), *_product(odd, odd)])


def _maximum(coefficients, end):
  """An upper bound (fixed point) of a polynomial's maximum on [0, end], to `_GAP`."""
  n = len(coefficients) - 1
  scaled = [a * end**k / math.comb(n, k) for k, a in enumerate(coefficients)]
  bernstein = [
    math.ceil(sum(math.comb(j, k) * scaled[k] for k in range(j + 1)) * (1 << _BITS))
    for j in range(n + 1)
  ]
  reached = max(bernstein[0], bernstein[-1])  # Values at the ends: the maximum is no less.
  heap = [(-max(bernstein), bernstein)]
  while -heap[0][0] > reached + _GAP or -heap[0][0] > 0 >= reached:  # <= 0: exactly 1.
    _, bernstein = heapq.heappop(heap)
    for half in _halves(bernstein):
      reached = max(reached, half[0], half[-1])
      heapq.heappush(heap, (-max(half), half))
  return -heap[0][0]


def _halves(bernstein):
  """De Casteljau at the midpoint; every mean is rounded up, so an upper bound stays one."""
  left, right, row = [], [], bernstein
  while row:
    left.append(row[0])
    right.append(row[-1])
    row = [(a + b + 1) >> 1 for a, b in zip(row, row[1:], strict=False)]
  return left, right[::-1]


def _root_upwards(square):
  """The least float not below the root of a fixed-point number."""
  root = fractions.Fraction(math.isqrt(square << _BITS), 1 << _BITS)
  if root * root * (1 << _BITS) < square:
    root += fractions.Fraction(1, 1 << _BITS)
  value = float(root)
  return value if fractions.Fraction(value) >= root else math.nextafter(value, math.inf)


def _add(a, b):
  length = max(len(a), len(b))
  pad = lambda c: [*c, *[fractions.Fraction(0)] * (length - len(c))]
  return [x + y for x, y in zip(pad(a), pad(b), strict=True)]


def _times(factor, a):
  return [fractions.Fraction(factor) * x for x in a]


def _product(a, b):
  total = [fractions.Fraction(0)] * (len(a) + len(b) - 1)
  for i, x in enumerate(a):
    for j, y in enumerate(b):
      total[i + j] += x * y
  return total


def _times_argument(c):
  """A sum_k c_k S_k in the same basis: A S_0 = S_1, A S_k = (S_{k+1} - S_{k-1}) / 2."""
  if not c:
    return []
  up = [fractions.Fraction(0), c[0], *(x / 2 for x in c[1:])]
  return _add(up, [-x / 2 for x in c[1:]])
