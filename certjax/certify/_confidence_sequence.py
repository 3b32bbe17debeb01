r"""Bounds of a proportion that hold at all looks at once, so that one may stop when they suffice.

Two sequences. *Union bound* (Voracek 2024): Clopper-Pearson at look t = 1, 2, ... with level
5 alpha / ((t + 4)(t + 5)); the levels add up to alpha. *Betting*: Ville's inequality for the wealth
of a gambler who bets against p0 on every q > p0, in Krichevsky and Trofimov's proportions:

  W_n(p0) = E_q[(q / p0)^S ((1 - q) / (1 - p0))^(n - S)],    q ~ Beta(1/2, 1/2) given q > p0,

S successes among n. One bet's expectation, p q / p0 + (1 - p)(1 - q) / (1 - p0), grows with p as
q > p0 and is 1 at p0: under every p <= p0 the wealth is a supermartingale, and it ever reaches
1 / alpha with probability at most alpha, after whatever number of samples one looks.
"""

import numpy as np
from scipy import special

from certjax.certify._boundary_dp import MARGIN


def confidence_sequence(method, successes, look, looks, *, alpha, beta=None):
  """Lower and upper bounds of a proportion that hold at all looks at once.

  Args:
    method: 'betting' (valid after every sample, tight early) or 'union-bound'.
    successes: int[...], successes among the first looks[look] samples.
    look: int[...], which look it is, from 0; broadcast against `successes`.
    looks: int[T], samples drawn at each look; fixed before the first.
    alpha: probability that the lower bound ever exceeds p.
    beta: probability that the upper bound ever falls below p; alpha by default.

  Returns:
    (lower, upper), float64[...], rounded outwards. Both hold with probability 1 - alpha - beta.

  Raises:
    ValueError: if the method is unknown, successes or looks are out of range, or alpha or beta
      exceeds 1/2.

  Example:
    >>> lower, upper = confidence_sequence('betting', [95, 990], [0, 1], [100, 1000], alpha=0.001)
    >>> lower.round(4), upper.round(4)
    (array([0.8131, 0.9712]), array([0.997 , 0.9985]))

  References:
    Krichevsky & Trofimov 1981; Ville 1939; Waudby-Smith & Ramdas 2023; Voracek 2024.
  """
  beta = alpha if beta is None else beta
  for name, level in (('alpha', alpha), ('beta', beta)):
    if not 0 < level <= 0.5:  # Above it the wealth need not fall with p0: see `_betting_lower`.
      raise ValueError(f'`{name}` must lie in (0, 1/2], got {name}={level}.')
  if method not in _LOWER:
    raise ValueError(f'`method`={method!r} is unknown: choose from {", ".join(_LOWER)}.')
  successes, look = np.broadcast_arrays(np.asarray(successes), np.asarray(look))
  looks = _checked_looks(looks, look)
  trials = looks[look]
  bad = ~((successes >= 0) & (successes <= trials))
  if np.any(bad):
    raise ValueError(
      f'`successes` must lie in [0, samples drawn], got {successes[bad].flat[0]} of '
      f'{trials[bad].flat[0]}.'
    )
  lower = _LOWER[method](successes, trials, look, alpha)
  upper = 1 - _LOWER[method](trials - successes, trials, look, beta)
  return lower, np.minimum(np.nextafter(upper, 2.0), 1.0)


def tolerance_met(method, radius, successes, look, looks, *, alpha, tolerance, beta=None):
  """Whether a radius is already within a fraction of the best that more samples could prove.

    radius(lower) >= (1 - tolerance) min(radius(upper), radius(lower if all that is left succeeds))

  Stopping there needs no correction: the lower bound holds at all looks. The upper bound only
  decides when to stop, so an error of it (probability beta) costs radius, never soundness.

  Args:
    method: as `confidence_sequence`.
    radius: p_a -> radius, vectorised, such as a smoothing's.
    successes: as `confidence_sequence`.
    look: as `confidence_sequence`.
    looks: as `confidence_sequence`; all samples are drawn at the last.
    alpha: as `confidence_sequence`.
    tolerance: the fraction of the radius given away, in (0, 1).
    beta: as `confidence_sequence`.

  Returns:
    (met, lower): bool[...], True also where no radius is in reach; float64[...], the lower bound.

  Raises:
    ValueError: as `confidence_sequence`, or if `tolerance` is outside (0, 1).

  Example:
    >>> from certjax import smoothing
    >>> radius = smoothing.gaussian(sigma=0.5).radius
    >>> met, lower = tolerance_met(
    ...   'betting', radius, [900, 9000], [0, 1], [1000, 10_000], alpha=0.001, tolerance=0.05)
    >>> met, lower.round(4)
    (array([False,  True]), array([0.8545, 0.8859]))
  """
  if not 0 < tolerance < 1:
    raise ValueError(f'`tolerance` is a fraction in (0, 1), got tolerance={tolerance}.')
  options = {'alpha': alpha, 'beta': beta}
  lower, upper = confidence_sequence(method, successes, look, looks, **options)
  looks, last = np.asarray(looks), len(looks) - 1
  best = np.asarray(successes) + looks[last] - looks[np.asarray(look)]
  limit, _ = confidence_sequence(method, best, last, looks, **options)
  reachable = np.minimum(radius(upper), radius(limit))
  return radius(lower) >= (1 - tolerance) * reachable, lower


