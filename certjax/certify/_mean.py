"""Confidence bounds of the mean of scores in [0, 1], one-sided, float64, rounded outwards.

Hoeffding and the empirical Bernstein bound (Maurer & Pontil 2009) need the sums of the scores
and of their squares; betting (Waudby-Smith & Ramdas 2024) needs the scores and is tighter than
both. With a `Smoothing` in the Lipschitz form, `smoothing.gaussian(sigma=).radius(low, high)`
then certifies soft classifiers: low bounds the mean score of the top class, high the rival's.
"""

import math

import numpy as np

from certjax.certify._confidence import check_alpha

_ROUNDING = 1e-14  # numpy's pairwise sums of 10^6 numbers are off by at most 30 ulp (3e-15).
_PRIOR_MEAN, _PRIOR_VARIANCE = 0.5, 0.25  # Of Waudby-Smith & Ramdas.


def mean_lower_bound(scores, *, alpha, method='betting'):
  r"""Lower confidence bound of the mean of independent scores in [0, 1].

    'hoeffding':  mean - sqrt(ln(1/alpha) / (2 N))
    'bernstein':  mean - sqrt(2 V ln(2/alpha) / N) - 7 ln(2/alpha) / (3 (N - 1))
    'betting':    the largest m with prod_t (1 + lambda_t (s_t - m)) >= 1 / alpha

  with V the sample variance. The bets lambda_t in [0, 1) depend on s_1 .. s_{t-1} only: for a
  mean of at most m the product is a nonnegative supermartingale that starts at 1, so by Markov's
  inequality it reaches 1 / alpha with probability at most alpha, and it falls with m.

    lambda_t = w / (v + w),  w = sqrt(2 v L / N) + L / N,  L = ln(1/alpha),

  v the running variance before t: the best bet of a Gaussian walk (w / v) where v is large, of
  a Poisson walk where the scores are almost constant. Any predictable bet is sound.

  Args:
    scores: float[..., N] in [0, 1], in the order they were drawn. NaN counts as 0.
    alpha: failure probability, one-sided.
    method: 'hoeffding', 'bernstein' or 'betting'.

  Returns:
    float64[...], rounded down, at least 0.

  Raises:
    ValueError: on a score outside [0, 1], no score, a bad alpha or an unknown method.

  Example:
    >>> scores = np.full(100_000, 1.0)
    >>> [round(float(mean_lower_bound(scores, alpha=1e-3, method=name)), 5)
    ...  for name in ('hoeffding', 'bernstein', 'betting')]
    [0.99412, 0.99982, 0.99992]

  References:
    Hoeffding 1963; Maurer & Pontil 2009 (arXiv:0907.3740), Theorem 4; Waudby-Smith & Ramdas
    2024 (arXiv:2010.09686).
  """
  check_alpha(alpha)
  scores = _check(scores)
  if method == 'betting':
    flat = scores.reshape(-1, scores.shape[-1])
    bounds = np.array([_betting(row, math.log(1 / alpha)) for row in flat])
    return bounds.reshape(scores.shape[:-1])
  mean = scores.mean(axis=-1)
  variance = None
  if method == 'bernstein':
    variance = ((scores - mean[..., None]) ** 2).sum(axis=-1) / max(scores.shape[-1] - 1, 1)
  return _BOUNDS[_known(method)](mean, variance, scores.shape[-1], alpha)


def mean_upper_bound(scores, *, alpha, method='betting'):
  """Upper confidence bound: 1 minus the lower bound of 1 - score. NaN counts as 1.

  Args:
    scores: float[..., N] in [0, 1].
    alpha: failure probability, one-sided.
    method: as `mean_lower_bound`.

  Returns:
    float64[...], rounded up, at most 1.

  Raises:
    ValueError: as `mean_lower_bound`.

  Example:
    >>> round(float(mean_upper_bound(np.zeros(1000), alpha=1e-3, method='hoeffding')), 6)
    0.05877
  """
  scores = np.asarray(scores, np.float64)
  # 1 - score is off by at most half an ulp of 1, which the last addition covers.
  lower = mean_lower_bound(1 - scores, alpha=alpha, method=method)
  return np.minimum(1 - lower + 4e-16, 1.0)


