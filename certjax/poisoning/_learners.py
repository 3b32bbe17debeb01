"""Two base learners of vectors: a network of one hidden layer, and the nearest neighbour.

Every step descends the whole part, so that there are no batches to draw.
"""

import jax
import jax.numpy as jnp
from jax import lax

from certjax.poisoning._learner import (
  Learner,
  check_positive,
  check_size,
  log_losses,
  moments,
  product,
  shown_number,
)

_MOMENTUM = 0.9


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
    check_size(name, size, least)
    for name, size, least in (
      ('num_classes', num_classes, 2), ('hidden', hidden, 1), ('num_steps', num_steps, 1)
    )
  )  # fmt: skip
  check_positive('step_size', step_size, 0.03)

  def fit(key, x, y, mask):
    mean, std = moments(x, mask)
    x = jnp.where(mask[:, None], (x - mean) / std, 0)
    weight = mask.astype(jnp.float32) / shown_number(mask)
    first, layers = _initial(key, x.shape[1], hidden, num_classes)
    start, gram = product(x, first), product(x, x.T)

    def step(_, carry):
      (span, layers), velocity = carry
      slope = jax.grad(_crossentropy, (0, 1))(start + product(gram, span), layers, y, weight)
      # The loss's slope in W is X^T times that in X W: the first layer's step, in terms of A.
      velocity = jax.tree.map(lambda v, g: _MOMENTUM * v + g, velocity, slope)
      moved = jax.tree.map(lambda w, v: w - step_size * v, (span, layers), velocity)
      return moved, velocity

    begun = (jnp.zeros_like(start), layers)
    (span, layers), _ = lax.fori_loop(
      0, num_steps, step, (begun, jax.tree.map(jnp.zeros_like, begun))
    )
    return {'mean': mean, 'std': std, 'first': first + product(x.T, span), **layers}

  def scores(state, x):
    x = (x - state['mean']) / state['std']
    return _logits(product(x[None], state['first']), state)[0]

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
  num_classes = check_size('num_classes', num_classes, 2)

  def fit(key, x, y, mask):
    del key
    return {'x': x, 'y': y, 'norm': jnp.where(mask, jnp.sum(x * x, axis=1), jnp.inf)}

  def scores(state, x):
    products = product(state['x'], x)
    distances = state['norm'] - 2 * products + jnp.sum(x * x)
    own = state['y'][:, None] == jnp.arange(num_classes, dtype=jnp.int32)[None]
    return -jnp.min(jnp.where(own, distances[:, None], jnp.inf), axis=0)

  return Learner(fit, scores, num_classes)


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


def _logits(projected, layers):
  """float32[B, K], from the images' products with the first layer."""
  hidden = jax.nn.relu(projected + layers['first_bias'][None])
  return product(hidden, layers['last']) + layers['last_bias'][None]


def _crossentropy(projected, layers, y, weight):
  return jnp.sum(weight * log_losses(_logits(projected, layers), y))
