"""Ensembles: what a member depends on, checked by training again; learners against plain arithmetic."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, poisoning

CLASSES, MEMBERS, CAPACITY, GROUP = 3, 7, 8, 3
KEY = jax.random.key(0)
LEARNERS = {
  'mlp': poisoning.mlp(CLASSES, hidden=8, num_steps=5),
  'nearest-neighbour': poisoning.nearest_neighbour(CLASSES),
  'linear': poisoning.linear(CLASSES, num_steps=20),
  'cnn': poisoning.cnn(CLASSES, shape=(3, 3, 1), width=2, num_steps=5, batch=4, crop=1),
}
EACH = pytest.mark.parametrize('learner', LEARNERS.values(), ids=LEARNERS)


@pytest.fixture
def queries(samples):
  """Images that are classified; parts of 60 have 8.6 samples on average, so that some are thinned."""
  return samples(20, seed=1)[0]


def dealt(x, y, members=MEMBERS):
  return poisoning.partition(x, y, poisoning.pixel_sum(x, members), members)


def trained(learner, x, y, *, partition=None, group=GROUP, members=None, capacity=CAPACITY):
  return poisoning.train_ensemble(
    KEY, learner, x, y, partition or dealt(x, y), capacity=capacity, group=group, members=members
  )


def bits(ensemble):
  """Member number -> the bytes of its state."""
  leaves = [leaf.reshape(-1, *leaf.shape[2:]) for leaf in jax.tree.leaves(ensemble.states)]
  return {
    int(number): b''.join(leaf[place].tobytes() for leaf in leaves)
    for place, number in enumerate(ensemble.numbers)
  }


@EACH
def test_a_member_is_the_same_whatever_its_place_and_company(samples, queries, learner):
  x, y = samples()
  whole = trained(learner, x, y)
  answers = poisoning.preferences(whole, queries, chunk=8)
  groups = (([6, 2, 0, 5], 3), ([4], 1), (range(MEMBERS), 5))
  for members, group in (
    groups[:1] if learner is LEARNERS['cnn'] else groups
  ):  # It compiles for long.
    some = trained(learner, x, y, group=group, members=members)
    assert bits(some).items() <= bits(whole).items() and set(bits(some)) == set(members)
    there = poisoning.preferences(some, queries, chunk=8)
    np.testing.assert_array_equal(there, answers[:, list(members)])
  turned = poisoning.preferences(whole, queries[::-1][:13], chunk=8)
  np.testing.assert_array_equal(turned, answers[::-1][:13])
  assert len(set(bits(whole).values())) == MEMBERS


@EACH
def test_one_sample_more_or_less_retrains_one_member(samples, queries, learner):
  """All are trained again on the changed set: at most one differs, the one of the sample's part."""
  x, y = samples()
  before = trained(learner, x, y)
  votes = poisoning.votes(before, queries)
  assert before.sizes.max() > CAPACITY  # One of the parts is thinned.
  for i in (*range(0, 60, 7), 59):
    buckets = poisoning.pixel_sum(x[[i]], MEMBERS)
    less = trained(learner, *(np.delete(each, i, axis=0) for each in (x, y)))
    more = trained(learner, *(np.concatenate([each[[i]], each]) for each in (x, y)))
    for after in (less, more):
      changed = {n for n, state in bits(after).items() if state != bits(before)[n]}
      assert changed <= set(buckets.tolist())
      moved = (poisoning.votes(after, queries) != votes).any(axis=0)
      assert set(np.flatnonzero(moved).tolist()) <= changed


def test_a_flooded_part_changes_no_other(samples):
  """An adversary's 100 samples for one member: shapes, hence bits, of the others stay."""
  x, y = samples()
  many = np.repeat(x[:1], 100, axis=0)
  many[:, 0, 0, 0] = 7 * np.arange(100) % 133  # Sums that differ by multiples of 7.
  many[:, 0, 0, 0] += np.uint8(x[0, 0, 0, 0]) % 7
  added = np.concatenate([x, many]), np.concatenate([y, np.arange(100, dtype=np.int32) % CLASSES])
  assert set(poisoning.pixel_sum(many, MEMBERS)) == set(poisoning.pixel_sum(x[:1], MEMBERS))
  before, after = (bits(trained(LEARNERS['mlp'], *each)) for each in ((x, y), added))
  assert [n for n in before if before[n] != after[n]] == poisoning.pixel_sum(x[:1], 7).tolist()


def test_no_certified_sample_turns_a_label(samples, queries):
  """Every sample removed in turn, all members trained again: labels certified for one stay."""
  x, y = samples()
  learner = LEARNERS['nearest-neighbour']
  proof = certify.aggregate(poisoning.votes(trained(learner, x, y), queries), CLASSES)
  certified = proof.radius >= 1
  assert 5 <= certified.sum() < len(queries)
  turned = np.zeros(len(queries), bool)
  for i in range(len(x)):
    less = trained(learner, np.delete(x, i, axis=0), np.delete(y, i))
    again = certify.aggregate(poisoning.votes(less, queries), CLASSES)
    turned |= again.label != proof.label
  assert not (turned & certified).any() and turned.any()


