"""Training for smoothing: each loss against numpy, whose noise is seen, which pass counts, and that
every method trains real digits. Run as a script: the same losses on one and on two devices."""

import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy import special

from certjax import attacks, data, models, parallel, smoothing, threats, train

SIGMA = 0.25
NOISE = smoothing.gaussian(sigma=SIGMA)
SHAPE = (4, 4, 1)

METHODS = {  # All with m = 2 copies, so that the tests share compiled programs.
  'augmented': train.augmented(NOISE, num_noises=2),
  'stability': train.stability(NOISE),
  'stability clean': train.stability(NOISE, variant='clean', weight=2.0),
  'stability both': train.stability(NOISE, variant='both'),
  'macer': train.macer(sigma=SIGMA, num_noises=2, beta=4.0),
  'consistency': train.consistency(NOISE),
  'smooth_adv pgd': train.smooth_adv(NOISE, eps=0.4, num_steps=3, num_noises=2, warmup_steps=10),
  'smooth_adv ddn': train.smooth_adv(NOISE, eps=0.4, num_steps=3, num_noises=2, attack='ddn'),
  'smooth_mix': train.smooth_mix(NOISE, step_size=0.5, num_steps=2),
}
ATTACKING = ('smooth_adv pgd', 'smooth_adv ddn', 'smooth_mix')


