r"""How far the float64 logits of a Lipschitz network can be from those of exact arithmetic.

A priori, from weights and shapes alone. A stage (one layer) with input h has a local error of at most

  u k N G (||h|| + ||its biases||),       u = 2^-53,

where N counts the roundings of one output: the terms of its inner products (in any order) and one
for each elementwise operation, read off the stage's jaxpr. Every row of an operator of norm s has
norm <= s, so that N u bounds the error of one output relative to the part of h it reads, and
G = sqrt(outputs) that of all outputs. k is what errors inside the stage grow by before they leave
it: `_soc` and `_residual` derive it for the layers that are more than one linear map.

Behind a stage an error grows by the constants of the later stages only, and so do activations. No
layer states a constant below 1; with Lambda the product of all stages behind the normalisation,

  |error of a logit|  <=  u Lambda^2 (r + sum_i ||biases_i||) sum_i k_i N_i G_i,

r the largest norm of a normalised image. SOC's filters of one tap, and circular ones, become matrices
that Horner's rule makes of the skew one; what that rounds raises the constant (`_horner`). Errors of later stages act on inputs that are themselves
off by less than 1%: `_ROOM`, which also makes N u / (1 - N u) of N u.

What is taken on trust: additions, products, quotients and roots are rounded as IEEE 754 says, in
whatever order; other functions (sine, arc tangent) and each level of a fast Fourier transform are
off by at most `_FUNCTION` and `_LEVEL` units.
"""

import math
from typing import NamedTuple

import jax
import numpy as np

from certjax import layers

_ROOM = 1.02
_FUNCTION, _LEVEL = 8, 32
_INSIDE = 4.0  # k of a stage of one linear map: complex products, half spectra, a bias, a branch.
_SERIES_TERMS = 12  # The largest default degree of SOC.
_COARSER = 2.0**29  # Units of float64 in one of float32.
_GRAM_STEPS = 8  # Norm bounds within 2%: they only scale this bound.

_EXACT = frozenset(
  'abs and argmax argmin broadcast_in_dim ceil clamp concatenate conj convert_element_type copy '
  'copy_p device_put dynamic_slice dynamic_update_slice eq expand_dims floor gather ge gt imag iota '
  'is_finite le lt max min ne neg not optimization_barrier or pad real reduce_and reduce_max reduce_min '
  'reduce_or reshape rev round scatter select_n sign slice sort split squeeze '
  'stop_gradient top_k transpose complex'.split()
)
"""Primitives that round nothing (between numbers of one width: the width is looked at by itself)."""
_ONCE = frozenset('add add_any sub mul div sqrt square integer_pow'.split())


class Rounding(NamedTuple):
  """What floating point costs a Lipschitz network.

  Attributes:
    logits: bound of the error of each logit.
    constant: by how much of itself the constant of the operators may exceed the stated one.
  """

  logits: float
  constant: float


def rounding_bounds(module, variables, operator, shape, lipschitz) -> Rounding:
  """The bounds of the module's docstring.

  Args:
    module: a network that states its constant: one of certjax's chains of layers, an
      `nn.Sequential` of layers, or another module, which counts as one stage: no map inside it may
      expand distances by more than max(1, L).
    variables: float64 numpy arrays.
    operator: `x -> logits`, what is evaluated.
    shape: (H, W, C) of an image in [0, 1].
    lipschitz: L of the logits.

  Returns:
    A `Rounding`. Call it where float64 is enabled (`parallel.x64`).

  Raises:
    ValueError: if the evaluation has a loop of unknown length, or the network is too large for the
      bound to mean anything.

  Example:
    >>> from certjax import models, parallel
    >>> module = models.MLP(2, hidden=())
    >>> with parallel.x64():
    ...   variables = {'params': {'dense0': {'kernel': np.eye(2), 'bias': np.zeros(2)}}}
    ...   bound = rounding_bounds(module, variables, lambda x: module.apply(variables, x), (1, 2, 1), 1.0)
    >>> 0 < bound.logits < 1e-12
    True
  """
  mean, std = (
    np.asarray(getattr(module, name, value)) for name, value in (('mean', 0), ('std', 1))
  )
  x = jax.ShapeDtypeStruct((1, *shape), np.float64)
  stages = _stages(module, variables, operator)
  if stages is None:
    stages, mean, std = [(module, variables, operator)], np.zeros(1), np.ones(1)
  elif hasattr(module, 'frame'):
    x = jax.eval_shape(module.frame, x)
  largest = np.max(np.maximum(np.abs(mean), np.abs(1 - mean)) / std) * math.sqrt(math.prod(shape))
  growth = max(1.0, lipschitz * float(np.min(std)) * _ROOM)
  total, excess = 4.0, 0.0  # Normalisation: a difference and a quotient.
  reach, unit = float(largest), 0.0
  for layer, own, step in stages:
    traced = jax.make_jaxpr(step)(x)
    x = jax.eval_shape(step, x)
    factor, offset = _stage(layer, own, step, _Count().of(traced.jaxpr, x))
    total, reach, unit = total + factor, reach + offset, max(unit, _unit(traced.jaxpr))
    excess += _horner(layer, own)
  relative = _ROOM * unit * growth * total
  if not max(relative, excess * unit) < 0.01:
    raise ValueError(
      f'the rounding of this network cannot be bounded well enough ({relative:.1e} of its largest '
      f'activation): evaluate it in float64 throughout, or certify it under noise.'
    )
  return Rounding(float(relative * growth * reach), float(_ROOM * unit * excess))


