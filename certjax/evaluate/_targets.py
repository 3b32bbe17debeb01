"""What an attack climbs, and who judges its result: the classifier itself, or a smoothed one.

A smoothed classifier has no useful gradient: attacks climb a differentiable stand-in, and the classifier
as it is defined (PREDICT, or the vote of all views) says what it makes of the result. It may abstain.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from certjax import attacks, certify

_FLOAT32 = 1e-5  # Of a step: a whole one may come out a little short.
_SLOTS = 16  # Images in the engine at once, part of its program.


class Target(NamedTuple):
  """A classifier under attack.

  Attributes:
    model_fn: `x[B, H, W, C] -> logits[B, K]`, a `jax.tree_util.Partial`, what attacks climb.
    judge: `(x[B, H, W, C], index[B]) -> int64[B]`, its label on the host, `certify.ABSTAIN` for none; index
      is that in the data set, on which noise depends.
    outputs: `x[B, H, W, C] -> logits[B, K]`, of the network inside.
    grid: the classifier is defined on multiples of 1 / grid; None: on all images.
  """

  model_fn: Any
  judge: Callable
  outputs: Any
  grid: int | None = None


def plain_target(model_fn, *, batch_size=250) -> Target:
  """A classifier: the largest logit, the first of equals; NaN is no answer.

  Args:
    model_fn: `x[B, ...] -> logits[B, K]`.
    batch_size: rows of every forward pass; the last is padded.

  Example:
    >>> target = plain_target(lambda x: x.reshape(len(x), -1))
    >>> target.judge(np.array([[[[0.5, 1.0]]], [[[np.nan, 1.0]]]]), np.arange(2)).tolist()
    [1, -1]
  """
  model_fn = _partial(model_fn)

  def judge(x, index):
    del index
    rows = np.minimum(np.arange(-(-len(x) // batch_size) * batch_size), len(x) - 1)
    batches = rows.reshape(-1, batch_size)
    logits = np.concatenate([certify.evaluate(model_fn, x[batch]) for batch in batches])[: len(x)]
    label = np.argmax(logits, axis=-1).astype(np.int64)
    return np.where(np.isnan(logits).any(axis=-1), certify.ABSTAIN, label)

  return Target(model_fn, judge, model_fn)


def smoothed_target(
  key, model_fn, smoothing, *, num_noises=32, num_samples=1000, alpha=1e-3, chunk=1000
) -> Target:
  """The smoothed classifier: attacks climb its mean softmax over shared noises, PREDICT judges.

  Args:
    key: one typed key.
    model_fn: `x~[B, ...] -> logits[B, K]`.
    smoothing: a `Smoothing`.
    num_noises: draws that the attack averages, `attacks.expected`.
    num_samples, alpha, chunk: of PREDICT, `certify.predict`: it abstains where the vote is close.

  Returns:
    A `Target`.

  Raises:
    ValueError: for fewer than one noise, or samples with which PREDICT always abstains.

  Example:
    >>> from certjax import smoothing
    >>> flat, law = lambda x: x.reshape(len(x), -1), smoothing.gaussian(sigma=0.1)
    >>> target = smoothed_target(jax.random.key(0), flat, law, num_noises=4)
    >>> jax.eval_shape(target.model_fn, jnp.zeros((3, 1, 2, 1))).shape
    (3, 2)
  """
  if num_noises < 1:
    raise ValueError(f'`num_noises` must be at least 1, got {num_noises}.')
  certify.check_predict_samples(num_samples, alpha)
  model_fn = _partial(model_fn)
  key_climb, key_judge, key_look = jax.random.split(key, 3)
  stand_in = functools.partial(_expected, smoothing, num_noises)

  def judge(x, index):
    counts = certify.predict_votes(
      key_judge,
      model_fn,
      smoothing,
      x,
      index=index,
      num_samples=num_samples,
      chunk=chunk,
      slots=_SLOTS,
    )
    return certify.label_from_votes(counts, alpha=alpha)

  outputs = functools.partial(_noisy, smoothing)
  return Target(
    jax.tree_util.Partial(stand_in, key_climb, model_fn), judge,
    jax.tree_util.Partial(outputs, key_look, model_fn),
  )  # fmt: skip


def views_target(model_fn, views, *, chunk=1000) -> Target:
  """A vote over `Views`: attacks climb the mean softmax of all views, the vote judges.

  Args:
    model_fn: `x~[B, ...] -> logits[B, K]`.
    views: `Views`.
    chunk: rows of the model's batch in the vote.

  Returns:
    A `Target`.

  Example:
    >>> from certjax import smoothing
    >>> views = smoothing.deterministic_splitting(lam=0.5, quantization=255, shape=(1, 2, 1))
    >>> views_target(lambda x: x.reshape(len(x), -1), views).grid
    255
  """
  model_fn = _partial(model_fn)

  def judge(x, index):
    del index
    return certify.enumerated(model_fn, views, x, chunk=chunk, slots=_SLOTS).label

  return Target(
    jax.tree_util.Partial(functools.partial(_mean_of_views, views), model_fn), judge,
    jax.tree_util.Partial(functools.partial(_first_view, views), model_fn), views.quantization,
  )  # fmt: skip


def on_grid(x, x_adv, grid):
  """x_adv with every change shortened to whole steps of 1 / grid, so that it stays in the set.

  Args:
    x: float32[...] on the grid.
    x_adv: float32[...].
    grid: steps in [0, 1].

  Example:
    >>> on_grid(np.float32([0.0, 1.0]), np.float32([0.7, 0.8]), 4).tolist()
    [0.5, 1.0]
  """
  x, steps = np.asarray(x, np.float32), np.round(np.asarray(x, np.float64) * grid)
  delta = np.asarray(x_adv, np.float64) * grid - steps
  moved = np.trunc(delta + np.sign(delta) * _FLOAT32)
  return np.where(moved == 0, x, (steps + moved).astype(np.float32) / np.float32(grid))


def _partial(model_fn):
  is_partial = isinstance(model_fn, jax.tree_util.Partial)
  return model_fn if is_partial else jax.tree_util.Partial(model_fn)


def _expected(smoothing, num_noises, key, model_fn, x):
  return attacks.expected(key, model_fn, smoothing, num_noises=num_noises)(x)


def _mean_of_views(views, model_fn, x):
  return attacks.mean_of_views(model_fn, views)(x)


def _noisy(smoothing, key, model_fn, x):
  keys = jax.random.split(key, len(x))
  return model_fn(jax.vmap(smoothing.sample)(keys, x))


def _first_view(views, model_fn, x):
  return model_fn(jax.vmap(views.view, (0, None))(x, jnp.int32(0)))
