r"""How far a smooth network bends: bounds of its Hessian everywhere, and its value and slope at a point.

Of a network f(z) = W_2 s(W_1 z + b_1) + b_2 with a smooth activation, the difference g = f_y - f_j has

  Hessian of g = W_1^T diag(w s''(W_1 z + b_1)) W_1,     w = W_2[y] - W_2[j]

and low <= s'' <= high everywhere, so it is at least W_1^T diag(n) W_1, n_i = min(low w_i, high w_i)
<= 0, whatever z. Minus its smallest eigenvalue is m, with which `certify.curvature_margin` proves a
radius. All in numpy float64, rounded in the sound direction.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import special


class Activation(NamedTuple):
  """Bounds of a smooth activation: |s'| <= slope, low <= s'' <= high, rounded outwards."""

  slope: float
  low: float
  high: float


def _up(value):
  return float(np.nextafter(value * (1 + 1e-15), np.inf))


SMOOTH_ACTIVATIONS = {
  'softplus': Activation(1.0, 0.0, 0.25),
  'sigmoid': Activation(0.25, -_up(1 / (6 * np.sqrt(3))), _up(1 / (6 * np.sqrt(3)))),
  'tanh': Activation(1.0, -_up(4 / (3 * np.sqrt(3))), _up(4 / (3 * np.sqrt(3)))),
}


class Expansion(NamedTuple):
  """What is known of a classifier around a point z: arguments of `certify.curvature_margin`.

  Attributes:
    label: int64[...], y = argmax f(z).
    gap: float64[..., K], f_y - f_j at z, rounded down.
    slope: float64[..., K], the length of the gradient of f_y - f_j at z, rounded up.
    curvature: float64[..., K], m of f_y - f_j, rounded up.
  """

  label: np.ndarray
  gap: np.ndarray
  slope: np.ndarray
  curvature: np.ndarray


def curvature(first, last, *, activation='softplus', beta=1.0):
  r"""How negative the curvature of every f_y - f_j can get, anywhere, in a network of two layers.

    m_yj = largest eigenvalue of W_1^T diag(-n) W_1,   n_i = min(low w_i, high w_i),  w = W_2[y] - W_2[j]

  The largest positive curvature of f_y - f_j is m_jy.

  Args:
    first: float[H, D], W_1.
    last: float[K, H], W_2.
    activation: a key of `SMOOTH_ACTIVATIONS`, as s(beta t) / beta.
    beta: its sharpness.

  Returns:
    float64[K, K], at least 0; 0 on the diagonal. Rounded up.

  Raises:
    ValueError: for weights that do not fit together or are not finite, an unknown activation, or a
      `beta` that is not positive.

  Example:
    >>> curvature([[1.0, 2.0]], [[0.0], [4.0]])  # A softplus is convex: f_1 - f_0 bends up only.
    array([[0., 5.],
           [0., 0.]])

  References:
    Singla & Feizi 2020 (arXiv:2006.00731), of two layers; Singla & Feizi 2022 (arXiv:2211.08453),
    scaled softplus.
  """
  first, last = checked_weights(first, last)
  bounds = activation_bounds(activation)
  if not 0 < beta < np.inf:
    raise ValueError(f'`beta` must be positive and finite, got {beta}.')
  found = np.zeros((len(last), len(last)))
  for y, j in itertools.combinations(range(len(last)), 2):
    w = last[y] - last[j]
    down, up = (-np.minimum(bounds.low * v, bounds.high * v) * beta for v in (w, -w))
    found[y, j] = _largest_eigenvalue(first, down)
    # Of sigmoid and tanh both are the same problem.
    found[j, y] = found[y, j] if (down == up).all() else _largest_eigenvalue(first, up)
  return found


