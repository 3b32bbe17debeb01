"""The level-set method of Yang et al. 2020: Neyman-Pearson for rotation-invariant noise, L2.

For noise of density g(|z|), g falling, a shift by e leaves class A above 1/2 as soon as

  1 - p_a < tail(e) = max_gamma M_gamma(e) - gamma / 2,   M_gamma(e) = int min(g(|z|), gamma g(|z - e|)) dz

(weak duality: every gamma is sound; the best one is exact). M_gamma is an integral over levels of
the volume that two balls share, so it falls with e: a proof for e is one for the whole ball. Given
|z|, the angle to e is a beta variable, which leaves an integral over the radial law. Gauss-Legendre
rules of n and n / 2 points give it; four times their difference is taken off. (This error is
estimated, unlike the differential method's, which is proved. From 8 coordinates on it costs less
than 1e-4 of a radius; in 2 or 3 a percent near the centre, and a good part of it far out.)

Between the shifts e_i of the table no convexity is assumed. An event of tail q loses at most Phi(q)
per unit, and Phi lies below its tangents c_i + v_i q (linear programming duality), hence

  R(q) >= e_i + int_q^{tail_i} dp / min(c_i + v_i p, c_{i+1} + v_{i+1} p),   q < tail_i.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

_SHIFTS, _REACH = 300, 10.0  # Of the table, in standard deviations.
_SAFETY, _RELATIVE = 4.0, 1e-11  # scipy's betainc: below 1e-13 relative.
_STEPS, _LEAST_LOG = 24, -80.0  # Bisections, and the smallest log-likelihood ratio looked at.
_PANEL = 16


class IsotropicLaw(NamedTuple):
  """A rotation-invariant law by its radial variable w = r^power, at scale 1.

  Attributes:
    dimension: d >= 2.
    power: k.
    span: least, median and greatest w; what lies outside has probability 1e-19 at most.
    log_density: ln w -> log-density of ln w, up to a constant.
    log_ratio: (w, t) -> ln(s / r), where ln g(s) = ln g(r) + t; -inf where there is no such s.
    slope: r -> -d ln g / dr.
  """

  dimension: int
  power: float
  span: tuple
  log_density: Callable
  log_ratio: Callable
  slope: Callable


def level_set(law: IsotropicLaw):
  """The L2 radius at scale 1 as a function of the tail; a table is made at the first use.

  Args:
    law: an `IsotropicLaw`.

  Returns:
    tail[...] -> float64[...], a lower bound.
  """
  tables = []

  def lower(tail):
    if not tables:
      tables.append(_table(law))
    shifts, tails, constants, slopes = tables[0]
    above = len(tails) - np.searchsorted(tails[::-1], tail, side='right')  # tails[i] > tail.
    i = np.clip(above - 1, 0, len(tails) - 1)
    after = np.minimum(i + 1, len(tails) - 1)
    steeper = slopes[after] - slopes[i]
    cross = (constants[i] - constants[after]) / np.where(steeper > 0, steeper, 1.0)
    cross = np.where(steeper > 0, cross, tails[i])
    cross = np.clip(cross, np.minimum(tail, tails[i]), tails[i])
    first = _between(constants[i], slopes[i], cross, tails[i])
    second = _between(constants[after], slopes[after], np.minimum(tail, tails[i]), cross)
    ends = np.append(shifts[1:], np.inf)
    return np.minimum(shifts[i] + (first + second) * (1 - _RELATIVE), ends[i])

  return lower


def _between(constant, slope, low, high):
  """int_low^high dp / (constant + slope p)."""
  return np.log1p(slope * (high - low) / (constant + slope * low)) / slope


def _table(law):
  low, median, high = law.span
  unit = median ** (1 / law.power) / np.sqrt(law.dimension)
  shifts = np.linspace(0, _REACH, _SHIFTS + 1)[1:] * unit
  # In few coordinates the density of the angle is singular at its ends: more nodes, three rules.
  few_coordinates = law.dimension < 8
  num_nodes = 4096 if few_coordinates else 512 if law.dimension <= 64 else 128
  fine, coarse, few = (_nodes(law, num_nodes // divisor) for divisor in (1, 2, 4))
  log_gamma = _bisect(lambda t: _masses(law, few, shifts, t)[1] - 0.5, _LEAST_LOG, 0.0, shifts)
  rules = (fine, coarse, few) if few_coordinates else (fine, coarse)
  best, *others = (_tail(law, nodes, shifts, log_gamma) for nodes in rules)
  found = best * (1 - _RELATIVE) - _SAFETY * np.max([abs(best - tail) for tail in others], axis=0)
  useful = np.cumprod(np.diff(found, prepend=0.5) < 0).astype(bool) & (found > 0)
  shifts, tails = np.append(0, shifts[useful]), np.append(0.5, found[useful])
  return (shifts, tails, *_tangents(law, fine, coarse, few, tails))


def _nodes(law, count):
  """Nodes w and weights (of sum 1) of a composite Gauss-Legendre rule in ln w."""
  points, weights = np.polynomial.legendre.leggauss(_PANEL)
  edges = np.linspace(np.log(law.span[0]), np.log(law.span[2]), count // _PANEL + 1)
  half = np.diff(edges)[:, None] / 2
  nodes = (edges[:-1, None] + half + half * points).ravel()
  log = law.log_density(nodes)
  mass = (half * weights).ravel() * np.exp(log - log.max())
  keep = mass > 0
  return np.exp(nodes[keep]), mass[keep] / mass.sum()


def _masses(law, nodes, shifts, t):
  """P(not A) and Q(A) of A = {ln p - ln q >= t}, p at 0, q at distance e."""
  w, mass = nodes
  e, t = shifts[:, None], t[:, None]
  r = w ** (1 / law.power)
  half = (law.dimension - 1) / 2
  # |y| = s on the sphere |z| = r: cos = (r^2 + e^2 - s^2) / (2 r e), s^2 - r^2 without cancelling.
  outside = 0.5 - e / (4 * r) + r * np.expm1(2 * law.log_ratio(w, -t)) / (4 * e)
  inside = 0.5 - e / (4 * r) + r * np.expm1(2 * law.log_ratio(w, t)) / (4 * e)
  p_rest = special.betainc(half, half, np.clip(outside, 0, 1)) @ mass
  q_inside = special.betainc(half, half, np.clip(inside, 0, 1)) @ mass
  return p_rest, q_inside


def _tail(law, nodes, shifts, log_gamma):
  p_rest, q_inside = _masses(law, nodes, shifts, log_gamma)
  return p_rest + np.exp(log_gamma) * (q_inside - 0.5)


def _tangents(law, fine, coarse, few, tails):
  """c and v with Phi(p) <= c + v p for all p, nearly equal at `tails`: c = E (V - v)_+."""
  half = (law.dimension - 1) / 2

  def share(nodes, v):
    """Pr[V > v], v / slope, and the slopes at the nodes."""
    w, mass = nodes
    slope = law.slope(w ** (1 / law.power))
    cosine = np.minimum(v[:, None] / slope, 1.0)
    return special.betainc(half, half, (1 - cosine) / 2) @ mass, cosine, mass * slope

  def parts(nodes, v):
    above, cosine, weighted = share(nodes, v)
    density = np.exp(half * np.log1p(-np.minimum(cosine**2, 1 - 1e-16)))
    mean = density / ((law.dimension - 1) * special.beta(0.5, half)) @ weighted
    return mean, mean - v * above

  slopes = law.slope(few[0] ** (1 / law.power))
  low, high = np.log(slopes.min()) - 25, np.log(slopes.max())
  v = np.exp(_bisect(lambda log: share(few, np.exp(log))[0] - tails, low, high, tails))
  (mean, c), (_, other) = parts(fine, v), parts(coarse, v)
  return c + _SAFETY * np.abs(c - other) + _RELATIVE * mean, v


def _bisect(falling, low, high, like):
  low, high = np.full(like.shape, low), np.full(like.shape, high)
  for _ in range(_STEPS):
    middle = (low + high) / 2
    positive = falling(middle) > 0
    low, high = np.where(positive, middle, low), np.where(positive, high, middle)
  return (low + high) / 2
