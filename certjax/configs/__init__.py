"""Typed configurations, presets, and the one table of methods. Nothing here imports JAX
before a method is built."""

from certjax.configs._attacks import ATTACKS, build_attack, threat_of, unit_of
from certjax.configs._beyond_norms import Perceptual
from certjax.configs._contracts import (
  POISONING,
  TERMS,
  Contract,
  contract,
  contract_of,
  contract_rows,
  contract_text,
)
from certjax.configs._methods import METHODS, Method, build_smoothing, smoothing_of
from certjax.configs._perceptual_presets import PERCEPTUAL_BOUNDS
from certjax.configs._presets import PRESETS
from certjax.configs._prove import prove
from certjax.configs._reproduce import Reproduce, VerifyCards
from certjax.configs._schema import (
  Attack,
  Certify,
  Doctor,
  Evaluation,
  Poison,
  Predict,
  Quickstart,
  Report,
  Spectrum,
  Sweep,
  Train,
  Version,
)
from certjax.configs._study import StudyAnalyse, StudyBuild, StudyServe

__all__ = [
  'ATTACKS',
  'METHODS',
  'PERCEPTUAL_BOUNDS',
  'POISONING',
  'PRESETS',
  'TERMS',
  'Attack',
  'Certify',
  'Contract',
  'Doctor',
  'Evaluation',
  'Method',
  'Perceptual',
  'Poison',
  'Predict',
  'Quickstart',
  'Report',
  'Reproduce',
  'Spectrum',
  'StudyAnalyse',
  'StudyBuild',
  'StudyServe',
  'Sweep',
  'Train',
  'VerifyCards',
  'Version',
  'build_attack',
  'build_smoothing',
  'contract',
  'contract_of',
  'contract_rows',
  'contract_text',
  'prove',
  'smoothing_of',
  'threat_of',
  'unit_of',
]
