"""The L2 attack of Carlini & Wagner 2017: a small change found by Adam, its price by bisection.

One trace: a scan over the targets, in it one over the constants of the search, in it one over Adam's
steps; each step costs one forward and one backward pass. The nearest success is returned.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from certjax.attacks._apgd import _goals
from certjax.attacks._ddn import _keep
from certjax.attacks._loss import margin

_SHRINK = 1e-6  # The variable of a black or white pixel would be infinite.
_GROWTH = 10.0  # Of the constant, until a first success.


class Search(NamedTuple):
  """Of one image: the constant in use, the largest failure and the smallest success so far."""

  const: Any
  low: Any
  high: Any


def carlini_wagner(
  threat,
  *,
  num_steps=1000,
  binary_search_steps=9,
  learning_rate=1e-2,
  initial_const=1e-3,
  confidence=0.0,
  targets=None,
):
  """Weighs the length of the change against the margin, and searches the weight of each image.

    min_w |x' - x|_2^2 + c max(0, confidence - margin(model_fn(x'), y)),  x' = (tanh(w) + 1) / 2

  by Adam from x' = x; c is raised tenfold until a first success, then halved between the largest failure
  and the smallest success. A point is a success where the margin exceeds `confidence`.

  Args:
    threat: an L2 `Threat`; `threats.l2(inf)` looks for the smallest perturbation of any length.
    num_steps: static number of Adam's steps for each constant.
    binary_search_steps: static number of constants; the variables and Adam start anew for each.
    learning_rate: of Adam, in units of w.
    initial_const: the first c.
    confidence: how far, in logits, the wrong class must lie above y.
    targets: None, or how many other classes to aim at, each in a search of its own: those of the
      largest logits at x, at most K - 1. The margin is then z_target - max_{k != target} z_k. Without targets
      the way mostly leads to the runner-up, which need not be the nearest.

  Returns:
    An `Attack`: of all points visited, x among them, the nearest success. One that lies outside of the
    ball, and without success the point of the largest margin, is projected, and returned if its margin is
    larger than that of x. No key is used. It costs, for each target, `binary_search_steps` *
    (`num_steps` + 1) forward and backward passes.

  Raises:
    ValueError: for another norm, a negative `num_steps` or `confidence`, `binary_search_steps` or
      `targets` below 1, or a `learning_rate` or `initial_const` that is not positive.

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 0.9)], axis=1)
    >>> attack = carlini_wagner(threats.l2(1.0), num_steps=50, learning_rate=0.05)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0]))
    >>> bool(0.07 < jnp.linalg.norm(x_adv - 0.5) < 0.075)  # The least is 0.1 / sqrt(2).
    True

  References:
    Carlini & Wagner 2017 (arXiv:1608.04644), section V and VI.A.
  """
  _check_search(threat, num_steps, binary_search_steps, targets)
  _check_scales(learning_rate, initial_const, confidence)
  # Deviation: no early abort, the work is fixed; the last of 10 or more constants is not repeated.
  optimizer = optax.adam(learning_rate)

  def attack(key, model_fn, x, y):
    del key
    distance, score = jax.vmap(threat.distance), lambda z: jax.vmap(margin)(z, y) - confidence
    logits, start = model_fn(x), to_variable(x)
    goals, each_reach = _goals(logits, y, margin if targets is None else _reach, targets)
    far = lambda point: jnp.sum((point - x) ** 2, axis=tuple(range(1, x.ndim)))

    def objective(variable, const, goal):
      point = jax.nn.sigmoid(2 * variable)  # (tanh(w) + 1) / 2, exact near 0.
      logits = model_fn(point)
      reach = each_reach(logits, y, goal) - confidence
      total = jnp.sum(far(point) + const * jnp.maximum(-reach, 0))
      return total, (reach > 0, (point, score(logits), distance(x, point)))

    def run(best, goal):
      def step(carry, _):
        variable, state, success, best, const = carry
        gradient, (reached, new) = jax.grad(objective, has_aux=True)(variable, const, goal)
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
        with jax.numpy_dtype_promotion('standard'):  # optax raises floats to int32 powers.
          updates, state = optimizer.update(gradient, state)
        carry = variable + updates, state, success | reached, _keep(best, new), const
        return carry, None

      def search(carry, _):
        place, best = carry
        fresh = (start, optimizer.init(start), jnp.zeros(len(x), bool), best, place.const)
        (_, _, success, best, _), _ = lax.scan(step, fresh, length=num_steps + 1)
        return (next_const(place, success), best), None

      const = jnp.full(len(x), initial_const, x.dtype)
      place = Search(const, jnp.zeros_like(const), jnp.full_like(const, jnp.inf))
      return lax.scan(search, (place, best), length=binary_search_steps)[0][1], None

    image = (x, score(logits), jnp.zeros(len(x), x.dtype))
    return _inside(threat, image, lax.scan(run, image, goals)[0], lambda p: score(model_fn(p)))

  return attack


def to_variable(x):
  """w with (tanh(w) + 1) / 2 = x, up to a millionth: artanh(0.999999 (2 x - 1)).

  Example:
    >>> [round(w, 5) for w in to_variable(jnp.array([0.0, 0.25, 0.5])).tolist()]
    [-7.25433, -0.54931, 0.0]
  """
  # 1 - u and 1 + u without cancellation, which would cost 1e-2 in float32.
  below, above = (2 * (1 - _SHRINK) * side + _SHRINK for side in (x, 1 - x))
  return (jnp.log(below) - jnp.log(above)) / 2


def next_const(place, success):
  """The search after one more outcome: tenfold until a first success, then the middle.

  Example:
    >>> place = Search(jnp.array([0.1]), jnp.array([0.01]), jnp.array([jnp.inf]))
    >>> [round(float(value[0]), 3) for value in next_const(place, jnp.array([True]))]
    [0.055, 0.01, 0.1]
  """
  low = jnp.where(success, place.low, jnp.maximum(place.low, place.const))
  high = jnp.where(success, jnp.minimum(place.high, place.const), place.high)
  return Search(jnp.where(jnp.isfinite(high), (low + high) / 2, _GROWTH * place.const), low, high)


def _reach(logits, y, target):
  """How far the target lies above all other classes."""
  del y
  return -margin(logits, target)


def _inside(threat, image, best, score):
  """The best point, projected where it lies outside of the ball; the image where that is worse."""
  point, value, length = best
  rows = (-1,) + (1,) * (point.ndim - 1)
  inside = length <= threat.eps
  point = jnp.where(inside.reshape(rows), point, jax.vmap(threat.project)(image[0], point))
  value = jnp.where(inside, value, score(point))
  return _keep(image, (point, value, jnp.where(inside, length, threat.eps)))[0]


def _check_search(threat, num_steps, binary_search_steps, targets):
  if threat.norm != 'l2':
    raise ValueError(
      f'`threat` must be L2: the objective squares Euclidean lengths; got {threat.norm!r} (use '
      f'attacks.fmn).'
    )
  if num_steps < 0 or binary_search_steps < 1:
    raise ValueError(
      f'`num_steps` must be at least 0 and `binary_search_steps` at least 1, got num_steps={num_steps}, '
      f'binary_search_steps={binary_search_steps}.'
    )
  if targets is not None and targets < 1:
    raise ValueError(f'`targets` must be at least 1, or None for no target, got {targets}.')


def _check_scales(learning_rate, initial_const, confidence):
  if not (learning_rate > 0 and initial_const > 0 and confidence >= 0):
    raise ValueError(
      f'`learning_rate` and `initial_const` must be positive and `confidence` at least 0, got '
      f'learning_rate={learning_rate}, initial_const={initial_const}, confidence={confidence}.'
    )
