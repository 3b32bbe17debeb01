r"""The cross-entropy at the worst logits, and the loss that mixes it with that of the clean images.

With m_j <= f_y(x') - f_j(x') for all x' of a region, the logits 0 of the label y and -m_j of a rival
j have a cross-entropy of at least that of every x'. Bounds see the model in evaluation mode; the pass
over the clean images alone updates BatchNorm's statistics.
"""

import jax
import jax.numpy as jnp
import optax

from certjax import bounds


def over_balls(margins_of, eps, kappa, grown, *, penalty=None, smallest=0.0):
  r"""The loss k CE(clean) + (1 - k) CE(worst logits) + (1 - d) penalty, k from 1 to kappa with d.

  Args:
    margins_of: `(model_fn, region, spec, done, keys) -> float[B, K]`, m; `done` is d.
    eps: radius at the end; the ball is cut to [0, 1].
    kappa: k at the end.
    grown: step -> d, the share of `eps` that is reached.
    penalty: `(model_fn, region) -> scalar`, or None.
    smallest: radius that the ball always has.

  Returns:
    A `loss` of an `Objective`.
  """

  def loss(keys, apply, x, y, step):
    done = grown(step)
    share = 1 - (1 - kappa) * done
    logits, statistics = apply(x, True)
    model_fn, region = evaluation(apply), bounds.ball(x, jnp.maximum(eps * done, smallest))
    margins = margins_of(model_fn, region, rivals(logits, y), done, keys)
    value = share * cross_entropy(logits, y) + (1 - share) * worst(margins)
    if penalty is not None:
      value += (1 - done) * penalty(model_fn, region)
    return value, (metrics(logits, y, margins, eps * done), statistics)

  return loss


def evaluation(apply):
  """The model in evaluation mode."""
  return lambda x: apply(x, False)[0]


def rivals(logits, y):
  """The rows e_y - e_j of the margins."""
  return bounds.margins(y, logits.shape[-1]).astype(logits.dtype)


def worst(margins):
  """Mean cross-entropy of the logits 0 and -m."""
  return jnp.mean(jnp.logaddexp(0.0, jax.nn.logsumexp(-margins, axis=-1)))


def cross_entropy(logits, y):
  """Mean cross-entropy of logits[B, K]."""
  return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def metrics(logits, y, margins, eps):
  """'accuracy' of clean images, 'verified' (share with positive margins only) and 'eps'."""
  right = jnp.argmax(logits, axis=-1) == y
  verified = jnp.all(margins > 0, axis=-1)
  share = lambda which: jnp.mean(which.astype(jnp.float32))
  return {'accuracy': share(right), 'verified': share(verified), 'eps': jnp.float32(eps)}
