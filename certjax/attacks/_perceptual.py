"""What the attacks of the neural perceptual threat model share (Laidlaw, Singla & Feizi 2021).

The set around x holds the images of [0, 1] with |phi(x') - phi(x)|_2 <= eps, phi from
`distances.embedding`. Where phi is read off the attacked model itself the attack is self-bounded: one pass
gives phi and the logits.

Everything here takes a batch, because a `FeatureFn` does; each row is treated by itself.
"""

import math

import jax
import jax.numpy as jnp

from certjax.attacks._loss import margin
from certjax.attacks._pgd import row_keys
from certjax.distances import lp, unit_features
from certjax.tracing import is_traced

_START = 0.01  # Standard deviation of the first point, as published: at x itself d has no gradient.


def phi_and_logits(embed, model_fn):
  """`x -> (phi[B, D], logits[B, K])`.

  Args:
    embed: `x[B, H, W, C] -> phi[B, D]`, or None for a self-bounded attack.
    model_fn: a `ModelFn`; with `embed` None a `FeatureFn`.

  Returns:
    A function of x.

  Raises:
    ValueError: when called, where one of the two returns something else.

  Example:
    >>> see = phi_and_logits(None, lambda x: ((x,), x.sum((1, 2))))
    >>> [a.shape for a in see(jnp.ones((2, 4, 4, 3)))]
    [(2, 48), (2, 3)]
  """

  def see(x):
    if embed is None:
      seen = model_fn(x)
      if not (isinstance(seen, tuple) and len(seen) == 2):
        raise ValueError(
          '`model_fn` of a self-bounded attack (`embed`=None) must return (activations, logits), got '
          f'{_what(seen)}: hand over `models.features_of(model_fn)`, or give `embed`.'
        )
      return unit_features(seen[0]), seen[1]
    phi, logits = embed(x), model_fn(x)
    for name, value in (('embed', phi), ('model_fn', logits)):
      if getattr(value, 'ndim', None) != 2:
        raise ValueError(
          f'`{name}` must return float[B, n], got {_what(value)}: make phi of a feature function by '
          f'`distances.embedding`.'
        )
    return phi, logits

  return see


def _what(value):
  return f'shape {value.shape}' if hasattr(value, 'shape') else type(value).__name__


def lengths(v):
  """float[B, ...] -> float[B], Euclidean norms with gradient 0 at 0.

  Example:
    >>> lengths(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [5.0, 0.0]
  """
  return jax.vmap(lp(2))(jnp.zeros_like(v), v)


def scale(factors, v):
  """Each row of float[B, ...] times its factor."""
  return jax.vmap(jnp.multiply)(factors, v)


def where(mask, a, b):
  """Row by row a or b."""
  return jax.vmap(jnp.where)(mask, a, b)


def margins(logits, y):
  """float[B], positive where the example is misclassified."""
  return jax.vmap(margin)(logits, y)


def start(key, x):
  """x with a little noise, each row its own, in [0, 1]."""
  draw = lambda key: jax.random.normal(key, x.shape[1:], x.dtype)
  return jnp.clip(x + _START * jax.vmap(draw)(row_keys(key, len(x))), 0, 1)


def keep(best, point, value, distance, eps):
  """Row by row the point of the larger margin, the new one only inside the set; a NaN never replaces a
  number.

  Args:
    best: (float[B, ...], float[B]), a point and its margin.
    point, value: the same, new.
    distance: float[B], of the new point.
    eps: size of the set.

  Returns:
    (point, margin).
  """
  better = (distance <= eps) & (value > best[1])
  return where(better, point, best[0]), jnp.where(better, value, best[1])


def within(eps, x, point):
  """x itself at eps = 0: phi may be blind to a change, but there the set is meant to be x alone."""
  return jnp.where(eps > 0, point, x)


def check(projection, known, eps, **counts):
  """Raises `ValueError` for an unknown projection, a negative or infinite eps, or counts below their least.

  Args:
    projection: a name.
    known: the names there are.
    eps: may be traced.
    **counts: a number and the least it may be.
  """
  if projection not in known:
    raise ValueError(f'`projection` must be one of {", ".join(known)}; got {projection!r}.')
  if not is_traced(eps) and not 0 <= eps < math.inf:
    raise ValueError(f'`eps` must be at least 0 and finite (0.5 on CIFAR-10), got eps={eps}.')
  for name, (count, least) in counts.items():
    if is_traced(count):
      continue
    if not least <= count < math.inf:
      raise ValueError(f'`{name}` must be at least {least}, got {name}={count}.')
