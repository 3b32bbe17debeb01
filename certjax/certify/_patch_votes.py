"""The largest patch that cannot turn a vote over windows of the image.

Each view shows one window and hides the rest; windows may start at any place of an axis and wrap
around its end. A patch of m pixels along an axis of n meets min(m + s - 1, n) windows of s pixels,
wherever it lies, and every other view is the same bit for bit. So an adversary rewrites the votes of
the windows that it meets, and of no others: the certificate is a matter of integers
(Levine & Feizi 2020).

No JAX here: votes are counted on the device, proved on the host.
"""

import numpy as np

from certjax.certify._certificate import ABSTAIN, Certificate, certificate


def windows_met(patch, window, positions) -> int:
  """How many of the windows along one axis a patch meets.

  Args:
    patch: pixels of the patch along the axis.
    window: pixels of a window.
    positions: places where a window may start: the length of the axis, or 1 for windows that span it.

  Returns:
    min(patch + window - 1, positions).

  Example:
    >>> windows_met(5, 2, 28), windows_met(42, 25, 299), windows_met(5, 28, 1)
    (6, 66, 1)
  """
  return min(patch + window - 1, positions)


def patch_from_counts(counts, affected) -> Certificate:
  """The largest patch that cannot turn the vote, from the votes of each class alone.

  A patch that meets `a` windows takes at most a votes from the label A and gives at most a to a rival:

    certified   if   n_A - n_c >= 2 a + 1{c < A}   for all c != A

  Args:
    counts: int[..., K], how many views vote for each class; a view may vote for several, or none.
    affected: int[P], windows that a patch of side 1, 2, ..., P meets, never decreasing.

  Returns:
    A `Certificate` of label A, the class of most votes and lowest of equals, and radius the largest
    certified side, 0 where no patch is; `ABSTAIN` where nobody votes.

  Example:
    >>> patch_from_counts([[20, 8, 0], [8, 20, 0], [0, 0, 0]], [2, 3, 4, 5, 6])
    Certificate(label=array([ 0,  1, -1]), radius=array([5., 4., 0.]))

  References:
    Levine & Feizi 2020 (arXiv:2002.10733).
  """
  counts = np.asarray(counts, np.int64)
  label = _winner(counts)
  radius = np.searchsorted(2 * np.asarray(affected, np.int64), _lead(counts, label), side='right')
  return _proved(counts, label, radius)


def patch_from_votes(votes, *, positions, windows, patch) -> Certificate:
  """The largest patch that cannot turn the vote, looked for at each place.

  For a patch that meets the `a` windows M, and n the votes of all the others,

    certified   if   n_A - n_c >= a + 1{c < A}   for all c != A, at every place of the patch,

  since all of M may vote for c alone. Without further knowledge of the classifier it is the best
  possible rule, and it certifies whatever `patch_from_counts` does.

  Args:
    votes: bool[..., V, K], the classes that each view votes for; views number rows * columns, row by
      row of their windows' first pixels.
    positions: (rows, columns), the places where windows start; 1 where a window spans the axis.
    windows: (height, width) of a window in pixels.
    patch: the largest side that is tried.

  Returns:
    A `Certificate`, as `patch_from_counts`.

  Example:
    >>> votes = np.zeros((1, 8, 2), bool)
    >>> votes[0, :6, 0] = votes[0, 6:, 1] = True
    >>> where = {'positions': (1, 8), 'windows': (8, 1), 'patch': 3}
    >>> patch_from_votes(votes, **where), patch_from_counts(votes.sum(axis=1), [1, 2, 3])
    (Certificate(label=array([0]), radius=array([2.])), Certificate(label=array([0]), radius=array([2.])))

  References:
    Levine & Feizi 2020 (arXiv:2002.10733), whose rule is `patch_from_counts`.
  """
  votes = np.asarray(votes, bool)
  counts = votes.sum(axis=-2, dtype=np.int64)
  label = _winner(counts)
  grid = votes.reshape(*votes.shape[:-2], *positions, votes.shape[-1])

  def places(side):
    inside, met = grid, 1
    for axis, (starts, window) in enumerate(zip(positions, windows, strict=True)):
      inside = _sums(inside, axis - 3, side, window, starts)
      met *= windows_met(side, window, starts)
    return inside.reshape(*label.shape, -1, counts.shape[-1]), met

  return _place_by_place(counts, label, map(places, range(1, patch + 1)))


