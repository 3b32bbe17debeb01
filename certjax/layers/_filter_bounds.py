"""Upper bounds of a convolution's norm for every image size and both paddings, in float64.

The Gram filter G = K^T * K has taps G_t = G_{-t}^T, and at the frequency z the convolution's
K(z)^* K(z) is sum_t G_t z^t. Hence

  ||J||^2 <= lambda_max(G_0) + sum_{t != 0} ||G_t||_2        tight where K is nearly orthogonal,
  ||J||^2 <= max_i sum_j q_j / q_i sum_t |G_t|_ij            for all q > 0 (Gershgorin).

A zero-padded convolution is a compression of the one on all of Z^2, a circular one a
restriction of its frequencies: the bounds hold for both.
"""

import numpy as np

ROUNDING = 1 + 1e-10
"""What float64 sums and singular values of the sizes at hand can be off by, with room to spare."""


def gram_filter(kernel):
  """The taps of K^T * K, between the input channels.

  Args:
    kernel: float[h, w, C, D].

  Returns:
    float64[2 h - 1, 2 w - 1, C, C]; the centre holds G_0.

  Example:
    >>> gram_filter(np.ones((3, 1, 1, 1)))[:, 0, 0, 0].tolist()
    [1.0, 2.0, 3.0, 2.0, 1.0]
  """
  kernel = np.asarray(kernel, np.float64)
  height, width, channels = kernel.shape[:3]
  gram = np.zeros((2 * height - 1, 2 * width - 1, channels, channels))
  for s in range(height):
    for t in range(width):
      tap = kernel[height - 1 - s, width - 1 - t]
      gram[s : s + height, t : t + width] += tap @ np.swapaxes(kernel, 2, 3)
  return gram


def absolute_gram(kernel):
  """sum_t |G_t|: what AOL, SLL and Gershgorin's bound sum over.

  Args:
    kernel: float[h, w, C, D].

  Returns:
    float64[C, C].

  Example:
    >>> absolute_gram(np.array([[[[1.0, -1.0], [1.0, 1.0]]]])).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
  """
  return np.abs(gram_filter(kernel)).sum((0, 1))


def nearly_orthogonal_norm(kernel):
  """The first bound above, on the side with fewer channels.

  Args:
    kernel: float[h, w, C, D].

  Returns:
    float, an upper bound of the Lipschitz constant.

  Example:
    >>> round(nearly_orthogonal_norm(np.eye(2)[None, None]), 6)
    1.0
  """
  kernel = np.asarray(kernel, np.float64)
  if kernel.shape[2] > kernel.shape[3]:  # ||J^T|| = ||J||
    kernel = np.swapaxes(kernel[::-1, ::-1], 2, 3)
  gram = gram_filter(kernel)
  if not np.isfinite(gram).all():
    return float('inf')
  norms = np.linalg.norm(gram, 2, axis=(2, 3))
  return float(np.sqrt(norms.sum()) * ROUNDING)


def gershgorin_norm(kernel, weights):
  """The second bound above: max_i sum_j weights_j / weights_i sum_t |G_t|_ij, at its root.

  Args:
    kernel: float[h, w, C, D].
    weights: float[C], positive.

  Returns:
    float, an upper bound of the Lipschitz constant.

  Example:
    >>> round(gershgorin_norm(np.ones((1, 1, 1, 2)), np.ones(1)) ** 2, 6)
    2.0
  """
  weights = np.asarray(weights, np.float64)
  rows = absolute_gram(kernel) @ weights / weights
  return float(np.sqrt(rows.max()) * ROUNDING)


def operator_norm(matrices):
  """The largest singular value of a stack of matrices, by full SVD in float64.

  Args:
    matrices: float or complex[..., m, n].

  Returns:
    float, rounded up; `inf` if an entry is not finite.

  Example:
    >>> round(operator_norm(np.array([[3.0, 0.0], [4.0, 0.0]])), 6)
    5.0
  """
  matrices = np.asarray(matrices)
  matrices = matrices.astype(np.complex128 if np.iscomplexobj(matrices) else np.float64)
  if not np.isfinite(matrices).all():
    return float('inf')
  return float(np.linalg.svd(matrices, compute_uv=False).max() * ROUNDING)
