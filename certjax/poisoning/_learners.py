"""Small classifiers that learn from a few dozen images: the base learners of an ensemble.

The proof of partition aggregation asks one thing of a learner: that what it answers is a function of
its key and its own ordered samples, and of nothing else. So a part is normalised by its own mean and
standard deviation, a padded row weighs exactly nothing, every step descends the whole part (no
batches to draw), and the number of steps is fixed.
"""

import numbers
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_MOMENTUM = 0.9
_SMALLEST_STD = 1e-3  # Of a part without contrast: a constant image must not become NaN.


class Learner(NamedTuple):
  """How one member of an ensemble learns and answers; padding and members are the ensemble's.

  Attributes:
    fit: `(key, x[S, D], y[S], mask[S]) -> state`, a tree of arrays of fixed shapes; x float32 in
      [0, 1], y int32, mask bool. Where the mask is False nothing may be learned.
    scores: `(state, x[D]) -> float32[K]` of one image.
    num_classes: K.
  """

  fit: Callable
  scores: Callable
  num_classes: int


def mlp(
  num_classes: int, *, hidden: int = 128, num_steps: int = 100, step_size: float = 0.03
) -> Learner:
  """A network of one hidden layer (ReLU), trained by full-batch steps with momentum 0.9.

    loss = sum_i mask_i crossentropy(f((x_i - mean) / std), y_i) / sum_i mask_i,

  mean and std those of all pixels of the part. The first layer's descent stays in the span of the
  part, W = W_0 + X^T A, so that a step costs S^2 products a unit in place of 2 S D: for MNIST ten
  times less.

  Args:
    num_classes: K.
    hidden: units of the hidden layer.
    num_steps: steps of gradient descent, each over the whole part.
    step_size: of the descent.

  Returns:
    A `Learner`.

  Raises:
    ValueError: if a size is no integer of at least 1, or `step_size` is not positive and finite.

  Example:
    >>> learner = mlp(2, hidden=8)
    >>> x, y = jnp.eye(4, dtype=jnp.float32), jnp.array([0, 0, 1, 1])
    >>> state = jax.jit(learner.fit)(jax.random.key(0), x, y, jnp.ones(4, bool))
    >>> scores = jax.jit(jax.vmap(learner.scores, (None, 0)))(state, x)
    >>> jnp.argmax(scores, axis=1).tolist()
    [0, 0, 1, 1]
  """
  num_classes, hidden, num_steps = (
    _check_size(name, size, least)
    for name, size, least in (
      ('num_classes', num_classes, 2), ('hidden', hidden, 1), ('num_steps', num_steps, 1)
    )
  )  # fmt: skip
  if not 0 < step_size < float('inf'):
    raise ValueError(f'`step_size` must be positive and finite, got {step_size}; try 0.03.')

  def fit(key, x, y, mask):
    mean, std = _moments(x, mask)
    x = jnp.where(mask[:, None], (x - mean) / std, 0)
    weight = mask.astype(jnp.float32) / _number(mask)
    first, layers = _initial(key, x.shape[1], hidden, num_classes)
    start, gram = _product(x, first), _product(x, x.T)

    def step(_, carry):
      (span, layers), velocity = carry
      slope = jax.grad(_crossentropy, (0, 1))(start + _product(gram, span), layers, y, weight)
      # The loss's slope in W is X^T times that in X W: the first layer's step, in terms of A.
      velocity = jax.tree.map(lambda v, g: _MOMENTUM * v + g, velocity, slope)
      moved = jax.tree.map(lambda w, v: w - step_size * v, (span, layers), velocity)
      return moved, velocity

    begun = (jnp.zeros_like(start), layers)
    (span, layers), _ = lax.fori_loop(
      0, num_steps, step, (begun, jax.tree.map(jnp.zeros_like, begun))
    )
    return {'mean': mean, 'std': std, 'first': first + _product(x.T, span), **layers}

  def scores(state, x):
    x = (x - state['mean']) / state['std']
    return _logits(_product(x[None], state['first']), state)[0]

  return Learner(fit, scores, num_classes)