def mean_lower_bound_from_sums(total, squares=None, *, num_samples, alpha, method='hoeffding'):
  """The lower bound of `mean_lower_bound` from sums alone: nothing else need be kept.

  Args:
    total: float64[...], sum of the scores.
    squares: float64[...], sum of their squares, needed by 'bernstein'. Both sums must be
      right to 1e-14 relative (float64 sums; a float32 sum on a device is not).
    num_samples: N, at least 2 for 'bernstein'.
    alpha: failure probability, one-sided.
    method: 'hoeffding' or 'bernstein'; betting depends on the single scores.

  Returns:
    float64[...], rounded down, at least 0.

  Raises:
    ValueError: on sums that no N scores in [0, 1] have, a bad alpha or an unknown method.

  Example:
    >>> float(mean_lower_bound_from_sums(99_000.0, num_samples=100_000, alpha=1e-3).round(6))
    0.984123
  """
  check_alpha(alpha)
  total = np.asarray(total, np.float64)
  slack = _ROUNDING * num_samples
  if num_samples < 1 or not np.all((total >= -slack) & (total <= num_samples + slack)):
    raise ValueError(f'`total` must lie in [0, num_samples], got {total} of {num_samples}.')
  variance = None
  if method == 'bernstein':
    if squares is None:
      raise ValueError("method='bernstein' needs `squares`, the sum of the squared scores.")
    squares = np.asarray(squares, np.float64)
    low, high = total**2 / num_samples, total
    if not np.all((squares >= low - slack) & (squares <= high + slack)):
      raise ValueError(f'`squares` must lie in [total^2 / N, total], got {squares}.')
    # The difference of near numbers: its error is that of the sums, not of the variance.
    spread = squares - low + 3 * _ROUNDING * squares
    variance = np.maximum(spread, 0.0) / max(num_samples - 1, 1)
  return _BOUNDS[_known(method)](total / num_samples, variance, num_samples, alpha)


def _hoeffding(mean, variance, num_samples, alpha):
  del variance
  return _downwards(mean, math.sqrt(math.log(1 / alpha) / (2 * num_samples)))


def _bernstein(mean, variance, num_samples, alpha):
  if num_samples < 2:
    raise ValueError("method='bernstein' needs at least 2 scores.")
  log = math.log(2 / alpha)
  width = np.sqrt(2 * variance * log / num_samples) + 7 * log / (3 * (num_samples - 1))
  return _downwards(mean, width)


_BOUNDS = {'hoeffding': _hoeffding, 'bernstein': _bernstein}


def _known(method):
  if method not in _BOUNDS:
    raise ValueError(
      f"`method` must be 'hoeffding', 'bernstein' or, given the scores, 'betting', got {method!r}."
    )
  return method


def _downwards(mean, width):
  """mean - width, below it for real: both carry the rounding of a sum."""
  low = mean * (1 - _ROUNDING) - width * (1 + 2 * _ROUNDING)
  return np.maximum(np.nextafter(low, -np.inf), 0.0)


def _betting(scores, log):
  """The largest m at which the capital still reaches exp(log), by Newton's method from above.

  The logarithm of the capital is concave and falls with m, so each tangent's root is at or
  above the true one; at the end m moves down until the capital, less its rounding, suffices.
  """
  bets = _bets(scores, log)

  def log_capital(m):
    terms = np.log1p(bets * (scores - m))
    return terms.sum() - _ROUNDING * (np.abs(terms).sum() + 1)

  m = 1.0
  for _ in range(100):
    surplus = log_capital(m) - log
    slope = (bets / (1 + bets * (scores - m))).sum()
    if surplus >= 0 or slope == 0 or m <= 0:
      break
    step = surplus / slope
    m += step
    if -step < 1e-13:
      break
  step = 1e-14
  while m > 0 and not log_capital(m) >= log:
    m, step = m - step, 2 * step
  return max(m, 0.0)


def _bets(scores, log):
  n = len(scores)
  count = np.arange(1, n + 1)
  means = (_PRIOR_MEAN + np.cumsum(scores)) / (count + 1)
  variances = (_PRIOR_VARIANCE + np.cumsum((scores - means) ** 2)) / (count + 1)
  before = np.concatenate([[_PRIOR_VARIANCE], variances[:-1]])  # What s_1 .. s_{t-1} tell.
  reach = np.sqrt(2 * before * log / n) + log / n
  return reach / (before + reach)


def _check(scores):
  scores = np.asarray(scores, np.float64)
  if scores.ndim == 0 or scores.shape[-1] == 0:
    raise ValueError(f'`scores` must be [..., N] with N >= 1, got shape {scores.shape}.')
  scores = np.where(np.isnan(scores), 0.0, scores)
  if scores.min() < 0 or scores.max() > 1:
    raise ValueError(
      f'`scores` must lie in [0, 1], got [{scores.min()}, {scores.max()}]; map a score of another '
      f'range [a, b] with (score - a) / (b - a).'
    )
  return scores
