"""A model as a list of steps between the values that depend on its input.

The model is traced to a jaxpr for one image. What does not depend on the image (weights,
normalised filters, a scan over a series' coefficients) is evaluated on the way; calls (jit,
custom derivatives, remat) are inlined and scans unrolled; the rest must be affine, or one of the
activations that bounds know. Anything else is an error that names it: there is no fallback.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.extend import core

from certjax.bounds import _affine
from certjax.bounds._maximum import window_values
from certjax.tracing import is_traced

ACTIVATIONS = ('relu', 'tanh', 'logistic', 'softplus')
_CALLS = {
  'jit': 'jaxpr', 'pjit': 'jaxpr', 'closed_call': 'call_jaxpr', 'core_call': 'call_jaxpr',
  'custom_jvp_call': 'call_jaxpr', 'custom_vjp_call': 'call_jaxpr', 'remat2': 'jaxpr',
  'checkpoint': 'jaxpr', 'custom_vjp_call_jaxpr': 'fun_jaxpr',
}  # fmt: skip


class Node(NamedTuple):
  """One step.

  Attributes:
    kind: 'input', 'affine', one of `ACTIVATIONS`, or 'maximum' (of a window or an axis).
    inputs: numbers of the nodes it reads.
    apply: their values -> its value.
    spread: of an affine node, |L|: reach of its inputs -> its reach.
    terms: summands of one output, at most: for bounds of the rounding error.
    between: (a, b) where its value lies between the pointwise max of nodes a and b and itself:
      max(a, b), which as b + relu(a - b) would get a wider interval; ('min', a, b) likewise.
    shape: of its value.
    rowwise: whether `apply` takes any number of rows in place of the one.
    local: of an affine node, where an output's inputs lie (`_affine.Piece`).
    windows: of a maximum, (x, fill) -> the values of every window, [W, ...].
  """

  kind: str
  inputs: tuple
  apply: Callable | None
  spread: Callable | None
  terms: int
  between: tuple | None
  shape: tuple
  rowwise: bool = False
  local: object = None
  windows: Callable | None = None


class Network(NamedTuple):
  """Nodes in order, each after its inputs; node 0 is the image.

  Attributes:
    nodes: list of `Node`.
    output: number of the node of the logits; None where they do not depend on the input.
    constant: the logits in that case.
  """

  nodes: list
  output: int | None
  constant: object


class _Ref(NamedTuple):
  """Stands for a value that depends on the input: the number of its node."""

  node: int


def trace(model_fn, image) -> Network:
  """The steps of a model on one image.

  Args:
    model_fn: `x[1, ...] -> logits[1, K]`.
    image: float[...], for shape and dtype.

  Returns:
    A `Network`; its values keep the batch axis of length 1.

  Raises:
    ValueError: for a primitive that has no bound, with its name and where it stands.
  """
  with jax.default_matmul_precision('highest'):
    closed = jax.make_jaxpr(model_fn)(image[None])
  walk = _Walk()
  start = walk.add('input', (), None, image[None].shape)
  (out,) = walk.run(closed.jaxpr, closed.consts, [start], '')
  if isinstance(out, _Ref):
    return Network(walk.nodes, out.node, None)
  return Network(walk.nodes, None, out)


class _Walk:
  """Collects nodes while it interprets a jaxpr; values are `_Ref` or arrays."""

  def __init__(self):
    self.nodes = []

  def add(
    self, kind, inputs, apply, shape, *, spread=None, terms=1, between=None, rowwise=False,
    local=None, windows=None,
  ) -> _Ref:  # fmt: skip
    inputs = tuple(ref.node for ref in inputs)
    self.nodes.append(
      Node(kind, inputs, apply, spread, terms, between, tuple(shape), rowwise, local, windows)
    )
    return _Ref(len(self.nodes) - 1)

  def run(self, jaxpr, consts, arguments, path):
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    read = lambda var: var.val if isinstance(var, core.Literal) else values[var]
    for equation in jaxpr.eqns:
      read_in = [read(var) for var in equation.invars]
      if any(isinstance(value, _Ref) for value in read_in):
        outs = self.equation(equation, read_in, path)
      else:
        outs = _evaluate(jaxpr, equation, read_in)
      values.update(zip(equation.outvars, outs, strict=True))
    return [read(var) for var in jaxpr.outvars]

  def equation(self, equation, values, path):
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
      inner = params[_CALLS[name]]
      called = _called(name, inner, params)
      if called == 'logaddexp' and not isinstance(values[1], _Ref) and _is_zero(values[1]):
        return [self.add('softplus', values[:1], jax.nn.softplus, equation.outvars[0].aval.shape)]
      return self.run(*_open(inner), values, f'{path}/{called}')
    if name == 'scan':
      return self.scan(equation, values, path)
    if name in _SPECIAL:
      return [_SPECIAL[name](self, equation, values)]
    rule = _affine.RULES.get(name)
    piece = rule(equation, values, [isinstance(v, _Ref) for v in values]) if rule else None
    if piece is None:
      what = f' of two values that depend on it ({name})' if name in ('mul', 'dot_general') else ''
      raise ValueError(
        f'no bound is known for the primitive {name!r}{what} of the input, in {path or "the model"}'
        f': bounds read {", ".join(sorted({*_affine.RULES, *_SPECIAL}))}.'
      )
    inputs = [value for value in values if isinstance(value, _Ref)]
    return [
      self.add('affine', inputs, _part(piece.apply, i), var.aval.shape,
               spread=_part(piece.spread, i), terms=piece.terms, rowwise=piece.rowwise, local=piece.local)
      for i, var in enumerate(equation.outvars)
    ]  # fmt: skip

  def scan(self, equation, values, path):
    """Unrolled; `length` is static."""
    params = equation.params
    num_consts, num_carry, length = params['num_consts'], params['num_carry'], params['length']
    consts, carry = values[:num_consts], values[num_consts : num_consts + num_carry]
    columns, rows = values[num_consts + num_carry :], []
    for step in range(length)[:: -1 if params['reverse'] else 1]:
      here = [self.item(column, step) for column in columns]
      outs = self.run(*_open(params['jaxpr']), [*consts, *carry, *here], f'{path}/scan')
      carry = outs[:num_carry]
      rows.append(outs[num_carry:])
    if any(isinstance(value, _Ref) for row in rows for value in row):
      raise ValueError(
        f'{path}/scan stacks values that depend on the input: return the carry alone.'
      )
    rows = rows[::-1] if params['reverse'] else rows
    if not rows:  # A loop of no steps.
      shapes = [var.aval for var in equation.outvars[num_carry:]]
      return [*carry, *(jax.numpy.zeros(aval.shape, aval.dtype) for aval in shapes)]
    return [*carry, *(jax.numpy.stack(column) for column in zip(*rows, strict=True))]

  def item(self, column, step):
    if isinstance(column, _Ref):
      take = lambda x: x[step]
      return self.affine([column], take, take)
    return column[step]

  def affine(self, inputs, apply, spread, between=None):
    shapes = [jax.ShapeDtypeStruct(self.nodes[ref.node].shape, float) for ref in inputs]
    shape = jax.eval_shape(spread, *shapes).shape
    return self.add('affine', inputs, apply, shape, spread=spread, terms=2, between=between)

  def difference(self, a, b):
    """a - b, where one of them may be a constant."""
    if isinstance(a, _Ref) and isinstance(b, _Ref):
      return self.affine([a, b], lambda a, b: a - b, lambda a, b: a + b)
    if isinstance(a, _Ref):
      return self.affine([a], lambda a: a - b, lambda a: a + 0 * b)
    return self.affine([b], lambda b: a - b, lambda b: b + 0 * a)

  def relu(self, x):
    return self.add('relu', [x], jax.nn.relu, self.nodes[x.node].shape)

  def maximum(self, equation, values):
    """max(a, b) = b + relu(a - b)."""
    a, b = values
    if not isinstance(b, _Ref) and _is_zero(b):
      return self.relu(a)
    if not isinstance(a, _Ref) and _is_zero(a):
      return self.relu(b)
    a, b = (a, b) if isinstance(a, _Ref) else (b, a)
    if not isinstance(b, _Ref) and _is_lowest(b):
      return a
    above = self.relu(self.difference(a, b))
    if not isinstance(b, _Ref):
      return self.affine([above], lambda r: r + b, lambda r: r)
    plus = lambda b, r: b + r
    return self.affine([b, above], plus, plus, between=('max', a.node, b.node))

  def minimum(self, equation, values):
    """min(a, b) = a - relu(a - b)."""
    a, b = values if isinstance(values[0], _Ref) else values[::-1]
    above = self.relu(self.difference(a, b))
    between = ('min', a.node, b.node) if isinstance(b, _Ref) else None
    return self.affine([a, above], lambda a, r: a - r, lambda a, r: a + r, between)

  def clamp(self, equation, values):
    low, x, high = values
    if isinstance(low, _Ref) or isinstance(high, _Ref):
      raise ValueError('no bound is known for clamp between values that depend on the input.')
    return self.minimum(None, [self.maximum(None, [x, low]), high])

  def absolute(self, equation, values):
    """|x| = 2 relu(x) - x."""
    (x,) = values
    double = lambda x, r: 2 * r - x
    return self.affine([x, self.relu(x)], double, lambda x, r: 2 * r + x)

  def activation(self, equation, values):
    name, params = equation.primitive.name, equation.params
    apply = lambda x: equation.primitive.bind(x, **params)
    return self.add(name, values, apply, equation.outvars[0].aval.shape)

  def reduction(self, equation, values):
    apply = lambda x: equation.primitive.bind(x, **equation.params)
    shape, windows = equation.outvars[0].aval.shape, window_values(equation)
    return self.add('maximum', values, apply, shape, windows=windows)


_SPECIAL = {
  'max': _Walk.maximum, 'min': _Walk.minimum, 'clamp': _Walk.clamp, 'abs': _Walk.absolute,
  'tanh': _Walk.activation, 'logistic': _Walk.activation,
  'reduce_max': _Walk.reduction, 'reduce_window_max': _Walk.reduction,
}  # fmt: skip


def _evaluate(jaxpr, equation, values):
  """An equation without anything that depends on the input, with its own derivative rules."""
  given = {v: x for v, x in zip(equation.invars, values, strict=True) if isinstance(v, core.Var)}
  alone = jaxpr.replace(
    constvars=[],
    invars=list(given),
    outvars=equation.outvars,
    eqns=[equation],
    debug_info=jaxpr.debug_info.with_unknown_names(),
  )
  return core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*given.values())


def _open(jaxpr):
  """(jaxpr, consts) of a closed or an open one."""
  return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, 'consts') else (jaxpr, [])


def _called(name, inner, params) -> str:
  """The name of a called function, for errors and for softplus."""
  if params.get('name'):
    return params['name']
  with contextlib.suppress(AttributeError):
    return _open(inner)[0].debug_info.func_src_info.split(' ')[0]
  return name


def _is_zero(value) -> bool:
  """Whether a constant is known to be zero; a traced one is not."""
  return not is_traced(value) and not np.any(np.asarray(value))


def _is_lowest(value) -> bool:
  """Whether a constant is known to be -inf, where a maximum starts."""
  return not is_traced(value) and bool(np.all(np.asarray(value) == -np.inf))


def _part(function, i):
  """The i-th result of a function of several, or the function itself."""
  return lambda *values: function(*values)[i]
