"""FAB (Croce & Hein 2020): steps to the boundary of the model made linear, held near the image.

Every step looks for the nearest boundary like DeepFool's, but onto the exact projection in [0, 1], and leans
towards the image's own projection; a misclassified point goes back towards the image. One trace: a scan
over the runs, and in it a scan over the steps.
"""

import jax
import jax.numpy as jnp
from jax import lax

from certjax.attacks._apgd import _NOISE, _fold, _rivals
from certjax.attacks._ddn import _keep
from certjax.attacks._hyperplane import MOVES
from certjax.attacks._loss import margin
from certjax.attacks._pgd import row_keys


def fab(threat, *, num_steps=100, num_restarts=1, targets=None, alpha_max=0.1, eta=1.05, beta=0.9):
  """Finds a near misclassified point, and returns it if it lies within `eps`.

    f_k = z_k - z_y,  w_k = grad f_k,  l = argmin_k |f_k(x_t)| / |w_k|_*
    d_1, d_2: the moves of x_t and of x to the hyperplane f_l(x_t) + <w_l, . - x_t> = 0 in [0, 1]
    a = min(|d_1| / (|d_1| + |d_2|), alpha_max)
    x_{t+1} = clip((1 - a) (x_t + eta d_1) + a (x + eta d_2), 0, 1)

  and, where x_{t+1} is misclassified, back to x + beta (x_{t+1} - x). The first run starts at x, others at
  random points of distance min(eps, the least distance found) / 2, brought into [0, 1].

  Args:
    threat: an L_inf, L2 or L1 `Threat`; `threats.l2(inf)` and `threats.linf(1.0)` look for the nearest
      point at any distance.
    num_steps: static number of steps of a run.
    num_restarts: static number of runs (to each target).
    targets: None, where a step looks at all other classes, for a backward pass each; or how many
      classes are the only rival of a run, one after another, for one backward pass a step: those of the
      largest logits at x, at most K - 1. The authors' FAB-T takes 9.
    alpha_max: the largest share of the image's own projection.
    eta: how far beyond the hyperplane a step goes, 1 is onto it.
    beta: share of the way that is left after a step back.

  Returns:
    An `Attack`: of all points visited the nearest misclassified one, if `threat.distance` is at most
    eps; else x. x itself if it is misclassified. A step costs two forward passes, and the
    backward passes.

  Raises:
    ValueError: for another norm, a negative `num_steps`, `num_restarts` or `targets` below 1,
      `alpha_max` outside [0, 1], `eta` below 1, or `beta` outside (0, 1).

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), jnp.full(len(x), 0.9)], axis=1)
    >>> attack = fab(threats.linf(0.1), num_steps=10)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.full((1, 2), 0.5), jnp.array([0]))
    >>> bool(0.05 < jnp.max(jnp.abs(x_adv - 0.5)) < 0.0505)  # The least is 0.05.
    True

  References:
    Croce & Hein 2020 (arXiv:1907.02044), Algorithm 1; with `targets`, arXiv:2003.01690, section 4.
  """
  _check(threat, num_steps, num_restarts, targets, alpha_max, eta, beta)
  # Deviation: no last search on the line from x to the point found (nor has AutoAttack any).

  def attack(key, model_fn, x, y):
    keys, logits = row_keys(key, len(x)), model_fn(x)
    goals = _all_others(logits, y) if targets is None else _rivals(logits, y, targets)
    goals = goals[None] if targets is None else goals[:, None]  # int32[runs, rivals of a run, B]
    distance = jax.vmap(threat.distance)
    advance = jax.vmap(_advance, (None, None, 0, 0, 0, 0))

    def run(best, entry):
      number, rivals, fresh = entry

      def step(carry, _):
        walk, best = carry
        plane = _nearest(threat, model_fn, walk, y, rivals)
        walk = advance(threat, (alpha_max, eta), x, walk, *plane)
        value = jax.vmap(margin)(model_fn(walk), y)
        best = _keep(best, (walk, value, distance(x, walk)))
        back = jnp.where(value > 0, beta, 1.0).astype(x.dtype)
        return (jax.vmap(lambda x, walk, back: x + back * (walk - x))(x, walk, back), best), None

      radius = _radius(threat, x, best) / 2
      start = jax.vmap(_around, (None, 0, 0, 0))(threat, _fold(keys, number), x, radius)
      start = jnp.where(fresh, x, start)
      return lax.scan(step, (start, best), length=num_steps)[0][1], None

    numbers = jnp.arange(num_restarts * len(goals), dtype=jnp.uint32)
    entries = numbers, jnp.tile(goals, (num_restarts, 1, 1)), numbers < len(goals)
    best = (x, jax.vmap(margin)(logits, y), jnp.zeros(len(x), x.dtype))
    best, _ = lax.scan(run, best, entries)
    return _where((best[1] > 0) & (best[2] <= threat.eps), best[0], x)

  return attack


