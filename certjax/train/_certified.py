r"""Certified training: the loss is taken at bounds of the logits over a ball around each image.

The worst logits are 0 for the label y and -m_j for a rival j, where m_j <= f_y(x') - f_j(x') for all
x' of the ball, so their cross-entropy is at least that of every x'. The methods differ in how m is
bounded, over what, and in what is added. Bounds see the model in evaluation mode; the pass over the
clean images alone updates BatchNorm's statistics.
"""

import functools
import math

import jax
import jax.numpy as jnp
import optax

from certjax import attacks, bounds, threats
from certjax.train._copies import Objective, check_copies

DEFAULT_EPS = 0.1
"""Radius of the methods here unless another is given, in pixel values."""
_MIDDLE = 0.25  # Share of a smooth ramp that is curved.
_TINY = 1e-12  # Of an attack that has nowhere to go.


def smooth_ramp(step, *, start, end, last=1.0, exponent=4.0):
  r"""From 0 to `last` between two steps: a power at first, then a line of the same slope.

    a (t - start)^e                              for start <= t < mid
    a q (1 + e (t - mid) / (mid - start))        from mid on,   q = (mid - start)^e

  with mid = start + floor((end - start) / 4).

  Args:
    step: t, an int or int32.
    start, end: steps; 0 until the first, `last` from the second on.
    last: value at the end.
    exponent: e, at least 1; 1 makes a straight line.

  Returns:
    A float scalar.

  Example:
    >>> round(float(smooth_ramp(600, start=100, end=1100, last=0.3)), 6)
    0.115385

  References:
    Zhang et al. 2020 (arXiv:1906.06316), their code.
  """
  step = jnp.asarray(step, float)
  if end <= start:
    return jnp.where(step >= start, last, 0.0)
  curved = max(math.floor(_MIDDLE * (end - start)), 1)
  along = (step - start) / curved
  at_middle = last * curved / ((end - start - curved) * exponent + curved)
  power = jnp.clip(along, 0, 1) ** exponent
  line = 1 + exponent * (along - 1)
  return jnp.where(step >= end, last, at_middle * jnp.where(along < 1, power, line))


def ibp(*, eps=DEFAULT_EPS, kappa=0.5, exponent=1.0, clean_share=0.0, warmup_steps=0) -> Objective:
  r"""Interval bounds in training (IBP).

    loss = k CE(f(x), y) + (1 - k) CE(worst logits over |x' - x|_inf <= e, y)

  In the warm-up e grows from 0 to eps and k falls from 1 to kappa, in step. The margins are merged
  into the last layer.

  Args:
    eps: radius in pixel values; the ball is cut to [0, 1].
    kappa: final weight of the clean images.
    exponent: of `smooth_ramp`; 1 is linear.
    clean_share: share of the warm-up, at its begin, in which e is still 0.
    warmup_steps: steps until e = eps.

  Returns:
    An `Objective`. Metrics: 'accuracy' of the clean images, 'verified' (the share that the training
    bound proves at e) and 'eps'.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = ibp(eps=0.3, kappa=0.5, warmup_steps=2000, clean_share=0.1)

  References:
    Gowal et al. 2018 (arXiv:1810.12715).
  """
  grown = _schedule(eps, exponent, clean_share, warmup_steps)
  _check_shares(kappa=kappa)
  margins = lambda model_fn, region, spec, done: bounds.interval(model_fn, region, spec)[0]
  return Objective(_over_balls(margins, eps, kappa, grown), None)


def crown_ibp(
  *, eps=DEFAULT_EPS, kappa=0.5, beta=0.0, exponent=1.0, clean_share=0.0, warmup_steps=0
) -> Objective:
  r"""CROWN-IBP: one backward pass of linear bounds through intermediate intervals, mixed with IBP.

    m = b m_CROWN-IBP + (1 - b) m_IBP,   b from 1 to beta in the warm-up

  The loss is that of `ibp` at these margins.

  Args:
    eps, kappa, exponent, clean_share, warmup_steps: as in `ibp`.
    beta: final weight of the linear bounds; 0 (large eps) ends as IBP.

  Returns:
    An `Objective`, with the metrics of `ibp`.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = crown_ibp(eps=2 / 255, beta=1.0, warmup_steps=2000, exponent=4.0)

  References:
    Zhang et al. 2020 (arXiv:1906.06316).
  """
  grown = _schedule(eps, exponent, clean_share, warmup_steps)
  _check_shares(kappa=kappa, beta=beta)

  def margins(model_fn, region, spec, done):
    share = 1 - (1 - beta) * done
    # Deviation: a linear bound below the interval's counts as the interval's. And both are computed
    # even where share is 0: convolutions inside `lax.cond` are ten times slower on CPU.
    linear = bounds.crown(model_fn, region, spec, intermediate='interval', upper=False)[0]
    return share * linear + (1 - share) * bounds.interval(model_fn, region, spec)[0]

  return Objective(_over_balls(margins, eps, kappa, grown), None)


