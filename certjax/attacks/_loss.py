"""What an attack makes large, for ONE example: `(logits[K], y) -> scalar`.

A targeted loss, `(logits[K], y, target) -> scalar`, is made large to change y into `target`. The ratios of
Croce & Hein stay the same when all logits are scaled or shifted together: they have no flat
regions where a model is sure of itself, as the cross-entropy has.
"""

import jax
import jax.numpy as jnp

_TINY = 1e-12  # Where the largest logits are equal.


def cross_entropy(logits, y):
  """-log softmax(logits)_y.

  Args:
    logits: float[K].
    y: int, the label.

  Returns:
    Scalar.

  Example:
    >>> round(float(cross_entropy(jnp.array([0.0, 0.0]), 0)), 4)
    0.6931
  """
  return -jax.nn.log_softmax(logits)[y]


def margin(logits, y):
  """max_{c != y} logits_c - logits_y: positive exactly where the example is misclassified
  (0 at a tie).

  Args:
    logits: float[K].
    y: int, the label.

  Returns:
    Scalar.

  Example:
    >>> float(margin(jnp.array([1.0, 3.0, 2.5]), 1))
    -0.5
  """
  others = jnp.where(jnp.arange(logits.shape[-1]) == y, -jnp.inf, logits)
  return jnp.max(others) - logits[y]


def dlr(logits, y):
  """Difference of logits ratio, positive exactly where the example is misclassified.

    (max_{c != y} z_c - z_y) / (z_1st - z_3rd + 1e-12)

  with the largest and the third largest logit.

  Args:
    logits: float[K], K >= 3.
    y: int, the class to leave.

  Returns:
    Scalar.

  Raises:
    ValueError: for fewer than 3 classes.

  Example:
    >>> float(dlr(jnp.array([2.0, 1.0, 0.5, -1.0, 3.0]), 0))
    0.5

  References:
    Croce & Hein 2020 (arXiv:2003.01690), section 5.
  """
  _check_classes('dlr', logits, 3, 'attacks.margin')
  largest = jnp.sort(logits)[::-1]
  return margin(logits, y) / (largest[0] - largest[2] + _TINY)


def dlr_targeted(logits, y, target):
  """Difference of logits ratio towards a class.

    (z_target - z_y) / (z_1st - (z_3rd + z_4th) / 2 + 1e-12)

  Args:
    logits: float[K], K >= 4.
    y: int, the class to leave.
    target: int, the class to reach.

  Returns:
    Scalar.

  Raises:
    ValueError: for fewer than 4 classes.

  Example:
    >>> round(float(dlr_targeted(jnp.array([2.0, 1.0, 0.5, -1.0, 3.0]), 0, 1)), 4)
    -0.4444

  References:
    Croce & Hein 2020 (arXiv:2003.01690), section 5.
  """
  _check_classes('dlr_targeted', logits, 4, 'attacks.margin_targeted')
  largest = jnp.sort(logits)[::-1]
  spread = largest[0] - (largest[2] + largest[3]) / 2
  return margin_targeted(logits, y, target) / (spread + _TINY)


def margin_targeted(logits, y, target):
  """logits_target - logits_y.

  Args:
    logits: float[K].
    y: int, the label.
    target: int, the class to reach.

  Returns:
    Scalar.

  Example:
    >>> float(margin_targeted(jnp.array([1.0, 3.0, 2.5]), 1, 0))
    -2.0
  """
  return logits[target] - logits[y]


def cross_entropy_targeted(logits, y, target):
  """log softmax(logits)_target; the label y plays no part.

  Args:
    logits: float[K].
    y: int, unused.
    target: int, the class to reach.

  Returns:
    Scalar.

  Example:
    >>> round(float(cross_entropy_targeted(jnp.array([0.0, 0.0]), 0, 1)), 4)
    -0.6931
  """
  del y
  return -cross_entropy(logits, target)


def _check_classes(name, logits, least, remedy):
  if logits.shape[-1] < least:
    raise ValueError(
      f'`{name}` compares {least} logits of an example, got {logits.shape[-1]} classes: use {remedy}.'
    )
