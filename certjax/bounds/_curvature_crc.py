r"""The nearest point at which a smooth network changes its class, by the dual of Singla & Feizi (CRC).

With g = f_y - f_j positive at x_0, and no eigenvalue of its Hessian below -m, every x with g(x) <= 0 has

  1/2 ||x - x_0||^2 >= F(x) = 1/2 ||x - x_0||^2 + eta g(x) >= F* = min_x F(x)      for every eta >= 0.

For eta < 1 / m, F is strongly convex with mu = 1 - eta m, so at whatever point a search has come to

  F* >= F(x) - ||grad F(x)||^2 / (2 mu),

and the radius sqrt(2 F*) is proved although neither eta nor x is optimal. The search
(`_curvature_search`) is not trusted: its (eta, x) are put into that inequality once more, with the
rounding error of every step paid. Where g(x) = 0 at the best eta, the radius is the distance itself.

Products are XLA's: the threads of a BLAS wait for each other where other programs use the cores.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from certjax import parallel
from certjax.bounds import _curvature
from certjax.bounds._curvature_search import Pairs, search
from certjax.certify import Certificate, certificate, curvature_margin

_AT_ONCE = 10  # Rivals of an image in one search.
_ULPS = 16  # Of the activations and their derivatives, in units of 1 + |value|.


class _Function(NamedTuple):
  """s, and s' from (t, s(t))."""

  value: Callable
  derivative: Callable


_FUNCTIONS = {
  'softplus': _Function(lambda t: np.logaddexp(0, t), lambda t, s: special.expit(t)),
  'sigmoid': _Function(special.expit, lambda t, s: s * special.expit(-t)),
  'tanh': _Function(np.tanh, lambda t, s: 1 - s * s),
}


class SmoothNetwork(NamedTuple):
  """A fully connected network with one smooth activation; made by `smooth_network`.

  Attributes:
    weights: (W_1, ..., W_{L-1}), `jax.Array` float64[out, in], of the hidden layers.
    biases: (b_1, ..., b_{L-1}), of them too.
    last: float64[K, H], W_L.
    last_bias: float64[K], b_L.
    activation: a key of `SMOOTH_ACTIVATIONS`.
    curvature: float64[K, K], upper bounds of minus the smallest eigenvalue of the Hessian of f_y - f_j.
    lipschitz: upper bound of the constant of the last hidden layer.
  """

  weights: tuple
  biases: tuple
  last: np.ndarray
  last_bias: np.ndarray
  activation: str
  curvature: np.ndarray
  lipschitz: float


def smooth_network(
  weights, biases, *, activation='softplus', curvature=None, lipschitz=None
) -> SmoothNetwork:  # fmt: skip
  """What `crc_of` needs to know of a network, once for all images.

  Args:
    weights, biases, activation, curvature, lipschitz: as in `crc`.

  Returns:
    A `SmoothNetwork`.

  Raises:
    ValueError: as `crc`.

  Example:
    >>> network = smooth_network([[[1.0]], [[1.0], [0.0]]], [[0.0], [0.0, 1.0]])
    >>> network.curvature.round(9).tolist(), round(network.lipschitz, 9)
    ([[0.0, 0.0], [0.25, 0.0]], 1.0)
  """
  weights = _curvature.checked_weights(*weights)
  _curvature.activation_bounds(activation)
  biases = _checked_biases(weights, biases)
  if curvature is None:
    curvature = _curvature_of(weights, activation)
  if lipschitz is None:
    lipschitz = _curvature.hidden_lipschitz(weights, activation=activation)
  curvature = _checked_curvature(curvature, len(weights[-1]))
  if not 0 <= lipschitz < np.inf:
    raise ValueError(f'`lipschitz` must be at least 0 and finite, got {lipschitz}.')
  with parallel.x64(), jax.default_device(_device()):
    inner, offsets = (tuple(map(jnp.asarray, part[:-1])) for part in (weights, biases))
  return SmoothNetwork(
    inner, offsets, weights[-1], biases[-1], activation, curvature, float(lipschitz)
  )


