"""The L2 certificates of Gaussian noise before Cohen et al. 2019: PixelDP and the Renyi bound.

Both are valid for any value of their free parameters, so the search over these cannot harm
soundness. For the same p_a and p_b Cohen et al. prove at least as much as either, and for p_a >= 0.1
(the only case that matters without p_b) Li et al. at least as much as Lecuyer et al.
"""

import numpy as np

from certjax.smoothing._family import check_positive

_RELATIVE = 1e-12  # A dozen elementary functions and roundings, each below 2 ulp.
_STEPS = 80  # Of a golden-section search: 0.618^80 = 2e-17 of the bracket.
_LARGEST_LOG_ORDER = 7.0


def pixeldp_radius(p_a, p_b=None, *, sigma: float, mechanism: str = 'gaussian'):
  r"""The radius that (eps, delta)-differential privacy of the noise proves (PixelDP).

    gaussian, l2: max_{0 < eps <= 1} sigma eps / sqrt(2 ln(1.25 / delta)),
                  delta = (p_a - e^{2 eps} p_b) / (1 + e^eps) > 0
    laplace, l1:  (lambda / 2) ln(p_a / p_b),  lambda = sigma / sqrt(2)

  p_a and p_b may be bounds of expected scores in [0, 1], not only of votes.

  Args:
    p_a: float[...], lower bound of the top class.
    p_b: float[...], upper bound of every other class; None means 1 - p_a.
    sigma: standard deviation of each coordinate, in pixel values.
    mechanism: 'gaussian' or 'laplace'.

  Returns:
    float64[...], rounded down; 0 where nothing is proved.

  Raises:
    ValueError: if `sigma` is not positive and finite, or for another mechanism.

  Example:
    >>> round(float(pixeldp_radius(0.9, 0.1, sigma=1.0)), 6)
    0.390267

  References:
    Lecuyer et al. 2019 (arXiv:1802.03471), Proposition 1; Dwork & Roth 2014, Theorems 3.6, A.1.
  """
  check_positive(sigma=sigma)
  if mechanism not in _MECHANISMS:
    raise ValueError(f'`mechanism` must be one of {", ".join(_MECHANISMS)}, got {mechanism!r}.')
  return _certify(_MECHANISMS[mechanism], p_a, p_b, float(sigma))


def renyi_radius(p_a, p_b=None, *, sigma: float):
  r"""The L2 radius that Renyi divergences of Gaussian noise prove.

    r^2 = sup_{a > 1} -(2 sigma^2 / a) ln(1 - p_a - p_b + 2 M_{1-a}(p_a, p_b)),
    M_t(u, v) = ((u^t + v^t) / 2)^{1 / t}

  With L = ln(p_a / p_b) the argument of the logarithm is 1 minus a sum of positive terms,
  2 sqrt(p_a p_b) (2 sinh(L / 4)^2 + 1 - cosh((a - 1) L / 2)^{-1 / (a - 1)}), so nothing cancels.

  Args:
    p_a: float[...], lower bound of the top class.
    p_b: float[...], upper bound of every other class; None means 1 - p_a.
    sigma: standard deviation in pixel values.

  Returns:
    float64[...], rounded down; 0 where nothing is proved.

  Raises:
    ValueError: if `sigma` is not positive and finite.

  Example:
    >>> round(float(renyi_radius(0.9, 0.1, sigma=1.0)), 6)
    1.03193

  References:
    Li, Chen, Wang & Carin 2018 (arXiv:1809.03113), Theorem 1.
  """
  check_positive(sigma=sigma)
  return _certify(_renyi, p_a, p_b, float(sigma))


def _certify(bound, p_a, p_b, sigma):
  p_a = np.asarray(p_a, np.float64)
  p_b = np.nextafter(1 - p_a, 1) * (p_a < 0.5) + (1 - p_a) * (p_a >= 0.5) if p_b is None else p_b
  p_a, p_b = np.broadcast_arrays(p_a, np.asarray(p_b, np.float64))
  proved = (p_a > p_b) & (p_a <= 1) & (p_b >= 0)  # False for NaN.
  a = np.where(proved, p_a, 0.75)
  b = np.where(proved, np.minimum(p_b, np.nextafter(1 - a, 1)), 0.25)  # p_a + p_b <= 1.
  value = np.nextafter(bound(a, b, sigma) * (1 - _RELATIVE), -np.inf)
  return np.where(proved & (value > 0), value, 0.0)


def _gaussian(p_a, p_b, sigma):
  def of(eps):
    spare = p_a - np.exp(2 * eps) * p_b * (1 + _RELATIVE)
    delta = np.maximum(spare - _RELATIVE * p_a, 0) / (1 + np.exp(eps))
    positive = delta > 0
    rate = np.sqrt(2 * np.log(1.25 / np.where(positive, delta, 1.0)))
    return np.where(positive, sigma * eps / rate, 0.0)

  with np.errstate(divide='ignore'):
    end = np.minimum(np.log(p_a / p_b) / 2, 1.0)  # Where delta reaches 0.
  return _maximum(of, np.zeros_like(p_a), end)


def _laplace(p_a, p_b, sigma):
  with np.errstate(divide='ignore'):
    # log1p keeps its digits where p_a is close to p_b.
    ratio = np.where(p_a < 2 * p_b, np.log1p((p_a - p_b) / p_b), np.log(p_a) - np.log(p_b))
  return sigma / np.sqrt(2) * ratio / 2


def _renyi(p_a, p_b, sigma):
  smallest = np.maximum(p_b, np.finfo(np.float64).tiny)  # A larger p_b proves less.
  log = np.log1p((p_a - smallest) / smallest)
  mean = np.sqrt(p_a * smallest)

  def of(log_order):
    order = np.exp(log_order)
    half = (order - 1) * log / 2
    power = np.where(half > 0, _log_cosh(half) / np.where(half > 0, order - 1, 1.0), 0.0)
    lost = 2 * mean * (2 * np.sinh(log / 4) ** 2 - np.expm1(-power))
    return np.sqrt(np.maximum(-2 * np.log1p(-np.minimum(lost, 1 - 1e-16)) / order, 0)) * sigma

  return _maximum(of, np.zeros_like(p_a), np.full_like(p_a, _LARGEST_LOG_ORDER))


def _log_cosh(x):
  small = np.minimum(x, 1.0)
  return np.where(
    x < 1, np.log1p(2 * np.sinh(small / 2) ** 2), x + np.log1p(np.exp(-2 * x)) - np.log(2)
  )


def _maximum(of, low, high):
  """The largest value that a golden-section search meets, ends included; any point is sound."""
  golden = (np.sqrt(5) - 1) / 2
  best = np.maximum(of(low), of(high))
  for _ in range(_STEPS):
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = of(left), of(right)
    best = np.maximum(best, np.maximum(at_left, at_right))
    goes_left = at_left >= at_right
    low, high = np.where(goes_left, low, left), np.where(goes_left, right, high)
  return best


_MECHANISMS = {'gaussian': _gaussian, 'laplace': _laplace}
