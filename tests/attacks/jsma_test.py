"""JSMA: protocol, a numpy version of every step with its own pair search, targets and budgets."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats

SHAPE, CLASSES = (2, 3, 2), 4
RNG = np.random.default_rng(0)
A = RNG.normal(size=(12, 5)).astype(np.float32)
B = RNG.normal(size=(5, CLASSES)).astype(np.float32)


def model_fn(x):
  hidden = jnp.sin(jnp.einsum('bi,ih->bh', x.reshape(len(x), -1), A, precision='highest'))
  return jnp.einsum('bh,hk->bk', hidden, B, precision='highest')


def batch(size):
  x = np.random.default_rng(1).uniform(-0.1, 1.1, (size, *SHAPE)).clip(0, 1).astype(np.float32)
  return jnp.asarray(x), jnp.argmax(model_fn(x), axis=1).astype(jnp.int32)


def attack(x, y, **options):
  return np.asarray(attacks.jsma(**options)(None, model_fn, x, y))


@pytest.mark.parametrize('options', [{}, {'theta': 0.3, 'target': 'each'}], ids=['once', 'each'])
def test_protocol(options):
  make = lambda threat: attacks.jsma(pixels=threat.eps, **options)
  testing.check_attack(make, threats.l0, model_fn, *batch(4), score=attacks.margin, eps=3)


def pairs(x, point, jacobian, target, sign, pixels):
  """(score, p, q) of every pair that the budget and the box admit."""
  pixel = lambda p: p // SHAPE[2]
  changed = {pixel(p) for p in range(12) if point[p] != x[p]}
  room = lambda p: 0 <= sign * (point[p] - x[p]) and point[p] != (1 if sign > 0 else 0)
  for p, q in itertools.combinations_with_replacement(range(12), 2):
    after = changed | {pixel(p), pixel(q)}
    single = p == q and pixels - len(changed) > 1
    if not room(p) or not room(q) or single or len(after) > pixels:
      continue
    alpha = sign * (jacobian[target, p] + jacobian[target, q])
    beta = sign * (jacobian[:, p] + jacobian[:, q]).sum() - alpha
    if alpha > 0 and beta < 0:
      yield -alpha * beta, p, q, sign


def numpy_jsma(x, y, target, pixels, theta, signs):
  """One image, step by step in float64; the points visited until the label changes."""
  x = point = np.float64(x).ravel()
  while True:
    yield point.reshape(SHAPE)
    logits = np.sin(point @ A) @ B
    if np.delete(logits, y).max() > logits[y]:
      return
    jacobian = (A * np.cos(point @ A)) @ B
    found = [pair for sign in signs for pair in pairs(x, point, jacobian.T, target, sign, pixels)]
    if not found:
      return
    _, p, q, sign = max(found)
    point = point.copy()
    point[[p, q]] = np.clip(point[[p, q]] + sign * theta, 0, 1)


def numpy_best(x, y, *, pixels, theta, signs):
  target = np.argsort(np.asarray(model_fn(x[None])[0]))[-2]
  visited = list(numpy_jsma(x, y, target, pixels, theta, signs))
  margin = lambda point: (lambda z: np.delete(z, y).max() - z[y])(np.sin(point.ravel() @ A) @ B)
  return visited[-1] if margin(visited[-1]) > 0 else max(visited, key=margin)


@pytest.mark.parametrize(
  'direction, signs', [('increase', [1]), ('decrease', [-1]), ('both', [1, -1])]
)
def test_every_step_is_that_of_numpy(direction, signs):
  x, y = batch(12)
  labels = []
  for pixels, theta in ((1, 0.4), (3, 1.0)):
    x_adv = attack(x, y, pixels=pixels, theta=theta, direction=direction)
    best = [
      numpy_best(*row, pixels=pixels, theta=theta, signs=signs) for row in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(x_adv, np.stack(best), atol=1e-5)
    labels.append(np.argmax(model_fn(x_adv), axis=1) != y)
  assert labels[1].any() and not labels[0].all()  # Both outcomes of the search occur.


def test_each_target_finds_what_the_runner_up_misses_and_no_more_pixels():
  x, y = batch(40)
  options = {'pixels': 2, 'direction': 'both'}
  one, each = (attack(x, y, target=target, **options) for target in ('runner-up', 'each'))
  wrong = lambda x_adv: np.asarray(jnp.argmax(model_fn(x_adv), axis=1) != y)
  changed = lambda x_adv: np.any(x_adv != x, axis=3).sum(axis=(1, 2))
  assert (wrong(each) >= wrong(one)).all() and wrong(each).sum() > wrong(one).sum()
  assert (changed(each) <= changed(one))[wrong(one)].all()


def test_a_class_of_your_own_is_reached():
  x, y = batch(20)
  target = (y + 1 + jnp.arange(20, dtype=jnp.int32) % 3) % CLASSES
  x_adv = attack(x, y, pixels=6, target=target)
  reached = np.asarray(jnp.argmax(model_fn(x_adv), axis=1) == target)
  other = attack(x, y, pixels=6, target=np.asarray((target + 1) % CLASSES))
  assert reached.mean() > 0.5
  assert np.asarray(jnp.argmax(model_fn(other), axis=1) == target).mean() < reached.mean() / 2


def test_a_pair_is_chosen_by_slope_not_by_gain():
  """T25 with logits (-s, s): 3 and 5 have the steepest sum, and gain 2.5 < 4.55; -2 and -4 follow."""
  w = jnp.array([3, -2, 1, 5, -4, 0.5])
  x = jnp.array([0.5, 0.5, 1, 0.2, 0.1, 0.9]).reshape(1, 1, 6, 1)

  def both(x):
    score = x.reshape(-1, 6) @ w + 2
    return jnp.stack([-score, score], axis=1)

  score = jax.jit(
    lambda pixels: both(attacks.jsma(pixels=pixels)(None, both, x, jnp.array([1])))[0, 1]
  )
  least = [4.55 - 1, 4.55 - 2.5, 4.55 - 2.5 - 4.6]
  np.testing.assert_allclose([score(pixels) for pixels in (1, 2, 4)], least, atol=1e-5)


def test_a_misclassified_image_stays_and_nan_logits_too():
  x, y = batch(3)
  assert np.array_equal(attack(x, (y + 1) % CLASSES, pixels=4), x)
  assert np.array_equal(attacks.jsma(pixels=4)(None, lambda x: model_fn(x) * jnp.nan, x, y), x)


@pytest.mark.parametrize(
  'options, match',
  [
    ({'theta': 0}, '`theta` is in pixel values'),
    ({'theta': 8}, '`theta` is in pixel values'),
    ({'target': 'all'}, '`target` must be one of runner-up, each'),
    ({'target': None}, '`target` must be one of'),
    ({'direction': 'up'}, '`direction` must be one of increase, decrease, both'),
    ({'pixels': -1}, '`pixels` is a whole number'),
  ],
)
def test_bad_arguments(options, match):
  with pytest.raises(ValueError, match=match):
    attacks.jsma(**{'pixels': 1, **options})
