"""Deterministic splitting (DSSN): exact L1 certificates of images with quantised pixels.

Pixels are multiples of 1/q and the grid of `splitting` is placed by one integer j in 0..L-1,
L = 2 lam q, that shifts a fixed template: coordinate i uses t_i = (v_i + j) mod L, and its
grid is (t_i + 1/2 + L Z) / q. Exactly one j separates two neighbouring values of a pixel, so
a step of 1/q in one coordinate changes at most one of the L views, and with it one vote.
Counting all L views proves the radius: no samples, no failure probability, no abstention
(Levine & Feizi 2021).

The views are computed in integers: two images in the same cells give the same view bit for bit.
"""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from certjax.certify import ABSTAIN, certificate
from certjax.smoothing._protocol import Views, image_shape
from certjax.smoothing._uniform import half_width

_DECIMAL = 1e-12  # 0.29 in binary is below 29/100, and 200 * 0.29 below 58: count 58 steps.


def deterministic_splitting(*, lam=None, sigma=None, shape, quantization=255, seed=0) -> Views:
  r"""All shifts of one grid: L = floor(2 lam q) views and an exact L1 certificate.

    t_i = (v_i + j) mod L,  c_i = the smallest point of (t_i + 1/2 + L Z) / q at or above x_i
    view_j(x)_i = (min(c_i, 1) + max(c_i - L / q, 0)) / 2
    radius = min_c floor((n_A - n_c - 1{c < A}) / 2) / q

  with n the votes (argmax) of the L views, and A the class with most of them, the lowest of
  equals. It holds for the x' whose pixels are multiples of 1/q, as those of `x` must be.

  The template v is `RandomState(seed).randint(L)`, drawn in the order C, H, W: that of the
  authors' published models.

  Args:
    lam: half the width of a cell in pixel values.
    sigma: lam = sqrt(3) sigma instead.
    shape: (H, W, C) of the images.
    quantization: q, steps from black to white.
    seed: of the template, which is a part of the smoothed classifier.

  Returns:
    `Views` in norm 'l1', unit 'pixel value', for `certify.enumerated`; `sample` draws a random
    view for training.

  Raises:
    ValueError: unless exactly one of `lam` and `sigma` is given, positive and finite; if
      `quantization` is not a positive integer or so coarse that there is no view.

  Example:
    >>> views = deterministic_splitting(sigma=0.5, shape=(32, 32, 3))
    >>> views.num_views, round(float(views.decide([300, 100, 41]).radius * 255), 6)
    (441, 100.0)

  References:
    Levine & Feizi 2021 (arXiv:2103.10834).
  """
  shape = image_shape(shape)
  if quantization != int(quantization) or quantization < 1:
    raise ValueError(
      f'`quantization` is the number of steps from 0 to 1, an integer >= 1, got {quantization}.'
    )
  quantization = int(quantization)
  width = 2 * half_width(lam, sigma)
  levels = math.floor(width * quantization * (1 + _DECIMAL))
  if levels < 1:
    raise ValueError(
      f'lam={width / 2:g} is less than half a step of 1/{quantization}, which leaves no view: '
      f'it must be at least {1 / (2 * quantization):g}.'
    )
  parameters = _template(shape, levels, seed), np.int32(levels), np.int32(quantization)
  return Views(
    num_views=levels,
    norm='l1',
    unit='pixel value',
    shape=shape,
    view=jax.tree_util.Partial(_view, *parameters),
    sample=jax.tree_util.Partial(_sample, *parameters),
    vote=jax.tree_util.Partial(argmax_vote),
    decide=functools.partial(_decide, quantization),
    needs='counts',
    quantization=quantization,
  )


def argmax_vote(logits):
  """One vote a view, for the largest logit; ties go to the lowest class.

  Args:
    logits: float[V, K].

  Returns:
    bool[V, K].

  Example:
    >>> import jax.numpy as jnp
    >>> argmax_vote(jnp.array([[1.0, 1.0, 0.0]])).tolist()
    [[True, False, False]]
  """
  return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)


def _template(shape, levels, seed):
  """int32 in 0..levels-1, drawn channel by channel as PyTorch lays images out."""
  drawn_as = (shape[-1], *shape[:-1])
  drawn = np.random.RandomState(seed).randint(levels, size=math.prod(shape))
  return np.moveaxis(drawn.reshape(drawn_as), 0, -1).astype(np.int32)


def _view(template, levels, quantization, x, index):
  steps = jnp.round(x * quantization.astype(x.dtype)).astype(jnp.int32)
  offset = (template + index) % levels
  # The smallest cells k with offset + 1/2 + k levels >= steps: the half never decides.
  above = offset - (offset - steps) // levels * levels
  top = jnp.minimum(2 * above + 1, 2 * quantization)  # Twice the cell's ends, in steps.
  bottom = jnp.maximum(2 * (above - levels) + 1, 0)
  return (top + bottom).astype(x.dtype) / (4 * quantization).astype(x.dtype)


def _sample(template, levels, quantization, key, x):
  index = jax.random.randint(key, (), 0, levels, jnp.int32)
  return _view(template, levels, quantization, x, index)


def _decide(quantization, counts):
  counts = np.asarray(counts, np.int64)
  label = np.argmax(counts, axis=-1)  # The lowest of equals.
  top = np.take_along_axis(counts, label[..., None], axis=-1)
  rival = np.arange(counts.shape[-1])
  # k steps take k votes from A and give them to c, who wins a tie if it is the lower class.
  steps = (top - counts - (rival < label[..., None])) // 2
  steps = np.where(rival == label[..., None], top, steps).min(axis=-1)
  nobody = counts.sum(axis=-1) == 0  # NaN everywhere: nothing is proved.
  return certificate(np.where(nobody, ABSTAIN, label), _radii(quantization)(steps))


def _radii(quantization):
  """steps / quantization, rounded down: exact fractions decide, so 255 / 255 stays 1."""

  def rounded_down(steps):
    value = steps / quantization
    return value if Fraction(value) * quantization <= steps else math.nextafter(value, 0.0)

  return lambda steps: np.vectorize(rounded_down, otypes=[np.float64])(steps.astype(object))
