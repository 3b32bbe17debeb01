"""APGD (Croce & Hein 2020): projected gradient ascent that chooses its step sizes.

The step is halved, and the search goes back to its best point, where a stretch of steps brought too
little. In L1 the steps are sparse (`_apgd_l1.py`). One trace: a scan over the runs, and in it a scan over
the steps; each costs one forward and one backward pass.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.attacks import _apgd_l1
from certjax.attacks._loss import cross_entropy, dlr_targeted, margin, margin_targeted
from certjax.attacks._pgd import _keep, row_keys

_FIRST, _FALL, _LEAST = 22, 3, 6  # Percent of the steps: the stretches between checkpoints.
_RHO = (3, 4)  # The step stays where more than this share of a stretch's steps rose.
_MOMENTUM = 0.75  # Share of the new step; the rest repeats the last one.
_FIRST_STEP = 2.0  # Of eps.


def apgd(threat, *, num_steps=100, num_restarts=1, loss=None, targets=None, large_eps=False):
  """Ascends the loss with momentum and step sizes that fall where the ascent stalls.

    z       = project(x, x_t + step_t * steepest(g_t))
    x_{t+1} = project(x, x_t + a (z - x_t) + (1 - a) (x_t - x_{t-1})),  a = .75, at first 1

  in L_inf and L2, from step_0 = 2 eps. At the checkpoints (steps 22, 41, 57, 70, 80, 87, 93, 99 of 100) the
  step is halved, and x_t becomes the best point of the run, if the loss rose in at most 3/4 of the steps
  since the last checkpoint, or if the step was kept there and the best loss is still the same. Runs
  start from random points of the border.

  L1: without momentum; a step of length step_t moves the k_t values of largest |g_t|, each by as much, of
  those that [0, 1] does not hold back. From k_0 = .2 times all values and step_0 = eps. At a checkpoint,
  every 4% of the steps, k becomes the number of values in which the best point differs from x, divided
  by 1.5. If that number fell by more than 5% since the last one, the step is eps again and x_t becomes the
  best point; else the step is divided by 1.5, down to eps / 10. Runs start from Gaussian noise, projected.

  Args:
    threat: an L_inf, L2 or L1 `Threat`.
    num_steps: static number of steps of a run.
    num_restarts: static number of runs (to each target).
    loss: `(logits[K], y) -> scalar`, made large; with `targets` `(logits[K], y, target) -> scalar`.
      Default: `attacks.cross_entropy`, and `attacks.dlr_targeted`, for which fewer than 4 classes get
      `attacks.margin_targeted`. `attacks.dlr` needs 3 classes.
    targets: None, or how many other classes to aim at, one a run: those of the largest logits at x, at
      most K - 1. The authors' targeted attack, APGD-T, takes 9, in L1 5.
    large_eps: in L1: 30% of the steps are taken in the ball of 3 eps, 30% in that of 2 eps, the rest in the
      threat's own; each search starts from the best point of the one before, projected.

  Returns:
    An `Attack`: of all points visited, x among them, the one with the largest `attacks.margin`, so a
    misclassified one if there was any. It costs, for each restart and target, `num_steps` + 1
    forward and backward passes, with `large_eps` + 3.

  Raises:
    ValueError: for another norm, a negative `num_steps`, `num_restarts` or `targets` below 1, or
      `large_eps` outside of L1.

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.ones(len(x))], axis=1)
    >>> attack = apgd(threats.linf(0.25), num_steps=5)
    >>> attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0])).tolist()
    [[0.25, 0.25]]

  References:
    Croce & Hein 2020 (arXiv:2003.01690), Algorithm 1 and section 5; in L1 Croce & Hein 2021
    (arXiv:2103.01208), section 4.
  """
  _check(threat, num_steps, num_restarts, targets, large_eps)
  # Deviation: the point that is kept has the largest margin, whatever loss is climbed: runs to several
  # targets have no loss in common. Published: any misclassified one.

  def attack(key, model_fn, x, y):
    keys, logits = row_keys(key, len(x)), model_fn(x)
    goals, each_loss = _goals(logits, y, loss, targets)
    start, move, schedule = _SEARCHES[threat.norm](threat, num_steps, large_eps, x.dtype)
    advance = jax.vmap(move, (None, 0, 0, 0, 0))

    def run(best, entry):
      number, goal = entry

      def judge(point):
        logits = model_fn(point)
        value = each_loss(logits, y, goal)
        return jnp.sum(value), (value, jax.vmap(margin)(logits, y))

      def step(carry, entry):
        state, best = carry
        gradient, (value, score) = jax.grad(judge, has_aux=True)(state.point)
        best = _keep(best, (state.point, jnp.where(entry[0], score, -jnp.inf)))
        return (advance(entry[1], x, state, value, gradient), best), None

      state = jax.vmap(start)(_fold(keys, number), x)
      return lax.scan(step, (state, best), schedule)[0][1], None

    numbers = jnp.arange(num_restarts * len(goals), dtype=jnp.uint32)
    goals = jnp.tile(goals, (num_restarts, 1))
    return lax.scan(run, (x, jax.vmap(margin)(logits, y)), (numbers, goals))[0][0]

  return attack


class _State(NamedTuple):
  """Of one image in one run."""

  point: Any
  previous: Any  # The point before the last step.
  step_size: Any
  value: Any  # Loss of the previous point.
  rises: Any  # Steps since the checkpoint that raised the loss.
  peak: Any  # Point, gradient and value of the largest loss.
  peak_then: Any  # The largest loss at the last checkpoint,
  halved: Any  # and whether the step was halved there.


def _begin(threat, start):
  none = jnp.full((), -jnp.inf, start.dtype)
  step_size = jnp.asarray(_FIRST_STEP * threat.eps, start.dtype)
  peak = (start, jnp.zeros_like(start), none)
  # As in the authors' code, the first checkpoint asks for the share of rising steps only.
  return _State(start, start, step_size, -none, jnp.int32(0), peak, none, jnp.array(True))


def _advance(threat, entry, x, state, value, gradient):
  """Books the loss and gradient at the point, halves the step at a checkpoint, and moves on."""
  stretch, share = entry
  higher = value > state.peak[2]
  new = (state.point, gradient, value)
  peak = jax.tree.map(lambda a, b: jnp.where(higher, a, b), new, state.peak)
  rises = state.rises + (value > state.value).astype(jnp.int32)
  here = stretch > 0
  stalls = rises * _RHO[1] <= stretch * _RHO[0]
  stuck = ~state.halved & (peak[2] <= state.peak_then)
  halve = here & (stalls | stuck)
  step_size = jnp.where(halve, state.step_size / 2, state.step_size)
  point, gradient = (
    jnp.where(halve, a, b) for a, b in zip(peak[:2], (state.point, gradient), strict=True)
  )
  return _State(
    point=_move(threat, x, point, state.previous, step_size, gradient, share),
    previous=point,
    step_size=step_size,
    value=value,
    rises=jnp.where(here, 0, rises),
    peak=peak,
    peak_then=jnp.where(here, peak[2], state.peak_then),
    halved=jnp.where(here, halve, state.halved),
  )


def _move(threat, x, point, previous, step_size, gradient, share):
  ahead = threat.project(x, point + step_size * threat.steepest(gradient))
  step = share * (ahead - point) + (1 - share) * (point - previous)
  return threat.project(x, point + step)


def _border(threat, key, x):
  """A random point of the border of the ball, brought into [0, 1]."""
  noise = _NOISE[threat.norm](key, x.shape, x.dtype)
  length = threat.distance(jnp.zeros_like(x), noise)
  return threat.project(x, x + threat.eps * noise / length)


def _uniform(key, shape, dtype):
  return jax.random.uniform(key, shape, dtype, -1, 1)


_NOISE = {'linf': _uniform, 'l2': jax.random.normal, 'l1': jax.random.normal}


def checkpoints(num_steps):
  """int[...], the steps after which the step size is judged."""
  stretch, places = max(num_steps * _FIRST // 100, 1), []
  while sum(places[-1:]) + stretch <= num_steps:
    places.append(sum(places[-1:]) + stretch)
    stretch = max(stretch - max(num_steps * _FALL // 100, 1), max(num_steps * _LEAST // 100, 1))
  return np.array(places, np.int32)


def _schedule(num_steps, dtype):
  """Of the steps 0 .. num_steps: the length of the stretch that ends there, or 0; the momentum's share."""
  places, stretch = checkpoints(num_steps), np.zeros(num_steps + 1, np.int32)
  stretch[places] = np.diff(places, prepend=0)
  share = np.full(num_steps + 1, _MOMENTUM)
  share[0] = 1
  return jnp.asarray(stretch), jnp.asarray(share, dtype)


