"""Noisy copies of an image: what every training method for smoothing shares.

`perturb` makes m copies of each image, x[B, m, ...], and the loss sees them all as one batch of
B * m rows. The noise lives in `perturb` alone: an attack on the smoothed classifier and the
training pass after it then see the same draws, and a loss is a plain function of its copies.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Objective(NamedTuple):
  """A training method: `make_step(module, tx, **objective._asdict())`.

  The copies carry the noise already, so `make_step` gets no `smoothing` of its own.

  Attributes:
    loss: `(keys[B], apply, copies[B, m, ...], y, step) -> (scalar, (metrics, batch_stats))`.
    perturb: `(keys[B], model_fn, x, y, step) -> copies[B, m, ...]`; None where the images are taken as they are.
  """

  loss: Callable
  perturb: Callable | None


def augmented(smoothing, *, num_noises=1) -> Objective:
  """Noise augmentation (Cohen et al. 2019), with m noises an image.

    loss = -(1/m) sum_j log softmax(f(x + eps_j))_y

  One pass over all B * m rows updates the BatchNorm statistics.

  Args:
    smoothing: a `Smoothing`, or whatever has a `sample(key, x)`.
    num_noises: m.

  Returns:
    An `Objective`. Draw j of an image does not depend on m.

  Raises:
    ValueError: unless `num_noises` is at least 1.

  Example:
    >>> from certjax import smoothing
    >>> objective = augmented(smoothing.gaussian(sigma=0.25), num_noises=4)
    >>> keys, x = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 8, 8, 1))
    >>> objective.perturb(keys, None, x, None, 0).shape
    (2, 4, 8, 8, 1)

  References:
    Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918).
  """
  check_num_noises(num_noises)

  def perturb(keys, model_fn, x, y, step):
    del model_fn, y, step
    return copies(smoothing, keys, x, num_noises)

  def loss(keys, apply, x, y, step):
    del keys, step
    check_copies(x, num_noises)
    logits, batch_stats = logits_of_copies(apply, x)
    value = jnp.mean(jax.vmap(cross_entropy)(logits, y))
    return value, ({'accuracy': accuracy(logits, y)}, batch_stats)

  return Objective(loss, perturb)


def copies(smoothing, keys, x, num_noises):
  """`num_noises` draws around each image: x[B, ...] -> x~[B, m, ...]; draw j uses fold_in(key, j)."""
  each = jax.vmap(smoothing.sample, (0, None))
  return jax.vmap(lambda key, x: each(_fold(key, num_noises), x))(keys, x)


def logits_of_copies(apply, x):
  """(logits[B, m, K], batch_stats) of x[B, m, ...], in training mode, one pass over B * m rows."""
  logits, batch_stats = apply(x.reshape(-1, *x.shape[2:]), True)
  return logits.reshape(*x.shape[:2], -1), batch_stats


def smoothed(model_fn, smoothing, keys, num_noises):
  """The mean softmax over each image's own m noises, as a model of clean images.

    g(x_b) = log( (1/m) sum_j softmax(model_fn(sample(key_bj, x_b))) )

  Row b always meets the noises of keys[b], so an attack climbs one fixed function.
  """

  def g(x):
    noisy = copies(smoothing, keys, x, num_noises)
    logits = model_fn(noisy.reshape(-1, *noisy.shape[2:]))
    return jax.vmap(log_mean_softmax)(logits.reshape(*noisy.shape[:2], -1))

  return g


def log_mean_softmax(logits):
  """log of the mean softmax of logits[m, K], finite wherever the logits are."""
  return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(float(len(logits)))


def cross_entropy(logits, y):
  """Mean cross-entropy of ONE image's copies, logits[m, K]."""
  return -jnp.mean(jax.nn.log_softmax(logits)[:, y])


def divergence(log_p, log_q):
  """KL(p || q) of two log-probability vectors."""
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q))


def accuracy(logits, y):
  """Share of the copies, logits[B, m, K], that are classified as y[B]."""
  return jnp.mean((jnp.argmax(logits, axis=-1) == y[:, None]).astype(jnp.float32))


def ramp(step, warmup_steps):
  """Linear warm-up to 1: (step + 1) / warmup_steps, at most 1; 1 from the start without one."""
  if not warmup_steps:
    return 1.0
  # Deviation: the code of SmoothAdv raises it once an epoch; here it grows with every step.
  return jnp.minimum(1.0, (jnp.asarray(step, jnp.float32) + 1) / warmup_steps)


def fold_after(keys, num_noises):
  """A key for each image that none of its draws uses."""
  return jax.vmap(jax.random.fold_in, (0, None))(keys, num_noises)


def check_num_noises(num_noises, smallest=1):
  """Raises unless `num_noises` is a count that the method can work with."""
  if num_noises < smallest:
    raise ValueError(
      f'`num_noises` must be at least {smallest} noisy copies an image, got {num_noises}.'
    )


def check_copies(x, num_noises):
  """Raises if a loss is given something else than its `perturb` makes."""
  if x.ndim < 2 or x.shape[1] != num_noises:
    raise ValueError(
      f'this loss takes {num_noises} noisy copies an image, x[B, {num_noises}, ...], got shape '
      f'{x.shape}: give `make_step` the `perturb` of the same objective, and no `smoothing`.'
    )


def _fold(key, num_noises):
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_noises))
