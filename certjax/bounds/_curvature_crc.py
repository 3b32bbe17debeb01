r"""The nearest point at which a smooth network changes its class, by the dual of Singla & Feizi (CRC).

With g = f_y - f_j positive at x_0, and no eigenvalue of its Hessian below -m, every x with g(x) <= 0 has

  1/2 ||x - x_0||^2 >= F(x) = 1/2 ||x - x_0||^2 + eta g(x) >= F* = min_x F(x)      for every eta >= 0.

For eta < 1 / m, F is strongly convex with mu = 1 - eta m, so at whatever point the search has come to

  F* >= F(x) - ||grad F(x)||^2 / (2 mu),

and the radius sqrt(2 F*) is proved although neither eta nor x is optimal. The search is not trusted:
its last (eta, x) are put into that inequality once more, with the rounding error of every step paid.
Where g(x) = 0 at the best eta, the radius is the distance itself.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from certjax.bounds import _curvature
from certjax.certify import Certificate, certificate, curvature_margin

_NEAR = 0.999  # Of 1 / m: F* is concave in eta and 0 at 0, so at most this share of it is lost.
_CLOSE = 1e-9  # Of F*: what the search may leave.
_ULPS = 16  # Of the activations and their derivatives, in units of 1 + |value|.


class _Function(NamedTuple):
  """s, and s' from (t, s(t))."""

  value: object
  derivative: object


_FUNCTIONS = {
  'softplus': _Function(lambda t: np.logaddexp(0, t), lambda t, s: special.expit(t)),
  'sigmoid': _Function(special.expit, lambda t, s: s * special.expit(-t)),
  'tanh': _Function(np.tanh, lambda t, s: 1 - s * s),
}


class _Network(NamedTuple):
  """Weights [out, in], biases and what bounds their activation."""

  weights: list
  biases: list
  activation: str


def crc(
  x, weights, biases, *, activation='softplus', curvature=None, num_multipliers=30, num_steps=60,
  batch=256,
) -> Certificate:  # fmt: skip
  r"""The largest L2 ball that the curvature certificate proves, of a fully connected smooth network.

    radius = min_{j != y} max_{0 <= eta < 1 / m_yj} sqrt(2 min_x [1/2 ||x - x_0||^2 + eta (f_y - f_j)(x)])

  over all rivals. At least the closed form of `certify.curvature_margin`, which it starts from;
  rivals whose closed form is above the radius of another are not searched. A rival counts for its
  true distance where the best eta is below 1 / m.

  Args:
    x: float[B, ...], images, flattened to D pixels; no normalisation but what W_1 and b_1 contain.
    weights: [W_1, ..., W_L], float[out, in] each, L >= 2.
    biases: [b_1, ..., b_L].
    activation: a key of `SMOOTH_ACTIVATIONS`, between all layers.
    curvature: float[K, K], upper bounds of minus the smallest eigenvalue of the Hessian of f_y - f_j;
      default `bounds.curvature` of two layers (one eigenvalue problem a pair: keep it for many
      calls), `bounds.deep_curvature` of more.
    num_multipliers: values of eta, at most.
    num_steps: accelerated gradient steps on x for each of them, at most.
    batch: images at a time.

  Returns:
    A `Certificate`: radius in the norm L2 and the unit of x, not limited to [0, 1]; float64, rounding
    paid for the network in exact arithmetic. It abstains where x is not finite.

  Raises:
    ValueError: for weights that do not fit together or are not finite, or an unknown activation.

  Example:
    >>> proof = crc([[1.0]], [[[1.0]], [[1.0], [0.0]]], [[0.0], [0.0, 1.0]])
    >>> int(proof.label[0]), round(float(proof.radius[0]), 6)  # softplus(x) = 1 at log(e - 1).
    (0, 0.458675)

  References:
    Singla & Feizi 2020 (arXiv:2006.00731), Theorems 1 and 4.
  """
  # Deviation: all rivals, proved eigenvalues, and no claim that the inner problem is solved.
  network = _network(weights, biases, activation)
  x = np.asarray(x, np.float64)
  x = x.reshape(len(x), -1)
  if curvature is None:
    curvature = _curvature_of(network)
  curvature = np.asarray(curvature, np.float64)
  _check(network, x, curvature, num_multipliers, num_steps)
  limits = num_multipliers, num_steps
  parts = [
    _batch(network, x[start : start + batch], curvature, limits)
    for start in range(0, len(x), batch)
  ]
  labels, radii = (np.concatenate(part) for part in zip(*parts, strict=True))
  return certificate(labels, radii)


