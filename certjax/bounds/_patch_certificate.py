r"""Certificates against a replaced window, or replaced pixels: the class stays wherever they are.

  min over places of f_y(x') - f_j(x') > 0   for all j != y

Margins are bounded by intervals, in float64, and reduced by the rounding error of the computation:
the statement is about the network in exact arithmetic. An adversary of side p may leave pixels of
its window as they are, so that a proof holds for all smaller windows, and for fewer pixels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from certjax import parallel
from certjax.bounds._certificate import margins, widened
from certjax.bounds._crown import interval
from certjax.bounds._patch import (
  check_count,
  check_images,
  patch_interval,
  patch_locations,
  sparse_interval,
)
from certjax.bounds._region import ball
from certjax.certify import Certificate, certificate


def verify_patch(model_fn, x, side) -> Certificate:
  """Proves, where it can, that no window of an image changes its class, whatever is put there.

  Args:
    model_fn: `x[B, H, W, C] -> logits[B, K]`, of steps that bounds know.
    x: float[B, H, W, C] in [0, 1].
    side: of the square window, in pixels; it lies inside the image.

  Returns:
    A `Certificate`, radius in pixels of the window's side: `side` where it is proved, 0 where only
    the class of the image itself is; it abstains where that is not.

  Raises:
    ValueError: for a side that is no whole number or exceeds the image, images outside [0, 1], or a
      model with a step that has no bound.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum((1, 2, 3)), 2.5 + 0 * x[:, 0, 0, 0]], axis=1)
    >>> proof = verify_patch(model_fn, np.ones((1, 2, 2, 1)), 1)
    >>> proof.label.tolist(), proof.radius.tolist()
    ([0], [1.0])
    >>> verify_patch(model_fn, np.ones((1, 2, 2, 1)), 2).radius.tolist()
    [0.0]

  References:
    Chiang et al. 2020 (arXiv:2003.06693).
  """
  check_images(x)
  patch_locations(np.shape(x)[1:], side)  # Raises for a side that does not fit.
  return _verified(model_fn, x, _patch, side)


def verify_sparse(model_fn, x, pixels) -> Certificate:
  """Proves, where it can, that no few pixels of an image change its class, whatever they become.

  Args:
    model_fn, x: as in `verify_patch`; the image enters through one affine stage.
    pixels: how many, all channels of each.

  Returns:
    A `Certificate`, radius in pixels: `pixels` where it is proved, as `verify_patch`.

  Raises:
    ValueError: as `verify_patch` and `sparse_interval`.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum((1, 2, 3)), 1.5 + 0 * x[:, 0, 0, 0]], axis=1)
    >>> [float(verify_sparse(model_fn, np.ones((1, 2, 2, 1)), k).radius[0]) for k in (2, 3)]
    [2.0, 0.0]
  """
  check_images(x)
  check_count('pixels', pixels, 0, np.shape(x)[1] * np.shape(x)[2])
  return _verified(model_fn, x, _sparse, pixels)


def _patch(model_fn, x, side, spec):
  lower, _ = patch_interval(model_fn, x, side, spec, outward=True)
  return jnp.min(lower, axis=1)


def _sparse(model_fn, x, pixels, spec):
  return sparse_interval(model_fn, x, pixels, spec, outward=True)[0]


def _verified(model_fn, x, least_margins, size):
  """Image by image, so that no proof depends on a batch."""
  x = np.asarray(x, np.float64)
  ball(x, 0.0)  # Raises for bad input, which a traced one cannot.
  prove, model_fn = _compiled(least_margins, size), widened(model_fn)
  with parallel.x64(), jax.numpy_dtype_promotion('standard'):
    found = [prove(model_fn, jnp.asarray(image[None])) for image in x]
  label, known, proved = (np.array([part[i] for part in found]) for i in range(3))
  return certificate(np.where(known, label, -1), np.where(known & proved, float(size), 0.0))


@functools.lru_cache(maxsize=16)
def _compiled(least_margins, size):
  """(model_fn, x[1, ...]) -> (label, whether it is the image's class, whether the adversary's too)."""

  @jax.jit
  def prove(model_fn, x):
    logits = model_fn(x)
    label = jnp.argmax(logits, axis=-1)
    spec = margins(label, logits.shape[-1]).astype(x.dtype)
    known, _ = interval(model_fn, ball(x, 0.0), spec, outward=True)
    least = least_margins(model_fn, x, size, spec)
    return label[0], jnp.all(known > 0), jnp.all(least > 0)

  return prove
