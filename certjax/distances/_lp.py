"""Norms of the difference of two images, in pixel values."""

import jax.numpy as jnp


def lp(p):
  """|x2 - x1|_p, over all values of an image.

  Args:
    p: 1, 2 or infinity (`jnp.inf`).

  Returns:
    A `Distance`. Where the images are equal its gradient is 0.

  Raises:
    ValueError: for another `p`.

  Example:
    >>> x1, x2 = jnp.zeros((2, 1, 1)), jnp.array([[[0.75]], [[1.0]]])
    >>> [float(lp(p)(x1, x2)) for p in (1, 2, jnp.inf)]
    [1.75, 1.25, 1.0]
  """
  if p not in _NORMS:
    raise ValueError(f'`p` must be 1, 2 or infinity, got {p!r}: choose the nearest of them.')
  return lambda x1, x2: _NORMS[p](x2 - x1)


def length(v):
  """Euclidean norm over all axes, whose gradient at 0 is 0.

  Args:
    v: float[...].

  Returns:
    Scalar.

  Example:
    >>> float(length(jnp.array([[3.0], [4.0]])))
    5.0
  """
  square = jnp.sum(v**2)
  moved = square != 0  # NaN stays NaN.
  return jnp.where(moved, jnp.sqrt(jnp.where(moved, square, 1)), 0)


_NORMS = {1: lambda v: jnp.sum(jnp.abs(v)), 2: length, jnp.inf: lambda v: jnp.max(jnp.abs(v))}
