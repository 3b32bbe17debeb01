"""The Gaussian's L_p radii: published values, half-spaces that attain them, 50 digits."""

import mpmath
import numpy as np
import pytest
from scipy import special

from certjax import smoothing, testing
from certjax.smoothing import _gaussian

SHAPE = (32, 32, 3)
D = 3072


@pytest.mark.parametrize(
  'norm, expected',
  [('l2', 0.581586969), ('l3', 0.152537912), ('l4', 0.0781194836), ('linf', 0.010493106)],
)
def test_reference_radii(norm, expected):
  radius = smoothing.gaussian(sigma=0.25, norm=norm, shape=SHAPE).radius
  np.testing.assert_allclose(radius(0.99, 0.01), expected, rtol=1e-8)
  np.testing.assert_allclose(radius(0.99), expected, rtol=1e-8)


def test_reference_radius_of_imagenet():
  radius = smoothing.gaussian(sigma=0.25, norm='linf', shape=(224, 224, 3)).radius
  assert float(radius(0.99, 0.01)) == pytest.approx(0.00149901515, rel=1e-8)


@pytest.mark.parametrize('norm', ['l1', 'l2', 'l2.5', 'l3', 'linf'])
def test_a_half_space_attains_the_radius(norm):
  """Pr[w.(x + sigma z) + b > 0] = Phi((w.x + b) / (sigma |w|_2)) is 1/2 on the boundary, whose
  L_p distance is (w.x + b) / |w|_q: w along a coordinate for p <= 2, the diagonal for p >= 2."""
  sigma, shape = 0.5, (3, 4, 2)
  p = _gaussian.exponent(norm)
  q = 1.0 if p == np.inf else (np.inf if p == 1 else p / (p - 1))
  w = np.eye(24)[0] if p <= 2 else np.ones(24)
  for gap in (0.01, 0.3, 1.0):
    p_a = special.ndtr(gap / (sigma * np.linalg.norm(w)))
    exact = gap / np.linalg.norm(w, q)
    ours = float(smoothing.gaussian(sigma=sigma, norm=norm, shape=shape).radius(p_a))
    assert exact * (1 - 1e-11) < ours < exact * (1 + 1e-11)
    rng = np.random.default_rng(0)  # No half-space does worse.
    for v in rng.normal(size=(50, 24)) ** 3:
      rival = sigma * special.ndtri(p_a) * np.linalg.norm(v) / np.linalg.norm(v, q)
      assert rival >= ours


def test_below_the_theorem_in_fifty_digits():
  rng = np.random.default_rng(1)
  p_a = np.r_[rng.uniform(0.5, 1, 40), 1 - 10.0 ** -np.arange(1, 15)]
  for norm, p in (('l3', 3), ('l4', 4), ('linf', mpmath.inf)):
    ours = smoothing.gaussian(sigma=0.25, norm=norm, shape=(224, 224, 3)).radius(p_a)
    with mpmath.workdps(50):
      for a, radius in zip(p_a, ours, strict=True):
        high = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(a) - 1) / 4
        truth = high / mpmath.mpf(224 * 224 * 3) ** (mpmath.mpf(1) / 2 - 1 / mpmath.mpf(p))
        assert truth * (1 - mpmath.mpf(10) ** -12) < radius < truth


@pytest.mark.parametrize('norm', ['l1', 'l2', 'l3', 'linf'])
def test_protocol(norm):
  noise = smoothing.gaussian(sigma=0.25, norm=norm, shape=(6, 5, 3))
  assert noise.norm == norm and noise.shape == (6, 5, 3)
  testing.check_smoothing(noise, np.zeros((6, 5, 3), np.float32))


def test_no_shape_is_stored_unless_given():
  assert smoothing.gaussian(sigma=0.25).shape is None
  assert smoothing.gaussian(sigma=0.25, norm='l1').shape is None


def test_bad_arguments():
  for norm in ('l0', 'L2', 'l.5', 'linfinity', '2', None):
    with pytest.raises(ValueError, match='`norm` must be'):
      smoothing.gaussian(sigma=0.25, norm=norm)
  with pytest.raises(ValueError, match='depends on the dimension'):
    smoothing.gaussian(sigma=0.25, norm='linf')
