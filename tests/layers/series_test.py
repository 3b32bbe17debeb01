"""Constants of truncated exponentials: published values, dense sampling, exact Taylor limits."""

import fractions
import math

import numpy as np
import pytest

from certjax import layers
from certjax.layers import _series

LIMITS = {  # Up to these norms Taylor's polynomial of that degree does not expand.
  3: 1.732051, 4: 2.828427, 7: 1.764421, 8: 3.395140, 11: 1.701188, 12: 3.379377, 15: 1.668737,
  16: 3.324813,
}  # fmt: skip


def _sampled(series, degree, bound, norm):
  """p(i theta) on a dense grid, in float64."""
  theta = np.linspace(0, norm, 4001)
  return theta, np.polyval(
    [float(a) for a in layers.polynomial(series, degree, bound)][::-1], 1j * theta
  )


@pytest.mark.parametrize('degree,limit', LIMITS.items())
def test_taylor_does_not_expand_up_to_its_limit(degree, limit):
  below, above = limit - 2e-6, limit + 2e-6
  assert layers.series_lipschitz('taylor', degree, below) == 1.0
  assert layers.series_lipschitz('taylor', degree, above) > 1.0


@pytest.mark.parametrize('degree', [1, 2, 5, 6, 9, 10, 13, 14])
def test_the_other_taylor_degrees_expand_at_once(degree):
  assert layers.series_lipschitz('taylor', degree, 0.1) > 1.0


@pytest.mark.parametrize(
  'series,degree,norm,excess',
  [
    ('taylor', 5, 1.8, 4.741e-3),
    ('taylor', 5, 2.1, 4.741e-3),
    ('taylor', 6, 1.8, 1.19e-2),
    ('taylor', 11, 1.8, 2.184e-7),
    ('taylor', 14, 3.0, 3.477e-6),
    ('chebyshev', 4, 1.8, 8.36e-3),
    ('chebyshev', 5, 1.8, 9.02e-4),
    ('chebyshev', 6, 1.8, 1.69e-4),
    ('chebyshev', 8, 1.8, 1.96e-6),
  ],
)
def test_published_constants(series, degree, norm, excess):
  value = layers.series_lipschitz(series, degree, norm)
  np.testing.assert_allclose(value - 1, excess, rtol=5e-3)


def test_published_products_over_41_layers():
  np.testing.assert_allclose(layers.series_lipschitz('taylor', 5, 1.8) ** 41, 1.2139937, rtol=1e-7)
  np.testing.assert_allclose(
    layers.series_lipschitz('taylor', 11, 1.8) ** 41, 1.00000895, atol=1e-8
  )
  np.testing.assert_allclose(layers.series_lipschitz('taylor', 14, 3.0) ** 41, 1.000143, atol=1e-6)


@pytest.mark.parametrize('series', ['taylor', 'chebyshev'])
@pytest.mark.parametrize('norm', [0.3, 1.8, 1.9, 3.7])
@pytest.mark.parametrize('degree', [1, 3, 5, 8, 12])
def test_the_constant_is_the_maximum_of_the_polynomial(series, degree, norm):
  _, values = _sampled(series, degree, 1.8, norm)
  value = layers.series_lipschitz(series, degree, 1.8, norm)
  sampled = np.abs(values).max()
  assert value >= sampled * (1 - 1e-14)
  assert value <= sampled + 1e-6 * max(1, sampled)  # The grid's own error is second order.


def test_the_constant_is_rounded_up_against_60_digits():
  mpmath = pytest.importorskip('mpmath')
  with mpmath.workdps(60):
    for degree, norm in ((6, 1.8), (11, 1.8), (14, 3.0)):  # Increasing up to the norm, at the end.
      theta = mpmath.mpf(norm)
      exact = abs(sum((1j * theta) ** i / mpmath.factorial(i) for i in range(degree + 1)))
      value = layers.series_lipschitz('taylor', degree, norm)
      assert exact <= value <= exact * (1 + mpmath.mpf(2) ** -51)


def test_bernstein_enclosure_of_a_polynomial_with_a_hidden_peak():
  # 1 - 1e6 (t - 1/3)^2 peaks between all dyadic points: sampling at the ends sees values below 0.
  third = fractions.Fraction(1, 3)
  coefficients = [1 - 10**6 * third**2, 2 * 10**6 * third, fractions.Fraction(-(10**6))]
  top = _series._maximum(coefficients, fractions.Fraction(1)) / (1 << _series._BITS)
  assert 1 <= top <= 1 + 1e-15


