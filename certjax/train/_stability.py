"""Stability training: predictions under noise should agree (Zheng 2016; Li 2019; Yang 2020)."""

import jax
import jax.numpy as jnp

from certjax.train._copies import (
  Objective,
  accuracy,
  check_copies,
  copies,
  cross_entropy,
  divergence,
  logits_of_copies,
)

_VARIANTS = ('noisy', 'clean', 'both')


def stability(smoothing, *, weight=6.0, variant='noisy') -> Objective:
  """Cross-entropy plus the disagreement of two views of an image.

    noisy: CE(p_1, y) + weight KL(p_1 || p_2)                 p_1, p_2 under independent noises
    clean: CE(p_0, y) - weight sum_k p_0k log p_1k            p_0 of the image itself
    both:  (CE(p_1, y) + CE(p_2, y)) / 2 + weight KL(p_1 || p_2)

  One pass over the 2 B rows updates the BatchNorm statistics.

  Args:
    smoothing: a `Smoothing`; for 'clean' its draws must have the image's shape.
    weight: of the disagreement: 6 in the code of Yang et al. (and, their loss halved, of Voracek &
      Hein); 2 in the stability baseline of Jeong & Shin's code.
    variant: 'noisy' (Yang et al.), 'clean' (Li et al.) or 'both' (Voracek & Hein 2023, whose loss is
      twice this one).

  Returns:
    An `Objective` of 2 copies an image.

  Raises:
    ValueError: for an unknown `variant`, or a negative `weight`.

  Example:
    >>> from certjax import smoothing
    >>> objective = stability(smoothing.gaussian(sigma=0.5), variant='clean', weight=2.0)

  References:
    Zheng et al. 2016 (arXiv:1604.04326); Li et al. 2019 (arXiv:1809.03113); Yang et al. 2020
    (arXiv:2002.08118).
  """
  if variant not in _VARIANTS:
    raise ValueError(f'`variant` must be one of {", ".join(_VARIANTS)}; got {variant!r}.')
  if not weight >= 0:
    raise ValueError(f'`weight` must be at least 0, got weight={weight}.')
  num_noises = 1 if variant == 'clean' else 2
  judged = slice(0, 2) if variant == 'both' else slice(0, 1)  # The views that meet the label.

  def perturb(keys, model_fn, x, y, step):
    del model_fn, y, step
    noisy = copies(smoothing, keys, x, num_noises)
    return jnp.concatenate([x[:, None], noisy], axis=1) if variant == 'clean' else noisy

  def each(logits, y):
    log_p, log_q = jax.nn.log_softmax(logits)
    if variant == 'clean':
      apart = -jnp.sum(jnp.exp(log_p) * log_q)
    else:
      apart = divergence(log_p, log_q)
    return cross_entropy(logits[judged], y), apart

  def loss(keys, apply, x, y, step):
    del keys, step
    check_copies(x, 2)
    # Deviation: for 'clean', clean and noisy rows share one pass and its batch statistics.
    logits, batch_stats = logits_of_copies(apply, x)
    entropy, apart = map(jnp.mean, jax.vmap(each)(logits, y))
    metrics = {'accuracy': accuracy(logits, y), 'cross_entropy': entropy, 'stability': apart}
    return entropy + weight * apart, (metrics, batch_stats)

  return Objective(loss, perturb)