def _nearest(threat, model_fn, walk, y, rivals):
  """Of the boundaries to the classes rivals[R, B], the nearest of each image: f[B], w[B, ...]."""
  logits, pull = jax.vjp(model_fn, walk)
  classes = jnp.arange(logits.shape[1], dtype=y.dtype)
  hot = lambda label: (classes[None, :] == label[:, None]).astype(logits.dtype)

  def compare(nearest, rival):
    away = hot(rival.astype(y.dtype)) - hot(y)
    slope, gap = pull(away)[0], jnp.sum(away * logits, axis=1)
    length = jax.vmap(_length, (None, 0, 0))(threat, gap, slope)
    closer = length < nearest[0]
    return tuple(map(lambda a, b: _where(closer, a, b), (length, gap, slope), nearest)), None

  # One after another: the gradients of all classes at once would need K images' memory.
  none = jnp.zeros(len(walk), logits.dtype)
  return lax.scan(compare, (none + jnp.inf, none, jnp.zeros_like(walk)), rivals)[0][1:]


def _length(threat, gap, slope):
  """|gap| / |slope| in the dual norm; infinite for a slope of 0."""
  dual = jnp.sum(slope * threat.steepest(slope))
  return jnp.where(dual > 0, jnp.abs(gap) / jnp.where(dual > 0, dual, 1.0), jnp.inf)


def _advance(threat, options, x, walk, gap, slope):
  """The next point of ONE image, on the boundary gap + <slope, . - walk> = 0."""
  (alpha_max, eta), move = options, MOVES[threat.norm]
  ahead = move(walk, slope, -gap)
  anew = move(x, slope, -(gap + jnp.sum(slope * (x - walk))))
  lengths = threat.distance(jnp.zeros_like(x), ahead), threat.distance(jnp.zeros_like(x), anew)
  total = sum(lengths)
  share = jnp.where(total > 0, lengths[0] / jnp.where(total > 0, total, 1.0), 0)
  share = jnp.minimum(share, alpha_max)
  return jnp.clip((1 - share) * (walk + eta * ahead) + share * (x + eta * anew), 0, 1)


def _radius(threat, x, best):
  """float[B], the least distance found, but no more than eps or the farthest corner of [0, 1]."""
  far = jax.vmap(threat.distance)(jnp.zeros_like(x), jnp.maximum(x, 1 - x))
  found = jnp.where(best[1] > 0, best[2], jnp.inf)
  return jnp.minimum(jnp.minimum(found, far), threat.eps)


def _around(threat, key, x, radius):
  """A random point at the distance, brought into [0, 1]."""
  noise = _NOISE[threat.norm](key, x.shape, x.dtype)
  return jnp.clip(x + radius * noise / threat.distance(jnp.zeros_like(x), noise), 0, 1)


def _all_others(logits, y):
  """int32[K - 1, B], the classes but y."""
  ahead = jnp.arange(1, logits.shape[1], dtype=jnp.int32)
  return (y.astype(jnp.int32)[None, :] + ahead[:, None]) % logits.shape[1]


def _where(rows, a, b):
  return jax.vmap(jnp.where)(rows, a, b)


def _check(threat, num_steps, num_restarts, targets, alpha_max, eta, beta):
  if threat.norm not in MOVES:
    raise ValueError(
      f'`threat` must be one of {", ".join(MOVES)}, got {threat.norm!r}: no projection onto a '
      f'hyperplane is known here (for few pixels use attacks.pgd0 or attacks.sparse_rs).'
    )
  if num_steps < 0 or num_restarts < 1:
    raise ValueError(
      f'`num_steps` must be at least 0 and `num_restarts` at least 1, got num_steps={num_steps}, '
      f'num_restarts={num_restarts}.'
    )
  if targets is not None and targets < 1:
    raise ValueError(f'`targets` must be at least 1, or None for all classes, got {targets}.')
  if not 0 <= alpha_max <= 1 or not eta >= 1 or not 0 < beta < 1:
    raise ValueError(
      f'`alpha_max` must be in [0, 1], `eta` at least 1 and `beta` in (0, 1), got alpha_max='
      f'{alpha_max}, eta={eta}, beta={beta}.'
    )
