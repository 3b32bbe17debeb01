r"""Adversarial training beyond one L_p ball: flows, recolourings, JPEG, several threats, compositions.

A functional threat is searched in its latent, and takes the place of a ball in `adversarial_training`.
Against several threats at once ("all"), each step is against one of them drawn at random, or all
attacks make a copy of each image, and the loss is the mean or the largest over its copies. A composition
applies its parts one after the other, and searches all of their latents together.
"""

import functools
import math

import jax
import jax.numpy as jnp

from certjax import attacks, threats
from certjax.attacks import functional
from certjax.train._adversarial import adversarial_training, check_search
from certjax.train._copies import Objective, accuracy, logits_of_copies, ramp
from certjax.train._losses import cross_entropy
from certjax.train._trades import trades

# Deviation: few long steps, where the published searches take up to 100 short ones. They are too rough to pay
# a penalty: it leads the search, but the point of the largest margin is taken, whatever its penalty.
_STEPS = 4  # Steps from the middle of a set to its border.
_STADV_PENALTY, _RECOLOR_PENALTY = 0.0025, 0.0036  # Times 1 / eps, as in PAT's code.
_COMPOSED_PENALTY = 0.05  # As in ReColorAdv's.
_COMBINED = {'average': jnp.mean, 'maximum': jnp.max}
_DRAWS = 0  # Seed of the attacks' order in 'random'.


def adversarial_all(
  *, variant='maximum', eps_linf=8 / 255, eps_l2=1.0, eps_stadv=0.05, eps_recolor=0.06, eps_jpeg=0.0,
  num_steps=10, warmup_steps=0,
) -> Objective:  # fmt: skip
  r"""Adversarial training against several threats.

    average:  loss = (1/B) sum_b (1/k) sum_a CE(f(x'_ba), y_b)
    maximum:  loss = (1/B) sum_b max_a CE(f(x'_ba), y_b)
    random:   loss = (1/B) sum_b CE(f(x'_ba), y_b),   one a for the whole step

  with x'_ba the point that attack a finds near image b. The k copies of an image pass through the network
  as one batch of k B rows. Images without colour are not recoloured.

  Args:
    variant: 'average', 'maximum' or 'random', whose attack depends on the number of the step alone.
    eps_linf, eps_l2: radii in pixel values; 0 leaves a threat out, here and below.
    eps_stadv: largest flow in normalised units, as in `attacks.functional.stadv`.
    eps_recolor: largest recolouring, as a share of a channel's range.
    eps_jpeg: largest change of JPEG's coefficients, in largest rounding errors; off by default.
    num_steps: of each attack; steps are eps / 4 long.
    warmup_steps: steps over which every eps grows from 0.

  Returns:
    An `Objective`. Metrics of 'average' and 'maximum': 'accuracy' of the copies, and 'union_accuracy', the
    share of images that are right in all copies.

  Raises:
    ValueError: for an unknown variant, a negative eps, no positive one, or no step.

  Example:
    >>> objective = adversarial_all(variant='average', eps_l2=0.5)

  References:
    Tramer & Boneh 2019 (arXiv:1904.13000); Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655), section 6.
  """
  # Deviation: PGD and the searches in latents hand over the best point they saw, not the last.
  _check_variant(variant)
  sizes = dict(
    linf=eps_linf, l2=eps_l2, stadv=eps_stadv, recolor=eps_recolor, jpeg=eps_jpeg
  )  # fmt: skip
  _check_sizes(sizes, num_steps)

  def perturb(keys, model_fn, x, y, step):
    grown = ramp(step, warmup_steps)
    searches = [_search(name, sizes[name], grown, num_steps) for name in _present(sizes, x)]
    points = [lambda search=search: search(keys, model_fn, x, y) for search in searches]
    if variant != 'random':
      return jnp.stack([point() for point in points], axis=1)
    key = jax.random.fold_in(jax.random.key(_DRAWS), step)
    return jax.lax.switch(jax.random.randint(key, (), 0, len(points)), points)

  if variant == 'random':
    return Objective(cross_entropy, perturb)
  return Objective(functools.partial(_over_copies, _COMBINED[variant]), perturb)