def wong_kolter(*, eps=DEFAULT_EPS, exponent=1.0, clean_share=0.0, warmup_steps=0) -> Objective:
  r"""The convex outer polytope: cross-entropy at the bound of Wong & Kolter's dual.

    loss = CE(-J(x), y),   J_j <= f_y(x') - f_j(x') for all |x' - x|_inf <= e

  The dual is the linear bound whose lower line of an unstable ReLU has the slope of the upper one, at
  every layer: one backward pass for each neuron before a ReLU, so for small networks.

  Args:
    eps, exponent, clean_share, warmup_steps: as in `ibp`.

  Returns:
    An `Objective`, with the metrics of `ibp`.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = wong_kolter(eps=0.1, warmup_steps=20 * 1200)

  References:
    Wong & Kolter 2018 (arXiv:1711.00851).
  """
  # Deviation: exact bounds, where the later paper estimates them by random projections; the ball is
  # cut to [0, 1], and each bound is intersected with the interval's.
  grown = _schedule(eps, exponent, clean_share, warmup_steps)
  dual = functools.partial(bounds.crown, slope='same', upper=False)
  margins = lambda model_fn, region, spec, done: dual(model_fn, region, spec)[0]
  return Objective(_over_balls(margins, eps, 0.0, grown), None)


def sabr(
  *, eps=DEFAULT_EPS, lam=0.4, num_steps=8, step_size=None, exponent=1.0, clean_share=0.0,
  warmup_steps=0,
) -> Objective:  # fmt: skip
  r"""Small boxes: interval bounds over a box of side 2 lam e around a point that an attack finds.

    loss = CE(worst logits over |x' - x*|_inf <= lam e, y),   |x* - x|_inf <= (1 - lam) e

  Args:
    eps, exponent, clean_share, warmup_steps: as in `ibp`.
    lam: share of the radius, in (0, 1]; 1 is IBP without the clean images' loss.
    num_steps: of PGD, from a random start.
    step_size: of PGD, in pixel values at full radius; default a quarter of (1 - lam) eps.

  Returns:
    An `Objective`, with the metrics of `ibp`; 'verified' counts small boxes, and proves nothing.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = sabr(eps=0.1, lam=0.4, warmup_steps=2000)

  References:
    Mueller et al. 2023 (arXiv:2210.04871).
  """
  grown = _schedule(eps, exponent, clean_share, warmup_steps)
  _check_shares(lam=lam)
  if not lam:
    raise ValueError('`lam` must be positive; a box of no size is `adversarial` training.')
  reach = (1 - lam) * eps

  def loss(keys, apply, x, y, step):
    del keys
    check_copies(x, 2)
    half = lam * eps * grown(step)
    region = bounds.box(jnp.clip(x[:, 1] - half, 0, 1), jnp.clip(x[:, 1] + half, 0, 1))
    logits, statistics = apply(x[:, 0], True)
    margins = bounds.interval(_model_fn(apply), region, _spec(logits, y))[0]
    return _worst(margins), (_metrics(logits, y, margins, eps * grown(step)), statistics)

  return Objective(loss, _attacked(reach, step_size, num_steps, grown))


