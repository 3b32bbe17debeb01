"""Exact binomial dynamic programming over the looks of a sequential test.

Between two looks the count of successes grows by a binomial variable, so its distribution over
the paths that are still undecided follows from one convolution a look. That gives the error of
any boundary exactly, and the boundary that spends a given error. Every convolution is direct:
sums of positive numbers keep their relative accuracy in the tails, which an FFT does not.
"""

from typing import NamedTuple

import numpy as np

CUT = 1e-40
"""Probability at most that one window leaves out; counted as spent wherever something is proved."""
MARGIN = 1e-8
"""Relative distance that a tail keeps from its level. Rounding moves a tail by at most 6e-9 of it
up to 10^8 samples: 3 ulp for each of 1.2e5 entries of a window, at each of 163 looks."""


class Boundary(NamedTuple):
  """A test of "p >= p0" from Bernoulli(p) samples that looks at prescribed sample numbers only.

  At look t the count of successes among samples starts[t] .. looks[t] - 1 decides: at least
  accept[t] proves p >= p0; at most reject[t] gives up; otherwise sampling goes on to the next look.
  After the last look, what is not proved is given up.

  Attributes:
    looks: int64[T], samples drawn at each look, increasing.
    starts: int64[T], first sample of each count: 0 where counts are cumulative, looks[t - 1] where
      each round starts afresh.
    accept: int64[T]. With probability at most alpha some look accepts although p < p0, whether or
      not rejections are heeded. One more than the count can reach where a look never accepts.
    reject: int64[T], less than `accept`, -1 where a look never rejects. With probability at most
      beta some look rejects although p >= p0: that costs a certificate, never soundness.
  """

  looks: np.ndarray
  starts: np.ndarray
  accept: np.ndarray
  reject: np.ndarray


def boundary_error(boundary, p) -> tuple[float, float, float]:
  """What a boundary does when every sample succeeds with probability p, by exact DP.

  Args:
    boundary: a `Boundary`.
    p: the success probability, in [0, 1].

  Returns:
    (probability to accept, probability to reject, expected number of samples), floats. The first
    is the error where p < p0 and the power where p >= p0; what is left of 1 stays undecided.

  Raises:
    ValueError: if p is outside [0, 1].

  Example:
    >>> from certjax import certify
    >>> test = certify.boundary('group-sequential', 0.9, alpha=0.001, max_samples=10_000)
    >>> [f'{value:.4g}' for value in boundary_error(test, 0.9)]
    ['0.0009654', '0.0009972', '9990']
    >>> [f'{value:.4g}' for value in boundary_error(test, 0.95)]
    ['1', '5.687e-08', '517.7']
  """
  if not 0 <= p <= 1:
    raise ValueError(f'`p` is a probability in [0, 1], got p={p}.')
  accepted = rejected = samples = 0.0
  first, mass, drawn = 0, np.ones(1), 0
  for look, start, accept, reject in zip(*(part.tolist() for part in boundary), strict=True):
    samples += mass.sum() * (look - drawn)
    if start:  # A fresh round: only that it is reached remains of the past.
      first, mass = 0, mass.sum(keepdims=True)
    first, mass = _advance(first, mass, look - drawn, p, look - start)
    high = min(max(accept - first, 0), len(mass))
    low = min(max(reject + 1 - first, 0), high)
    accepted, rejected = accepted + mass[high:].sum(), rejected + mass[:low].sum()
    first, mass, drawn = first + low, mass[low:high], look
    if not len(mass):
      break
  return float(accepted), float(rejected), float(samples)


def spending_counts(looks, p0, budgets) -> np.ndarray:
  """The smallest counts that spend an error no faster than allowed.

  Look by look, the smallest a_t with

    Pr[S_s >= a_s at some look s <= t] <= budgets[t],    S_s ~ Binomial(looks[s], p0) cumulative.

  Exact DP over the paths below all earlier a_s, tails `MARGIN` below the budgets, whatever a
  window cuts off taken as spent.

  Args:
    looks: int[T], increasing.
    p0: success probability in (0, 1).
    budgets: float[T], non-decreasing, below 1.

  Returns:
    int64[T]; looks[t] + 1 where the budget allows no count.

  Example:
    >>> spending_counts(np.array([5, 10]), 0.5, np.array([0.04, 0.05]))
    array([5, 9])
  """
  first, mass, drawn, spent = 0, np.ones(1), 0, 2 * CUT * len(looks)
  counts = []
  for look, budget in zip(np.asarray(looks).tolist(), budgets, strict=True):
    first, mass = _advance(first, mass, look - drawn, p0, look)
    tail = np.cumsum(mass[::-1])[::-1]
    keep = int(np.sum(spent + tail > budget * (1 - MARGIN)))  # A prefix: the tail falls.
    spent += tail[keep] if keep < len(tail) else 0.0
    counts.append(first + keep)
    mass, drawn = mass[:keep], look
  return np.array(counts, np.int64)


def _advance(first, mass, samples, p, total):
  """Distribution of the count after `samples` more, `total` in all, from mass[i] at first + i."""
  offset, step = _binomial(samples, p)
  mass, first = np.convolve(mass, step), first + offset
  low, high = _window(total, p)
  low = max(low, first)
  return low, mass[low - first : high - first + 1]


def _binomial(n, p):
  """(first count, probabilities) of Binomial(n, p) within its window, from ratios of neighbours."""
  if p in (0, 1):
    return n * int(p), np.ones(1)
  low, high = _window(n, p)
  mode = min(int((n + 1) * p), n)
  odds = p / (1 - p)
  above, below = np.arange(mode, high), np.arange(mode, low, -1)
  up = np.cumprod((n - above) / (above + 1) * odds)
  down = np.cumprod(below / (n - below + 1) / odds)
  mass = np.concatenate([down[::-1], [1.0], up])
  return low, mass / mass.sum()


def _window(n, p):
  """Counts between which Binomial(n, p) falls but for `CUT`, by Bernstein's inequality."""
  log = np.log(2 / CUT)
  half = log / 3 + np.sqrt(log**2 / 9 + 2 * log * n * p * (1 - p))
  return max(int(n * p - half), 0), min(int(np.ceil(n * p + half)), n)
