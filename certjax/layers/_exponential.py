"""The convolution exponential of a skew filter, with gradients that store a few images a layer.

p(L) x = sum_k c_k y_k with the terms of the three-term recurrence (A = L / bound)

  y_0 = x,   y_1 = A x,   y_{k+1} = 2 A y_k + y_{k-1},

one convolution a degree, for the Taylor and the Chebyshev polynomial alike. The recurrence runs
backwards as well as forwards, y_{k-1} = y_{k+1} - 2 A y_k, so the gradient keeps the last few terms
(`_KEPT`) and makes the others again: memory does not grow with the degree. The transpose of p(L) is p(-L), truncated or not.

# Deviation: SOC sums the powers of L in Horner's form; the polynomial is the same, but its terms
# cannot be undone, so that an exact gradient stores all of them or recomputes them.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from certjax.layers._images import PADDINGS, convolve
from certjax.layers._series import polynomial, recurrence_coefficients

GRADIENTS = ('exact', 'approx')
_UNROLL, _UNROLL_BACK = 2, 4
"""A loop that hands its terms one place on copies them; after two steps each is back in its place."""
_KEPT = 7
"""Terms that the forward pass keeps for the gradient: each spares one convolution of those that the
backward pass makes again. None is made again up to degree 8, Chebyshev's at evaluation accuracy."""


def skew_filter(kernel):
  """The skew part of a filter: J(L)^T = -J(L), with zero and with circular padding.

    L = (M - transpose(M)) / 2,   transpose(M)[a, b, i, o] = M[-a, -b, o, i]

  Args:
    kernel: float[k, k, C, C], k odd.

  Returns:
    float[k, k, C, C].

  Raises:
    ValueError: if a size is even (no centre to mirror about) or the channel numbers differ.

  Example:
    >>> skew_filter(jnp.arange(4.0).reshape(1, 1, 2, 2))[0, 0].tolist()
    [[0.0, -0.5], [0.5, 0.0]]

  References:
    Singla & Feizi 2021 (arXiv:2105.11417), Theorem 1.
  """
  height, width, inputs, outputs = kernel.shape
  if height % 2 == 0 or width % 2 == 0:
    raise ValueError(
      f'`kernel` must have odd sizes, since a skew filter mirrors about its centre, got '
      f'{height} x {width}; choose 1, 3 or 5.'
    )
  if inputs != outputs:
    raise ValueError(
      f'`kernel` must map C channels to C, got {inputs} to {outputs}: a skew map is square; pad '
      f'the images with zero channels, or drop channels of the result.'
    )
  return 0.5 * (kernel - kernel[::-1, ::-1].swapaxes(2, 3))  # Methods: numpy stays float64.


def conv_exponential(
  x, kernel, *, degree, series='taylor', bound=1.8, padding='zero', grad='exact'
):
  r"""The truncated exponential of a skew convolution.

    y = p(L) x ~ exp(L) x

  Orthogonal up to truncation: its singular values are |p(i theta)|, |theta| <= ||L||, and its
  Lipschitz constant is `series_lipschitz`. The gradient is exact for skew filters, whatever the
  degree; 'approx' takes one filter gradient instead of `degree`, as NeurIPS'22 does: the input's is
  exact still, the filter's is off by 2-10% at norm 1.8.

  Args:
    x: float[B, H, W, C].
    kernel: float[k, k, C, C], a `skew_filter` of norm at most `bound` (the Chebyshev series is
      accurate only up to there, and the recurrence loses digits beyond).
    degree: number of convolutions.
    series: 'taylor' or 'chebyshev', see `polynomial`.
    bound: the scale s.
    padding: 'zero' or 'circular'.
    grad: 'exact' or 'approx'.

  Returns:
    float[B, H, W, C].

  Raises:
    ValueError: for an unknown name, degree < 1, or a bound that is not positive.

  Example:
    >>> import jax
    >>> kernel = skew_filter(jax.random.normal(jax.random.key(0), (3, 3, 2, 2)) / 4)
    >>> x = jax.random.normal(jax.random.key(1), (1, 5, 5, 2))
    >>> y = conv_exponential(x, kernel, degree=12)
    >>> bool(jnp.allclose(jnp.linalg.norm(y.ravel()), jnp.linalg.norm(x.ravel()), rtol=1e-5))
    True

  References:
    Singla & Feizi 2021 (arXiv:2105.11417); Singla & Feizi 2022 (arXiv:2211.08453) for 'approx'.
  """
  power = polynomial(series, degree, bound)
  for name, value, known in (('padding', padding, PADDINGS), ('grad', grad, GRADIENTS)):
    if value not in known:
      raise ValueError(f'`{name}` must be one of {known}, got {name}={value!r}.')
  twice = kernel * (2 / bound)
  if grad == 'approx':
    coefficients = tuple(recurrence_coefficients(power[1:], bound).tolist())
    return _approximate((padding, float(power[0]), bound / 2, coefficients), twice, x)
  return _exact((padding, tuple(recurrence_coefficients(power, bound).tolist())), twice, x)


