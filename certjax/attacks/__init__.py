"""Attacks: one factory a file, each returns `(key, model_fn, x, y) -> x_adv`."""

from certjax.attacks._corner_search import corner_search
from certjax.attacks._cra import Worst, cra, worst_in_ball
from certjax.attacks._ddn import ddn
from certjax.attacks._expected import expected
from certjax.attacks._jsma import jsma
from certjax.attacks._loss import cross_entropy, margin
from certjax.attacks._patch_pgd import mean_of_views, patch_pgd
from certjax.attacks._pgd import pgd
from certjax.attacks._pgd0 import pgd0
from certjax.attacks._pointwise import Sparse, pointwise, pointwise_search
from certjax.attacks._sparse_rs import sparse_rs, sparse_rs_patch
from certjax.attacks._transport import wasserstein_distance
from certjax.attacks._wasserstein import wasserstein, wasserstein_radius

__all__ = [
  'Sparse',
  'Worst',
  'corner_search',
  'cra',
  'cross_entropy',
  'ddn',
  'expected',
  'jsma',
  'margin',
  'mean_of_views',
  'patch_pgd',
  'pgd',
  'pgd0',
  'pointwise',
  'pointwise_search',
  'sparse_rs',
  'sparse_rs_patch',
  'wasserstein',
  'wasserstein_distance',
  'wasserstein_radius',
  'worst_in_ball',
]
