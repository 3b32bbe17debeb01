"""FMN: protocol, the smallest perturbation of a linear model in four norms, a numpy version of every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats

pytestmark = pytest.mark.usefixtures('many_programs')

SIZE, SHAPE = 4, (2, 3, 2)
W = np.random.default_rng(0).normal(size=12).astype(np.float32)
DUALS = {'linf': 1, 'l2': 2, 'l1': np.inf}
WIDE = {
  'linf': threats.linf(1.0),
  'l2': threats.l2(np.inf),
  'l1': threats.l1(np.inf),
  'l0': threats.l0(6),
}


def linear(x):
  score = (x.reshape(len(x), -1) - 0.5) @ W
  return jnp.stack([score, jnp.zeros(len(x))], axis=1)


def batch():
  x = np.random.default_rng(1).uniform(0.3, 0.7, (SIZE, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(np.argmax(linear(x), axis=1).astype(np.int32))


def run(attack, x, y, model_fn=linear):
  return jax.jit(lambda x, y: attack(jax.random.key(0), model_fn, x, y))(x, y)


def sizes(name, x, x_adv):
  return np.asarray(jax.vmap(WIDE[name].distance)(x, x_adv))


@pytest.mark.parametrize('name, eps', [('linf', 0.1), ('l0', 1)])
def test_protocol(name, eps):
  make = lambda threat: attacks.fmn(threat, num_steps=6)
  testing.check_attack(
    make, getattr(threats, name), linear, *batch(), score=attacks.margin, eps=eps
  )


@pytest.mark.parametrize('name, order', DUALS.items())
def test_smallest_perturbation_of_a_linear_model(name, order):
  """|z_1 - z_0| / |w|_*."""
  x, y = batch()
  least = np.abs(np.asarray(linear(x)[:, 0])) / np.linalg.norm(W, order)
  x_adv = run(attacks.fmn(WIDE[name], num_steps=100), x, y)
  assert (jnp.argmax(linear(x_adv), axis=1) != y).all()
  found = sizes(name, x, x_adv)
  assert (found >= least * (1 - 1e-4)).all() and (found <= least * 1.01 + 1e-6).all(), found / least


def test_fewest_pixels_of_a_linear_model():
  """The fewest of the largest moves of the score, any colour, that suffice; or one more."""
  x, w = batch()[0], W.reshape(SHAPE)
  x = jnp.clip(2 * x - 0.5 + 0.3 * np.sign(w)[None], 0, 1)  # Far from the boundary.
  y = jnp.zeros(SIZE, jnp.int32)
  moves = np.maximum(w * np.asarray(x), w * (np.asarray(x) - 1)).sum(-1).reshape(SIZE, -1)
  moves = np.sort(moves, axis=1)[:, ::-1]
  fewest = np.sum(np.cumsum(moves, axis=1) < np.asarray(linear(x))[:, :1], axis=1) + 1
  x_adv = run(attacks.fmn(WIDE['l0'], num_steps=60), x, y)
  assert (jnp.argmax(linear(x_adv), axis=1) == 1).all() and fewest.max() > 1
  more = (
    sizes('l0', x, x_adv) - fewest
  )  # It chooses by gradients: the last pixel may not be the best.
  assert ((more == 0) | (more == 1)).all() and (more == 0).sum() > 2


def project(norm, x, point, size):
  delta = point - x
  if norm == 'linf':
    delta = np.clip(delta, -size, size)
  elif norm == 'l2':
    delta = delta * min(1, size / max(np.linalg.norm(delta), 1e-12))
  else:
    clipped = np.clip(point, 0, 1)
    gain = np.sum(delta**2 - (point - clipped) ** 2, axis=-1)
    kept = np.argsort(np.argsort(-gain.ravel(), kind='stable')).reshape(gain.shape) < size
    delta = np.where(kept[..., None], delta, 0)
  return np.clip(x + delta, 0, 1)


def numpy_fmn(norm, x, y, limit, num_steps, gamma_0=0.05):
  """One image, step by step; returns the nearest misclassified point or that of largest margin."""
  distances = {
    'linf': lambda d: np.abs(d).max(),
    'l2': np.linalg.norm,
    'l0': lambda d: np.any(d != 0, axis=-1).sum(),
  }
  length, sign = distances[norm], -1 if y == 0 else 1
  gradient = sign * W.reshape(SHAPE).astype(np.float64)
  dual = np.linalg.norm(gradient.ravel(), DUALS.get(norm, 2))
  point, size, seen, nearest = x, min(1 if norm == 'l0' else np.inf, limit), [], np.inf
  for t in range(num_steps + 1):
    value = sign * float((x.ravel() - 0.5 + (point - x).ravel()) @ W.astype(np.float64))
    distance = length(point - x)
    seen.append((value > 0, -distance if value > 0 else value, point))
    nearest = min(nearest, distance) if value > 0 else nearest
    descent = (1 + np.cos(np.pi * t / num_steps)) / 2
    gamma, step = 0.001 + (gamma_0 - 0.001) * descent, 0.01 + 0.99 * descent
    if value > 0:
      less = size * (1 - gamma)
      size = min(min(size - 1, np.floor(less)) if norm == 'l0' else less, nearest)
    elif norm == 'l0':
      size = max(size + 1, np.floor(size * (1 + gamma)))
    else:
      size = size * (1 + gamma) if nearest < np.inf else distance - value / dual
    size = min(max(size, 0), limit)
    point = project(norm, x, point + step * gradient / np.linalg.norm(gradient), size)
  return max(seen, key=lambda entry: entry[:2])[2]


@pytest.mark.parametrize('name, limit', [('linf', None), ('l0', 3)])
def test_every_step_is_that_of_numpy(name, limit):
  x, y = batch()
  if name == 'linf':  # Half of the searches find nothing.
    limit = float(np.median(np.abs(linear(x)[:, 0])) / np.abs(W).sum())
  x_adv = run(attacks.fmn(getattr(threats, name)(limit), num_steps=7), x, y)
  rows = zip(np.float64(x), np.asarray(y), strict=True)
  expected = np.stack([numpy_fmn(name, *row, limit, 7) for row in rows])
  np.testing.assert_allclose(x_adv, expected, atol=2e-5)
  flipped = int((jnp.argmax(linear(x_adv), axis=1) != y).sum())
  assert flipped == (2 if name == 'linf' else SIZE)


def test_images_that_stay():
  x, y = batch()
  attack = attacks.fmn(threats.linf(1.0), num_steps=3)
  assert np.array_equal(run(attack, x, 1 - y), x)
  for scale in (0.0, jnp.nan):
    x_adv = run(attack, x, y, lambda x, scale=scale: linear(x) * scale)
    assert np.array_equal(x_adv, x)


@pytest.mark.parametrize(
  'threat, options, message',
  [
    (threats.patch(2), {}, "`threat` must be one of linf, l2, l1, l0, got 'patch'"),
    (threats.l2(0.1), {'num_steps': -1}, 'got num_steps=-1'),
    (threats.l2(0.1), {'step_size': 0.0}, '`step_size` positive'),
    (threats.l2(0.1), {'gamma': 1.0}, '`gamma` in'),
  ],
)
def test_bad_arguments(threat, options, message):
  with pytest.raises(ValueError, match=message):
    attacks.fmn(threat, **options)
