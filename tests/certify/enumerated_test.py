"""Enumerated votes: an oracle loop, brute force over whole image spaces, counting, slack."""

import itertools
import json
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, models, smoothing, testing

Q = 3
VIEWS = smoothing.deterministic_splitting(lam=1.5, shape=(1, 3, 1), quantization=Q)
IMAGES = np.array(list(itertools.product(range(Q + 1), repeat=3))).reshape(-1, 1, 3, 1)
X = (IMAGES / Q).astype(np.float32)


def network(weights, x):
  """A random function of three pixels, compared by elementwise sums of few terms."""
  first, second = weights
  hidden = jnp.sin(jnp.einsum('bi,ih->bh', x.reshape(len(x), -1), first, precision='highest'))
  return jnp.einsum('bh,hk->bk', hidden, second, precision='highest')


def model(seed, num_classes=3, scale=6.0):
  rng = np.random.default_rng(seed)
  weights = rng.normal(size=(3, 8)) * scale, rng.normal(size=(8, num_classes))
  return jax.tree_util.Partial(network, jax.tree.map(np.float32, weights))


def logits_of_all_views(model_fn, views, x):
  """[B, V, K], one view at a time on the host."""
  view = jax.jit(jax.vmap(views.view, (None, 0)))
  rows = [model_fn(view(image, jnp.arange(views.num_views))) for image in x]
  return np.asarray(rows)


@pytest.mark.parametrize('chunk', [1, 7, 64, 1000])
def test_equals_a_loop_over_images_and_views(chunk):
  counts, unsure = certify.enumerated_counts(model(0), VIEWS, X[:5], chunk=chunk)
  label = logits_of_all_views(model(0), VIEWS, X[:5]).argmax(-1)
  np.testing.assert_array_equal(counts, [np.bincount(row, minlength=3) for row in label])
  assert counts.dtype == np.int64 and counts.sum() == 5 * VIEWS.num_views and not unsure.any()


@pytest.mark.parametrize('lam, quantization', [(0.34, 3), (0.5, 3), (1.0, 3), (1.5, 3), (1.3, 2)])
def test_no_quantised_image_contradicts_a_certificate(lam, quantization):
  """Brute force: 8 random models, every pair of images of three pixels, no exception at all."""
  views = smoothing.deterministic_splitting(lam=lam, shape=(1, 3, 1), quantization=quantization)
  steps = np.array(list(itertools.product(range(quantization + 1), repeat=3)))
  x = steps.reshape(-1, 1, 3, 1) / quantization
  distance = np.abs(steps[:, None] - steps).sum(-1)
  certified = tight = 0
  for seed in range(8):
    proof = certify.enumerated(model(seed, scale=3.0), views, x, chunk=256)
    testing.check_certificate(proof, 3)
    assert (proof.label >= 0).all(), 'there is no abstention'
    radius = np.round(proof.radius * quantization).astype(int)
    differ = proof.label[:, None] != proof.label
    assert not (differ & (distance <= radius[:, None])).any()
    tight += np.sum(differ & (distance == radius[:, None] + 1))
    certified += np.sum(radius > 0)
  assert tight > 0, 'some certificate is exact'
  assert lam < 1 or certified > 20


def test_slack_certificates_hold_for_programs_that_differ_by_less():
  """Logits moved by less than slack / 2, differently for every view: no label contradicts."""
  slack, plain_total, total, moved = 0.8, 0, 0, 0
  distance = np.abs(IMAGES.reshape(-1, 1, 3) - IMAGES.reshape(-1, 3)).sum(-1)
  for seed in range(6):
    base = model(seed, scale=1.0)

    def other(x, base=base, seed=seed):
      rng = model(100 + seed, scale=40.0)
      return base(x) + 0.499 * slack * jnp.sign(rng(x))

    plain = certify.enumerated(base, VIEWS, X, chunk=256)
    proof = certify.enumerated(base, VIEWS, X, slack=slack, chunk=256)
    elsewhere = certify.enumerated(other, VIEWS, X, chunk=256).label
    testing.check_certificate(proof, 3)
    radius = np.round(proof.radius * Q).astype(int)
    differ = proof.label[:, None] != elsewhere
    sure = proof.label >= 0
    assert not (differ & sure[:, None] & (distance <= radius[:, None])).any()
    assert (proof.radius <= plain.radius).all() and (proof.label == plain.label)[sure].all()
    plain_total, total = plain_total + plain.radius.sum(), total + proof.radius.sum()
    moved += np.sum(elsewhere != plain.label)
  assert 0 < total < plain_total and moved > 0


