"""Sets that an attacked image must lie in, and how what lies on the disk is looked at again.

  a norm      the distance of two images, in float64 (`check_adversarials`)
  LPIPS       |phi(x_adv) - phi(x)|, by a forward pass in float32; forgiven are 1e-3 eps + 1e-4 of rounding
  a latent    x_adv = decode(x, latent): the latent is stored beside the image, must lie in its set (up to
              1e-5 eps) and must decode to the image (up to 1e-6)

At eps = 0 nothing is forgiven: the image is x itself.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from certjax import data, distances
from certjax.attacks import functional
from certjax.evaluate._adversarials import check_adversarials, check_images

_PERCEPTUAL, _ROUNDING = 1e-3, 1e-4  # Relative, and of two vectors phi.
_LATENT = 1e-5  # Of eps.
_DECODED = 1e-6  # Pixel values.


class StoredSet(NamedTuple):
  """A set around each image of a batch.

  Attributes:
    norm: its name.
    eps: its size.
    store: `(x[B, H, W, C], what an attack returned) -> dict` of what is written: x_adv float32[B, H, W, C] and,
      of a functional threat, latent float32[B, D].
    check: `(x, that dict, where) -> float64[B]`, the distances; a ValueError names `where` and the first bad row.
  """

  norm: str
  eps: float
  store: Callable
  check: Callable


def stored_set(threat) -> StoredSet:
  """That of a `Threat`; a `StoredSet` stays itself.

  Args:
    threat: a `Threat` or a `StoredSet`.

  Example:
    >>> from certjax import threats
    >>> ball, x = stored_set(threats.linf(0.5)), np.zeros((1, 1, 2, 1), np.float32)
    >>> ball.check(x, ball.store(x, x + np.float32(0.25)), 'here').tolist()
    [0.25]
  """
  if isinstance(threat, StoredSet):
    return threat
  check = lambda x, stored, where: check_adversarials(
    threat.norm, threat.eps, x, stored['x_adv'], where
  )
  return StoredSet(threat.norm, threat.eps, _image, check)


def perceptual_set(eps, feature_fn, *, batch_size=250) -> StoredSet:
  """All images at most `eps` away in LPIPS (`distances.lpips`: no weights, the root).

  Args:
    eps: largest distance.
    feature_fn: a `FeatureFn`, a `jax.tree_util.Partial`.
    batch_size: rows of every forward pass.

  Returns:
    A `StoredSet`.

  Example:
    >>> x = np.full((1, 2, 2, 1), 0.5, np.float32)
    >>> found = perceptual_set(0.5, jax.tree_util.Partial(lambda x: ((x,), x.reshape(len(x), -1))))
    >>> found.check(x, {'x_adv': x}, 'batch 0')
    array([0.], dtype=float32)
  """

  def check(x, stored, where):
    x_adv = check_images(x, stored['x_adv'], where)
    found = _rows(functools.partial(_lpips, feature_fn), batch_size, x, x_adv)
    _check_still(eps, x, x_adv, where)
    far = ~(found <= (1 + _PERCEPTUAL) * eps + _ROUNDING)
    _refuse(far, where, 'is at LPIPS distance', found, f'beyond eps={eps:g}')
    return found

  return StoredSet('lpips', eps, _image, check)


def latent_set(name, threat, *, batch_size=250) -> StoredSet:
  """All images that a latent in the set of a `Functional` makes.

  Args:
    name: of the set.
    threat: a `Functional`.
    batch_size: rows of every pass.

  Returns:
    A `StoredSet` for attacks that return latents, as `latent_search`.

  Raises:
    ValueError: from its `check`, for latents that are missing, outside of the set, or make another image.

  Example:
    >>> from certjax.attacks import functional
    >>> found = latent_set('additive', functional.additive(0.1))
    >>> found.norm, round(found.eps, 3)
    ('additive', 0.1)
  """
  eps = float(threat.eps)
  decode = lambda x, latent: _rows(functools.partial(_decoded, threat), batch_size, x, latent)[0]

  def store(x, latent):
    latent = np.asarray(latent, np.float32)
    return {'x_adv': decode(x, latent), 'latent': latent}

  def check(x, stored, where):
    x_adv, latent = check_images(x, stored['x_adv'], where), stored.get('latent')
    if latent is None or latent.dtype != np.float32 or latent.ndim != 2 or len(latent) != len(x):
      raise ValueError(f'{where}: holds no latents float32[{len(x)}, D] of {name}.')
    passes = functools.partial(_decoded, threat)
    again, distance, off = _rows(passes, batch_size, x, latent)
    outside = ~(distance <= eps * (1 + _LATENT)) | ~(off <= eps * _LATENT)
    _refuse(outside, where, 'has a latent at distance', distance, f'outside of {name} at {eps:g}')
    difference = np.abs(again - x_adv).reshape(len(x), -1).max(axis=1)
    _refuse(
      ~(difference <= _DECODED), where, 'differs by', difference, 'from what its latent makes'
    )
    _check_still(eps, x, x_adv, where)
    return distance.astype(np.float64)

  return StoredSet(name, eps, store, check)


def latent_search(threat, **settings):
  """`functional.latent_attack`, but for its result: the latents of its images.

  Each image travels with its latent in one vector, so that the search keeps both of its best point.

  Args:
    threat: a `Functional`.
    **settings: of `functional.latent_attack`.

  Returns:
    `(keys[B], model_fn, x[B, H, W, C], y) -> float[B, D]`, one flat latent an image.

  Raises:
    ValueError: as `functional.latent_attack`.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum((1, 2, 3)), jnp.ones(len(x))], axis=1)
    >>> search = latent_search(functional.additive(0.25), num_steps=2, step_size=0.25, optimizer='sign')
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> search(keys, model_fn, jnp.full((1, 1, 2, 1), 0.5), jnp.array([0])).tolist()
    [[-0.25, -0.25]]
  """
  functional.latent_attack(threat, **settings)  # Its complaints come before any tracing.

  def attack(keys, model_fn, x, y):
    size, shape = x[0].size, x.shape[1:]
    image = lambda joint: joint[:size].reshape(shape)
    join = lambda x, latent: jnp.concatenate([x.ravel(), ravel_pytree(latent)[0]])
    joint = threat._replace(
      init=lambda key, both: threat.init(key, image(both)),
      sample=lambda key, both: threat.sample(key, image(both)),
      decode=lambda both, latent: join(threat.decode(image(both), latent), latent),
      project=lambda both, latent: threat.project(image(both), latent),
    )
    search = functional.latent_attack(joint, **settings)
    begin = jax.vmap(join)(x, jax.vmap(threat.init)(keys, x))
    return search(keys, lambda both: model_fn(jax.vmap(image)(both)), begin, y)[:, size:]

  return attack


def perceptual_target(target, feature_fn, *, own):
  """The `Target` with a `FeatureFn` to climb, as self-bounded attacks ask for it.

  Args:
    target: a `Target`.
    feature_fn: whose activations give phi.
    own: feature_fn is that of the attacked network, logits included; else they come from the target.

  Returns:
    A `Target`. Weights of both travel as arguments.

  Example:
    >>> from certjax.evaluate import plain_target
    >>> target = plain_target(lambda x: x.reshape(len(x), -1))
    >>> both = perceptual_target(target, jax.tree_util.Partial(lambda x: ((x,), -x)), own=False)
    >>> activations, logits = both.model_fn(np.full((1, 1, 2, 1), 0.5, np.float32))
    >>> logits.shape
    (1, 2)
  """
  if own:
    return target._replace(model_fn=feature_fn)
  both = jax.tree_util.Partial(_features_and_logits, feature_fn, target.model_fn)
  return target._replace(model_fn=both)


def _features_and_logits(feature_fn, model_fn, x):
  return feature_fn(x)[0], model_fn(x)


def _image(x, x_adv):
  del x
  return {'x_adv': np.asarray(x_adv, np.float32)}


def _rows(passes, batch_size, *arrays):
  """Results of a batch, padded to the one shape that is compiled."""
  full, mask = data.pad_batch({str(i): a for i, a in enumerate(arrays)}, batch_size)
  return jax.tree.map(lambda a: np.asarray(a)[mask], passes(*full.values()))


@jax.jit
def _lpips(feature_fn, x, x_adv):
  embed = distances.embedding(feature_fn)
  return jax.vmap(distances.lp(2))(embed(x), embed(x_adv))


@functools.partial(jax.jit, static_argnums=0)
def _decoded(threat, x, latent):
  """(images, distances of the latents, how far each is from its projection)."""

  def one(x, flat):
    latent = ravel_pytree(threat.init(jax.random.key(0), x))[1](flat)
    off = ravel_pytree(threat.project(x, latent))[0] - flat
    return threat.decode(x, latent), threat.distance(latent), jnp.max(jnp.abs(off))

  return jax.vmap(one)(x, latent)


def _check_still(eps, x, x_adv, where):
  if eps == 0:
    moved = np.abs(x_adv.astype(np.float64) - x).reshape(len(x), -1).max(axis=1)
    _refuse(moved > 0, where, 'differs by', moved, 'from its image, beyond eps=0')


def _refuse(bad, where, what, values, why):
  if bad.any():
    row = int(np.argmax(bad))
    raise ValueError(f'{where}: row {row} {what} {values[row]:.9g}, {why}.')
