"""MACER (Zhai et al. 2020): cross-entropy plus a hinge on a soft certified radius."""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from certjax.smoothing import gaussian
from certjax.train._copies import (
  Objective,
  accuracy,
  augmented,
  check_copies,
  check_num_noises,
  log_mean_softmax,
  logits_of_copies,
)


def macer(*, sigma, num_noises=16, beta=16.0, gamma=8.0, lam=12.0) -> Objective:
  """Maximises the Gaussian radius of images that the soft smoothed classifier gets right.

    loss = -log p^_y + lam (sigma / 2) max(0, gamma - xi) [argmax_k q_k = y],
    p^ = (1/m) sum_j softmax(f(x + eps_j)),  q = (1/m) sum_j softmax(beta f(x + eps_j)),
    xi = Phi^-1(q_1) - Phi^-1(q_2),  q_1 >= q_2 the two largest of q

  averaged over the whole batch. Images with the wrong class, xi > gamma, or xi not finite (q
  saturated) have no hinge and send no gradient through it. One pass over all B * m rows updates the
  BatchNorm statistics.

  Args:
    sigma: standard deviation of the Gaussian noise, in pixel values.
    num_noises: m (the paper's k).
    beta: inverse temperature of the radius.
    gamma: hinge, in units of xi.
    lam: weight of the hinge; 12 is the default of the paper's code.

  Returns:
    An `Objective`. Metrics: 'hinged', the share of images with a hinge, and 'radius', the mean of
    (sigma / 2) xi over the batch, 0 for the others.

  Raises:
    ValueError: unless sigma, beta and gamma are positive, and `lam` at least 0.

  Example:
    >>> objective = macer(sigma=0.25, num_noises=4)

  References:
    Zhai et al. 2020 (arXiv:2001.02378).
  """
  check_num_noises(num_noises)
  if not (beta > 0 and gamma > 0 and lam >= 0):
    raise ValueError(
      f'`beta` and `gamma` must be positive and `lam` at least 0, got beta={beta}, '
      f'gamma={gamma}, lam={lam}.'
    )

  def each(logits, y):
    # Deviation: the logarithm is exact (logsumexp), where the paper's code adds 1e-10 to p^.
    return -log_mean_softmax(logits)[y], *_hinge(logits, y, beta, gamma)

  def loss(keys, apply, x, y, step):
    del keys, step
    check_copies(x, num_noises)
    logits, batch_stats = logits_of_copies(apply, x)
    right, hinge, hinged = jax.vmap(each)(logits, y)
    right, hinge, share = jnp.mean(right), sigma / 2 * jnp.mean(hinge), jnp.mean(hinged)
    metrics = {'accuracy': accuracy(logits, y), 'cross_entropy': right, 'hinged': share}
    metrics = {**metrics, 'radius': sigma / 2 * gamma * share - hinge}
    return right + lam * hinge, (metrics, batch_stats)

  return Objective(loss, augmented(gaussian(sigma=sigma), num_noises=num_noises).perturb)


def _hinge(logits, y, beta, gamma):
  """(gamma - xi, 1) of ONE image's logits[m, K], (0, 0) where it does not count."""
  (first, second), (label, _) = jax.lax.top_k(jnp.mean(jax.nn.softmax(beta * logits), axis=0), 2)
  right = label == y.astype(label.dtype)
  inside = right & (second > 0) & (first < 1)  # False for NaN; else xi is finite.
  # The input is replaced too: Phi^-1 has no derivative at 0 and 1, whatever JAX returns there.
  xi = ndtri(jnp.where(inside, first, 0.5)) - ndtri(jnp.where(inside, second, 0.5))
  inside = inside & (xi <= gamma)
  return jnp.where(inside, gamma - xi, 0.0), inside.astype(logits.dtype)
