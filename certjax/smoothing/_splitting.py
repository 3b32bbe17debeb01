"""Splitting noise (SSN): the L1 certificate of Levine & Feizi 2021 under any joint law.

Every coordinate is replaced by the middle of the cell of a randomly placed grid of width
2 lam in which it lies. Two values |delta_i| apart are told from each other only if a grid
point falls between them, with probability at most |delta_i| / (2 lam). By the union bound no
class's probability changes by more than ||delta||_1 / (2 lam), however the coordinates depend
on each other: unlike additive noise, one shared uniform number certifies a whole image.
"""

import jax
import jax.numpy as jnp
import numpy as np

from certjax.smoothing._protocol import Smoothing, image_shape
from certjax.smoothing._uniform import half_width, l1_radius

_TEMPLATE_LEVELS = 256  # A power of two: offsets by v / 256 of the period are exact in float32.


def splitting(*, lam=None, sigma=None, joint='independent', shape=None, box=False) -> Smoothing:
  r"""Splitting noise: each pixel becomes the middle of the random cell that it is in.

    s_i ~ U(0, 2 lam),  c_i = the smallest point of s_i + 2 lam Z at or above x_i
    x~_i = (min(c_i, 1) + max(c_i - 2 lam, 0)) / 2
    radius = lam (p_a - p_b)

  For lam >= 1/2 this is x~_i = (min(s_i, 1) + 1{x_i > s_i}) / 2: one split of [0, 1].

  Args:
    lam: half the width of a cell in pixel values.
    sigma: lam = sqrt(3) sigma instead, the lam of uniform noise of that standard deviation.
    joint: law of the s_i together: 'independent'; 'shared', one s for all coordinates;
      'template', s_i = s + v_i mod 2 lam with fixed v_i, drawn once from the 256 multiples of
      2 lam / 256. The certificate is the same.
    shape: (H, W, C) of the images; needed for 'template'.
    box: certify the x' inside [0, 1]^d alone, as in `uniform`; needs independence.

  Returns:
    A `Smoothing` in norm 'l1', unit 'pixel value'. One compiled program serves all lam.

  Raises:
    ValueError: unless exactly one of `lam` and `sigma` is given, positive and finite; on an
      unknown `joint`, 'template' without `shape`, or `box` without independence.

  Example:
    >>> round(float(splitting(lam=2.0, joint='shared').radius(0.75)), 6)
    1.0

  References:
    Levine & Feizi 2021 (arXiv:2103.10834), Improved, Deterministic Smoothing for L1 Certified
    Robustness; Voracek & Hein 2023 for `box`.
  """
  lam = half_width(lam, sigma)
  shape = None if shape is None else image_shape(shape)
  if joint not in _OFFSETS:
    raise ValueError(f'`joint` must be one of {sorted(_OFFSETS)}, got {joint!r}.')
  if joint == 'template' and shape is None:
    raise ValueError("joint='template' needs `shape`: one fixed offset a coordinate is drawn.")
  if box and joint != 'independent':
    raise ValueError(
      f"`box` multiplies the probabilities of the coordinates: it needs joint='independent', got "
      f'joint={joint!r}.'
    )
  template = _template(shape) if joint == 'template' else None
  sample = jax.tree_util.Partial(_SAMPLERS[joint], 2 * lam, template)
  return Smoothing(sample, l1_radius(lam, box), 'l1', 'pixel value', shape)


def split(x, offset, width):
  """The middle, within [0, 1], of each coordinate's cell of the grid offset + width Z.

  Args:
    x: float[...] in [0, 1].
    offset: float[...] in [0, width), of the shape of `x`.
    width: of a cell.

  Returns:
    float[...]; it depends on the cell alone, bit for bit.

  Example:
    >>> import jax.numpy as jnp
    >>> split(jnp.array([0.25, 0.75]), jnp.array([0.5, 0.5]), 1.0).tolist()
    [0.25, 0.75]
  """
  point = jnp.ceil((x - offset) / width) * width + offset
  return (jnp.minimum(point, 1) + jnp.maximum(point - width, 0)) / 2


def _template(shape):
  """int[H, W, C], fixed for ever: it is a part of the smoothed classifier."""
  return np.random.RandomState(0).randint(_TEMPLATE_LEVELS, size=shape).astype(np.int32)


def _independent(template, key, x):
  del template
  return jax.random.uniform(key, x.shape, x.dtype)


def _shared(template, key, x):
  del template
  return jnp.broadcast_to(jax.random.uniform(key, (), x.dtype), x.shape)


def _shifted_template(template, key, x):
  shared = jnp.broadcast_to(jax.random.uniform(key, (), x.dtype), x.shape)
  return jnp.mod(template.astype(x.dtype) / _TEMPLATE_LEVELS + shared, 1)


_OFFSETS = {'independent': _independent, 'shared': _shared, 'template': _shifted_template}


def _sampler(offsets):
  """A sampler whose offsets are `offsets` of the width: one function a law, traced once."""

  def sample(width, template, key, x):
    width = jnp.asarray(width, x.dtype)
    return split(x, offsets(template, key, x) * width, width)

  return sample


_SAMPLERS = {joint: _sampler(offsets) for joint, offsets in _OFFSETS.items()}
