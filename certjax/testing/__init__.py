"""Property checks that users run on their own parts; certjax's own tests call the same ones.

Every check raises `AssertionError` with the values that broke the property, and returns None.
"""

from certjax.testing._attack import check_attack
from certjax.testing._certificate import check_certificate
from certjax.testing._smoothing import check_radius, check_smoothing
from certjax.testing._threat import check_threat

__all__ = [
  'check_attack',
  'check_certificate',
  'check_radius',
  'check_smoothing',
  'check_threat',
]