class Normalised(nn.Module):
  """BatchNorm over the whole mesh, as small as a model with statistics can be."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(8)(x.reshape(len(x), -1))
    axis = parallel.AXIS if train else None
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5, axis_name=axis)(x)
    return nn.Dense(3)(nn.tanh(x))


def identity(x, train):
  """An `apply` whose rows are the logits themselves."""
  return x, {'seen': x}


def example_batch(size=6):
  rng = np.random.default_rng(5)
  x = rng.uniform(0, 1, (size, *SHAPE)).astype(np.float32)
  return {'x': x, 'y': rng.integers(0, 3, size).astype(np.int32), 'index': np.arange(size)}


def keys_of(size=6, seed=3):
  return jax.random.split(jax.random.key(seed), size)


def run_steps(objective, num_steps, num_devices=1):
  """Steps of a fresh Normalised on one batch, with weights that stay; the metrics of each."""
  mesh = parallel.data_mesh(jax.devices()[:num_devices])
  module, tx = Normalised(), optax.sgd(0.0)
  specs = (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED)
  step = train.make_step(module, tx, **objective._asdict())
  compiled = parallel.pmap(step, mesh, specs, (parallel.REPLICATED, parallel.REPLICATED))
  state = train.init_state(jax.random.key(0), module, tx, SHAPE)
  state, key = parallel.replicate(mesh, (state, jax.random.key(7)))
  batch, seen = parallel.shard_batch(mesh, example_batch()), []
  for _ in range(num_steps):
    state, metrics = compiled(state, key, batch)
    seen.append(jax.device_get(metrics))
  return seen


@functools.cache
def compiled_perturb(name):
  """`perturb` of a method, compiled once for all tests."""
  return jax.jit(METHODS[name].perturb)


@functools.cache
def trained_like():
  """A Normalised whose running statistics are not those of a batch, as a model_fn."""
  module = Normalised()
  variables = module.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
  shifted = jax.tree.map(lambda v: v + 0.5, variables['batch_stats'])
  return models.bind(module, {**variables, 'batch_stats': shifted})


# Each loss against numpy in float64, one example at a time.


def softmax(logits):
  p = np.exp(logits - logits.max(-1, keepdims=True))
  return p / p.sum(-1, keepdims=True)


def kl(p, q):
  return (p * np.log(p / q)).sum()


def numpy_loss(name, logits, y, mixed=None, share=None):
  """The loss of ONE example, logits[m, K], written from the papers."""
  p = softmax(logits)
  mean, right = p.mean(0), -np.log(p[:, y]).mean()
  if name.startswith(('augmented', 'smooth_adv')):
    return right
  if name == 'stability':
    return -np.log(p[0, y]) + 6 * kl(p[0], p[1])
  if name == 'stability clean':
    return -np.log(p[0, y]) - 2 * (p[0] * np.log(p[1])).sum()
  if name == 'stability both':
    return right + 6 * kl(p[0], p[1])
  if name == 'consistency':
    return right + 10 * np.mean([kl(mean, row) for row in p]) - 0.5 * (mean * np.log(mean)).sum()
  if name == 'macer':
    q = softmax(4 * logits).mean(0)
    second, first = np.sort(q)[-2:]
    xi = special.ndtri(first) - special.ndtri(second)
    hinge = 8 - xi if q.argmax() == y and np.isfinite(xi) and xi <= 8 else 0.0
    return -np.log(mean[y]) + 12 * SIGMA / 2 * hinge
  target = (1 - share) * mean + share / len(mean)
  mix = np.mean([kl(target, row) for row in softmax(mixed)])
  return right + 5 * (mean.argmax() == y) * mix


def example_logits(name, scale=2.0):
  """(copies, mixed, share, y): random logits of 12 examples, right and wrong ones among them."""
  rng = np.random.default_rng(0)
  copies, mixed = scale * rng.normal(size=(2, 12, 2, 5))
  share, y = rng.uniform(0.01, 0.5, 12), rng.integers(0, 5, 12).astype(np.int32)
  sharpness = 4 if name == 'macer' else 1
  y[:8] = softmax(sharpness * copies[:8]).mean(1).argmax(-1)
  return copies, mixed, share, y


def arguments(name, copies, mixed, share, dtype):
  if name == 'smooth_mix':
    return train.Mixed(*(jnp.asarray(part, dtype) for part in (copies, mixed, share)))
  return jnp.asarray(copies, dtype)


@pytest.mark.parametrize('name', METHODS)
def test_loss_is_that_of_numpy(name):
  copies, mixed, share, y = example_logits(name)
  x = arguments(name, copies, mixed, share, jnp.float32)
  loss = jax.jit(METHODS[name].loss, static_argnums=1)
  value, (metrics, _) = loss(None, identity, x, jnp.asarray(y), jnp.int32(20))
  rows = zip(copies, y, mixed, share, strict=True)
  np.testing.assert_allclose(value, np.mean([numpy_loss(name, *row) for row in rows]), rtol=2e-5)
  correct = (copies.argmax(-1) == y[:, None]).mean()
  np.testing.assert_allclose(metrics['accuracy'], correct, rtol=1e-6)
  assert all(np.shape(metric) == () for metric in metrics.values())


@pytest.mark.parametrize('name', [name for name in METHODS if not name.startswith('smooth_adv')])
def test_gradient_is_that_of_finite_differences(name):
  copies, mixed, share, y = example_logits(name, scale=1.0)
  with parallel.x64():
    x, y = arguments(name, copies, mixed, share, jnp.float64), jnp.asarray(y, int)

    def value(copies, mixed):
      at = x._replace(copies=copies, mixed=mixed) if name == 'smooth_mix' else copies
      return METHODS[name].loss(None, identity, at, y, jnp.int32(20))[0]

    parts = (x.copies, x.mixed) if name == 'smooth_mix' else (x, jnp.zeros(()))
    check_grads(jax.jit(value), parts, order=1, modes=['rev'], rtol=1e-5, atol=1e-7)


# MACER's hinge, where it counts and where it must not.

HINGE_CASES = {  # [m, K] logits of one image with y = 0 -> does the hinge count?
  'right': ([[1.0, 0.2, 0.0], [0.8, 0.5, 0.1]], True),
  'wrong class': ([[0.0, 1.0, 0.2], [0.1, 0.9, 0.0]], False),
  'xi above gamma': ([[3.0, 0.0, 0.0], [3.0, 0.1, 0.0]], False),
  'saturated': ([[900.0, 0.0, 0.0], [900.0, 0.0, 0.0]], False),
  'one copy saturated': ([[900.0, 0.0, 0.0], [0.5, 0.4, 0.0]], True),
}


def macer_value(x, lam=12.0):
  """MACER's (loss, metrics) of logits[B, m, K] with y = 0."""
  loss = train.macer(sigma=SIGMA, num_noises=2, beta=4.0, lam=lam).loss
  value, (metrics, _) = loss(None, identity, x, jnp.zeros(len(x), int), jnp.int32(0))
  return value, metrics


