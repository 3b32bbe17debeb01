r"""Certified training against patches and few pixels (Chiang et al. 2020): cross-entropy at bounds.

The worst logits are 0 for the label y and -m_j for a rival j, where m_j bounds f_y(x') - f_j(x') over
all x' that the adversary can make. Of a window m_j is the least over its places: `perturb` looks for
the place of each rival without gradients, and `loss` bounds these places again, with them.
"""

import jax
import jax.numpy as jnp

from certjax import bounds
from certjax.train._copies import Objective, ramp
from certjax.train._worst_case import evaluation, metrics, rivals, worst

DEFAULT_SIDE, DEFAULT_PIXELS = 5, 4
"""Of the adversaries here unless others are given, in pixels."""


def patch_ibp(*, side=DEFAULT_SIDE, num_locations=0, sharpness=0.0, warmup_steps=0) -> Objective:
  r"""Interval bounds in training against a square window anywhere in the image.

    loss = CE(worst logits),   m_j = min over places of the bound of f_y - f_j,

  where the window's pixels may move by e and stay in [0, 1]; e grows from 0 to 1 in the warm-up.

  Args:
    side: of the window, in pixels.
    num_locations: places an image and step, drawn anew; 0 takes all, for small networks.
    sharpness: s of the draws. A place comes with probability proportional to exp(-s p), where p is the
      least margin that the gradients of the logits at the image predict there; 0 draws uniformly.
    warmup_steps: steps until e = 1.

  Returns:
    An `Objective`. Metrics: 'accuracy' of the clean images, 'verified' (the share whose bounds are
    positive at the places that were looked at) and 'eps', which is e.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = patch_ibp(side=2, num_locations=20, sharpness=1.0, warmup_steps=2000)

  References:
    Chiang et al. 2020 (arXiv:2003.06693): all, random and guided places.
  """
  _check_whole('side', side, 1)
  if not 0 <= num_locations == int(num_locations):
    raise ValueError(f'`num_locations` must be 0 (all) or a number of places, got {num_locations}.')
  if not 0 <= sharpness < float('inf') or (sharpness and not num_locations):
    raise ValueError(
      f'`sharpness` must be 0 or more, finite, and of a draw of `num_locations`, got {sharpness}.'
    )
  side, num_locations = int(side), int(num_locations)

  def perturb(keys, model_fn, x, y, step):
    eps, spec = ramp(step, warmup_steps), rivals(model_fn(x), y)
    places = jnp.asarray(bounds.patch_locations(x.shape[1:], side))
    drawn = places
    if num_locations:
      # Deviation: a first-order prediction, where the paper trains a U-Net to predict the bounds.
      scores = _predicted(model_fn, x, side, spec, eps) if sharpness else jnp.zeros((len(x), 1))
      scores = jnp.broadcast_to(-sharpness * scores, (len(x), len(places)))
      draw = lambda key, scores: jax.random.categorical(key, scores, shape=(num_locations,))
      drawn = places[jax.vmap(draw)(keys, scores)]
    lower, _ = bounds.patch_interval(model_fn, x, side, spec, locations=drawn, eps=eps)
    least = jnp.argmin(lower, axis=1)  # [B, S]: the place of each rival.
    return x, drawn[least] if drawn.ndim == 2 else jax.vmap(lambda a, i: a[i])(drawn, least)

  def loss(keys, apply, perturbed, y, step):
    del keys
    x, places = perturbed
    eps = ramp(step, warmup_steps)
    logits, statistics = apply(x, True)
    lower, _ = bounds.patch_interval(
      evaluation(apply), x, side, rivals(logits, y), locations=places, eps=eps
    )
    margins = jnp.min(lower, axis=1)
    return worst(margins), (metrics(logits, y, margins, eps), statistics)

  return Objective(loss, perturb)


def sparse_ibp(*, pixels=DEFAULT_PIXELS, warmup_steps=0) -> Objective:
  r"""Interval bounds in training against any few pixels of the image.

    loss = CE(worst logits),   m_j <= f_y(x') - f_j(x') where x' differs from x in `pixels` pixels,

  which may move by e and stay in [0, 1]; e grows from 0 to 1 in the warm-up.

  Args:
    pixels: how many may change, all channels of each.
    warmup_steps: steps until e = 1.

  Returns:
    An `Objective`, with the metrics of `patch_ibp`; 'verified' is a proof at e.

  Raises:
    ValueError: for a number out of range; in the first step, for a network whose image enters through
      more than one affine stage.

  Example:
    >>> objective = sparse_ibp(pixels=4, warmup_steps=2000)

  References:
    Chiang et al. 2020 (arXiv:2003.06693), sparse attacks.
  """
  _check_whole('pixels', pixels, 0)

  def loss(keys, apply, x, y, step):
    del keys
    eps = ramp(step, warmup_steps)
    logits, statistics = apply(x, True)
    # Deviation: pixels stay in [0, 1], where the paper moves each by e whatever it is: tighter.
    margins, _ = bounds.sparse_interval(
      evaluation(apply), x, int(pixels), rivals(logits, y), eps=eps
    )
    return worst(margins), (metrics(logits, y, margins, eps), statistics)

  return Objective(loss, None)


def _predicted(model_fn, x, side, spec, eps):
  """float[B, L]: the least margin to first order in a window's pixels, at every place."""
  low, high = jnp.maximum(x - eps, 0), jnp.minimum(x + eps, 1)

  def one(x, low, high, rows):
    of = lambda x: jnp.matmul(rows, model_fn(x[None])[0], precision='highest')
    margins, pull = jax.vjp(of, x)
    (slopes,) = jax.vmap(pull)(jnp.eye(len(margins), dtype=x.dtype))
    loss = jnp.minimum(slopes * (low - x)[None], slopes * (high - x)[None])
    sums = jax.lax.reduce_window(
      jnp.sum(loss, axis=-1), 0.0, jax.lax.add, (1, side, side), (1, 1, 1), 'VALID'
    )
    return jnp.min(margins[:, None, None] + sums, axis=0).ravel()

  return jax.vmap(one)(x, low, high, spec)


def _check_whole(name, value, least):
  if not least <= value < float('inf') or value != int(value):
    raise ValueError(f'`{name}` must be a whole number of pixels, {least} or more, got {value}.')