def is_sequential(module) -> bool:
  """Whether it is an `nn.Sequential`: `layers.lipschitz_upper` takes one, without a method of its own.

  Example:
    >>> is_sequential(layers.MaxMin())
    False
  """
  bases = ((base.__module__.split('.')[0], base.__name__) for base in type(module).__mro__)
  return ('flax', 'Sequential') in bases


def _stages(module, variables, operator):
  """[(layer, its variables, its operator)], or None for a module that is no chain of layers."""
  if hasattr(module, 'known'):  # models.Chain
    named, made = module.known(variables), operator.args[0]
  elif is_sequential(module):
    named = [(f'layers_{index}', layer) for index, layer in enumerate(module.layers)]
    made = operator.args[0] if len(named) > 1 else (operator,)
  else:
    return None
  pairs = zip(named, made, strict=True)
  return [(layer, layers.subtree(variables, name), step) for (name, layer), step in pairs]


def _stage(layer, variables, step, count):
  """(k N G, norm of what the stage adds to its input at most)."""
  spread = math.sqrt(count.entries)
  if isinstance(layer, (layers.Householder, layers.LipPool)):
    return _INSIDE * count.roundings * spread, 0.0  # Its vectors are angles.
  vectors = [np.asarray(leaf) for leaf in jax.tree.leaves(step) if np.ndim(leaf) == 1]
  offset = math.sqrt(count.pixels) * float(sum(np.linalg.norm(vector) for vector in vectors))
  if isinstance(layer, layers.SOC):
    return _soc(layer, variables, count), offset
  if isinstance(layer, (layers.SLL, layers.CPL)):
    factor, inside = _residual(layer, variables)
    return factor * count.roundings * spread, inside * offset
  return _INSIDE * count.roundings * spread, offset


def _soc(layer, variables, count):
  r"""k N G of sum_k c_k y_k with y_{k+1} = 2 A y_k + y_{k-1}.

  With rho >= max(1, ||A||), w = rho + sqrt(rho^2 - 1) and s the scale of the series: y_k is a
  Chebyshev polynomial of a normal map, ||y_k|| <= w^k ||x||. An error at step j comes to y_k times
  U_{k-j}, of norm (k - j + 1) w^{k-j}, and sum_k |c_k| w^k <= exp(s w), because x^i is a mean of
  the T_k with weights of sum 1. The sum over j < k of the k-th term is at most

    sum_k |c_k| k (k + 1) / 2 w^k  <=  ((s w)^2 / 2 + s w) exp(s w).
  """
  if _is_matrix(layer):
    return _INSIDE * count.roundings * math.sqrt(count.entries)
  size, _, channels, _ = variables['params']['kernel'].shape
  rho = _relative_norm(variables)
  argument = layer.bound * (rho + math.sqrt(rho * rho - 1))
  inside = (2 + 2 * rho * (argument * argument / 2 + argument)) * math.exp(min(argument, 700.0))
  spread = size * math.sqrt(channels)  # A pixel is read by size^2 pixels of `channels` outputs.
  return inside * (size * size * channels + 8) * spread


def _horner(layer, variables):
  """Norm of the error of SOC's p(A s) by Horner's rule in matrices, in units; 0 for other layers.

  A product of n x n matrices is off by n u ||A||_F ||B||_F <= n^2 u ||A|| ||B||, once a degree, and
  the errors of all degrees together grow by no more than exp(||A|| s). Its constant is at least 1.
  Circular ones are then kept in complex64, sqrt(n) roundings of which the norm may feel.
  """
  if not isinstance(layer, layers.SOC) or not _is_matrix(layer):
    return 0.0
  channels = variables['params']['kernel'].shape[2]
  norm = layer.bound * _relative_norm(variables)
  degree = max(layer.eval_degree or 0, _SERIES_TERMS)
  horner = degree * channels * (channels + 8) * (1 + norm) * math.exp(min(norm, 700.0))
  return horner if layer.kernel_size == 1 else _INSIDE * horner + _COARSER * math.sqrt(channels)


