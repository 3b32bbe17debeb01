"""FGSM (Goodfellow et al. 2015), and its random start (Wong et al. 2020): one step to the border."""

from certjax.attacks._loss import cross_entropy
from certjax.attacks._pgd import pgd
from certjax.tracing import is_traced


def fgsm(threat, *, step_size=None, random_start=False, loss=cross_entropy):
  """One step along the threat's steepest direction.

    x_adv = project(x, x + step_size * steepest(grad loss(model_fn(x), y)))

  On a model that is linear in x it finds the worst point of the L_inf, L2 and L1 ball, away from the
  borders of [0, 1]. It is a weak attack on others: a model may look robust to it and be none.

  Args:
    threat: a `Threat`.
    step_size: in the threat's norm; default `threat.eps`. Wong et al. take 1.25 eps from a random start.
    random_start: start at a random point of the set instead of at x.
    loss: `(logits[K], y) -> scalar`, made large.

  Returns:
    An `Attack`: x itself (or the random start) where the step lowers the loss. It costs two forward
    and one backward passes, and one more forward pass from a random start.

  Raises:
    ValueError: if `step_size` is not positive.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.ones(len(x))], axis=1)
    >>> attack = fgsm(threats.linf(0.25))
    >>> attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0])).tolist()
    [[0.25, 0.25]]

  References:
    Goodfellow et al. 2015 (arXiv:1412.6572); Wong et al. 2020 (arXiv:2001.03994).
  """
  if step_size is None:
    # Of length 0 every step is the same, and `pgd` refuses it.
    step_size = 1.0 if _is_zero(threat.eps) else threat.eps
  return pgd(threat, step_size=step_size, num_steps=1, random_start=random_start, loss=loss)


def _is_zero(eps):
  return not is_traced(eps) and eps == 0
