"""Certified accuracy as a function of the radius, and what can be said about it.

The curve counts an image at radius r when its label is certified, correct, and holds at least up to
r; abstentions and misses stay in the denominator. Two kinds of chance surround it and are kept
apart: a certificate may be wrong (`high_probability_accuracy`, for these images), and other images
could have been drawn (`band`, Dvoretzky-Kiefer-Wolfowitz, for the population).
"""

import numpy as np
import scipy


def proved_radius(certificate, labels):
  """float64[N]: the radius up to which the true label is proved, -inf where it is not."""
  label, labels = np.asarray(certificate.label), np.asarray(labels)
  if label.shape != labels.shape or label.ndim != 1:
    raise ValueError(
      f'`labels` has shape {labels.shape}, the certificate {label.shape}: both must be [N]'
    )
  if not label.size:
    raise ValueError('no images: an accuracy needs at least one')
  correct = (label == labels) & (label >= 0)
  return np.where(correct, np.asarray(certificate.radius, np.float64), -np.inf)


def certified_accuracy(certificate, labels, radii):
  """Fraction of all images whose true label is certified up to a radius.

    accuracy(r) = mean over all images of [label correct and radius >= r]

  Inclusive, since a certificate holds on the closed ball: at r = 0 every correct one counts.

  Args:
    certificate: `Certificate` of arrays [N].
    labels: int[N], the true labels.
    radii: float[...], in the unit of the certificate.

  Returns:
    float64[...] of the shape of `radii`.

  Raises:
    ValueError: if shapes differ, there is no image, or a radius is NaN.

  Example:
    >>> from certjax.certify import certificate
    >>> proved = certificate([3, 1, 7, -1], [0.5, 0.9, 0.25, 0.0])
    >>> certified_accuracy(proved, [3, 2, 7, 0], [0.0, 0.25, 0.5, 0.75])
    array([0.5 , 0.5 , 0.25, 0.  ])

  References:
    Cohen et al. 2019 (arXiv:1902.02918), section 4.
  """
  radii = np.asarray(radii, np.float64)
  if np.isnan(radii).any():
    raise ValueError(f'`radii` must be numbers, got {radii}')
  proved = np.sort(proved_radius(certificate, labels))
  # A radius of -inf asks nothing of the radius, yet misses must not count.
  below = np.searchsorted(proved, np.maximum(radii, 0.0), side='left')
  return (proved.size - below) / proved.size


def clean_accuracy(certificate, labels):
  """Certified accuracy at radius 0: correct and not abstained, over all images.

  Args:
    certificate: `Certificate` of arrays [N].
    labels: int[N], the true labels.

  Returns:
    In [0, 1].

  Raises:
    ValueError: as `certified_accuracy`.

  Example:
    >>> from certjax.certify import certificate
    >>> clean_accuracy(certificate([3, -1, 7, 1], [0.5, 0.0, 0.25, 0.1]), [3, 2, 7, 2])
    0.5
  """
  return float(certified_accuracy(certificate, labels, 0.0))


def average_certified_radius(certificate, labels):
  """Mean over all images of the certified radius, 0 where the label is wrong or abstained.

  It is the area under the certified accuracy curve. Infinite if one radius is.

  Args:
    certificate: `Certificate` of arrays [N].
    labels: int[N], the true labels.

  Returns:
    float.

  Example:
    >>> from certjax.certify import certificate
    >>> average_certified_radius(certificate([3, 1], [0.5, 0.9]), [3, 2])
    0.25

  References:
    Zhai et al. 2020 (MACER, arXiv:2001.02378).
  """
  return float(np.mean(np.maximum(proved_radius(certificate, labels), 0.0)))


