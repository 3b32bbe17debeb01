"""Votes: an oracle loop, invariance to order, batch, chunk, devices and padding, one trace."""

import json
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, models, parallel, smoothing

NOISE = smoothing.gaussian(sigma=0.5)
KEY = jax.random.key(7)
X = np.linspace(-0.4, 0.4, 5, dtype=np.float32).reshape(5, 1) * np.ones((5, 3), np.float32)


def model_fn(x):
  """Three classes, compared exactly: no sum whose rounding could depend on the batch."""
  return jnp.stack([x[:, 0], x[:, 1], jnp.zeros(len(x))], axis=1)


def count(x=X, **options):
  return certify.votes(KEY, options.pop('model_fn', model_fn), NOISE, x, **{'chunk': 64, **options})


def test_equals_a_loop_over_images_and_samples():
  expected = np.zeros((5, 3), int)
  for i, x in enumerate(X):
    for j in range(150):
      key = jax.random.fold_in(jax.random.fold_in(KEY, i), j)
      expected[i, int(jnp.argmax(model_fn(NOISE.sample(key, x)[None])[0]))] += 1
  np.testing.assert_array_equal(count(num_samples=150), expected)


@pytest.mark.parametrize('chunk', [1, 7, 64, 1000])
def test_any_chunk_draws_the_same_noise(chunk):
  np.testing.assert_array_equal(count(num_samples=100, chunk=chunk), count(num_samples=100))


def test_order_batch_and_padding_do_not_matter():
  full = count(num_samples=333)
  order = np.array([3, 0, 4, 2, 1])
  np.testing.assert_array_equal(count(X[order], index=order, num_samples=333), full[order])
  alone = [count(X[i : i + 1], index=[i], num_samples=333)[0] for i in range(5)]
  np.testing.assert_array_equal(alone, full)
  np.testing.assert_array_equal(count(X[3:], index=[3, 4], num_samples=333, slots=5), full[3:])


def test_samples_and_images_draw_different_noise():
  same = np.repeat(X[2:3], 4, axis=0)
  counts = count(same, num_samples=1000)
  assert len(np.unique(counts, axis=0)) == 4
  more = count(X, num_samples=200) - count(X, num_samples=100)
  assert (more >= 0).all() and (more.sum(axis=1) == 100).all()  # The first 100 are drawn again.


def test_nan_votes_for_nobody():
  def sometimes(x):
    return jnp.where(x[:, :1] > 0, jnp.nan, model_fn(x))

  counts = count(model_fn=sometimes, num_samples=200)
  assert (counts.sum(axis=1) < 200).all()
  clean = np.zeros(3, int)
  for j in range(200):
    noisy = NOISE.sample(jax.random.fold_in(jax.random.fold_in(KEY, 0), j), X[0])
    if noisy[0] <= 0:
      clean[int(jnp.argmax(model_fn(noisy[None])))] += 1
  np.testing.assert_array_equal(counts[0], clean)


def test_ties_go_to_the_lowest_class():
  counts = count(model_fn=lambda x: jnp.zeros((len(x), 4)), num_samples=50)
  np.testing.assert_array_equal(counts, [[50, 0, 0, 0]] * 5)


def test_one_trace_for_all_weights_sigmas_and_numbers_of_samples():
  module = models.build('digits-cnn', num_classes=10, width=2)
  x = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 1)).astype(np.float32)
  chex.clear_trace_counter()
  counted = chex.assert_max_traces(lambda variables, x: module.apply(variables, x), n=2)

  def traced(variables, x):  # Shapes are asked for once, the program is traced once.
    return counted(variables, x)

  init = jax.jit(module.init)
  for seed, sigma, number in ((0, 0.25, 10), (1, 0.5, 10), (2, 1.0, 77)):
    variables = init(jax.random.key(seed), x)
    certify.votes(
      KEY, jax.tree_util.Partial(traced, variables), smoothing.gaussian(sigma=sigma), x,
      num_samples=number, chunk=16,
    )  # fmt: skip


