"""Softmax regression with a penalty: the base learner of given features, the same for any key.

The objective is strictly convex, and strongly so by the penalty: how far the weights are from the one
optimum follows from the slope where the descent ends.
"""

import jax
import jax.numpy as jnp
from jax import lax

from certjax.poisoning._learner import (
  Learner,
  check_positive,
  check_size,
  moments,
  product,
  shown_number,
)


def linear(num_classes: int, *, penalty: float = 1e-4, num_steps: int = 500) -> Learner:
  r"""Softmax regression on pixels or features, from zero weights, by accelerated descent.

    min over W, b of  sum_i mask_i crossentropy(W^T z_i + b, y_i) / sum_i mask_i + (penalty / 2) (|W|^2 + |b|^2),
    z = (x - mean) / (std sqrt(D)),

  mean and std those of all entries of the part, so that |z| is about 1. The slope is at most
  L = |G|_F / (2 n) + penalty steep, G the Gram matrix of the rows (z, 1), so that steps of 1 / L with
  Nesterov's momentum come closer by 1 - sqrt(penalty / L) each. Weights stay in the span of the part,
  W = Z^T A: a step costs S^2 K products whatever D is. Nothing is random: the key is not used.

  Args:
    num_classes: K.
    penalty: of the squared weights.
    num_steps: steps of the descent.

  Returns:
    A `Learner`.

  Raises:
    ValueError: if a size is no integer of at least 1, or `penalty` is not positive and finite.

  Example:
    >>> learner = linear(2, num_steps=100)
    >>> x, y = jnp.eye(4, dtype=jnp.float32), jnp.array([0, 0, 1, 1])
    >>> state = jax.jit(learner.fit)(jax.random.key(0), x, y, jnp.ones(4, bool))
    >>> jnp.argmax(jax.vmap(learner.scores, (None, 0))(state, x), axis=1).tolist()
    [0, 0, 1, 1]

  References:
    Nesterov 2004, Introductory Lectures on Convex Optimization, section 2.2.
  """
  num_classes, num_steps = (
    check_size('num_classes', num_classes, 2),
    check_size('num_steps', num_steps, 1),
  )
  check_positive('penalty', penalty, 1e-4)

  def fit(key, x, y, mask):
    del key
    mean, std = moments(x, mask)
    z = _rows(x, mean, std, mask)
    weight = mask.astype(jnp.float32) / shown_number(mask)
    wanted = jax.nn.one_hot(y, num_classes, dtype=jnp.float32)
    gram = product(z, z.T)
    steepest = jnp.linalg.norm(gram) / (2 * shown_number(mask)) + penalty
    root, low = jnp.sqrt(steepest), jnp.float32(penalty**0.5)
    momentum = (root - low) / (root + low)

    def step(_, carry):
      span, ahead = carry
      error = jax.nn.softmax(product(gram, ahead)) - wanted
      moved = ahead - (weight[:, None] * error + penalty * ahead) / steepest
      return moved, moved + momentum * (moved - span)

    start = jnp.zeros((x.shape[0], num_classes), jnp.float32)
    span, _ = lax.fori_loop(0, num_steps, step, (start, start))
    weights = product(z.T, span)
    return {'mean': mean, 'std': std, 'weights': weights[:-1], 'bias': weights[-1]}

  def scores(state, x):
    z = _scaled(x, state['mean'], state['std'])
    return product(z[None], state['weights'])[0] + state['bias']

  return Learner(fit, scores, num_classes)


def _scaled(x, mean, std):
  return (x - mean) / (std * jnp.float32(x.shape[-1] ** 0.5))


def _rows(x, mean, std, mask):
  """(z, 1) of the samples that the mask shows, else zeros."""
  rows = jnp.concatenate([_scaled(x, mean, std), jnp.ones((x.shape[0], 1), jnp.float32)], axis=1)
  return jnp.where(mask[:, None], rows, 0)
