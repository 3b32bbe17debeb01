r"""From logits of a Lipschitz network to a certificate: deterministic, no samples.

If features z are L-Lipschitz in x and logits are f = W z, then f_y - f_j changes by at most
||w_y - w_j|| L ||x' - x||, so the class stays y as long as every rival j has

  (f_y - f_j) / (||w_y - w_j|| L) > ||x' - x||.

Where only f itself is known to be L-Lipschitz, f_y - f_j is sqrt(2) L-Lipschitz.
"""

import numpy as np

from certjax.certify._certificate import Certificate, certificate

_RELATIVE = 1e-12  # Of a handful of float64 operations, a thousand times over.


def margin(logits, *, lipschitz=1.0, last_layer=None, slack=0.0) -> Certificate:
  r"""The largest ball, in the input norm of `lipschitz`, in which no other class can win.

    radius = min_{j != y} (f_y - f_j - 2 slack) / (c_j L),   c_j = sqrt(2), or ||w_y - w_j||_2

  Ties go to the lowest class, with radius 0. The norm is that in which the Lipschitz constant holds:
  L2 for orthogonal layers.

  Args:
    logits: float[..., K].
    lipschitz: L >= 0, a proved Lipschitz constant of the network from the input's norm to L2; of its
      logits, or of the features below `last_layer`. An input x normalised as (x - mean) / std
      contributes 1 / min(std).
    last_layer: float[K, D], the rows w of the last layer, or None.
    slack: bound of the error of each logit (float arithmetic, here and at x').

  Returns:
    A `Certificate`; the label is always the argmax; it abstains on NaN and infinity.

  Raises:
    ValueError: on a shape or constant that proves nothing.

  Example:
    >>> proof = margin([2.0, 0.7, -0.3])
    >>> int(proof.label), round(float(proof.radius), 6)
    (0, 0.919239)

  References:
    Tsuzuku, Sato & Sugiyama 2018 (arXiv:1802.04034); Singla, Singla & Feizi 2022
    (arXiv:2108.04062), last-layer form.
  """
  logits = np.asarray(logits, np.float64)
  finite = np.isfinite(logits).all(axis=-1) if logits.ndim else True
  logits = np.where(np.isfinite(logits), logits, 0.0)
  if logits.ndim < 1 or logits.shape[-1] < 1:
    raise ValueError(f'`logits` must be [..., K] with K >= 1, got shape {logits.shape}.')
  for name, value in (('lipschitz', lipschitz), ('slack', slack)):
    if not 0 <= value < np.inf:
      raise ValueError(f'`{name}` must be at least 0 and finite, got {value}.')
  label = np.argmax(logits, axis=-1)
  top = np.take_along_axis(logits, label[..., None], axis=-1)
  gap = top - logits - 2 * slack
  gap -= _RELATIVE * (np.abs(top) + np.abs(logits) + 2 * slack)
  reach = _distances(last_layer, label, logits.shape[-1]) * lipschitz * (1 + _RELATIVE)
  with np.errstate(divide='ignore', invalid='ignore'):  # Equal rows or L = 0: nothing can change.
    radius = np.where(gap > 0, gap / reach * (1 - _RELATIVE), 0.0)
  rival = np.arange(logits.shape[-1]) != label[..., None]
  radius = np.min(radius, axis=-1, where=rival, initial=np.inf)
  return certificate(label, np.where(finite, radius, np.nan))


def _distances(last_layer, label, num_classes):
  """Upper bounds of c_j: float64[..., K]."""
  if last_layer is None:
    return np.full((*label.shape, num_classes), np.sqrt(2.0))
  rows = np.asarray(last_layer, np.float64)
  if rows.ndim != 2 or len(rows) != num_classes or not np.isfinite(rows).all():
    raise ValueError(
      f'`last_layer` must be finite float[K, D] with one row a class, got shape {rows.shape} for '
      f'K={num_classes}.'
    )
  apart = np.sqrt(((rows[:, None] - rows) ** 2).sum(axis=-1))  # Sums of squares: no cancelling.
  return apart[label] * (1 + _RELATIVE)
