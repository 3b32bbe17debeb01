r"""Lines below and above the maximum of a window, over a box of its values.

  x_j <= max_i x_i <= s x_k + t      for all x_i in [l_i, u_i]

with j of the largest l_j (the maximum is at least each of them), and k of the largest u_k. Beside x_k
stands the second largest upper bound v = max_{i != k} u_i: the maximum is x_k itself where l_k >= v, and at most
max(x_k, v) else, which is convex in x_k, so it lies below the chord from (l_k, v) to (u_k, u_k). Over
the box, neither line leaves what the box of the maximum allows.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

_ULPS = 8  # Of the chord: three roundings of the slope, two of the offset.


class Selection(NamedTuple):
  """Weights of the values of every window, [W, ...], and offsets, of the maximum's shape."""

  lower_weight: jax.Array
  lower_offset: jax.Array
  upper_weight: jax.Array
  upper_offset: jax.Array


def window_values(equation):
  """The values under every window of a `reduce_max` or a `reduce_window_max`.

  Args:
    equation: of a jaxpr.

  Returns:
    (x, fill) -> [W, ...], linear in x and `fill`; `fill` stands where a window reaches beyond x.
  """
  params = equation.params
  if equation.primitive.name == 'reduce_max':
    return lambda x, fill: _of_axes(x, params['axes'])
  return lambda x, fill: _of_windows(x, fill, equation.outvars[0].aval.shape, params)


def _of_axes(x, axes):
  front = jnp.moveaxis(x, axes, range(len(axes)))
  return front.reshape(math.prod(front.shape[: len(axes)]), *front.shape[len(axes) :])


def _of_windows(x, fill, shape, params):
  """Every value's place in the window is one strided slice."""
  edges = zip(params['padding'], params['base_dilation'], strict=True)
  x = jax.lax.pad(x, jnp.asarray(fill, x.dtype), [(*edge, apart - 1) for edge, apart in edges])
  strides, apart = params['window_strides'], params['window_dilation']
  slices = []
  for place in itertools.product(*map(range, params['window_dimensions'])):
    start = [i * d for i, d in zip(place, apart, strict=True)]
    stop = [i + (n - 1) * s + 1 for i, n, s in zip(start, shape, strides, strict=True)]
    slices.append(jax.lax.slice(x, start, stop, strides))
  return jnp.stack(slices)


def maximum_lines(node, box, *, outward=False) -> Selection:
  """The lines of a maximum.

  Args:
    node: a `Node` of kind 'maximum'.
    box: (lower, upper) of its argument.
    outward: whether to move a chord up by what rounding may have cost.

  Returns:
    `Selection`.
  """
  low, high = (node.windows(side, -jnp.inf) for side in box)
  lower_pick, upper_pick = _one_hot_of_largest(low), _one_hot_of_largest(high)
  left = jnp.max(jnp.where(upper_pick, low, -jnp.inf), axis=0)
  right = jnp.max(high, axis=0)
  second = jnp.max(jnp.where(upper_pick, -jnp.inf, high), axis=0)
  exact = left >= second
  width = jnp.where(exact, 1, right - left)
  slope = jnp.where(exact, 1, (right - jnp.where(exact, right, second)) / width)
  offset = jnp.where(exact, 0, right - slope * jnp.where(exact, 0, right))
  if outward:
    reach = jnp.maximum(jnp.abs(left), jnp.abs(right))
    slip = _ULPS * jnp.finfo(reach.dtype).eps * (1 + slope) * reach
    offset = offset + jnp.where(exact, 0, slip)
  # A window of padding alone has the value -inf, which the 0 that fills it does not bound.
  empty = jnp.max(low, axis=0) == -jnp.inf
  return Selection(
    lower_pick.astype(low.dtype), jnp.where(empty, -jnp.inf, jnp.zeros_like(slope)),
    upper_pick.astype(low.dtype) * slope[None], offset,
  )  # fmt: skip


def _one_hot_of_largest(values):
  """Which of [W, ...] is the first largest."""
  places = jnp.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
  return places == jnp.argmax(values, axis=0)[None]


def selected(node, zero, positive, negative, line):
  """Coefficients below a maximum: those of its windows' values, back in their places.

  Args:
    node: a `Node` of kind 'maximum'.
    zero: zeros of its argument's shape.
    positive, negative: float[S, ...], parts of the coefficients above it.
    line: a `Selection`.

  Returns:
    float[S, ...], of its argument's shape.
  """
  above = positive[:, None] * line.lower_weight[None] + negative[:, None] * line.upper_weight[None]
  _, pull = jax.vjp(lambda x: node.windows(x, 0), zero)
  (part,) = jax.vmap(pull)(above)
  return part
