"""The methods "interval bounds against a patch" and "against few pixels", as the method table sees them."""

from certjax.certify._bounded import Bounded

_DETAILS = {'largest': False, 'slope': 'adaptive', 'num_steps': 0, 'chunk': 1}  # Of other bounds.


def patch_ibp(*, side=None) -> Bounded:
  """Interval bounds against a square window anywhere in the image, as a method.

    certified   if   min over places, and over what is put there, of f_y - f_j > 0   for all j != y

  Args:
    side: of the window, in pixels.

  Returns:
    A `Bounded` of unit 'patch side', whose `eps` is the side (`bounds.verify_patch`).

  Raises:
    ValueError: without a side, and for one that is no whole number of pixels.

  Example:
    >>> patch_ibp(side=5).unit
    'patch side'

  References:
    Chiang et al. 2020 (arXiv:2003.06693).
  """
  side = _whole('side', side, "the patch's side")
  return Bounded('patch', 'patch side', None, side, 'patch-ibp', **_DETAILS)


def sparse_ibp(*, pixels=None) -> Bounded:
  """Interval bounds against any few pixels of the image, as a method.

  Args:
    pixels: how many are replaced, all channels of each.

  Returns:
    A `Bounded` of norm 'l0', whose `eps` is their number (`bounds.verify_sparse`).

  Raises:
    ValueError: without a number, and for one that is not whole and positive.

  Example:
    >>> sparse_ibp(pixels=4).norm, sparse_ibp(pixels=4).eps
    ('l0', 4.0)

  References:
    Chiang et al. 2020 (arXiv:2003.06693).
  """
  pixels = _whole('pixels', pixels, 'how many pixels the adversary replaces')
  return Bounded('l0', 'pixels', None, pixels, 'sparse-ibp', **_DETAILS)


def _whole(name, value, what) -> float:
  if value is None:
    raise ValueError(f'say {what}: `--parameters {name} 5`, or `{name}=5`.')
  if not 1 <= value < float('inf') or value != int(value):
    raise ValueError(f'`{name}` must be a whole number of pixels, 1 or more, got {value}.')
  return float(value)
