"""The one search of all functional threats: ascent in the latent, best image kept.

One trace: a scan over the steps; each costs one forward and one backward pass, and two more forward
passes judge the image itself and the end point.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from certjax import threats
from certjax.attacks._loss import margin
from certjax.attacks._pgd import row_keys
from certjax.attacks.functional._field import check_choice
from certjax.tracing import is_traced

_MEAN_DECAY, _SQUARE_DECAY, _TINY = 0.9, 0.999, 1e-8  # Adam's.


def latent_attack(
  threat,
  *,
  num_steps,
  step_size,
  loss=margin,
  optimizer='adam',
  penalty_weight=0.0,
  random_start=False,
  keep='best',
):
  r"""Ascends the loss of the decoded image less its penalty.

    g_t = grad_latent [loss(model_fn(decode(x, latent_t)), y) - penalty_weight * penalty(latent_t)]
    latent_{t+1} = project(latent_t + step_size * direction(g_t))

  An image that is misclassified (another class's logit exceeds that of y) comes before one that is not,
  then the larger objective decides. With `margin`, the margin of a wrong class never falls below
  that of x. A gradient that is not finite counts as 0.

  Published settings:

  | attack | threat | num_steps, step_size | optimizer | penalty_weight |
  | --- | --- | --- | --- | --- |
  | ReColorAdv | recolor(.06) | 100, .001 | adam | .05 (in PAT: .0036 / eps) |
  | StAdv in PAT | stadv(.05) | 100, .01 | adam | .0025 / eps |
  | C + S + D | compose(recolor(.06), stadv(.05), additive(8 / 255)) | 100, .001 | adam | .05 |
  | UAR | jpeg(eps), elastic(eps) | N, eps / sqrt(N) | sign | 0 |

  Args:
    threat: a `Functional`.
    num_steps: static number of steps.
    step_size: in the latent's unit; for `compose` also a tuple, one a part.
    loss: `(logits[K], y) -> scalar`, made large.
    optimizer: what a direction is: 'adam'; 'sign' of the gradient; or 'l2', the gradient over its
      Euclidean length.
    penalty_weight: of the threat's penalty.
    random_start: start at a random latent instead of the one that changes nothing.
    keep: which image is returned: 'best', of all that were decoded, x among them; or 'last', as the
      published codes of ReColorAdv and UAR do, to reproduce their numbers: it may be worse than x.

  Returns:
    An `Attack`.

  Raises:
    ValueError: if `num_steps` or `penalty_weight` is negative, a `step_size` is not positive, or
      `optimizer` or `keep` is unknown.

  Example:
    >>> from certjax.attacks.functional import additive
    >>> model_fn = lambda x: jnp.stack([x.sum((1, 2, 3)), jnp.ones(len(x))], axis=1)
    >>> attack = latent_attack(additive(0.25), num_steps=2, step_size=0.25, optimizer='sign')
    >>> attack(jax.random.key(0), model_fn, jnp.full((1, 1, 2, 1), 0.5), jnp.array([0])).tolist()
    [[[[0.25], [0.25]]]]

  References:
    Laidlaw & Feizi 2019 (arXiv:1906.00001); Xiao et al. 2018 (arXiv:1801.02612); Kang et al. 2019
    (arXiv:1908.08016).
  """
  _check(num_steps, step_size, optimizer, penalty_weight)
  check_choice('keep', keep, ('best', 'last'))
  moments_of, direction_of = _OPTIMIZERS[optimizer]
  decode, project = jax.vmap(threat.decode), jax.vmap(threat.project)

  def attack(key, model_fn, x, y):
    def judge(latent, x_adv):
      logits = model_fn(x_adv)
      value = jax.vmap(loss)(logits, y)
      value = value - penalty_weight * jax.vmap(threat.penalty)(latent)
      return x_adv, jax.vmap(margin)(logits, y) > 0, value

    def objective(latent):
      seen = judge(latent, decode(x, latent))
      return jnp.sum(seen[2]), seen

    def step(carry, count):
      latent, moments, best = carry
      gradient, seen = jax.grad(objective, has_aux=True)(latent)
      gradient = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0), gradient)
      direction, moments = jax.vmap(direction_of, (0, 0, None))(moments, gradient, count)
      return (project(x, _ahead(latent, direction, step_size)), moments, _keep(best, seen)), None

    keys = row_keys(key, len(x))
    latent = jax.vmap(threat.init)(keys, x)
    best = _keep((x, jnp.zeros(len(x), bool), jnp.full(len(x), -jnp.inf)), judge(latent, x))
    latent = jax.vmap(threat.sample)(keys, x) if random_start else latent
    counts = jnp.arange(1, num_steps + 1, dtype=x.dtype)
    (latent, _, best), _ = lax.scan(step, (latent, moments_of(latent), best), counts)
    last = objective(latent)[1]
    return last[0] if keep == 'last' else _keep(best, last)[0]

  return attack


def _ahead(latent, direction, step_size):
  """One step size for all, or one for each part of a tuple."""
  move = lambda size, part, way: jax.tree.map(lambda l, d: l + size * d, part, way)
  return jax.tree.map(move, step_size, latent, direction)


def _adam(moments, gradient, count):
  decayed = lambda decay, old, new: jax.tree.map(lambda o, n: decay * o + (1 - decay) * n, old, new)
  mean = decayed(_MEAN_DECAY, moments[0], gradient)
  square = decayed(_SQUARE_DECAY, moments[1], jax.tree.map(jnp.square, gradient))
  direction = jax.tree.map(
    lambda m, s: m / (1 - _MEAN_DECAY**count) / (jnp.sqrt(s / (1 - _SQUARE_DECAY**count)) + _TINY),
    mean, square,
  )  # fmt: skip
  return direction, (mean, square)


def _sign(moments, gradient, count):
  del count
  return jax.tree.map(jnp.sign, gradient), moments


def _l2(moments, gradient, count):
  del count
  flat, unravel = ravel_pytree(gradient)
  return unravel(threats.l2(1.0).steepest(flat)), moments


_OPTIMIZERS = {
  'adam': (lambda latent: (jax.tree.map(jnp.zeros_like, latent),) * 2, _adam),
  'sign': (lambda latent: (), _sign),
  'l2': (lambda latent: (), _l2),
}
"""(latents -> state, (state, gradient of ONE latent, step from 1) -> (direction, state))."""


def _keep(best, new):
  """Row by row of two (x_adv, misclassified, objective): misclassified before not, then the larger
  objective; a NaN never replaces a number."""
  number = ~jnp.isnan(new[2])
  better = number & jnp.where(new[1] == best[1], new[2] > best[2], new[1])
  where = lambda a, b: jnp.where(better.reshape((-1,) + (1,) * (a.ndim - 1)), b, a)
  return jax.tree.map(where, best, new)


def _check(num_steps, step_size, optimizer, penalty_weight):
  if num_steps < 0 or not all(is_traced(s) or s > 0 for s in jax.tree.leaves(step_size)):
    raise ValueError(
      f'`num_steps` must be at least 0 and `step_size` positive, got num_steps={num_steps}, '
      f'step_size={step_size}.'
    )
  if not (is_traced(penalty_weight) or penalty_weight >= 0):
    raise ValueError(
      f'`penalty_weight` must be at least 0, got penalty_weight={penalty_weight}: the penalty is '
      f'subtracted from the loss.'
    )
  check_choice('optimizer', optimizer, _OPTIMIZERS)
