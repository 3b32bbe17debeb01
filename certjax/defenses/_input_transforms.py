"""Input transforms of Guo et al. 2018: fewer grey levels, JPEG, total variation minimisation.

Broken: rounding only hides the gradient, and the randomness of the total variation averages out. BPDA (the
identity going backward) and EOT leave 0% accuracy on ImageNet (Athalye et al. 2018, Table 1).
"""

import jax
import jax.numpy as jnp
import numpy as np

from certjax.attacks import functional

_SMOOTHING = 0.01  # Of the lengths of differences, in pixel values: a length has no slope at 0.


def bit_depth(*, bits):
  """Every value at the nearest of 2^bits levels.

    t(x) = round((2^bits - 1) x) / (2^bits - 1)

  Its gradient is zero: attack it by `bpda(bit_depth(bits=b))`.

  Args:
    bits: 1 or more; Guo et al. take 3.

  Returns:
    `x -> x'`, a transform for `transformed`.

  Raises:
    ValueError: if `bits` is below 1.

  Example:
    >>> [round(value, 3) for value in bit_depth(bits=2)(jnp.array([0.1, 0.3, 0.9])).tolist()]
    [0.0, 0.333, 1.0]

  References:
    Xu et al. 2018 (arXiv:1704.01155); Guo et al. 2018 (arXiv:1711.00117).
  """
  if bits < 1:
    raise ValueError(f'`bits` must be at least 1, got bits={bits}.')
  top = 2.0**bits - 1
  return lambda x: jnp.round(top * x) / top


def jpeg(*, quality=75):
  """What JPEG keeps of an image: cosines on 8 x 8 blocks, rounded to multiples of the standard tables.

    t(x) = IDCT(Q round(DCT(255 x - 128) / Q)),  in YCbCr for three channels

  with Q the tables of the standard, scaled as libjpeg does: 5000 / quality percent below 50, 200 - 2 quality
  from there. Its gradient is zero: attack it by `bpda(jpeg(quality=q))`.

  Args:
    quality: 1 to 100; Guo et al. take 75.

  Returns:
    `x[H, W, C] -> x'[H, W, C]`, C = 1 or 3, a transform for `transformed`. Sides that are no multiple of 8
    are continued by their last pixels, and cut.

  Raises:
    ValueError: for a quality outside of [1, 100]; for another number of channels or rank.

  Example:
    >>> x = jnp.linspace(0, 1, 64, dtype=jnp.float32).reshape(8, 8, 1)
    >>> bool(jnp.abs(jpeg(quality=75)(x) - x).max() < 0.05)
    True

  References:
    ITU-T T.81, annex K; Guo et al. 2018 (arXiv:1711.00117), section 3.
  """
  if not 1 <= quality <= 100:
    raise ValueError(f'`quality` lies in [1, 100], got quality={quality}.')
  # Deviation: no coarser grid for the colours, and values are not rounded to whole grey levels.
  percent = 5000 // quality if quality < 50 else 200 - 2 * quality
  tables = [
    np.clip((table * percent + 50) // 100, 1, 255) for table in (functional.LUMA, functional.CHROMA)
  ]

  def transform(x):
    if x.ndim != 3 or x.shape[-1] not in (1, 3):
      raise ValueError(f'`x` must be ONE image [H, W, 1] or [H, W, 3], got shape {x.shape}.')
    channels = x.shape[-1]
    colours = functional.TO_YCBCR if channels == 3 else np.eye(1)
    middle = _as([[[128, 0, 0][:channels]]], x)
    planes = _as(np.stack(tables)[[0, 1, 1][:channels]], x)
    image = _round_blocks(_turn(255 * x, colours) - middle, planes) + middle
    return jnp.clip(_turn(image, np.linalg.inv(colours)) / 255, 0, 1)

  return transform


def total_variation(*, weight=0.03, keep=0.5, num_steps=100):
  """A smooth image through a random part of the pixels.

    t(key, x) = argmin_z 1/2 |M (z - x)|_2^2 + weight TV(z),  M_ijc ~ Bernoulli(keep)
    TV(z) = sum_{i,c} |z_{i,c} - z_{i-1,c}|_2 + sum_{j,c} |z_{j,c} - z_{j-1,c}|_2   (rows i, columns j)

  by gradient steps from x where M = 1 and the mean of x elsewhere. Random: attack it by `attacks.eot_pgd`, through
  the steps, or past them: `randomized(model_fn, lambda key, x: bpda(lambda x: t(key, x))(x))`.

  Args:
    weight: of the total variation; the authors take 0.03.
    keep: probability that a value counts, in (0, 1]; theirs is 0.5.
    num_steps: static number of gradient steps.

  Returns:
    `(key, x[H, W, C]) -> x'[H, W, C]`, a transform for `randomized`.

  Raises:
    ValueError: for a negative `weight` or `num_steps`, or a `keep` outside of (0, 1].

  Example:
    >>> smooth = total_variation(weight=0.1, keep=1.0)(jax.random.key(0), jnp.eye(4)[..., None])
    >>> bool(jnp.ptp(smooth) < 0.9)
    True

  References:
    Rudin et al. 1992; Guo et al. 2018 (arXiv:1711.00117), section 4.
  """
  if not (weight >= 0 and 0 < keep <= 1 and num_steps >= 0):
    raise ValueError(
      f'`weight` and `num_steps` must be at least 0 and `keep` in (0, 1], got weight={weight}, '
      f'keep={keep}, num_steps={num_steps}.'
    )
  # Deviation: squared distance, lengths smoothed near 0, and a fixed number of steps.
  step_size = 1 / (
    1 + 8 * weight / _SMOOTHING
  )  # Below 1 / L: each length bends by at most 1 / smoothing.

  def transform(key, x):
    kept = jax.random.bernoulli(key, keep, x.shape)
    variation = jax.grad(lambda z: weight * (_lengths(z, 0) + _lengths(z, 1)))
    step = lambda z, _: (z - step_size * (jnp.where(kept, z - x, 0) + variation(z)), None)
    start = jnp.where(kept, x, jnp.mean(x))
    return jnp.clip(jax.lax.scan(step, start, length=num_steps)[0], 0, 1)

  return transform


def _turn(image, colours):
  return jnp.einsum('hwc,dc->hwd', image, _as(colours, image), precision='highest')


def _lengths(z, axis):
  """Sum of the lengths of the differences between neighbouring rows (0) or columns (1)."""
  square = jnp.sum(jnp.diff(z, axis=axis) ** 2, axis=1 - axis)
  return jnp.sum(jnp.sqrt(square + _SMOOTHING**2))


def _round_blocks(image, tables):
  """float[H, W, C] after rounding of its blocks' cosines to multiples of tables[C, 8, 8]."""
  height, width, channels = image.shape
  image = jnp.pad(image, [(0, -height % 8), (0, -width % 8), (0, 0)], mode='edge')
  rows, columns = image.shape[0] // 8, image.shape[1] // 8
  blocks = image.reshape(rows, 8, columns, 8, channels)
  cosines = _as(functional.COSINES, image)
  apply = lambda order, blocks: jnp.einsum(order, cosines, blocks, cosines, precision='highest')
  waves = apply('ui,riqjc,vj->rqcuv', blocks) / tables[None, None]
  blocks = apply('ui,rqcuv,vj->riqjc', jnp.round(waves) * tables[None, None])
  return blocks.reshape(8 * rows, 8 * columns, channels)[:height, :width]


def _as(values, x):
  return jnp.asarray(np.asarray(values), x.dtype)
