"""The method "Lipschitz margin" as the method table and the records see it: no noise, no samples."""

from typing import NamedTuple


class Margin(NamedTuple):
  """A certificate read off the logits of a network with a proved constant (`certify.margin`).

  It has neither `sample` nor `radius`: nothing perturbs the image.

  Attributes:
    norm: in which the Lipschitz constant holds.
    unit: of the radius.
    shape: None: images of every shape.
  """

  norm: str = 'l2'
  unit: str = 'pixel value'
  shape: tuple | None = None


def lipschitz(*, norm='l2') -> Margin:
  """The margin of a Lipschitz network as its certificate.

    radius = min_{j != y} (f_y - f_j) / (c_j L),   c_j = sqrt(2), or ||w_y - w_j||_2

  Args:
    norm: 'l2', the norm in which layers and networks state their constants.

  Returns:
    A `Margin`; `evaluate.exact_network` and `evaluate.margin_certificate` prove it.

  Raises:
    ValueError: for another norm.

  Example:
    >>> lipschitz()
    Margin(norm='l2', unit='pixel value', shape=None)

  References:
    Tsuzuku, Sato & Sugiyama 2018 (arXiv:1802.04034); Singla & Feizi 2021 (arXiv:2105.11417).
  """
  if norm != 'l2':
    raise ValueError(
      f"`norm` of the lipschitz method is 'l2', in which the layers' constants hold; got {norm!r}: "
      f"an L2 radius holds in 'l1' as it is, and in 'linf' divided by the root of the number of pixel "
      f'values.'
    )
  return Margin(norm)
