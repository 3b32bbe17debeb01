"""How far the truncated exponential of a skew convolution is from an orthogonal map."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from certjax import layers
from certjax.report import Curves, Line
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, at_every_scale
from certjax.reproduce._published import published

_BOUND = 1.8
_TERMS = tuple(range(2, 14))
_SIZE, _CHANNELS, _KERNEL = 6, 2, 3
_GRID = 4001  # Angles at which the error of a series is looked at, ends included.
_FLOOR = 1e-16  # Below it a logarithmic axis shows rounding alone.


def run(request) -> Result:
  """The published bound, the worst error over all skew maps, and that of one random convolution."""
  shape = (_KERNEL, _KERNEL, _CHANNELS, _CHANNELS)
  jacobian = skew_jacobian(np.random.default_rng(request.seed).normal(size=shape), _SIZE)
  there = published('soc-bound', '12 terms')
  rows = (
    Row(
      'the bound |J|^k / k!, k = 12 terms', textbook(12), there.unit, f'|J| = {_BOUND}', ARITHMETIC,
      there, comparable=True,
    ),
    Row(
      'largest error over all skew J, 12 terms', worst_error('taylor', 11), there.unit,
      f'{_GRID} angles up to |J| = {_BOUND}', ARITHMETIC, there, comparable=True,
    ),
    Row(
      'error for one convolution, 12 terms', layer_error(jacobian, 'taylor', 11), there.unit,
      f'random 3 x 3 filter of {_CHANNELS} channels, zero padding, {_SIZE} x {_SIZE} pixels, '
      f'scaled to the proved norm {_BOUND}; its own norm {np.linalg.norm(jacobian, 2):.4f}',
      ARITHMETIC, there, seed=request.seed, comparable=True,
    ),
    Row(
      'largest error over all skew J, 9 terms of Chebyshev', worst_error('chebyshev', 8),
      there.unit, f'{_GRID} angles up to |J| = {_BOUND}', ARITHMETIC,
    ),
    Row(
      'proved Lipschitz constant less 1, 12 terms', layers.series_lipschitz('taylor', 11, _BOUND) - 1,
      'constant', f'exact maximum up to |J| = {_BOUND}, rounded up', ARITHMETIC,
    ),
  )  # fmt: skip
  return Result(rows, (_figure(jacobian),))


def textbook(terms) -> float:
  """|J|^k / k! at the bound.

  Example:
    >>> round(textbook(12) * 1e6, 4)
    2.4151
  """
  return _BOUND**terms / math.factorial(terms)


def worst_error(series, degree) -> float:
  """max |p(i theta) - exp(i theta)| over |theta| <= 1.8: the spectral norm over all skew maps."""
  theta = np.linspace(0, _BOUND, _GRID)
  return float(np.abs(_polynomial(series, degree, 1j * theta) - np.exp(1j * theta)).max())


def layer_error(jacobian, series, degree) -> float:
  """|p(J) - exp(J)|_2 of one matrix, with exp from scipy."""
  power = np.eye(len(jacobian))
  total = np.zeros_like(jacobian)
  for coefficient in layers.polynomial(series, degree, _BOUND):
    total, power = total + float(coefficient) * power, power @ jacobian
  return float(np.linalg.norm(total - scipy.linalg.expm(jacobian), 2))


def skew_jacobian(kernel, size):
  """float64[n, n]: the matrix of a skew convolution with zero padding, scaled to the proved norm 1.8.

  Args:
    kernel: float64[k, k, C, C], whose skew part is taken.
    size: of the image, in pixels.
  """
  skew = np.asarray(layers.skew_filter(kernel), np.float64)
  skew = skew * (_BOUND / layers.norm_upper(skew))
  number = size * size * kernel.shape[-1]
  units = jnp.eye(number, dtype=jnp.float32).reshape(number, size, size, kernel.shape[-1])
  apply = lambda x: jax.lax.conv_general_dilated(
    x, jnp.asarray(skew, jnp.float32), (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision='highest',
  )  # fmt: skip
  matrix = np.asarray(jax.jit(apply)(units), np.float64).reshape(number, number).T
  return (matrix - matrix.T) / 2  # Skew up to float32: now in float64.


def _polynomial(series, degree, x):
  return np.polyval([float(a) for a in layers.polynomial(series, degree, _BOUND)][::-1], x)


def _figure(jacobian):
  """Against the number of terms; a convolution each beyond the first."""
  terms = np.array(_TERMS)
  worst = lambda series: [max(worst_error(series, k - 1), _FLOOR) for k in _TERMS]
  lines = (
    Line('bound |J|^k / k!', terms, [textbook(k) for k in _TERMS]),
    Line('Taylor, worst skew J', terms, worst('taylor'), '--'),
    Line('Taylor, one convolution', terms, [layer_error(jacobian, 'taylor', k - 1) for k in _TERMS], 'o-'),
    Line('Chebyshev, worst skew J', terms, worst('chebyshev'), '-.'),
  )  # fmt: skip
  return Curves(f'error of the series, |J| <= {_BOUND}', 'terms k', 'spectral norm', lines, log='y')


RECIPE = Recipe(
  name='soc-approximation-error',
  source='Singla & Feizi 2021',
  dataset=ARITHMETIC,
  shows='a dozen terms of the exponential make a skew convolution orthogonal to 2.4e-6',
  scales=at_every_scale('seconds'),
  run=run,
)
