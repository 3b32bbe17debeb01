"""certjax: proofs that a classifier is robust, and the strongest attacks on one, in JAX.

    image batch -> noise -> model -> votes -> confidence bound -> certificate -> record -> table

Names load lazily: importing `certjax.report` does not import JAX.
"""

from importlib import import_module as _import_module

__version__ = '0.1.0'

_ROOMS = (
  'attacks', 'certify', 'configs', 'data', 'defenses', 'evaluate', 'layers', 'models', 'parallel', 'poisoning',
  'records', 'report', 'reproduce', 'smoothing', 'testing', 'threats', 'train',
)  # fmt: skip
_NOUNS = {
  'Certificate': 'certjax.certify',
  'Smoothing': 'certjax.smoothing',
  'Threat': 'certjax.threats',
  'prove': 'certjax.configs',
}

__all__ = [*_ROOMS, *_NOUNS]


def __getattr__(name):
  if name in _ROOMS:
    return _import_module(f'certjax.{name}')
  if name in _NOUNS:
    return getattr(_import_module(_NOUNS[name]), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted(__all__)
