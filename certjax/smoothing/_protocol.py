"""What every smoothing distribution is: a sampler and the radius that it buys."""

import math
from collections.abc import Callable
from typing import NamedTuple

COUNTED = ('pixels', 'features', 'samples', 'patch side')
"""Units of whole numbers, in which a certificate of radius 0 says something."""


class Smoothing(NamedTuple):
  """A distribution around an image and the radius it certifies in one norm.

  Attributes:
    sample: `(key, x[...]) -> x~[...]`, ONE image; batching is `jax.vmap`. x~ may leave
      [0, 1] or have other channels; its shape comes from `jax.eval_shape`.
    radius: `(p_a, p_b=None, *, x=None) -> float64[...]` on the host, vectorised, rounded
      down. `p_a` bounds the top class's probability from below, `p_b` every other's from
      above; None means 1 - p_a. 0 where nothing is proved.
    norm: 'l2', 'l1', 'linf', 'lp', 'l0', 'wasserstein-l1', ...
    unit: 'pixel value', 'pixels', 'features', 'mass', 'patch side' or 'samples'. In a unit of
      `COUNTED` radii are whole numbers, and p_a > p_b proves the label at x itself: radius 0.
    shape: (H, W, C) where sampler or certificate depend on it, else None.
  """

  sample: Callable
  radius: Callable
  norm: str
  unit: str
  shape: tuple | None = None


class Views(NamedTuple):
  """A finite family of views of an image: every one is evaluated, nothing is estimated.

  Attributes:
    num_views: how many there are.
    norm: of the certificate, as in `Smoothing`.
    unit: of the certificate, as in `Smoothing`.
    shape: (H, W, C) of the images.
    view: `(x[...], index) -> x~[...]`, ONE image and an int32 in 0..num_views-1.
    sample: `(key, x[...]) -> x~[...]`, a random view, for training.
    vote: `(logits[V, K]) -> bool[V, K]`, row by row: the classes a view votes for.
    decide: `(counts int[..., K]) -> Certificate`, or of bool[..., V, K] where `needs` is
      'votes'; exact integers on the host.
    needs: 'counts' (votes are summed on the device) or 'votes' (each one is kept).
    quantization: the certificate holds for images on the grid of 1 / quantization, and x must
      lie on it; None where it holds for all real images.
    doubt: `(logits[V, K], slack) -> bool[V, K]`, which entries of `vote` are another in some program
      whose logits are less than slack / 2 away; None where `vote` is for the largest logit alone.
  """

  num_views: int
  norm: str
  unit: str
  shape: tuple
  view: Callable
  sample: Callable
  vote: Callable
  decide: Callable
  needs: str
  quantization: int | None = None
  doubt: Callable | None = None


def own_parameter(name, value, sigma, per_sigma) -> float:
  """A law's own parameter, given itself or as `sigma`, the standard deviation of a coordinate.

  Args:
    name: of the parameter, for the error.
    value: of the parameter, or None.
    sigma: standard deviation in pixel values, or None.
    per_sigma: the parameter's value at sigma = 1.

  Returns:
    The parameter.

  Raises:
    ValueError: unless exactly one of the two is given, positive and finite.

  Example:
    >>> own_parameter('scale', None, 2.0, 0.5)
    1.0
  """
  if (value is None) == (sigma is None):
    raise ValueError(
      f'give exactly one of `{name}` and `sigma` (the standard deviation of a coordinate, '
      f'{name} = {per_sigma:.4g} sigma), got {name}={value}, sigma={sigma}.'
    )
  given, number = (name, value) if sigma is None else ('sigma', sigma)
  number = float(number)
  if not (0 < number < math.inf):
    raise ValueError(
      f'`{given}` is in pixel values of [0, 1] and must be positive and finite, got '
      f'{given}={number}.'
    )
  return number if sigma is None else per_sigma * number


def image_shape(shape) -> tuple:
  """The shape of an image as a tuple of ints.

  Raises:
    ValueError: unless it is a sequence of positive integers.

  Example:
    >>> image_shape([32, 32, 3])
    (32, 32, 3)
  """
  try:
    sizes = tuple(int(size) for size in shape)
  except TypeError:
    sizes = ()
  if not sizes or min(sizes) < 1 or sizes != tuple(shape):
    raise ValueError(f'`shape` must be the shape of an image, (H, W, C), got shape={shape}.')
  return sizes
