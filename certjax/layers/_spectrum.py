"""Singular values of convolutions, and upper bounds of their norms that are proofs.

All for stride 1 and HWIO kernels, on the host in float64. Exact for circular padding: one
SVD a frequency (Sedghi et al.). For zero padding on n x n, the convolution is a compression of
the circular one on n + floor(k / 2), where no tap wraps into the image: its norm is no
larger. (On n itself the circular norm is no bound.) For every size and both paddings: the four
reshapes of Singla & Feizi, or the supremum over all frequencies. Power iteration gives a
lower bound, good for training only.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_EPS = float(np.finfo(np.float64).eps)
_TINY = 1e-12


def singular_values(kernel, shape):
  """All singular values of a circular convolution, exact.

    union over f of sv(K_f),  K_f = sum_t K[t] exp(2 pi i f . t / n)

  Args:
    kernel: float[h, w, C, D].
    shape: (H, W) of the image; a kernel larger than it wraps around.

  Returns:
    float64[H W min(C, D)], descending.

  Raises:
    ValueError: if the kernel has not 4 axes or is not finite.

  Example:
    >>> singular_values(np.ones((3, 3, 1, 1)), (4, 4))[:2].round(9).tolist()
    [9.0, 3.0]

  References:
    Sedghi, Gupta & Long 2018 (arXiv:1805.10408).
  """
  kernel = _checked(kernel)
  rows = [
    np.linalg.svd(block, compute_uv=False).ravel() for block in _blocks(kernel, shape, shape[0])
  ]
  return np.sort(np.concatenate(rows))[::-1]


def circular_norm(kernel, shape, *, steps=None) -> float:
  """The norm of a circular convolution: the largest of `singular_values`, rounded up.

  Args:
    kernel: float[h, w, C, D].
    shape: (H, W).
    steps: None for SVD; a number for an upper bound by as many Gram iterations a frequency, which
      is several times faster for many channels.

  Returns:
    A Python float.

  Example:
    >>> round(circular_norm(np.ones((3, 3, 1, 1)), (4, 4)), 9)
    9.0
  """
  kernel = _checked(kernel)  # Frequencies -f and f are conjugate: half of the rows do.
  return max(_norm(block, steps) for block in _blocks(kernel, shape, shape[0] // 2 + 1))


def zero_padded_norm(kernel, shape, *, steps=None) -> float:
  """An upper bound of the norm of a zero-padded ('SAME') convolution.

    ||J_zero(H, W)|| <= ||J_circular(H + floor(h / 2), W + floor(w / 2))||

  Args:
    kernel: float[h, w, C, D].
    shape: (H, W) of the image.
    steps: as for `circular_norm`.

  Returns:
    A Python float, rounded up.

  Example:
    >>> round(zero_padded_norm(np.ones((3, 3, 1, 1)), (4, 4)), 9)
    9.0
  """
  kernel = _checked(kernel)
  larger = tuple(n + k // 2 for n, k in zip(shape, kernel.shape[:2], strict=True))
  return circular_norm(kernel, larger, steps=steps)


def supremum_norm(kernel, *, grid=32, steps=None) -> float:
  r"""An upper bound of the norm for every image size, circular or zero padded.

    sup_w ||K(w)|| <= max over the grid / (cos(pi d_h / grid) cos(pi d_w / grid)),

  d = floor(k / 2). K(w) is a trigonometric polynomial of degree d along each axis: by
  Riesz's lemma it falls no faster from its maximum than cos(d w), and a grid point is never farther
  than pi / grid. At 32 points and 3 taps that is 1% above the supremum; the reshapes may be 30%.

  Args:
    kernel: float[h, w, C, D].
    grid: frequencies an axis, more than 2 d.
    steps: as for `circular_norm`.

  Returns:
    A Python float, rounded up.

  Raises:
    ValueError: if the grid is too coarse.

  Example:
    >>> 9 <= supremum_norm(np.ones((3, 3, 1, 1))) <= 9.1
    True

  References:
    Riesz 1914; Ehlich & Zeller 1964.
  """
  kernel = _checked(kernel)
  degrees = [k // 2 for k in kernel.shape[:2]]
  if grid <= 2 * max(degrees):
    raise ValueError(
      f'`grid` must exceed twice the reach of the kernel, got grid={grid} for {kernel.shape[:2]} '
      f'taps: the default is 32.'
    )
  shrink = math.prod(math.cos(math.pi * d / grid) for d in degrees)
  return _upwards(circular_norm(kernel, (grid, grid), steps=steps) / shrink)


def fantastic_four(kernel, *, steps=None):
  """Four upper bounds of the norm for every image size, circular or zero padded.

    ||J|| <= sqrt(h w) min(||R||, ||S||, ||T||, ||U||)

  with the reshapes R: (D h) x (C w), S: (D w) x (C h), T: D x (C h w), U: (D h w) x C.
  For a skew filter R and S have one norm, T and U another.

  Args:
    kernel: float[h, w, C, D].
    steps: None for full SVD; a number for upper bounds by Gram iteration.

  Returns:
    float64[4], in the order above, sqrt(h w) included, rounded up.

  Raises:
    ValueError: if the kernel has not 4 axes or is not finite.

  Example:
    >>> fantastic_four(np.ones((3, 3, 1, 1))).round(6).tolist()
    [9.0, 9.0, 9.0, 9.0]

  References:
    Singla & Feizi 2021 (arXiv:1911.10258), Theorem 1.
  """
  kernel = _checked(kernel)
  root = math.sqrt(kernel.shape[0] * kernel.shape[1])
  reshapes = (reshape_r(kernel), reshape_r(kernel.swapaxes(0, 1)), reshape_t(kernel),
              reshape_t(kernel.swapaxes(2, 3)))  # fmt: skip
  return np.array([_upwards(root * _norm(matrix, steps)) for matrix in reshapes])


def norm_upper(kernel, *, steps=None) -> float:
  """The least of the `fantastic_four`: one bound for every image size and both paddings.

  Args:
    kernel: float[h, w, C, D].
    steps: of `fantastic_four`.

  Returns:
    A bound of the spectral norm.

  Example:
    >>> round(norm_upper(np.ones((3, 3, 1, 1))), 6)
    9.0
  """
  return float(fantastic_four(kernel, steps=steps).min())


def gram_norm(matrix, *, steps) -> float:
  r"""An upper bound of the largest singular value of a matrix, or of a stack of them.

    G_0 = A^H A or A A^H,  G_{t+1} = G_t^2,    ||A|| <= ||G_{steps - 1}||_F^(1 / 2^steps)

  Every step holds and none is larger than the one before; n steps leave a factor
  rank^(1 / 2^(steps + 1)).

  Args:
    matrix: float or complex[..., M, N].
    steps: 1 or more.

  Returns:
    A Python float, the largest of the stack, rounded up.

  Raises:
    ValueError: if `steps` < 1.

  Example:
    >>> [round(gram_norm(np.eye(4), steps=n), 3) for n in (1, 2, 6)]
    [1.414, 1.189, 1.011]

  References:
    Delattre et al. 2023 (arXiv:2305.16173).
  """
  if steps < 1:
    raise ValueError(f'`steps` of the Gram iteration must be at least 1, got {steps}; usual is 6.')
  adjoint = np.conj(np.swapaxes(matrix, -1, -2))
  gram = matrix @ adjoint if matrix.shape[-2] <= matrix.shape[-1] else adjoint @ matrix
  log = np.zeros(gram.shape[:-2])  # log of the factor taken out of gram
  for step in range(steps):
    if step:
      gram, log = gram @ gram, 2 * log
    size = np.linalg.norm(gram, axis=(-2, -1))
    size = np.where(size > 0, size, 1.0)  # A zero matrix stays zero.
    gram, log = gram / size[..., None, None], log + np.log(size)
  norms = np.where(np.linalg.norm(gram, axis=(-2, -1)) > 0, np.exp(log / 2.0**steps), 0.0)
  return _upwards(float(np.max(norms)), max(matrix.shape[-2:]))


def power_iteration(matrix, v, *, steps):
  """Moves `v` towards the top right singular vector; ||A v|| only ever under-estimates the norm.

  For training; differentiate u^T A v with both vectors held fixed.

  Args:
    matrix: float[M, N].
    v: float[N].
    steps: how many, at least 1.

  Returns:
    (u, v): float[M] and float[N], of norm 1, no gradients.

  Example:
    >>> u, v = power_iteration(jnp.diag(jnp.array([2.0, 1.0])), jnp.ones(2), steps=20)
    >>> round(float(u @ v), 4)
    1.0
  """
  matrix = jax.lax.stop_gradient(matrix)
  multiply = lambda a, b: jnp.matmul(a, b, precision='highest')
  unit = lambda a: a / jnp.maximum(jnp.linalg.norm(a), _TINY)

  def step(v, _):
    return unit(multiply(matrix.T, unit(multiply(matrix, v)))), None

  v, _ = jax.lax.scan(step, jax.lax.stop_gradient(v), length=steps)
  return unit(multiply(matrix, v)), v


def reshape_r(kernel):
  """(C w) x (D h)."""
  h, w, inputs, outputs = kernel.shape
  return kernel.transpose(2, 1, 3, 0).reshape(inputs * w, outputs * h)


def reshape_t(kernel):
  """(h w C) x D."""
  return kernel.reshape(-1, kernel.shape[-1])


def _norm(matrix, steps):
  if steps is not None:
    return gram_norm(matrix, steps=steps)
  top = np.linalg.svd(matrix, compute_uv=False).max(initial=0.0)
  return _upwards(float(top), max(matrix.shape[-2:]))


def _upwards(value, size=1):
  """`value`, and what products and SVDs of matrices of that size can lose in float64.

  An inner product errs by n eps |a| |b|, so a Gram matrix by n eps ||A||_F^2 <= n^1.5 eps ||G||_F;
  LAPACK's SVD errs by less. 100 eps cover the sums over the taps.
  """
  return float(value * (1 + (100 + 8 * size**1.5) * _EPS))


def _blocks(kernel, shape, count):
  """The matrices complex128[W, C, D] of the frequencies of one row, for `count` rows."""
  down, across = (
    np.exp(2j * np.pi * np.outer(np.arange(n), np.arange(k)) / n)
    for n, k in zip(shape, kernel.shape[:2], strict=True)
  )
  for phases in down[:count]:
    yield np.einsum('wb,bcd->wcd', across, np.tensordot(phases, kernel, 1))


def _checked(kernel):
  kernel = np.asarray(kernel, np.float64)
  if kernel.ndim != 4 or not np.isfinite(kernel).all():
    raise ValueError(
      f'`kernel` must be finite, of shape (height, width, in, out), got shape {kernel.shape}'
      f'{"" if np.isfinite(kernel).all() else " with values that are not finite"}.'
    )
  return kernel
