"""JSMA (Papernot et al. 2016): the pair of values that a saliency map names, again and again.

One trace: a `lax.while_loop` that ends when every image is done. The map needs the derivative of the
target's logit and of the sum of the others, so a step costs one forward and two backward passes
however many classes there are, and a search over all pairs of values, in blocks of rows.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from certjax import threats
from certjax.attacks._ddn import _keep
from certjax.attacks._loss import margin

_ROWS = 32  # Of the table of pairs, at a time.
_DIRECTIONS = {'increase': (1.0,), 'decrease': (-1.0,), 'both': (1.0, -1.0)}


def jsma(*, pixels, theta=1.0, target='runner-up', direction='both'):
  """Moves two values at a time towards a target class, until the label changes.

    alpha_p = d f_t / d x_p,   beta_p = sum_{j != t} d f_j / d x_p
    (p, q) = argmax -(alpha_p + alpha_q) (beta_p + beta_q)  where the first sum is > 0, the second < 0
    x_p, x_q += theta

  f are the logits. To decrease, both signs turn and theta is subtracted. A value moves on the way it
  began, until it is 0 or 1. A pair must fit in what is left of the budget; the search
  ends where no pair is left.

  Args:
    pixels: a whole number of pixels that may change, all channels of one together; may be traced.
    theta: how far a value moves at once, in pixel values; 1 takes it to the end.
    target: 'runner-up', the class of the second largest logit at x; 'each', all classes but y in turn; or
      int or int[B], classes of your own.
    direction: 'increase', 'decrease', or 'both', the better of the two at every step.

  Returns:
    An `Attack` that draws nothing. Of all points visited, x among them, it returns the one of fewest
    changed pixels that is misclassified (for classes of your own: takes the target's label); where
    there is none, the one of the largest margin. At most pixels * C * ceil(1 / theta) + 1 steps a target.

  Raises:
    ValueError: unless `pixels` is a whole number and `theta` in (0, 1]; for an unknown `target` or
      `direction`.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum((1, 2, 3)), 2.5 - x.sum((1, 2, 3))], axis=1)
    >>> attack = jsma(pixels=2)
    >>> attack(None, model_fn, jnp.full((1, 2, 2, 1), 0.5), jnp.array([0])).ravel().tolist()
    [0.0, 0.0, 0.5, 0.5]

  References:
    Papernot et al. 2016 (arXiv:1511.07528), Algorithms 2 and 3.
  """
  threat = threats.l0(pixels)
  _check(theta, target, direction)
  signs = _DIRECTIONS[direction]
  # Deviation: the budget counts pixels, not steps, and when one pixel is left or none, a single value
  # may take the part of both.

  def move(x, point, alpha, beta):
    fresh = jnp.broadcast_to(jnp.all(point == x, axis=-1, keepdims=True), x.shape)
    left = threat.eps - threat.distance(x, point).astype(jnp.int32)

    def search(sign):
      room = jnp.where(sign > 0, (point < 1) & (point >= x), (point > 0) & (point <= x))
      return _best_pair(sign * alpha, sign * beta, room, fresh, left)

    score, pair = jax.vmap(search)(jnp.array(signs, x.dtype))
    best = jnp.argmax(score)
    length = theta * jnp.array(signs, x.dtype)[best]
    moved = point.ravel().at[pair[best]].set(point.ravel()[pair[best]] + length)
    return jnp.clip(moved, 0, 1).reshape(x.shape), score[best] > 0

  def attack(key, model_fn, x, y):
    del key  # It draws nothing.
    limit = threat.eps * x.shape[-1] * math.ceil(1 / theta)
    named = not isinstance(target, str)

    def run(best, goal):
      def step(carry):
        index, point, active, best = carry
        logits, pull_back = jax.vjp(model_fn, point)
        wanted = jax.nn.one_hot(goal, logits.shape[1], dtype=logits.dtype)
        value = -jax.vmap(margin)(logits, goal) if named else jax.vmap(margin)(logits, y)
        best = _keep(best, (point, value, jax.vmap(threat.distance)(x, point)))
        ahead, found = jax.vmap(move)(x, point, *pull_back(wanted), *pull_back(1 - wanted))
        active = active & found & ~(value > 0)
        point = jnp.where(active[:, None, None, None], ahead, point)
        return index + 1, point, active, best

      more = lambda carry: (carry[0] <= limit) & jnp.any(carry[2])
      active = jnp.ones(len(x), bool)
      return lax.while_loop(more, step, (jnp.int32(0), x, active, best))[-1], None

    nothing = jnp.full(len(x), -jnp.inf)
    best = (x, nothing, jnp.full(len(x), jnp.inf))
    return lax.scan(run, best, _goals(target, model_fn, x, y))[0][0]

  return attack


def _best_pair(alpha, beta, room, fresh, left):
  """The score and the two indices of the best pair of ONE image; score 0 where there is none."""
  channels = alpha.shape[-1]
  alpha, beta, room, fresh = (each.ravel() for each in (alpha, beta, room, fresh))
  index = jnp.arange(alpha.size, dtype=jnp.int32)

  def row(p):
    along, against = alpha[p] + alpha, beta[p] + beta
    other = fresh & (index // channels != p // channels)
    new = fresh[p].astype(jnp.int32) + other.astype(jnp.int32)
    allowed = room[p] & room & (new <= left) & ((index != p) | (left <= 1))
    score = jnp.where(allowed & (along > 0) & (against < 0), -along * against, 0)
    return jnp.max(score), jnp.argmax(score).astype(jnp.int32)

  score, partner = lax.map(row, index, batch_size=_ROWS)
  p = jnp.argmax(score).astype(jnp.int32)
  return score[p], jnp.stack([p, partner[p]])


def _runner_up(model_fn, x, y):
  logits = model_fn(x)
  others = jnp.where(jax.nn.one_hot(y, logits.shape[1], dtype=bool), -jnp.inf, logits)
  return jnp.argmax(others, axis=1).astype(jnp.int32)[None]


def _each(model_fn, x, y):
  num_classes = jax.eval_shape(model_fn, x).shape[1]
  offsets = jnp.arange(1, num_classes, dtype=y.dtype)
  return (y[None, :] + offsets[:, None]) % num_classes


_TARGETS = {'runner-up': _runner_up, 'each': _each}


def _goals(target, model_fn, x, y):
  """int[R, B], the targets of R runs."""
  if isinstance(target, str):
    return _TARGETS[target](model_fn, x, y)
  return jnp.broadcast_to(jnp.asarray(target, jnp.int32), (1, len(x)))


def _check(theta, target, direction):
  if not 0 < theta <= 1:
    raise ValueError(f'`theta` is in pixel values of [0, 1], above 0, got theta={theta}.')
  if target is None or (isinstance(target, str) and target not in _TARGETS):
    raise ValueError(
      f'`target` must be one of {", ".join(_TARGETS)}, or the classes int or int[B]; got {target!r}.'
    )
  if direction not in _DIRECTIONS:
    raise ValueError(f'`direction` must be one of {", ".join(_DIRECTIONS)}; got {direction!r}.')
