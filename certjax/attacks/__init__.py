"""Attacks: one factory a file, each returns `(key, model_fn, x, y) -> x_adv`."""

from certjax.attacks import functional
from certjax.attacks._apgd import apgd
from certjax.attacks._autoattack import (
  Part,
  autoattack,
  autoattack_part,
  autoattack_parts,
  part_keys,
)
from certjax.attacks._carlini_wagner import carlini_wagner
from certjax.attacks._corner_search import corner_search
from certjax.attacks._cra import Worst, cra, worst_in_ball
from certjax.attacks._ddn import ddn
from certjax.attacks._deepfool import deepfool
from certjax.attacks._eot import eot, eot_pgd
from certjax.attacks._expected import expected
from certjax.attacks._fab import fab
from certjax.attacks._fgsm import fgsm
from certjax.attacks._fmn import fmn
from certjax.attacks._foolbox import from_foolbox
from certjax.attacks._jsma import jsma
from certjax.attacks._loss import (
  cross_entropy,
  cross_entropy_targeted,
  dlr,
  dlr_targeted,
  margin,
  margin_targeted,
)
from certjax.attacks._lpa import fast_lpa, lpa
from certjax.attacks._lpips_pixel import lpips_pixel
from certjax.attacks._optimizer_pgd import momentum_pgd, optimizer_pgd
from certjax.attacks._patch_pgd import mean_of_views, patch_pgd
from certjax.attacks._pgd import pgd
from certjax.attacks._pgd0 import pgd0
from certjax.attacks._pointwise import Sparse, pointwise, pointwise_search
from certjax.attacks._ppgd import ppgd
from certjax.attacks._sparse_rs import sparse_rs, sparse_rs_patch
from certjax.attacks._square import square
from certjax.attacks._transport import wasserstein_distance
from certjax.attacks._wasserstein import wasserstein, wasserstein_radius
from certjax.attacks.functional import Functional, latent_attack

__all__ = [
  'Functional',
  'Part',
  'Sparse',
  'Worst',
  'apgd',
  'autoattack',
  'autoattack_part',
  'autoattack_parts',
  'carlini_wagner',
  'corner_search',
  'cra',
  'cross_entropy',
  'cross_entropy_targeted',
  'ddn',
  'deepfool',
  'dlr',
  'dlr_targeted',
  'eot',
  'eot_pgd',
  'expected',
  'fab',
  'fast_lpa',
  'fgsm',
  'fmn',
  'from_foolbox',
  'functional',
  'jsma',
  'latent_attack',
  'lpa',
  'lpips_pixel',
  'margin',
  'margin_targeted',
  'mean_of_views',
  'momentum_pgd',
  'optimizer_pgd',
  'part_keys',
  'patch_pgd',
  'pgd',
  'pgd0',
  'pointwise',
  'pointwise_search',
  'ppgd',
  'sparse_rs',
  'sparse_rs_patch',
  'square',
  'wasserstein',
  'wasserstein_distance',
  'wasserstein_radius',
  'worst_in_ball',
]
