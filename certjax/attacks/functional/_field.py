"""Fields on a grid: interpolation between its points, warping by it, and how rough it is.

One multilinear interpolation serves colours (a grid over colour space) and warps (the image is the
grid); one variation serves as the smoothness of both.
"""

import itertools
import math

import jax.numpy as jnp

_TINY = {'axis': 1e-10, 'diagonal': 1e-8}
"""Under the root: of mister_ed and ReColorAdv, and of stAdv."""


def interpolate(grid, position, *, padding='edge'):
  """Multilinear interpolation.

  The derivative at a grid point is the one to its right.

  Args:
    grid: float[R_1, ..., R_D, C].
    position: float[..., D] in grid points, 0 .. R_d - 1.
    padding: what lies outside of the grid: 'edge', its nearest point, or 'zeros'.

  Returns:
    float[..., C]; at a grid point its values, bit for bit.

  Example:
    >>> interpolate(jnp.array([[0.0], [4.0]]), jnp.array([[0.25], [2.0]])).tolist()
    [[1.0], [4.0]]
  """
  sizes = grid.shape[:-1]
  low = jnp.floor(position)
  share, low = position - low, low.astype(jnp.int32)
  total = jnp.zeros((*position.shape[:-1], grid.shape[-1]), grid.dtype)
  for corner in itertools.product((0, 1), repeat=len(sizes)):
    places = [low[..., d] + up for d, up in enumerate(corner)]
    weights = [share[..., d] if up else 1 - share[..., d] for d, up in enumerate(corner)]
    weight = math.prod(weights[1:], start=weights[0])
    if padding == 'zeros':
      for place, size in zip(places, sizes, strict=True):
        weight = jnp.where((place >= 0) & (place < size), weight, 0)
    places = [jnp.clip(place, 0, size - 1) for place, size in zip(places, sizes, strict=True)]
    total = total + weight[..., None] * grid[tuple(places)]
  return total


def warp(x, flow, *, padding='edge'):
  """x_adv[i, j] = x[i + flow[i, j, 0], j + flow[i, j, 1]], between pixels bilinearly.

  Args:
    x: float[H, W, C].
    flow: float[H, W, 2] in pixels: down, and to the right.
    padding: 'edge', the nearest pixel; or 'zeros', black, where a place more than half a pixel
      outside of the image is moved back to that.

  Returns:
    float[H, W, C], convex combinations of pixels of x (and of black).

  Example:
    >>> right = jnp.broadcast_to(jnp.array([0.0, 0.5]), (1, 3, 2))
    >>> warp(jnp.array([[[0.0], [1.0], [0.5]]]), right).ravel().tolist()
    [0.5, 0.75, 0.5]
    >>> warp(jnp.array([[[0.0], [1.0], [0.5]]]), right, padding='zeros').ravel().tolist()
    [0.5, 0.75, 0.25]
  """
  places = [jnp.arange(size, dtype=x.dtype) for size in x.shape[:2]]
  places = [place + flow[..., d] for d, place in enumerate(jnp.meshgrid(*places, indexing='ij'))]
  if padding == 'zeros':
    places = [jnp.clip(p, -0.5, size - 0.5) for p, size in zip(places, x.shape[:2], strict=True)]
  return interpolate(x, jnp.stack(places, axis=-1), padding=padding)


def variation(field, *, neighbours='axis'):
  """How much a field differs from itself next to it.

    sum over points and neighbours of sqrt(|f - f'|^2 + tiny)

  Each pair counts twice. A point of the border is its own neighbour outside, so that a field of zeros
  has the variation (number of terms) sqrt(tiny).

  Args:
    field: float[R_1, ..., R_D, C].
    neighbours: 'axis', the 2 D nearest, with tiny = 1e-10; or 'diagonal', the 2^D at the corners, with
      tiny = 1e-8.

  Returns:
    Scalar; its gradient is finite everywhere.

  Example:
    >>> round(float(variation(jnp.zeros((16, 32, 32, 3)))), 4)
    0.983

  References:
    Laidlaw & Feizi 2019 (arXiv:1906.00001), section 3.3; Xiao et al. 2018 (arXiv:1801.02612), equation 4.
  """
  depth = field.ndim - 1
  padded = jnp.pad(field, [(1, 1)] * depth + [(0, 0)], mode='edge')
  total = jnp.zeros((), field.dtype)
  for offset in _offsets(depth, neighbours):
    part = tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, field.shape[:-1], strict=True))
    square = jnp.sum((padded[part] - field) ** 2, axis=-1)
    total = total + jnp.sum(jnp.sqrt(square + _TINY[neighbours]))
  return total


def check_choice(name, value, choices):
  """Raises a ValueError unless `value` is one of the `choices`.

  Example:
    >>> check_choice('padding', 'wrap', ('edge', 'zeros'))
    Traceback (most recent call last):
    ...
    ValueError: `padding` must be one of 'edge', 'zeros', got padding='wrap'.
  """
  if value not in choices:
    names = ', '.join(map(repr, choices))
    raise ValueError(f'`{name}` must be one of {names}, got {name}={value!r}.')


def _offsets(depth, neighbours):
  if neighbours == 'diagonal':
    return list(itertools.product((-1, 1), repeat=depth))
  one = lambda d, sign: tuple(sign if d == axis else 0 for axis in range(depth))
  return [one(d, sign) for d in range(depth) for sign in (-1, 1)]