macer_and_gradient = jax.jit(jax.value_and_grad(macer_value, has_aux=True), static_argnums=1)


@pytest.mark.parametrize('case', HINGE_CASES)
@pytest.mark.parametrize('double', [False, True])
def test_macer_hinge(case, double):
  logits, counts = HINGE_CASES[case]
  with parallel.x64() if double else contextlib.nullcontext():
    x = jnp.asarray(logits, jnp.float64 if double else jnp.float32)[None]
    (plain, _), plain_gradient = jax.device_get(macer_and_gradient(x, 0.0))
    (full, metrics), gradient = jax.device_get(macer_and_gradient(x))
    assert np.isfinite(full) and np.isfinite(gradient).all()
    assert metrics['hinged'] == float(counts)
    if not counts:
      assert full == plain and metrics['radius'] == 0
      np.testing.assert_array_equal(gradient, plain_gradient)
      return
    q = softmax(4 * np.asarray(logits)).mean(0)
    xi = special.ndtri(q[0]) - special.ndtri(np.sort(q)[-2])
    np.testing.assert_allclose(full - plain, 12 * SIGMA / 2 * (8 - xi), rtol=1e-4)
    np.testing.assert_allclose(metrics['radius'], SIGMA / 2 * xi, rtol=1e-4)
    assert np.abs(gradient - plain_gradient).max() > 0.1
    if double:
      check_grads(
        jax.jit(lambda x: macer_value(x)[0]), (x,), order=1, modes=['rev'], rtol=1e-5, atol=1e-7
      )


def test_macer_drops_what_rounds_to_certainty():
  """q_1 = 1 in float32 with q_2 > 0 (xi infinite), and q_2 = 0 alone: no hinge, no NaN."""
  for gap, second in ((5.5, True), (50.0, False)):
    x = jnp.zeros((1, 2, 3)).at[:, :, 0].set(gap)
    q = np.asarray(jax.nn.softmax(4 * x[0, 0]))
    assert q[0] == 1 and (q[1] > 0) == second
    (value, metrics), gradient = macer_and_gradient(x)
    plain = macer_and_gradient(x, 0.0)
    assert np.isfinite(value) and np.isfinite(gradient).all() and metrics['hinged'] == 0
    assert value == plain[0][0]
    np.testing.assert_array_equal(gradient, plain[1])


def test_macer_hinge_of_a_batch_is_a_mean_over_all_images():
  """The masked ones count in the denominator, as in the paper's code."""
  right, wrong, flat = (HINGE_CASES[case][0] for case in ('right', 'wrong class', 'saturated'))
  hinge = lambda x: float(macer_and_gradient(x)[0][0] - macer_and_gradient(x, 0.0)[0][0])
  alone, beside = hinge(jnp.array([right] * 3)), hinge(jnp.array([right, wrong, flat]))
  np.testing.assert_allclose(beside, alone / 3, rtol=1e-5)


# Limits.

PLAIN = {  # name -> (objective, how many copies are drawn, how many of them meet the label)
  'stability': (train.stability(NOISE, weight=0.0), 2, 1),
  'stability clean': (train.stability(NOISE, weight=0.0, variant='clean'), 2, 1),
  'stability both': (train.stability(NOISE, weight=0.0, variant='both'), 2, 2),
  'macer': (train.macer(sigma=SIGMA, num_noises=1, lam=0.0), 1, 1),
  'consistency': (train.consistency(NOISE, weight=0.0, eta=0.0), 2, 2),
  'smooth_mix': (train.smooth_mix(NOISE, step_size=0.5, eta=0.0), 2, 2),
  'augmented': (train.augmented(NOISE, num_noises=2), 2, 2),
  'augmented m=1': (train.augmented(NOISE), 1, 1),
  'smooth_adv m=1': (train.smooth_adv(NOISE, eps=0.25), 1, 1),
}


