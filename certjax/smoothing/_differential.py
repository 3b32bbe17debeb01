"""The differential method of Yang et al. 2020: a radius from the rate at which probability can be lost.

With Phi(p) the largest derivative, over all events of probability p and all unit directions, of
that probability under a shift of the noise, an event of probability p_a keeps more than 1/2 up to

  R = int_{1 - p_a}^{1/2} dp / Phi(p).

Phi(p) is the value of a linear program (maximise E[f V] over 0 <= f <= 1 with E f = p, V the score
in the worst direction), hence concave in p, so 1 / Phi is convex: on every cell the midpoint rule
lies below the integral and the trapezoid rule above it. Both are proofs, not estimates.
"""

import numpy as np

# Relative. Sums of 2^18 positive terms err by at most 2^18 2^-53 = 2.9e-11, scipy's incomplete
# gamma and beta functions, composed as the laws do, by less than 1e-12 (tests).
_MARGIN = 1e-10
_CELLS, _DEPTH = 2**18, 38.0  # Tails from 1/2 down to exp(-38) / 2, below the spacing at 1.


def differential(phi):
  """Lower and upper bounds of R as functions of the tail.

  A table of 2^18 cells, equal in log p, is made at the first use; between its nodes the rules are
  applied to a part of a cell. The midpoint loses less than 1e-9 of the radius where Phi is at
  least as steep as p.

  Args:
    phi: tail[...] in (0, 1/2] -> Phi[...] at scale 1, positive, vectorised.

  Returns:
    (lower, upper): tail[...] -> float64[...]. Tails below the table give its last entry in
    `lower` and infinity in `upper`.

  Example:
    >>> lower, upper = differential(lambda p: p)  # Laplace noise: R = ln(1 / (2 q)).
    >>> bool(lower(0.05) <= np.log(10) <= upper(0.05))
    True
  """
  tables = {}

  def table():
    if not tables:
      nodes = 0.5 * np.exp(-np.linspace(0, _DEPTH, _CELLS + 1))
      widths = nodes[:-1] - nodes[1:]
      midpoint = widths / phi(nodes[1:] + widths / 2)
      rates = 1 / phi(nodes)
      trapezoid = widths * (rates[:-1] + rates[1:]) / 2
      tables['nodes'] = nodes
      tables['midpoint'] = np.concatenate([[0], np.cumsum(midpoint)])
      tables['trapezoid'] = np.concatenate([[0], np.cumsum(trapezoid)])
    return tables

  def cell(tail, nodes):
    """The cell of each tail (the last node above it), and the part of the cell that counts."""
    i = np.clip(len(nodes) - np.searchsorted(nodes[::-1], tail, side='left') - 1, 0, _CELLS)
    return i, nodes[i] - tail

  def lower(tail):
    made = table()
    tail = np.maximum(tail, made['nodes'][-1])
    i, width = cell(tail, made['nodes'])
    return (made['midpoint'][i] + width / phi(tail + width / 2)) * (1 - _MARGIN)

  def upper(tail):
    made = table()
    inside = np.maximum(tail, made['nodes'][-1])
    i, width = cell(inside, made['nodes'])
    part = width * (1 / phi(inside) + 1 / phi(made['nodes'][i])) / 2
    value = (made['trapezoid'][i] + part) * (1 + _MARGIN)
    return np.where(tail < made['nodes'][-1], np.inf, value)

  return lower, upper