def test_a_flipped_label_reaches_one_member(samples):
  """SS-DPA: parts of the sorted images; members are trained again on the flipped label."""
  x, y = samples()
  parts = poisoning.sorted_unlabelled(x, MEMBERS)
  before = bits(trained(LEARNERS['mlp'], x, y, partition=parts, capacity=16))
  for i in (0, 31, 59):
    flipped = y.copy()
    flipped[i] = (y[i] + 1) % CLASSES
    after = bits(trained(LEARNERS['mlp'], x, flipped, partition=parts, capacity=16))
    changed = [n for n in before if before[n] != after[n]]
    assert changed == [n for n, part in enumerate(parts.members) if i in part]


def test_one_program_for_all_groups_and_training_sets(samples, queries):
  traces = []

  def fit(key, x, y, mask):
    traces.append('fit')
    return {'sum': jnp.sum(jnp.where(mask[:, None], x, 0))}

  def scores(state, x):
    traces.append('scores')
    return jnp.full(CLASSES, state['sum'] + jnp.sum(x))

  learner, (x, y) = poisoning.Learner(fit, scores, CLASSES), samples()
  for rows in (60, 59, 61):
    x, y = samples(rows)
    poisoning.votes(trained(learner, x, y), queries[: rows - 45], chunk=8)
  assert sorted(traces) == ['fit', 'scores']


def test_mlp_is_descent_on_all_weights(samples):
  """Against momentum on W itself, step by step in float64, without masked rows."""
  num_steps, step_size = 20, 0.05
  learner = poisoning.mlp(CLASSES, hidden=8, num_steps=num_steps, step_size=step_size)
  start = poisoning.mlp(CLASSES, hidden=8, num_steps=1, step_size=1e-30)
  x, y = samples(12)
  pixels = x.reshape(12, -1) / np.float32(255)
  pixels[9:] = np.nan  # What is masked is not looked at.
  mask = np.arange(12) < 9
  found, begun = (jax.jit(each.fit)(KEY, pixels, y, mask) for each in (learner, start))
  shown = pixels[:9].astype(np.float64)
  assert found['mean'] == pytest.approx(shown.mean()) and found['std'] == pytest.approx(shown.std())
  z, one_hot = (shown - shown.mean()) / shown.std(), np.eye(CLASSES)[y[:9]]
  names = ('first', 'first_bias', 'last', 'last_bias')
  weights = {name: np.asarray(begun[name], np.float64) for name in names}
  velocity = {name: np.zeros_like(weight) for name, weight in weights.items()}
  for _ in range(num_steps):
    hidden = np.maximum(z @ weights['first'] + weights['first_bias'], 0)
    odds = np.exp(hidden @ weights['last'] + weights['last_bias'])
    error = (odds / odds.sum(axis=1, keepdims=True) - one_hot) / 9
    back = (error @ weights['last'].T) * (hidden > 0)
    slopes = (z.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0))
    for name, slope in zip(names, slopes, strict=True):
      velocity[name] = 0.9 * velocity[name] + slope
      weights[name] = weights[name] - step_size * velocity[name]
  for name in names:
    np.testing.assert_allclose(found[name], weights[name], rtol=1e-4, atol=1e-5)
  assert np.abs(np.asarray(found['first'] - begun['first'])).max() > 0.05
  logits = np.maximum(z @ weights['first'] + weights['first_bias'], 0) @ weights['last']
  scores = jax.vmap(learner.scores, (None, 0))(found, jnp.asarray(pixels[:9]))
  np.testing.assert_allclose(scores, logits + weights['last_bias'], rtol=1e-4, atol=1e-4)


def test_nearest_neighbour_is_the_nearest(samples, queries):
  """A black image too, which is nearest to padded rows; dark samples are not of their class 0."""
  x, y = samples()
  y, queries = CLASSES - 1 - y, np.concatenate([queries, np.zeros_like(queries[:1])])
  parts = dealt(x, y)
  ensemble = trained(LEARNERS['nearest-neighbour'], x, y, capacity=24)
  assert ensemble.sizes.max() <= 24
  votes, images = poisoning.votes(ensemble, queries), queries.reshape(21, -1).astype(np.int64)
  for member, part in enumerate(parts.members):
    there = x[part].reshape(len(part), -1).astype(np.int64)
    distances = ((images[:, None] - there) ** 2).sum(axis=-1)
    nearest = distances == distances.min(axis=1, keepdims=True)
    lowest = np.where(nearest, y[part], CLASSES).min(axis=1)
    np.testing.assert_array_equal(votes[:, member], lowest)