@pytest.mark.parametrize('name', PLAIN)
def test_weight_zero_is_noise_augmentation(name):
  """The same value and gradient as plain cross-entropy on the same noisy copies."""
  objective, drawn, judged = PLAIN[name]
  copies, mixed, share, y = example_logits(name)
  y = jnp.asarray(y)

  def ours(copies):
    x = arguments(name, copies, mixed, share, jnp.float32)
    return objective.loss(None, identity, x, y, jnp.int32(0))[0]

  def plain(copies):
    rows = copies[:, :judged].reshape(-1, 5)
    return train.cross_entropy(None, identity, rows, jnp.repeat(y, judged), 0)[0]

  at = jnp.float32(copies[:, :drawn])
  a, b = (jax.jit(jax.value_and_grad(f))(at) for f in (ours, plain))
  chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-7)


# Noise: fresh at every step, the same at the same step, alone or in company, on any devices.


@pytest.mark.parametrize('name', ['augmented', 'stability clean', *ATTACKING])
def test_noise_is_that_of_each_examples_key(name):
  """And the attack sees the model in evaluation mode: with the statistics of the batch, the points
  of an image would depend on its company."""
  batch, keys, perturb = example_batch(), keys_of(), compiled_perturb(name)
  x, y, model_fn = jnp.asarray(batch['x']), jnp.asarray(batch['y']), trained_like()
  one = perturb(keys, model_fn, x, y, jnp.int32(20))
  company = np.array([2, 0, 0, 4, 2, 5])
  other = perturb(keys[company], model_fn, x[company], y[company], jnp.int32(20))
  for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
    np.testing.assert_allclose(a[company], b, atol=1e-5)
  two = perturb(keys_of(seed=4), model_fn, x, y, jnp.int32(20))
  parts = lambda given: given[:2] if name == 'smooth_mix' else [given]
  for pair in zip(parts(one), parts(two), strict=True):
    first = 1 if name == 'stability clean' else 0
    draws = np.concatenate([np.asarray(part)[:, first:] - batch['x'][:, None] for part in pair])
    draws = draws.reshape(-1, 16)  # Every draw of every image under both keys differs.
    distance = np.linalg.norm(draws[:, None] - draws[None], axis=-1) + 9 * np.eye(len(draws))
    assert distance.min() > 0.3  # Of sqrt(2) 4 sigma = 1.4 on average; equal noise gives 0.
  if name == 'stability clean':
    np.testing.assert_array_equal(one[:, 0], x)
  if name == 'smooth_mix':
    assert len(set(np.concatenate([one.share, two.share]).tolist())) == 12
    plain = compiled_perturb('augmented')(keys, model_fn, x, y, jnp.int32(20))
    np.testing.assert_allclose(one.copies, plain, atol=1e-6)


def test_noise_is_fresh_at_every_step_and_the_same_in_every_run():
  def spy(keys, apply, x, y, step):
    return jnp.float32(0), ({'x': x}, apply(x.reshape(-1, *SHAPE), True)[1])

  spying = METHODS['augmented']._replace(loss=spy)
  one, two = (seen['x'] for seen in run_steps(spying, 2))
  noise = np.stack([one, two]) - example_batch()['x'][:, None]
  correlation = np.corrcoef(noise.reshape(24, 16)) - np.eye(24)
  # 16 pixels: |r| > 0.93 by chance with probability 1e-7 a pair, of 276, at fixed keys.
  assert np.abs(correlation).max() < 0.93
  np.testing.assert_array_equal(run_steps(spying, 1)[0]['x'], one)


def test_draws_do_not_depend_on_their_number():
  x = jnp.asarray(example_batch()['x'])
  five = jax.jit(train.augmented(NOISE, num_noises=5).perturb)(keys_of(), linear_fn(), x, None, 0)
  first = np.asarray(five[:, :2] - x[:, None]).reshape(6, 2, -1)
  np.testing.assert_allclose(first, example_noises(), atol=1e-6)


def losses_on_devices():
  """number of devices -> losses of 2 steps; for the script below."""
  runs = {n: run_steps(METHODS['smooth_adv pgd'], 2, n) for n in (1, 2)}
  return {n: [float(metrics['loss']) for metrics in seen] for n, seen in runs.items()}


