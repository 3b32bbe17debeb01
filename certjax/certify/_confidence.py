"""Confidence bounds of a binomial proportion, one-sided, float64, rounded outwards.

scipy's inverse incomplete beta function is off by up to 109 ulp, so a bound is first moved
outwards and then plugged back into the binomial tail: what is returned satisfies the tail
inequality that defines the bound.
"""

import numpy as np
from scipy import special

_RELATIVE, _ULPS = 1e-12, 1e-15


def clopper_pearson(successes, trials, *, alpha):
  r"""Lower confidence bound of a binomial proportion.

  The largest p with Pr[Binomial(trials, p) >= successes] <= alpha, that is

    p = I^{-1}(alpha; successes, trials - successes + 1),

  with I the regularised incomplete beta function, and 0 when `successes` is 0. Rounded down.

  Args:
    successes: int[...], votes for the class.
    trials: int[...], samples drawn; broadcast against `successes`.
    alpha: failure probability of the bound, one-sided.

  Returns:
    float64[...], a bound that holds with probability at least 1 - alpha.

  Raises:
    ValueError: if `successes` exceeds `trials` or `alpha` is outside (0, 1).

  Example:
    >>> round(float(clopper_pearson(990, 1000, alpha=0.001)), 6)
    0.976036

  References:
    Clopper & Pearson 1934; LowerConfBound in Cohen et al. 2019 (arXiv:1902.02918).
  """
  k, n = _check(successes, trials, alpha)
  inside = k > 0
  a, b = np.where(inside, k, 1.0), n - np.where(inside, k, 1.0) + 1
  p = np.nan_to_num(special.betaincinv(a, b, alpha), nan=0.0)  # NaN below alpha = 1e-140 or so.
  p = _plug_back(p - _margin(p), lambda p: special.betainc(a, b, p) <= alpha)
  return np.where(inside, p, 0.0)


def clopper_pearson_upper(successes, trials, *, alpha):
  """Upper confidence bound of a binomial proportion.

  1 minus the lower bound of the failures: the smallest p with
  Pr[Binomial(trials, p) <= successes] <= alpha, rounded up, and 1 when every trial succeeds.

  Args:
    successes: int[...].
    trials: int[...], broadcast against `successes`.
    alpha: failure probability of the bound, one-sided.

  Returns:
    float64[...].

  Raises:
    ValueError: as `clopper_pearson`.

  Example:
    >>> round(float(clopper_pearson_upper(0, 100, alpha=0.001)), 6)
    0.066746
  """
  k, n = _check(successes, trials, alpha)
  return np.minimum(np.nextafter(1 - clopper_pearson(n - k, n, alpha=alpha), 2.0), 1.0)


def randomized_clopper_pearson(successes, trials, uniform, *, alpha):
  r"""Lower confidence bound of a proportion that spends alpha to the last bit.

  The p at which Pr[X > successes] + uniform Pr[X = successes] = alpha, X ~ Binomial(trials, p): at
  uniform = 1 the bound of `clopper_pearson`, larger below. At successes = trials it is
  (alpha / uniform)^(1 / trials), capped at 1 - 2^-53: a bound of 1 would certify everything.

  Args:
    successes: int[...].
    trials: int[...].
    uniform: float[...] in (0, 1], ONE draw an image, independent of the samples and never drawn again.
    alpha: failure probability of the bound, one-sided.

  Returns:
    float64[...], a bound that holds with probability at least 1 - alpha over samples and `uniform`.

  Raises:
    ValueError: as `clopper_pearson`, or if `uniform` is outside (0, 1].

  Example:
    >>> round(float(randomized_clopper_pearson(90_000, 100_000, 0.5, alpha=0.001)), 9)
    0.89704152

  References:
    Stevens 1950; Voracek 2024.
  """
  k, n = _check(successes, trials, alpha)
  w = np.asarray(uniform, np.float64)
  if not np.all((w > 0) & (w <= 1)):
    raise ValueError(f'`uniform` must lie in (0, 1], got {w[~((w > 0) & (w <= 1))].flat[0]}.')
  k, n, w = np.broadcast_arrays(k, n, w)

  def tail(
    p,
  ):  # Pr[X > k] + w Pr[X = k] = (1 - w) Pr[X >= k + 1] + w Pr[X >= k], both growing in p.
    return (1 - w) * _at_least(k + 1, n, p) + w * _at_least(k, n, p)

  low, high = np.zeros(k.shape), np.full(k.shape, 1 - 2.0**-53)
  for _ in range(60):  # Keeps tail(low) <= alpha; ends within 2^-60.
    middle = (low + high) / 2
    good = tail(middle) <= alpha
    low, high = np.where(good, middle, low), np.where(good, high, middle)
  low = np.maximum(low - _margin(low), 0.0)
  return _plug_back(low, lambda p: (tail(p) <= alpha) | (p <= 0))  # 0 bounds every proportion.


def _at_least(k, n, p):
  """Pr[Binomial(n, p) >= k], 1 at k = 0 and 0 above n."""
  inside = (k >= 1) & (k <= n)
  value = special.betainc(np.where(inside, k, 1.0), np.where(inside, n - k + 1, 1.0), p)
  return np.where(inside, value, (k < 1).astype(np.float64))


def predict_p_value(top, runner_up):
  """Two-sided p-value of "both classes are equally likely" given their counts.

    min(1, 2 Pr[Binomial(top + runner_up, 1/2) >= top])

  Args:
    top: int[...], the larger count.
    runner_up: int[...], the smaller count.

  Returns:
    float64[...]; PREDICT of Cohen et al. abstains where it exceeds alpha.

  Example:
    >>> float(predict_p_value(11, 0))
    0.0009765625
  """
  top, runner_up = np.broadcast_arrays(np.asarray(top, float), np.asarray(runner_up, float))
  # Pr[X >= top] = I_{1/2}(top, runner_up + 1); no trial at all gives 1.
  tail = special.betainc(np.maximum(top, 1.0), runner_up + 1, 0.5)
  return np.where(top > runner_up, np.minimum(2 * tail, 1.0), 1.0)


def check_alpha(alpha):
  """Raises `ValueError` unless `alpha` is a failure probability in (0, 1)."""
  if not 0 < alpha < 1:
    raise ValueError(f'`alpha` is a failure probability in (0, 1), got alpha={alpha}.')


def _check(successes, trials, alpha):
  check_alpha(alpha)
  k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
  bad = ~((k >= 0) & (k <= n))
  if np.any(bad):
    raise ValueError(
      f'`successes` must lie in [0, trials], got successes={k[bad].flat[0]:g} of '
      f'trials={n[bad].flat[0]:g}.'
    )
  return k, n


def _margin(p):
  """What covers the errors of scipy's functions in the tail at p, and moves a radius by at
  most 1e-11 sigma: 1e-12 of the smaller of p and 1 - p, and 9 ulp."""
  # Deviation: 1e-12 of p itself would cost 4e-9 sigma of every radius near p = 1.
  return _RELATIVE * np.minimum(p, 1 - p) + _ULPS * p


def _plug_back(p, holds):
  """Moves p down until the defining inequality `holds`; 0 always satisfies it."""
  steps = 1.0
  while not np.all(ok := holds(p)):
    p = np.where(ok, p, np.maximum(p - steps * _margin(p), 0.0))
    steps *= 2
  return p