def adversarial_composed(
  *, parts='csd', eps_recolor=0.06, eps_stadv=0.05, eps_linf=8 / 255, num_steps=10, warmup_steps=0
) -> Objective:
  """Adversarial training against threats that are applied one after the other.

  Args:
    parts: letters in the order of their change to the image: 'c' a recolouring, 's' a flow, 'd' an
      additive change; 'csd' is C + S + D.
    eps_recolor, eps_stadv, eps_linf: their sizes, as in `adversarial_all`.
    num_steps: of the search by Adam; steps are a quarter of each eps.
    warmup_steps: steps over which every eps grows from 0.

  Returns:
    An `Objective`.

  Raises:
    ValueError: for unknown or repeated letters, or numbers that are not positive.

  Example:
    >>> objective = adversarial_composed(parts='sd')

  References:
    Laidlaw & Feizi 2019 (arXiv:1906.00001), section 5.
  """
  sizes = {'c': eps_recolor, 's': eps_stadv, 'd': eps_linf}
  search = _composed(parts, sizes, num_steps, warmup_steps)
  return Objective(cross_entropy, search)


def trades_composed(
  *, parts='csd', eps_recolor=0.06, eps_stadv=0.05, eps_linf=8 / 255, num_steps=10, beta=6.0,
  warmup_steps=0,
) -> Objective:  # fmt: skip
  """TRADES against threats that are applied one after the other.

    loss = (1/B) sum_b [ CE(f(x_b), y_b) + beta KL(p(x_b) || p(x'_b)) ],   p = softmax f

  Args:
    parts, eps_recolor, eps_stadv, eps_linf, num_steps, warmup_steps: as in `adversarial_composed`.
    beta: weight of the divergence.

  Returns:
    An `Objective` with the metrics of `trades`.

  Raises:
    ValueError: as in `adversarial_composed`, or for a negative `beta`.

  Example:
    >>> objective = trades_composed(parts='c')

  References:
    Zhang et al. 2019 (arXiv:1901.08573); Laidlaw & Feizi 2019 (arXiv:1906.00001), section 5.
  """
  # Deviation: the search climbs the margin against the network's own answer, which takes no label
  # either; that of `trades` climbs the divergence.
  sizes = {'c': eps_recolor, 's': eps_stadv, 'd': eps_linf}
  search = _composed(parts, sizes, num_steps, warmup_steps)

  def perturb(keys, model_fn, x, y, step):
    answer = jnp.argmax(model_fn(x), axis=-1).astype(y.dtype)
    return jnp.stack([x, search(keys, model_fn, x, answer, step)], axis=1)

  return Objective(trades(beta=beta).loss, perturb)


def _over_copies(combined, keys, apply, x, y, step):
  """The combined cross-entropy of x[B, k, ...], in one pass."""
  del keys, step
  logits, statistics = logits_of_copies(apply, x)
  each = jax.vmap(jax.vmap(attacks.cross_entropy, (0, None)))(logits, y)
  right = jnp.argmax(logits, axis=-1) == y[:, None]
  union = jnp.mean(jnp.all(right, axis=1).astype(jnp.float32))
  metrics = {'accuracy': accuracy(logits, y), 'union_accuracy': union}
  return jnp.mean(combined(each, axis=1)), (metrics, statistics)


def _composed(parts, sizes, num_steps, warmup_steps):
  """A `perturb` that searches all latents together."""
  if not parts or set(parts) - set(sizes) or len(set(parts)) != len(parts):
    raise ValueError(
      f'`parts` takes each of the letters c (recolouring), s (flow) and d (additive) at most once, as '
      f"'csd'; got parts={parts!r}."
    )
  for part in parts:
    check_search(eps=sizes[part], num_steps=num_steps)

  def make(grown):
    threat = functional.compose(*(_PARTS[part](sizes[part] * grown) for part in parts))
    return functional.latent_attack(
      _steered(threat), num_steps=num_steps, penalty_weight=_COMPOSED_PENALTY,
      step_size=tuple(sizes[part] * grown / _STEPS for part in parts),
    )  # fmt: skip

  make(1.0)  # Its complaints come before any tracing.

  def perturb(keys, model_fn, x, y, step):
    return make(ramp(step, warmup_steps))(keys, model_fn, x, y)

  return perturb