def test_noise_does_not_depend_on_the_number_of_devices():
  done = subprocess.run(
    [sys.executable, str(pathlib.Path(__file__))],
    capture_output=True, text=True, timeout=300, check=False,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '2'},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  losses = json.loads(done.stdout)
  assert np.ptp(losses['1']) > 1e-4  # The weights stay: other noise at the second step.
  np.testing.assert_allclose(losses['2'], losses['1'], rtol=1e-6)


@pytest.mark.parametrize('name', METHODS)
def test_the_pass_over_the_copies_updates_the_statistics(name):
  copies, mixed, share, y = example_logits(name)
  x = arguments(name, copies, mixed, share, jnp.float32)
  trained = []

  def apply(x, train):
    trained.append(train)
    return identity(x, train)

  loss = jax.jit(METHODS[name].loss, static_argnums=1)
  _, (_, stats) = loss(None, apply, x, jnp.asarray(y), jnp.int32(20))
  assert trained == [True] * (2 if name == 'smooth_mix' else 1)
  np.testing.assert_array_equal(stats['seen'], np.float32(copies).reshape(-1, 5))


# SmoothAdv: its points, its ball, its warm-up; SmoothMix: its path.

W = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


def linear_fn():
  """The linear model as jit takes it."""
  return jax.tree_util.Partial(linear)


def flat_batch():
  """(x[6, 16] in float64, y[6])."""
  batch = example_batch()
  return np.float64(batch['x']).reshape(6, -1), batch['y']


@functools.cache
def example_noises():
  """The noise of augmentation, [6, 2, 16]."""
  x, y = (jnp.asarray(example_batch()[name]) for name in 'xy')
  copies = compiled_perturb('augmented')(keys_of(), trained_like(), x, y, jnp.int32(20))
  return np.float64(copies - x[:, None]).reshape(6, 2, -1)


def rows_of(points):
  """(point, noise, y) of each image."""
  return zip(points, example_noises(), flat_batch()[1], strict=True)


def numpy_gradient(point, noise, y):
  """(J, its gradient) of ONE image, noise[m, 16], for the linear model, in float64."""
  p = softmax((point + noise - 0.5) @ np.float64(W))
  share = p[:, y] / p[:, y].sum()
  return -np.log(p[:, y].mean()), np.float64(W) @ (share @ (p - np.eye(3)[y]))


def loss_of(points):
  return np.array([numpy_gradient(*row)[0] for row in rows_of(points)])


def numpy_pgd(x, noise, y, eps, num_steps):
  """Steps of 2 eps / T from x; the best point."""
  point, seen = x, []
  for _ in range(num_steps):
    value, gradient = numpy_gradient(point, noise, y)
    seen.append((value, point))
    delta = point - x + 2 * eps / num_steps * gradient / np.linalg.norm(gradient)
    point = np.clip(x + delta * min(1, eps / np.linalg.norm(delta)), 0, 1)
  seen.append((numpy_gradient(point, noise, y)[0], point))
  return max(seen, key=lambda entry: entry[0])[1]


def smooth_adv_points(perturb, step=20):
  """x'[6, 16] for the linear model, after a check that all copies carry the noise of augmentation."""
  x, y = (jnp.asarray(example_batch()[name]) for name in 'xy')
  copies = perturb(keys_of(), linear_fn(), x, y, jnp.int32(step))
  points = np.float64(copies).reshape(6, 2, -1) - np.float64(example_noises())
  assert np.ptp(points, axis=1).max() < 1e-5  # The noise of the attack is that of the training.
  return points.mean(1)


def test_smooth_adv_pgd_is_that_of_numpy_and_warms_up():
  x, perturb = flat_batch()[0], compiled_perturb('smooth_adv pgd')
  for step, eps in ((0, 0.04), (4, 0.2), (9, 0.4), (50, 0.4)):
    points = smooth_adv_points(perturb, step)
    np.testing.assert_allclose(points, [numpy_pgd(*row, eps, 3) for row in rows_of(x)], atol=2e-5)
    assert (np.linalg.norm(points - x, axis=1) <= eps + 1e-5).all()
    assert points.min() > -1e-6 and points.max() < 1 + 1e-6
    assert (loss_of(points) > loss_of(x) + eps / 4).all()


