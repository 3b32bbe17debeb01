"""Base learners by name, as configs and the command line store them."""

import inspect

from certjax.poisoning._cnn import cnn
from certjax.poisoning._learner import Learner
from certjax.poisoning._learners import mlp, nearest_neighbour
from certjax.poisoning._linear import linear
from certjax.poisoning._nin import nin

LEARNERS = {
  'mlp': mlp,
  'nearest-neighbour': nearest_neighbour,
  'linear': linear,
  'cnn': cnn,
  'nin': nin,
}
"""Name -> factory, for the command line."""


def build_learner(name: str, num_classes: int, parameters=None, *, shape=None) -> Learner:
  """A learner by its name in `LEARNERS`.

  Args:
    name: a key of `LEARNERS`.
    num_classes: K.
    parameters: dict of its keyword arguments; whole numbers may come as floats.
    shape: (H, W, C) of the images, for learners that see them as images; None for given features.

  Returns:
    A `Learner`.

  Raises:
    ValueError: for an unknown name or parameter, a learner of images without their shape, and as the
      factory.

  Example:
    >>> build_learner('mlp', 10, {'hidden': 16.0}).num_classes
    10
  """
  factory, known = _factory(name), learner_parameters(name)
  parameters = dict(parameters or {})
  if unknown := [each for each in parameters if each not in known]:
    said = f'its parameters are {", ".join(known)}' if known else 'it has none'
    raise ValueError(f'the learner {name} has no parameter {", ".join(unknown)}: {said}.')
  if 'shape' not in inspect.signature(factory).parameters:
    return factory(num_classes, **parameters)
  if shape is None:
    raise ValueError(
      f'the learner {name} sees images, not features: give their `shape`, or choose linear, mlp or '
      f'nearest-neighbour.'
    )
  return factory(num_classes, shape=shape, **parameters)


def learner_parameters(name: str) -> dict:
  """The parameters of a learner with their defaults.

  Raises:
    ValueError: for an unknown name.

  Example:
    >>> learner_parameters('mlp')
    {'hidden': 128, 'num_steps': 100, 'step_size': 0.03}
  """
  return dict(_factory(name).__kwdefaults__ or {})


def _factory(name):
  if name not in LEARNERS:
    raise ValueError(f'`learner` must be one of {", ".join(LEARNERS)}; got {name!r}.')
  return LEARNERS[name]
