"""Randomized ablation of Levine & Feizi 2020: a few random pixels are shown, the others hidden.

The classifier sees k of the d pixels, a uniformly random subset T. Two images that differ in rho
pixels look alike unless T meets one of these, so no class's probability changes by more than

  Delta(rho) = Pr[T meets them] = 1 - C(d - rho, k) / C(d, k),

and p_a - p_b > 2 Delta(rho) proves the label. No more can be proved from p_a alone: the classifier may
say A on every T that meets the rho pixels and B there after the change. Thresholds are exact
rationals, compared with the floats below them: no rounding anywhere.
"""

import functools
import math
import numbers
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from certjax.smoothing._family import check_shape
from certjax.smoothing._protocol import Smoothing

_SHARE = Fraction(45, 784)  # The best of Levine & Feizi's table for MNIST.


def ablation(*, keep=None, shape: tuple, null='multichannel', mean=None) -> Smoothing:
  r"""Keeps a random subset of `keep` pixels, all channels of a pixel together, and hides the rest.

    radius = max {rho : p_a - p_b > 2 Delta(rho)},  Delta(rho) = 1 - C(d - rho, keep) / C(d, keep)
           = max {rho : p_a > 1/2 + Delta(rho)}  with p_b = 1 - p_a,   d = H W

  A radius of 0 is a certificate too, of the image itself; where nothing is proved the label abstains.

  Args:
    keep: k, how many pixels are shown, in 1 .. d/2 (beyond, not one changed pixel is certified).
      Default 45 of 784, in proportion, at least 1.
    shape: (H, W, C) of the images.
    null: how a hidden pixel looks: 'multichannel', images of 2 C channels, (x, 1 - x) where a pixel is
      shown and 0 in all of them where it is hidden, so that no pixel value looks hidden; or
      'mean', images of C channels and the colour `mean`.
    mean: for null='mean': the data set's mean, one number or one a channel.

  Returns:
    A `Smoothing` in norm 'l0', unit 'pixels'; p_a and p_b as floats are taken exactly (p_a - p_b is
    rounded down).

  Raises:
    ValueError: unless `keep` is a whole number in that range; for an unknown `null`; or if `mean` is
      missing, given without need, not finite, or of another number of channels.

  Example:
    >>> law = ablation(keep=45, shape=(28, 28, 1))
    >>> law.radius([0.5, 0.51, 0.9, 0.9997]).tolist()
    [0.0, 0.0, 8.0, 11.0]
    >>> law.sample(jax.random.key(0), jnp.ones((28, 28, 1))).sum((0, 1)).tolist()
    [45.0, 0.0]

  References:
    Levine & Feizi 2020, "Robustness Certificates for Sparse Adversarial Attacks by Randomized
    Ablation" (arXiv:1911.09272).
  """
  shape, _ = check_shape(shape)
  if len(shape) != 3:
    raise ValueError(f'`shape` must be (H, W, C), got shape={shape}.')
  num_pixels = math.prod(shape[:2])
  keep = _check_keep(keep, num_pixels)
  if null not in _NULLS:
    raise ValueError(f'`null` must be one of {", ".join(_NULLS)}, got {null!r}.')
  colour = _check_mean(null, mean, shape[-1])
  sample = jax.tree_util.Partial(_sampler(keep, null), colour)
  radius = functools.partial(largest_change, _changes(num_pixels, keep))
  return Smoothing(sample, lambda p_a, p_b=None, *, x=None: radius(p_a, p_b), 'l0', 'pixels', shape)


def ablation_change(num_pixels: int, keep: int, radius: int) -> Fraction:
  """The most by which `radius` changed pixels can change a class's probability.

    Delta = 1 - C(d - rho, k) / C(d, k),

  the probability that the k shown pixels hold one of rho.

  Args:
    num_pixels: d.
    keep: k.
    radius: rho.

  Returns:
    The exact probability.

  Raises:
    ValueError: unless 0 <= k, rho <= d are integers.

  Example:
    >>> ablation_change(10, 3, 2)
    Fraction(8, 15)
  """
  for name, value in (('keep', keep), ('radius', radius)):
    if not isinstance(value, numbers.Integral) or not 0 <= value <= num_pixels:
      raise ValueError(
        f'`{name}` is a number of the {num_pixels} pixels, 0 .. {num_pixels}, got {name}={value}.'
      )
  return 1 - Fraction(math.comb(num_pixels - radius, keep), math.comb(num_pixels, keep))


