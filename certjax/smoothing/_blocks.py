"""Blocks (derandomized smoothing against patches): every view shows one small square."""

from certjax.smoothing._protocol import Views
from certjax.smoothing._windows import window_views


def blocks(
  *, size, shape, patch=None, theta=None, top_one=False, per_location=True, null='multichannel',
  stride=1,
) -> Views:  # fmt: skip
  r"""All square blocks of an image, one after another, and an exact certificate against patches.

    view_ij(x) = (x, 1 - x) in the rows i, ..., i + s - 1 (mod H) and columns j, ..., j + s - 1 (mod W),
    and (0, 0) elsewhere

  There are H W views. A patch of side m meets a = min(m + s - 1, H) min(m + s - 1, W) of them. Votes and
  certificate are those of `bands`.

  Args:
    size: s, pixels of a side, fewer than the image has.
    shape: (H, W, C) of the images.
    patch, theta, top_one, per_location, null, stride: as in `bands`.

  Returns:
    `Views`, as `bands`.

  Raises:
    ValueError: as `bands`.

  Example:
    >>> views = blocks(size=4, shape=(28, 28, 1), patch=5, per_location=False)
    >>> views.num_views, float(views.decide([500, 372]).radius)  # (5 + 4 - 1)^2 = 64 blocks.
    (784, 5.0)

  References:
    Levine & Feizi 2020 (arXiv:2002.10733).
  """
  options = patch, theta, top_one, per_location, null, stride
  return window_views(('size', size, size), shape, *options)
