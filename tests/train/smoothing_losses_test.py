"""Training for smoothing: each loss against numpy, whose noise is seen, which pass counts, and that
every method trains real digits. Run as a script: the same losses on one and on two devices."""

import contextlib
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

METHODS = {  # name -> (objective, m)
  'augmented': (train.augmented(NOISE, num_noises=3), 3),
  'stability': (train.stability(NOISE), 2),
  'stability clean': (train.stability(NOISE, variant='clean', weight=2.0), 2),
  'stability both': (train.stability(NOISE, variant='both'), 2),
  'macer': (train.macer(sigma=SIGMA, num_noises=3, beta=4.0), 3),
  'consistency': (train.consistency(NOISE), 2),
  'smooth_adv pgd': (train.smooth_adv(NOISE, eps=0.25, num_steps=2, num_noises=2), 2),
  'smooth_adv ddn': (train.smooth_adv(NOISE, eps=0.25, num_steps=2, num_noises=2, attack='ddn'), 2),
  'smooth_mix': (train.smooth_mix(NOISE, step_size=0.5, num_steps=2), 2),
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


def example_batch(size=8, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.uniform(0, 1, (size, *SHAPE)).astype(np.float32)
  return {'x': x, 'y': rng.integers(0, 3, size).astype(np.int32), 'index': np.arange(size)}


def keys_of(size, seed=3):
  return jax.random.split(jax.random.key(seed), size)


def run_steps(objective, batches, num_devices=1, tx=None):
  """Trains a fresh Normalised; the state, and the metrics of each batch."""
  mesh = parallel.data_mesh(jax.devices()[:num_devices])
  module, tx = Normalised(), tx or optax.sgd(0.1)
  specs = (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED)
  step = train.make_step(module, tx, **objective._asdict())
  compiled = parallel.pmap(step, mesh, specs, (parallel.REPLICATED, parallel.REPLICATED))
  state = train.init_state(jax.random.key(0), module, tx, SHAPE)
  state, key = parallel.replicate(mesh, (state, jax.random.key(7)))
  seen = []
  for batch in batches:
    state, metrics = compiled(state, key, parallel.shard_batch(mesh, batch))
    seen.append(jax.device_get(metrics))
  return state, seen


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
  """(copies, y): random logits of 12 examples, as the loss of `name` takes them, and for numpy."""
  rng = np.random.default_rng(0)
  draw = lambda: scale * rng.normal(size=(12, METHODS[name][1], 5))
  copies, mixed = draw(), draw()
  share, y = rng.uniform(0.01, 0.5, 12), rng.integers(0, 5, 12)
  y[:8] = softmax(copies[:8]).mean(1).argmax(-1)  # Right ones among them.
  if name == 'macer':
    y[:8] = softmax(4 * copies[:8]).mean(1).argmax(-1)
  return copies, mixed, share, y


def arguments(name, copies, mixed, share, dtype):
  if name == 'smooth_mix':
    return train.Mixed(*(jnp.asarray(part, dtype) for part in (copies, mixed, share)))
  return jnp.asarray(copies, dtype)


@pytest.mark.parametrize('name', METHODS)
def test_loss_is_that_of_numpy(name):
  copies, mixed, share, y = example_logits(name)
  x = arguments(name, copies, mixed, share, jnp.float32)
  value, (metrics, _) = METHODS[name][0].loss(None, identity, x, jnp.asarray(y), jnp.int32(0))
  rows = zip(copies, y, mixed, share, strict=True)
  expected = np.mean([numpy_loss(name, *row) for row in rows])
  np.testing.assert_allclose(value, expected, rtol=2e-5)
  correct = (copies.argmax(-1) == y[:, None]).mean()
  np.testing.assert_allclose(metrics['accuracy'], correct, rtol=1e-6)
  assert all(np.shape(metric) == () for metric in metrics.values())


@pytest.mark.parametrize('name', [name for name in METHODS if not name.startswith('smooth_adv')])
def test_gradient_is_that_of_finite_differences(name):
  copies, mixed, share, y = example_logits(name, scale=1.0)
  with parallel.x64():
    x = arguments(name, copies, mixed, share, jnp.float64)

    def value(copies, mixed):
      at = x._replace(copies=copies, mixed=mixed) if name == 'smooth_mix' else copies
      return METHODS[name][0].loss(None, identity, at, jnp.asarray(y), jnp.int32(0))[0]

    parts = (x.copies, x.mixed) if name == 'smooth_mix' else (x, jnp.zeros(()))
    check_grads(value, parts, order=1, modes=['rev'], rtol=1e-5, atol=1e-7)


# MACER's hinge, where it counts and where it must not.

HINGE_CASES = {  # [m, K] logits of one image with y = 0 -> does the hinge count?
  'right': ([[1.0, 0.2, 0.0], [0.8, 0.5, 0.1]], True),
  'wrong class': ([[0.0, 1.0, 0.2], [0.1, 0.9, 0.0]], False),
  'xi above gamma': ([[3.0, 0.0, 0.0], [3.0, 0.1, 0.0]], False),
  'saturated': ([[900.0, 0.0, 0.0], [900.0, 0.0, 0.0]], False),
  'one copy saturated': ([[900.0, 0.0, 0.0], [0.5, 0.4, 0.0]], True),
}


@pytest.mark.parametrize('case', HINGE_CASES)
@pytest.mark.parametrize('double', [False, True])
def test_macer_hinge(case, double):
  logits, counts = HINGE_CASES[case]
  with parallel.x64() if double else contextlib.nullcontext():
    x = jnp.asarray(logits, jnp.float64 if double else jnp.float32)[None]
    terms = {}
    for lam in (0.0, 12.0):
      loss = train.macer(sigma=SIGMA, num_noises=2, beta=4.0, lam=lam).loss
      value = lambda x, loss=loss: loss(None, identity, x, jnp.array([0]), 0)
      terms[lam] = jax.value_and_grad(value, has_aux=True)(x)
    (plain, _), plain_gradient = terms[0.0]
    (full, (metrics, _)), gradient = terms[12.0]
    assert np.isfinite(full) and np.isfinite(gradient).all()
    assert float(metrics['hinged']) == float(counts)
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
      value = lambda x: loss(None, identity, x, jnp.array([0]), 0)[0]
      check_grads(value, (x,), order=1, modes=['rev'], rtol=1e-5, atol=1e-7)


def test_macer_hinge_of_a_batch_is_a_mean_over_all_images():
  """The masked ones count in the denominator, as in the paper's code."""
  right = HINGE_CASES['right'][0]
  loss = train.macer(sigma=SIGMA, num_noises=2, beta=4.0).loss
  plain = train.macer(sigma=SIGMA, num_noises=2, beta=4.0, lam=0.0).loss
  hinge = lambda x: (
    float(loss(None, identity, x, jnp.zeros(len(x), int), 0)[0])
    - float(plain(None, identity, x, jnp.zeros(len(x), int), 0)[0])
  )
  alone = hinge(jnp.array([right]))
  beside = hinge(jnp.array([right, HINGE_CASES['wrong class'][0], HINGE_CASES['saturated'][0]]))
  np.testing.assert_allclose(beside, alone / 3, rtol=1e-5)


# Limits.

PLAIN = {
  'stability': train.stability(NOISE, weight=0.0),
  'stability clean': train.stability(NOISE, weight=0.0, variant='clean'),
  'stability both': train.stability(NOISE, weight=0.0, variant='both'),
  'macer': train.macer(sigma=SIGMA, num_noises=1, lam=0.0),
  'consistency': train.consistency(NOISE, num_noises=3, weight=0.0, eta=0.0),
  'smooth_mix': train.smooth_mix(NOISE, step_size=0.5, num_steps=1, num_noises=3, eta=0.0),
  'augmented': train.augmented(NOISE, num_noises=3),
  'augmented m=1': train.augmented(NOISE),
}


@pytest.mark.parametrize('name', PLAIN)
def test_weight_zero_is_noise_augmentation(name):
  """The same value and gradient as plain cross-entropy on the same noisy copies."""
  batch, model = example_batch(), Normalised()
  variables = model.init(jax.random.key(0), jnp.asarray(batch['x']))
  apply = lambda params: lambda x, train: (model.apply({**variables, 'params': params}, x), {})
  x, y = jnp.asarray(batch['x']), jnp.asarray(batch['y'])
  given = PLAIN[name].perturb(keys_of(8), models.bind(model, variables), x, y, jnp.int32(0))
  copies = given.copies if name == 'smooth_mix' else given
  judged = copies[:, :1] if name in ('stability', 'stability clean') else copies
  rows, labels = judged.reshape(-1, *SHAPE), jnp.repeat(y, judged.shape[1])
  ours = lambda params: PLAIN[name].loss(None, apply(params), given, y, jnp.int32(0))[0]
  plain = lambda params: train.cross_entropy(None, apply(params), rows, labels, 0)[0]
  a, b = (jax.value_and_grad(f)(variables['params']) for f in (ours, plain))
  chex.assert_trees_all_close(a, b, rtol=1e-4, atol=1e-6)
  if name == 'stability clean':
    np.testing.assert_array_equal(copies[:, 0], x)


# Noise: fresh at every step, the same at the same step, alone or in company, on any devices.


@pytest.mark.parametrize('name', METHODS)
def test_noise_is_fresh_at_every_step_and_the_same_at_the_same(name):
  objective, m = METHODS[name]

  def spy(keys, apply, x, y, step):
    seen = x._asdict() if name == 'smooth_mix' else {'copies': x}
    return jnp.float32(0), (seen, apply(jnp.zeros((2, *SHAPE)), True)[1])

  batch = example_batch(4)
  spying = objective._replace(loss=spy)
  still = optax.sgd(0.0)  # Equal weights: the attacks differ by their noise alone.
  _, (one, two) = run_steps(spying, [batch] * 2, tx=still)
  _, (again,) = run_steps(spying, [{k: v[[2, 0]] for k, v in batch.items()}], tx=still)
  for part in ('copies', 'mixed')[: 2 if name == 'smooth_mix' else 1]:
    assert one[part].shape == (4, m, *SHAPE)
    np.testing.assert_allclose(again[part], one[part][[2, 0]], atol=1e-6)
    first = 1 if name == 'stability clean' else 0
    noise = np.stack([s[part][:, first:] - batch['x'][:, None] for s in (one, two)])
    noise = noise.reshape(-1, 16)  # Every draw of every image at both steps differs.
    correlation = np.corrcoef(noise) - np.eye(len(noise))
    if name not in ATTACKING:  # An attack adds the same direction to all of an image's copies.
      # 16 pixels: |r| > 0.93 by chance with probability 1e-7 a pair.
      assert np.abs(correlation).max() < 0.93
    distance = np.linalg.norm(noise[:, None] - noise[None], axis=-1) + np.eye(len(noise)) * 9
    assert distance.min() > 0.3  # Of sqrt(2) * 4 sigma = 1.4 on average.
  if name == 'smooth_mix':
    assert (one['share'] != two['share']).all()
    np.testing.assert_array_equal(again['share'], one['share'][[2, 0]])


def test_draws_do_not_depend_on_their_number():
  x = jnp.asarray(example_batch(4)['x'])
  two, five = (
    train.augmented(NOISE, num_noises=m).perturb(keys_of(4), None, x, None, 0) for m in (2, 5)
  )
  np.testing.assert_array_equal(two, five[:, :2])


def losses_on_devices():
  """name -> {number of devices: losses of 3 steps}; for the script below."""
  result = {}
  batches = [example_batch(8, seed) for seed in range(3)]
  for name in ('stability', 'smooth_adv pgd', 'smooth_mix'):
    runs = {n: run_steps(METHODS[name][0], batches, n)[1] for n in (1, 2)}
    result[name] = {n: [float(s['loss']) for s in seen] for n, seen in runs.items()}
  return result


def test_noise_does_not_depend_on_the_number_of_devices():
  done = subprocess.run(
    [sys.executable, str(pathlib.Path(__file__))],
    capture_output=True, text=True, timeout=300, check=False,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '2'},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  for name, runs in json.loads(done.stdout).items():
    assert np.ptp(runs['1']) > 1e-3, name
    np.testing.assert_allclose(runs['2'], runs['1'], rtol=2e-5, err_msg=name)


# Which pass updates the statistics, and which mode the attack sees.


@pytest.mark.parametrize('name', METHODS)
def test_the_pass_over_the_copies_updates_the_statistics(name):
  copies, mixed, share, y = example_logits(name)
  x = arguments(name, copies, mixed, share, jnp.float32)
  trained = []

  def apply(x, train):
    trained.append(train)
    return identity(x, train)

  _, (_, stats) = METHODS[name][0].loss(None, apply, x, jnp.asarray(y), jnp.int32(0))
  assert trained == [True] * (2 if name == 'smooth_mix' else 1)
  np.testing.assert_array_equal(stats['seen'], np.float32(copies).reshape(-1, 5))


@pytest.mark.parametrize('name', ATTACKING)
def test_the_attack_sees_the_model_in_evaluation_mode(name):
  """Were the statistics those of the batch, an image's points would depend on its company."""
  batch, model = example_batch(4), Normalised()
  variables = model.init(jax.random.key(0), jnp.asarray(batch['x']))
  variables = {
    **variables,
    'batch_stats': jax.tree.map(lambda v: v + 0.5, variables['batch_stats']),
  }
  model_fn = models.bind(model, variables)
  points = lambda rows: METHODS[name][0].perturb(
    keys_of(4)[rows], model_fn, batch['x'][rows], batch['y'][rows], jnp.int32(0)
  )
  whole, part = points(np.arange(4)), points(np.array([2, 1]))
  for a, b in zip(*map(jax.tree.leaves, (whole, part)), strict=True):
    np.testing.assert_allclose(a[np.array([2, 1])], b, atol=1e-5)


# SmoothAdv: its points, its ball, its warm-up; SmoothMix: its path.

W = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


def numpy_gradient(point, noise, y):
  """(J, its gradient) of ONE image, noise[m, 16], for the linear model, in float64."""
  p = softmax((point + noise - 0.5) @ np.float64(W))
  share = p[:, y] / p[:, y].sum()
  return -np.log(p[:, y].mean()), np.float64(W) @ (share @ (p - np.eye(3)[y]))


def noises(x, num_noises, keys):
  copies = train.augmented(NOISE, num_noises=num_noises).perturb(keys, None, x, None, 0)
  return np.float64(copies - x[:, None]).reshape(len(x), num_noises, -1)


def numpy_pgd(x, noise, y, eps, num_steps):
  point, seen = x, []
  for _ in range(num_steps):
    value, gradient = numpy_gradient(point, noise, y)
    seen.append((value, point))
    delta = point - x + 2 * eps / num_steps * gradient / np.linalg.norm(gradient)
    point = np.clip(x + delta * min(1, eps / np.linalg.norm(delta)), 0, 1)
  seen.append((numpy_gradient(point, noise, y)[0], point))
  return max(seen, key=lambda entry: entry[0])[1]


def smooth_adv_points(x, y, step=100, m=4, **options):
  """(x', the copies) and a check that all copies of an image carry the noise of augmentation."""
  objective = train.smooth_adv(NOISE, num_noises=m, **options)
  copies = objective.perturb(keys_of(len(x)), linear, x, y, jnp.int32(step))
  points = np.float64(copies).reshape(len(x), m, -1) - noises(x, m, keys_of(len(x)))
  assert np.ptp(points, axis=1).max() < 1e-5  # The noise of the attack is that of the training.
  return points.mean(1), copies


def smooth_adv_batch():
  batch = example_batch(6, seed=5)
  return jnp.asarray(batch['x']), jnp.asarray(batch['y'])


def test_smooth_adv_pgd_is_that_of_numpy():
  x, y = smooth_adv_batch()
  points, _ = smooth_adv_points(x, y, eps=0.5, num_steps=3)
  noise = noises(x, 4, keys_of(6))
  rows = zip(np.float64(x).reshape(6, -1), noise, np.asarray(y), strict=True)
  np.testing.assert_allclose(points, [numpy_pgd(*row, 0.5, 3) for row in rows], atol=2e-5)


@pytest.mark.parametrize('attack', ['pgd', 'ddn'])
@pytest.mark.parametrize('m', [1, 4])
def test_smooth_adv_raises_the_loss_inside_the_ball(attack, m):
  x, y = smooth_adv_batch()
  points, _ = smooth_adv_points(x, y, m=m, eps=0.3, num_steps=4, attack=attack)
  clean, noise = np.float64(x).reshape(6, -1), noises(x, m, keys_of(6))
  distance = np.linalg.norm(points - clean, axis=1)
  assert (distance <= 0.3 + 1e-5).all() and points.min() > -1e-6 and points.max() < 1 + 1e-6
  before, after = (
    np.array([numpy_gradient(*row)[0] for row in zip(part, noise, np.asarray(y), strict=True)])
    for part in (clean, points)
  )
  wrong = (
    np.array(
      [softmax((c + e - 0.5) @ W).mean(0).argmax() for c, e in zip(clean, noise, strict=True)]
    )
    != y
  )
  if attack == 'ddn':  # It leaves what is misclassified already.
    assert 0 < wrong.sum() < 6
    assert distance[wrong].max() < 1e-5
    before, after = before[~wrong], after[~wrong]
  assert (after > before + 0.05).all()


def test_smooth_adv_warms_up():
  x, y = smooth_adv_batch()
  options = dict(eps=0.4, num_steps=2, warmup_steps=10)
  for step, eps in ((0, 0.04), (4, 0.2), (9, 0.4), (50, 0.4)):
    points, _ = smooth_adv_points(x, y, step=step, **options)
    fixed, _ = smooth_adv_points(x, y, eps=eps, num_steps=2)
    np.testing.assert_allclose(points, fixed, atol=1e-5)


def test_smooth_adv_takes_any_attack_and_threat():
  x, y = smooth_adv_batch()
  sign = lambda threat, num_steps: attacks.pgd(
    threat, step_size=threat.eps, num_steps=1, random_start=False
  )
  points, _ = smooth_adv_points(x, y, eps=0.1, attack=sign, threat=threats.linf)
  moved = np.abs(points - np.float64(x).reshape(6, -1)).max(axis=1)
  np.testing.assert_allclose(moved, 0.1, atol=1e-5)


@pytest.mark.parametrize('one_step', [False, True])
def test_smooth_mix_path_is_that_of_numpy(one_step):
  x, y = smooth_adv_batch()
  objective = train.smooth_mix(NOISE, step_size=0.5, num_steps=3, one_step=one_step, warmup_steps=4)
  mixed = objective.perturb(keys_of(6), linear, x, y, jnp.int32(1))
  noise, clean = noises(x, 2, keys_of(6)), np.float64(x).reshape(6, -1)
  start, last = np.zeros_like(clean), np.zeros_like(clean)
  for row in range(6):
    point, path = clean[row], []
    for _ in range(3):
      gradient = numpy_gradient(point, noise[row], int(y[row]))[1]
      point = np.clip(point + 0.5 * gradient / np.linalg.norm(gradient), 0, 1)
      path.append(point)
    delta = path[0] - clean[row]  # At step 1 of 4 of the warm-up: within half a step.
    within = clean[row] + delta * min(1, 0.25 / np.linalg.norm(delta))
    start[row], last[row] = within if one_step else clean[row], path[-1]
  share = np.float64(mixed.share)
  assert (share > 0).all() and (share <= 0.5).all() and len(set(share)) == 6
  flat = lambda a: np.float64(a).reshape(6, 2, -1)
  np.testing.assert_allclose(flat(mixed.copies), start[:, None] + noise, atol=2e-5)
  between = (1 - share[:, None]) * start + share[:, None] * last
  np.testing.assert_allclose(flat(mixed.mixed), between[:, None] + noise, atol=2e-5)
  assert np.linalg.norm(last - clean, axis=1).min() > 0.6  # No ball.


def test_smooth_mix_warms_up_its_weight():
  copies, mixed, share, y = example_logits('smooth_mix')
  x = arguments('smooth_mix', copies, mixed, share, jnp.float32)
  warm = train.smooth_mix(NOISE, step_size=0.5, warmup_steps=10)
  for step, factor in ((0, 0.1), (4, 0.5), (9, 1.0), (99, 1.0)):
    value, (metrics, _) = warm.loss(None, identity, x, jnp.asarray(y), jnp.int32(step))
    expected = metrics['cross_entropy'] + 5 * factor * metrics['mix']
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_consistency_on_the_points_of_smooth_adv():
  """Jeong & Shin's combination: one method's copies, the other's loss."""
  adversarial = METHODS['smooth_adv pgd'][0]
  combined = train.Objective(METHODS['consistency'][0].loss, adversarial.perturb)
  _, seen = run_steps(combined, [example_batch()] * 2)
  assert np.isfinite(seen[1]['loss']) and seen[1]['consistency'] > 0


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
  objective, m = METHODS[name]
  with pytest.raises(ValueError, match=f'this loss takes {m} noisy copies an image'):
    objective.loss(None, identity, jnp.zeros((4, 8, 8, 1)), jnp.zeros(4, int), 0)


# Real digits.

RECIPES = {
  'augmented': train.augmented(NOISE),
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
  noisy = jax.vmap(NOISE.sample)(keys_of(len(x), 9), x)
  right = np.asarray(models.bind(module, state.variables)(noisy)).argmax(1) == held_out.labels
  assert right.mean() > 0.6


if __name__ == '__main__':
  print(json.dumps(losses_on_devices()))
