r"""The largest patch that cannot turn a sum of local features (robust masking, Xiang et al. 2021).

A network of small receptive field says of every cell of the image how much speaks for each class. A
patch meets few cells, all in one window, and leaves the others as they are, bit for bit. Robust
masking sums what speaks for a class and leaves out the window that speaks most: whatever the patch
adds lies in one window, and is left out.

Features become whole numbers first (`_steps`): sums, and so ties, are then exact, and the proof
is about the rule that is computed, not about one in real arithmetic near it.

No JAX here: features come from the device, and are summed and proved on the host.
"""

import functools
import math

import numpy as np

from certjax.certify._certificate import ABSTAIN, Certificate, certificate

_STEP, _MOST = 2.0**-20, 2.0**18  # Features are multiples of one, up to the other.
_CLIPPED_STEP = 2.0**-30
_THOUSAND = 1000  # Thresholds are whole thousandths.
_MOST_CELLS = 2**12  # Then no sum, times a thousand, leaves 63 bits.


def cells_met(patch, *, receptive_field, stride, cells) -> int:
  r"""The most cells along an axis that a patch meets, over all its places in the image.

  Cell i sees the pixels i s, ..., i s + r - 1. A patch from pixel a on meets those i of 0 .. n - 1 with

    a - r + 1 <= i s <= a + p - 1,   p + r - 1 values, of which the multiples of s count.

  The first at a = r - 1 is i = 0, so that ceil((p + r - 1) / s) of them fit; where the image is too
  short for that place, a patch at its end meets all cells.

  Args:
    patch: p, pixels of the patch along the axis.
    receptive_field: r, pixels that a cell sees.
    stride: s, pixels from a cell to the next.
    cells: n, along the axis; the image has no more than s - 1 pixels beyond the last.

  Returns:
    min(ceil((p + r - 1) / s), n).

  Example:
    >>> [cells_met(32, receptive_field=r, stride=8, cells=26) for r in (9, 17, 33)]
    [5, 6, 8]

  References:
    Xiang et al. 2021 (arXiv:2005.10884), section 3.
  """
  return min(math.ceil((patch + receptive_field - 1) / stride), cells)


def patch_from_masking(features, *, mask, windows, threshold=0.0, slack=None) -> Certificate:
  r"""The label of robust masking, and the largest patch that cannot turn it.

  With u = clip(features, 0, infinity), S_c its sum, M_c = max over masks m of the sum in m, and T the
  threshold,

    score_c = S_c - M_c   if M_c > T S_c,   S_c otherwise;      label y = argmax score, the lowest of equals.

  An adversary who writes what he likes into the cells of a window w, no larger than a mask, leaves

    score_y >= L_y = S - max_m m                 of u outside w, and if that masks nothing
               L_y = S - max_{m meets w} m       (he may have it masked by what he writes),
    score_c <= U_c / (1 - T),  U_c = S_c - max_{m contains w} m.

  Certified if for all w and all c != y: (1 - T) L_y >= U_c, and > for c < y. With T = 0 no better
  rule exists without further knowledge of the features.

  Args:
    features: float[..., h, w, K], what each cell says for each class.
    mask: (height, width) in cells of a mask; the rule is one for all patches.
    windows: P pairs (height, width), the cells that a patch of side 1, 2, ..., P meets; no larger than
      the mask.
    threshold: T in [0, 1), in whole thousandths: the share of a class's sum above which a window is
      suspicious.
    slack: None is about these features. Otherwise the certificate holds for every program whose
      features are less than slack / 2 away from these.

  Returns:
    A `Certificate` of the label and radius the largest certified side, 0 where no patch is. It abstains
    where a feature is NaN, and with `slack` where the label itself is in doubt.

  Raises:
    ValueError: for sizes, a threshold or a slack out of range.

  Example:
    >>> ones = np.ones((4, 4))
    >>> options = {'mask': (2, 2), 'windows': [(1, 1), (2, 2)]}
    >>> [patch_from_masking(np.stack([ones, v * ones], 2), **options).radius for v in (0.6, 0.7)]
    [array(2.), array(1.)]

  References:
    Xiang et al. 2021 (arXiv:2005.10884), algorithms 1 and 2; with T > 0 as their code is corrected
    in December 2021.
  """
  features = _checked(features, windows, slack)
  _check_mask(mask, windows, features.shape[:2])
  thousandths = _thousandths(threshold)

  lower, upper = (_steps(features, side) for side in _sides(slack))
  total, largest = upper.sum(axis=(0, 1)), _boxes(upper, mask)

  def bounds(label, window):
    own = _of_class(lower, label)
    own = _least(own, mask, window, None if slack is not None else thousandths)
    rivals = total - _largest_around(largest, mask, window)
    return own * (_THOUSAND - thousandths), rivals * _THOUSAND

  return _proved(features, _scores(_steps(features), mask, thousandths), bounds, windows, slack)