def test_preferences_and_votes_of_given_scores():
  """A learner whose scores are the first pixels it saw; a NaN, or no sample, abstains."""
  table = np.array([[3, 1, 3, 0], [0, 0, 0, 0], [5, np.nan, 9, 1], [-np.inf, 2, np.inf, 2]])
  learner = poisoning.Learner(lambda key, x, y, mask: {'it': x[0]}, lambda state, x: state['it'], 4)
  parts = poisoning.Partition(tuple(np.array([i]) for i in range(4)))
  x, y = table.astype(np.float32), np.zeros(4, np.int32)
  ensemble = trained(learner, x, y, partition=parts)
  expected = [[2, 1, 2, 0], [0, 0, 0, 0], [-1, -1, -1, -1], [0, 1, 3, 1]]
  assert poisoning.preferences(ensemble, x[:1]).tolist() == [expected]
  assert poisoning.votes(ensemble, x[:1]).tolist() == [[0, 0, -1, 2]]
  none = poisoning.Partition((np.array([0, 1]), np.array([], np.int64)))
  assert poisoning.votes(trained(learner, x, y, partition=none), x[:1]).tolist() == [[0, -1]]


def test_large_parts_are_thinned_evenly():
  learner = poisoning.Learner(lambda key, x, y, mask: {'y': y}, lambda state, x: x, 12)
  x, y = np.zeros((12, 12), np.float32), np.arange(12)
  parts = poisoning.Partition((np.arange(12)[::-1], np.arange(3)))
  seen = trained(learner, x, y, partition=parts, capacity=5, group=2).states['y']
  assert seen.tolist() == [[[11, 9, 7, 4, 2], [0, 1, 2, 0, 0]]]


def test_members_at_once_as_on_an_accelerator(samples, queries, monkeypatch):
  """vmap in place of the loop: the same up to rounding; the same answers of well separated scores."""
  x, y = samples()
  make = functools.partial(poisoning.mlp, CLASSES, hidden=8, num_steps=5)
  loop = trained(make(), x, y)
  monkeypatch.setattr('jax.default_backend', lambda: 'gpu')
  at_once = trained(make(), x, y)  # A new learner, hence a new program.
  for a, b in zip(*(jax.tree.leaves(each.states) for each in (loop, at_once)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(poisoning.votes(loop, queries), poisoning.votes(at_once, queries))


SCRIPT = """
import hashlib, json, sys
import jax, numpy as np
from certjax import parallel, poisoning
from certjax.poisoning import _ensemble

x, y, queries = (np.load(sys.argv[1])[name] for name in ('x', 'y', 'queries'))
parts = poisoning.partition(x, y, poisoning.pixel_sum(x, 7), 7)
found = {}
for size in (1, 2, 8):
  parallel.local_mesh = lambda size=size: parallel.data_mesh(jax.local_devices()[:size])
  for name in ('mlp', 'linear'):
    learner = poisoning.build_learner(name, 3, {'num_steps': 5})
    ensemble = poisoning.train_ensemble(
      jax.random.key(0), learner, x, y, parts, capacity=8, group=3)
    text = b''.join(leaf.tobytes() for leaf in jax.tree.leaves(ensemble.states))
    text += poisoning.preferences(ensemble, queries, chunk=8).tobytes()
    found[f'{name} {size}'] = hashlib.sha256(text).hexdigest()
print(json.dumps(found))
"""


def test_a_member_is_the_same_on_whichever_device(samples, queries, tmp_path):
  """Groups of three on one, two and eight devices: weights and answers bit for bit."""
  x, y = samples()
  np.savez(tmp_path / 'samples.npz', x=x, y=y, queries=queries)
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT, str(tmp_path / 'samples.npz')], check=True, capture_output=True, text=True,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '8', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
  )  # fmt: skip
  found = json.loads(done.stdout)
  for name in ('mlp', 'linear'):
    assert found[f'{name} 1'] == found[f'{name} 2'] == found[f'{name} 8']
  assert len(set(found.values())) == 2


@pytest.mark.parametrize(
  'call, word',
  [
    (lambda x, y: trained(LEARNERS['mlp'], x, None, partition=dealt(x, y)), 'label for each'),
    (lambda x, y: trained(LEARNERS['mlp'], x, y + 1, partition=dealt(x, y)), '`y` must lie'),
    (lambda x, y: trained(LEARNERS['mlp'], x, y * 0.5, partition=dealt(x, y)), 'integers'),
    (lambda x, y: trained(LEARNERS['mlp'], x, y, partition=dealt(x, y, 61)), '61 members for 60'),
    (lambda x, y: trained(LEARNERS['mlp'], x / 255, y, partition=dealt(x, y)), 'uint8 or float32'),
    (lambda x, y: trained(LEARNERS['mlp'], x, y, members=[7]), '0 .. 6'),
    (lambda x, y: trained(LEARNERS['mlp'], x, y, capacity=0), '`capacity`'),
    (lambda x, y: poisoning.pixel_sum(x / 255, 7), 'uint8'),
    (lambda x, y: poisoning.mlp(3, hidden=0), '`hidden`'),
    (lambda x, y: poisoning.mlp(3, num_steps=2.5), '`num_steps`'),
    (lambda x, y: poisoning.mlp(3, step_size=float('nan')), '`step_size`'),
    (lambda x, y: poisoning.build_learner('forest', 3), 'mlp, nearest-neighbour, linear, cnn, nin'),
    (lambda x, y: poisoning.build_learner('mlp', 3, {'depth': 2}), 'hidden, num_steps, step_size'),
  ],
)
def test_bad_arguments(samples, call, word):
  with pytest.raises(ValueError, match=word):
    call(*samples())
