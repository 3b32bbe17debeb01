"""The Gaussian certificate by reduction to one dimension, as arithmetic.

Along delta only the projection z of the noise matters: g(z) is the score averaged over the
rest, its mean under N(0, 1) is p, and at x + delta it is E g(z + shift), shift = |delta| / sigma.
The worst g is a step (Neyman-Pearson), so the score there is at least Phi(Phi^-1(p) - shift):
Phi^-1 of the smoothed score is (1 / sigma)-Lipschitz.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, sparse, special


class WorstCase(NamedTuple):
  """The worst one-dimensional score with a given mean.

  Attributes:
    edges: float64[m + 1], cells of equal Gaussian mass; the outer ones are infinite.
    score: float64[m], g in [0, 1] on each cell.
    value: its mean after the shift, the minimum of the linear program.
    bound: Phi(Phi^-1(p) - shift), the theorem's bound.
  """

  edges: np.ndarray
  score: np.ndarray
  value: float
  bound: float


def worst_case(p: float, shift: float, *, num_cells: int = 200) -> WorstCase:
  r"""Solves the linear program behind the Gaussian certificate.

    minimise  sum_j g_j Q_j   subject to  sum_j g_j / m = p,  0 <= g_j <= 1,
    Q_j = Pr[z + shift in cell j],  z ~ N(0, 1)

  Functions that are constant on the cells are a subset of all, so the value is never below the
  bound; they agree where p is a multiple of 1/m, for the step then ends at an edge.

  Args:
    p: mean of the score at x.
    shift: |delta|_2 / sigma.
    num_cells: m.

  Returns:
    A `WorstCase`.

  Raises:
    ValueError: if p is outside (0, 1) or shift is negative.

  Example:
    >>> worst = worst_case(0.8, 0.5, num_cells=50)
    >>> bool(abs(worst.value - worst.bound) < 1e-9), int(worst.score[0]), int(worst.score[-1])
    (True, 1, 0)

  References:
    Cohen, Rosenfeld & Kolter 2019, appendix A; Levine, Singla & Feizi 2019 (arXiv:1905.12105).
  """
  if not (0 < p < 1 and shift >= 0):
    raise ValueError(f'`p` must lie in (0, 1) and `shift` be at least 0, got {p} and {shift}.')
  edges = special.ndtri(np.linspace(0, 1, num_cells + 1))
  moved = np.diff(special.ndtr(edges - shift))
  solved = optimize.linprog(
    moved, A_eq=sparse.csr_array(np.full((1, num_cells), 1 / num_cells)), b_eq=[p], bounds=(0, 1)
  )
  bound = float(special.ndtr(special.ndtri(p) - shift))
  return WorstCase(edges, solved.x, float(solved.fun), bound)


def probit_slope(score, x, other):
  r"""|Phi^-1(score(x)) - Phi^-1(score(x'))| / |x - x'|_2: at most 1 / sigma for a smoothed score.

  Args:
    score: `x[N, d] -> float64[N]` in (0, 1).
    x, other: float64[N, d], pairs of points.

  Returns:
    float64[N].

  Example:
    >>> half_space = lambda x: special.ndtr(x[:, 0] / 0.5)  # Smoothed with sigma = 0.5.
    >>> probit_slope(half_space, np.array([[0.0, 0.0]]), np.array([[0.3, 0.0]])).round(6)
    array([2.])
  """
  change = special.ndtri(score(x)) - special.ndtri(score(other))
  return np.abs(change) / np.linalg.norm(x - other, axis=-1)