def patch_from_clipping(features, *, windows, slack=None) -> Certificate:
  r"""The label of clipped features (CBN), and the largest patch that cannot turn it.

    score_c = sum over cells of v_c,   v = tanh(features / 20 - 1);    label y = argmax, the lowest of equals

  Each of the |w| cells of a window moves a score by what it says now, to -1 or to 1:

    certified   if   S_y - w_y - |w| >= S_c - w_c + |w|   (> for c < y)   for all windows w, all c != y,

  with w_c the sum in w. No better rule exists without further knowledge of the features.

  Args:
    features, windows, slack: as in `patch_from_masking`.

  Returns:
    A `Certificate`, as `patch_from_masking`.

  Raises:
    ValueError: for sizes or a slack out of range.

  Example:
    >>> sure = np.stack([np.full((4, 4), 40.0), np.zeros((4, 4))], axis=2)
    >>> patch_from_clipping(sure, windows=[(1, 1), (2, 2), (3, 3)])
    Certificate(label=array(0), radius=array(2.))

  References:
    Zhang et al. 2020, Clipped BagNet. Their certificate, as PatchGuard's code has it, looks at the
    runner-up alone: another class may overtake it.
  """
  # Deviation: sums, where they take means: the same order.
  features = _checked(features, windows, slack)

  lower, upper = (_clipped(features, side) for side in _sides(slack))

  def bounds(label, window):
    own, most = _of_class(lower, label), math.prod(window) * round(1 / _CLIPPED_STEP)
    own = own.sum(axis=(0, 1)) - _boxes(own, window) - most
    return own, upper.sum(axis=(0, 1)) - _boxes(upper, window) + most

  return _proved(features, _clipped(features).sum(axis=(0, 1)), bounds, windows, slack)


def _proved(features, scores, bounds, windows, slack):
  """Labels and largest sides.

  Args:
    features: float[h, w, ..., K].
    scores: int64[..., K], of the rule.
    bounds: (label[...], window) -> (own[I, J, ...], rivals[I, J, ..., K]), whatever is written into the
      windows (i, j) of that size.
    windows, slack: as given.
  """
  label = np.argmax(scores, axis=-1)
  holds = functools.cache(lambda *window: _holds(label, *bounds(label, window)))
  unknown = np.isnan(features).any(axis=(0, 1, -1))
  if slack is not None:
    unknown |= ~holds(0, 0)
  radius = np.zeros(label.shape, np.int64)
  for side, window in enumerate(windows, 1):
    # A patch contains the smaller ones: what one of them turns, it turns.
    radius = np.where((radius == side - 1) & holds(*window), side, radius)
    if (radius < side).all():
      break
  return certificate(np.where(unknown, ABSTAIN, label), radius)


def _holds(label, own, rivals):
  """bool[...]: the label wins in every window, against every rival; the lowest class wins ties."""
  # Deviation: PatchGuard's code gives a tie to the highest class.
  classes, label = np.arange(rivals.shape[-1]), label[..., None]
  wins = own[..., None] >= rivals + (classes < label)
  return (wins | (classes == label)).all(axis=(0, 1, -1))


def _of_class(steps, label):
  """int64[h, w, ...]: the steps of each image's label."""
  return np.take_along_axis(steps, label[None, None, ..., None], axis=-1)[..., 0]


def _scores(steps, mask, thousandths):
  """int64[..., K]: what speaks for each class, less the suspicious window."""
  total, largest = steps.sum(axis=(0, 1)), _boxes(steps, mask).max(axis=(0, 1))
  return total - np.where(largest * _THOUSAND > thousandths * total, largest, 0)


def _least(steps, mask, window, thousandths):
  """int64[I, J, ...]: the label's least score, by window; `thousandths` None takes every mask for
  suspicious."""
  outside = steps.sum(axis=(0, 1)) - _boxes(steps, window)
  left = _boxes(steps, mask)[None, None] - _overlaps(steps, mask, window)
  largest = left.max(axis=(2, 3))
  if thousandths is None:
    return outside - largest
  meets = _meets(steps.shape[0], mask[0], window[0])[:, None, :, None]
  meets = meets & _meets(steps.shape[1], mask[1], window[1])[None, :, None, :]
  meets = meets.reshape(*meets.shape, *[1] * (left.ndim - 4))
  meeting = np.where(meets, left, 0).max(axis=(2, 3))
  return outside - np.where(largest * _THOUSAND > thousandths * outside, largest, meeting)


def _overlaps(steps, mask, window):
  """int64[I, J, k, l, ...]: sums over what window (i, j) and mask (k, l) share."""
  axes = [_shared(n, *sizes) for n, *sizes in zip(steps.shape[:2], mask, window, strict=True)]
  sums = _sums(steps, *[(first.ravel(), last.ravel()) for first, last in axes])
  return sums.reshape(*axes[0][0].shape, *axes[1][0].shape, *steps.shape[2:]).swapaxes(1, 2)


