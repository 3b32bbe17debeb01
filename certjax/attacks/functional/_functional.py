"""Functional threats: the image changes through the parameters of a function, its latent.

  x_adv = decode(x, latent),  latent in a set around the latent that changes nothing

A recolouring moves all pixels of one colour alike, a flow moves pixels in the plane, JPEG's
coefficients move waves of 8 x 8 pixels: none is a small change of every pixel on its own. A
`Functional` speaks of ONE image, as `threats.Threat` does; `latent_attack` searches any of them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from certjax.tracing import is_traced


class Functional(NamedTuple):
  """What a latent does to an image, and how large it may be.

  What is random but no part of the search (where a flake lies) is drawn by `init` and `sample` into
  the latent, and `decode` stops its gradient.

  Attributes:
    name: of the threat.
    eps: the largest distance of a latent; may be traced.
    unit: of `eps`, in words.
    init: `(key, x) -> latent` that changes nothing: `decode` gives x back, bit for bit.
    sample: `(key, x) -> latent`, a random one of the set.
    decode: `(x, latent) -> x_adv` in [0, 1], differentiable in the latent.
    project: `(x, latent) -> latent` of the set near it.
    penalty: `(latent) -> scalar` to be kept small: roughness, or 0.
    distance: `(latent) -> scalar`, in the unit.
  """

  name: str
  eps: Any
  unit: str
  init: Callable
  sample: Callable
  decode: Callable
  project: Callable
  penalty: Callable
  distance: Callable


def no_penalty(latent):
  """0, for threats whose latents need not be smooth.

  Example:
    >>> float(no_penalty(jnp.ones(3)))
    0.0
  """
  return jnp.zeros((), jax.tree.leaves(latent)[0].dtype)


def in_box(name, eps, unit, shape, decode, *, penalty=no_penalty, least=-1) -> Functional:
  """A threat whose latent is one array with every number in [least * eps, eps].

  Args:
    name: of the threat.
    eps: the largest size of a number; may be traced.
    unit: of `eps`.
    shape: `(shape of x) -> shape of the latent`.
    decode: as in `Functional`; a latent of zeros changes nothing.
    penalty: as in `Functional`.
    least: -1, or 0 for numbers of one sign.

  Returns:
    A `Functional`. Its samples are uniform.

  Raises:
    ValueError: if `eps` is negative; for an image of another rank than 3.

  Example:
    >>> brighter = in_box('light', 0.25, 'pixel value', lambda shape: (1, 1, 1), jnp.add)
    >>> float(brighter.project(jnp.zeros((2, 2, 1)), jnp.ones((1, 1, 1)))[0, 0, 0])
    0.25
  """
  check_eps(eps)

  def init(key, x):
    del key
    return jnp.zeros(shape(image_shape(x)), x.dtype)

  def sample(key, x):
    return jax.random.uniform(key, shape(image_shape(x)), x.dtype, least, 1) * eps

  def project(x, latent):
    del x
    return jnp.clip(latent, least * eps, eps)

  def distance(latent):
    return jnp.max(jnp.abs(latent))

  return Functional(name, eps, unit, init, sample, decode, project, penalty, distance)


def additive(eps) -> Functional:
  """The L-infinity ball as a functional: x_adv = clip(x + latent, 0, 1).

  It is the D of the combinations C + S + D.

  Args:
    eps: in pixel values of [0, 1]; may be traced.

  Returns:
    A `Functional` with latents of the image's shape.

  Raises:
    ValueError: if `eps` is negative, or above 1 (grey levels given for pixel values).

  Example:
    >>> additive(0.25).decode(jnp.full((1, 1, 1), 0.875), jnp.full((1, 1, 1), 0.25)).tolist()
    [[[1.0]]]

  References:
    Laidlaw & Feizi 2019 (arXiv:1906.00001), section 5.
  """
  check_eps(eps, largest=1, remedy=f'`eps` is in pixel values: for grey levels write {eps} / 255')
  decode = lambda x, latent: jnp.clip(x + latent, 0, 1)
  return in_box('additive', eps, 'pixel value', lambda shape: shape, decode)


def compose(*parts, weights=None) -> Functional:
  """Several threats one after the other: their latents are searched together.

    x_adv = decode_n(... decode_2(decode_1(x, latent_1), latent_2) ..., latent_n)

  Args:
    *parts: `Functional`s, the first changes the image first. C + S + D is a recolouring, a flow, and
      an additive change.
    weights: one a part, of its penalty in the sum; default 1 each.

  Returns:
    A `Functional` whose latent is the tuple of the parts' latents. Its `eps` is 1: the distance is the
    largest of the parts', each divided by its own `eps`.

  Raises:
    ValueError: without parts, or if there are not as many weights as parts.

  Example:
    >>> both = compose(additive(0.25), additive(0.5))
    >>> x, latent = jnp.zeros((1, 1, 1)), (jnp.full((1, 1, 1), 0.25), jnp.full((1, 1, 1), 0.125))
    >>> both.decode(x, latent).tolist(), float(both.distance(latent))
    ([[[0.375]]], 1.0)

  References:
    Laidlaw & Feizi 2019 (arXiv:1906.00001), section 5; Jordan et al. 2019 (arXiv:1902.08265).
  """
  weights = (1,) * len(parts) if weights is None else tuple(weights)
  if not parts or len(weights) != len(parts):
    raise ValueError(
      f'`compose` takes one or more parts and one of `weights` for each, got {len(parts)} parts '
      f'and weights={weights}.'
    )

  def each(method, key, x):
    keys = [jax.random.fold_in(key, i) for i in range(len(parts))]
    return tuple(getattr(part, method)(k, x) for part, k in zip(parts, keys, strict=True))

  def decode(x, latent):
    for part, own in zip(parts, latent, strict=True):
      x = part.decode(x, own)
    return x

  def project(x, latent):
    return tuple(part.project(x, own) for part, own in zip(parts, latent, strict=True))

  def penalty(latent):
    return sum(w * p.penalty(own) for w, p, own in zip(weights, parts, latent, strict=True))

  def distance(latent):
    distances = [p.distance(own) for p, own in zip(parts, latent, strict=True)]
    shares = [jnp.where(d > 0, d / p.eps, 0) for d, p in zip(distances, parts, strict=True)]
    return jnp.max(jnp.stack(shares))

  return Functional(
    name='+'.join(part.name for part in parts), eps=1.0, unit='share of each budget',
    init=lambda key, x: each('init', key, x), sample=lambda key, x: each('sample', key, x),
    decode=decode, project=project, penalty=penalty, distance=distance,
  )  # fmt: skip


def image_shape(x):
  """(H, W, C) of ONE image, or a ValueError.

  Example:
    >>> image_shape(jnp.zeros((4, 6, 1)))
    (4, 6, 1)
  """
  if x.ndim != 3:
    raise ValueError(
      f'`x` must be images [B, H, W, C], got one of shape {x.shape}: use x[..., None] for grey '
      f'images.'
    )
  return x.shape


def check_eps(eps, largest=math.inf, remedy='give a smaller one'):
  """Raises a ValueError unless `eps` is traced or in [0, largest].

  Example:
    >>> check_eps(-1)
    Traceback (most recent call last):
    ...
    ValueError: `eps` must be at least 0, got eps=-1.
  """
  if is_traced(eps):
    return
  if not eps >= 0:
    raise ValueError(f'`eps` must be at least 0, got eps={eps}.')
  if eps > largest:
    raise ValueError(f'`eps` must be at most {largest}, got eps={eps}: {remedy}.')
