"""A differentiable stand-in for a smoothed classifier: what an attack on it climbs."""

import jax
import jax.numpy as jnp


def expected(key, model_fn, smoothing, *, num_noises):
  """The mean softmax of `model_fn` over noises that stay the same in every call.

    g(x) = log( (1/m) sum_j softmax(model_fn(sample(key_j, x))) )

  The noises are shared by all images and all steps, so the attack climbs one fixed function
  (SmoothAdv's estimate of the smoothed classifier's gradient).

  Args:
    key: one typed key.
    model_fn: `x~[B, ...] -> logits[B, K]`.
    smoothing: a `Smoothing`.
    num_noises: m.

  Returns:
    A `ModelFn` of clean images; its outputs are log probabilities.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from certjax import smoothing
    >>> model_fn = lambda x: jnp.concatenate([x, -x], axis=1)
    >>> g = expected(jax.random.key(0), model_fn, smoothing.gaussian(sigma=0.5), num_noises=8)
    >>> g(jnp.array([[2.0]])).shape
    (1, 2)

  References:
    Salman et al. 2019 (arXiv:1906.04584), equation 6.
  """
  keys = jax.random.split(key, num_noises)

  def smoothed(x):
    noisy = jax.vmap(jax.vmap(smoothing.sample, (0, None)), (None, 0))(keys, x)
    logits = model_fn(noisy.reshape(-1, *noisy.shape[2:])).reshape(len(x), num_noises, -1)
    mean = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - jnp.log(float(num_noises))
    return mean

  return smoothed
