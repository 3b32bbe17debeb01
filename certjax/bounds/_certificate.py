r"""From bounds to certificates: the class of x stays as long as every margin stays positive.

  min over the region of f_y(x') - f_j(x') > 0   for all j != y

The margins are bounded in float64 and reduced by the rounding error of the computation
(`outward=True`), so the statement is about the network in exact arithmetic.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from certjax import parallel
from certjax.bounds._crown import crown
from certjax.bounds._region import ball
from certjax.certify import Certificate, certificate

_HALVINGS = 20  # Of the bracket of the largest eps: to a millionth of `max_eps`.


def margins(labels, num_classes):
  """The specification f_y - f_j of every image, one row a rival.

  Args:
    labels: int[B].
    num_classes: K.

  Returns:
    float[B, K - 1, K], for `spec`.

  Example:
    >>> margins(jnp.array([1]), 3).tolist()
    [[[-1.0, 1.0, 0.0], [0.0, 1.0, -1.0]]]
  """
  labels = jnp.asarray(labels)
  rivals = (labels[:, None] + 1 + jnp.arange(num_classes - 1)[None]) % num_classes
  rivals = jnp.sort(rivals, axis=1)
  return jax.nn.one_hot(labels, num_classes)[:, None] - jax.nn.one_hot(rivals, num_classes)


def widened(model_fn):
  """The same network with its weights in float64, on the device.

  `verify` and `largest` make it on every call, unless they are given it: for a data set in many
  calls, make it once.

  Args:
    model_fn: a `jax.tree_util.Partial`, whose leaves are the weights; another function, whose weights
      are out of reach, is returned as a Partial without any.

  Returns:
    A `jax.tree_util.Partial`.

  Example:
    >>> model_fn = jax.tree_util.Partial(lambda w, x: x @ w, jnp.ones((2, 2), jnp.float32))
    >>> widened(model_fn).args[0].dtype
    dtype('float64')
  """
  # A Partial is a jit argument: its weights are leaves, and may be widened.
  is_tree = isinstance(model_fn, jax.tree_util.Partial)
  model_fn = model_fn if is_tree else jax.tree_util.Partial(model_fn)
  with parallel.x64():
    return jax.tree.map(_in_float64, model_fn)


def verify(model_fn, x, eps, *, norm='linf', clip=(0.0, 1.0), bound=None, batch=32) -> Certificate:
  """Proves, where it can, that no point within eps of an image gets another class.

  Args:
    model_fn: `x[B, ...] -> logits[B, K]`, of steps that bounds know.
    x: float[B, ...] in [0, 1].
    eps: radius in pixel values.
    norm: 'linf', 'l2' or 'l1'.
    clip: pixel range of the adversary, None for any.
    bound: `bounds.interval`, `bounds.crown` or another with options bound by `functools.partial`;
      default `crown`.
    batch: images at a time.

  Returns:
    A `Certificate`: the class, and radius eps where it is proved; abstains elsewhere.

  Raises:
    ValueError: as `ball` and the bound, before any work.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum(1), 1 - x.sum(1)], axis=1)
    >>> verify(model_fn, np.array([[0.4, 0.3]]), 0.09).label.tolist()
    [0]
    >>> verify(model_fn, np.array([[0.4, 0.3]]), 0.11).label.tolist()
    [-1]
  """
  x = np.asarray(x, np.float64)
  holds = _holds(model_fn, norm, clip, bound)
  label, proved = _over(holds, x, np.full(len(x), eps, np.float64), batch)
  return certificate(np.where(proved, label, -1), np.where(proved, eps, 0.0))


def largest(
  model_fn, x, *, max_eps, norm='linf', clip=(0.0, 1.0), bound=None, batch=32
) -> Certificate:  # fmt: skip
  """The largest eps that `verify` proves for each image, by bisection; every proved eps is a proof.

  Args:
    model_fn, x, norm, clip, bound, batch: as `verify`.
    max_eps: where to stop.

  Returns:
    A `Certificate`: the class where eps = 0 can be proved, and the radius to `max_eps` / 10^6.

  Raises:
    ValueError: as `verify`, and for `max_eps` <= 0.

  Example:
    >>> model_fn = lambda x: jnp.stack([x.sum(1), 1 - x.sum(1)], axis=1)
    >>> proof = largest(model_fn, np.array([[0.4, 0.3]]), max_eps=0.2)
    >>> round(float(proof.radius[0]), 5)
    0.1
  """
  if not 0 < max_eps < np.inf:
    raise ValueError(f'`max_eps` must be positive and finite, got {max_eps}.')
  x = np.asarray(x, np.float64)
  holds = _holds(model_fn, norm, clip, bound)
  label, known = _over(holds, x, np.zeros(len(x)), batch)
  low, high = np.zeros(len(x)), np.full(len(x), np.float64(max_eps))
  _, all_of_it = _over(holds, x, high, batch)
  low = np.where(all_of_it & known, high, low)
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    proved = _over(holds, x, middle, batch)[1] & known
    low, high = np.where(proved, middle, low), np.where(proved, high, middle)
  return certificate(np.where(known, label, -1), np.where(known, low, 0.0))


def _holds(model_fn, norm, clip, bound):
  """A compiled (x[B, ...], eps[B]) -> (label, whether all margins are proved positive)."""
  holds = _compiled(crown if bound is None else bound, norm, None if clip is None else tuple(clip))
  model_fn = widened(model_fn)

  def run(x, eps):
    ball(x, eps, norm, clip=clip)  # Raises for bad input, which a traced one cannot.
    with parallel.x64(), jax.numpy_dtype_promotion('standard'):
      x, eps = jnp.asarray(x, jnp.float64), jnp.asarray(eps, jnp.float64)
      return holds(model_fn, x, eps)

  return run


@functools.lru_cache(maxsize=16)
def _compiled(bound, norm, clip):
  """One function object a method: a data set in many calls is one compilation."""

  @jax.jit
  def holds(model_fn, x, eps):
    logits = model_fn(x)
    label = jnp.argmax(logits, axis=-1)
    spec = margins(label, logits.shape[-1]).astype(x.dtype)
    # Wide enough for what x - eps rounds to.
    wide = eps + 4 * jnp.finfo(x.dtype).eps * (1 + eps + jnp.max(jnp.abs(x)))
    lower, _ = bound(model_fn, ball(x, wide, norm, clip=clip), spec, outward=True)
    return label, jnp.all(lower > 0, axis=-1)

  return holds


def _in_float64(leaf):
  if isinstance(leaf, jax.Array) and leaf.dtype == np.float64:
    return leaf
  leaf = np.asarray(leaf)
  floating = jnp.issubdtype(leaf.dtype, jnp.floating)
  return jnp.asarray(leaf.astype(np.float64)) if floating else leaf


def _over(holds, x, eps, batch):
  """Runs images at one batch shape; returns (label, proved) as numpy arrays."""
  labels, proofs = [], []
  for start in range(0, len(x), batch):
    rows = np.arange(start, start + batch)
    rows = np.minimum(rows, len(x) - 1)
    label, proved = holds(x[rows], eps[rows])
    labels.append(np.asarray(label))
    proofs.append(np.asarray(proved))
  return np.concatenate(labels)[: len(x)], np.concatenate(proofs)[: len(x)]
