"""Pixels rounded to black or white before the model sees them (the "binarized CNN" of Schott et al. 2019).

Small changes of a pixel far from the threshold are forgotten, which defeats L_inf attacks on MNIST; an
adversary who may rewrite a few pixels only has to push them across it.
"""

import jax
import jax.numpy as jnp


def binarize(model_fn, *, threshold=0.5):
  """The model behind a threshold on every pixel value.

    f'(x) = f(1{x > threshold})

  Its gradient is zero everywhere: attack it by decisions or scores (`attacks.pointwise`,
  `attacks.sparse_rs`).

  Args:
    model_fn: `x[B, ...] -> logits[B, K]`.
    threshold: pixel value in [0, 1] above which a value counts as 1.

  Returns:
    A `ModelFn`.

  Raises:
    ValueError: for a threshold outside [0, 1].

  Example:
    >>> model_fn = binarize(lambda x: x)
    >>> model_fn(jnp.array([[0.2, 0.5, 0.7]])).tolist()
    [[0.0, 0.0, 1.0]]

  References:
    Schott et al. 2019 (arXiv:1805.09190).
  """
  if not 0 <= threshold <= 1:
    raise ValueError(f'`threshold` is a pixel value in [0, 1], got threshold={threshold}.')
  inner = (
    model_fn if isinstance(model_fn, jax.tree_util.Partial) else jax.tree_util.Partial(model_fn)
  )
  return jax.tree_util.Partial(_binarized, inner, jnp.float32(threshold))


def _binarized(model_fn, threshold, x):
  return model_fn((x > threshold.astype(x.dtype)).astype(x.dtype))
