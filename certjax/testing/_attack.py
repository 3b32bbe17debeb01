"""Properties of an `Attack`: feasible, never worse than its start, row by row, one trace."""

import jax
import numpy as np


def check_attack(make, threat, model_fn, x, y, *, score=None, eps=0.1):
  """Checks an attack on a batch.

  Args:
    make: `Threat -> Attack`.
    threat: `eps -> Threat`, called with `eps` and with 0.
    model_fn: `x[B, ...] -> logits[B, K]`.
    x: float[B, ...] in [0, 1], B >= 2.
    y: int[B].
    score: `(logits[K], y) -> scalar` that the attack makes large; default
      `attacks.cross_entropy`.
    eps: the budget; a whole number for `threats.l0` and `threats.patch`.

  Raises:
    AssertionError: if a result leaves the set or [0, 1]; scores lower than its image; depends on
      the rest of the batch, or on jit; a second call of the same shape traces again; or eps = 0
      changes an image.

  Example:
    >>> import jax.numpy as jnp
    >>> from certjax import attacks, threats
    >>> model_fn = lambda x: jnp.stack([x.sum(1), 1 - x.sum(1)], axis=1)
    >>> make = lambda threat: attacks.pgd(threat, step_size=0.05, num_steps=3)
    >>> check_attack(make, threats.l2, model_fn, jnp.full((2, 3), 0.5), jnp.array([0, 1]))
  """
  from certjax import attacks

  score = attacks.cross_entropy if score is None else score
  attack = make(threat(eps))
  keys = jax.random.split(jax.random.key(0), len(x))
  traces = []

  @jax.jit
  def traced(keys, x, y):
    traces.append(1)
    return attack(keys, model_fn, x, y)

  x_adv = np.asarray(traced(keys, x, y))
  again = np.asarray(traced(jax.random.split(jax.random.key(1), len(x)), x, y))
  assert len(traces) == 1, f'{len(traces)} traces for two calls of one shape'
  for points in (x_adv, again):
    distances = np.asarray(jax.vmap(threat(eps).distance)(x, points))
    assert (distances <= eps * (1 + 1e-5) + 1e-7).all(), f'distances {distances} leave eps={eps}'
    assert points.min() >= 0 and points.max() <= 1, 'a point leaves [0, 1]'
    before, after = (np.asarray(jax.vmap(score)(model_fn(p), y)) for p in (x, points))
    assert (after >= before - 1e-5).all(), f'worse than the image: {before} -> {after}'
  plain = np.asarray(attack(keys, model_fn, x, y))
  np.testing.assert_allclose(plain, x_adv, atol=1e-4, err_msg='jit changes the result')
  alone = np.asarray(attack(keys[1:2], model_fn, x[1:2], y[1:2]))
  np.testing.assert_allclose(alone[0], x_adv[1], atol=1e-4, err_msg='rows depend on each other')
  same = np.asarray(make(threat(0 * eps))(keys, model_fn, x, y))
  assert np.array_equal(same, x), 'eps = 0 must give back the images bit for bit'
