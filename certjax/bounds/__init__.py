"""Sound bounds of a network's outputs over a set of inputs, and the certificates they give."""

from certjax.bounds._certificate import largest, margins, verify
from certjax.bounds._crown import crown, interval
from certjax.bounds._curvature import (
  SMOOTH_ACTIVATIONS,
  Activation,
  Expansion,
  curvature,
  deep_curvature,
  expansion,
)
from certjax.bounds._curvature_crc import crc
from certjax.bounds._curvature_estimate import estimate_curvature
from certjax.bounds._dual import dual
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
  'Region',
  'ball',
  'box',
  'crc',
  'crown',
  'dual',
  'interval',
  'largest',
  'margins',
  'verify',
  'zonotope',
]
