r"""Training without labels: which way up an image is, or which two views are of one image.

The labels of a batch are never read. So features that such a network learns from all training images are
a function of the images alone: an adversary who may flip labels, and nothing else, cannot touch them
(SS-DPA, Levine & Feizi 2021).
"""

import jax
import jax.numpy as jnp

from certjax.train._copies import Objective
from certjax.train._views import (
  random_colours,
  random_flip,
  random_resized_crop,
  rotations,
)

_TURNS = 4
SELF_SUPERVISED = {'rotnet': _TURNS, 'simclr': 128}
"""Objectives that read no label, and how many outputs their networks have in place of classes."""


def rotnet() -> Objective:
  r"""Predict by which of 0, 90, 180 and 270 degrees an image was turned.

    loss = (1 / 4) sum_r CE(f(rot90(x, r)), r),

  all four of each image in one batch, as published. The network has 4 outputs.

  Returns:
    An `Objective` on clean images, without labels. Metrics: 'accuracy', of the turns.

  Raises:
    ValueError: in the first step, for images that are not square and networks of other outputs.

  Example:
    >>> objective = rotnet()

  References:
    Gidaris, Singh & Komodakis 2018 (arXiv:1803.07728).
  """

  def loss(keys, apply, x, y, step):
    del keys, y, step
    logits, statistics = apply(jax.vmap(rotations)(x).reshape(-1, *x.shape[1:]), True)
    _check_outputs('rotnet', logits)
    log_p = jax.nn.log_softmax(logits).reshape(-1, _TURNS, _TURNS)
    right = jnp.argmax(log_p, axis=-1) == jnp.arange(_TURNS)[None]
    value = -jnp.mean(jnp.diagonal(log_p, axis1=1, axis2=2))
    return value, ({'accuracy': jnp.mean(right.astype(jnp.float32))}, statistics)

  return Objective(loss, None)


def simclr(*, temperature: float = 0.5, strength: float = 0.5, scale: float = 0.08) -> Objective:
  """Two views of each image, told from the views of all others by `nt_xent`.

  A view is a resized crop, mirrored or not, in changed colours (of grey images: brightness and contrast),
  or grey; a function of the example's key, which is fresh in every step.

  Args:
    temperature: of `nt_xent`.
    strength: of the colours.
    scale: least share of an image's area that a crop shows.

  Returns:
    An `Objective` on clean images, without labels. Metrics: 'accuracy', how often the other view of an
    image is nearest.

  Raises:
    ValueError: unless `temperature` is positive and finite and `scale` in (0, 1]; in the first step, for
      networks of other outputs.

  Example:
    >>> objective = simclr(temperature=0.5)

  References:
    Chen, Kornblith, Norouzi & Hinton 2020 (arXiv:2002.05709).
  """
  if not 0 < temperature < float('inf'):
    raise ValueError(f'`temperature` must be positive and finite, got {temperature}; try 0.5.')
  if not 0 < scale <= 1:
    raise ValueError(f'`scale` is a share of the area, in (0, 1], got {scale}.')

  def view(key, image):
    key_crop, key_flip, key_colours = jax.random.split(key, 3)
    image = random_resized_crop(key_crop, image, scale=(scale, 1.0))
    return random_colours(key_colours, random_flip(key_flip, image), strength=strength)

  def loss(keys, apply, x, y, step):
    del y, step
    each = [jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(2)]
    views = jnp.concatenate([jax.vmap(view)(key, x) for key in each])
    outputs, statistics = apply(views, True)
    _check_outputs('simclr', outputs)
    value, accuracy = nt_xent(*jnp.split(outputs, 2), temperature=temperature)
    return value, ({'accuracy': accuracy}, statistics)

  return Objective(loss, None)


def nt_xent(a, b, *, temperature: float):
  r"""The normalised, temperature-scaled cross-entropy of pairs.

    loss = -(1 / 2B) sum_i log( exp(s_{i, p(i)} / t) / sum_{j != i} exp(s_ij / t) ),

  over all 2B vectors, p(i) the partner of i, s the cosine. Over several devices each has the pairs of its
  own share of the batch for rivals.

  Args:
    a: float[B, D].
    b: float[B, D], the partner of each.
    temperature: t.

  Returns:
    (loss, share of the vectors whose partner is nearest).

  Example:
    >>> a, b = jnp.eye(2), jnp.eye(2)
    >>> round(float(nt_xent(a, b, temperature=0.5)[0]), 4)  # log(1 + 2 e^-2).
    0.2395

  References:
    Chen et al. 2020 (arXiv:2002.05709), equation 1.
  """
  vectors = jnp.concatenate([a, b])
  squares = jnp.sum(vectors**2, axis=1, keepdims=True)
  vectors = vectors / jnp.sqrt(jnp.maximum(squares, jnp.float32(1e-12)))
  scores = jnp.matmul(vectors, vectors.T, precision='highest') / temperature
  scores = jnp.where(jnp.eye(len(scores), dtype=bool), -jnp.inf, scores)
  partner = jnp.roll(jnp.arange(len(scores)), len(a))
  log_p = jnp.take_along_axis(jax.nn.log_softmax(scores), partner[:, None], axis=1)
  nearest = jnp.argmax(scores, axis=1) == partner
  return -jnp.mean(log_p), jnp.mean(nearest.astype(jnp.float32))


def num_outputs(objective: str, num_classes: int) -> int:
  """Outputs of a network that trains for an objective: its classes, but for `SELF_SUPERVISED`.

  Args:
    objective: its name.
    num_classes: K of the data set.

  Returns:
    int.

  Example:
    >>> num_outputs('rotnet', 10), num_outputs('noise', 10)
    (4, 10)
  """
  return SELF_SUPERVISED.get(objective, num_classes)


def _check_outputs(name, outputs):
  if outputs.ndim != 2 or outputs.shape[1] != SELF_SUPERVISED[name]:
    raise ValueError(
      f'`objective`={name!r} needs a network of {SELF_SUPERVISED[name]} outputs, got {outputs.shape}.'
    )