def mtl_ibp(
  *, eps=DEFAULT_EPS, alpha=0.5, attack_scale=1.0, num_steps=8, step_size=None, exponent=1.0,
  clean_share=0.0, warmup_steps=0,
) -> Objective:  # fmt: skip
  r"""An adversarial and an interval loss as two tasks.

    loss = (1 - alpha) CE(f(x*), y) + alpha CE(worst logits over |x' - x|_inf <= e, y)

  Args:
    eps, exponent, clean_share, warmup_steps: as in `ibp`.
    alpha: weight of the interval loss.
    attack_scale: radius of the attack as a multiple of e (2 for CIFAR-10 at 2 / 255).
    num_steps, step_size: of PGD, from a random start; default a quarter of its radius.

  Returns:
    An `Objective`, with the metrics of `ibp`.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = mtl_ibp(eps=0.3, alpha=0.5, warmup_steps=2000)

  References:
    De Palma et al. 2024 (arXiv:2305.13991).
  """
  grown = _schedule(eps, exponent, clean_share, warmup_steps)
  _check_shares(alpha=alpha)
  if not 0 < attack_scale * eps <= 1:
    raise ValueError(
      f'`attack_scale` times `eps` is a radius in pixel values, in (0, 1], got {attack_scale * eps}.'
    )

  def loss(keys, apply, x, y, step):
    del keys
    check_copies(x, 2)
    logits, statistics = apply(x[:, 0], True)
    region = bounds.ball(x[:, 0], eps * grown(step))
    margins = bounds.interval(_model_fn(apply), region, _spec(logits, y))[0]
    attacked = _cross_entropy(_model_fn(apply)(x[:, 1]), y)
    value = (1 - alpha) * attacked + alpha * _worst(margins)
    return value, (_metrics(logits, y, margins, eps * grown(step)), statistics)

  return Objective(loss, _attacked(attack_scale * eps, step_size, num_steps, grown))


def _over_balls(margins_of, eps, kappa, grown):
  """The loss k CE(clean) + (1 - k) CE(worst logits)."""

  def loss(keys, apply, x, y, step):
    del keys
    done = grown(step)
    share = 1 - (1 - kappa) * done
    logits, statistics = apply(x, True)
    region = bounds.ball(x, eps * done)
    margins = margins_of(_model_fn(apply), region, _spec(logits, y), done)
    value = share * _cross_entropy(logits, y) + (1 - share) * _worst(margins)
    return value, (_metrics(logits, y, margins, eps * done), statistics)

  return loss


def _attacked(reach, step_size, num_steps, grown):
  """A `perturb` that puts PGD's point beside each image: x[B, 2, ...]."""
  step_size = reach / 4 if step_size is None else step_size
  for name, value in (('num_steps', num_steps), ('step_size', step_size)):
    if not 0 <= value < math.inf:
      raise ValueError(f'`{name}` must be at least 0 and finite, got {name}={value}.')

  def perturb(keys, model_fn, x, y, step):
    done = grown(step)
    size = jnp.maximum(step_size * done, _TINY)
    attack = attacks.pgd(threats.linf(reach * done), step_size=size, num_steps=num_steps)
    return jnp.stack([x, attack(keys, model_fn, x, y)], axis=1)

  return perturb


def _model_fn(apply):
  return lambda x: apply(x, False)[0]


def _spec(logits, y):
  return bounds.margins(y, logits.shape[-1]).astype(logits.dtype)


def _worst(margins):
  """Mean cross-entropy of the logits 0 and -m."""
  return jnp.mean(jnp.logaddexp(0.0, jax.nn.logsumexp(-margins, axis=-1)))


def _cross_entropy(logits, y):
  return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def _metrics(logits, y, margins, eps):
  right = jnp.argmax(logits, axis=-1) == y
  verified = jnp.all(margins > 0, axis=-1)
  share = lambda which: jnp.mean(which.astype(jnp.float32))
  return {'accuracy': share(right), 'verified': share(verified), 'eps': jnp.float32(eps)}


def _schedule(eps, exponent, clean_share, warmup_steps):
  """step -> share of the warm-up that is done."""
  if not 0 <= eps <= 1:
    raise ValueError(f'`eps` is in pixel values of [0, 1], got eps={eps}.')
  if not 1 <= exponent < math.inf:
    raise ValueError(f'`exponent` must be at least 1 (a straight ramp) and finite, got {exponent}.')
  _check_shares(clean_share=clean_share)
  start = clean_share * warmup_steps
  return lambda step: smooth_ramp(step, start=start, end=warmup_steps, exponent=exponent)


def _check_shares(**shares):
  for name, value in shares.items():
    if not 0 <= value <= 1:
      raise ValueError(f'`{name}` is a share, in [0, 1], got {name}={value}.')