def _batch(network, x, curvature, limits):
  """(label, radius) of each image: the rival whose bound is least is searched, until it was."""
  finite = np.isfinite(x).all(axis=1)
  start = np.where(finite[:, None], x, 0.0)
  label, radii = _closed_form(network, start, curvature)
  rows, searched = np.arange(len(x)), np.zeros(radii.shape, bool)
  while True:
    rival = np.argmin(radii, axis=1)
    least = radii[rows, rival]
    open_ = ~searched[rows, rival] & (least > 0) & np.isfinite(least)
    if not open_.any():
      return label, np.where(finite, least, np.nan)
    at, j = rows[open_], rival[open_]
    pairs = _Pairs.of(network, start[at], label[at], j, curvature)
    radii[at, j] = np.maximum(radii[at, j], _proved(pairs, *_search(pairs, *limits)))
    searched[at, j] = True


def _closed_form(network, x, curvature):
  """(label, radius of each rival as if it were alone); the label's own is infinite."""
  logits = _forward(network, x)[0][-1]
  label, num_classes = np.argmax(logits, axis=1), logits.shape[1]
  radii = np.full(logits.shape, np.inf)
  for j in range(num_classes):
    pairs = _Pairs.of(network, x, label, np.full(len(x), j), curvature)
    value, error, slope, tilt = _enclosed(pairs, x)
    length = np.linalg.norm(slope, axis=1) * (1 + _curvature._units(x.shape[1])) + tilt
    two = lambda part: np.stack([np.zeros(len(x)), part], axis=1)
    alone = curvature_margin(
      np.zeros(len(x), int), two(value - error), two(length), two(pairs.bend)
    )
    radii[:, j] = np.where(label == j, np.inf, alone.radius)
  return label, radii


class _Pairs(NamedTuple):
  """For N images x_0, one rival each: g = f_y - f_j."""

  network: _Network
  start: np.ndarray
  rows: np.ndarray  # float[N, width], W_L[y] - W_L[j].
  offset: np.ndarray  # b_L[y] - b_L[j].
  size: np.ndarray  # |b_L[y]| + |b_L[j]|.
  bend: np.ndarray  # m, of g.
  upward: np.ndarray  # m, of -g.

  @classmethod
  def of(cls, network, start, y, j, curvature):
    last, bias = network.weights[-1], network.biases[-1]
    return cls(
      network, start, last[y] - last[j], bias[y] - bias[j], np.abs(bias[y]) + np.abs(bias[j]),
      curvature[y, j], curvature[j, y],
    )  # fmt: skip

  def take(self, keep):
    return self._replace(**{
      name: getattr(self, name)[keep] for name in self._fields if name != 'network'
    })  # fmt: skip


def _forward(network, x):
  """([x, a_1, ..., f], [z_1, ..., z_{L-1}]) with a = s(z)."""
  function = _FUNCTIONS[network.activation]
  values, before = [x], []
  for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
    before.append(values[-1] @ weight.T + bias)
    values.append(function.value(before[-1]))
  return [*values, values[-1] @ network.weights[-1].T + network.biases[-1]], before


def _evaluate(pairs, x):
  """g and its gradient, in plain float64."""
  function, network = _FUNCTIONS[pairs.network.activation], pairs.network
  a, kept = x, []
  for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
    z = a @ weight.T + bias
    a = function.value(z)
    kept.append((weight, function.derivative(z, a)))
  slope = pairs.rows
  for weight, derivative in reversed(kept):
    slope = (slope * derivative) @ weight
  return np.sum(pairs.rows * a, axis=1) + pairs.offset, slope


