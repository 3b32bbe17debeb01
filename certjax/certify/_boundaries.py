"""When to stop sampling: boundaries of sequential tests of "the probability is at least p0".

To certify a radius r is to show p_A >= p0 = Phi(r / sigma). Most images are far from p0 and need
some hundred samples, not 100,000. A `Boundary` says at which sample numbers to look, and which
counts decide there, so that looking again and again errs with probability at most alpha in all.

To accept is the event "some look's count is at least a_t". Couple the samples as X_i = [U_i <= p]:
all counts grow with p, so among p <= p0 the event is most probable at p0, and that is where alpha
is kept. A rejection can only take paths away from it, so rejections are left out of the proof: a
caller may heed or ignore them, and run several boundaries on the same samples.
"""

import functools
import operator

import numpy as np

from certjax.certify._boundary_dp import MARGIN, Boundary, spending_counts
from certjax.certify._confidence_sequence import at_least, log_wealth_proves, union_bound_level

_GROWTH = 1.1  # From look to look.
_FIRST_LOOK = 20
_EARLY_SHARE = 0.6  # Of alpha, spent linearly over the looks; the last look has the rest.
_ROUNDS = (1000, 10_000, 125_000)  # Of Horvath et al.
_ROUNDS_BETA = 1e-4
_LEAST_LEVEL = 1e-30  # Far above what the windows of the DP cut off.
_MOST_SAMPLES = 10**8


def boundary(method, p0, *, alpha, max_samples, beta=None) -> Boundary:
  r"""The boundary of a sequential test of "p >= p0".

  Methods, the most economical first:

    - 'group-sequential': looks at 20 * 1.1^j and at the end; 60% of alpha spent linearly over the
      looks, 40% on the last; each threshold is the smallest that exact DP at p0 allows.
    - 'betting': the wealth of `confidence_sequence`, at the same looks. Of the looks it needs none:
      the bound holds after every sample.
    - 'union-bound': looks at the next integer above 1.1^k, k = 11, 12, ..., and at the end; at look
      t = 1, 2, ... the exact binomial quantile of level 5 alpha / ((t + 4)(t + 5)).
    - 'horvath': rounds in proportion 1000 : 10,000 : 125,000 (these, for max_samples = 136,000),
      each with fresh samples: Clopper-Pearson at alpha / rounds; all but the last round give up at
      beta / (rounds - 1).
    - 'fixed': one look at the end, Clopper-Pearson.

  The reject side is the same test of the failures against 1 - p0 at level beta. Every tail is kept
  1e-8 of its level below it, which is more than rounding can do.

  Args:
    method: one of the above.
    p0: the probability to be shown, in (0, 1). Where it comes from a radius, round it up.
    alpha: probability to accept although p < p0.
    max_samples: samples at the last look.
    beta: probability to reject although p >= p0; alpha by default, 1e-4 for 'horvath'.

  Returns:
    A `Boundary` of read-only arrays; computed once for each set of arguments.

  Raises:
    ValueError: if an argument is out of range, or no count can ever accept (naming the number of
      samples that are needed).

  Example:
    >>> test = boundary('group-sequential', 0.8413, alpha=0.001, max_samples=100_000)
    >>> [part[20].item() for part in test]
    [135, 0, 130, 94]
    >>> [part[-1].item() for part in test]
    [100000, 0, 84513, 83745]

  References:
    Lan & DeMets 1983 (error spending); Horvath et al. 2022 (arXiv:2106.06946); Voracek 2024;
    Cohen et al. 2019 (arXiv:1902.02918).
  """
  if method not in METHODS:
    raise ValueError(f'`method`={method!r} is unknown: choose from {", ".join(METHODS)}.')
  if not 0 < p0 < 1:
    raise ValueError(f'`p0` is a probability in (0, 1), got p0={p0}.')
  if beta is None:
    beta = _ROUNDS_BETA if method == 'horvath' else alpha
  for name, level in (('alpha', alpha), ('beta', beta)):
    if not _LEAST_LEVEL <= level < 1:
      raise ValueError(f'`{name}` is a failure probability in [1e-30, 1), got {name}={level}.')
  try:
    max_samples = operator.index(max_samples)
  except TypeError:
    raise ValueError(f'`max_samples` must be an integer, got {max_samples!r}.') from None
  if not 1 <= max_samples <= _MOST_SAMPLES:
    raise ValueError(f'`max_samples` must lie in 1 .. {_MOST_SAMPLES}, got {max_samples}.')
  return _boundary(method, float(p0), float(alpha), float(beta), max_samples)


