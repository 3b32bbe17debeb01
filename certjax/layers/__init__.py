"""Layers with a known Lipschitz constant, the pure functions beneath them, bounds on their spectra,
and the convolution whose gradient stays fast inside loops."""

from certjax.layers._activations import (
  GroupSort,
  Householder,
  LipPool,
  MaxMin,
  beta_abs,
  group_sort,
  householder,
  householder2,
  l2_pool,
  lip_pool,
  max_min,
)
from certjax.layers._aol import AOL, aol_scale
from certjax.layers._bcop import BCOP, bcop_filter, block_convolve, block_orthogonal
from certjax.layers._bjorck import bjorck
from certjax.layers._bro import BRO, block_reflector
from certjax.layers._cayley import Cayley, CayleyLinear, cayley
from certjax.layers._conv import conv_general_dilated
from certjax.layers._curvature_head import CurvatureHead
from certjax.layers._exponential import conv_exponential, skew_filter
from certjax.layers._fourier import apply_fourier, fourier_operator
from certjax.layers._images import transposed
from certjax.layers._linear import NormalizedLinear, OrthogonalLinear, normalise_rows
from certjax.layers._lipnext import LipNeXtBlock, spatial_shift
from certjax.layers._lot import LOT
from certjax.layers._protocol import SPECTRAL, lipschitz_upper, materialize, subtree
from certjax.layers._resample import fit_channels, invertible_downsampling
from certjax.layers._rko import RKO, rko_filter
from certjax.layers._series import polynomial, recurrence_coefficients, series_lipschitz
from certjax.layers._sll import CPL, SLL, cpl_inverse, residual_step, sll_inverse
from certjax.layers._soc import SOC
from certjax.layers._spectrum import (
  circular_norm,
  fantastic_four,
  gram_norm,
  norm_upper,
  power_iteration,
  singular_values,
  supremum_norm,
  zero_padded_norm,
)

__all__ = [
  'GroupSort',
  'Householder',
  'LipPool',
  'MaxMin',
  'beta_abs',
  'group_sort',
  'householder',
  'householder2',
  'l2_pool',
  'lip_pool',
  'max_min',
  'AOL',
  'aol_scale',
  'BCOP',
  'bcop_filter',
  'block_convolve',
  'block_orthogonal',
  'bjorck',
  'BRO',
  'block_reflector',
  'Cayley',
  'CayleyLinear',
  'CurvatureHead',
  'cayley',
  'apply_fourier',
  'fourier_operator',
  'NormalizedLinear',
  'OrthogonalLinear',
  'normalise_rows',
  'LipNeXtBlock',
  'spatial_shift',
  'LOT',
  'RKO',
  'rko_filter',
  'CPL',
  'SLL',
  'cpl_inverse',
  'residual_step',
  'sll_inverse',
  'conv_general_dilated',
  'conv_exponential',
  'skew_filter',
  'transposed',
  'SPECTRAL',
  'lipschitz_upper',
  'materialize',
  'subtree',
  'fit_channels',
  'invertible_downsampling',
  'polynomial',
  'recurrence_coefficients',
  'series_lipschitz',
  'SOC',
  'circular_norm',
  'fantastic_four',
  'gram_norm',
  'norm_upper',
  'power_iteration',
  'singular_values',
  'supremum_norm',
  'zero_padded_norm',
]
