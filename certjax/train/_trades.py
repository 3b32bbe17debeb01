r"""TRADES: accuracy on the images, and predictions that stay the same near them.

The error under attack is the error on the images plus that of points near the decision boundary; the
second is bounded by a divergence that needs no labels.
"""

import math

import jax
import jax.numpy as jnp

from certjax import attacks, threats
from certjax.train._adversarial import check_search
from certjax.train._awp import awp
from certjax.train._copies import Objective, check_copies, divergence, ramp

_NEAR = 1e-3  # Standard deviation of the start: at the image itself the divergence is flat.


def trades(
  *, eps=8 / 255, step_size=None, num_steps=10, beta=6.0, threat=threats.linf, warmup_steps=0,
  gamma=0.0,
):  # fmt: skip
  r"""Cross-entropy on the images, and the divergence to the worst point near each.

    loss = (1/B) sum_b [ CE(f(x_b), y_b) + beta KL(p(x_b) || p(x'_b)) ],   p = softmax f
    x'_b ~ argmax_{|x' - x_b| <= eps} KL(p(x_b) || p(x'))

  PGD starts at x + 0.001 N(0, 1) and sees the model in evaluation mode. The loss makes two passes in
  training mode, images and attacked points each normalised by their own batch; BatchNorm's running
  statistics become the mean of what the two passes make of them. Both sides of the divergence are
  differentiated.

  Args:
    eps: radius of the ball, in pixel values.
    step_size: of the attack; default eps / 4. It grows with eps in a warm-up.
    num_steps: steps of the attack.
    beta: weight of the divergence; the authors warn against values outside [1, 10].
    threat: `eps -> Threat`.
    warmup_steps: steps over which eps grows from 0.
    gamma: of adversarial weight perturbation, as in `awp` (Wu et al. take 0.005); 0 is without.

  Returns:
    An `Objective`, with `weights` beside it where `gamma` is positive. Metrics: 'accuracy' of the images,
    'robust_accuracy' at x', 'divergence'.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = trades(eps=0.031, step_size=0.007, beta=6.0)

  References:
    Zhang et al. 2019 (arXiv:1901.08573).
  """
  # Deviation: PGD hands over the worst point it saw, not its last.
  step_size = eps / 4 if step_size is None else step_size
  check_search(eps=eps, step_size=step_size, num_steps=num_steps)
  check_weight(beta=beta)
  threat(eps)

  def perturb(keys, model_fn, x, y, step):
    del y
    grown = ramp(step, warmup_steps)
    search = attacks.pgd(
      near(threat(eps * grown)), step_size=step_size * grown, num_steps=num_steps, loss=_moved
    )
    log_p = jax.nn.log_softmax(model_fn(x))
    return jnp.stack([x, search(keys, model_fn, x, log_p)], axis=1)

  def loss(keys, apply, x, y, step):
    del keys, step
    natural, attacked, statistics = both(apply, x)
    log_p, log_q = jax.nn.log_softmax(natural), jax.nn.log_softmax(attacked)
    apart = jnp.mean(jax.vmap(divergence)(log_p, log_q))
    value = jnp.mean(jax.vmap(attacks.cross_entropy)(natural, y)) + beta * apart
    return value, ({**accuracies(natural, attacked, y), 'divergence': apart}, statistics)

  return awp(Objective(loss, perturb), gamma)


def near(threat):
  """The threat with a start close to the image, where a divergence already has a gradient."""

  def sample(key, x):
    return threat.project(x, x + _NEAR * jax.random.normal(key, x.shape, x.dtype))

  return threat._replace(sample=sample)


def both(apply, x):
  """(logits of the images, logits of the attacked points, statistics) of x[B, 2, ...].

  Two passes in training mode; the statistics are the mean of theirs.
  """
  check_copies(x, 2)
  natural, first = apply(x[:, 0], True)
  attacked, second = apply(x[:, 1], True)
  return natural, attacked, jax.tree.map(lambda a, b: (a + b) / 2, first, second)


def accuracies(natural, attacked, y):
  """'accuracy' of the images and 'robust_accuracy' of the attacked points."""
  share = lambda logits: jnp.mean((jnp.argmax(logits, axis=-1) == y).astype(jnp.float32))
  return {'accuracy': share(natural), 'robust_accuracy': share(attacked)}


def check_weight(**weights):
  """Raises unless the weight of a term is at least 0 and finite."""
  for name, value in weights.items():
    if not 0 <= value < math.inf:
      raise ValueError(
        f'`{name}` weighs the divergence: at least 0 and finite, got {name}={value}; 6 is usual.'
      )


def _moved(logits, log_p):
  """KL(p || softmax(logits)) of ONE example: what PGD makes large."""
  return divergence(log_p, jax.nn.log_softmax(logits))
