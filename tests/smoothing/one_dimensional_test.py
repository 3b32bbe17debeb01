"""The proof in one dimension: the linear program's optimum is a step, Phi^-1 is Lipschitz."""

import numpy as np
import pytest
from scipy import special, stats

from certjax import smoothing


@pytest.mark.parametrize('p, shift', [(0.9, 1.0), (0.5, 0.3), (0.25, 2.0), (0.99, 0.5)])
def test_the_linear_program_is_solved_by_a_step(p, shift):
  worst = smoothing.worst_case(p, shift, num_cells=100)
  end = round(100 * p)
  np.testing.assert_allclose(worst.score, np.arange(100) < end, atol=1e-7)
  assert worst.value == pytest.approx(worst.bound, abs=1e-9)
  radius = smoothing.gaussian(sigma=1.0).radius(p)
  if p > 0.5:  # At the certified radius the worst score is 1/2.
    assert smoothing.worst_case(p, float(radius), num_cells=100).value == pytest.approx(0.5)


def test_between_edges_one_cell_is_fractional_and_the_value_is_above_the_bound():
  worst = smoothing.worst_case(0.873, 0.8, num_cells=100)
  fractional = (worst.score > 1e-7) & (worst.score < 1 - 1e-7)
  assert fractional.sum() == 1 and worst.score[fractional] == pytest.approx(0.3)
  assert 0 < worst.value - worst.bound < 1e-4
  assert (np.diff(worst.score) <= 1e-9).all()


def test_random_scores_do_no_worse_than_the_step():
  rng = np.random.default_rng(0)
  worst = smoothing.worst_case(0.7, 0.6, num_cells=100)
  moved = np.diff(special.ndtr(worst.edges - 0.6))
  for _ in range(200):
    score = rng.beta(*rng.uniform(0.2, 2, 2), size=100)
    mean = score.mean()
    score = score * 0.7 / mean if mean >= 0.7 else 1 - (1 - score) * 0.3 / (1 - mean)
    assert score.mean() == pytest.approx(0.7) and score @ moved >= worst.bound - 1e-12


SIGMA = 0.5
SMOOTHED = {  # Closed forms of Pr[x + sigma z in the class].
  'half-space': lambda x: special.ndtr((x[:, 0] + 0.2) / SIGMA),
  'interval': lambda x: special.ndtr((0.7 - x[:, 1]) / SIGMA) - special.ndtr((-0.4 - x[:, 1]) / SIGMA),
  'ball': lambda x: stats.ncx2.cdf((1 / SIGMA) ** 2, x.shape[1], (x**2).sum(1) / SIGMA**2),
}  # fmt: skip


@pytest.mark.parametrize('name', SMOOTHED)
def test_probit_is_lipschitz(name):
  rng = np.random.default_rng(1)
  x = rng.normal(size=(2000, 3))
  other = x + rng.normal(size=x.shape) * 10.0 ** rng.uniform(-2, 0, (2000, 1))
  scores = np.stack([SMOOTHED[name](x), SMOOTHED[name](other)])
  kept = np.minimum(scores, 1 - scores).min(axis=0) > 1e-5  # 1 - score still has 11 digits there.
  slopes = smoothing.probit_slope(SMOOTHED[name], x[kept], other[kept])
  assert kept.sum() > 1000
  assert slopes.max() <= (1 + 1e-6) / SIGMA
  assert slopes.max() > 0.8 / SIGMA  # The constant is the right one.


def test_a_score_that_is_not_smoothed_is_not_lipschitz():
  x, other = np.array([[0.0, 0.0]]), np.array([[0.01, 0.0]])
  steep = lambda x: special.ndtr(x[:, 0] / 0.1)
  assert smoothing.probit_slope(steep, x, other)[0] > 1 / SIGMA


def test_bad_arguments():
  for p, shift in ((0, 1), (1, 1), (0.5, -1), (np.nan, 1)):
    with pytest.raises(ValueError, match='`p` must lie in'):
      smoothing.worst_case(p, shift)