def union_bound_level(look, alpha):
  """The share of alpha that look 0, 1, ... may spend: 5 alpha / ((look + 5)(look + 6)).

  The sum over all looks telescopes to alpha.

  Example:
    >>> round(float(sum(union_bound_level(np.arange(10**6), 0.05))), 6)
    0.05
  """
  look = np.asarray(look, np.float64)
  return 5 * alpha / ((look + 5) * (look + 6))


def at_least(successes, trials, p):
  """Pr[Binomial(trials, p) >= successes], 1 at no success."""
  tail = special.betainc(np.maximum(successes, 1), trials - np.maximum(successes, 1) + 1, p)
  return np.where(np.asarray(successes) > 0, tail, 1.0)


def log_wealth_proves(successes, trials, p0, alpha):
  """Whether the gambler who bets against p0 owns 1 / alpha: see the module's formula.

    ln W = ln B(S + 1/2, F + 1/2) Pr[Beta(S + 1/2, F + 1/2) > p0]
         - ln B(1/2, 1/2) Pr[Beta(1/2, 1/2) > p0] - S ln p0 - F ln(1 - p0),    F = n - S.

  Args:
    successes: int[...].
    trials: int[...].
    p0: float[...] in [0, 1).
    alpha: probability to be ever wrong.

  Returns:
    bool[...]; growing in `successes`.
  """
  s, n, p0 = (np.asarray(value, np.float64) for value in (successes, trials, p0))
  f = n - s
  with np.errstate(divide='ignore', invalid='ignore'):  # ln 0 and NaN prove nothing.
    wealth = special.betaln(s + 0.5, f + 0.5) + np.log(special.betaincc(s + 0.5, f + 0.5, p0))
    stake = special.betaln(0.5, 0.5) + np.log(special.betaincc(0.5, 0.5, p0))
    wealth = wealth - stake - special.xlogy(s, p0) - special.xlog1py(f, -p0)
  # betaln is a difference of numbers of size n ln n: an error of 1e-14 n at most; 100 times that.
  return wealth >= -np.log(alpha) + 1e-9 + 1e-12 * n


def _betting_lower(successes, trials, look, alpha):
  r"""Bisection for the largest p0 that the wealth refutes.

  All smaller p0 are refuted as well, since ln W falls with p0 wherever W >= 1 / alpha. With h the
  hazard rate of Beta(1/2, 1/2), l the log likelihood and p^ = S / n,

    (ln W)' = h (1 - 1 / W) - l',    l' = n (p^ - p0) / (p0 (1 - p0)),

  and W > 1 only where p0 < p^. There h <= l':
    - if p^ >= 2 p0: l' >= S / (2 p0 (1 - p0)) >= h;
    - else p^ - p0 <= m = min(p0, 1 - p0), and ln(1 / alpha) <= ln W <= n KL(p^, p0), at most
      l' (p^ - p0); so l' >= ln(1 / alpha) / m, while h <= (2 / pi) / m: less, for alpha <= 1/2.
  """
  del look  # Valid after every sample.
  return _largest(lambda p: log_wealth_proves(successes, trials, p, alpha), successes / trials)


def _union_bound_lower(successes, trials, look, alpha):
  level = union_bound_level(look, alpha) * (1 - MARGIN)
  return _largest(lambda p: at_least(successes, trials, p) <= level, successes / trials)


def _largest(refuted, high):
  """The largest p in [0, high] found refuted, by bisection; 0 needs no proof."""
  low = np.zeros_like(high)
  for _ in range(60):
    middle = (low + high) / 2
    good = refuted(middle)
    low, high = np.where(good, middle, low), np.where(good, high, middle)
  return low


_LOWER = {'betting': _betting_lower, 'union-bound': _union_bound_lower}


def _checked_looks(looks, look):
  looks = np.asarray(looks, np.int64)
  if looks.ndim != 1 or not looks.size or looks[0] < 1 or np.any(np.diff(looks) < 1):
    raise ValueError(f'`looks` must be increasing sample numbers from 1, got {looks.tolist()}.')
  if np.any((look < 0) | (look >= len(looks))):
    raise ValueError(f'`look` must lie in 0 .. {len(looks) - 1}, got {np.ravel(look).tolist()}.')
  return looks
