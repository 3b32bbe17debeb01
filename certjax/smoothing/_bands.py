"""Bands (derandomized smoothing against patches): every view shows a few columns, or rows."""

from certjax.smoothing._protocol import Views
from certjax.smoothing._windows import window_views

_AXES = ('column', 'row')


def bands(
  *, width, shape, patch=None, theta=None, top_one=False, per_location=True, axis='column',
  null='multichannel', stride=1,
) -> Views:  # fmt: skip
  r"""All bands of an image, one after another, and an exact certificate against patches.

    view_j(x) = (x, 1 - x) in the columns j, ..., j + s - 1 (mod W), and (0, 0) elsewhere
    n_c = #{j : softmax(f(view_j(x)))_c >= theta},  A = argmax n, the lowest of equals

  A patch m columns wide meets a = min(m + s - 1, W) bands and leaves the other views as they are. It is
  certified if those bands cannot turn the vote, wherever it lies (`certify.patch_from_votes`). The
  rule of the paper looks at the counts alone, n_A - n_c >= 2 a + 1{c < A} for all c
  (`certify.patch_from_counts`), and certifies no more.

  With a `stride` t bands start at the columns 0, t, 2 t, ... alone: ceil(W / t) views. Unless t divides W, a
  patch meets more of them in some places than in others; a is then the most of all places, found by
  trying them, and each place has its own number in the rule of places.

  Args:
    width: s, columns of a band, fewer than the image has.
    shape: (H, W, C) of the images.
    patch: m, the largest side to look for; by default as large as the image.
    theta: the softmax that a vote needs; 0.2 by default. A view may vote for several classes, or none.
    top_one: one vote a view instead, for the largest logit.
    per_location: keep every vote, and look at each place of the patch; False counts them on the device.
    axis: 'column', or 'row' for bands of rows.
    null: what the model sees: 'multichannel', the 2 C channels above; or 'mask', the C + 1 channels (x, 1)
      in the band and zeros elsewhere, of which a vision transformer drops the hidden tokens
      (`models.ViT`).
    stride: t, columns from the start of a band to that of the next.

  Returns:
    `Views` in norm 'patch', unit 'patch side': the radius is the side m of a square patch (of any
    height, for columns) with any content, anywhere in the image. 0: the label
    alone. An image for which no view votes abstains.

  Raises:
    ValueError: unless 1 <= `width` < W and 1 <= `patch` <= min(H, W), whole numbers; for a `theta` outside
      (0, 1), or one beside `top_one`; for an unknown `axis` or `null`; unless 1 <= `stride` < W.

  Example:
    >>> views = bands(width=2, shape=(28, 28, 1), patch=5, per_location=False)
    >>> views.num_views, views.decide([20, 8, 0])  # 5 + 2 - 1 = 6 bands: 20 - 6 >= 8 + 6.
    (28, Certificate(label=array(0), radius=array(5.)))
    >>> bands(width=19, stride=10, shape=(224, 224, 3), patch=32).num_views
    23

  References:
    Levine & Feizi 2020 (arXiv:2002.10733); masks and strides: Salman et al. 2022 (arXiv:2110.07719),
    whose a = ceil((m + s - 1) / t) is too small for 224 columns, s = 19 and t = 10.
  """
  if axis not in _AXES:
    raise ValueError(f'`axis` must be one of {", ".join(_AXES)}; got {axis!r}.')
  sizes = (None, width) if axis == 'column' else (width, None)
  options = patch, theta, top_one, per_location, null, stride
  return window_views(('width', *sizes), shape, *options)
