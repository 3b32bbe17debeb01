"""A method run over a data set, and the checks that distrust it."""

from certjax.evaluate._accuracy import accuracy
from certjax.evaluate._certification import (
  certified_records,
  check_arguments,
  enumerated_records,
  is_exact,
  predicted_records,
  sequential_records,
)
from certjax.evaluate._header import header
from certjax.evaluate._sanity import sanity_warnings

__all__ = [
  'accuracy',
  'certified_records',
  'check_arguments',
  'enumerated_records',
  'header',
  'is_exact',
  'predicted_records',
  'sequential_records',
  'sanity_warnings',
]
