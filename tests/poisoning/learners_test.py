"""Base learners beyond the first two: optima, forward passes by hand, what is masked, published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from certjax import poisoning

CLASSES, MEMBERS = 3, 7
KEY = jax.random.key(0)


def test_linear_is_the_optimum(samples):
  """Strong convexity: no farther from float64's optimum than slope / penalty; and the slope is as small as
  the steps of an accelerated descent make it, up to float32's rounding."""
  penalty, num_steps = 0.03, 300
  learner = poisoning.linear(CLASSES, penalty=penalty, num_steps=num_steps)
  x, y = samples(12)
  pixels = x.reshape(12, -1) / np.float32(255)
  pixels[9:], mask = np.nan, np.arange(12) < 9  # What is masked is not looked at.
  found = jax.jit(learner.fit)(KEY, pixels, y, mask)
  shown = pixels[:9].astype(np.float64)
  z = (shown - shown.mean()) / shown.std() / np.sqrt(shown.shape[1])
  z, one_hot = np.concatenate([z, np.ones((9, 1))], axis=1), np.eye(CLASSES)[y[:9]]

  def objective(flat):
    weights = flat.reshape(-1, CLASSES)
    logits = z @ weights
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    slope = z.T @ (np.exp(log_p) - one_hot) / 9 + penalty * weights
    return -(one_hot * log_p).sum() / 9 + penalty / 2 * (flat**2).sum(), slope.ravel()

  start = np.zeros(z.shape[1] * CLASSES)
  best = scipy.optimize.minimize(
    objective,
    start,
    jac=True,
    method='L-BFGS-B',
    options={'ftol': 0, 'gtol': 1e-12, 'maxiter': 5000},
  )
  ours = np.concatenate([found['weights'], found['bias'][None]]).astype(np.float64).ravel()
  slope, left = (np.linalg.norm(objective(flat)[1]) for flat in (ours, best.x))
  steepest = np.linalg.norm(z @ z.T) / 18 + penalty
  gap = objective(start)[0] - best.fun + penalty / 2 * np.sum(best.x**2)
  rate = (1 - np.sqrt(penalty / steepest)) ** num_steps
  rounding = 30 * np.finfo(np.float32).eps  # Of nine terms of size 1, and products of ten.
  assert left < 1e-8 and slope <= np.sqrt(2 * steepest * rate * gap) + rounding
  assert np.linalg.norm(ours - best.x) <= (slope + left) / penalty < 1e-3 < np.linalg.norm(best.x)
  scores = jax.vmap(learner.scores, (None, 0))(found, jnp.asarray(pixels[:9]))
  np.testing.assert_allclose(scores, z @ ours.reshape(-1, CLASSES), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope='module')
def small_cnn():
  """(learner, its compiled fit) for 8x8 images of two classes, in parts of at most 16."""
  learner = poisoning.cnn(2, shape=(8, 8, 1), width=8, num_steps=100)
  return learner, jax.jit(learner.fit)


def bars(rng, number):
  """Bars across (0) and down (1), at any place."""
  x, y = np.zeros((number, 8, 8), np.float32), rng.integers(0, 2, number, dtype=np.int32)
  for image, label, place, begin in zip(x, y, *rng.integers(0, 5, (2, number)), strict=True):
    image[place, begin : begin + 4] = 1
    image[...] = image.T if label else image
  return x.reshape(number, -1), y


def test_cnn_learns_what_a_linear_rule_of_pixels_cannot(small_cnn):
  """Shifted bars, of 16 examples."""
  rng = np.random.default_rng(0)
  (x, y), (x_test, y_test) = bars(rng, 16), bars(rng, 200)
  right = []
  for learner, fit in (small_cnn, (poisoning.linear(2), jax.jit(poisoning.linear(2).fit))):
    scores = jax.jit(jax.vmap(learner.scores, (None, 0)))(fit(KEY, x, y, np.ones(16, bool)), x_test)
    right.append(np.mean(np.argmax(scores, axis=1) == y_test))
  assert right[0] > 0.95 > 0.8 > right[1]