@functools.lru_cache(maxsize=256)
def _boundary(method, p0, alpha, beta, max_samples):
  if not _accepts(method, p0, alpha, max_samples):
    raise ValueError(
      f'`max_samples`={max_samples} can never prove p >= {p0:g} at `alpha`={alpha:g} by '
      f'{method!r}: at least {_needed(method, p0, alpha)} are needed.'
    )
  looks, starts = _LOOKS[method](max_samples)
  sizes = looks - starts
  accept = METHODS[method](sizes, p0, alpha)
  if method == 'fixed':
    failures = sizes + 1
  elif method == 'horvath':  # The last of T rounds never rejects: T - 1 share beta.
    failures = METHODS[method](sizes, 1 - p0, beta * len(sizes) / max(len(sizes) - 1, 1))
    failures[-1] = sizes[-1] + 1
  else:
    failures = METHODS[method](sizes, 1 - p0, beta)
  if not starts.any():
    accept, failures = _earliest(accept), _earliest(failures)
  result = Boundary(looks, starts, accept, np.minimum(sizes - failures, accept - 1))
  for part in result:
    part.setflags(write=False)
  return result


def looks_of(method, max_samples):
  """The sample numbers int64[T] at which a method looks, whatever it tests.

  Example:
    >>> looks_of('betting', 30)
    array([20, 22, 25, 27, 30])
  """
  return _LOOKS[method](max_samples)[0]


def _earliest(counts):
  """A count that suffices at a later look suffices now: cumulative counts never fall."""
  return np.minimum.accumulate(counts[::-1])[::-1]


def _accepts(method, p0, alpha, max_samples):
  """Whether any count of any look accepts; if any does, that of an unbroken row of successes."""
  if method == 'group-sequential':
    # With such a row the last look has all of alpha left, like the only look of 'fixed'.
    method = 'fixed'
  looks, starts = _LOOKS[method](max_samples)
  return bool(np.any(METHODS[method](looks - starts, p0, alpha) <= looks - starts))


def _needed(method, p0, alpha):
  """Smallest max_samples that can accept, by doubling and bisection."""
  high = 1
  while not _accepts(method, p0, alpha, high):
    high *= 2
    if high > _MOST_SAMPLES:
      return f'more than {_MOST_SAMPLES}'
  low = high // 2
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if _accepts(method, p0, alpha, middle) else (middle, high)
  return high


def _geometric_looks(max_samples):
  number = int(np.ceil(np.log(max(max_samples / _FIRST_LOOK, 1)) / np.log(_GROWTH)))
  looks = np.ceil(_FIRST_LOOK * _GROWTH ** np.arange(number)).astype(np.int64)
  return _cumulative(looks, max_samples)


def _union_bound_looks(max_samples):
  looks, last, power = [], 0, 11
  while last < max_samples:
    last = max(last + 1, int(_GROWTH**power) + 1)
    looks.append(last)
    power += 1
  return _cumulative(np.array(looks, np.int64), max_samples)


def _cumulative(looks, max_samples):
  looks = np.append(looks[looks < max_samples], max_samples)
  return looks, np.zeros_like(looks)


def _rounds(max_samples):
  sizes = np.array(_ROUNDS) * max_samples // sum(_ROUNDS)
  sizes[-1] = max_samples - sizes[:-1].sum()
  sizes = sizes[sizes > 0]
  return np.cumsum(sizes), np.cumsum(sizes) - sizes


def _only_look(max_samples):
  return np.array([max_samples]), np.array([0])


def _group_sequential(looks, p0, alpha):
  shares = _EARLY_SHARE * np.arange(1, len(looks) + 1) / len(looks)
  shares[-1] = 1
  return spending_counts(looks, p0, alpha * shares)


def _betting(looks, p0, alpha):
  return _smallest(lambda count: log_wealth_proves(count, looks, p0, alpha), looks)


def _union_bound(looks, p0, alpha):
  return _quantile(looks, p0, union_bound_level(np.arange(len(looks)), alpha))


def _equal_shares(sizes, p0, alpha):
  return _quantile(sizes, p0, alpha / len(sizes))


def _quantile(sizes, p0, level):
  """Smallest counts with Pr[Binomial(sizes, p0) >= count] <= level."""
  return _smallest(lambda count: at_least(count, sizes, p0) <= level * (1 - MARGIN), sizes)


def _smallest(proves, sizes):
  """Smallest counts in 0 .. sizes that prove, or sizes + 1; `proves` must grow with the count."""
  low, high = np.full_like(sizes, -1), sizes + 1
  while np.any(high - low > 1):
    middle = (low + high) // 2
    good = proves(middle)
    low, high = np.where(good, low, middle), np.where(good, middle, high)
  return high


METHODS = {  # name -> (sample sizes of the looks, p0, alpha) -> counts that accept.
  'group-sequential': _group_sequential,
  'betting': _betting,
  'union-bound': _union_bound,
  'horvath': _equal_shares,
  'fixed': _equal_shares,
}
_LOOKS = {
  'group-sequential': _geometric_looks,
  'betting': _geometric_looks,
  'union-bound': _union_bound_looks,
  'horvath': _rounds,
  'fixed': _only_look,
}
