"""How an input is perturbed, and what radius that buys; one distribution a file."""

from certjax.smoothing._ablation import ablation, ablation_change, subset
from certjax.smoothing._bands import bands
from certjax.smoothing._blocks import blocks
from certjax.smoothing._deterministic_splitting import deterministic_splitting
from certjax.smoothing._discrete import discrete, discrete_threshold
from certjax.smoothing._earlier import pixeldp_radius, renyi_radius
from certjax.smoothing._exp1 import exp1
from certjax.smoothing._exp2 import exp2
from certjax.smoothing._exp_inf import exp_inf
from certjax.smoothing._expp import expp
from certjax.smoothing._gaussian import gaussian
from certjax.smoothing._generalized_gaussian import generalized_gaussian
from certjax.smoothing._information import ablation_information, discrete_information
from certjax.smoothing._laplace import laplace
from certjax.smoothing._limits import (
  gaussian_radius_lp,
  generalized_gaussian_limit,
  iid_limit,
  l1_ball_limit,
  uniform_linf_limit,
)
from certjax.smoothing._masks import masks
from certjax.smoothing._multi_bands import multi_bands
from certjax.smoothing._one_dimensional import probit_slope, worst_case
from certjax.smoothing._pareto import pareto
from certjax.smoothing._pow2 import pow2
from certjax.smoothing._pow_inf import pow_inf
from certjax.smoothing._protocol import COUNTED, Smoothing, Views
from certjax.smoothing._random_windows import random_bands, random_blocks
from certjax.smoothing._splitting import splitting
from certjax.smoothing._uniform import uniform
from certjax.smoothing._uniform_ball import uniform_ball
from certjax.smoothing._wasserstein import wasserstein

__all__ = [
  'COUNTED',
  'Smoothing',
  'Views',
  'ablation',
  'ablation_change',
  'ablation_information',
  'bands',
  'blocks',
  'deterministic_splitting',
  'discrete',
  'discrete_information',
  'discrete_threshold',
  'exp1',
  'exp2',
  'exp_inf',
  'expp',
  'gaussian',
  'gaussian_radius_lp',
  'generalized_gaussian',
  'generalized_gaussian_limit',
  'iid_limit',
  'l1_ball_limit',
  'laplace',
  'masks',
  'multi_bands',
  'pareto',
  'pixeldp_radius',
  'pow2',
  'pow_inf',
  'probit_slope',
  'random_bands',
  'random_blocks',
  'renyi_radius',
  'splitting',
  'subset',
  'uniform',
  'uniform_ball',
  'uniform_linf_limit',
  'wasserstein',
  'worst_case',
]