def _is_matrix(layer):
  return layer.kernel_size == 1 or layer.padding == 'circular'


def _relative_norm(variables):
  """rho: the norm of the normalised skew filter over the scale of its series, at least 1."""
  skew = layers.skew_filter(np.asarray(variables['params']['kernel'], np.float64))
  norm = max(np.asarray(variables[layers.SPECTRAL]['norm']).item(), 1e-12)  # As SOC clips it.
  return max(1.0, layers.norm_upper(skew, steps=_GRAM_STEPS) / norm)


def _residual(layer, variables):
  """(k, factor of the biases) of x - 2 W^T D relu(W x + b).

  The error of W x leaves through 2 ||W|| max D, that of W^T is relative to the norm of what it sees.
  """
  kernel = np.asarray(variables['params']['kernel'], np.float64)
  norm = max(layers.norm_upper(kernel, steps=_GRAM_STEPS), 1e-12)
  params = jax.tree.map(jax.numpy.asarray, variables['params'])
  weight = float(np.max(layer.diagonal(params)))
  return 4 + 4 * norm * norm * weight, 1 + 2 * norm * weight + 1 / norm


class _Count:
  """Roundings on the longest way through a jaxpr; entries and pixels of its largest image."""

  def __init__(self):
    self.roundings, self.entries, self.pixels = 0.0, 1, 1

  def of(self, jaxpr, result):
    """Counts a whole stage with this result."""
    self.entries = max(math.prod(v.aval.shape) for v in jaxpr.invars)
    self._see(result.shape)
    self._add(jaxpr, 1)
    return self

  def _add(self, jaxpr, times):
    for eqn in jaxpr.eqns:
      name, inner = eqn.primitive.name, list(_inner(eqn))
      if name == 'while':
        raise ValueError(
          'a loop of unknown length (`while`) leaves the number of roundings open: use '
          '`lax.fori_loop` with static bounds or `lax.scan`.'
        )
      if name == 'reduce_precision':
        raise ValueError('`reduce_precision` rounds more than its type says: leave it out.')
      for sub in inner:
        self._add(sub, times * eqn.params.get('length', 1))
      if not inner and any(_is_inexact(v.aval) for v in eqn.outvars):
        self.roundings += times * _roundings(eqn)
        if name in ('conv_general_dilated', 'dot_general', 'fft'):
          self._see(eqn.outvars[0].aval.shape)

  def _see(self, shape):
    self.entries = max(self.entries, math.prod(shape))
    self.pixels = max(self.pixels, math.prod(shape[:-1]))


def _roundings(eqn):
  """Of one output of a primitive, in units."""
  name, shapes = eqn.primitive.name, [v.aval.shape for v in eqn.invars]
  if name in _EXACT:
    return 0
  if name in _ONCE:
    return 1
  out = eqn.outvars[0].aval
  each = 4 if np.issubdtype(out.dtype, np.complexfloating) else 1
  if name == 'conv_general_dilated':
    outputs = shapes[1][eqn.params['dimension_numbers'].rhs_spec[0]]
    return each * math.prod(shapes[1]) // outputs
  if name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    return each * math.prod(shapes[0][axis] for axis in contracted)
  if name == 'fft':
    return _LEVEL * (1 + math.log2(math.prod(eqn.params['fft_lengths'])))
  if name.startswith(('reduce_', 'cum', 'scatter')):
    return max(math.prod(shapes[0]) // max(math.prod(out.shape), 1), max(shapes[0], default=1))
  return _FUNCTION


def _inner(eqn):
  """The jaxprs that a primitive calls."""
  for value in eqn.params.values():
    for each in value if isinstance(value, (list, tuple)) else (value,):
      each = getattr(each, 'jaxpr', each)
      if hasattr(each, 'eqns'):
        yield each


def _unit(jaxpr):
  """The coarsest unit roundoff among the results of a jaxpr's equations."""
  units = [float(np.finfo(np.float64).eps) / 2]
  for eqn in jaxpr.eqns:
    units += [_unit(sub) for sub in _inner(eqn)]
    units += [
      float(jax.numpy.finfo(v.aval.dtype).eps) / 2 for v in eqn.outvars if _is_inexact(v.aval)
    ]
  return max(units)


def _is_inexact(aval):
  return hasattr(aval, 'dtype') and jax.numpy.issubdtype(aval.dtype, np.inexact)