def test_slack_counts_by_hand():
  logits = np.array(
    [[3, 0, 0], [2, 1, 0], [0, 0, 1], [1, 0.75, 0], [0, 0.5, 0], [np.nan, 1, 0], [5, 1, 1], [9, 0, 0]],
    np.float32,
  )  # fmt: skip
  views = smoothing.deterministic_splitting(lam=4 / 3, shape=(1, 1, 1), quantization=3)
  order = np.asarray(jax.vmap(views.view, (None, 0))(jnp.zeros((1, 1, 1)), jnp.arange(8)))[
    :, 0, 0, 0
  ]
  assert len(np.unique(order)) <= views.num_views == 8
  numbered = views._replace(view=jax.tree_util.Partial(lambda x, index: x + index.astype(x.dtype)))
  model_fn = lambda x: jnp.asarray(logits)[jnp.round(x[:, 0, 0, 0]).astype(jnp.int32)]
  x = np.zeros((1, 1, 1, 1), np.float32)
  for slack, unsure in ((0.0, [0, 0, 0]), (0.2, [0, 0, 0]), (0.25, [1, 0, 0]), (1.5, [2, 1, 1])):
    got = certify.enumerated_counts(model_fn, numbered, x, slack=slack, chunk=3)
    np.testing.assert_array_equal(got[0], [[5, 1, 1]])
    np.testing.assert_array_equal(got[1], [unsure])
  radius = lambda slack: round(
    float(certify.enumerated(model_fn, numbered, x, slack=slack).radius[0]) * 3
  )
  assert radius(None) == 2  # (5 - 1) // 2
  assert radius(0.0) == 1  # The NaN goes to a rival: (5 - 2) // 2.
  assert radius(0.5) == 0  # And the gap of 0.25: (4 - 3) // 2.
  # 3 for the label, 0 + 5 for a rival.
  assert certify.enumerated(model_fn, numbered, x, slack=1.5).label[0] == certify.ABSTAIN


def test_forward_passes_are_the_views_and_one_padding():
  rows = []

  def counted(x):
    jax.debug.callback(lambda x: rows.append(len(x)), x)
    return network(jax.tree.map(jnp.asarray, model(0).args[0]), x)

  for chunk in (50, 64):
    rows.clear()
    certify.enumerated(counted, VIEWS, X[:13], chunk=chunk)
    jax.effects_barrier()
    assert VIEWS.num_views == 9
    assert sum(rows) == -(-13 * 9 // chunk) * chunk and set(rows) == {chunk}


def test_one_trace_for_all_weights_and_widths():
  module = models.build('digits-cnn', num_classes=10, width=2)
  x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)) / 255
  chex.clear_trace_counter()
  # Shapes are asked for once, the program is traced once.
  traced = chex.assert_max_traces(lambda variables, x: module.apply(variables, x), n=2)
  for seed, lam in ((0, 0.1), (1, 0.2), (2, 0.75)):
    variables = module.init(jax.random.key(seed), jnp.zeros((1, 8, 8, 1)))
    views = smoothing.deterministic_splitting(lam=lam, shape=(8, 8, 1))
    certify.enumerated(jax.tree_util.Partial(traced, variables), views, x, chunk=16)


