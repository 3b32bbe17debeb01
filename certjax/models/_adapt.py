"""Any model as a `model_fn`: Flax linen and nnx modules, plain functions, in float32 or bfloat16."""

import functools
import inspect

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx


def as_model_fn(model):
  """A `model_fn` in evaluation mode from whatever holds a model.

  Args:
    model: an nnx module; a bound linen module, or the pair (linen module, variables); any other
      function `x[B, ...] -> logits[B, K]` stays what it is.

  Returns:
    A function of a batch; the weights of Flax modules travel as leaves of a `Partial`.

  Raises:
    ValueError: for what is no model: a class, an unbound linen module, no function.

  Example:
    >>> model_fn = as_model_fn(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
    >>> model_fn(jnp.zeros((2, 3))).shape, len(jax.tree.leaves(model_fn))
    ((2, 4), 2)
  """
  if isinstance(model, nnx.Module):
    return _from_nnx(model)
  if isinstance(model, nn.Module):
    if model.scope is None:
      raise ValueError('a linen module has no weights of its own: give (module, variables).')
    model = model.unbind()
  if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], nn.Module):
    module, variables = model
    return jax.tree_util.Partial(_from_linen(module), variables)
  if inspect.isclass(model) or not callable(model):
    raise ValueError(
      f'a model is a function of a batch of images, an nnx module, or (linen module, variables); '
      f'got {model!r}.'
    )
  return model


def in_bfloat16(model_fn):
  """The same model evaluated in bfloat16: a faster classifier, and another one.

  Weights (float32 leaves of a `Partial`) and inputs are rounded; logits come back as float32. A
  certificate is about the classifier that was evaluated, so it holds for this one.

  Args:
    model_fn: a `jax.tree_util.Partial`, such as `models.bind` makes, or a function whose
      arithmetic follows the dtype of its input.

  Returns:
    A `jax.tree_util.Partial`.

  Example:
    >>> third = in_bfloat16(lambda x: x / 3)(jnp.ones((1, 1)))
    >>> third.dtype, float(third[0, 0])
    (dtype('float32'), 0.333984375)
  """
  model_fn = (
    model_fn if isinstance(model_fn, jax.tree_util.Partial) else jax.tree_util.Partial(model_fn)
  )
  return jax.tree_util.Partial(_evaluate_rounded, jax.tree.map(_round, model_fn))


def _round(leaf):
  leaf = jnp.asarray(leaf)
  return leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf


def _evaluate_rounded(model_fn, x):
  return model_fn(x.astype(jnp.bfloat16)).astype(jnp.float32)


def _from_nnx(model):
  graph, state = nnx.split(model)
  model = nnx.merge(graph, state)  # A copy: its mode is ours to set.
  model.eval()
  graph, state = nnx.split(model)
  return jax.tree_util.Partial(lambda state, x: nnx.merge(graph, state)(x), state)


@functools.cache
def _from_linen(module):
  """One function object a module: jit caches on its identity."""
  options = {'train': False} if 'train' in inspect.signature(module.__call__).parameters else {}

  def apply(variables, x):
    return module.apply(variables, x, **options)

  apply.module = module
  return apply