def nearest_neighbour(num_classes: int) -> Learner:
  """The class of the closest sample, by L2 between images.

    scores_c = -min_{i: y_i = c} (|x|^2 - 2 <x, x_i> + |x_i|^2),

  in float32, so that distances closer than about 1e-6 of the squared norms may change places. A
  class without a sample has the score -inf. Nothing is random: the key is not used.

  Args:
    num_classes: K.

  Returns:
    A `Learner`.

  Raises:
    ValueError: if `num_classes` is no integer of at least 2.

  Example:
    >>> learner, x = nearest_neighbour(3), jnp.eye(3, dtype=jnp.float32)
    >>> mask = jnp.array([True, True, False])
    >>> state = learner.fit(jax.random.key(0), x, jnp.array([0, 1, 1]), mask)
    >>> learner.scores(state, jnp.array([0.0, 0.0, 0.5])).tolist()
    [-1.25, -1.25, -inf]
  """
  num_classes = _check_size('num_classes', num_classes, 2)

  def fit(key, x, y, mask):
    del key
    return {'x': x, 'y': y, 'norm': jnp.where(mask, jnp.sum(x * x, axis=1), jnp.inf)}

  def scores(state, x):
    products = _product(state['x'], x)
    distances = state['norm'] - 2 * products + jnp.sum(x * x)
    own = state['y'][:, None] == jnp.arange(num_classes, dtype=jnp.int32)[None]
    return -jnp.min(jnp.where(own, distances[:, None], jnp.inf), axis=0)

  return Learner(fit, scores, num_classes)


LEARNERS = {'mlp': mlp, 'nearest-neighbour': nearest_neighbour}
"""Name -> factory, for the command line."""


def build_learner(name: str, num_classes: int, parameters=None) -> Learner:
  """A learner by its name in `LEARNERS`.

  Args:
    name: a key of `LEARNERS`.
    num_classes: K.
    parameters: dict of its keyword arguments; whole numbers may come as floats.

  Returns:
    A `Learner`.

  Raises:
    ValueError: for an unknown name or parameter, and as the factory.

  Example:
    >>> build_learner('mlp', 10, {'hidden': 16.0}).num_classes
    10
  """
  if name not in LEARNERS:
    raise ValueError(f'`learner` must be one of {", ".join(LEARNERS)}; got {name!r}.')
  factory, parameters = LEARNERS[name], dict(parameters or {})
  known = factory.__kwdefaults__ or {}
  if unknown := [each for each in parameters if each not in known]:
    said = f'its parameters are {", ".join(known)}' if known else 'it has none'
    raise ValueError(f'the learner {name} has no parameter {", ".join(unknown)}: {said}.')
  return factory(num_classes, **parameters)


def _initial(key, width, hidden, num_classes):
  """(W_0, the other weights): He's initialisation, biases 0."""
  first, last = jax.random.split(key)
  normal = lambda key, rows, columns: (
    jax.random.normal(key, (rows, columns), jnp.float32) * jnp.float32((2 / rows) ** 0.5)
  )
  return normal(first, width, hidden), {
    'first_bias': jnp.zeros(hidden, jnp.float32), 'last': normal(last, hidden, num_classes),
    'last_bias': jnp.zeros(num_classes, jnp.float32),
  }  # fmt: skip


def _logits(product, layers):
  """float32[B, K], from the images' products with the first layer."""
  hidden = jax.nn.relu(product + layers['first_bias'][None])
  return _product(hidden, layers['last']) + layers['last_bias'][None]


def _crossentropy(product, layers, y, weight):
  logs = jax.nn.log_softmax(_logits(product, layers))
  return -jnp.sum(weight * jnp.take_along_axis(logs, y[:, None], axis=1)[:, 0])


def _product(a, b):
  return jnp.matmul(a, b, precision='highest')


def _moments(x, mask):
  """Mean and standard deviation of all pixels of the samples that the mask shows."""
  number = _number(mask) * x.shape[1]
  shown = mask[:, None]
  mean = jnp.sum(jnp.where(shown, x, 0)) / number
  variance = jnp.sum(jnp.where(shown, (x - mean) ** 2, 0)) / number
  return mean, jnp.maximum(jnp.sqrt(variance), jnp.float32(_SMALLEST_STD))


def _number(mask):
  """float32: samples that count, 1 where there is none."""
  return jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1)


def _check_size(name, size, least):
  whole = isinstance(size, numbers.Real) and size == int(size)
  if not whole or size < least:
    raise ValueError(f'`{name}` must be an integer of at least {least}, got {size}.')
  return int(size)