def test_votes_kept_one_by_one():
  """Views that need every vote get bool[B, V, K]; several classes may win one view."""
  seen = []

  def decide(votes):
    seen.append(votes)
    return certify.certificate(votes.sum(axis=1).argmax(axis=1), np.zeros(len(votes)))

  above = jax.tree_util.Partial(lambda logits: logits > 0.5)
  views = VIEWS._replace(needs='votes', vote=above, decide=decide)
  proof = certify.enumerated(model(1), views, X[:6], chunk=10)
  logits = logits_of_all_views(model(1), VIEWS, X[:6])
  assert seen[0].dtype == bool and np.abs(logits - 0.5).min() > 1e-5
  np.testing.assert_array_equal(seen[0], logits > 0.5)
  np.testing.assert_array_equal(proof.label, (logits > 0.5).sum(axis=1).argmax(axis=1))
  with pytest.raises(ValueError, match='`slack` is for views whose votes are summed'):
    certify.enumerated(model(1), views, X[:6], slack=0.1)
  with pytest.raises(ValueError, match="they need 'votes'"):
    certify.enumerated_counts(model(1), views, X[:6])


SCRIPT = """
import json, jax, numpy as np
from certjax import certify, parallel, smoothing
x = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 1)) / 255
views = smoothing.deterministic_splitting(lam=0.2, shape=(2, 2, 1))
model_fn = lambda x: x.reshape(len(x), 4)
kept = views._replace(needs='votes', decide=lambda votes: votes)
result = {}
for size in (1, 3):
  mesh = parallel.data_mesh(jax.local_devices()[:size])
  counts, unsure = certify.enumerated_counts(model_fn, views, x, slack=0.05, chunk=20, mesh=mesh)
  votes = certify.enumerated(model_fn, kept, x, chunk=20, mesh=mesh)
  assert np.array_equal(votes.sum(axis=1), counts)
  result[size] = [counts.tolist(), unsure.tolist()]
print(json.dumps(result))
"""


def test_one_and_three_devices_give_the_same_counts():
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT], check=True, capture_output=True, text=True,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '3'},
  )  # fmt: skip
  result = json.loads(done.stdout)
  assert result['1'] == result['3']
  counts, unsure = np.array(result['1'])
  assert (counts.sum(axis=1) == 102).all() and np.count_nonzero(counts) > 3 and unsure.any()


@pytest.mark.parametrize(
  'options, said',
  [
    (dict(x=X[:2] + np.float32([0, 0.1]).reshape(2, 1, 1, 1)), r'multiples of 1/3 in \[0, 1\]: image 1'),
    (dict(x=X[:2] + 1), r'in \[0, 1\]: image 1|in \[0, 1\]: image 0'),
    (dict(x=X[:2, :, :2]), r'made for images of shape \(1, 3, 1\), got \(1, 2, 1\)'),
    (dict(x=X[:2] * np.nan), 'holds a NaN'),
    (dict(chunk=0), 'got chunk=0'),
    (dict(slack=-1.0), 'slack=-1'),
    (dict(slack=np.nan), 'slack=nan'),
    (dict(model_fn=lambda x: x[:, 0, 0, 0]), r'logits \[B, K\], got shape \(64,\)'),
  ],
)  # fmt: skip
def test_bad_arguments(options, said):
  options = {'model_fn': model(0), 'x': X[:2], 'chunk': 64, **options}
  with pytest.raises(ValueError, match=said):
    certify.enumerated(options.pop('model_fn'), VIEWS, options.pop('x'), **options)


def test_float32_images_of_255_steps_lie_on_the_grid():
  views = smoothing.deterministic_splitting(lam=0.01, shape=(16, 16, 1))
  x = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1) / np.float32(255)
  level = lambda x: jnp.stack([x[:, 0, 0, 0], -x[:, 0, 0, 0]], axis=1)
  assert certify.enumerated(level, views, x, chunk=8).label[0] == 0
  with pytest.raises(ValueError, match='multiples of 1/255'):
    certify.enumerated(level, views, x + np.float32(1e-3) * (x < 0.5), chunk=8)
