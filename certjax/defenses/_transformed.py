"""A model behind a transform of its input, fixed or random: how a heuristic defence is put before a model."""

import jax


def transformed(model_fn, transform):
  """The model behind a transform of every image.

    f'(x) = f(t(x))

  Attack it as `transformed(model_fn, bpda(transform))` where the transform has no useful gradient.

  Args:
    model_fn: `x'[B, ...] -> logits[B, K]`, of transformed images.
    transform: `x -> x'`, of ONE image.

  Returns:
    A `ModelFn` of images.

  Example:
    >>> import jax.numpy as jnp
    >>> from certjax import defenses
    >>> model_fn = transformed(lambda x: x, defenses.bit_depth(bits=1))
    >>> model_fn(jnp.array([[0.2, 0.7]])).tolist()
    [[0.0, 1.0]]
  """
  partial = jax.tree_util.Partial
  return partial(_transformed, _leafless(model_fn), _leafless(transform))


def randomized(model_fn, transform):
  """The model behind a random transform, drawn anew for every image and every call.

    f'(key, x) = f(t(key, x))

  Attack it by `attacks.eot_pgd`; `attacks.eot` makes a `ModelFn` of it.

  Args:
    model_fn: `x'[B, ...] -> logits[B, K]`, of transformed images.
    transform: `(key, x) -> x'`, of ONE image.

  Returns:
    A random model: `(Key[B], x[B, ...]) -> logits[B, K]`, one key a row.

  Example:
    >>> import jax.numpy as jnp
    >>> from certjax import defenses
    >>> random_fn = randomized(lambda x: x.sum((1, 2)), defenses.resize_pad(size=5, smallest=4))
    >>> random_fn(jax.random.split(jax.random.key(0), 2), jnp.ones((2, 4, 4, 1))).shape
    (2, 1)
  """
  partial = jax.tree_util.Partial
  return partial(_randomized, _leafless(model_fn), _leafless(transform))


def _leafless(function):
  """A function that can pass through jit as an argument."""
  partial = jax.tree_util.Partial
  return function if isinstance(function, partial) else partial(function)


def _transformed(model_fn, transform, x):
  return model_fn(jax.vmap(transform)(x))


def _randomized(model_fn, transform, keys, x):
  return model_fn(jax.vmap(transform)(keys, x))
