"""The least value of a linear function over a region, against convex programming and knapsacks."""

import jax
import numpy as np
import pytest
from scipy import optimize

from certjax import bounds, parallel
from certjax.bounds import _region

REGION_OF_ONE = lambda region: jax.tree.map(lambda leaf: leaf[0], region)


@pytest.fixture(autouse=True)
def _float64():
  with parallel.x64():
    yield


def exact_l1(a, x, eps):
  """A linear program in the positive and the negative part of the move."""
  n = len(x)
  found = optimize.linprog(
    np.r_[a, -a], A_ub=np.ones((1, 2 * n)), b_ub=[eps],
    bounds=[(0, 1 - v) for v in x] + [(0, v) for v in x],
  )  # fmt: skip
  return a @ x + found.fun


def exact_l2(a, x, eps):
  found = optimize.minimize(
    lambda z: a @ z, x, jac=lambda z: a, method='SLSQP', bounds=[(0, 1)] * len(x),
    constraints={'type': 'ineq', 'fun': lambda z: eps**2 - np.sum((z - x) ** 2),
                 'jac': lambda z: -2 * (z - x)},
    options={'ftol': 1e-13, 'maxiter': 500},
  )  # fmt: skip
  return found.fun


@pytest.mark.parametrize('norm, exact', [('l2', exact_l2), ('l1', exact_l1)])
@pytest.mark.parametrize('eps', [0.05, 0.4, 1.0, 5.0])
def test_intersection_of_ball_and_box(norm, exact, eps):
  rng = np.random.default_rng(0)
  for _ in range(6):
    x, rows = rng.uniform(0, 1, 7), rng.normal(0, 1, (3, 7))
    x[0], x[1] = 0.0, 1.0  # At the edge of the pixel range.
    region = REGION_OF_ONE(bounds.ball(x[None], eps, norm))
    tight = np.asarray(_region.minimum(region, rows, tight=True))
    loose = np.asarray(_region.minimum(region, rows))
    truth = np.array([exact(a, x, eps) for a in rows])
    np.testing.assert_allclose(tight, truth, atol=2e-6)
    assert (loose <= tight + 1e-12).all() and (tight <= truth + 1e-7).all()


@pytest.mark.parametrize('norm', ['linf', 'l2', 'l1'])
def test_no_point_of_the_region_is_below(norm, small):
  rng = np.random.default_rng(1)
  region = bounds.ball(rng.uniform(0, 1, (1, 9)), 0.3, norm)
  rows = rng.normal(0, 1, (4, 9))
  values = small.points(region, 20_000) @ rows.T
  for tight in (False, True):
    least = np.asarray(_region.minimum(REGION_OF_ONE(region), rows, tight=tight))
    assert (values.min(axis=0) >= least - 1e-12).all()


def test_zero_rows_have_gradient_zero():
  region = REGION_OF_ONE(bounds.ball(np.full((1, 3), 0.5), 0.1, 'l2'))
  gradient = jax.grad(lambda a: _region.minimum(region, a).sum())(np.zeros((2, 3)))
  np.testing.assert_allclose(gradient, 0.5)