def _search(name, eps, grown, num_steps):
  """The attack on one threat of `adversarial_all`."""
  threat, make = _THREATS[name]
  return make(threat(eps * grown), eps * grown / _STEPS, num_steps)


def _present(sizes, x):
  """Names of the threats that images x[B, H, W, C] are attacked with."""
  names = [name for name, eps in sizes.items() if eps and (name != 'recolor' or x.shape[-1] > 1)]
  if not names:
    raise ValueError(
      f'images of shape {x.shape[1:]} have no colour, and `eps_recolor` alone is positive: give '
      f'another eps, or train against `adversarial-recolor`, which bends levels of grey.'
    )
  return names


def _check_variant(variant):
  if variant not in (*_COMBINED, 'random'):
    raise ValueError(
      f'`variant` must be one of {", ".join((*_COMBINED, "random"))}; got {variant!r}.'
    )


def _check_sizes(sizes, num_steps):
  check_search(num_steps=num_steps)
  for name, eps in sizes.items():
    if not 0 <= eps < math.inf:
      raise ValueError(
        f'`eps_{name}` must be at least 0 and finite, got eps_{name}={eps}; 0 leaves the threat out.'
      )
    if eps:
      _search(name, eps, 1.0, num_steps)  # Its complaints come before any tracing.
  if not any(sizes.values()):
    raise ValueError(
      f'one of {", ".join(f"`eps_{name}`" for name in sizes)} must be positive, got 0 for all: for '
      f'training without an attack use `clean`.'
    )


def _pgd(threat, step_size, num_steps):
  return attacks.pgd(threat, step_size=step_size, num_steps=num_steps)


def _adam(penalty):
  def make(threat, step_size, num_steps):
    return functional.latent_attack(
      _steered(threat), num_steps=num_steps, step_size=step_size,
      penalty_weight=penalty / threat.eps,
    )  # fmt: skip

  return make


def _steered(threat):
  """The threat whose penalty has its gradient and the value 0: it leads the search and chooses nothing."""

  def penalty(latent):
    value = threat.penalty(latent)
    return value - jax.lax.stop_gradient(value)

  return threat._replace(penalty=penalty)


def _sign(threat, step_size, num_steps):
  return functional.latent_attack(
    threat, num_steps=num_steps, step_size=step_size, optimizer='sign', random_start=True
  )


_THREATS = {
  'linf': (threats.linf, _pgd),
  'l2': (threats.l2, _pgd),
  'stadv': (functional.stadv, _adam(_STADV_PENALTY)),
  'recolor': (functional.recolor_of_image, _adam(_RECOLOR_PENALTY)),
  'jpeg': (functional.jpeg, _sign),
}
"""Name -> (eps -> threat, (threat, step_size, num_steps) -> Attack)."""
_PARTS = {'c': functional.recolor_of_image, 's': functional.stadv, 'd': functional.additive}
_COMPOSITIONS = ('cd', 'cs', 'sd', 'csd')


def _narrow(name, eps):
  threat, make = _THREATS[name]
  return functools.partial(adversarial_training, eps=eps, threat=threat, attack=make)


THREAT_MODELS = {
  'adversarial-stadv': _narrow('stadv', 0.05),
  'adversarial-recolor': _narrow('recolor', 0.06),
  'adversarial-jpeg': _narrow('jpeg', 0.25),
  **{
    f'adversarial-{variant}': functools.partial(adversarial_all, variant=variant)
    for variant in ('random', 'average', 'maximum')
  },
  **{
    f'adversarial-{parts}': functools.partial(adversarial_composed, parts=parts)
    for parts in _COMPOSITIONS
  },
  **{
    f'trades-{parts}': functools.partial(trades_composed, parts=parts)
    for parts in ('c', *_COMPOSITIONS)
  },
}
"""Training methods by name, as `train.OBJECTIVES` takes them in."""
