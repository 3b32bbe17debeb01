"""The layers of any model that hold a matrix or a convolution, found by one abstract pass."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from certjax.layers import subtree


class Layer(NamedTuple):
  """A layer in its place.

  Attributes:
    name: path in the model, as 'layer1_0/conv1'.
    module: the unbound Flax module.
    variables: its own, `{'params': ..., ...}`.
    shape: of one input, (H, W, C) or (C,).
  """

  name: str
  module: Any
  variables: Any
  shape: tuple[int, ...]


def layers_of(module, variables, shape):
  """Every layer that owns a kernel, in the order in which an image meets them.

  A layer is a module with a parameter of two or more axes of its own and no further such layer
  inside: `nn.Conv`, `nn.Dense`, and those of `certjax.layers`. One that is called twice is listed
  once, with its first input.
  Nothing is computed: shapes alone run through the model.

  Args:
    module: a `flax.linen.Module` called as `module(x, train=False)`.
    variables: its variables.
    shape: (H, W, C) of an image.

  Returns:
    A list of `Layer`.

  Example:
    >>> from certjax import models
    >>> module = models.build('digits-cnn', num_classes=10)
    >>> variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    >>> [(layer.name, layer.shape) for layer in layers_of(module, variables, (8, 8, 1))][:2]
    [('Conv_0', (8, 8, 1)), ('Conv_1', (8, 8, 16))]
  """
  met = {}

  def note(call, arguments, options, context):
    # A module outside any scope has neither a place nor variables.
    if context.method_name == '__call__' and context.module.scope is not None and arguments:
      met.setdefault(context.module.path, (context.module, jnp.shape(arguments[0])[1:]))
    return call(*arguments, **options)

  with nn.intercept_methods(note):
    jax.eval_shape(
      lambda variables, x: module.apply(variables, x, train=False),
      variables,
      jax.ShapeDtypeStruct((1, *shape), jnp.float32),
    )
  found = {}
  for path, (layer, entering) in met.items():
    own = variables
    for name in path:
      own = subtree(own, name)
    if any(getattr(leaf, 'ndim', 0) >= 2 for leaf in own.get('params', {}).values()):
      found[path] = Layer('/'.join(path), layer.clone(parent=None), own, entering)
  return [layer for path, layer in found.items() if not _holds_others(path, found)]


def _holds_others(path, paths):
  return any(len(path) < len(other) and other[: len(path)] == path for other in paths)
