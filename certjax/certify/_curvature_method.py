"""The method "curvature" as the method table and the records see it: no noise, no samples."""

from typing import NamedTuple


class Curved(NamedTuple):
  """A certificate by second-order bounds of a smooth network (`bounds.crc`).

  It has neither `sample` nor `radius`: nothing perturbs the image.

  Attributes:
    norm: 'l2'.
    unit: of the radius.
    shape: None: images of every shape.
    num_steps: of the search for the nearest point of each rival, at most.
  """

  norm: str
  unit: str
  shape: tuple | None
  num_steps: int


def crc(*, norm='l2', num_steps=60) -> Curved:
  """The curvature certificate of a fully connected network with smooth activations, as a method.

    radius = min_{j != y} max_{0 <= eta < 1 / m_yj} sqrt(2 min_x [1/2 ||x - x_0||^2 + eta (f_y - f_j)(x)])

  Args:
    norm: 'l2', in which the curvature is bounded.
    num_steps: of the search for each rival, at most; fewer prove less, never more.

  Returns:
    A `Curved`; `evaluate.curved_network` and `evaluate.curved_certificate` prove it.

  Raises:
    ValueError: for another norm, or a number out of range.

  Example:
    >>> crc()
    Curved(norm='l2', unit='pixel value', shape=None, num_steps=60)

  References:
    Singla & Feizi 2020 (arXiv:2006.00731).
  """
  if norm != 'l2':
    raise ValueError(
      f"`norm` of the crc method is 'l2', in which the curvature is bounded; got {norm!r}: an L2 radius "
      f"holds in 'l1' as it is, and in 'linf' divided by the root of the number of pixel values."
    )
  if num_steps < 1 or num_steps != int(num_steps):
    raise ValueError(f'`num_steps` must be a whole number, 1 or more, got {num_steps}.')
  return Curved(norm, 'pixel value', None, int(num_steps))