def _enclosed(pairs, x):
  """(g, its error, its gradient, the length of that one's error), at any x.

  A sum of n products is off by `_units(n)` of its absolute terms at most, here paid four times over;
  errors of the arguments pass an activation times max |s'|, its derivative times max |s''|.
  """
  network, eps = pairs.network, np.finfo(np.float64).eps
  limits = _curvature.SMOOTH_ACTIVATIONS[network.activation]
  function, sharpest = _FUNCTIONS[network.activation], max(limits.high, -limits.low)
  a, error, kept = x, np.zeros_like(x), []
  for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
    positive, unit = np.abs(weight), _curvature._units(sum(weight.shape))
    z = a @ weight.T + bias
    off = error @ positive.T + unit * (np.abs(a) @ positive.T + np.abs(bias))
    a = function.value(z)
    error = limits.slope * off + _ULPS * eps * (1 + np.abs(a))
    derivative = function.derivative(z, a)
    kept.append((weight, positive, unit, derivative, sharpest * off + 2 * _ULPS * eps))
  width, size = _curvature._units(pairs.rows.shape[1]), np.abs(pairs.rows)
  value = np.sum(pairs.rows * a, axis=1) + pairs.offset
  wrong = np.sum(size * error, axis=1) + width * (np.sum(size * np.abs(a), axis=1) + pairs.size)
  slope, tilt = pairs.rows, eps * size
  for weight, positive, unit, derivative, off in reversed(kept):
    tilt = tilt * (np.abs(derivative) + off) + np.abs(slope) * (off + eps * np.abs(derivative))
    slope = slope * derivative
    tilt = tilt @ positive + unit * (np.abs(slope) @ positive)
    slope = slope @ weight
  return value, wrong * (1 + width), slope, np.linalg.norm(tilt, axis=1) * (1 + width)


def _proved(pairs, eta, x):
  """The radius that (eta, x) prove, whatever they are: float64[N], 0 where nothing."""
  eps, unit = np.finfo(np.float64).eps, _curvature._units(x.shape[1])
  value, wrong, slope, tilt = _enclosed(pairs, x)
  move = x - pairs.start
  square, length = np.sum(move * move, axis=1), np.linalg.norm(slope, axis=1)
  steep = np.linalg.norm(move + eta[:, None] * slope, axis=1) * (1 + unit)
  steep += eta * tilt + 4 * eps * (np.sqrt(square) + eta * length)
  convexity = 1 - eta * pairs.bend * (1 + 4 * eps) - 4 * eps
  with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
    least = square / 2 * (1 - unit) + eta * (value - wrong) - steep**2 / (2 * convexity)
    least -= 8 * eps * (square + eta * (np.abs(value) + wrong) + steep**2 / convexity)
    sound = (convexity > 0) & (eta >= 0) & (least > 0)
    radius = np.sqrt(2 * np.where(sound, least, 0.0)) * (1 - 8 * eps)
  return np.where(sound, np.nextafter(radius, 0), 0.0)


def _search(pairs, num_multipliers, num_steps):
  """(eta, x) with a large F*, one a row, by the sign of g at the minimiser: d F* / d eta = g."""
  value, slope = _evaluate(pairs, pairs.start)
  with np.errstate(divide='ignore'):
    largest = _NEAR / pairs.bend
    eta = np.minimum(value / np.sum(slope**2, axis=1), largest / 2)
  x, found = pairs.start.copy(), (np.zeros(len(eta)), pairs.start.copy(), np.zeros(len(eta)))
  low, high = np.zeros(len(eta)), largest
  ends = np.stack([value, np.full(len(eta), np.nan)])  # g at both ends of the bracket.
  active = np.arange(len(eta))
  for _ in range(num_multipliers):
    here = pairs.take(active)
    x[active], value, slope, dual = _inner(here, eta[active], x[active], num_steps)
    _keep(found, active, eta, x, dual)
    positive = value > 0
    low[active] = np.where(positive, eta[active], low[active])
    high[active] = np.where(positive, high[active], eta[active])
    ends[:, active] = np.where([positive, ~positive], value, ends[:, active])
    with np.errstate(invalid='ignore'):
      rest = np.minimum(high[active] - low[active], largest[active]) * np.abs(value)
    going = (rest > _CLOSE * found[2][active]) & (high[active] > low[active] * (1 + 1e-12))
    step = value / np.sum(slope**2, axis=1).clip(1e-300)
    eta[active] = _next(eta[active], step, low[active], high[active], ends[:, active])
    active = active[going]
    if not len(active):
      break
  return found[0], found[1]


