"""What happens to a work item on the device: perturb an image, run the model, tally the outcome."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Program(NamedTuple):
  """What happens to an item on the device; functions are `jax.tree_util.Partial` (`as_pytree`).

  Attributes:
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`, a function of its rows one by one.
    perturb: `(key, number, x) -> x~`, of one image.
    tally: `(counts, row, number, logits, extra) -> counts`, adds the outcomes of a chunk: counts
      int32[M, *bins], row int32[chunk] (M for padding: to be dropped), extra int32[chunk].
    keys: Key[P], one root key a purpose.
    bins: shape of the counts of one request.
  """

  model_fn: Any
  perturb: Any
  tally: Any
  keys: jax.Array
  bins: tuple


class Outside:
  """A model that lives outside JAX: numpy in, numpy out. Made by `outside`."""

  def __init__(self, predict: Callable, num_classes: int | None = None):
    self.predict, self.num_classes = predict, num_classes

  def __call__(self, x):
    """float32[B, K] on the host, checked."""
    logits = np.asarray(self.predict(np.asarray(x)), np.float32)
    if (
      logits.ndim != 2
      or len(logits) != len(x)
      or logits.shape[1] != (self.num_classes or logits.shape[1])
    ):
      raise ValueError(
        f'`model_fn` must return logits [B, K], got shape {logits.shape} for a batch of {len(x)} '
        f'images.'
      )
    return logits


def outside(predict, num_classes=None) -> Outside:
  """A model outside JAX, to be certified like any `model_fn`.

  Noise is drawn on the device as for any other model, and each chunk of it is handed to `predict`
  on the host; this is the one case in which noisy images leave the device. (A callback
  from inside the compiled program would do the same, but blocks on a CPU with several devices.)

  Args:
    predict: numpy float32[chunk, H, W, C] -> scores [chunk, K], a function of its rows one by one.
    num_classes: K; default: what `predict` returns for zeros.

  Example:
    >>> import jax, numpy as np
    >>> from certjax import certify, smoothing
    >>> model_fn = outside(lambda x: np.stack([x[:, 0], -x[:, 0]], axis=1))
    >>> certify.votes(jax.random.key(0), model_fn, smoothing.gaussian(sigma=0.5),
    ...               np.array([[3.0]]), num_samples=100, chunk=50).tolist()
    [[100, 0]]
  """
  return Outside(predict, num_classes)


def logits_of(model_fn, perturb, keys, number, x):
  """float32[chunk, K] of a chunk of items."""
  noisy = jax.vmap(perturb)(keys, number, x)
  # The barrier keeps the model's own fusions independent of how the noise was made.
  return model_fn(lax.optimization_barrier(noisy)).astype(jnp.float32)


def as_pytree(fn):
  """`Partial` makes any function a jit argument: its weights are leaves, its code is static.

  A model `outside` JAX stays what it is.

  Example:
    >>> as_pytree(len)([1, 2])
    2
  """
  return fn if isinstance(fn, (jax.tree_util.Partial, Outside)) else jax.tree_util.Partial(fn)


def draws(smoothing):
  """The `perturb` of a `Smoothing`: sample j of an image draws with fold_in(its key, j)."""
  return jax.tree_util.Partial(_draw, as_pytree(smoothing.sample))


def _draw(sample, key, number, x):
  return sample(jax.random.fold_in(key, number), x)


def num_classes(model_fn, perturb, shape, chunk) -> int:
  """K, from the shape of the logits; traced once a shape, never run.

  Raises:
    ValueError: if the model does not return logits [B, K].
  """
  if isinstance(model_fn, Outside):
    return (
      model_fn.num_classes
      or model_fn(np.zeros((chunk, *_shape(perturb, shape)), np.float32)).shape[1]
    )
  image = jax.ShapeDtypeStruct((chunk, *shape), np.float32)
  logits = _chunk_of_logits.eval_shape(as_pytree(model_fn), as_pytree(perturb), image)
  if len(logits.shape) != 2 or logits.shape[0] != chunk:
    raise ValueError(
      f'`model_fn` must return logits [B, K], got shape {logits.shape} for a batch of {chunk} '
      f'images.'
    )
  return logits.shape[-1]


@jax.jit
def _chunk_of_logits(model_fn, perturb, x):
  keys = jax.random.split(jax.random.key(0), len(x))
  return logits_of(model_fn, perturb, keys, jnp.arange(len(x), dtype=jnp.int32), x)


def _shape(perturb, shape):
  """Of a perturbed image."""
  arguments = jax.eval_shape(lambda: jax.random.key(0)), np.int32(0)
  return jax.eval_shape(perturb, *arguments, jax.ShapeDtypeStruct(shape, np.float32)).shape


def evaluate(model_fn, x) -> np.ndarray:
  """The logits of a batch, on the host: one program for all weights.

  Args:
    model_fn: `x[B, ...] -> logits[B, K]`, in JAX or outside.
    x: float[B, ...].

  Example:
    >>> evaluate(lambda x: 2 * x, np.ones((1, 2), np.float32)).tolist()
    [[2.0, 2.0]]
  """
  if isinstance(model_fn, Outside):
    return model_fn(x)
  return np.asarray(_evaluate(as_pytree(model_fn), x))


@jax.jit
def _evaluate(model_fn, x):
  return model_fn(x).astype(jnp.float32)
