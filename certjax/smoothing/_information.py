"""How much of the image a discrete law shows: mutual information of a uniform image and what is seen.

Levine & Feizi 2020 compare ablation with Lee et al.'s random replacement by it (supplement): at equal
information, ablation certifies more pixels.
"""

import math


def ablation_information(*, keep: int, values: int = 256) -> float:
  """Bits about a uniform image that `keep` shown pixels give.

    I = k log2 |S|

  since the subset is independent of the image, and shows k of its values as they are.

  Args:
    keep: k, pixels shown.
    values: |S|, values that a pixel may have: 256 for grey levels, 256^3 for colours, 2 for binary images.

  Returns:
    Bits an image.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> ablation_information(keep=45)
    360.0

  References:
    Levine & Feizi 2020 (arXiv:1911.09272), supplement.
  """
  _check_values(values)
  if keep < 0 or keep != int(keep):
    raise ValueError(f'`keep` is a number of pixels, 0 or more, got keep={keep}.')
  return keep * math.log2(values)


def discrete_information(num_pixels: int, *, keep: float, values: int = 256) -> float:
  """Bits about a uniform image in what `discrete` noise leaves.

    I = d (log2 |S| + kappa log2 kappa + (1 - kappa) log2((1 - kappa) / (|S| - 1)))

  Args:
    num_pixels: d.
    keep: kappa, the probability that a pixel is kept.
    values: |S|, as in `ablation_information`; `discrete(levels=K)` has K + 1.

  Returns:
    Bits an image; 0 where kappa = 1 / |S|, and d log2 |S| where it is 1.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> round(discrete_information(784, keep=0.8, values=2), 2)
    218.01

  References:
    Levine & Feizi 2020 (arXiv:1911.09272), supplement; Lee et al. 2019 (arXiv:1906.04948).
  """
  _check_values(values)
  if num_pixels < 0 or num_pixels != int(num_pixels):
    raise ValueError(f'`num_pixels` must be a whole number, 0 or more, got {num_pixels}.')
  if not 0 <= keep <= 1:
    raise ValueError(f'`keep` is a probability, got keep={keep}.')
  other = (1 - keep) / (values - 1)
  uncertain = _plogp(keep) + (values - 1) * _plogp(other)
  return num_pixels * max(0.0, math.log2(values) + uncertain)


def _plogp(p):
  return p * math.log2(p) if p > 0 else 0.0


def _check_values(values):
  if values < 2 or values != int(values):
    raise ValueError(f'`values` of a pixel are 2 or more, got values={values}.')