def _shared(cells, mask, window):
  """(first, last), int[I, k]: the cells that window i and mask k share along an axis; empty where none."""
  i, k = _starts(cells, window)[:, None], _starts(cells, mask)[None]
  first = np.maximum(i, k)
  return first, np.maximum(np.minimum(i + window, k + mask), first)


def _meets(cells, mask, window):
  first, last = _shared(cells, mask, window)
  return last > first


def _largest_around(sums, mask, window):
  """int64[I, J, ...]: the largest sum of a mask that contains window (i, j)."""
  if 0 in window:
    return sums.max(axis=(0, 1), keepdims=True)
  for axis in (0, 1):
    spare = mask[axis] - window[axis]
    padding = [(spare, spare) if axis == a else (0, 0) for a in range(sums.ndim)]
    padded = np.pad(sums, padding, constant_values=-1)  # Sums are 0 or more.
    sums = np.lib.stride_tricks.sliding_window_view(padded, spare + 1, axis).max(axis=-1)
  return sums


def _boxes(steps, size):
  """int64[I, J, ...]: sums in all boxes of a size."""
  starts = [_starts(n, side) for n, side in zip(steps.shape[:2], size, strict=True)]
  return _sums(steps, *[(first, first + side) for first, side in zip(starts, size, strict=True)])


def _starts(cells, size):
  return np.arange(cells - size + 1) if size else np.zeros(1, np.int64)


def _sums(steps, rows, columns):
  """int64[A, B, ...]: sums over cells first .. last - 1 of both axes."""
  total = np.zeros((steps.shape[0] + 1, steps.shape[1] + 1, *steps.shape[2:]), np.int64)
  total[1:, 1:] = steps.cumsum(axis=0).cumsum(axis=1)
  (top, bottom), (left, right) = rows, columns
  strip = total[bottom] - total[top]
  return strip[:, right] - strip[:, left]


def _sides(slack):
  """What is added to features, and to their steps: for the label's bound, and for the rivals'."""
  if slack is None:
    return (0.0, 0), (0.0, 0)
  # A step more: for the rounding of this sum, and of tanh.
  return (-slack / 2, -1), (slack / 2, 1)


def _steps(features, side=(0.0, 0)):
  """int64[h, w, ..., K]: features as multiples of `_STEP`."""
  # Deviation: rounded to 2^-20 and cut at 2^18, so that sums are exact.
  moved = np.clip(np.nan_to_num(features, posinf=_MOST, neginf=0) + side[0], 0, _MOST)
  steps = np.rint(moved / _STEP).astype(np.int64) + side[1]
  return np.clip(steps, 0, round(_MOST / _STEP))


def _clipped(features, side=(0.0, 0)):
  """int64[h, w, ..., K]: features between -1 and 1, as multiples of `_CLIPPED_STEP`."""
  moved = np.tanh((np.nan_to_num(features, posinf=np.inf, neginf=-np.inf) + side[0]) / 20 - 1)
  steps = np.rint(moved / _CLIPPED_STEP).astype(np.int64) + side[1]
  return np.clip(steps, -round(1 / _CLIPPED_STEP), round(1 / _CLIPPED_STEP))


def _thousandths(threshold):
  whole = round(threshold * _THOUSAND) if 0 <= threshold < 1 else -1
  if whole < 0 or abs(threshold * _THOUSAND - whole) > 1e-9 or whole == _THOUSAND:
    raise ValueError(
      f'`threshold` must lie in [0, 1), in whole thousandths, got {threshold}: 0 masks every class.'
    )
  return whole


def _checked(features, windows, slack):
  """float64[h, w, ..., K]: the features, once they fit everything else, cells first."""
  features = np.asarray(features, np.float64)
  if features.ndim < 3 or not 1 <= math.prod(features.shape[-3:-1]) <= _MOST_CELLS:
    raise ValueError(
      f'`features` must be [..., h, w, K] of 1 .. {_MOST_CELLS} cells, got shape {features.shape}.'
    )
  cells = features.shape[-3:-1]
  if any(not 1 <= side <= n for w in windows for side, n in zip(w, cells, strict=True)):
    raise ValueError(f'`windows` must lie inside the {cells} cells, got {list(windows)}.')
  if slack is not None and not 0 <= slack < np.inf:
    raise ValueError(f'`slack` must be a difference of features, 0 or more, got {slack}.')
  return np.moveaxis(features, (-3, -2), (0, 1))


def _check_mask(mask, windows, shape):
  if any(not 1 <= side <= n for side, n in zip(mask, shape, strict=True)):
    raise ValueError(f'`mask` must lie inside the {shape} cells, got {mask}.')
  if any(side > most for w in windows for side, most in zip(w, mask, strict=True)):
    raise ValueError(
      f'`windows` must be no larger than `mask`={mask}, got {list(windows)}: what a mask cannot cover, '
      f'it does not stop.'
    )
