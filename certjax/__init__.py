"""certjax: proofs that a classifier is robust, and the strongest attacks on one, in JAX.

    image batch -> noise -> model -> votes -> confidence bound -> certificate -> record -> table

Names load lazily: importing `certjax.report` does not import JAX.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

__version__ = '0.1.0'

_NOUNS = {
  'Certificate': 'certjax.certify',
  'Smoothing': 'certjax.smoothing',
  'Threat': 'certjax.threats',
  'prove': 'certjax.configs',
}

if TYPE_CHECKING:  # The same names for checkers and editors: tests/lazy_names_test.py.
  from certjax import (
    attacks,
    certify,
    configs,
    data,
    defenses,
    evaluate,
    layers,
    models,
    parallel,
    poisoning,
    records,
    report,
    reproduce,
    smoothing,
    testing,
    threats,
    train,
  )
  from certjax.certify import Certificate
  from certjax.configs import prove
  from certjax.smoothing import Smoothing
  from certjax.threats import Threat

__all__ = [
  'Certificate',
  'Smoothing',
  'Threat',
  'prove',
  'attacks',
  'certify',
  'configs',
  'data',
  'defenses',
  'evaluate',
  'layers',
  'models',
  'parallel',
  'poisoning',
  'records',
  'report',
  'reproduce',
  'smoothing',
  'testing',
  'threats',
  'train',
]


def __getattr__(name):
  if name in _NOUNS:
    return getattr(_import_module(_NOUNS[name]), name)
  if name in __all__:
    return _import_module(f'certjax.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted(__all__)
