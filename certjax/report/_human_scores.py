"""How well a distance of images agrees with people: the two scores of Zhang et al. 2018."""

import numpy as np


def two_alternatives(first, second, preferred):
  """2AFC: of two distortions of an image, does the distance rank them as people do?

    score = mean of: 1 - j where d0 < d1,  j where d1 < d0,  1/2 where they are equal

  Args:
    first: float[N], d0, distance of the image to the first distortion.
    second: float[N], d1, to the second.
    preferred: float[N] in [0, 1], j, share of judges who found the second one nearer.

  Returns:
    float in [0, 1]. The judges themselves reach mean of max(j, 1 - j).

  Raises:
    ValueError: for arrays of different shapes, NaN, or shares outside [0, 1].

  Example:
    >>> round(two_alternatives([0.1, 0.5, 0.3], [0.2, 0.4, 0.3], [0.2, 0.6, 0.9]), 4)
    0.6333

  References:
    Zhang, Isola, Efros, Shechtman & Wang 2018 (arXiv:1801.03924), section 2.
  """
  first, second, preferred = _checked('preferred', preferred, first=first, second=second)
  agree = np.where(first < second, 1 - preferred, np.where(second < first, preferred, 0.5))
  return float(np.mean(agree))


def just_noticeable(distance, same):
  """JND: does the distance put the pairs that people take for the same below the others?

  Average precision: pairs in order of their distance, precision and recall of "same" after each, with
  shares for counts; precision is made monotone from the right, and integrated over recall. Pairs of
  equal distance are counted together.

  Args:
    distance: float[N], of each pair.
    same: float[N] in [0, 1], share of judges who took the two for the same image.

  Returns:
    float in [0, 1].

  Raises:
    ValueError: as in `two_alternatives`, or where nobody took any pair for the same.

  Example:
    >>> round(just_noticeable([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2 / 3, 1 / 3, 2 / 3, 0]), 4)
    0.8333

  References:
    Zhang, Isola, Efros, Shechtman & Wang 2018 (arXiv:1801.03924), section 2; VOC's average precision.
  """
  distance, same = _checked('same', same, distance=distance)
  if not same.sum() > 0:
    raise ValueError('`same` must not be 0 everywhere: there is nothing to recall.')
  order = np.argsort(distance, kind='stable')
  distance, same = distance[order], same[order]
  last = np.append(distance[1:] != distance[:-1], True)  # Of each group of equal distances.
  hits, pairs = np.cumsum(same)[last], np.flatnonzero(last) + 1
  precision = np.maximum.accumulate((hits / pairs)[::-1])[::-1]
  return float(np.sum(np.diff(hits / hits[-1], prepend=0) * precision))


def _checked(name, shares, **distances):
  """float64[N] of each, distances first."""
  distances = {key: np.asarray(value, np.float64) for key, value in distances.items()}
  shares = np.asarray(shares, np.float64)
  for key, value in distances.items():
    if value.ndim != 1 or value.shape != shares.shape or not value.size:
      raise ValueError(
        f'`{key}` must hold one distance for each share of `{name}`, got shapes {value.shape} and '
        f'{shares.shape}.'
      )
    if np.isnan(value).any():
      raise ValueError(
        f'`{key}` must hold no NaN, got one at {np.isnan(value).argmax()}: drop the pair.'
      )
  if not ((shares >= 0) & (shares <= 1)).all():
    raise ValueError(f'`{name}` must be shares in [0, 1], got {shares.min()} .. {shares.max()}.')
  return *distances.values(), shares