def median_radius(certificate, labels):
  """The largest radius to which at least half of all images are certified and correct.

  It is the median over all images of the certified radius, where a wrong or abstained image lies
  below every other: of an even number, the upper of the two in the middle.

  Args:
    certificate: `Certificate` of arrays [N].
    labels: int[N], the true labels.

  Returns:
    float; None where more than half are wrong or abstained ("N/A" in the papers' tables).

  Example:
    >>> from certjax.certify import certificate
    >>> proof = certificate([3, 1, 7], [8, 9, 2])
    >>> median_radius(proof, [3, 1, 7]), median_radius(proof, [0, 0, 7])
    (8.0, None)

  References:
    Levine & Feizi 2020 (arXiv:1911.09272), median certified robustness.
  """
  proved = np.sort(proved_radius(certificate, labels))
  median = float(proved[proved.size // 2])
  return median if median >= 0 else None


def abstention_rate(certificate):
  """Fraction of images for which nothing is certified.

  Args:
    certificate: `Certificate` of arrays [N].

  Returns:
    In [0, 1].

  Raises:
    ValueError: if there is no image.

  Example:
    >>> from certjax.certify import certificate
    >>> abstention_rate(certificate([3, -1, 7, 1], [0.5, 0.0, 0.25, 0.1]))
    0.25
  """
  label = np.asarray(certificate.label)
  if not label.size:
    raise ValueError('no images: a rate needs at least one')
  return float(np.mean(label < 0))


def high_probability_accuracy(accuracy, num_images, *, alpha=0.001, rho=0.001):
  r"""Certified accuracy that holds, for these images, with probability at least 1 - rho.

  Each certificate may be wrong with probability alpha, so an observed accuracy may contain false
  certificates. The accuracy is lowered, down to 0, by the larger of the published allowance

    alpha + sqrt(alpha (1 - alpha) ln(1/rho) / m) + ln(1/rho) / (3 m)

  and the share that Binomial(m, alpha) exceeds with probability at most rho.

  Args:
    accuracy: float[...], observed certified accuracies.
    num_images: m, the images they are means over.
    alpha: failure probability of each certificate.
    rho: failure probability of the statement.

  Returns:
    float64[...].

  Raises:
    ValueError: if there is no image, or a probability is out of range.

  Example:
    >>> high_probability_accuracy([0.572, 0.372], 500).round(6)
    array([0.56268, 0.36268])

  References:
    Cohen et al. 2019 (arXiv:1902.02918), whose analysis code has the formula.
  """
  if num_images < 1 or not 0 <= alpha < 1 or not 0 < rho < 1:
    raise ValueError(
      'need `num_images` >= 1, 0 <= `alpha` < 1 and 0 < `rho` < 1, '
      f'got {num_images}, {alpha} and {rho}'
    )
  log = np.log(1 / rho)
  published = alpha + np.sqrt(alpha * (1 - alpha) * log / num_images) + log / (3 * num_images)
  # Deviation: Bernstein's inequality has 2 under the root. Without it the published allowance is
  # passed too often (alpha .01 at 427 images, .001 at 10,000); the binomial quantile takes over.
  exact = scipy.stats.binom.isf(rho, num_images, alpha) / num_images
  return np.maximum(np.asarray(accuracy, np.float64) - max(published, exact), 0.0)


def band(certificate, labels, radii, *, level=0.95):
  r"""Simultaneous confidence band of the certified accuracy curve.

  By the Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant, the curve over N images is
  at all radii at once within

    sqrt(ln(2 / (1 - level)) / (2 N))

  of its expectation, with probability at least `level`. It speaks of the population that the images
  were drawn from independently (a test set, or every 20th image of it, stands for that by
  assumption) and of the certification procedure run anew on each: the share of new images that this
  procedure would certify. It says nothing about wrong certificates (`high_probability_accuracy`).

  Args:
    certificate: `Certificate` of arrays [N].
    labels: int[N], the true labels.
    radii: float[...]; the band holds for all radii, listed or not.
    level: confidence of the whole band, two-sided.

  Returns:
    (lower, upper), float64[...] each, clipped to [0, 1].

  Raises:
    ValueError: if `level` is outside (0, 1), and as `certified_accuracy`.

  Example:
    >>> from certjax.certify import certificate
    >>> lower, upper = band(certificate([1] * 200, [0.5] * 200), [1] * 200, [0.5, 0.6])
    >>> lower.round(3), upper.round(3)
    (array([0.904, 0.   ]), array([1.   , 0.096]))

  References:
    Massart 1990, The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality.
  """
  if not 0 < level < 1:
    raise ValueError(f'`level` must be in (0, 1), got {level}')
  accuracy = certified_accuracy(certificate, labels, radii)
  half = np.sqrt(np.log(2 / (1 - level)) / (2 * np.size(labels)))
  return np.clip(accuracy - half, 0, 1), np.clip(accuracy + half, 0, 1)
