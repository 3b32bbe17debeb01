"""Optimisers and learning-rate schedules by name, as the papers set them."""

import itertools

import optax


def schedule(name, *, peak, num_steps, warmup_steps=0, decay_every=None, decay=0.1):
  """A learning-rate schedule.

  Args:
    name: 'constant', 'cosine' (to 0 at `num_steps`), 'step' (times `decay` every `decay_every`
      steps), 'exponential' (the same, smoothly), 'multistep' (times `decay` at 50% and at 75% of
      `num_steps`), 'triangular' (linear between 0, the peak at 40%, a twentieth of it at 80% of
      `num_steps`, and 0) or 'cyclic' (linear from 0 to the peak at 50% and back: one cycle).
    peak: the largest learning rate.
    num_steps: steps of the run.
    warmup_steps: linear warm-up from 0 before it.
    decay_every: steps between decays, for 'step' and 'exponential'.
    decay: factor of a decay, for these two and 'multistep'.

  Returns:
    An optax schedule.

  Raises:
    ValueError: for an unknown name, or a schedule without the `decay_every` that it needs.

  Example:
    >>> float(schedule('step', peak=0.5, num_steps=90, decay_every=30, decay=0.5)(60))
    0.125
  """
  rest = max(num_steps - warmup_steps, 1)
  if name in ('step', 'exponential') and not decay_every:
    raise ValueError(f'the learning-rate schedule "{name}" needs `decay_every` (steps), got none.')
  every = decay_every or rest  # Checked above where it counts.
  known = {
    'constant': lambda: optax.constant_schedule(peak),
    'cosine': lambda: optax.cosine_decay_schedule(peak, rest),
    'step': lambda: optax.exponential_decay(peak, every, decay, staircase=True),
    'exponential': lambda: optax.exponential_decay(peak, every, decay),
    'triangular': lambda: _through(rest, (0.0, 0.0), (0.4, peak), (0.8, peak / 20), (1.0, 0.0)),
    'cyclic': lambda: _through(rest, (0.0, 0.0), (0.5, peak), (1.0, 0.0)),
    'multistep': lambda: optax.piecewise_constant_schedule(
      peak, {max(at * num_steps // 4 - warmup_steps, 1): decay for at in (2, 3)}
    ),
  }
  if name not in known:
    raise ValueError(f'the schedule must be one of {", ".join(known)}; got {name!r}.')
  if not warmup_steps:
    return known[name]()
  warmup = optax.linear_schedule(0.0, peak, warmup_steps)
  return optax.join_schedules([warmup, known[name]()], [warmup_steps])


def _through(num_steps, *points):
  """Straight lines between (share of the steps, value), ..."""
  pairs = list(itertools.pairwise(points))
  steps = [round(share * num_steps) for share, _ in points]
  lines = [
    optax.linear_schedule(a, b, max(end - begin, 1))
    for ((_, a), (_, b)), (begin, end) in zip(pairs, itertools.pairwise(steps), strict=True)
  ]
  return optax.join_schedules(lines, steps[1:-1])


def optimizer(name, learning_rate, *, momentum=0.9, weight_decay=0.0):
  """An optimiser.

  Args:
    name: 'sgd' (Nesterov-free momentum, weight decay added to the gradient as in PyTorch),
      'nesterov', or 'adam' (decoupled weight decay).
    learning_rate: a number or an optax schedule.
    momentum: of 'sgd' and 'nesterov'.
    weight_decay: on every parameter.

  Returns:
    An `optax.GradientTransformation`.

  Raises:
    ValueError: for an unknown name.

  Example:
    >>> import numpy as np
    >>> tx, weight = optimizer('sgd', 0.1), {'w': np.ones(2, np.float32)}
    >>> update, _ = tx.update({'w': np.full(2, 0.5, np.float32)}, tx.init(weight), weight)
    >>> update['w']
    Array([-0.05, -0.05], dtype=float32)
  """
  decayed = optax.add_decayed_weights(weight_decay)
  known = {
    'sgd': lambda: optax.chain(decayed, optax.sgd(learning_rate, momentum)),
    'nesterov': lambda: optax.chain(decayed, optax.sgd(learning_rate, momentum, nesterov=True)),
    'adam': lambda: optax.adamw(learning_rate, weight_decay=weight_decay),
  }
  if name not in known:
    raise ValueError(f'the optimiser must be one of {", ".join(known)}; got {name!r}.')
  return known[name]()
