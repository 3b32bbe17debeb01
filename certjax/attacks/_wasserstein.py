r"""Attacks that move mass between pixels: Frank-Wolfe, dual projection, projected Sinkhorn.

The variable is a plan over a local stencil, so every point has a transport of known cost: it lies in
the Wasserstein ball by construction, never by convergence. Wu, Wang & Yu 2020 for the first two, Wong,
Schmidt & Kolter 2019 for the third and for the protocol of a growing ball.

A pixel holds no more than 1. The first two methods learn a price for each overfull pixel, as dual
ascent does, so that the budget is not spent on moves that `feasible` sends back.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.attacks._loss import cross_entropy, margin
from certjax.attacks._pgd import _keep
from certjax.attacks._sinkhorn import bisect, project, support
from certjax.attacks._transport import change, feasible, spread, stencil
from certjax.tracing import is_traced

_STEP_SIZE = {'frank-wolfe': 1.0, 'dual-projection': 0.3, 'sinkhorn': 0.1}
_REGULARIZATION = {'frank-wolfe': 1e4, 'dual-projection': 1.0, 'sinkhorn': 1e3}
_PRICE_RATE = 0.1  # Of an overfull pixel, per unit of value above 1, where the largest slope is 1.
_ROUNDS = 8  # Of `onto_simplices`; what is missing is a scaling of the row.


def wasserstein(
  *, eps, method='frank-wolfe', num_steps=40, size=5, p=1, ground='l2', step_size=None,
  regularization=None, num_iterations=25, loss=cross_entropy,
):  # fmt: skip
  r"""Moves at most `eps`, in mass times pixels, within each channel.

    W(x, x_adv) <= eps,   0 <= x_adv <= 1,   sum x_adv = sum x in each channel

  with W as in `wasserstein_distance`, and as certified by `smoothing.wasserstein` (p = 1, the same
  ground): one unit is all the mass of the image, of all channels, moved by one pixel.

  Args:
    eps: the budget, a share of the mass times pixels: one number, or float[B]; may be traced.
    method: 'frank-wolfe', 'dual-projection' (PGD on the plan), or 'sinkhorn' (the earliest and weakest).
    num_steps: static number of steps, each of one forward and one backward pass.
    size: mass moves within `size` by `size` pixels; odd. A smaller ball than the threat's, quicker.
    p: exponent of the ground distance; 2 is the ball of squared distances.
    ground: 'l2' or 'l1'.
    step_size: of 'dual-projection', as a share of the brightest pixel (default .3); of 'sinkhorn', in
      pixel values along the gradient's sign (.1). 'frank-wolfe' has its own, 2 / (t + 2).
    regularization: of 'frank-wolfe', inverse temperature of its linear program, where the largest
      slope is 1 (default 10,000); of 'sinkhorn', lam (1000). 'dual-projection' has none.
    num_iterations: of the multiplier's bisection, or of Sinkhorn, in each step.
    loss: `(logits[K], y) -> scalar`, made large.

  Returns:
    An `Attack` on float[B, H, W, C] in [0, 1]. It draws nothing. Of all points visited, x among them, it
    returns the one with the largest loss. An image without mass comes back as it is.

  Raises:
    ValueError: for an unknown name, a number out of range, or, from the attack, for x of another rank
      and (where x is no tracer) for an image without mass.

  Example:
    >>> model_fn = lambda x: jnp.stack([x[:, 0, 0, 0], x[:, 0, 1, 0]], axis=1)
    >>> x = jnp.array([0.5, 0.25, 0.25]).reshape(1, 1, 3, 1)
    >>> attack = wasserstein(eps=0.125, size=3)
    >>> x_adv = attack(jax.random.key(0), model_fn, x, jnp.array([0]))
    >>> [round(float(value), 3) for value in x_adv.ravel()]
    [0.375, 0.375, 0.25]

  References:
    Wu, Wang & Yu 2020, "Stronger and Faster Wasserstein Adversarial Attacks" (arXiv:2008.02883); Wong et al.
    2019 (arXiv:1902.07906).
  """
  search = _search(
    method, num_steps, size, p, ground, step_size, regularization, num_iterations, loss
  )
  if not is_traced(eps) and not np.all(np.asarray(eps) >= 0):
    raise ValueError(f'`eps` must be at least 0, got eps={eps}.')

  def attack(key, model_fn, x, y):
    del key
    budgets = jnp.broadcast_to(jnp.asarray(eps, x.dtype), (num_steps, len(x)))
    return search(model_fn, x, y, budgets, np.arange(num_steps), until_fooled=False)[0]

  return attack


def wasserstein_radius(
  *, start, growth=1.1, grow_every=10, method='frank-wolfe', num_steps=200, size=5, p=1, ground='l2',
  step_size=None, regularization=None, num_iterations=25, loss=cross_entropy,
):  # fmt: skip
  """The ball at which each image is first misclassified, as it grows during the attack.

  The budget is start * growth^floor(t / grow_every) in step t: the protocol of Wong et al. 2019, who
  start at .7 on MNIST with p = 2 (Levine & Feizi 2020: .3, p = 1) and at .001 on CIFAR-10 (growth 1.17).

  Args:
    start: first budget, in mass times pixels.
    growth: its factor every `grow_every` steps.
    grow_every: steps with one budget.
    method, num_steps, size, p, ground, step_size, regularization, num_iterations, loss: as in
      `wasserstein`.

  Returns:
    A function `(key, model_fn, x[B, H, W, C], y[B]) -> (x_adv, radius[B])`: the first misclassified
    point and the budget it was made with (0 where it is x), or the point of the largest loss and inf.

  Raises:
    ValueError: as `wasserstein`, and for a `start` that is not positive, a `growth` below 1 or a
      `grow_every` below 1.

  Example:
    >>> model_fn = lambda x: jnp.stack([x[:, 0, 0, 0], x[:, 0, 1, 0]], axis=1)
    >>> x = jnp.array([0.5, 0.25, 0.25]).reshape(1, 1, 3, 1)
    >>> attack = wasserstein_radius(start=0.1, growth=1.2, grow_every=5, num_steps=20, size=3)
    >>> x_adv, radius = attack(jax.random.key(0), model_fn, x, jnp.array([0]))
    >>> round(float(radius[0]), 3)
    0.144

  References:
    Wong et al. 2019 (arXiv:1902.07906), section 5.
  """
  search = _search(
    method, num_steps, size, p, ground, step_size, regularization, num_iterations, loss
  )
  if not (start > 0 and growth >= 1 and grow_every >= 1):
    raise ValueError(
      '`start` must be positive, `growth` and `grow_every` at least 1, got '
      f'start={start}, growth={growth}, grow_every={grow_every}.'
    )
  schedule = start * float(growth) ** (np.arange(num_steps) // grow_every)
  # Frank-Wolfe forgets: an average over all steps would stay in the balls of long ago.
  times = np.minimum(np.arange(num_steps), grow_every)

  def attack(key, model_fn, x, y):
    del key
    budgets = jnp.tile(jnp.asarray(schedule, x.dtype)[:, None], (1, len(x)))
    return search(model_fn, x, y, budgets, times, until_fooled=True)

  return attack


class _Ball(NamedTuple):
  """An image as a distribution: its pixels, flat, sum to 1."""

  x: jax.Array
  mass: jax.Array
  capacity: jax.Array


class _State(NamedTuple):
  """What a method carries: its own plan, what overfull pixels cost, and the feasible part."""

  plan: jax.Array
  price: jax.Array
  moves: jax.Array


def _search(
  method, num_steps, size, p, ground, step_size, regularization, num_iterations, loss
):  # fmt: skip
  """The loop of all methods.

  Returns:
    A function (model_fn, x, y, budgets[num_steps, B], times[num_steps], until_fooled) -> (x_adv,
    radius); `times` is what step sizes know of the time.
  """
  if method not in _METHODS:
    raise ValueError(f'`method` must be one of {", ".join(_METHODS)}, got {method!r}.')
  step_size = _STEP_SIZE[method] if step_size is None else step_size
  regularization = _REGULARIZATION[method] if regularization is None else regularization
  _check(num_steps, step_size, regularization, num_iterations)
  stencil((1, 1, 1), size, p=p, ground=ground)  # Its arguments are judged before any tracing.
  update = functools.partial(
    _METHODS[method], step_size=step_size, regularization=regularization,
    num_iterations=num_iterations,
  )  # fmt: skip

  def search(model_fn, x, y, budgets, times, until_fooled):
    _check_images(x)
    places = stencil(x.shape[1:], size, p=p, ground=ground)
    balls, evaluate = jax.vmap(_ball)(x), _evaluation(model_fn, y, loss)
    advance = jax.vmap(functools.partial(_advance, update, places), (0, 0, 0, 0, 0, None))

    def step(carry, inputs):
      state, point, best, radius = carry
      t, made_with, eps = inputs
      (_, seen), slope = evaluate(point)
      best, radius = _judge(best, radius, point, seen, made_with, until_fooled)
      state, point = advance(state, balls, x, slope, eps, t)
      return (state, point, best, radius), None

    budgets = jnp.concatenate([jnp.zeros((1, len(x)), x.dtype), budgets])
    inputs = (jnp.asarray(times, x.dtype), budgets[:-1], budgets[1:])
    never = jnp.full(len(x), jnp.inf, x.dtype)
    state = jax.vmap(functools.partial(_start, places=places))(balls.x)
    (_, point, best, radius), _ = lax.scan(step, (state, x, (x, -never), never), inputs)
    seen = evaluate(point)[0][1]
    best, radius = _judge(best, radius, point, seen, budgets[-1], until_fooled)
    return best[0], radius

  return search


def _advance(update, places, state, ball, x, slope, eps, t):
  """One step of one image: (state, the next point)."""
  slope = jnp.where(jnp.isfinite(slope), slope, 0).ravel()
  slope = slope / jnp.maximum(jnp.max(jnp.abs(slope)), jnp.finfo(x.dtype).tiny)
  plan, price = update(state, ball, slope, eps, t, places=places)
  moves = feasible(plan, ball.x, eps, ball.capacity, places)
  moved = x + ball.mass * change(moves, places).reshape(x.shape)
  return _State(plan, price, moves), jnp.clip(moved, 0, 1)


def _judge(best, radius, point, seen, made_with, until_fooled):
  """Keeps the better points, and the budget of the first misclassified ones."""
  value, gap = seen
  if until_fooled:
    value = jnp.where(gap > 0, jnp.inf, value)  # Nothing replaces the first such point.
  radius = jnp.where((gap > 0) & (radius == jnp.inf), made_with, radius)
  return _keep(best, (point, value)), radius


def _evaluation(model_fn, y, loss):
  def total(x):
    logits = model_fn(x)
    value = jax.vmap(loss)(logits, y)
    return jnp.sum(value), (value, jax.vmap(margin)(logits, y))

  return jax.value_and_grad(total, has_aux=True)


def _ball(x):
  mass = jnp.sum(x)
  positive = jnp.where(mass > 0, mass, 1)
  return _Ball(x.ravel() / positive, mass, 1 / positive)


def _start(x, places):
  nothing = jnp.zeros((len(places.cost), x.size), x.dtype)
  return _State(nothing, jnp.zeros_like(x), nothing)


def _priced(state, ball, slope, places):
  """(slope less price, price), after one step of dual ascent on the capacities."""
  excess = (ball.x + change(state.plan, places)) / ball.capacity - 1
  price = jnp.maximum(state.price + _PRICE_RATE * excess, 0)
  return slope - price, price


def _frank_wolfe(state, ball, slope, eps, t, *, places, step_size, regularization, num_iterations):
  # Deviation: prices of the capacities, where the paper projects on them once, at the end.
  del step_size
  slope, price = _priced(state, ball, slope, places)
  vertex = support(
    ball.x, slope, eps, places, regularization=regularization, num_iterations=num_iterations
  )
  share = 2 / (t + 2)
  return (1 - share) * state.plan + share * _moving(vertex), price


def _dual_projection(
  state, ball, slope, eps, t, *, places, step_size, regularization, num_iterations
):
  del t, regularization
  slope, price = _priced(state, ball, slope, places)
  staying = ball.x - jnp.sum(state.plan, axis=0)
  plan = state.plan.at[len(places.cost) // 2].set(staying)
  ahead = plan + step_size * jnp.max(ball.x) * spread(slope, places, 0)
  return _moving(onto_ball(ahead, ball.x, eps, places, num_iterations=num_iterations)), price


def _sinkhorn(state, ball, slope, eps, t, *, places, step_size, regularization, num_iterations):
  del t
  image = ball.x + change(state.moves, places)
  ahead = jnp.clip(image + step_size * ball.capacity * jnp.sign(slope), 0, ball.capacity)
  plan = project(
    ball.x, ahead, eps, places, regularization=regularization, num_iterations=num_iterations
  )
  return plan, state.price


_METHODS = {
  'frank-wolfe': _frank_wolfe,
  'dual-projection': _dual_projection,
  'sinkhorn': _sinkhorn,
}


def onto_ball(plan, x, eps, places, *, num_iterations=25):
  r"""The Euclidean projection of a plan on { P >= 0 : P 1 = x, <P, C> <= eps }.

  For a multiplier mu the rows are projections of P - mu C on simplices; mu by bisection, from above,
  so that the cost never exceeds eps.

  Args:
    plan: float[S, N]; entries outside the image are ignored.
    x: float[N] of mass 1.
    eps: the budget.
    places: where mass may go.
    num_iterations: of the bisection.

  Returns:
    float[S, N].

  Example:
    >>> places = stencil((1, 2, 1), 3)
    >>> plan = jnp.zeros((9, 2)).at[5, 0].set(0.5)
    >>> onto_ball(plan, jnp.array([0.5, 0.5]), 0.25, places)[4:6].round(3).tolist()
    [[0.25, 0.5], [0.25, 0.0]]

  References:
    Wu, Wang & Yu 2020 (arXiv:2008.02883), section 3.
  """
  plan = jnp.where(places.index < x.size, plan, -jnp.inf)
  column = places.column(x)
  at = lambda mu: onto_simplices(plan - mu * column, x)
  # Above this multiplier all mass stays, as C >= 1 for all that moves.
  highest = jnp.maximum(jnp.max(plan - (plan[len(places.cost) // 2] - x)[None]), 0)
  return at(bisect(lambda mu: jnp.sum(column * at(mu)) > eps, highest, num_iterations))


def onto_simplices(plan, x):
  """Each column of float[S, N] on the simplex of mass x[N], by Michelot's rounds."""

  def round_(_, threshold):
    kept = plan > threshold[None]
    total = jnp.sum(jnp.where(kept, plan, 0), axis=0)
    count = jnp.maximum(jnp.sum(kept, axis=0, dtype=x.dtype), 1)
    return jnp.maximum(threshold, (total - x) / count)

  threshold = lax.fori_loop(0, _ROUNDS, round_, jnp.full_like(x, -jnp.inf))
  above = jnp.maximum(plan - threshold[None], 0)
  total = jnp.sum(above, axis=0)
  return above * (x / jnp.where(total > 0, total, 1))[None]


def _moving(plan):
  return plan.at[len(plan) // 2].set(0)


def _check(num_steps, step_size, regularization, num_iterations):
  if num_steps < 0 or num_iterations < 1:
    raise ValueError(
      '`num_steps` must be at least 0 and `num_iterations` at least 1, got '
      f'num_steps={num_steps}, num_iterations={num_iterations}.'
    )
  if not (step_size > 0 and regularization > 0):
    raise ValueError(
      '`step_size` and `regularization` must be positive, got '
      f'step_size={step_size}, regularization={regularization}.'
    )


def _check_images(x):
  if x.ndim != 4:
    raise ValueError(f'`x` must be images [B, H, W, C], got shape {x.shape}.')
  if is_traced(x):
    return
  empty = np.flatnonzero(~(np.sum(np.asarray(x), axis=(1, 2, 3)) > 0))
  if len(empty):
    raise ValueError(
      'a Wasserstein ball needs images with mass to move; sum x is not positive for rows '
      f'{empty.tolist()}: leave them out.'
    )
