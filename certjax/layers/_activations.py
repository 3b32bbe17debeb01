"""Activations with Lipschitz constant 1, most of them norm preserving.

Pairs and groups are taken across the parts of the channel axis (x[..., :C/2] with
x[..., C/2:]), as in the published SOC code. MaxMin, GroupSort and the Householder activations
are continuous and piecewise orthogonal, hence 1-Lipschitz with ||f(x)|| = ||x||; LipPool is
a signed distance, beta-Abs flips signs, and the L2 pooling is a norm of each window.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn


def _parts(x, count):
  """Splits the channels into `count` equal runs, on a new axis before the last."""
  if x.shape[-1] % count:
    raise ValueError(
      f'the channels must split into {count} equal parts, got {x.shape[-1]} channels; '
      f'choose a multiple of {count}.'
    )
  return x.reshape(*x.shape[:-1], count, x.shape[-1] // count)


def _pairs(x):
  parts = _parts(x, 2)
  return parts[..., 0, :], parts[..., 1, :]


def _per_pair(theta, x):
  """Angles along the last axis, with the rank of x, for strict rank promotion."""
  return theta.reshape((1,) * (x.ndim - 1) + theta.shape[-1:]).astype(x.dtype)


def group_sort(x, *, group_size):
  """Sorts every group of `group_size` channels downwards: f(x) is a permutation of x.

  Group i holds the channels i, i + C / group_size, i + 2 C / group_size, ...

  Args:
    x: float[..., C].
    group_size: channels a group; it divides C.

  Returns:
    float[..., C].

  Raises:
    ValueError: if `group_size` does not divide C.

  Example:
    >>> group_sort(jnp.array([1.0, -2.0, 3.0, 0.5]), group_size=4).tolist()
    [3.0, 1.0, 0.5, -2.0]

  References:
    Anil et al. 2019 (arXiv:1811.05381).
  """
  return jnp.flip(jnp.sort(_parts(x, group_size), axis=-2), axis=-2).reshape(x.shape)


def max_min(x):
  """MaxMin: (max(a, b), min(a, b)) of every pair; GroupSort with groups of two.

  Args:
    x: float[..., C], C even.

  Returns:
    float[..., C].

  Raises:
    ValueError: if C is odd.

  Example:
    >>> max_min(jnp.array([1.0, -2.0, 3.0, 0.5])).tolist()
    [3.0, 0.5, 1.0, -2.0]

  References:
    Anil et al. 2019 (arXiv:1811.05381); Chernodub & Nowicki 2016 (arXiv:1604.02313).
  """
  a, b = _pairs(x)
  return jnp.concatenate([jnp.maximum(a, b), jnp.minimum(a, b)], -1)


def householder(x, theta):
  """Householder activation of order 1 (HH1): reflects the pairs on one side of a line.

  A pair (a, b) with a sin(theta / 2) > b cos(theta / 2) is mirrored at the line of
  angle theta / 2, to (a cos(theta) + b sin(theta), a sin(theta) - b cos(theta)); others stay.
  theta = pi / 2 gives (min, max).

  Args:
    x: float[..., C], C even.
    theta: float[C / 2], an angle a pair.

  Returns:
    float[..., C].

  Raises:
    ValueError: if C is odd.

  Example:
    >>> householder(jnp.array([3.0, 1.0]), jnp.array([jnp.pi / 2])).round(6).tolist()
    [1.0, 3.0]

  References:
    Singla et al. 2022 (arXiv:2108.04062).
  """
  a, b = _pairs(x)
  theta = _per_pair(theta, x)
  cos, sin = jnp.cos(theta), jnp.sin(theta)
  reflect = a * jnp.sin(theta / 2) > b * jnp.cos(theta / 2)
  first = jnp.where(reflect, a * cos + b * sin, a)
  return jnp.concatenate([first, jnp.where(reflect, a * sin - b * cos, b)], -1)


def householder2(x, theta):
  """Householder activation of order 2 (HH2): four sectors, each with its isometry.

  With z the polar angle of a pair less theta_0 / 2, in [0, 2 pi):

    z < theta_1 / 2                     the identity,
    z < (theta_1 + theta_2) / 2         the mirror at the angle (theta_0 + theta_1) / 2,
    z < pi + theta_2 / 2                the rotation by -theta_2,
    otherwise                           the mirror at the angle theta_0 / 2.

  Neighbouring sectors agree on the ray between them.

  Args:
    x: float[..., C], C even.
    theta: float[3, C / 2], angles (theta_0, theta_1, theta_2), clipped to [0, 2 pi].

  Returns:
    float[..., C].

  Raises:
    ValueError: if C is odd.

  Example:
    >>> theta = jnp.array([[0.4], [1.1], [2.0]])
    >>> [round(float(v), 5) for v in householder2(jnp.array([0.5, -1.0]), theta)]
    [0.07111, 1.11577]

  References:
    Singla et al. 2022 (arXiv:2108.04062).
  """
  a, b = _pairs(x)
  theta_0, theta_1, theta_2 = (_per_pair(t, x) for t in jnp.clip(theta, 0, 2 * jnp.pi))
  # The last sector is the `else`: a z that rounds to 2 pi belongs to it, not to none.
  z = jnp.mod(jnp.arctan2(b, a) - theta_0 / 2, 2 * jnp.pi)
  mirrored, turned = z < (theta_1 + theta_2) / 2, z < jnp.pi + theta_2 / 2
  angle = jnp.where(mirrored, theta_0 + theta_1, jnp.where(turned, -theta_2, theta_0))
  sign = jnp.where(mirrored | ~turned, -1.0, 1.0).astype(x.dtype)  # -1: a mirror
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  first, second = a * cos - sign * b * sin, a * sin + sign * b * cos
  same = z < theta_1 / 2
  return jnp.concatenate([jnp.where(same, a, first), jnp.where(same, b, second)], -1)


def lip_pool(x, theta):
  """LipPool: a pair becomes one number, its signed distance to the rays of angles +-theta / 2.

    -a sin(theta / 2) + |b| cos(theta / 2)      nearest to the inside of a ray,
    ||(a, b)||                                  nearest to the origin.

  Args:
    x: float[..., C], C even.
    theta: float[C / 2], clipped to [0, pi].

  Returns:
    float[..., C / 2].

  Raises:
    ValueError: if C is odd.

  Example:
    >>> round(lip_pool(jnp.array([1.0, -2.0]), jnp.array([1.0])).item(), 5)
    1.27574

  References:
    Singla & Feizi 2022 (arXiv:2211.08453).
  """
  a, b = _pairs(x)
  half = _per_pair(jnp.clip(theta, 0, jnp.pi), x) / 2
  # The angle itself: the sign of a projection onto the ray is lost to rounding at theta = pi.
  beside = jnp.arctan2(jnp.abs(b), a) < half + jnp.pi / 2
  square = jnp.where(beside, 1, a**2 + b**2)  # a safe gradient where the norm is not taken
  return jnp.where(beside, jnp.abs(b) * jnp.cos(half) - a * jnp.sin(half), jnp.sqrt(square))


def beta_abs(x, *, beta=1.0):
  """Absolute value of the first round(beta C) channels; the others pass.

  Args:
    x: float[..., C].
    beta: share of the channels, in [0, 1].

  Returns:
    float[..., C].

  Raises:
    ValueError: if `beta` is outside [0, 1].

  Example:
    >>> beta_abs(jnp.array([-1.0, -2.0]), beta=0.5).tolist()
    [1.0, -2.0]

  References:
    LipNeXt (arXiv:2601.18513).
  """
  if not 0 <= beta <= 1:
    raise ValueError(f'`beta` is a share of the channels in [0, 1], got beta={beta}.')
  count = round(beta * x.shape[-1])
  return jnp.concatenate([jnp.abs(x[..., :count]), x[..., count:]], -1)


def l2_pool(x, *, window):
  """Euclidean norm of every channel over windows that do not overlap: norm preserving.

  Args:
    x: float[B, H, W, C].
    window: (int, int); it divides (H, W).

  Returns:
    float[B, H / h, W / w, C].

  Raises:
    ValueError: if `window` does not divide the image.

  Example:
    >>> l2_pool(jnp.full((1, 2, 2, 1), 3.0), window=(2, 2)).tolist()
    [[[[6.0]]]]

  References:
    LipNeXt (arXiv:2601.18513).
  """
  (_, height, width, _), (h, w) = x.shape, window
  if height % h or width % w:
    raise ValueError(f'`window` must divide the image, got {window} for {height} x {width}.')
  blocks = x.reshape(-1, height // h, h, width // w, w, x.shape[-1])
  square = jnp.sum(blocks**2, (2, 4))
  return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


class _Activation(nn.Module):
  """1-Lipschitz by theorem: nothing to normalise, nothing to cache but the angles."""

  def lipschitz(self, variables):
    """1: what the real function has; rounding is the certificate's affair."""
    return 1.0

  def materialize(self, variables):
    """See `certjax.layers.materialize`."""
    return jax.tree_util.Partial(self.apply, variables)


