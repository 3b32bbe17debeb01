"""A method run over a data set, and the checks that distrust it."""

from certjax.evaluate._accuracy import accuracy, robust_accuracy
from certjax.evaluate._bounded import (
  BoundedNetwork,
  bounded_certificate,
  bounded_network,
  bounded_records,
)
from certjax.evaluate._certification import (
  certified_records,
  check_arguments,
  clean_certificate,
  clean_network,
  clean_records,
  enumerated_records,
  is_clean,
  is_exact,
  predicted_records,
  sequential_records,
)
from certjax.evaluate._curvature import (
  CurvedNetwork,
  curved_certificate,
  curved_network,
  curved_records,
)
from certjax.evaluate._header import header
from certjax.evaluate._margin import (
  ExactNetwork,
  SmoothHead,
  exact_network,
  margin_certificate,
  margin_records,
)
from certjax.evaluate._masked import (
  MaskedNetwork,
  masked_certificate,
  masked_network,
  masked_records,
)
from certjax.evaluate._rounding import Rounding, rounding_bounds
from certjax.evaluate._sanity import sanity_warnings

__all__ = [
  'BoundedNetwork',
  'CurvedNetwork',
  'ExactNetwork',
  'MaskedNetwork',
  'Rounding',
  'SmoothHead',
  'accuracy',
  'bounded_certificate',
  'bounded_network',
  'bounded_records',
  'certified_records',
  'check_arguments',
  'clean_certificate',
  'clean_network',
  'clean_records',
  'curved_certificate',
  'curved_network',
  'curved_records',
  'enumerated_records',
  'exact_network',
  'header',
  'is_clean',
  'is_exact',
  'margin_certificate',
  'margin_records',
  'masked_certificate',
  'masked_network',
  'masked_records',
  'predicted_records',
  'robust_accuracy',
  'rounding_bounds',
  'sequential_records',
  'sanity_warnings',
]