def crc(
  x, weights, biases, *, activation='softplus', curvature=None, lipschitz=None, num_steps=60, batch=32
) -> Certificate:  # fmt: skip
  r"""The largest L2 ball that the curvature certificate proves, of a fully connected smooth network.

    radius = min_{j != y} max_{0 <= eta < 1 / m_yj} sqrt(2 min_x [1/2 ||x - x_0||^2 + eta (f_y - f_j)(x)])

  over all rivals, and for each of them at least the closed form of `certify.curvature_margin` and the
  Lipschitz margin (f_y - f_j) / (||W_L[y] - W_L[j]|| L). A rival counts for its true distance where
  the best eta is below 1 / m.

  Args:
    x: float[B, ...], images, flattened to D pixels; no normalisation but what W_1 and b_1 contain.
    weights: [W_1, ..., W_L], float[out, in] each, L >= 2.
    biases: [b_1, ..., b_L].
    activation: a key of `SMOOTH_ACTIVATIONS`, between all layers.
    curvature: float[K, K], upper bounds of minus the smallest eigenvalue of the Hessian of f_y - f_j;
      default `bounds.curvature` of two layers (an eigenvalue problem a pair: keep it for many calls,
      `bounds.smooth_network`), `bounds.deep_curvature` of more.
    lipschitz: upper bound of the constant L of the last hidden layer; default
      `bounds.hidden_lipschitz`.
    num_steps: of the search for each rival, at most.
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
  network = smooth_network(
    weights, biases, activation=activation, curvature=curvature, lipschitz=lipschitz
  )
  return crc_of(network, x, num_steps=num_steps, batch=batch)


def crc_of(network: SmoothNetwork, x, *, slack=0.0, num_steps=60, batch=32) -> Certificate:
  """`crc` of a network that is at hand.

  Args:
    network: from `smooth_network`.
    x, num_steps, batch: as in `crc`.
    slack: by how much f_y - f_j must stay above 0: the label then holds for every program whose logits
      are less than slack / 2 from those of exact arithmetic.

  Returns:
    A `Certificate`.

  Raises:
    ValueError: for images of other pixels, or a number out of range.

  Example:
    >>> network = smooth_network([[[1.0]], [[1.0], [0.0]]], [[0.0], [0.0, 1.0]])
    >>> round(float(crc_of(network, [[1.0]], slack=0.1).radius[0]), 6)  # softplus(x) = 1.1.
    0.304772
  """
  # Deviation: all rivals, proved eigenvalues, and no claim that the inner problem is solved.
  x = np.asarray(x, np.float64)
  x = x.reshape(len(x), -1)
  _check(network, x, slack, num_steps, batch)
  batch = min(batch, max(len(x), 1))
  labels, radii = [], []
  with parallel.x64(), jax.default_device(_device()):
    for start in range(0, len(x), batch):
      rows = np.minimum(np.arange(start, start + batch), len(x) - 1)  # One shape, one program.
      label, radius = _batch(network, x[rows], slack, num_steps)
      labels.append(label)
      radii.append(radius)
  return certificate(np.concatenate(labels)[: len(x)], np.concatenate(radii)[: len(x)])


def _batch(network, x, slack, num_steps):
  """(label, radius) of each image: its least rivals are searched, until the least of all was."""
  finite = np.isfinite(x).all(axis=1)
  start = np.where(finite[:, None], x, 0.0)
  label, radii = _closed_form(network, start, slack)
  searched = np.arange(radii.shape[1]) == label[:, None]
  while True:
    least = np.argmin(radii, axis=1)[:, None]
    nearest = np.take_along_axis(radii, least, 1)[:, 0]
    open_ = ~np.take_along_axis(searched, least, 1)[:, 0] & (nearest > 0) & np.isfinite(nearest)
    if not open_.any():
      return label, np.where(finite, nearest, np.nan)
    rivals = np.argsort(np.where(searched, np.inf, radii), axis=1)[:, :_AT_ONCE]
    pairs, size = _pairs(network, start, label, rivals, slack)
    hidden, steps = (network.weights, network.biases), np.int32(num_steps)
    found = search(*hidden, pairs, steps, activation=network.activation)
    proved = _proved(network, pairs, size, *map(np.asarray, found)).reshape(rivals.shape)
    proved = np.maximum(proved, np.take_along_axis(radii, rivals, 1))
    np.put_along_axis(radii, rivals, proved, 1)
    np.put_along_axis(searched, rivals, True, 1)


def _pairs(network, start, label, rivals, slack):
  """(`Pairs`, the size of the terms of each offset), a row an image and rival."""
  y, j = (a.ravel() for a in np.broadcast_arrays(label[:, None], rivals))
  last, bias = network.last, network.last_bias
  pairs = Pairs(
    np.repeat(start, rivals.shape[1], axis=0), last[y] - last[j], bias[y] - bias[j] - slack,
    network.curvature[y, j], network.curvature[j, y],
  )  # fmt: skip
  return pairs, np.abs(bias[y]) + np.abs(bias[j]) + slack


def _closed_form(network, x, slack):
  """(label, radius of each rival as if it were alone); the label's own is infinite."""
  hidden = _hidden(network, x)
  logits = hidden[0] @ network.last.T + network.last_bias
  label, num_classes = np.argmax(logits, axis=1), logits.shape[1]
  rivals = np.broadcast_to(np.arange(num_classes), logits.shape)
  pairs, size = _pairs(network, x, label, rivals, slack)
  shaped = lambda part: part.reshape(*logits.shape, *part.shape[1:])
  rows = shaped(pairs.row)
  value, wrong, slope, tilt = _enclosed(
    network, hidden, rows, shaped(pairs.offset), shaped(size)
  )  # fmt: skip
  unit = _curvature.units(max(rows.shape[2], x.shape[1]))
  length = np.linalg.norm(slope, axis=2) * (1 + unit) + tilt
  steepest = np.linalg.norm(rows, axis=2) * network.lipschitz * (1 + unit)
  radii = np.maximum(
    _alone(value - wrong, length, shaped(pairs.bend)), _alone(value - wrong, steepest, 0 * length)
  )
  return label, np.where(rivals == label[:, None], np.inf, radii)


