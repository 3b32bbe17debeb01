"""The box constraint of Voracek & Hein 2023: L1 radii for x' that are images again.

Under independent noise of width 2 lam a coordinate moved by |delta_i| is seen to move with
probability |delta_i| / (2 lam), so x and x' look the same with probability

  prod_i (1 - |delta_i| / (2 lam)),

and the label stays while that exceeds 1 - (p_a - p_b) / 2. For a given L1 norm the product is
smallest when the norm is spent on as few coordinates as possible; but where x' must lie in
[0, 1]^d, coordinate i cannot move further than m_i = max(x_i, 1 - x_i). The adversary's best
is therefore greedy: the largest m_i in full, then the next. (-log of the product is
Schur-convex, and the greedy vector majorises every other of its norm.)
"""

import numpy as np

_ULP = 2.0**-52


def box_radius(gap, lam, x):
  """The L1 radius within [0, 1]^d of independent noise of width 2 lam.

  Args:
    gap: float64[...], lower bounds of p_a - p_b.
    lam: half the width of the noise.
    x: float[..., H, W, C], one image a gap.

  Returns:
    float64[...], rounded down; every x' in [0, 1]^d at that L1 distance or less keeps the
    label. At least lam * gap. Where the whole of [0, 1]^d is certified, the distance to its
    farthest point.

  Raises:
    ValueError: unless the leading axes of `x` are those of `gap`.

  Example:
    >>> round(float(box_radius(0.9, 2 * np.sqrt(3), np.full(3072, 0.25))), 6)
    3.920868

  References:
    Voracek & Hein 2023, Improving l1-Certified Robustness via Randomized Smoothing by
    Leveraging Box Constraints.
  """
  gap, x = np.asarray(gap, np.float64), np.asarray(x, np.float64)
  if x.shape[: gap.ndim] != gap.shape or x.ndim == gap.ndim:
    raise ValueError(
      f'`x` must hold one image for each probability: got x of shape {x.shape} for probabilities '
      f'of shape {gap.shape}.'
    )
  images = x.reshape(gap.size, -1)
  radii = [_radius_of_one(*pair, lam) for pair in zip(gap.ravel(), images, strict=True)]
  return np.reshape(np.array(radii, np.float64), gap.shape)


def _radius_of_one(gap, x, lam):
  if not (0 < gap <= 1) or not np.isfinite(x).all():
    return 0.0
  reach = np.sort(np.nextafter(np.maximum(np.abs(x), np.abs(1 - x)), np.inf))[::-1]
  # Every rounding below moves the radius by at most an ulp for each coordinate that is added.
  margin = _ULP * (len(reach) + 100)
  budget = -np.log1p(-gap / 2) * (1 - margin)
  with np.errstate(divide='ignore'):  # A reach of 2 lam or more: x' looks different for sure.
    costs = -np.log1p(-np.minimum(reach / (2 * lam), 1.0))
  spent = np.concatenate([[0.0], np.cumsum(costs)])
  full = np.searchsorted(spent, budget, side='right') - 1  # Coordinates moved to the edge.
  radius = np.concatenate([[0.0], np.cumsum(reach)])[full]
  if full < len(reach):
    radius += min(-2 * lam * np.expm1(spent[full] - budget), reach[full])
  return np.nextafter(radius * (1 - margin), 0.0)