class MaxMin(_Activation):
  """`max_min` as a layer.

  Example:
    >>> MaxMin().apply({}, jnp.array([1.0, 2.0])).tolist()
    [2.0, 1.0]
  """

  def __call__(self, x, train=False):
    """float[..., C] -> float[..., C]."""
    return max_min(x)


class GroupSort(_Activation):
  """`group_sort` as a layer.

  Attributes:
    group_size: channels a group.

  Example:
    >>> GroupSort(3).apply({}, jnp.array([1.0, 3.0, 2.0])).tolist()
    [3.0, 2.0, 1.0]
  """

  group_size: int = 2

  def __call__(self, x, train=False):
    """float[..., C] -> float[..., C]."""
    return group_sort(x, group_size=self.group_size)


class Householder(_Activation):
  """`householder` (order 1) or `householder2` (order 2) with learned angles.

  Attributes:
    order: 1 or 2.

  Example:
    >>> variables = Householder().init(jax.random.key(0), jnp.ones(2))
    >>> Householder().apply(variables, jnp.array([3.0, 1.0])).round(5).tolist()
    [1.0, 3.0]
  """

  order: int = 1

  @nn.compact
  def __call__(self, x, train=False):
    """float[..., C] -> float[..., C]."""
    if self.order not in (1, 2):
      raise ValueError(f'`order` of the Householder activation is 1 or 2, got {self.order}.')
    pairs = x.shape[-1] // 2
    if self.order == 1:
      return householder(x, self.param('theta', nn.initializers.constant(jnp.pi / 2), (pairs,)))
    return householder2(x, self.param('theta', nn.initializers.uniform(jnp.pi), (3, pairs)))


class LipPool(_Activation):
  """`lip_pool` with learned angles: halves the channels.

  Example:
    >>> variables = LipPool().init(jax.random.key(0), jnp.ones(4))
    >>> LipPool().apply(variables, jnp.ones(4)).shape
    (2,)
  """

  @nn.compact
  def __call__(self, x, train=False):
    """float[..., C] -> float[..., C / 2]."""
    theta = self.param('theta', nn.initializers.constant(jnp.pi / 2), (x.shape[-1] // 2,))
    return lip_pool(x, theta)
