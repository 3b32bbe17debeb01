"""Primitives that are affine in what depends on the input, and how far they spread its reach.

  apply(*x)   the primitive with its constant operands in place
  spread(*r)  the same with the absolute values of its coefficients and no constant term:
              |L x| <= spread(|x|)

Each rule returns both as functions to a tuple (some primitives have several results), or None where
the operands make it no affine function.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from certjax.layers import conv_general_dilated

POINTWISE = 'pointwise'


class Convolution(NamedTuple):
  """Of NHWC images by HWIO filters, neither dilated nor grouped.

  Attributes:
    kernel: the filter.
    strides: (vertical, horizontal).
    padding: ((top, bottom), (left, right)).
  """

  kernel: object
  strides: tuple
  padding: tuple


class Piece(NamedTuple):
  """An affine step: `apply`, `spread`, how many summands one output has at most, whether `apply` takes
  any number of rows, and where an output's inputs lie: `POINTWISE` (at its own place), a
  `Convolution`, or None (anywhere)."""

  apply: Callable
  spread: Callable
  terms: int
  rowwise: bool = False
  local: object = None


def _filled(values, depends, replace):
  """A function of the dependent operands to all of them; constants pass through `replace`."""
  constants: list[Any] = [None if d else replace(v) for v, d in zip(values, depends, strict=True)]

  def fill(*inputs):
    inputs = iter(inputs)
    return [next(inputs) if d else c for c, d in zip(constants, depends, strict=True)]

  return fill


def _bound(equation):
  """The primitive as a function to a tuple; a convolution takes our own gradient."""
  primitive, params = equation.primitive, equation.params
  if primitive.name == 'conv_general_dilated':
    names = ('window_strides', 'padding', 'lhs_dilation', 'rhs_dilation', 'dimension_numbers',
             'feature_group_count', 'batch_group_count', 'precision', 'preferred_element_type')  # fmt: skip
    chosen = {name: params[name] for name in names}
    return lambda x, w: (conv_general_dilated(x, w, **chosen),)
  if primitive.multiple_results:
    return lambda *values: tuple(primitive.bind(*values, **params))
  return lambda *values: (primitive.bind(*values, **params),)


def _same(terms=lambda equation: 1):
  """Coefficients 0 and 1: what is constant vanishes in the spread."""

  def rule(equation, values, depends):
    bind = _bound(equation)
    fill, none = _filled(values, depends, lambda v: v), _filled(values, depends, jnp.zeros_like)
    local = _local(equation, values, depends)
    return Piece(
      lambda *x: bind(*fill(*x)), lambda *r: bind(*none(*r)), terms(equation), False, local
    )

  return rule


def _first_only(equation, values, depends):
  """As `_same`, where the further operands are positions and not values."""
  if any(depends[1:]):
    return None
  bind, rest = _bound(equation), values[1:]
  apply = lambda x: bind(x, *rest)
  return Piece(apply, apply, 1)


def _sub(equation, values, depends):
  bind = _bound(equation)
  fill = _filled(values, depends, lambda v: v)
  none = _filled(values, depends, jnp.zeros_like)

  def spread(*r):
    a, b = none(*r)
    return (a + b,)

  return Piece(lambda *x: bind(*fill(*x)), spread, 2, False, _local(equation, values, depends))


def _neg(equation, values, depends):
  return Piece(lambda x: (-x,), lambda r: (r,), 1, False, POINTWISE)


def _by_constant(equation, values, depends):
  """mul, div, convolution, dot: bilinear, with one operand constant."""
  if all(depends) or (equation.primitive.name == 'div' and depends[1]):
    return None
  bind = _bound(equation)
  fill = _filled(values, depends, lambda v: v)
  positive = _filled(values, depends, jnp.abs)
  terms = _terms(equation, values, depends)
  rowwise, local = _is_rowwise(equation, depends), _local(equation, values, depends)
  return Piece(lambda *x: bind(*fill(*x)), lambda *r: bind(*positive(*r)), terms, rowwise, local)


def _local(equation, values, depends):
  """Where the inputs of an output lie, as `Piece` says."""
  name, params = equation.primitive.name, equation.params
  if name == 'conv_general_dilated' and not depends[1]:
    plain = (
      params['feature_group_count'] == params['batch_group_count'] == 1
      and {*params['lhs_dilation'], *params['rhs_dilation']} == {1}
      and tuple(params['dimension_numbers']) == _NHWC
    )
    return Convolution(values[1], params['window_strides'], params['padding']) if plain else None
  if name not in _POINTWISE or sum(depends) != 1:
    return None
  shape = equation.invars[depends.index(True)].aval.shape
  return POINTWISE if equation.outvars[0].aval.shape == shape else None


def _is_rowwise(equation, depends):
  """Whether it is a convolution of an image, which takes a batch of them as well."""
  if equation.primitive.name != 'conv_general_dilated' or depends[1]:
    return False
  numbers = equation.params['dimension_numbers']
  first = numbers.lhs_spec[0] == numbers.out_spec[0] == 0
  return first and equation.params['batch_group_count'] == 1


def _terms(equation, values, depends):
  """Products that one output sums up, at most."""
  name, params = equation.primitive.name, equation.params
  if name == 'conv_general_dilated':
    kernel = values[1]
    if not hasattr(kernel, 'shape'):
      return math.prod(equation.invars[1].aval.shape)
    outputs = kernel.shape[params['dimension_numbers'].rhs_spec[0]]
    return math.prod(kernel.shape) // outputs
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    return math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
  return 1


def _select(equation, values, depends):
  """Between cases by a constant condition, which stays in the spread."""
  if depends[0]:
    return None
  bind, condition = _bound(equation), values[0]
  fill = _filled(values, depends, lambda v: v)
  none = _filled(values, depends, jnp.zeros_like)
  return Piece(lambda *x: bind(*fill(*x)), lambda *r: bind(condition, *none(*r)[1:]), 1)


def _reduced(equation):
  shapes = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
  return math.prod(shapes[0]) // max(math.prod(shapes[1]), 1)


def _windowed(equation):
  return math.prod(equation.params['window_dimensions'])


_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
_POINTWISE = ('add', 'sub', 'mul', 'div', 'copy', 'copy_p', 'convert_element_type', 'stop_gradient')
_STRUCTURAL = (
  'reshape', 'squeeze', 'expand_dims', 'broadcast_in_dim', 'transpose', 'rev', 'slice', 'concatenate',
  'pad', 'copy', 'copy_p', 'convert_element_type', 'stack', 'split', 'stop_gradient',
  'optimization_barrier', 'device_put', 'sharding_constraint', 'real',
)  # fmt: skip
RULES = {
  **{name: _same() for name in _STRUCTURAL},
  'add': _same(lambda equation: 2),
  'add_any': _same(lambda equation: 2),
  'reduce_sum': _same(_reduced),
  'reduce_window_sum': _same(_windowed),
  'cumsum': _same(lambda equation: equation.invars[0].aval.shape[equation.params['axis']]),
  'select_n': _select,
  'gather': _first_only,
  'dynamic_slice': _first_only,
  'sub': _sub,
  'neg': _neg,
  'mul': _by_constant,
  'div': _by_constant,
  'dot_general': _by_constant,
  'conv_general_dilated': _by_constant,
}
"""Primitive name -> rule(equation, values, depends) -> `Piece` or None."""