def test_smooth_adv_ddn_raises_the_loss_inside_the_ball():
  x, y = flat_batch()
  points = smooth_adv_points(compiled_perturb('smooth_adv ddn'))
  mean = lambda at: np.stack([softmax((c + e - 0.5) @ W).mean(0) for c, e, _ in rows_of(at)])
  wrong, distance = mean(x).argmax(1) != y, np.linalg.norm(points - x, axis=1)
  assert 0 < wrong.sum() < 6
  assert distance[wrong].max() < 1e-5  # It leaves what is misclassified already.
  assert (distance <= 0.4 + 1e-5).all() and points.min() > -1e-6 and points.max() < 1 + 1e-6
  assert (loss_of(points) > loss_of(x) + 0.05)[~wrong].all()


def test_smooth_adv_takes_any_attack_and_threat():
  sign = lambda threat, num_steps: attacks.pgd(
    threat, step_size=threat.eps, num_steps=num_steps, random_start=False
  )
  objective = train.smooth_adv(
    NOISE, eps=0.1, num_steps=1, num_noises=2, attack=sign, threat=threats.linf
  )
  moved = np.abs(smooth_adv_points(jax.jit(objective.perturb)) - flat_batch()[0]).max(axis=1)
  np.testing.assert_allclose(moved, 0.1, atol=1e-5)


def test_smooth_mix_path_is_that_of_numpy():
  objective = train.smooth_mix(NOISE, step_size=0.5, num_steps=3, one_step=True, warmup_steps=4)
  x, y = (jnp.asarray(example_batch()[name]) for name in 'xy')
  mixed = jax.jit(objective.perturb)(keys_of(), linear_fn(), x, y, jnp.int32(1))
  clean, start, last = flat_batch()[0], [], []
  for point, noise, y in rows_of(clean):
    path = [point]
    for _ in range(3):
      gradient = numpy_gradient(path[-1], noise, y)[1]
      path.append(np.clip(path[-1] + 0.5 * gradient / np.linalg.norm(gradient), 0, 1))
    delta = path[1] - point  # At step 1 of 4 of the warm-up: within half a step.
    start.append(point + delta * min(1, 0.25 / np.linalg.norm(delta)))
    last.append(path[-1])
  start, last, share = np.stack(start), np.stack(last), np.float64(mixed.share)
  assert (share > 0).all() and (share <= 0.5).all() and len(set(share)) == 6
  flat = lambda a: np.float64(a).reshape(6, 2, -1)
  np.testing.assert_allclose(flat(mixed.copies), start[:, None] + example_noises(), atol=2e-5)
  between = (1 - share[:, None]) * start + share[:, None] * last
  np.testing.assert_allclose(flat(mixed.mixed), between[:, None] + example_noises(), atol=2e-5)
  assert np.linalg.norm(last - clean, axis=1).min() > 0.6  # No ball.


def test_smooth_mix_warms_up_its_weight():
  copies, mixed, share, y = example_logits('smooth_mix')
  x = arguments('smooth_mix', copies, mixed, share, jnp.float32)
  warm = train.smooth_mix(NOISE, step_size=0.5, warmup_steps=10)
  loss = jax.jit(warm.loss, static_argnums=1)
  for step, factor in ((0, 0.1), (4, 0.5), (9, 1.0), (99, 1.0)):
    value, (metrics, _) = loss(None, identity, x, jnp.asarray(y), jnp.int32(step))
    expected = metrics['cross_entropy'] + 5 * factor * metrics['mix']
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_consistency_on_the_points_of_smooth_adv():
  """Jeong & Shin's combination: one method's copies, the other's loss."""
  x, y = (jnp.asarray(example_batch()[name]) for name in 'xy')
  given = compiled_perturb('smooth_adv pgd')(keys_of(), linear_fn(), x, y, jnp.int32(20))
  apply = lambda x, train: (linear(x), {})
  value = METHODS['consistency'].loss(None, apply, given, y, 0)[0]
  logits = np.float64(linear(given.reshape(-1, *SHAPE))).reshape(6, 2, 3)
  rows = zip(logits, example_batch()['y'], strict=True)
  expected = np.mean([numpy_loss('consistency', *row) for row in rows])
  np.testing.assert_allclose(value, expected, rtol=1e-5)