def hidden_lipschitz(weights, *, activation='softplus'):
  r"""The constant of the last hidden layer of a fully connected network.

    L = prod_{I < L} slope |W_I|_2

  Args:
    weights: [W_1, ..., W_L], float[out, in] each; the last is not read.
    activation: a key of `SMOOTH_ACTIVATIONS`.

  Returns:
    A float, rounded up.

  Raises:
    ValueError: as `curvature`.

  Example:
    >>> round(hidden_lipschitz([[[3.0, 4.0]], [[1.0]]], activation='sigmoid'), 9)
    1.25
  """
  weights, bounds = checked_weights(*weights), activation_bounds(activation)
  norms = [np.sqrt(_largest_eigenvalue(matrix)) * bounds.slope for matrix in weights[:-1]]
  return float(np.prod(norms) * (1 + units(2 * len(norms))))


def deep_curvature(weights, *, activation='softplus'):
  r"""Curvature in both directions of every f_y - f_j, in a fully connected network of any depth.

    K_yj = max |s''| sum_{I < L} (r^(I))^2 max_i S^(I)_i,   r^(1) = |W_1|_2,  r^(I) = slope |W_I|_2 r^(I-1)
    S^(L-1) = |W_L[y] - W_L[j]|,   S^(I) = slope S^(I+1) |W_{I+1}|    (rows times entrywise |.|)

  Looser than `curvature` for two layers, and usually too loose to prove much beyond.

  Args:
    weights: [W_1, ..., W_L], float[out, in] each.
    activation: a key of `SMOOTH_ACTIVATIONS`.

  Returns:
    float64[K, K], rounded up.

  Raises:
    ValueError: as `curvature`.

  Example:
    >>> deep_curvature([[[1.0, 2.0]], [[0.0], [4.0]]]).round(9).tolist()
    [[0.0, 5.0], [5.0, 0.0]]

  References:
    Singla & Feizi 2020 (arXiv:2006.00731), Theorem 4.
  """
  weights = checked_weights(*weights)
  bounds = activation_bounds(activation)
  total, reach, sensitivities = 0.0, 1.0, _sensitivities(weights, bounds.slope)
  for index, (matrix, sensitivity) in enumerate(zip(weights, sensitivities, strict=False)):
    reach *= (bounds.slope if index else 1.0) * np.sqrt(_largest_eigenvalue(matrix))
    total += reach**2 * np.max(sensitivity, axis=-1)
  size = sum(sum(matrix.shape) for matrix in weights)
  return total * max(bounds.high, -bounds.low) * (1 + units(size))


def expansion(z, first, first_bias, last, last_bias, *, curvature, beta=1.0) -> Expansion:
  """A softplus network of two layers around given points, for every rival of its class.

    f(z) = W_2 softplus(beta (W_1 z + b_1)) / beta + b_2

  Args:
    z: float[..., D].
    first, first_bias: float[H, D], float[H].
    last, last_bias: float[K, H], float[K].
    curvature: float[K, K], of the same weights: `bounds.curvature`.
    beta: sharpness of the softplus.

  Returns:
    An `Expansion`. The errors of this float64 arithmetic are paid: each sum of n products for 4 (n + 8)
    units of its absolute terms, carried through softplus (slope 1) and its derivative (slope beta / 4).

  Raises:
    ValueError: for weights that do not fit together or are not finite.

  Example:
    >>> head = [[1.0, 0.0]], [0.0], [[1.0], [-1.0]], [0.5, 0.0]
    >>> around = expansion([[0.0, 0.0]], *head, curvature=curvature(head[0], head[2]))
    >>> around.label.tolist(), around.gap.round(6).tolist(), around.slope.round(6).tolist()
    ([0], [[-0.0, 1.886294]], [[0.0, 1.0]])
  """
  first, last = checked_weights(first, last)
  z, first_bias, last_bias = (np.asarray(a, np.float64) for a in (z, first_bias, last_bias))
  _check_shapes(z, first, first_bias, last, last_bias, curvature)
  before = z @ first.T + first_bias
  logits = np.logaddexp(0, beta * before) / beta @ last.T + last_bias
  jacobian = (last * special.expit(beta * before)[..., None, :]) @ first
  size = np.abs(z) @ np.abs(first).T + np.abs(first_bias)  # Of the terms of `before`.
  unit = units(sum(first.shape))
  error = unit * ((size + np.log(2) / beta) @ np.abs(last).T + np.abs(last_bias))
  lengths = np.linalg.norm(first, axis=1)
  tilt = unit * (((1 + beta * size / 4) * lengths) @ np.abs(last).T)
  label = np.argmax(logits, axis=-1)
  own = lambda values, axis: np.take_along_axis(values, _at(label, values.ndim), axis)
  gap = own(logits, -1) - logits - own(error, -1) - error
  slope = np.linalg.norm(own(jacobian, -2) - jacobian, axis=-1) * (1 + unit)
  slope += own(tilt, -1) + tilt
  return Expansion(label, gap, slope, np.asarray(curvature, np.float64)[label])


