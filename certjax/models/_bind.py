"""From a Flax module and its variables to the `model_fn` that the mathematics sees."""

import functools

import jax


def bind(module, variables):
  """A `model_fn` in evaluation mode: `x[B, ...] -> logits[B, K]`, float32.

  The result is a pytree (`jax.tree_util.Partial`): variables travel through jit as
  arguments, and two bindings of one module share one trace.

  Args:
    module: a `flax.linen.Module` called as `module(x, train=False)`.
    variables: its variables, `{'params': ..., 'batch_stats': ...}`.

  Returns:
    A `jax.tree_util.Partial`.

  Example:
    >>> import jax
    >>> from certjax import models
    >>> module = models.build('digits-cnn', num_classes=10)
    >>> x = jax.numpy.zeros((2, 8, 8, 1))
    >>> bind(module, module.init(jax.random.key(0), x))(x).shape
    (2, 10)
  """
  return jax.tree_util.Partial(_evaluation(module), variables)


def module_of(model_fn):
  """The module that `bind` made a `model_fn` of, None for any other function.

  Args:
    model_fn: any function.

  Returns:
    A `flax.linen.Module` or None.

  Example:
    >>> from certjax import models
    >>> module = models.build('digits-cnn', num_classes=10)
    >>> module_of(bind(module, {})) == module, module_of(abs)
    (True, None)
  """
  return getattr(getattr(model_fn, 'func', None), 'module', None)


@functools.cache
def _evaluation(module):
  """One function object a module: jit caches on its identity."""

  def apply(variables, x):
    return module.apply(variables, x, train=False)

  apply.module = module
  return apply