# Errors.


@pytest.mark.parametrize(
  'make, match',
  [
    (lambda: train.augmented(NOISE, num_noises=0), '`num_noises` must be at least 1'),
    (lambda: train.stability(NOISE, variant='li'), '`variant` must be one of noisy, clean, both'),
    (lambda: train.stability(NOISE, weight=-1), '`weight` must be at least 0'),
    (lambda: train.consistency(NOISE, num_noises=1), '`num_noises` must be at least 2'),
    (lambda: train.consistency(NOISE, eta=-1.0), '`weight` and `eta`'),
    (lambda: train.macer(sigma=0.25, gamma=0.0), '`beta` and `gamma` must be positive'),
    (lambda: train.macer(sigma=0.0), '`sigma`'),
    (lambda: train.smooth_adv(NOISE, eps=0.25, attack='fgsm'), '`attack` must be one of pgd, ddn'),
    (lambda: train.smooth_adv(NOISE, eps=0.0), '`eps` .* must be positive'),
    (lambda: train.smooth_adv(NOISE, eps=0.1, attack='ddn', threat=threats.linf), 'must be L2'),
    (lambda: train.smooth_mix(NOISE, step_size=0.0), '`step_size` and `num_steps` must be'),
  ],
)
def test_bad_arguments(make, match):
  with pytest.raises(ValueError, match=match):
    make()


@pytest.mark.parametrize('name', [name for name in METHODS if name != 'smooth_mix'])
def test_a_loss_without_its_perturb_is_refused(name):
  with pytest.raises(ValueError, match='this loss takes 2 noisy copies an image'):
    METHODS[name].loss(None, identity, jnp.zeros((4, 8, 8, 1)), jnp.zeros(4, jnp.int32), 0)


# Real digits.

RECIPES = {
  'stability': train.stability(NOISE),
  'macer': train.macer(sigma=SIGMA, num_noises=4),
  'consistency': train.consistency(NOISE, weight=5.0),
  'smooth_adv pgd': train.smooth_adv(NOISE, eps=0.25, num_steps=2, num_noises=2, warmup_steps=40),
  'smooth_adv ddn': train.smooth_adv(NOISE, eps=0.25, num_steps=2, attack='ddn', warmup_steps=40),
  'smooth_mix': train.smooth_mix(NOISE, step_size=0.5, num_steps=2, warmup_steps=40),
}


@pytest.mark.parametrize('name', RECIPES)
def test_trains_digits_in_one_trace(name, data_dir):
  """100 steps of a small CNN; 1,797 digits, 500 of them held out."""
  images, held_out = (data.load('digits', split, data_dir=data_dir) for split in ('train', 'test'))
  module, tx = models.build('digits-cnn', num_classes=10, width=8), optax.adam(5e-3)
  seen = []
  chex.clear_trace_counter()
  state = train.fit(
    chex.assert_max_traces(train.make_step(module, tx, **RECIPES[name]._asdict()), n=1),
    train.init_state(jax.random.key(0), module, tx, (8, 8, 1)),
    data.batches(images, 32, seed=0, num_steps=100), key=jax.random.key(1),
    mesh=parallel.data_mesh(jax.devices()[:1]), log_every=20,
    on_log=lambda step, metrics: seen.append(metrics),
  )  # fmt: skip
  assert int(state.step) == 100
  # MACER's hinge exists only where the class is right: its loss begins low, with nothing right.
  measured = 'cross_entropy' if name == 'macer' else 'loss'
  assert all(np.isfinite(s['loss']) for s in seen)
  assert seen[-1][measured] < 0.75 * seen[0][measured]
  if name == 'macer':
    assert seen[-1]['radius'] > 2 * seen[0]['radius'] > 0
  x = jnp.asarray(data.to_float(held_out.images))
  noisy = jax.jit(jax.vmap(NOISE.sample))(keys_of(len(x), 9), x)
  right = np.asarray(models.bind(module, state.variables)(noisy)).argmax(1) == held_out.labels
  assert right.mean() > 0.6


if __name__ == '__main__':
  print(json.dumps(losses_on_devices()))