def _at(label, ndim):
  """`label` with trailing axes of 1."""
  return label.reshape(label.shape + (1,) * (ndim - label.ndim))


def _sensitivities(weights, slope):
  """S^(1), ..., S^(L-1), float64[K, K, width] each: bounds of |d (f_y - f_j) / d a^(I)|."""
  last = weights[-1]
  found = [np.abs(last[:, None] - last)]
  for matrix in weights[-2:0:-1]:
    found.append(slope * found[-1] @ np.abs(matrix))
  return found[::-1]


def _largest_eigenvalue(matrix, scale=None):
  """Of M^T diag(scale) M, scale >= 0, rounded up.

  Formed on the shorter side; both the sums and LAPACK's eigenvalues are off by a multiple of the
  trace, which bounds every entry's absolute terms.
  """
  scale = np.ones(len(matrix)) if scale is None else scale
  matrix, scale = matrix[scale > 0], scale[scale > 0]
  if not len(matrix):
    return 0.0
  trace = float(scale @ (matrix**2).sum(axis=1))
  if len(matrix) < matrix.shape[1]:
    rows = np.sqrt(scale)[:, None] * matrix
    gram = rows @ rows.T
  else:
    gram = matrix.T @ (scale[:, None] * matrix)
  return max(0.0, float(np.linalg.eigvalsh(gram)[-1]) + units(10 * sum(matrix.shape)) * trace)


def units(num_terms):
  """An upper bound of the relative error of a sum of so many products, four times over."""
  return 4 * (num_terms + 8) * np.finfo(np.float64).eps


def activation_bounds(name):
  """The `Activation` of a name, or one clear error."""
  if name not in SMOOTH_ACTIVATIONS:
    raise ValueError(f'`activation` must be one of {", ".join(SMOOTH_ACTIVATIONS)}; got {name!r}.')
  return SMOOTH_ACTIVATIONS[name]


def checked_weights(*weights):
  """float64 matrices that can follow each other."""
  weights = [np.asarray(matrix, np.float64) for matrix in weights]
  shapes = [matrix.shape for matrix in weights]
  fit = len(shapes) > 1 and all(len(shape) == 2 for shape in shapes)
  if not fit or any(a[0] != b[1] for a, b in zip(shapes, shapes[1:], strict=False)):
    raise ValueError(
      f'`weights` must be two or more matrices [out, in] that follow each other, got {shapes}.'
    )
  if not all(np.isfinite(matrix).all() for matrix in weights):
    raise ValueError('`weights` must be finite: no bound holds for others; restore a checkpoint.')
  return weights


def _check_shapes(z, first, first_bias, last, last_bias, curvature):
  hidden, features, num_classes = *first.shape, len(last)
  expected = [(features,), (hidden,), (num_classes,), (num_classes, num_classes)]
  got = [z.shape[-1:], first_bias.shape, last_bias.shape, np.shape(curvature)]
  if got != expected:
    raise ValueError(
      f'`z`, `first_bias`, `last_bias` and `curvature` must have shapes [..., D], [H], [K], [K, K] '
      f'with H, D = {hidden}, {features} and K = {num_classes}; got {got}.'
    )