def subset(key, size: int, keep: int):
  """bool[size], a uniformly random subset of exactly `keep`, by Floyd's algorithm.

  For j = size - keep .. size - 1, t is drawn from 0 .. j and joins the subset, or j does if t is in
  it already. That is `keep` short steps instead of a sort: a hundred times faster on a CPU at 45 of
  784. (A draw from 64 bits is uniform to 2^-64 size.)

  Args:
    key: one typed key.
    size: of the set.
    keep: of the subset.

  Returns:
    bool[size].

  Example:
    >>> int(subset(jax.random.key(0), 10, 3).sum())
    3
  """
  last = jnp.arange(size - keep, size, dtype=jnp.int32)
  drawn = jax.random.randint(key, (keep,), 0, last + 1)

  def add(step, chosen):
    index = drawn[step]
    return chosen.at[jnp.where(chosen[index], last[step], index)].set(True)

  return jax.lax.fori_loop(0, keep, add, jnp.zeros(size, bool))


def _multichannel(colour, shown, x):
  del colour
  return jnp.where(shown, jnp.concatenate([x, 1 - x], axis=-1), 0)


def _mean(colour, shown, x):
  return jnp.where(shown, x, jnp.asarray(colour, x.dtype))


_NULLS = {'multichannel': _multichannel, 'mean': _mean}


@functools.lru_cache(maxsize=64)
def _sampler(keep, null):
  """One function a number of pixels, so that it is traced once."""
  hide = _NULLS[null]

  def sample(colour, key, x):
    height, width, _ = x.shape
    shown = subset(key, height * width, keep).reshape(height, width, 1)
    return hide(colour, shown, x)

  return sample


@functools.lru_cache(maxsize=32)
def _changes(num_pixels, keep):
  """Delta(0), Delta(1), ... < 1/2."""
  changes, hidden = [], Fraction(1)
  for radius in range(num_pixels + 1):
    if 2 * hidden <= 1:
      break
    changes.append(1 - hidden)
    hidden *= Fraction(num_pixels - keep - radius, num_pixels - radius)
  return tuple(changes)


@functools.lru_cache(maxsize=32)
def _floors(changes):
  """float64[R], the largest floats that do not exceed the fractions: a float exceeds both or neither."""
  near = [(float(change), change) for change in changes]
  return np.array([a if Fraction(a) <= change else math.nextafter(a, 0) for a, change in near])


def largest_change(changes, p_a, p_b=None):
  """max {r : p_a - p_b > 2 changes[r]}, exactly; 0 where there is none.

  Args:
    changes: tuple of `Fraction`, never decreasing from 0: what a change of size r can do to a
      probability.
    p_a, p_b: float64[...], as in `Smoothing.radius`.

  Returns:
    float64[...].
  """
  p_a = np.asarray(p_a, np.float64)
  with np.errstate(invalid='ignore'):  # NaN proves nothing.
    excess, inside = p_a - 0.5, p_a <= 1  # Exact where it is positive.
    if p_b is not None:
      p_a, p_b = np.broadcast_arrays(p_a, np.asarray(p_b, np.float64))
      inside = inside & (p_b >= 0) & (p_b < p_a)
      excess = np.maximum(excess, np.nextafter((p_a - p_b) / 2, 0))
    excess = np.where(inside & (excess > 0), excess, 0.0)
  below = np.searchsorted(_floors(changes), excess, side='left')
  return np.maximum(below - 1, 0).astype(np.float64)


def _check_keep(keep, num_pixels):
  if keep is None:
    keep = max(1, num_pixels * _SHARE.numerator // _SHARE.denominator)
  if (
    not isinstance(keep, numbers.Real) or keep != keep // 1 or not 1 <= float(keep) < num_pixels / 2
  ):
    raise ValueError(
      f'`keep` is how many of the {num_pixels} pixels are shown, a whole number in 1 .. '
      f'{(num_pixels - 1) // 2} (half of them certify nothing), got keep={keep}.'
    )
  return int(float(keep))


def _check_mean(null, mean, channels):
  """float32[C], or None where hidden pixels need no colour."""
  if (mean is None) == (null == 'mean'):
    raise ValueError(
      f"`mean` goes with null='mean': the data set's mean, one number or one a channel; got "
      f'null={null!r}, mean={mean}.'
    )
  if mean is None:
    return None
  colour = np.asarray(mean, np.float32)
  if colour.shape not in ((), (1,), (channels,)) or not np.isfinite(colour).all():
    raise ValueError(
      f'`mean` must be one finite number, or one for each of the {channels} channels, got mean={mean}.'
    )
  return np.broadcast_to(colour, (channels,))
