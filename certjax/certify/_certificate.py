"""The one result of every proof.

Sampled votes, enumerated votes and deterministic bounds on a network all end in a
`Certificate`; whatever reads one (`report`, `records`, the audit) never learns which method
made it. No JAX here: certificates are proved, stored and read on the host.
"""

from typing import NamedTuple

import numpy as np

ABSTAIN = -1
"""The label of an image for which nothing is certified."""


class Certificate(NamedTuple):
  """A label and the closed ball around the image on which it provably does not change.

  Attributes:
    label: int64[...], the certified label; `ABSTAIN` = -1 where nothing is certified.
    radius: float64[...], in the norm and unit of the method. The label holds for every x'
      with distance <= radius. Rounded down; 0 where abstained.
  """

  label: np.ndarray
  radius: np.ndarray


def certificate(label, radius) -> Certificate:
  """Builds a `Certificate`, turning whatever is not a proof into an abstention.

  A NaN or negative radius proves nothing: the label becomes `ABSTAIN` and the radius 0.

  Args:
    label: int[...], candidate labels.
    radius: float[...], certified radii, broadcast against `label`.

  Returns:
    A `Certificate` with int64 labels and float64 radii of the common shape.

  Example:
    >>> certificate([3, 7], [0.5, float('nan')])
    Certificate(label=array([ 3, -1]), radius=array([0.5, 0. ]))
  """
  label, radius = np.broadcast_arrays(np.asarray(label, np.int64), np.asarray(radius, np.float64))
  proved = (radius >= 0) & (label >= 0)  # False for NaN.
  return Certificate(np.where(proved, label, ABSTAIN), np.where(proved, radius, 0.0))