def _goals(logits, y, loss, targets) -> tuple[Any, Callable]:
  """int32[T, B], the class that each run aims at, and the loss `(logits, y, goal) -> float[B]`."""
  classes = logits.shape[1]
  if targets is None:
    plain = jax.vmap(cross_entropy if loss is None else loss)
    return jnp.zeros((1, len(y)), jnp.int32), lambda logits, y, goal: plain(logits, y)
  if loss is None:
    loss = dlr_targeted if classes >= 4 else margin_targeted
  return _rivals(logits, y, targets), jax.vmap(loss)


def _rivals(logits, y, number):
  """int32[min(number, K - 1), B], the classes but y of the largest logits."""
  classes = logits.shape[1]
  own = jnp.arange(classes, dtype=y.dtype)[None, :] == y[:, None]
  rivals = lax.top_k(jnp.where(own, -jnp.inf, logits), min(number, classes - 1))[1]
  return rivals.T.astype(jnp.int32)


def _dense(threat, num_steps, large_eps, dtype):
  """The first state of an image, the step to the next one, and for each point whether it may be returned,
  and the entry of the step."""
  del large_eps
  start = lambda key, x: _begin(threat, _border(threat, key, x))
  kept = jnp.ones(num_steps + 1, bool)
  return start, functools.partial(_advance, threat), (kept, _schedule(num_steps, dtype))


def _sparse(threat, num_steps, large_eps, dtype):
  kept, entries, first = _apgd_l1.schedule(num_steps, large_eps, dtype)
  start = functools.partial(_apgd_l1.start, threat.eps, first)
  return start, functools.partial(_apgd_l1.advance, threat.eps), (kept, entries)


_SEARCHES = {'linf': _dense, 'l2': _dense, 'l1': _sparse}


def _fold(keys, number):
  return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _check(threat, num_steps, num_restarts, targets, large_eps):
  if threat.norm not in _SEARCHES:
    raise ValueError(
      f'`threat` must be one of {", ".join(_SEARCHES)}, got {threat.norm!r}: use attacks.pgd, or '
      f'attacks.pgd0 for few pixels.'
    )
  if large_eps and threat.norm != 'l1':
    raise ValueError(
      f'`large_eps` is a schedule for L1, got a threat in {threat.norm!r}: leave it False.'
    )
  if num_steps < 0 or num_restarts < 1:
    raise ValueError(
      f'`num_steps` must be at least 0 and `num_restarts` at least 1, got num_steps={num_steps}, '
      f'num_restarts={num_restarts}.'
    )
  if targets is not None and targets < 1:
    raise ValueError(f'`targets` must be at least 1, or None for no target, got {targets}.')
