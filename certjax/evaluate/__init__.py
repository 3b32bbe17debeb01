"""A method run over a data set, and the checks that distrust it."""

from certjax.evaluate._accuracy import accuracy
from certjax.evaluate._certification import (
  certified_records,
  check_arguments,
  predicted_records,
)
from certjax.evaluate._header import header
from certjax.evaluate._sanity import sanity_warnings

__all__ = [
  'accuracy',
  'certified_records',
  'check_arguments',
  'header',
  'predicted_records',
  'sanity_warnings',
]
