"""How much any certificate from p_a and p_b alone can claim: the curse of dimensionality.

A limit is an upper bound: an explicit classifier has these probabilities at x and another label
at that distance, so no proof that knows only p_a and p_b reaches further. Limits are rounded UP
and are 0 where p_a <= p_b; the one certificate here, `gaussian_radius_lp`, is rounded down.
With S the sum of d independent symmetric coordinates and all pixels moved by t, "S <= c" and
"S > c'" swap their order at t = (c + c') / (2 d), an L_p distance of t d^(1/p).
"""

import math

import numpy as np

from certjax.smoothing._gaussian import exponent, gaussian

_RELATIVE = 1e-12


def iid_limit(p_a, p_b=None, *, sigma: float, d: int, p: float):
  r"""No symmetric i.i.d. noise of this standard deviation certifies more.

    sigma / (2 sqrt(2) d^(1/2 - 1/p)) (1 / sqrt(1 - p_a) + 1 / sqrt(p_b))

  by Chebyshev's inequality on each half of the symmetric law of S.

  Args:
    p_a: float[...], probability of the top class.
    p_b: float[...], of the runner-up; None means 1 - p_a.
    sigma: standard deviation of each coordinate.
    d: number of coordinates.
    p: of the norm, from 1 to inf (a weak limit below 2).

  Returns:
    float64[...], rounded up.

  Example:
    >>> round(float(iid_limit(0.99, 0.01, sigma=0.25, d=3072, p=3)), 6)
    0.463648

  References:
    Kumar, Levine, Goldstein & Feizi 2020 (arXiv:2002.03239), Theorem 1.
  """
  p_a, other, p_b = _probabilities(p_a, p_b)
  with np.errstate(divide='ignore'):
    sides = 1 / np.sqrt(other) + 1 / np.sqrt(p_b)
  return _limit(p_a, p_b, sigma / math.sqrt(8) / _power(d, p) * sides)


def generalized_gaussian_limit(
  p_a, p_b=None, *, sigma: float, d: int, p: float, q: float, constant: float = 1.0
):
  r"""Generalized Gaussian noise with q >= 2 certifies no more.

    constant sigma / d^(1/2 - 1/p) (sqrt(ln 1 / (1 - p_a)) + sqrt(ln 1 / p_b))

  Proved here for every constant >= 1 / sqrt(2): U = z^2 has the mean of a squared Gaussian and
  a density that crosses that one's twice, so U is smaller in convex order, every even moment
  of z is at most the Gaussian's, and S has the Chernoff bound exp(-c^2 / (2 d sigma^2)). The
  default 1 gives what the published logs call the bound "over c".

  Args:
    p_a: float[...], probability of the top class.
    p_b: float[...], of the runner-up; None means 1 - p_a.
    sigma: standard deviation of each coordinate.
    d: number of coordinates.
    p: of the norm, from 1 to inf.
    q: exponent of the density, at least 2.
    constant: at least 1 / sqrt(2).

  Returns:
    float64[...], rounded up.

  Raises:
    ValueError: if q is below 2 (S need not be sub-Gaussian) or the constant is not proved.

  Example:
    >>> round(float(generalized_gaussian_limit(0.752132852, sigma=0.5, d=3072, p=3, q=3)), 4)
    0.3098

  References:
    Kumar, Levine, Goldstein & Feizi 2020 (arXiv:2002.03239), Theorem 2 (a constant below 2).
  """
  if not q >= 2 or not constant >= math.sqrt(0.5):
    raise ValueError(
      f'proved for `q` >= 2 and `constant` >= {math.sqrt(0.5):.4f} only, got q={q}, '
      f'constant={constant}.'
    )
  p_a, other, p_b = _probabilities(p_a, p_b)
  with np.errstate(divide='ignore'):
    sides = np.sqrt(-np.log(other)) + np.sqrt(-np.log(p_b))
  return _limit(p_a, p_b, constant * sigma / _power(d, p) * sides)


