"""What APGD does in L1 (Croce & Hein 2021): sparse steps whose number of values follows the best point.

The ball of L1 has its good points near few axes: a step moves the k values of largest |gradient| by the same
amount each. There is no momentum. Searches may start in larger balls, from which the
best point is projected into the next one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from certjax import threats

_STRETCH = 4  # Percent of the steps between two checkpoints.
_FIRST_SHARE = 0.2  # Of all values, in the first steps.
_THINNER = 1.5  # The next steps move this many times fewer values than the best point does.
_FELL = 0.95  # A best point that moves less than this share of its values is a sparser one;
_SHORTER = 1.5  # where it is not, the step is divided by this,
_LEAST = 10.0  # but not below eps / this.
_ROOM = 1e-6  # A value with less of it is at the border, up to rounding.
_BALLS = ((3, 30), (2, 30), (1, 40))  # In units of eps, and percent of the steps.


class _State(NamedTuple):
  """Of one image in one run."""

  point: Any
  step_size: Any
  share: Any  # How many values a step moves.
  peak: Any  # Point, gradient and value of the largest loss,
  moved: Any  # and how many values it moved at the last checkpoint.


def begin(x, point, step_size, first):
  """The state at the start of a run (`first`), or in the next ball."""
  moved = _moved(x, point)
  size = jnp.full_like(moved, x.size)
  return _State(
    point=point,
    step_size=step_size,
    share=_FIRST_SHARE * size if first else moved / _THINNER,
    peak=(point, jnp.zeros_like(x), jnp.full((), -jnp.inf, x.dtype)),
    moved=size if first else moved,
  )


def start(eps, entry, key, x):
  """The first state: Gaussian noise, projected."""
  ball = threats.l1(entry * eps)
  point = ball.project(x, x + jax.random.normal(key, x.shape, x.dtype))
  return begin(x, point, jnp.asarray(ball.eps, x.dtype), first=True)


def advance(eps, entry, x, state, value, gradient):
  """Books the loss and gradient at the point, adapts the step at a checkpoint, and moves on."""
  here, leaves, scale, after = entry
  higher = value > state.peak[2]
  new = (state.point, gradient, value)
  peak = jax.tree.map(lambda a, b: jnp.where(higher, a, b), new, state.peak)
  moved, longest = _moved(x, peak[0]), jnp.asarray(scale * eps, x.dtype)
  fell = moved < _FELL * state.moved
  shorter = jnp.maximum(state.step_size / _SHORTER, longest / _LEAST)
  step_size = jnp.where(here, jnp.where(fell, longest, shorter), state.step_size)
  share = jnp.where(here, moved / _THINNER, state.share)
  point, slope = (
    jnp.where(here & fell, a, b) for a, b in zip(peak[:2], (state.point, gradient), strict=True)
  )
  # Deviation: values that point out of [0, 1] are not chosen (published: they are, and a step may do nothing).
  stays = jnp.where(slope > 0, 1 - point, point) < _ROOM
  step = sparse_step(jnp.where(stays, 0, slope), share)
  ahead = jnp.where(leaves, peak[0], point + step_size * step)
  ahead = threats.l1(after * eps).project(x, ahead)
  kept = _State(ahead, step_size, share, peak, jnp.where(here, moved, state.moved))
  anew = begin(x, ahead, jnp.asarray(after * eps, x.dtype), first=False)
  return jax.tree.map(lambda a, b: jnp.where(leaves, a, b), anew, kept)


def sparse_step(gradient, share):
  """sign(gradient) / n on the floor(share) values of largest |gradient|, at least one, and all that are
  equal to the least of them; n are not 0. 0 elsewhere."""
  # Deviation: rounded down (the authors' code: up, where a search that moves two values never moves one).
  size = jnp.abs(gradient)
  number = jnp.clip(share.astype(jnp.int32), 1, size.size)
  least = jnp.sort(size.ravel())[size.size - number]
  step = jnp.where(size >= least, jnp.sign(gradient), 0)
  return step / jnp.maximum(jnp.sum(jnp.abs(step)), 1)


def schedule(num_steps, large_eps, dtype):
  """Of each point that is judged: whether it is in the threat's ball, and the entry of `advance`: whether
  it is a checkpoint, the last one in its ball; the radius of this ball, and that of the next point.

  Also the radius of the first ball.
  """
  balls = _BALLS if large_eps else ((1, 100),)
  rest, here, leaves, scale, after = num_steps, [], [], [], []
  for number, (radius, percent) in enumerate(balls):
    last = number == len(balls) - 1
    length = rest if last else min(-(-num_steps * percent // 100), rest)
    stretch = max(length * _STRETCH // 100, 1)
    here += [step > 0 and step % stretch == 0 for step in range(length + 1)]
    leaves += [not last and step == length for step in range(length + 1)]
    scale += [radius] * (length + 1)
    after += [radius] * length + [radius if last else balls[number + 1][0]]
    rest -= length
  scale, after = (np.array(value) for value in (scale, after))
  entries = (np.array(here), np.array(leaves), scale.astype(dtype), after.astype(dtype))
  return jnp.asarray(scale == 1), jax.tree.map(jnp.asarray, entries), float(balls[0][0])


def _moved(x, point):
  return jnp.sum(point != x, dtype=x.dtype)
