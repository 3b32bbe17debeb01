"""Normalisation as the model's first layer: noise and attacks live in [0, 1] pixels."""

import jax.numpy as jnp
from flax import linen as nn


class Normalize(nn.Module):
  """(x - mean) / std for each channel, constants rather than parameters.

  Attributes:
    mean: one number a channel.
    std: one number a channel.

  Example:
    >>> Normalize((0.5,), (0.25,)).apply({}, jnp.array([[[[0.5], [1.0]]]])).ravel().tolist()
    [0.0, 2.0]
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, x):
    mean, std = (
      jnp.asarray(value, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
      for value in (self.mean, self.std)
    )
    return (x - mean) / std
