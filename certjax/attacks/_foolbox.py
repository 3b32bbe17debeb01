"""Attacks of foolbox as ours. The other way needs nothing: a `ModelFn` is what `foolbox.JAXModel` takes."""

import functools

import jax
import jax.numpy as jnp


def from_foolbox(attack, *, eps):
  """An attack object of foolbox, called as ours are.

  It runs on the host, step by step, and draws from numpy's or PyTorch's global state: `key` plays no
  part, and it cannot be traced.

  Args:
    attack: a `foolbox.attacks.Attack`, such as `foolbox.attacks.LinfPGD(steps=40)`.
    eps: the size of its set, in its own norm, in pixel values of [0, 1].

  Returns:
    An `Attack`: foolbox's clipped point where it is misclassified and lies in [0, 1], x elsewhere. That it is
    within `eps` is foolbox's word: ask a `Threat` for its `distance`.

  Raises:
    ValueError: if `eps` is negative.
    ImportError: when called, without foolbox (`pip install foolbox`).

  Example:
    >>> class Darker:  # What foolbox calls an attack: (raw, clipped, success) of a model and labels.
    ...   def __call__(self, model, x, criterion, *, epsilons):
    ...     return x, x - epsilons, None
    >>> callable(from_foolbox(Darker(), eps=0.1))
    True

  References:
    Rauber et al. 2020 (JOSS, doi 10.21105/joss.02607).
  """
  if not eps >= 0:
    raise ValueError(f'`eps` must be at least 0, got eps={eps}.')

  def run(key, model_fn, x, y):
    del key
    if eps == 0:
      return x
    import foolbox  # pyright: ignore[reportMissingImports] # Of the extra `interop`.

    partial = jax.tree_util.Partial
    weighted = model_fn if isinstance(model_fn, partial) else partial(model_fn)
    compiled = functools.partial(_compiled, weighted)
    model = foolbox.JAXModel(compiled, bounds=(0, 1))
    _, found, _ = attack(model, x, foolbox.Misclassification(y), epsilons=eps)
    fits = jnp.all((found >= 0) & (found <= 1), axis=range(1, x.ndim))
    better = fits & (compiled(found).argmax(axis=1) != y)
    return jax.vmap(jnp.where)(better, found, x)

  return run


@jax.jit
def _compiled(model_fn, x):
  return model_fn(x)
