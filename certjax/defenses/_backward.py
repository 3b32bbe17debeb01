"""BPDA (Athalye et al. 2018): a gradient for functions that have none, such as rounding.

A defence whose gradient is zero or undefined only hides the way; another function that nearly equals it, often
the identity, shows it to the attacker.
"""

import jax


def bpda(function, backward=None):
  """The function going forward, another one's gradient going backward.

    g(x) = function(x),  grad g(x) = grad backward(x)

  Args:
    function: `x -> array`, whose gradient is not used.
    backward: `x -> array` of the same shape, whose values are not used (they must be finite); None is the
      identity, the "straight-through" gradient.

  Returns:
    `x -> array`; its values are those of `function`, bit for bit. All that JAX differentiates (either
    mode, jit, vmap, any order) sees the gradient of `backward`.

  Raises:
    ValueError: if the two shapes differ.

  Example:
    >>> import jax.numpy as jnp
    >>> g = bpda(jnp.round)
    >>> value, slope = jax.value_and_grad(g)(0.7)
    >>> float(value), float(slope)
    (1.0, 1.0)

  References:
    Athalye et al. 2018 (arXiv:1802.00420), section 4.1.
  """

  def with_gradient(x):
    forward = jax.lax.stop_gradient(function(x))
    path = x if backward is None else backward(x)
    if forward.shape != path.shape:
      name = 'the identity' if backward is None else '`backward`'
      raise ValueError(
        f'`backward` must have the shape of `function`: {forward.shape}, but {name} gives {path.shape}.'
      )
    # The difference is 0, not only nearly: x + stop_gradient(f(x) - x) would round.
    return forward + (path - jax.lax.stop_gradient(path)).astype(forward.dtype)

  return with_gradient
