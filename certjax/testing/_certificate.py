"""Properties of a `Certificate`, whatever made it."""

import numpy as np

from certjax.certify import ABSTAIN


def check_certificate(certificate, num_classes):
  """Checks shapes, dtypes and the meaning of abstention.

  Args:
    certificate: a `Certificate`.
    num_classes: labels must lie below it.

  Raises:
    AssertionError: unless labels are int64 in {ABSTAIN, 0, ..., K-1}, radii float64, finite or
      infinite but not NaN, at least 0, and 0 where abstained.

  Example:
    >>> from certjax import certify
    >>> check_certificate(certify.certificate([1, -1], [0.5, 0.0]), num_classes=2)
  """
  label, radius = certificate
  assert label.dtype == np.int64 and radius.dtype == np.float64, (label.dtype, radius.dtype)
  assert label.shape == radius.shape
  assert ((label == ABSTAIN) | ((label >= 0) & (label < num_classes))).all(), label
  assert not np.isnan(radius).any(), 'a NaN radius must be an abstention'
  assert (radius >= 0).all(), radius.min()
  assert (radius[label == ABSTAIN] == 0).all(), 'an abstention has radius 0'
