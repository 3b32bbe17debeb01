"""What every layer with a known Lipschitz constant provides, and the functions that ask for it.

A layer is a `flax.linen.Module` that anyone can apply, bound and freeze, without knowing its kind:

  layer.apply(variables, x, train=False)    float[B, H, W, C] -> float[B, H', W', D]. With
                                            `train=True` and `mutable=['spectral']` it also moves
                                            what it estimates (singular vectors), and only then.
  layer.lipschitz(variables) -> float       upper bound of its L2 Lipschitz constant in evaluation,
                                            for every image size: numpy float64, rounded up.
  layer.materialize(variables) -> operator  a `jax.tree_util.Partial`, x -> y: evaluation with the
                                            normalised filter (or matrix) made once.

`lipschitz` and `materialize` are plain methods of fields and variables (no Flax scope): they see
`{'params': ..., 'spectral': ...}` of that layer alone, as numpy arrays, already known to be
finite. A module that holds others multiplies their bounds: `lipschitz_upper(child,
subtree(variables, 'name'))`. Users call `lipschitz_upper` and `materialize` below.
"""

from typing import Any

import jax
import numpy as np
from flax import linen as nn

SPECTRAL = 'spectral'
"""The collection of what a layer estimates about its spectrum in training, like `batch_stats`."""


def lipschitz_upper(module, variables) -> float:
  """An upper bound of the L2 Lipschitz constant of a layer in evaluation mode.

  It holds in exact arithmetic for the stored weights; certificates subtract the floating-point
  error of the forward pass by themselves. `nn.Sequential` gets the product of its layers.

  Args:
    module: a layer (see the protocol above), or an `nn.Sequential` of layers.
    variables: its variables, `{'params': ..., 'spectral': ...}`.

  Returns:
    A Python float (float64), rounded up; `inf` where nothing is proved.

  Raises:
    ValueError: if a weight is not finite, or the module states no constant.

  Example:
    >>> import jax
    >>> from certjax import layers
    >>> layer = layers.SOC(4, kernel_size=3, eval_degree=12)
    >>> variables = layer.init(jax.random.key(0), jax.numpy.zeros((1, 8, 8, 4)))
    >>> lipschitz_upper(layer, variables)
    1.0
  """
  variables = _on_host(variables)
  bound = 1.0
  for layer, own in _chain(module, variables, 'lipschitz'):
    value = float(layer.lipschitz(own))
    bound = np.nextafter(bound * value, np.inf) if bound != 1 and value != 1 else bound * value
  return float('inf') if np.isnan(bound) else float(bound)


def materialize(module, variables):
  """Evaluation of a layer with its normalised filter made once: a cached operator for inference.

  Args:
    module: a layer, or an `nn.Sequential` of layers.
    variables: its variables.

  Returns:
    A `jax.tree_util.Partial`, `x -> y`, equal to `module.apply(variables, x)` up to rounding.

  Raises:
    ValueError: if a weight is not finite, or the module has no such form.

  Example:
    >>> import jax
    >>> from certjax import layers
    >>> layer = layers.SOC(4, kernel_size=1)
    >>> x = jax.random.normal(jax.random.key(1), (2, 8, 8, 4))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> bool(abs(materialize(layer, variables)(x) - layer.apply(variables, x)).max() < 1e-5)
    True
  """
  chain = _chain(module, _on_host(variables), 'materialize')
  operators = tuple(layer.materialize(own) for layer, own in chain)
  return operators[0] if len(operators) == 1 else jax.tree_util.Partial(_compose, operators)


def subtree(variables, name):
  """The variables of the submodule `name`: the same collections, one level down.

  Args:
    variables: dict of collections.
    name: of the submodule.

  Returns:
    A dict of the collections that have it.

  Example:
    >>> subtree({'params': {'conv': {'bias': 1}, 'head': 2}, 'spectral': {}}, 'conv')
    {'params': {'bias': 1}}
  """
  return {kind: tree[name] for kind, tree in variables.items() if name in tree}


def _compose(operators, x):
  for operator in operators:
    x = operator(x)
  return x


def _chain(module, variables, method) -> list[tuple[Any, Any]]:
  """(layer, its variables), in order; every layer has `method`."""
  parts = [(module, variables)]
  if isinstance(module, nn.Sequential):
    parts = [
      (layer, subtree(variables, f'layers_{index}')) for index, layer in enumerate(module.layers)
    ]
  for layer, _ in parts:
    if not callable(getattr(layer, method, None)):
      raise ValueError(
        f'`module` must be a layer with a method `{method}(variables)`, got '
        f'{getattr(layer, "__name__", type(layer).__name__)}: use a layer of certjax.layers, or '
        f'give yours that method.'
      )
  return parts


def _on_host(variables):
  """numpy copies of all variables, or one clear error for the first that is not finite."""
  variables = jax.tree.map(np.asarray, variables)
  for path, leaf in jax.tree.leaves_with_path(variables):
    if not np.isfinite(leaf).all():
      bad = leaf[~np.isfinite(leaf)].flat[0]
      raise ValueError(
        f'`variables` must be finite, but {jax.tree_util.keystr(path)} holds {bad}: no bound '
        f'holds for such weights; restore an earlier checkpoint.'
      )
  return variables
