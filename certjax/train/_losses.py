"""Losses of the training step: `(keys, apply, x, y, step) -> (scalar, (metrics, batch_stats))`."""

import jax.numpy as jnp
import optax


def cross_entropy(keys, apply, x, y, step):
  """Mean cross-entropy; its pass updates the BatchNorm statistics.

    loss = -(1/B) sum_b log softmax(f(x_b))_{y_b}

  Args:
    keys: Key[B], unused: the loss draws nothing.
    apply: `(x, train) -> (logits[B, K], batch_stats)`.
    x: float32[B, H, W, C].
    y: int32[B].
    step: int32, unused.

  Returns:
    The loss, and ({'accuracy': ...}, batch_stats).

  Example:
    >>> import jax
    >>> apply = lambda x, train: (x, {})
    >>> loss = jax.jit(lambda x, y: cross_entropy(None, apply, x, y, 0)[0])
    >>> round(float(loss(jnp.array([[0.0, 10.0], [10.0, 0.0]]), jnp.array([1, 1]))), 3)
    5.0
  """
  del keys, step
  logits, batch_stats = apply(x, True)
  loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))
  accuracy = jnp.mean((jnp.argmax(logits, axis=-1) == y).astype(jnp.float32))
  return loss, ({'accuracy': accuracy}, batch_stats)
