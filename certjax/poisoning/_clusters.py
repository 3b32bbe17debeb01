"""Two clusters named by the majority of the training labels: what flips cannot rename."""

import numpy as np

from certjax.certify import Certificate, certificate


def two_clusters(clusters, labels, x_clusters) -> Certificate:
  """Two classes as two clusters of unlabelled samples, named by whichever way round more labels say.

  With A the training samples whose label equals their cluster, and ties for the names as they are, an
  image of cluster j is of class j if A >= n - A, else of class 1 - j. A flipped label moves A by 1, so
  that no r flips change any answer for

    r <= floor((2A - n) / 2),   or   floor((n - 2A - 1) / 2) where the names are exchanged,

  and one flip more does: the same number for all images. The clusters see no label, and hold
  whatever the labels are; samples themselves are trusted.

  Args:
    clusters: int[n], 0 or 1, the cluster of each training sample.
    labels: int[n], 0 or 1, their labels; the set that is certified, flips and all.
    x_clusters: int[...], the cluster of each image that is classified.

  Returns:
    A `Certificate`, radius in flipped training labels.

  Raises:
    ValueError: unless all are 0 or 1, one label for each training sample and at least one of them.

  Example:
    >>> two_clusters([0, 0, 0, 1, 1], [1, 1, 1, 0, 1], [0, 1])
    Certificate(label=array([1, 0]), radius=array([1., 1.]))

  References:
    Levine & Feizi 2021 (arXiv:2006.14768), the case of MNIST 1 against 7.
  """
  clusters, labels, x_clusters = map(np.asarray, (clusters, labels, x_clusters))
  for name, values in (('clusters', clusters), ('labels', labels), ('x_clusters', x_clusters)):
    if not np.isin(values, (0, 1)).all():
      raise ValueError(f'`{name}` must be 0 or 1, got {np.setdiff1d(values, (0, 1))[:5].tolist()}.')
  if clusters.ndim != 1 or clusters.shape != labels.shape or not labels.size:
    raise ValueError(
      f'`clusters` and `labels` must be [n], a label for each sample, got {list(clusters.shape)} and '
      f'{list(labels.shape)}.'
    )
  lead = 2 * int(np.sum(clusters == labels)) - len(labels)
  flips = lead // 2 if lead >= 0 else (-lead - 1) // 2
  label = np.where(lead >= 0, x_clusters, 1 - x_clusters).astype(np.int64)
  return certificate(label, np.full(label.shape, float(flips)))