def _terms(padding, coefficients, twice, x, kept=0):
  """(sum_k c_k y_k, y_{m - kept - 1}, [y_{m - kept}, ..., y_{m - 1}]); `twice` is the filter of 2 A."""
  weights = jnp.asarray(coefficients, x.dtype)
  before, last = jnp.zeros_like(x), x
  total = weights[0] * x
  if len(coefficients) > 1:
    before, last = x, 0.5 * convolve(x, twice, padding)
    total = total + weights[1] * last

  def step(carry, weight, keep=False):
    before, last, total = carry
    following = convolve(last, twice, padding) + before
    return (last, following, total + weight * following), last if keep else None

  split = len(coefficients) - kept
  carry, _ = lax.scan(step, (before, last, total), weights[2:split], unroll=_UNROLL)
  (_, _, total), terms = lax.scan(
    functools.partial(step, keep=True), carry, weights[split:], unroll=_UNROLL
  )
  return total, carry[0], terms


def _filter_gradient(padding, twice, x, cotangent):
  return jax.vjp(lambda kernel: convolve(x, kernel, padding), twice)[1](cotangent)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _exact(options, twice, x):
  padding, coefficients = options
  return _terms(padding, coefficients, twice, x)[0]


def _exact_fwd(options, twice, x):
  padding, coefficients = options
  kept = min(_KEPT, len(coefficients) - 2)
  total, below, terms = _terms(padding, coefficients, twice, x, kept=kept)
  return total, (twice, below, terms)


def _exact_bwd(options, residuals, g):
  """Adjoint of the recurrence: l_k = c_k g + (2 A)^T l_{k+1} + l_{k+2}, against y_k backwards.

  The last y_k are kept; those below follow from y_{k-1} = y_{k+1} - 2 A y_k.
  """
  padding, coefficients = options
  twice, below, terms = residuals
  weights, kept = jnp.asarray(coefficients, g.dtype), len(terms)
  split = len(coefficients) - 1 - kept

  def adjoint(l1, l2, y, weight, gradient):
    gradient = gradient + _filter_gradient(padding, twice, y, l1)
    return weight * g - convolve(l1, twice, padding) + l2, l1, gradient

  def step(carry, at):  # l_{k+1}, l_{k+2}, and y_k from what was kept
    l1, l2, gradient = carry
    return adjoint(l1, l2, at[1], at[0], gradient), None

  def step_below(carry, weight):
    l1, l2, y, above, gradient = carry  # l_{k+1}, l_{k+2}, y_k, y_{k+1}
    l0, l1, gradient = adjoint(l1, l2, y, weight, gradient)
    return (l0, l1, above - convolve(y, twice, padding), y, gradient), None

  start = (weights[-1] * g, jnp.zeros_like(g), jnp.zeros_like(twice))
  (l1, l2, gradient), _ = lax.scan(
    step, start, (weights[split:-1], terms), reverse=True, unroll=_UNROLL_BACK
  )
  above = terms[0] if kept else jnp.zeros_like(g)
  (l1, l2, x, _, gradient), _ = lax.scan(
    step_below, (l1, l2, below, above, gradient), weights[1:split], reverse=True,
    unroll=_UNROLL_BACK,
  )  # fmt: skip
  half = 0.5 * l1  # y_1 = (2 A) x / 2
  gradient = gradient + _filter_gradient(padding, twice, x, half)
  return gradient, weights[0] * g - convolve(half, twice, padding) + l2


_exact.defvjp(_exact_fwd, _exact_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _approximate(options, twice, x):
  return _approximate_fwd(options, twice, x)[0]


def _approximate_fwd(options, twice, x):
  """p(L) x = a_0 x + L z, z = q(L) x with q(t) = (p(t) - a_0) / t."""
  padding, constant, scale, coefficients = options
  z = _terms(padding, coefficients, twice, x)[0]
  return constant * x + scale * convolve(z, twice, padding), (twice, z)


def _approximate_bwd(options, residuals, g):
  padding, constant, scale, coefficients = options
  twice, z = residuals
  h = _terms(padding, coefficients, -twice, g)[0]
  gradient = scale * _filter_gradient(padding, twice, z, h)
  return gradient, constant * g - scale * convolve(h, twice, padding)


_approximate.defvjp(_approximate_fwd, _approximate_bwd)
