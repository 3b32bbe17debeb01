"""The radius that curvature proves: exact for quadratics, all rivals, rounded down."""

import numpy as np
import pytest

from certjax import certify

RNG = np.random.default_rng(0)


def test_a_paraboloid_has_this_very_radius():
  """g(z) = c - s z_1 - m |z|^2 / 2 loses at the root: the bound is attained."""
  gap, slope, m = RNG.exponential(size=(3, 1000))
  column = lambda values: np.stack(
    [np.full(1000, np.nan), values], axis=1
  )  # That of y is not read.
  label = np.zeros(1000, int)
  proof = certify.curvature_margin(label, *map(column, (gap, slope, m)))
  left = gap - slope * proof.radius - m * proof.radius**2 / 2
  assert (proof.label == 0).all() and (left >= 0).all() and (left < 1e-11 * gap).all()


@pytest.mark.parametrize(
  'slope, m', [(1.0, 0.0), (1.0, 1e-18), (0.0, 2.0), (1e-9, 1e3), (5.0, 1e-9)]
)
def test_no_digits_cancel(slope, m):
  """Against 50 digits of (sqrt(s^2 + 2 m g) - s) / m."""
  import mpmath

  radius = float(certify.curvature_margin(0, [0, 0.7], [0, slope], [0, m]).radius)
  with mpmath.workdps(50):
    g, s, m = mpmath.mpf(0.7), mpmath.mpf(slope), mpmath.mpf(m)
    exact = (mpmath.sqrt(s**2 + 2 * m * g) - s) / m if m else g / s
    assert exact * (1 - mpmath.mpf(10) ** -13) < radius < exact


def test_every_rival_counts_and_the_class_itself_does_not():
  gap, slope, curvature = RNG.exponential(size=(3, 12))
  radii = [
    float(certify.curvature_margin(0, *(part[[3, j]] for part in (gap, slope, curvature))).radius)
    for j in range(12)
  ]
  whole = float(certify.curvature_margin(3, gap, slope, curvature).radius)
  assert whole == min(radius for j, radius in enumerate(radii) if j != 3)
  least = int(np.argmin([radius if j != 3 else np.inf for j, radius in enumerate(radii)]))
  others = np.delete(np.arange(12), least)
  fewer = certify.curvature_margin(
    int(np.flatnonzero(others == 3)[0]), *(part[others] for part in (gap, slope, curvature))
  )
  assert float(fewer.radius) > whole


def test_constant_and_slack():
  parts = [0.0, 1.5], [0.0, 1.0], [0.0, 1.0]  # Radius 1 in the features.
  assert certify.curvature_margin(0, *parts, lipschitz=4.0).radius == pytest.approx(0.25)
  found = certify.curvature_margin(0, *parts, lipschitz=4.0, slack=0.2)
  assert found.radius == pytest.approx(0.2) and found.radius < 0.2
  assert certify.curvature_margin(0, *parts, slack=2.0) == (0, 0.0)


def test_what_proves_nothing():
  proof = certify.curvature_margin(
    [0, 1, 0, 1, 0], [[0, -1], [0, 0], [0, np.nan], [1, 0], [0, 1]],
    [[1, 1.0], [1, 1], [1, 1], [np.inf, 0], [0, 0]], np.zeros((5, 2)),
  )  # fmt: skip
  assert proof.label.tolist() == [0, 1, -1, -1, 0]
  assert proof.radius.tolist() == [0, 0, 0, 0, np.inf]  # The last one is constant.


@pytest.mark.parametrize(
  'label, gap, slope, options, said',
  [
    (0, [0, 1.0], [0, 1.0, 2.0], {}, 'must all be .*K.'),
    ([0], [0, 1.0], [0, 1.0], {}, 'for `label`'),
    (2, [0, 1.0], [0, 1.0], {}, r'`label` must lie in 0 .. 1, got 2'),
    (0, [0, 1.0], [0, -1.0], {}, '`slope` and `curvature` must be at least 0'),
    (0, [0, 1.0], [0, 1.0], {'lipschitz': np.inf}, '`lipschitz` must be at least 0 and finite'),
    (0, [0, 1.0], [0, 1.0], {'slack': -1.0}, '`slack` must be at least 0'),
  ],
)
def test_bad_input(label, gap, slope, options, said):
  with pytest.raises(ValueError, match=said):
    certify.curvature_margin(label, gap, slope, [0.0] * len(gap), **options)