@pytest.mark.parametrize(
  'series,degree,bound,error',
  [
    ('chebyshev', 4, 1.8, 8.74e-3), ('taylor', 4, 1.8, 1.53e-1),
    ('chebyshev', 5, 1.8, 1.33e-3), ('taylor', 5, 1.8, 4.61e-2),
    ('chebyshev', 6, 1.8, 1.73e-4), ('taylor', 6, 1.8, 1.19e-2),
    ('chebyshev', 8, 1.8, 1.98e-6), ('taylor', 8, 1.8, 5.39e-4),
    ('chebyshev', 10, 1.8, 1.48e-8), ('taylor', 10, 1.8, 1.59e-5),
    ('chebyshev', 5, 2.1, 3.24e-3), ('taylor', 5, 2.1, 1.15e-1),
    ('chebyshev', 8, 3.0, 1.72e-4), ('taylor', 8, 3.0, 5.23e-2),
    ('chebyshev', 10, 3.0, 3.64e-6), ('taylor', 10, 3.0, 4.32e-3),
  ],
)  # fmt: skip
def test_published_truncation_errors(series, degree, bound, error):
  theta, values = _sampled(series, degree, bound, bound)
  np.testing.assert_allclose(np.abs(values - np.exp(1j * theta)).max(), error, rtol=5e-3)


def test_published_minima_of_taylor():
  minimum = lambda degree, norm: np.abs(_sampled('taylor', degree, norm, norm)[1]).min()
  for degree, norm, value in (
    (4, 1.8, 0.847895),
    (8, 1.8, 0.999461),
    (8, 3, 0.979022),
    (12, 3, 0.999913),
  ):
    np.testing.assert_allclose(minimum(degree, norm), value, atol=1e-6)


@pytest.mark.parametrize('degree,error', [(5, 1.3170e-3), (8, 1.962e-6)])
def test_chebyshev_of_a_random_skew_matrix(degree, error):
  a = np.random.default_rng(0).standard_normal((30, 30))
  skew = (a - a.T) * 1.8 / np.linalg.norm(a - a.T, 2)
  value = sum(
    float(c) * np.linalg.matrix_power(skew, i)
    for i, c in enumerate(layers.polynomial('chebyshev', degree, 1.8))
  )
  sizes, vectors = np.linalg.eig(skew)
  exact = (vectors * np.exp(sizes)) @ np.linalg.inv(vectors)
  np.testing.assert_allclose(np.linalg.norm(value - exact, 2), error, rtol=2e-4)
  singular = np.linalg.svd(value, compute_uv=False)
  assert singular.max() <= layers.series_lipschitz('chebyshev', degree, 1.8) * (1 + 1e-14)
  if degree == 5:
    np.testing.assert_allclose([singular.min(), singular.max()], [0.99868, 1.00090], atol=5e-6)


@pytest.mark.parametrize('series', ['taylor', 'chebyshev'])
def test_recurrence_coefficients_are_the_same_polynomial(series):
  power, matrix = layers.polynomial(series, 7, 1.8), np.array([[0.0, 1.3], [-1.3, 0.0]])
  weights = layers.recurrence_coefficients(power, 1.8)
  terms = [np.eye(2), matrix / 1.8]
  while len(terms) < len(weights):
    terms.append(2 * matrix / 1.8 @ terms[-1] + terms[-2])
  value = sum(w * t for w, t in zip(weights, terms, strict=True))
  direct = sum(float(a) * np.linalg.matrix_power(matrix, i) for i, a in enumerate(power))
  np.testing.assert_allclose(value, direct, atol=1e-15)


def test_an_unproved_norm_proves_nothing():
  assert layers.series_lipschitz('taylor', 5, 1.8, math.nan) == math.inf
  assert layers.series_lipschitz('taylor', 5, 1.8, math.inf) == math.inf


@pytest.mark.parametrize(
  'arguments,message',
  [
    (('pade', 5, 1.8), '`series` must be one of'),
    (('taylor', 0, 1.8), '`degree` counts the convolutions'),
    (('taylor', 5, 0.0), '`bound` is an upper bound'),
    (('chebyshev', 5, math.nan), '`bound` is an upper bound'),
    (('taylor', 5, 1.8, -1.0), '`norm` bounds a norm'),
  ],
)
def test_errors(arguments, message):
  with pytest.raises(ValueError, match=message):
    layers.series_lipschitz(*arguments)
