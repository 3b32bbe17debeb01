"""The nouns that cross rooms, as types. Documentation only: no code runs here.

Batches come first in every shape: `x[B, H, W, C]` float32 in [0, 1], `y[B]` int32.
"""

from collections.abc import Callable
from typing import Any, Protocol

Array = Any
"""A `jax.Array` (or `numpy.ndarray` on the host)."""

Key = Any
"""A typed PRNG key, as from `jax.random.key`."""

ModelFn = Callable[[Array], Array]
"""`x[B, ...] -> logits[B, K]`: all that the mathematics ever sees of a network."""

FeatureFn = Callable[[Array], tuple[tuple[Array, ...], Array]]
"""`x[B, ...] -> (activations, logits)`: one pass for perceptual distances."""


class Attack(Protocol):
  """Searches the threat set around each image for one that the model gets wrong."""

  def __call__(self, key: Key, model_fn: ModelFn, x: Array, y: Array) -> Array:
    """Returns x_adv[B, ...] inside the threat set and [0, 1].

    `key` is one key, folded by row, or `Key[B]`, one a row.
    """


class Distance(Protocol):
  """A distance of two images."""

  def __call__(self, x1: Array, x2: Array) -> Array:
    """`(x1[H, W, C], x2[H, W, C]) -> scalar`."""