def windows_at_places(patch, window, length, stride):
  """Which windows along one axis a patch meets, where windows start at 0, stride, 2 stride, ...

  The number of the papers, ceil((patch + window - 1) / stride), is too small where the stride does not
  divide the axis and windows wrap around its end: then it depends on the place.

  Args:
    patch, window, stride: in pixels.
    length: of the axis; a window that spans it is the only one.

  Returns:
    bool[N, ceil(length / stride)], a row for each place of the patch in the image; places that meet the
    same windows are one row.

  Example:
    >>> int(windows_at_places(32, 19, 224, 10).sum(axis=1).max())
    6
  """
  positions = 1 if window == length else -(-length // stride)
  first = np.arange(positions)[:, None] * stride
  shows = (np.arange(length) - first) % length < window
  total = np.pad(np.cumsum(shows, axis=1), ((0, 0), (1, 0)))
  return np.unique((total[:, patch:] > total[:, :-patch]).T, axis=0)


def patch_from_places(votes, *, met) -> Certificate:
  """`patch_from_votes`, for windows that a patch meets in different numbers at different places.

  Args:
    votes: bool[..., V, K], as there.
    met: for a patch of side 1, 2, ...: which rows and which columns of windows it meets, bool[N, rows] and
      bool[M, columns], as `windows_at_places`.

  Returns:
    A `Certificate`, as `patch_from_votes`.

  Example:
    >>> votes = np.ones((1, 4, 1), bool) & [True, False]
    >>> met = [(np.ones((1, 1), bool), windows_at_places(side, 2, 8, 2)) for side in (1, 2, 3, 4)]
    >>> patch_from_places(votes, met=met)
    Certificate(label=array([0]), radius=array([3.]))
  """
  votes = np.asarray(votes, bool)
  counts = votes.sum(axis=-2, dtype=np.int64)
  label = _winner(counts)

  def places(axes):
    rows, columns = (axis.astype(np.int64) for axis in axes)
    grid = votes.reshape(*label.shape, rows.shape[1], columns.shape[1], -1).astype(np.int64)
    inside = np.einsum('nr,...rck->...nck', rows, grid)
    inside = np.einsum('mc,...nck->...nmk', columns, inside)
    given = np.multiply.outer(rows.sum(axis=1), columns.sum(axis=1)).ravel()
    return inside.reshape(*label.shape, -1, counts.shape[-1]), given

  return _place_by_place(counts, label, map(places, met))


def _place_by_place(counts, label, sides):
  """The largest side whose patches leave the label a lead, wherever they lie.

  Args:
    counts: int64[..., K].
    label: int64[...].
    sides: for a patch of side 1, 2, ... and its places: the votes of the windows met, int64[..., P, K], and
      how many windows these are.
  """
  radius = np.zeros(label.shape, np.int64)
  for side, (inside, met) in enumerate(sides, 1):
    kept = (_lead(counts[..., None, :] - inside, label[..., None]) >= met).all(axis=-1)
    # A patch contains the smaller ones: what one of them turns, it turns.
    radius = np.where((radius == side - 1) & kept, side, radius)
    if (radius < side).all():
      break
  return _proved(counts, label, radius)


def _sums(votes, axis, patch, window, positions):
  """Votes of the windows met along an axis, which becomes the places of the patch (inside the image)."""
  if positions == 1:
    return votes.astype(np.int64)
  first = (np.arange(positions - patch + 1) - window + 1) % positions
  total = np.cumsum(np.concatenate([votes, votes], axis=axis, dtype=np.int64), axis=axis)
  total = np.concatenate([np.zeros_like(total.take([0], axis=axis)), total], axis=axis)
  last = first + windows_met(patch, window, positions)
  return total.take(last, axis=axis) - total.take(first, axis=axis)


def _winner(counts):
  """The class of most votes, the lowest of equals."""
  return np.argmax(counts, axis=-1)


def _lead(counts, label):
  """Votes by which the label leads, less one against a rival that wins ties: min over rivals."""
  rival = np.arange(counts.shape[-1])
  own = np.broadcast_to(label[..., None], (*counts.shape[:-1], 1))
  lead = np.take_along_axis(counts, own, axis=-1) - counts - (rival < own)
  alone = np.iinfo(np.int64).max  # No rival among one class.
  return np.where(rival == own, alone, lead).min(axis=-1)


def _proved(counts, label, radius):
  nobody = counts.sum(axis=-1) == 0  # Of views that are all NaN, and of hesitant ones.
  return certificate(np.where(nobody, ABSTAIN, label), radius)