def _keep(found, active, eta, x, dual):
  """Where the dual bound is the largest so far."""
  better = active[dual > found[2][active]]
  found[2][active] = np.maximum(found[2][active], np.nan_to_num(dual, nan=-np.inf))
  found[0][better], found[1][better] = eta[better], x[better]


def _next(eta, step, low, high, ends):
  """The secant of g over the bracket, before it has two ends a Newton step; else the middle."""
  with np.errstate(divide='ignore', invalid='ignore'):
    secant = low + (high - low) * ends[0] / (ends[0] - ends[1])
    middle = np.where(np.isfinite(high), (low + high) / 2, 2 * eta)
    wanted = np.where(np.isfinite(ends[1]), secant, eta + step)
    margin = 0.02 * np.minimum(high - low, 1e9)
    inside = (wanted > low + margin) & (wanted < high - margin)
    # Two ends of very different height: the secant would creep along one of them.
    level = ~np.isfinite(ends[1]) | (np.abs(np.log(np.abs(ends[0] / ends[1]))) < 3)
  return np.where(inside & level, wanted, middle)


def _inner(pairs, eta, x, num_steps):
  """Accelerated gradient descent on F: (x, g, its gradient, the lower bound of F*) at the end."""
  smooth, convexity = 1 + eta * pairs.upward, 1 - eta * pairs.bend
  root = np.sqrt(smooth / convexity)
  momentum = ((root - 1) / (root + 1))[:, None]
  ahead = x
  for _ in range(num_steps):
    value, slope = _evaluate(pairs, ahead)
    gradient = ahead - pairs.start + eta[:, None] * slope
    moved = ahead - gradient / smooth[:, None]
    ahead, x = moved + momentum * (moved - x), moved
    left = np.sum(gradient**2, axis=1) / (2 * convexity)
    if (left <= _CLOSE * np.abs(_objective(pairs, eta, x, value))).all():
      break
  value, slope = _evaluate(pairs, x)
  gradient = x - pairs.start + eta[:, None] * slope
  left = np.sum(gradient**2, axis=1) / (2 * convexity)
  return x, value, slope, _objective(pairs, eta, x, value) - left


def _objective(pairs, eta, x, value):
  return np.sum((x - pairs.start) ** 2, axis=1) / 2 + eta * value


def _network(weights, biases, activation):
  weights = _curvature._weights(*weights)
  _curvature._activation(activation)
  biases = [np.asarray(bias, np.float64) for bias in biases]
  shapes = [bias.shape for bias in biases]
  if shapes != [(len(weight),) for weight in weights]:
    raise ValueError(
      f'`biases` must have one vector for each of `weights`, of shapes '
      f'{[(len(weight),) for weight in weights]}; got {shapes}.'
    )
  if not all(np.isfinite(bias).all() for bias in biases):
    raise ValueError('`biases` must be finite: no bound holds for others; restore a checkpoint.')
  return _Network(weights, biases, activation)


def _curvature_of(network):
  if len(network.weights) == 2:
    return _curvature.curvature(*network.weights, activation=network.activation)
  return _curvature.deep_curvature(network.weights, activation=network.activation)


def _check(network, x, curvature, num_multipliers, num_steps):
  features, classes = network.weights[0].shape[1], len(network.weights[-1])
  if x.shape[1] != features:
    raise ValueError(f'`x` must have D={features} pixels an image, got {x.shape[1]}.')
  if curvature.shape != (classes, classes) or not (curvature >= 0).all():
    raise ValueError(
      f'`curvature` must be float[K, K] with K={classes}, at least 0: `bounds.curvature` of these '
      f'weights; got shape {curvature.shape}.'
    )
  if num_multipliers < 1 or num_steps < 1:
    raise ValueError(
      f'`num_multipliers` and `num_steps` must be at least 1, got {num_multipliers}, {num_steps}.'
    )