def uniform_linf_limit(p_a, p_b=None, *, sigma: float, d: int, p: float):
  r"""Uniform noise on a cube: the exact L_p radius, p >= 2, which no proof exceeds.

    2 lam d^(1/p) (1 - (1 - (p_a - p_b) / 2)^(1/d)),  lam = sqrt(3) sigma

  The cubes around x and x' overlap in prod_i (1 - |delta_i| / (2 lam)), and the classifier is
  free on what each does not share; for p >= 2 equal shifts of all pixels lose most. For p = 1
  the exact radius is lam (p_a - p_b) (`smoothing.uniform`), which this formula exceeds.

  Args:
    p_a: float[...], probability of the top class.
    p_b: float[...], of the runner-up; None means 1 - p_a.
    sigma: standard deviation of each coordinate.
    d: number of coordinates.
    p: of the norm, from 2 to inf.

  Returns:
    float64[...], rounded up.

  Raises:
    ValueError: if p is below 2.

  Example:
    >>> round(float(uniform_linf_limit(0.9, sigma=1.0, d=3072, p=float('inf'))), 9)
    0.000575978

  References:
    Kumar, Levine, Goldstein & Feizi 2020 (arXiv:2002.03239), section on the cube.
  """
  if not p >= 2:
    raise ValueError(f'exact for `p` >= 2 only, got p={p}; for p = 1 use `smoothing.uniform`.')
  p_a, other, p_b = _probabilities(p_a, p_b)
  gap = np.clip(p_a - p_b, 0, 1) * (1 + _RELATIVE)
  share = -np.expm1(np.log1p(-np.minimum(gap, 1.0) / 2) / d)
  return _limit(p_a, p_b, 2 * math.sqrt(3) * sigma * float(d) ** (1 / p) * share)


def l1_ball_limit(p_a, p_b=None, *, scale: float, d: int):
  r"""Uniform noise on the L1 ball of radius `scale` certifies no more, in any norm.

    (F^-1(p_a) - F^-1(p_b)) / 2,  1 - F(c) = (1 - c / scale)^d / 2 for c >= 0

  with F the law of one coordinate, whose half-spaces reach the limit. O(scale / d).

  Args:
    p_a: float[...], probability of the top class.
    p_b: float[...], of the runner-up; None means 1 - p_a.
    scale: radius of the ball, sigma sqrt((d + 1) (d + 2) / 2).
    d: number of coordinates.

  Returns:
    float64[...], rounded up.

  Example:
    >>> limits = [float(l1_ball_limit(0.9, scale=1.0, d=d)) for d in (1000, 2000)]
    >>> round(limits[0] / limits[1], 2)
    2.0

  References:
    Kumar, Levine, Goldstein & Feizi 2020 (arXiv:2002.03239).
  """
  p_a, other, p_b = _probabilities(p_a, p_b)
  with np.errstate(divide='ignore'):
    reach = lambda tail: -np.expm1(np.log(2 * tail) / d)
    upper = np.where(p_a >= 0.5, reach(other), -reach(p_a))
    lower = np.where(p_b <= 0.5, reach(p_b), -reach(1 - p_b))
  return _limit(p_a, p_b, scale / 2 * (upper + lower))


def gaussian_radius_lp(p_a, p_b=None, *, sigma: float, d: int, p: float):
  r"""The Gaussian's exact L_p radius: what the limits are compared with.

    sigma / (2 d^(1/2 - 1/p)) (Phi^-1(p_a) - Phi^-1(p_b)),  without the power of d for p < 2

  Args:
    p_a: float[...], probability of the top class.
    p_b: float[...], of the runner-up; None means 1 - p_a.
    sigma: standard deviation of each coordinate.
    d: number of coordinates.
    p: of the norm, from 1 to inf.

  Returns:
    float64[...], rounded down: a certificate, that of `smoothing.gaussian(norm=)`.

  Raises:
    ValueError: for a `p` that names no norm, and as `gaussian`.

  Example:
    >>> round(float(gaussian_radius_lp(0.99, 0.01, sigma=0.25, d=3072, p=4)), 7)
    0.0781195
  """
  norm = f'l{float(p)!r}'
  if exponent(norm) != p:
    raise ValueError(f'`p` must be a plain number of at least 1 or inf, got p={p}.')
  return gaussian(sigma=sigma, norm=norm, shape=(d,)).radius(p_a, p_b)


def _probabilities(p_a, p_b):
  """p_a, 1 - p_a and p_b."""
  p_a = np.asarray(p_a, np.float64)
  other = 1 - p_a
  return p_a, other, other if p_b is None else np.asarray(p_b, np.float64)


def _power(d, p):
  """d^(1/2 - 1/p), below 1 for p < 2."""
  return float(d) ** (0.5 - 1 / p)


def _limit(p_a, p_b, value):
  return np.where(p_a > p_b, np.nextafter(value * (1 + _RELATIVE), np.inf), 0.0)
