r"""The search for the pair (eta, x) with which the dual of the curvature certificate proves much.

At the best pair x is a stationary point of F, and lies on the boundary unless eta is as large as it may
be. So each step takes the eta that a linear g would have,

  eta = (g(x) + <grad g(x), x_0 - x>) / ||grad g(x)||^2,   cut to [0, 0.999 / m],

and moves along the gradient of F = 1/2 ||x - x_0||^2 + eta g(x) by Barzilai & Borwein's step, within
those that the curvature of F admits: about ten steps, each one pass forwards and one backwards. One
pair at a time in the formulas; `vmap` makes them one program for all. Nothing here is trusted:
`_curvature_crc` proves with whatever is found.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_NEAR = 0.999  # Of 1 / m: F* is concave in eta and 0 at 0, so at most this share of it is lost.
_CLOSE = 1e-9  # Of F*: what the search may leave.
_BEYOND = 0.5  # Of g(x_0): further behind the boundary a step is taken back by half.
_LARGEST, _TINY = 1e30, 1e-300

FUNCTIONS = {'softplus': jax.nn.softplus, 'sigmoid': jax.nn.sigmoid, 'tanh': jnp.tanh}


class Pairs(NamedTuple):
  """Images x_0 and one rival each: g = f_y - f_j = <row, hidden(x)> + offset.

  Attributes:
    start: float64[N, D], x_0.
    row: float64[N, H], W_L[y] - W_L[j].
    offset: float64[N].
    bend: float64[N], m of g.
    upward: float64[N], m of -g.
  """

  start: object
  row: object
  offset: object
  bend: object
  upward: object


class _State(NamedTuple):
  """Of one search: where it stands, where it stood, and the best pair so far."""

  x: jax.Array
  last: jax.Array
  gradient: jax.Array  # Of F, at `last`.
  first: jax.Array  # g(x_0).
  count: jax.Array
  done: jax.Array
  dual: jax.Array
  eta: jax.Array
  found: jax.Array


@functools.partial(jax.jit, static_argnames='activation')
def search(weights, biases, pairs, num_steps, *, activation):
  """(eta, x) of every pair, with a large dual bound.

  Args:
    weights, biases: of the hidden layers.
    pairs: `Pairs`.
    num_steps: at most; it ends earlier where 1e-9 of the bound is left.
    activation: a key of `FUNCTIONS`.

  Returns:
    float64[N], float64[N, D]; eta = 0 where nothing was found.
  """
  function = FUNCTIONS[activation]

  def one(pair):
    def gap(x):
      for weight, bias in zip(weights, biases, strict=True):
        x = function(jnp.matmul(weight, x, precision='highest') + bias)
      return jnp.dot(pair.row, x, precision='highest') + pair.offset

    zero = jnp.zeros_like(pair.offset)
    still = jnp.zeros_like(pair.start)
    begin = _State(
      pair.start, pair.start, still, zero, jnp.int32(0), jnp.bool_(False), zero, zero, pair.start
    )
    going = lambda state: ~state.done & (state.count < num_steps)
    end = lax.while_loop(going, functools.partial(_step, jax.value_and_grad(gap), pair), begin)
    return end.eta, end.found

  return jax.vmap(one)(pairs)


def _step(evaluate, pair, state):
  """One evaluation, the dual bound there, and where to go next."""
  value, slope = evaluate(state.x)
  first = jnp.where(state.count == 0, value, state.first)
  move, square = state.x - pair.start, jnp.sum(slope**2)
  largest = jnp.minimum(_NEAR / jnp.maximum(pair.bend, _TINY), _LARGEST)
  eta = jnp.clip((value - jnp.sum(slope * move)) / jnp.maximum(square, _TINY), 0, largest)
  gradient, convexity = move + eta * slope, 1 - eta * pair.bend
  left = jnp.sum(gradient**2) / (2 * convexity)
  dual = jnp.sum(move**2) / 2 + eta * value - left
  better = dual > state.dual
  best = jnp.where(better, dual, state.dual)
  at_an_end = (value**2 <= _CLOSE * best * square) | ((eta >= largest) & (value > 0))
  beyond = value < -_BEYOND * first
  moved = state.x - _length(pair, eta, state, gradient) * gradient
  pick = lambda condition, a, b: jnp.where(condition, a, b)
  return _State(
    x=pick(beyond, (state.x + state.last) / 2, moved),
    last=pick(beyond, state.last, state.x),
    gradient=pick(beyond, state.gradient, gradient),
    first=first,
    count=state.count + 1,
    done=(first <= 0) | ((left <= _CLOSE * best) & at_an_end),
    dual=best,
    eta=pick(better, eta, state.eta),
    found=pick(better, state.x, state.found),
  )


def _length(pair, eta, state, gradient):
  """Barzilai & Borwein's step, between one over the largest curvature of F and one over the least."""
  change, bends = state.x - state.last, gradient - state.gradient
  along = jnp.sum(change * bends)
  length = jnp.where(along > 0, jnp.sum(change**2) / jnp.maximum(along, _TINY), 1.0)
  return jnp.clip(length, 1 / (1 + eta * pair.upward), 1 / (1 - eta * pair.bend))
