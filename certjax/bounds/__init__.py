"""Sound bounds of a network's outputs over a set of inputs, and the certificates they give."""

from certjax.bounds._certificate import largest, margins, verify, widened
from certjax.bounds._crown import crown, interval
from certjax.bounds._curvature import (
  SMOOTH_ACTIVATIONS,
  Activation,
  Expansion,
  curvature,
  deep_curvature,
  expansion,
  hidden_lipschitz,
)
from certjax.bounds._curvature_crc import SmoothNetwork, crc, crc_of, smooth_network
from certjax.bounds._curvature_estimate import estimate_curvature
from certjax.bounds._dual import dual
from certjax.bounds._patch import patch_interval, patch_locations, sparse_interval
from certjax.bounds._patch_certificate import verify_patch, verify_sparse
from certjax.bounds._preactivations import preactivations
from certjax.bounds._region import Region, ball, box
from certjax.bounds._zonotope import zonotope

__all__ = [
  'SMOOTH_ACTIVATIONS',
  'Activation',
  'Expansion',
  'curvature',
  'deep_curvature',
  'estimate_curvature',
  'expansion',
  'hidden_lipschitz',
  'SmoothNetwork',
  'smooth_network',
  'Region',
  'ball',
  'box',
  'crc',
  'crc_of',
  'crown',
  'dual',
  'interval',
  'largest',
  'margins',
  'patch_interval',
  'patch_locations',
  'preactivations',
  'sparse_interval',
  'verify',
  'widened',
  'verify_patch',
  'verify_sparse',
  'zonotope',
]
