"""Perturbation sets around an image: what an attack may do.

A `Threat` speaks of ONE image; batching is `jax.vmap`. Every point it returns lies in the
set and in [0, 1], up to float rounding; at eps = 0 it is the image itself, bit for bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Threat(NamedTuple):
  """A ball around an image, intersected with [0, 1].

  Attributes:
    norm: 'linf' or 'l2'.
    eps: size of the ball, in pixel values; may be traced.
    sample: `(key, x) -> x'`, a random point of the set.
    steepest: `(gradient) -> direction` of norm 1 that maximises <gradient, direction>.
    project: `(x, x') -> x''`, a point of the set near x'.
    distance: `(x, x') -> scalar`, in the norm.
  """

  norm: str
  eps: Any
  sample: Callable
  steepest: Callable
  project: Callable
  distance: Callable


def linf(eps) -> Threat:
  """Every pixel moves by at most `eps`.

  Args:
    eps: in pixel values of [0, 1]; may be traced.

  Returns:
    A `Threat`.

  Raises:
    ValueError: if `eps` is negative, or above 1 (grey levels given for pixel values).

  Example:
    >>> threat = linf(0.25)
    >>> threat.project(jnp.zeros(3), jnp.array([1.0, 0.125, -1.0])).tolist()
    [0.25, 0.125, 0.0]
  """
  _check(eps)

  def sample(key, x):
    return project(x, x + jax.random.uniform(key, x.shape, x.dtype, -1, 1) * eps)

  def project(x, x_adv):
    return jnp.clip(x + jnp.clip(x_adv - x, -eps, eps), 0, 1)

  def distance(x, x_adv):
    return jnp.max(jnp.abs(x_adv - x))

  return Threat('linf', eps, sample, jnp.sign, project, distance)


def l2(eps) -> Threat:
  """The Euclidean length of the change is at most `eps`.

  `project` scales the change into the ball and then clips to [0, 1]: as x lies in the box,
  clipping only shortens the change, so the result is in both sets.

  Args:
    eps: in pixel values of [0, 1]; may be traced.

  Returns:
    A `Threat`.

  Raises:
    ValueError: if `eps` is negative.

  Example:
    >>> threat = l2(0.5)
    >>> moved = threat.project(jnp.full(4, 0.5), jnp.ones(4))
    >>> moved.tolist()
    [0.75, 0.75, 0.75, 0.75]
  """
  _check(eps, largest=None)

  def sample(key, x):
    key_direction, key_length = jax.random.split(key)
    direction = steepest(jax.random.normal(key_direction, x.shape, x.dtype))
    length = jax.random.uniform(key_length, (), x.dtype) ** (1 / x.size)  # Uniform in the ball.
    return project(x, x + eps * length * direction)

  def steepest(gradient):
    return gradient / _safe(_length(gradient))

  def project(x, x_adv):
    delta = x_adv - x
    delta = delta * jnp.minimum(1.0, eps / _safe(_length(delta)))
    return jnp.clip(x + delta, 0, 1)

  def distance(x, x_adv):
    return _length(x_adv - x)

  return Threat('l2', eps, sample, steepest, project, distance)


def _length(v):
  """Euclidean norm whose gradient at 0 is 0, and that neither over- nor underflows."""
  scale = jax.lax.stop_gradient(jnp.max(jnp.abs(v)))
  square = jnp.sum((v / _safe(scale)) ** 2)
  return jnp.where(square > 0, scale * jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _safe(value):
  return jnp.where(value > 0, value, 1.0)


def _check(eps, largest=1.0):
  if isinstance(eps, jax.core.Tracer):
    return
  if not eps >= 0:
    raise ValueError(f'`eps` must be at least 0, got eps={eps}.')
  if largest is not None and eps > largest:
    raise ValueError(
      f'`eps` is in pixel units of [0, 1], got eps={eps}; for {eps:g} grey levels write '
      f'{eps:g} / 255.'
    )