def test_an_nnx_model_certifies_as_well():
  """The core sees a function only: no Flax linen module, its state travels as a pytree."""
  from flax import nnx

  graph, state = nnx.split(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
  model_fn = jax.tree_util.Partial(lambda state, x: nnx.merge(graph, state)(x), state)
  kernel, bias = state['kernel'][...], state['bias'][...]
  counts = count(model_fn=model_fn, num_samples=50)
  np.testing.assert_array_equal(
    counts, count(model_fn=lambda x: x @ kernel + bias[None], num_samples=50)
  )
  assert np.count_nonzero(counts) > 5


def test_memory_does_not_grow_with_samples_and_weights_are_arguments():
  from certjax.certify import _device, _votes

  mesh = parallel.local_mesh()
  program = _votes.count_votes([KEY], model_fn, NOISE, (3,), 64)
  parts = program.model_fn, program.perturb, program.tally, program.keys
  images = jnp.asarray(X), jnp.arange(5, dtype=jnp.uint32), jnp.zeros(5, jnp.int32)
  table = jnp.zeros((4, 10), jnp.int32)  # How many samples there are is data: not in the program.
  lowered = _device._count.lower(
    parts, images, table, np.int32(0), mesh=mesh, chunk=64, bins=program.bins
  )
  assert lowered.compile().memory_analysis().temp_size_in_bytes < 64 * 1024


SCRIPT = """
import json, jax, numpy as np
from certjax import certify, models, parallel, smoothing
x = np.random.default_rng(0).uniform(0, 1, (3, 16, 16, 3)).astype(np.float32)
module = models.ResNet(10, depth=8)
variables = jax.jit(module.init)(jax.random.key(1), x[:1])
noise = smoothing.gaussian(sigma=0.5)
rows = np.repeat(x, 40, axis=0)
rows = jax.jit(jax.vmap(noise.sample))(jax.random.split(jax.random.key(3), len(rows)), rows)
# Every class gets its share of the votes.
shift = jax.jit(module.apply)(variables, rows).mean(axis=0)
model_fn = jax.tree_util.Partial(
  lambda variables, shift, x: module.apply(variables, x) - shift, variables, shift)
votes = {}
for size in (1, 2, 8):
  mesh = parallel.data_mesh(jax.local_devices()[:size])
  counts = certify.votes(
    jax.random.key(2), model_fn, noise, x, num_samples=97, chunk=20, mesh=mesh)
  votes[size] = counts.tolist()
print(json.dumps(votes))
"""


def test_one_two_and_eight_devices_give_the_same_votes():
  """Of a ResNet, in one process; `cli/devices_test.py` has a CNN in processes that see as many."""
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT], check=True, capture_output=True, text=True,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '8'},
  )  # fmt: skip
  votes = json.loads(done.stdout)
  assert votes['1'] == votes['2'] == votes['8']
  assert np.count_nonzero(votes['1']) > 10, 'votes for one class show nothing'


@pytest.mark.parametrize(
  'options, said',
  [
    (dict(x=np.zeros((0, 3)), num_samples=5), r'got shape \(0, 3\)'),
    (dict(x=np.array([[np.nan] * 3]), num_samples=5), 'image 0 holds a NaN or inf'),
    (dict(num_samples=0), 'must be at least 1, got 0 and 64'),
    (dict(num_samples=5, chunk=0), 'must be at least 1, got 5 and 0'),
    (dict(num_samples=5, index=[1, 2]), r'got shape \(2,\), dtype int64 for B=5'),
    (dict(num_samples=5, index=np.zeros(5)), 'dtype float64'),
    (dict(num_samples=5, slots=0), 'must be at least 1, got 64 and 0'),
    (dict(num_samples=5, model_fn=lambda x: x[:, 0]), r'got shape \(64,\) for a batch of 64'),
    (dict(num_samples=5, chunk=2**25), 'must be at most 16777216, got 33554432'),
    (dict(num_samples=2**31), 'must be at most 2147483647, got 2147483648'),
  ],
)
def test_bad_arguments(options, said):
  with pytest.raises(ValueError, match=said):
    count(**options)


def test_shape_of_the_smoothing_is_checked():
  with pytest.raises(ValueError, match=r'made for images of shape \(4, 4, 1\), got \(3,\)'):
    certify.votes(KEY, model_fn, NOISE._replace(shape=(4, 4, 1)), X, num_samples=5)