def test_cnn_is_two_convolutions_and_draws_from_the_shown(small_cnn):
  """Its scores by loops in float64; masked rows may hold anything, and change no bit."""
  learner, fit = small_cnn
  (x, y), mask = bars(np.random.default_rng(1), 16), np.arange(16) < 9
  state = fit(KEY, x, y, mask)
  hidden = np.where(mask[:, None], x, np.nan).astype(np.float32)
  again = fit(KEY, hidden, np.where(mask, y, 0).astype(np.int32), mask)
  jax.tree.map(np.testing.assert_array_equal, state, again)
  other = np.where(np.arange(16) == 8, 1 - y, y)
  assert not np.array_equal(state['first'], fit(KEY, x, other, mask)['first'])

  def convolved(image, kernel, bias):
    padded, size = np.pad(image, ((1, 1), (1, 1), (0, 0))), len(image) // 2
    out = np.array([
      [np.tensordot(padded[2 * i : 2 * i + 4, 2 * j : 2 * j + 4], kernel, 3) for j in range(size)]
      for i in range(size)
    ])  # fmt: skip
    return np.maximum(out + bias, 0)

  weights = {name: np.asarray(leaf, np.float64) for name, leaf in state.items()}
  assert weights['mean'] == pytest.approx(x[:9].mean()) and weights['std'] == pytest.approx(
    x[:9].std()
  )
  for row in x[:2]:
    image = (row.astype(np.float64).reshape(8, 8, 1) - weights['mean']) / weights['std']
    for name in ('first', 'second'):
      image = convolved(image, weights[name], weights[f'{name}_bias'])
    logits = image.ravel() @ weights['last'] + weights['last_bias']
    np.testing.assert_allclose(
      learner.scores(state, jnp.asarray(row)), logits, rtol=1e-4, atol=1e-4
    )


def test_a_flipped_label_reaches_one_member_through_features(samples):
  """SS-DPA: features of all images, members trained again; parts of the sorted images."""
  x, y = samples(40)
  rng = np.random.default_rng(0)
  mixed = rng.normal(size=(9, 20)).astype(np.float32)
  features = np.maximum(
    (x.reshape(40, 9) / np.float32(255) - x.mean() / np.float32(255)) @ mixed, 0
  )
  features = features.astype(np.float32)
  parts = poisoning.sorted_unlabelled(x, MEMBERS)
  learner = poisoning.linear(CLASSES, num_steps=50)
  train = lambda y: poisoning.train_ensemble(
    KEY, learner, features, y, parts, capacity=8, group=MEMBERS
  )
  before = train(y)
  votes = poisoning.votes(before, features, chunk=40)
  moved_votes = 0
  for i in range(0, 40, 3):
    flipped = y.copy()
    flipped[i] = (y[i] + 1) % CLASSES
    after = train(flipped)
    moved = [
      n for n in range(MEMBERS)
      if not np.array_equal(before.states['weights'][0, n], after.states['weights'][0, n])
    ]  # fmt: skip
    assert moved == [n for n, part in enumerate(parts.members) if i in part]
    changed = (poisoning.votes(after, features, chunk=40) != votes).any(axis=0)
    assert set(np.flatnonzero(changed)) <= set(moved)
    moved_votes += changed.sum()
  assert moved_votes >= 8


@pytest.mark.parametrize(
  'call, word',
  [
    (lambda: poisoning.linear(3, penalty=0.0), '`penalty` must be positive'),
    (lambda: poisoning.linear(3, num_steps=0), '`num_steps`'),
    (lambda: poisoning.cnn(3, shape=(3, 3)), '`shape` must be'),
    (lambda: poisoning.cnn(3, shape=(3, 3, 1), crop=-1), '`crop`'),
    (lambda: poisoning.cnn(3, shape=(3, 3, 1), step_size=float('inf')), '`step_size`'),
    (lambda: poisoning.nin(3, shape=(3, 3, 1), batch=float('nan')), '`batch`'),
    (lambda: poisoning.build_learner('cnn', 3), 'sees images, not features'),
    (
      lambda: poisoning.build_learner('cnn', 3, {'shape': 2}, shape=(3, 3, 1)),
      'no parameter shape',
    ),
  ],
)
def test_bad_arguments(call, word):
  with pytest.raises(ValueError, match=word):
    call()
