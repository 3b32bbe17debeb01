r"""The level-set method of Yang et al. 2020: Neyman-Pearson for rotation-invariant noise, L2.

For noise of density g(|z|), g falling, a shift by e leaves class A above 1/2 as soon as

  1 - p_a < tail(e) = max_gamma M_gamma(e) - gamma / 2,
  M_gamma(e) = int min(g(|z|), gamma g(|z - e|)) dz

(weak duality: every gamma is sound; the best one is exact). M_gamma is an integral over levels of
the volume that two balls share, so it falls with e: a proof for e is one for the whole ball. Given
|z|, the angle to e is a beta variable, which leaves an integral over the radial law. It is bounded
from below by a sum over cells: the mass of a cell by the law's distribution function, times the
least chance of the angle in it (see `_lower_chances`); what lies beyond the cells counts as 0.

Between the shifts e_i of the table: an event of tail q loses at most Phi(q) per unit, and Phi lies
below its tangents c + v q (linear programming duality, see `_tangents`), hence

  R(q) >= max_{tail_i > q} e_i + int_q^{tail_i} dp / min(tangents).

Only the choice of gamma and of the tangents is approximate, and every choice is sound. From 8
dimensions on the sums cost at most 1e-3 of the radius, and 2e-4 for most laws; 3e-3 for a very
heavy tail (pow2 with k = 1, a - d = 3). In 2 or 3 they cost 1e-3 for tails down to 1e-2, and up to
2e-2 at 1e-4, most for a pole or a heavy tail. Where no rate Phi is finite (exp2 with j >= d - 1)
nothing is gained between the shifts, 1/30 of a standard deviation apart.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from certjax.smoothing._family import gamma_ratio

_SHIFTS, _REACH = 300, 10.0  # Of the table, in standard deviations.
# Cells of the sums, up to a dimension: the angle's chances are sharp, but cheap, in the lowest.
_CELLS = {3: 16384, 256: 4096, np.inf: 2048}
_TANGENT_CELLS, _SEARCH_POINTS = 1024, 64
_ENDS = 9.2  # The outermost knots are the radial law's quantiles at Phi(+-9.2), 2e-20 from 0 and 1.
# Relative errors allowed: of a law's mass and moment, and of the chance of the angle, sums included
# (tests measure scipy's in 40 digits: at most 1e-11 and 1e-12); of a few float operations.
_MASS_ERROR, _ANGLE_ERROR, _FLOAT_ERROR = 1e-10, 1e-11, 1e-12
_STEPS, _LEAST_LOG = 24, -80.0  # Bisections, and the smallest log-likelihood ratio looked at.


class IsotropicLaw(NamedTuple):
  """A rotation-invariant law by its radial variable w = r^power, at scale 1.

  Needed of the density g: r slope(r) rises with r. As its integral over ln r between r and s is |t|
  (see `stretch`), |ln(s / r)| then falls with r.

  Attributes:
    dimension: d >= 2.
    power: k.
    quantile: (below, above) -> w, where Pr[W < w] is `below` = 1 - `above`; need not be exact.
    mass: w -> Pr[W < w], Pr[W > w], the smaller to 1e-10 relative, within the quantiles.
    moment: w -> E[slope; W < w], E[slope; W > w], likewise, or infinite.
    stretch: (w, t) -> (s / r)^k - 1 to 1e-13 relative, where ln g(s) = ln g(r) + t; -1 or less
      where there is no such s.
    trend: (w, that) -> a number with the sign of d(r |(s / r)^k - 1|) / dr; monotone in w.
    slopes: (r_1, r_2) -> least and greatest slope = -d ln g / dr over [r_1, r_2].
  """

  dimension: int
  power: float
  quantile: Callable
  mass: Callable
  moment: Callable
  stretch: Callable
  trend: Callable
  slopes: Callable


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
    tails, starts, tangents = tables[0]
    above = len(tails) - np.searchsorted(tails[::-1], tail, side='right')  # tails[i] > tail.
    i = np.clip(above - 1, 0, len(tails) - 1)
    return starts[i] + _between(tangents, i, np.minimum(tail, tails[i]), tails[i])

  return lower


def _between(tangents, i, low, high):
  """A lower bound of int_low^high dp / min(tangent i, tangent i + 1)."""
  if np.isinf(tangents).any():
    return np.zeros_like(high)  # No rate is finite.
  after = np.minimum(i + 1, tangents.shape[1] - 1)
  (c, v), (c_after, v_after) = tangents[:, i], tangents[:, after]
  crossing = v_after > v
  cross = (c - c_after) / np.where(crossing, v_after - v, 1.0)
  cross = np.clip(np.where(crossing, cross, low), low, high)  # Sound wherever it lies.
  parts = _along(c, v, cross, high) + _along(c_after, v_after, low, cross)
  return parts * (1 - _FLOAT_ERROR)


def _along(constant, slope, low, high):
  """int_low^high dp / (constant + slope p)."""
  return np.log1p(slope * (high - low) / (constant + slope * low)) / slope


def _table(law):
  """Falling tails, the radii proved there, and (c, v) of the tangents there."""
  unit = _quantile(law, 0.0) ** (1 / law.power) / np.sqrt(law.dimension)
  shifts = np.linspace(0, _REACH, _SHIFTS + 1)[1:] * unit
  found = _tails(law, shifts)
  found = np.maximum.accumulate(found[::-1])[::-1]  # What holds for a shift holds for smaller ones.
  useful = (found > 0) & (found < 0.5)
  shifts, tails = np.append(0, shifts[useful]), np.append(0.5, found[useful])
  tangents = _tangents(law, tails)
  i = np.arange(len(tails) - 1)
  sums = np.append(0, np.cumsum(_between(tangents, i, tails[1:], tails[:-1])))
  starts = sums + np.maximum.accumulate(shifts - sums)  # From the best shift so far.
  return tails, starts * (1 - _FLOAT_ERROR), tangents  # Of the sums' roundings, too.


def _quantile(law, z):
  """W at the probability Phi(z), about: w and r stay far from overflow."""
  limit = 10.0 ** min(290, 150 * law.power)
  return np.clip(law.quantile(special.ndtr(z), special.ndtr(-z)), 1 / limit, limit)


def _cells(law, count):
  """Knots w: dense in the middle of the law, and reaching far into both ends."""
  s = np.linspace(-1, 1, count + 1)
  return np.unique(_quantile(law, _ENDS * (0.4 * s + 0.6 * s**3)))


def _points(law):
  """Few points w with weights, for the searches: nothing sound is asked of them."""
  z = np.linspace(-_ENDS, _ENDS, 2 * _SEARCH_POINTS + 1)
  return _quantile(law, z[1::2]), np.diff(special.ndtr(z[::2]))


def _shares(below, above):
  """Bounds of the share of each cell, by the smaller ones of those below and above the knots."""
  lower = below[1:] < above[:-1]
  share = np.where(lower, np.diff(below), -np.diff(above))
  error = 2 * _MASS_ERROR * np.where(lower, below[1:], above[:-1])
  return np.maximum(share - error, 0), share + error


def _tails(law, shifts):
  """A lower bound of tail(e) for every shift."""
  t = _best_ratio(law, shifts)
  knots = _cells(law, next(count for most, count in _CELLS.items() if law.dimension <= most))
  mass = _shares(*law.mass(knots))[0]
  rest, inside = (chances @ mass for chances in _lower_chances(law, knots, shifts, t))
  gamma = np.exp(t)
  return rest + gamma * (inside - 0.5) - _ANGLE_ERROR * (rest + gamma)


def _best_ratio(law, shifts):
  """t = ln gamma with Q(A) = 1/2, about."""
  w, weights = _points(law)
  r, e = w ** (1 / law.power), shifts[:, None]

  def excess(t):
    growth = np.expm1(2 / law.power * np.log1p(law.stretch(w, t[:, None])))
    return _chance(law, 0.5 - e / (4 * r) + r * growth / (4 * e)) @ weights - 0.5

  with np.errstate(over='ignore'):
    return _bisect(excess, _LEAST_LOG, 0.0, shifts)


def _chance(law, x):
  """Pr[(1 - cos) / 2 < x] of the angle between a uniform direction and a fixed one."""
  half = (law.dimension - 1) / 2
  return special.betainc(half, half, np.clip(x, 0, 1))


def _lower_chances(law, w, shifts, t):
  r"""Least P(not A) and Q(A) in each cell, A = {ln p - ln q >= t}, t <= 0, given |z|.

  Seen from a point at distance r, the centre of the other law lies within s of it, where
  ln g(s) = ln g(r) -+ t, with the chance `_chance` of x,

    x = 1/2 - e / (4 r) + r ((s / r)^2 - 1) / (4 e).

  The middle term is least at the lower end of the cell; for the last one see `_range`. With -t,
  s <= r and it is negative; with t, s >= r and it is positive. As s / r rises with r in the first
  case, s exists in all of a cell if it does at the lower end. Where there is none, 0 stands for
  it: then x <= 0, as it must, for e / (4 r) + r / (4 e) >= 1/2.
  """
  e, t = shifts[:, None], t[:, None]
  r = w ** (1 / law.power)
  up, down = 1 + 4 * _FLOAT_ERROR, 1 - 4 * _FLOAT_ERROR
  near = 0.5 - 4e-16 - up * e / (4 * r[:-1])
  with np.errstate(over='ignore'):  # To infinity, whose chance is 1.
    shrink = law.stretch(w, -t) * (1 + _FLOAT_ERROR)
    growth = law.stretch(w, t) * (1 - _FLOAT_ERROR)
    met = shrink > -1
    outside = near - up * _range(law, w, np.where(met, shrink, -0.5))[1] / (4 * e)
    inside = near + down * _range(law, w, growth)[0] / (4 * e)
  return _chance(law, np.where(met[:, :-1], outside, 0)), _chance(law, inside)


def _range(law, w, u):
  r"""Bounds of r |(s / r)^2 - 1| in each cell, from u = (s / r)^k - 1 at its ends.

  It is r |u| times the slope ((1 + u)^(2/k) - 1) / u of a chord of a convex or concave function,
  which is monotone in u, and u in r. r |u| is monotone where the trend has one sign at both ends
  (it is monotone itself); else |u|, which falls, and r are bounded apart.
  """
  r = w ** (1 / law.power)
  chord = np.expm1(2 / law.power * np.log1p(u)) / u
  reach, trend = r * np.abs(u), law.trend(w, u)
  low, high = np.s_[..., :-1], np.s_[..., 1:]
  extremes = lambda c: (np.minimum(c[low], c[high]), np.maximum(c[low], c[high]))
  (least, greatest), (first, last) = extremes(reach), extremes(trend)
  steady = (first >= 0) | (last <= 0)
  least = np.where(steady, least, r[low] * np.abs(u[high]))
  greatest = np.where(steady, greatest, r[high] * np.abs(u[low]))
  least_chord, greatest_chord = extremes(chord)
  return least * least_chord, greatest * greatest_chord


def _tangents(law, tails):
  r"""(c, v) with Phi(p) <= c + v p for all p, nearly equal at `tails`.

  c = E (V - v)_+ of the score V, the slope at r times the cosine of a uniform direction:

    E[(V - v)_+ | slope] = slope E[cos; cos > x] - v Pr[cos > x],   x = v / slope,
    E[cos; cos > x] = (1 - x^2)^half / ((d - 1) B(1/2, half)),   half = (d - 1) / 2.
  """
  half = (law.dimension - 1) / 2
  v = _best_slope(law, tails)[:, None]
  if law.moment(1.0)[0] == np.inf:  # A pole so strong that no rate is finite.
    return np.stack([np.full_like(tails, np.inf), v[:, 0]])
  slopes, weights, beyond = _moved_masses(law)
  cosine = np.minimum(v / slopes, 1)
  unit = gamma_ratio(half, 0.5) / (np.sqrt(np.pi) * (law.dimension - 1))
  with np.errstate(divide='ignore'):
    mean = slopes * unit * np.exp(half * (np.log1p(-cosine) + np.log1p(cosine)))
  c = (mean - v * _chance(law, (1 - cosine) / 2)) @ weights
  # v Pr[V > v] is at most the mean. (Where x rounds, it is as if the slope did: an error of that
  # size in the mean, too.) Beyond the cells, slope E[cos; cos > 0].
  rounding = 2 * _ANGLE_ERROR * (mean @ np.abs(weights))
  return np.stack([c + rounding + unit * beyond * (1 + _MASS_ERROR), v[:, 0]])


def _best_slope(law, tails):
  """v with Pr[V > v] = tail, about."""
  w, weights = _points(law)
  r = w ** (1 / law.power)
  slopes = law.slopes(r, r)[0]

  def excess(log_v):
    cosine = np.minimum(np.exp(log_v)[:, None] / slopes, 1)
    return _chance(law, (1 - cosine) / 2) @ weights - tails

  return np.exp(_bisect(excess, np.log(slopes.min()) - 25, np.log(slopes.max()), tails))


def _moved_masses(law):
  r"""Slopes and weights whose sum of any G bounds E G(slope) in the cells; E[slope] beyond them.

  For convex G with G(0) = 0, as above: in a cell G lies below its chord over the range of slopes,
  so the mass may be moved to the range's ends, its mean kept. The chord is at most 0 at slope 0,
  hence neither less mass nor a larger mean can lower the bound.
  """
  knots = _cells(law, _TANGENT_CELLS)
  r = knots ** (1 / law.power)
  least, greatest = law.slopes(r[:-1], r[1:])
  least, greatest = least * (1 - 1e-9), greatest * (1 + 1e-9)  # Never equal; holds the rounding.
  below, above = law.moment(knots)
  mass, moment = _shares(*law.mass(knots))[0], _shares(below, above)[1]
  to_greatest = (moment - mass * least) / (greatest - least)
  weights = np.append(mass - to_greatest, to_greatest)
  return np.append(least, greatest), weights, below[0] + above[-1]


def _bisect(falling, low, high, like):
  low, high = np.full(like.shape, low), np.full(like.shape, high)
  for _ in range(_STEPS):
    middle = (low + high) / 2
    positive = falling(middle) > 0
    low, high = np.where(positive, middle, low), np.where(positive, high, middle)
  return (low + high) / 2
