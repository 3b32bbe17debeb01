"""Whether a value is known, or stands for one that a compiled program will get later.

Arguments are checked where they are known: `eps < 0` of a traced `eps` has no answer yet.
"""

import jax


def is_traced(value) -> bool:
  """Whether `value` is a tracer of JAX.

  Example:
    >>> seen = []
    >>> _ = jax.jit(lambda x: seen.append(is_traced(x)))(1.0)
    >>> seen, is_traced(1.0)
    ([True], False)
  """
  # JAX imports `jax.core` itself, and takes the name away again: no checker can see it.
  return isinstance(value, jax.core.Tracer)  # pyright: ignore[reportAttributeAccessIssue]