def _alone(gap, slope, bend):
  """`curvature_margin` of every entry by itself."""
  two = lambda part: np.stack([np.zeros(part.size), part.ravel()], axis=1)
  proof = curvature_margin(np.zeros(gap.size, int), two(gap), two(slope), two(bend))
  return proof.radius.reshape(gap.shape)


@jax.jit
def _forwards(a, error, weight):
  """(W a, |W| error)."""
  return a @ weight.T, error @ jnp.abs(weight).T


@jax.jit
def _backwards(slope, tilt, weight):
  """(slope W, tilt |W|)."""
  return slope @ weight, tilt @ jnp.abs(weight)


def _hidden(network, x):
  """(a, its error, what the way back needs) of the last hidden layer, float64[N, H].

  A sum of n products is off by `units(n)` of its absolute terms at most, here paid four times over;
  errors of the arguments pass an activation times max |s'|, its derivative times max |s''|.
  """
  eps, limits = np.finfo(np.float64).eps, _curvature.activation_bounds(network.activation)
  function, sharpest = _FUNCTIONS[network.activation], max(limits.high, -limits.low)
  a, error, kept = x, np.zeros_like(x), []
  for weight, bias in zip(network.weights, network.biases, strict=True):
    unit, bias = _curvature.units(sum(weight.shape)), np.asarray(bias)
    z, off = map(np.asarray, _forwards(a, error + unit * np.abs(a), weight))
    z, off = z + bias, off + unit * np.abs(bias)
    a = function.value(z)
    error = limits.slope * off + _ULPS * eps * (1 + np.abs(a))
    kept.append((function.derivative(z, a), sharpest * off + 2 * _ULPS * eps))
  return a, error, kept


def _enclosed(network, hidden, rows, offset, size):
  """(g, its error, its gradient, the length of that one's error) for rows[N, R, H] of N points."""
  (a, error, kept), eps = hidden, np.finfo(np.float64).eps
  width, absolute = _curvature.units(rows.shape[2]), np.abs(rows)
  value = np.einsum('nrh,nh->nr', rows, a) + offset
  wrong = np.einsum('nrh,nh->nr', absolute, error + width * np.abs(a)) + width * size
  slope, tilt = rows, eps * absolute
  for weight, (derivative, off) in zip(reversed(network.weights), reversed(kept), strict=True):
    derivative, off = derivative[:, None], off[:, None]
    tilt = tilt * (np.abs(derivative) + off) + np.abs(slope) * (off + eps * np.abs(derivative))
    slope = slope * derivative
    tilt = tilt + _curvature.units(sum(weight.shape)) * np.abs(slope)
    slope, tilt = map(np.asarray, _backwards(slope, tilt, weight))
  return value, wrong * (1 + width), slope, np.linalg.norm(tilt, axis=2) * (1 + width)


def _proved(network, pairs, size, eta, x):
  """The radius that (eta, x) prove, whatever they are: float64[N], 0 where nothing."""
  eps, unit = np.finfo(np.float64).eps, _curvature.units(x.shape[1])
  enclosed = _enclosed(
    network, _hidden(network, x), pairs.row[:, None], pairs.offset[:, None], size[:, None]
  )
  value, wrong, slope, tilt = (part[:, 0] for part in enclosed)
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


def _curvature_of(weights, activation):
  if len(weights) == 2:
    return _curvature.curvature(*weights, activation=activation)
  return _curvature.deep_curvature(weights, activation=activation)


def _device():
  """Where float64 is IEEE's: a TPU has none, there the host evaluates."""
  first = jax.local_devices()[0]
  return jax.local_devices(backend='cpu')[0] if first.platform == 'tpu' else first


def _checked_biases(weights, biases):
  biases = [np.asarray(bias, np.float64) for bias in biases]
  shapes, expected = [bias.shape for bias in biases], [(len(weight),) for weight in weights]
  if shapes != expected:
    raise ValueError(
      f'`biases` must have one vector for each of `weights`, of shapes {expected}; got {shapes}.'
    )
  if not all(np.isfinite(bias).all() for bias in biases):
    raise ValueError('`biases` must be finite: no bound holds for others; restore a checkpoint.')
  return biases


def _checked_curvature(curvature, classes):
  curvature = np.asarray(curvature, np.float64)
  if curvature.shape != (classes, classes) or not (curvature >= 0).all():
    raise ValueError(
      f'`curvature` must be float[K, K] with K={classes}, at least 0: `bounds.curvature` of these '
      f'weights; got shape {curvature.shape}.'
    )
  return curvature


def _check(network, x, slack, num_steps, batch):
  features = network.weights[0].shape[1]
  if x.shape[1] != features:
    raise ValueError(f'`x` must have D={features} pixels an image, got {x.shape[1]}.')
  if not 0 <= slack < np.inf:
    raise ValueError(f'`slack` must be a difference of logits, 0 or more, got {slack}.')
  for name, value in (('num_steps', num_steps), ('batch', batch)):
    if value < 1:
      raise ValueError(f'`{name}` must be at least 1, got {value}.')
