"""Double masking (PatchCleanser): a label from predictions under pairs of masks, and when it is proved.

Let every place of a patch lie inside some mask, and let all predictions on the clean image with two
masks, or one, be A. Whatever the patch holds, some mask r hides it, so that the prediction under r, and
under r with any second mask, is still A. Then double masking answers A: if the majority of the
one-mask predictions is another class, r disagrees with it and all its second masks agree on A; and a
mask that says d != A is never believed, for with r as its second mask the prediction is A.

No JAX here: predictions are made on the device, proved on the host.
"""

import math

import numpy as np

from certjax.certify._certificate import ABSTAIN, Certificate, certificate


def double_masking_from_votes(votes, *, patch) -> Certificate:
  r"""The label of double masking, and whether a patch could change it.

    M     = the class of most one-mask predictions
    label = d  if f(x, i, j) = d for some mask i, one class d != M, and all masks j;  M otherwise
    certified  if  f(x, i, j) = label  for all masks i, j

  The rule is the paper's: that all one-mask predictions agree (case I) is part of the second line.

  Args:
    votes: bool[..., V, K], the class that each view votes for, or none (NaN): V = R (R + 1) / 2 pairs
      i <= j of R masks, in the order (0, 0), (0, 1), ..., (0, R - 1), (1, 1), ...; (i, i) is the one mask i.
      A view in doubt votes for every rival that it might choose, and not for the label (`slack` of
      `certify.enumerated`); the label then holds for all its choices.
    patch: side of the patches that the masks are made for.

  Returns:
    A `Certificate`: radius `patch` or 0; `ABSTAIN` where no one-mask view votes.

  Raises:
    ValueError: if V is no number of pairs.

  Example:
    >>> votes = np.ones((2, 3, 1), bool) & [True, False]
    >>> votes[1, 1] = [False, True]  # One mask says 0, and the other; both together say 1.
    >>> double_masking_from_votes(votes, patch=5)
    Certificate(label=array([0, 0]), radius=array([5., 0.]))

  References:
    Xiang, Mahloujifar & Mittal 2022 (arXiv:2108.09135).
  """
  votes = np.asarray(votes, bool)
  pairs = votes[..., _pairs(votes.shape[-2]), :]
  one_mask = np.einsum('...rrk->...rk', pairs)
  # Deviation: of equal numbers the lowest class is the majority, as everywhere here; theirs is the last.
  majority = np.argmax(one_mask.sum(axis=-2), axis=-1)
  agreed = np.any(np.all(pairs, axis=-2), axis=-2)
  agreed &= np.arange(votes.shape[-1]) != majority[..., None]
  label = np.where(agreed.any(axis=-1), np.argmax(agreed, axis=-1), majority)
  own = np.arange(votes.shape[-1]) == label[..., None]
  proved = (votes == own[..., None, :]).all(axis=(-2, -1))
  label = np.where(one_mask.any(axis=(-2, -1)), label, ABSTAIN)
  return certificate(label, np.where(proved, patch, 0))


def _pairs(num_views):
  """int[R, R], where the view of two masks lies."""
  masks = (math.isqrt(8 * num_views + 1) - 1) // 2
  if masks < 1 or masks * (masks + 1) // 2 != num_views:
    raise ValueError(
      f'`votes` must hold one view for each pair of R masks, R (R + 1) / 2 of them, got {num_views}: '
      f'give those of `smoothing.masks`.'
    )
  where = np.zeros((masks, masks), np.int64)
  where[np.triu_indices(masks)] = np.arange(num_views)
  return np.maximum(where, where.T)
