"""What an attack makes large, for ONE example: `(logits[K], y) -> scalar`."""

import jax
import jax.numpy as jnp


def cross_entropy(logits, y):
  """-log softmax(logits)_y.

  Example:
    >>> round(float(cross_entropy(jnp.array([0.0, 0.0]), 0)), 4)
    0.6931
  """
  return -jax.nn.log_softmax(logits)[y]


def margin(logits, y):
  """max_{c != y} logits_c - logits_y: positive exactly where the example is misclassified
  (0 at a tie).

  Example:
    >>> float(margin(jnp.array([1.0, 3.0, 2.5]), 1))
    -0.5
  """
  others = jnp.where(jnp.arange(logits.shape[-1]) == y, -jnp.inf, logits)
  return jnp.max(others) - logits[y]
