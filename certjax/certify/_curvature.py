r"""From value, slope and curvature of a classifier at a point to a ball around it: deterministic.

Along any direction, g = f_y - f_j falls at most as its slope s at z says, plus what curvature m adds:
if no eigenvalue of the Hessian of g lies below -m, Taylor's theorem gives for every |d| <= r

  g(z + d) = g(z) + <grad g(z), d> + int_0^1 (1 - t) <d, H(z + t d) d> dt >= g(z) - s r - m r^2 / 2,

which is positive below the root r = (sqrt(s^2 + 2 m g(z)) - s) / m. If z is an L-Lipschitz function
of an input x, and the z at hand is within `slack` of it, (r - slack) / L holds around x.
"""

import numpy as np

from certjax.certify._certificate import Certificate, certificate

_RELATIVE = 1e-14  # Of a dozen float64 operations, none of which cancels.


def curvature_margin(label, gap, slope, curvature, *, lipschitz=1.0, slack=0.0) -> Certificate:
  r"""The largest ball in which the curvature lets no other class win.

    radius = (min_{j != y} 2 g_j / (sqrt(s_j^2 + 2 m_j g_j) + s_j) - slack) / L

  over all rivals j (published code looks at some of them, which proves nothing about the others).

  Args:
    label: int[...], y.
    gap: float[..., K], lower bounds of g_j = f_y - f_j at z; the entry of y is not read, nor in the
      other two.
    slope: float[..., K], upper bounds of the length of the gradient of f_y - f_j at z.
    curvature: float[..., K], upper bounds of minus the smallest eigenvalue of its Hessian, everywhere
      (or wherever the ball may reach); at least 0.
    lipschitz: L >= 0, a proved constant of z as a function of the input.
    slack: bound of the error of z.

  Returns:
    A `Certificate`, its radius in the units of the input; 0 where a gap is not positive; it abstains
    on NaN and infinity.

  Raises:
    ValueError: on a shape, label or number that proves nothing.

  Example:
    >>> proof = curvature_margin(0, [0.0, 1.5], [0.0, 1.0], [0.0, 1.0])  # 1.5 - r - r^2 / 2 = 0.
    >>> int(proof.label), round(float(proof.radius), 9)
    (0, 1.0)

  References:
    Singla & Feizi 2020 (arXiv:2006.00731), closed form; Singla & Feizi 2022 (arXiv:2211.08453).
  """
  label = np.asarray(label, np.int64)
  parts = [np.asarray(part, np.float64) for part in (gap, slope, curvature)]
  _check(label, parts, lipschitz, slack)
  rival = np.arange(parts[0].shape[-1]) != label[..., None]
  known = np.all(np.where(rival, np.isfinite(parts).all(axis=0), True), axis=-1)
  gap, slope, curvature = (np.where(rival & np.isfinite(part), part, 0.0) for part in parts)
  if (slope < 0).any() or (curvature < 0).any():
    raise ValueError('`slope` and `curvature` must be at least 0: they are upper bounds of norms.')
  gap = np.maximum(gap, 0.0)
  reach = np.sqrt(slope**2 + 2 * curvature * gap) + slope
  with np.errstate(divide='ignore', invalid='ignore', over='ignore'):  # Flat: nothing can change.
    each = np.where(gap > 0, 2 * gap / reach, 0.0)
    nearest = np.min(each, axis=-1, where=rival, initial=np.inf)
    least = np.maximum(nearest * (1 - _RELATIVE) - slack * (1 + _RELATIVE), 0.0)
    radius = np.where(least > 0, least * (1 - _RELATIVE) / lipschitz, 0.0)
  radius = np.where(np.isinf(radius), radius, np.nextafter(radius, 0))
  return certificate(label, np.where(known, radius, np.nan))


def _check(label, parts, lipschitz, slack):
  shapes = [part.shape for part in parts]
  if len(set(shapes)) > 1 or shapes[0][:-1] != label.shape or not shapes[0]:
    raise ValueError(
      f'`gap`, `slope` and `curvature` must all be [..., K] for `label` [...], got {shapes} for '
      f'{label.shape}.'
    )
  if ((label < 0) | (label >= shapes[0][-1])).any():
    raise ValueError(f'`label` must lie in 0 .. {shapes[0][-1] - 1}, got {label.tolist()}.')
  for name, value in (('lipschitz', lipschitz), ('slack', slack)):
    if not 0 <= value < np.inf:
      raise ValueError(f'`{name}` must be at least 0 and finite, got {value}.')
