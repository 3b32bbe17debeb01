"""What every smoothing distribution is: a sampler and the radius that it buys."""

from collections.abc import Callable
from typing import NamedTuple


class Smoothing(NamedTuple):
  """A distribution around an image and the radius it certifies in one norm.

  Attributes:
    sample: `(key, x[...]) -> x~[...]`, ONE image; batching is `jax.vmap`. x~ may leave
      [0, 1] or have other channels; its shape comes from `jax.eval_shape`.
    radius: `(p_a, p_b=None, *, x=None) -> float64[...]` on the host, vectorised, rounded
      down. `p_a` bounds the top class's probability from below, `p_b` every other's from
      above; None means 1 - p_a. 0 where nothing is proved.
    norm: 'l2', 'l1', 'linf', 'lp', 'l0', 'wasserstein-l1', ...
    unit: 'pixel value', 'pixels', 'features', 'mass', 'patch side' or 'samples'.
    shape: (H, W, C) where sampler or certificate depend on it, else None.
  """

  sample: Callable
  radius: Callable
  norm: str
  unit: str
  shape: tuple | None = None
