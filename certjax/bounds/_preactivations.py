"""Interval bounds of what the activations read, for losses on the inner boxes."""

from certjax.bounds._crown import _each, _linear
from certjax.bounds._interval import propagate


def preactivations(model_fn, region):
  """Interval bounds of the argument of every ReLU of a network.

  Those that `interval` meets on its way. Max, min, abs and clip are ReLUs too (of differences).

  Args:
    model_fn, region: as in `interval`.

  Returns:
    A list of (lower, upper), float[B, ...] each, in the order of the network; differentiable.

  Raises:
    ValueError: as `interval`.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from certjax import bounds
    >>> model_fn = lambda x: jax.nn.relu(x @ jnp.array([[1.0, 2.0], [1.0, -2.0]]))
    >>> ((lower, upper),) = preactivations(model_fn, bounds.ball(jnp.array([[0.5, 0.5]]), 0.25))
    >>> lower.tolist(), upper.tolist()
    ([[0.5, -1.0]], [[1.5, 1.0]])
  """

  def bound(network, region, rows):
    del rows
    boxes = propagate(network, region, tighten=_linear(network, region, False))
    read = [boxes[node.inputs[0]] for node in network.nodes if node.kind == 'relu']
    return [(lower[0], upper[0]) for lower, upper in read]

  return _each(bound, model_fn, region, None)
