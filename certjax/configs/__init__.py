"""Typed configurations, presets, and the one table of methods. Nothing here imports JAX
before a method is built."""

from certjax.configs._methods import METHODS, Method, build_smoothing, smoothing_of
from certjax.configs._presets import PRESETS
from certjax.configs._prove import prove
from certjax.configs._schema import Certify, Doctor, Predict, Quickstart, Report, Spectrum, Train

__all__ = [
  'METHODS',
  'PRESETS',
  'Certify',
  'Doctor',
  'Method',
  'Predict',
  'Quickstart',
  'Report',
  'Spectrum',
  'Train',
  'build_smoothing',
  'prove',
  'smoothing_of',
]
